"""A push to `nodes` node stores behind two tiers of relays, on real sockets and real files, in several processes; then a delta push of the next version.

The registry is the real one, with a tier of coordinators and a tier of leads below it. Each node fetches from its lead, verifies, and writes its store as an
install does: synced and renamed. `wall_s` is from the word to all until the last has written; `registry_egress_mib` are the blobs that left the registry.
`floor_s` is the mean of two runs, one before and one after the push, of the same number of processes in which plain aiohttp servers send the same bytes from
memory to as many clients that hash and write them the same way. The second version differs in one function (sdk/bench_skill.py), and `delta_ratio` is the
bytes that came to the nodes for it, over those for the first.
The targets are `ratio_floor` ≤ 2.0, `registry_egress_mib` ≤ 1.1 × `coordinators` × `size_mib`, and `delta_ratio` ≤ 0.15.
"""

import argparse
import hashlib
import tempfile
from pathlib import Path
from typing import Any

from common import report

from host.core.desired import Wanted
from registry.client import RegistryHttp
from sdk import bench_skill
from sdk.supply_bench import NodesRole, Process, RegistryRole, RelayRole, ask_all

MIB = 1 << 20
RELAY_PROCESSES = 2
NODE_PROCESSES = 2
COORDINATORS, LEADS = 10, 30


def digest_of(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def dealt(things: list[Any], hands: int) -> list[list[Any]]:
    """Dealt out like cards."""
    return [things[hand::hands] for hand in range(hands)]


class Tree:
    """The processes: one registry, the relays of both tiers, and the nodes below them."""

    def __init__(self, folder: Path, nodes: int) -> None:
        self._folder = folder
        self.registry = Process(RegistryRole)
        self.relays = [Process(RelayRole) for _ in range(RELAY_PROCESSES)]
        self.nodes = [Process(NodesRole) for _ in range(NODE_PROCESSES)]
        self.url = self.registry.ask("start", folder / "registry")
        coordinators = self._start_relays("coordinators", [[self.url]] * COORDINATORS)
        leads = self._start_relays("leads", [[coordinators[n % COORDINATORS], self.url] for n in range(LEADS)])
        sources = dealt([[leads[n % LEADS], self.url] for n in range(nodes)], NODE_PROCESSES)
        ask_all(self.nodes, "start", [(folder / f"nodes-{n}", own) for n, own in enumerate(sources)])

    def _start_relays(self, tier: str, sources: list[list[str]]) -> list[str]:
        hands = dealt(sources, RELAY_PROCESSES)
        answers, _ = ask_all(self.relays, "start", [(self._folder / f"{tier}-{n}", own) for n, own in enumerate(hands)])
        return [url for urls in answers for url in urls]

    def push(self, wanted: Wanted) -> tuple[float, int, int, float]:
        """Seconds, nodes that have it, bytes that came to them, and MiB that left the registry."""
        before = self.registry.ask("sent")
        answers, seconds = ask_all(self.nodes, "push", [(wanted,)] * NODE_PROCESSES)
        for _, _, problems in answers:
            for problem in problems[:3]:
                print(problem)
        completed, _ = ask_all(self.nodes, "check", [(wanted.digest,)] * NODE_PROCESSES)
        return seconds, sum(completed), sum(moved for _, moved, _ in answers), (self.registry.ask("sent") - before) / MIB

    def floor(self, urls: list[str], digest: str, name: str) -> float:
        """Seconds for the same bytes without registry, relays and stores."""
        return ask_all(self.nodes, "floor", [(url, digest, name) for url in urls])[1]

    def stop(self) -> None:
        for process in [*self.nodes, *self.relays, self.registry]:
            process.stop()


def measure(nodes: int, size_mib: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="snapcount-push-") as scratch:
        folder = Path(scratch)
        old, new = bench_skill.versions(folder, size_mib)
        tree = Tree(folder, nodes)
        try:
            return _measure(tree, nodes, size_mib, old, new)
        finally:
            tree.stop()


def _measure(tree: Tree, nodes: int, size_mib: int, old: bytes, new: bytes) -> dict[str, Any]:
    for bundle in (old, new):
        RegistryHttp(tree.url).upload(bundle)
    first, second = (
        Wanted(name=bench_skill.NAME, version=version, digest=digest_of(data), size=len(data))
        for version, data in ((bench_skill.OLD, old), (bench_skill.NEW, new))
    )
    plain = [process.ask("plain", old) for process in tree.relays]
    before_s = tree.floor(plain, first.digest, "before")
    wall_s, completed, moved, egress_mib = tree.push(first)
    after_s = tree.floor(plain, first.digest, "after")
    patches = tree.registry.ask("delta", first.digest, second.digest)
    delta_s, delta_completed, delta_moved, delta_egress_mib = tree.push(
        Wanted(name=second.name, version=second.version, digest=second.digest, size=second.size, patches=patches)
    )
    floor_s = (before_s + after_s) / 2
    return {
        "nodes": nodes, "size_mib": size_mib, "bundle_bytes": len(old), "coordinators": COORDINATORS, "leads": LEADS,
        "processes": 1 + RELAY_PROCESSES + NODE_PROCESSES, "completed": completed, "wall_s": round(wall_s, 3),
        "registry_egress_mib": round(egress_mib, 3), "bytes_per_s": round(moved / wall_s), "floor_s": round(floor_s, 3),
        "floor_runs_s": [round(before_s, 3), round(after_s, 3)], "ratio_floor": round(wall_s / floor_s, 2),
        "patch_bytes": sum(patch.size for patch in patches), "delta_completed": delta_completed, "delta_ratio": round(delta_moved / moved, 5),
        "delta_registry_egress_mib": round(delta_egress_mib, 4), "delta_wall_s": round(delta_s, 3),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--nodes", type=int, default=1000)
    parser.add_argument("--size-mib", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    report(measure(options.nodes, options.size_mib))


if __name__ == "__main__":
    main()
