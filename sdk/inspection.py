"""What is in a module, and what a node would say to it, in words."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import msgspec

from host.core import bundle, cose, wasm
from host.core.capabilities import IMPORT_CALL, IMPORT_NEEDS, grant
from host.core.errors import SnapcountError
from host.core.limits import DEFAULT
from host.core.text import safe
from host.plugins.adapter import require_known_hooks
from host.sandbox.engine import default_engine
from host.sandbox.skill import require_granted
from host.sandbox.tiers import tier_of
from host.supply.facts import host_version, require_host
from sdk.local import user_cache

SECTION_NAMES = (
    "custom",
    "type",
    "import",
    "function",
    "table",
    "memory",
    "global",
    "export",
    "start",
    "element",
    "code",
    "data",
    "data count",
)
COMPONENT_SECTION_NAMES = (
    "custom", "core module", "core instance", "core type", "component", "instance", "alias", "type", "canonical function", "start", "import", "export",
)  # fmt: skip


def describe(data: bytes, what: str) -> dict[str, Any]:
    """Manifest, digest, sections and signers of a bundle; nothing is verified or compiled. Raises UntrustedInput."""
    parsed = bundle.UnverifiedBundle.parse(data, what)
    return {
        "manifest": msgspec.to_builtins(parsed.manifest), "digest": bundle.digest_of(data), "bytes": len(data),
        "tier": tier_of(data).name, "sections": _sections(data, what),
        "signers": [cose.key_name(cose.parse(s.content, what).kid) for s in parsed.signatures],
    }  # fmt: skip


def _sections(data: bytes, what: str) -> list[tuple[str, int]]:
    """Names and sizes; a component's, which are hundreds, summed up by name."""
    names = COMPONENT_SECTION_NAMES if wasm.is_component(data) else SECTION_NAMES
    found = [(safe(s.name) or names[s.id] if s.id < len(names) else f"section {s.id}", s.end - s.start) for s in wasm.sections(data, what)]
    if not wasm.is_component(data):
        return found
    count = Counter(name for name, _ in found)
    return [
        (f"{name} ({times})" if times > 1 else name, sum(size for each, size in found if each == name)) for name, times in count.items()
    ]


def check(data: bytes, what: str, allowed: frozenset[str] | None, generation: int | None) -> dict[str, Any]:
    """Compiles the module under the host's own limits and lists imports, exports and every reason for which a node would refuse it."""
    parsed = bundle.UnverifiedBundle.parse(data, what)
    manifest = parsed.manifest
    refused = _refusal(require_known_hooks, manifest.hooks, manifest.name) + _refusal(require_host, manifest, host_version())
    module: Any = None
    tier, engine = tier_of(data), default_engine()
    try:
        module = user_cache().module(engine, data, bundle.digest_of(data), manifest)
    except SnapcountError as error:
        refused.append(str(error))
    permitted = frozenset(manifest.capabilities) if allowed is None else allowed
    try:
        granted = grant(manifest.name, manifest.capabilities, permitted)
        if module is not None:
            require_granted(module, manifest, granted, engine)
    except SnapcountError as error:
        refused.append(str(error))
    if generation is not None and manifest.generations and generation not in manifest.generations:
        refused.append(f"{manifest.name}: runs on hardware generations {', '.join(map(str, manifest.generations))}, not on {generation}")
    capped = manifest.limits.capped(DEFAULT)
    imports = [] if module is None else tier.imports(engine, module)
    return {
        "name": manifest.name, "version": manifest.version, "tier": tier.name, "hooks": list(manifest.hooks), "capabilities": list(manifest.capabilities),
        "imports": [f"{place}.{name}" for place, name in imports],
        "exports": [] if module is None else [safe(name) for name in tier.exports(engine, module)],
        "needs": _component_needs(imports, manifest.capabilities) if wasm.is_component(data) else _needs(imports, manifest.capabilities),
        "limits": msgspec.to_builtins(capped),
        "capped": [f for f in manifest.limits.__struct_fields__ if getattr(capped, f) != getattr(manifest.limits, f)],
        "signed": len(parsed.signatures), "refused": refused,
    }  # fmt: skip


def _refusal(require: Callable[..., object], *arguments: object) -> list[str]:
    """Why a requirement does not hold; nothing where it does."""
    try:
        require(*arguments)
    except SnapcountError as error:
        return [str(error)]
    return []


def _needs(imports: list[tuple[str, str]], capabilities: tuple[str, ...]) -> dict[str, str]:
    drivers = _drivers(capabilities)
    return {name: drivers if name == IMPORT_CALL else IMPORT_NEEDS.get(name, "nothing this host offers") for _, name in imports}


def _component_needs(imports: list[tuple[str, str]], capabilities: tuple[str, ...]) -> dict[str, str]:
    from host.sandbox.component_checks import NEEDS

    return {f"{interface}.{name}": NEEDS.get(interface, _drivers(capabilities)) for interface, name in imports}


def _drivers(capabilities: tuple[str, ...]) -> str:
    return ", ".join(sorted(set(capabilities) - set(IMPORT_NEEDS.values()))) or "a driver's capability"


def in_words(report: dict[str, Any]) -> list[str]:
    """The report of `check` as sentences."""
    lines = [f"{report['name']} {report['version']}, a {report['tier']}: hooks {', '.join(report['hooks'])}."]
    lines.append(f"It asks for {', '.join(report['capabilities'])}." if report["capabilities"] else "It asks for no capability.")
    for name, need in report["needs"].items():
        lines.append(f"It imports {name}, which needs {need}.")
    if report["exports"] and not report["imports"]:  # what did not compile has neither
        lines.append("It imports nothing: it can compute, and that is all.")
    if report["exports"]:
        lines.append(f"It exports {', '.join(report['exports'])}.")
    limits = report["limits"]
    lines.append(
        f"A call may use {limits['fuel']} units of fuel, {limits['deadline_ms']} ms and {limits['memory_bytes'] >> 10} KiB of memory."
    )
    if report["capped"]:
        lines.append(f"It asks for more than the host grants of: {', '.join(report['capped'])}; it gets the host's bound.")
    lines.append(
        f"It carries {report['signed']} signature(s)."
        if report["signed"]
        else "It is unsigned: no node installs it before `snapcount skill sign`."
    )
    lines += [f"A node would refuse it: {reason}" for reason in report["refused"]]
    if not report["refused"]:
        lines.append("A node that trusts a signer of it and allows this would run it.")
    return lines
