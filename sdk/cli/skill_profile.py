"""`snapcount skill profile`: where the fuel of a skill's calls goes, by function."""

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from sdk.cli.output import Json, emit, progress, say, table, warn

if TYPE_CHECKING:
    from sdk.profile import Profile
    from sdk.scripts import Script

EXAMPLE = "Example: snapcount skill profile ore-sorter --vector 01-an-hour-of-work --flame flame.txt"
SHARES = 100
ROWS = 30
COMPONENT = (
    "this is a component: what is shown are the functions of the interpreter that it brings along, not the skill's own, which no backtrace has; and code "
    "without a loop counts for what runs after it"
)
FUEL_APART_MAX = 0.02  # of the fuel: two builds that differ by less are the same code, as good as


def profile(
    module: Path = typer.Argument(Path(), help="A .wasm file, or a skill's folder.", show_default="this folder"),
    vector: list[str] = typer.Option([], "--vector", help="Only this vector, by the name of its file; repeat it. Default: all, summed."),
    samples: int = typer.Option(1_000, min=1, max=1_000_000, help="How often to cut the calls; more is finer."),
    flame: Path | None = typer.Option(
        None, "--flame", help="Also write collapsed stacks there, one `outer;inner fuel` a line, for flame graphs."
    ),
    as_json: bool = Json,
) -> None:
    """Show which functions use a skill's fuel: the same calls again and again, their fuel cut each time at another place."""
    from host.core import files
    from sdk import profile as profiling
    from sdk.symbols import has_names

    data, chosen, note = _chosen(module, vector)
    with progress("profiling", SHARES) as advance:
        found = profiling.profile(data, str(module), chosen, samples, lambda share: advance(int(share * SHARES)))
    if flame is not None:
        files.write_atomic(flame, found.folded().encode())
    if note:
        warn(note)
    if as_json:
        rows = [{"name": row.name, "self_fuel": row.self_fuel, "total_fuel": row.total_fuel} for row in found.functions]
        emit({
            "fuel": found.fuel, "calls": found.calls, "samples": found.samples, "error": round(found.error, 4), "named": has_names(data, str(module)),
            "functions": rows,
        })  # fmt: skip
    else:
        _show(found)


def _chosen(module: Path, names: list[str]) -> tuple[bytes, list["Script"], str]:
    """What is run: the module, its scripts, and what is to be said of the two."""
    from host.core import wasm
    from host.core.bundle import UnverifiedBundle
    from host.core.errors import UsageError
    from sdk import project, scripts
    from sdk.local import read_bundle
    from sdk.symbols import has_names

    data = read_bundle(module)
    manifest = UnverifiedBundle.parse(data, str(module)).manifest
    loaded = project.load(module) if module.is_dir() else None
    found = scripts.of_project(loaded) if loaded is not None else scripts.of_contract(manifest)
    if names:
        unknown = sorted(set(names) - {script.name for script in found})
        if unknown:
            raise UsageError(f"there is no vector {', '.join(unknown)}; there is {', '.join(script.name for script in found) or 'none'}")
        found = [script for script in found if script.name in names]
    if not found:
        raise UsageError(f"{module}: there is nothing to call: no vector, and no case of the contract for its hooks")
    if wasm.is_component(data):
        return data, found, COMPONENT
    if has_names(data, str(module)):
        return data, found, ""
    named = None if loaded is None else _named(loaded, data, found)
    if named is not None:
        return named, found, "the module carries no names, so it was built once more with them; nothing was written"
    return data, found, "the module carries no names of functions, so they are shown by number; a build with optimize = \"speed\" keeps them"  # fmt: skip


def _named(loaded: "object", data: bytes, found: list["Script"]) -> bytes | None:
    """A build with names, if it is as good as the same code."""
    from host.core.errors import SnapcountError
    from sdk.named_build import with_names
    from sdk.profile import fuel_of
    from sdk.project import Project

    assert isinstance(loaded, Project)
    try:
        made = with_names(loaded)
        if made is None:
            return None
        there, here = (fuel_of(one, loaded.manifest.name, found) for one in (data, made))
    except SnapcountError:
        return None
    return made if abs(there - here) <= FUEL_APART_MAX * there else None


def _show(found: "Profile") -> None:
    from sdk.profile import FRAMES_MAX

    if not found.fuel:
        say("the calls use no fuel")
        return
    rows = found.functions
    table(
        ["self", "total", "fuel", "function"],
        [(f"{row.self_fuel / found.fuel:.1%}", f"{row.total_fuel / found.fuel:.1%}", row.self_fuel, row.name) for row in rows[:ROWS]],
    )
    if len(rows) > ROWS:
        say(f"and {len(rows) - ROWS} more functions; --json has them all")
    if found.deeper:
        say(
            f"{found.deeper / found.fuel:.1%} of the fuel was used deeper than {FRAMES_MAX} functions: what called those is not in their totals"
        )
    say(
        f"{found.fuel} units of fuel in {found.calls} call(s), looked at in {found.samples} places: a share is right within ±{found.error:.1%}"
    )
