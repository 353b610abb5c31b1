"""The same skill in each language of both tiers: the template's `bid`, which answers a request of about 200 bytes with one of about 70.

`call_us` is a whole hook call as a node makes it: the typed request to CBOR, a fresh instance, the call, the reply checked and decoded. `guest_us` is the
guest's part of it, `instance_us` a fresh guarded instance made and freed, `build_s` a build of the unchanged project with the compiler's own caches warm,
`bytes` the size of the bundle. A language whose toolchain is missing is left out and named in `missing`. `--tier fast` or `--tier slow` measures one tier only.
"""

import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from common import median_ns, report

from host.core import cbor
from host.core.errors import UsageError
from host.plugins.contract import BidderNode, BidRequest, Bounty, Costs
from sdk import project, scaffold
from sdk.build import build
from sdk.local import LocalSkill
from sdk.toolchains import TOOLCHAINS

REQUEST = BidRequest(
    bounty=Bounty(deadline_ms=7_200_000, id="b-1", position_m=(0.0, 0.0), reward=20.0, work_ms=3_600_000),
    costs=Costs(fuel_unit=0.0, hour=10.0, wear=0.0),
    margin=0.2,
    node=BidderNode(fuel=1.0, fuel_per_hour=0.0, position_m=(0.0, 0.0), queue_ms=0, speed_m_s=1.0, wear=0.0, wear_per_hour=0.0),
)
CALLS = {"fast": 2_000, "slow": 100}
SLOW = ("python", "javascript")


def tier_of(lang: str) -> str:
    return "slow" if lang in SLOW else "fast"


def measured(lang: str, folder: Path) -> dict[str, Any]:
    made = project.load(scaffold.create(folder, f"bench-{lang}", lang))
    build(made)
    started = time.perf_counter()
    data = build(made).read_bytes()
    build_s = time.perf_counter() - started
    skill = LocalSkill(data, lang)
    request, calls = cbor.encode(REQUEST), CALLS[tier_of(lang)]
    assert skill.version.call("bid", REQUEST).price == 12.0  # type: ignore[attr-defined]  # it is a BidReply
    with skill.loaded.instance() as instance:
        guest_us = median_ns(lambda: instance.call("bid", request), calls) / 1000
    return {
        f"{lang}_call_us": round(median_ns(lambda: skill.version.call("bid", REQUEST), calls) / 1000, 1),
        f"{lang}_guest_us": round(guest_us, 1),
        f"{lang}_instance_us": round(median_ns(lambda: fresh(skill), calls) / 1000, 1),
        f"{lang}_build_s": round(build_s, 2),
        f"{lang}_bytes": len(data),
    }  # fmt: skip


def fresh(skill: LocalSkill) -> None:
    with skill.loaded.instance():
        pass


def main() -> None:
    found: dict[str, Any] = {"request_bytes": len(cbor.encode(REQUEST))}
    missing: list[str] = []
    tiers = [sys.argv[sys.argv.index("--tier") + 1]] if "--tier" in sys.argv else list(CALLS)
    with tempfile.TemporaryDirectory() as folder:
        for lang, toolchain in TOOLCHAINS.items():
            if tier_of(lang) not in tiers:
                continue
            try:
                found[f"{lang}_toolchain"] = toolchain()
            except UsageError as error:
                missing.append(f"{lang}: {error}")
                continue
            found |= measured(lang, Path(folder))
    report(found | {"missing": missing})


if __name__ == "__main__":
    main()
