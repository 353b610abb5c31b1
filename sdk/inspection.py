"""What is in a module, and what a node would say to it, in words."""

from typing import Any

import msgspec
import wasmtime

from host.core import bundle, cose, wasm
from host.core.capabilities import IMPORT_CALL, IMPORT_NEEDS, grant
from host.core.errors import SnapcountError
from host.core.limits import DEFAULT
from host.core.text import safe
from host.plugins.adapter import require_known_hooks
from host.sandbox.engine import default_engine
from host.sandbox.skill import require_granted
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


def describe(data: bytes, what: str) -> dict[str, Any]:
    """Manifest, digest, sections and signers of a bundle; nothing is verified or compiled. Raises UntrustedInput."""
    parsed = bundle.UnverifiedBundle.parse(data, what)
    return {
        "manifest": msgspec.to_builtins(parsed.manifest), "digest": bundle.digest_of(data), "bytes": len(data),
        "sections": [(safe(s.name) or SECTION_NAMES[s.id] if s.id < len(SECTION_NAMES) else f"section {s.id}", s.end - s.start) for s in wasm.sections(data, what)],
        "signers": [cose.key_name(cose.parse(s.content, what).kid) for s in parsed.signatures],
    }  # fmt: skip


def check(data: bytes, what: str, allowed: frozenset[str] | None, generation: int | None) -> dict[str, Any]:
    """Compiles the module under the host's own limits and lists imports, exports and every reason for which a node would refuse it."""
    parsed = bundle.UnverifiedBundle.parse(data, what)
    manifest = parsed.manifest
    refused: list[str] = []
    module: wasmtime.Module | None = None
    try:
        require_known_hooks(manifest.hooks, manifest.name)
    except SnapcountError as error:
        refused.append(str(error))
    try:
        module = user_cache().module(default_engine(), data, bundle.digest_of(data), manifest)
    except SnapcountError as error:
        refused.append(str(error))
    permitted = frozenset(manifest.capabilities) if allowed is None else allowed
    try:
        granted = grant(manifest.name, manifest.capabilities, permitted)
        if module is not None:
            require_granted(module, manifest, granted)
    except SnapcountError as error:
        refused.append(str(error))
    if generation is not None and manifest.generations and generation not in manifest.generations:
        refused.append(f"{manifest.name}: runs on hardware generations {', '.join(map(str, manifest.generations))}, not on {generation}")
    capped = manifest.limits.capped(DEFAULT)
    return {
        "name": manifest.name, "version": manifest.version, "hooks": list(manifest.hooks), "capabilities": list(manifest.capabilities),
        "imports": [] if module is None else [f"{i.module}.{i.name}" for i in module.imports],
        "exports": [] if module is None else [safe(e.name) for e in module.exports],
        "needs": {} if module is None else _needs(module, manifest.capabilities),
        "limits": msgspec.to_builtins(capped),
        "capped": [f for f in manifest.limits.__struct_fields__ if getattr(capped, f) != getattr(manifest.limits, f)],
        "signed": len(parsed.signatures), "refused": refused,
    }  # fmt: skip


def _needs(module: wasmtime.Module, capabilities: tuple[str, ...]) -> dict[str, str]:
    drivers = ", ".join(sorted(set(capabilities) - set(IMPORT_NEEDS.values()))) or "a driver's capability"
    return {
        i.name or "": drivers if i.name == IMPORT_CALL else IMPORT_NEEDS.get(i.name or "", "nothing this host offers")
        for i in module.imports
    }


def in_words(report: dict[str, Any]) -> list[str]:
    """The report of `check` as sentences."""
    lines = [f"{report['name']} {report['version']}: hooks {', '.join(report['hooks'])}."]
    lines.append(f"It asks for {', '.join(report['capabilities'])}." if report["capabilities"] else "It asks for no capability.")
    for name, need in report["needs"].items():
        lines.append(f"It imports {name}, which needs {need}.")
    if not report["imports"]:
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
