"""`snapcount skill dev`: a skill rebuilt at each change, swapped into a running node, its calls, logs and refusals as they happen."""

import signal
import threading
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

import typer

from sdk.cli.output import emit, say, warn

EXAMPLE = "Example: snapcount skill dev ore-sorter --call 01-an-hour-of-work"


class _Told(Exception):
    """SIGTERM came."""


def dev(
    folder: Path = typer.Argument(Path(), help="The skill's folder.", show_default="this folder"),
    node: Path | None = typer.Option(
        None,
        "--node",
        help="State directory of a running node to try it on.",
        show_default="a node of its own, which ends with the session",
    ),
    call: list[str] = typer.Option([], "--call", help="A vector to call on the node after each swap; repeat it, or `all`."),
    key: Path | None = typer.Option(
        None, "--key", help="The author's private key.", show_default="author.key, here or in ~/.config/snapcount"
    ),
    as_json: bool = typer.Option(False, "--json", help="Print each event as one line of JSON."),
) -> None:
    """Build at each change, swap it into a running node, and show calls, logs and refusals as they happen. Ctrl-C ends it; the node is then as it was."""
    from host.core import keys
    from sdk import project
    from sdk.author import author_key
    from sdk.dev.own_node import OwnNode
    from sdk.dev.session import HELP, Session

    manifest = project.load(folder).manifest
    signer = keys.load(key) if key is not None else author_key(warn)
    signal.signal(signal.SIGTERM, _stop)
    signal.signal(signal.SIGINT, _stop)  # also where a shell started this in the background, and ignores it

    telling = threading.Lock()

    def tell(event: dict[str, Any], lines: list[str]) -> None:
        with telling:  # events come on a thread of their own
            if as_json:
                emit(event)
            else:
                for line in lines:
                    say(line)

    with suppress(_Told):
        running = OwnNode(signer.verify_key, next(iter(manifest.generations), 1)) if node is None else None
        with running or nullcontext():
            state = running.state if running is not None else node
            assert state is not None, "one of the two is there"
            session = Session(folder, state, signer, tuple(call), tell, stays=running is None)
            warn(f"watching {folder}: {manifest.name} runs on {'a node of its own' if running else f'the node in {state}'}; {HELP}")
            session.listen()
            session.run()


def _stop(_number: int, _frame: object) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # what is left to do is little, and is done
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    raise _Told
