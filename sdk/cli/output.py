"""What the commands share: JSON on the last line, tables, and a progress display for what takes more than a second."""

import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import typer

Json = typer.Option(False, "--json", help="Print one JSON object on the last line.")


def emit(value: Any) -> None:
    """One line of JSON on stdout."""
    print(json.dumps(value, default=str), flush=True)


def say(line: str) -> None:
    """A line for people, on stdout."""
    print(line, flush=True)


def tell(found: Any, as_json: bool, lines: Iterable[str]) -> None:
    """What a command found: for programs as JSON, for people in words."""
    if as_json:
        emit(found)
        return
    for line in lines:
        say(line)


def warn(line: str) -> None:
    """A line for people, on stderr: what a program that reads stdout need not see."""
    print(line, file=sys.stderr, flush=True)


def table(headers: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """A plain table, its columns as wide as they need to be."""
    cells = [[str(cell) for cell in row] for row in (headers, *rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(headers))]
    for row in cells:
        say("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


class Advance(Protocol):
    def __call__(self, done: int, what: str = "") -> None: ...


@contextmanager
def working(title: str) -> Iterator[None]:
    """A spinner on stderr for work of unknown length; where stderr is no terminal, nothing is drawn."""
    if not sys.stderr.isatty():
        yield
        return
    from rich.console import Console

    with Console(stderr=True).status(title):
        yield


@contextmanager
def progress(title: str, total: int) -> Iterator[Advance]:
    """A progress bar on stderr; where stderr is no terminal, nothing is drawn."""
    if not sys.stderr.isatty():
        yield lambda done, what="": None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as shown:
        task = shown.add_task(title, total=total)

        def advance(done: int, what: str = "") -> None:
            shown.update(task, completed=done, description=f"{title} {what}".strip())

        yield advance
