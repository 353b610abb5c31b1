"""`snapcount skill replay`: recorded calls of real nodes, on a build at hand."""

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from sdk.cli.output import Json, emit, progress, say

if TYPE_CHECKING:
    from host.plugins.comparison import Comparison
    from host.plugins.record import CallRecord

EXAMPLE = "Example: snapcount skill replay ore-sorter calls.cbor"


def replay(
    module: Path = typer.Argument(help="A .wasm file, or a skill's folder: then the tolerances in its skill.toml count."),
    calls: Path | None = typer.Argument(None, help="A file that `snapcount node calls export` made.", show_default="what --state says"),
    state: Path | None = typer.Option(None, "--state", help="A node's state directory: all that it recorded of this skill."),
    ids: list[str] = typer.Option([], "--id", help="Only the call with this id, or a beginning of it; repeat it."),
    save_vector: Path | None = typer.Option(None, "--save-vector", help="Write the one call that --id names as a vector, with the reply that was recorded."),
    as_json: bool = Json,
) -> None:  # fmt: skip
    """Run recorded calls on a build, its host answering from the record, and say which replies are no longer the same."""
    from host.core.bundle import digest_of
    from host.core.errors import UsageError
    from sdk import replay as replaying
    from sdk.local import read_bundle

    if (calls is None) == (state is None):
        raise UsageError("name a file of calls, or with --state a node that recorded some: one of the two")
    data = read_bundle(module)
    bench = replaying.Bench(data, str(module), _rules(module))
    held = replaying.read(calls) if calls is not None else _of_node(state, bench.manifest.name)
    held = replaying.chosen(held, ids, str(calls or state))
    with progress("calls", len(held)) as advance:
        results = replaying.replay_all(bench, held, advance)
    if save_vector is not None:
        if len(held) != 1:
            raise UsageError(f"--save-vector takes one call, these are {len(held)}; name it with --id")
        replaying.save_vector(save_vector, *held[0])
    if as_json:
        emit(replaying.as_json(results))
    else:
        for line in replaying.in_words(results, digest_of(data)):
            say(line)
        if save_vector is not None:
            say(f"{save_vector}: written")
    if not all(result.same for result in results):
        raise typer.Exit(1)


def _rules(module: Path) -> "Comparison":
    """How far a skill's project lets its lineages lie apart; nothing is said of a module alone, so its replies must be equal."""
    from host.plugins.comparison import Comparison
    from sdk import project

    return project.load(module).compare if module.is_dir() else Comparison()


def _of_node(state: Path | None, skill: str) -> "list[tuple[str, CallRecord]]":
    from host.core.errors import UsageError
    from host.supply.calls import open_existing

    assert state is not None, "one of the two was named"
    journal = open_existing(state)
    try:
        held = journal.of_skill(skill)
    finally:
        journal.close()
    if not held:
        raise UsageError(f"{state}: no call of {skill} was recorded there")
    return held
