"""`snapcount registry audit`: the hash-chained log of what a registry decided."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from sdk.cli.output import Json, emit, say, tell

if TYPE_CHECKING:
    from registry.audit import Row

app = typer.Typer(help="Show and check the log of every roll-out decision.", no_args_is_help=True)

Folder = typer.Option(Path("bundles"), "--dir", help="The registry's folder.")
Registry = typer.Option("", "--registry", help="Ask this registry instead of reading its folder.")


@app.command(epilog="Example: snapcount registry audit verify --dir bundles --head audit-head.cose --operator bundles/operator.pub")
def verify(
    folder: Path = Folder, registry: str = Registry,
    head: Path | None = typer.Option(None, "--head", help="A head that was kept: then rows that were cut off or rewritten show as well."),
    operator: list[Path] = typer.Option([], "--operator", help="Public key (.pub) that may have signed the head; repeat it."),
    as_json: bool = Json,
) -> None:  # fmt: skip
    """Check that every row follows from those before it. Names the first that does not."""
    from host.core import keys
    from host.core.errors import UsageError
    from registry import audit

    if head is not None and not operator:
        raise UsageError("--head needs --operator: the public key that signed it")
    expected = audit.verify_head(_read(head), [keys.load_public(path) for path in operator]) if head else None
    with _rows(folder, registry) as rows:
        count = audit.verify(rows, expected)
    tell(
        {"rows": count, "verified": True},
        as_json,
        [f"{count} rows, each follows from those before it" + (f"; row {expected.seq} is the one that was signed" if expected else "")],
    )


@app.command(epilog="Example: snapcount registry audit show --rollout toolpath-planner-2-0-0-6553f100")
def show(
    folder: Path = Folder, registry: str = Registry, rollout: str = typer.Option("", "--rollout", help="Only rows of this roll-out."),
    last: int = typer.Option(50, "--last", min=1, help="How many rows."), as_json: bool = Json,
) -> None:  # fmt: skip
    """Show the last rows, the oldest of them first."""
    import json
    from collections import deque
    from datetime import UTC, datetime

    from host.core.text import safe

    with _rows(folder, registry) as rows:
        wanted = deque((row for row in rows if not rollout or json.loads(row.detail).get("rollout") == rollout), maxlen=last)
    if as_json:
        emit({"rows": [{"seq": r.seq, "at_ms": r.at_ms, "kind": r.kind, "who": r.who, "detail": json.loads(r.detail)} for r in wanted]})
        return
    for row in wanted:
        at = datetime.fromtimestamp(row.at_ms / 1000, UTC).isoformat(timespec="seconds")
        say(f"{row.seq:7} {at} {safe(row.kind):18} {safe(row.who, 24)} {safe(row.detail, 400)}")


@app.command(epilog="Example: snapcount registry audit head --registry http://127.0.0.1:8470 --out audit-head.cose")
def head(
    registry: str = typer.Option("http://127.0.0.1:8470", "--registry", help="Address of the registry.", envvar="SNAPCOUNT_REGISTRY"),
    out: Path = typer.Option(Path("audit-head.cose"), "--out", help="Where to keep it; best on another machine."),
    as_json: bool = Json,
) -> None:
    """Keep where the log ends now, as the registry signs it."""
    from host.core import files
    from registry.rollout_client import RolloutHttp

    _, signed = RolloutHttp(registry).audit()
    files.write_atomic(out, signed)
    tell({"head": str(out), "bytes": len(signed)}, as_json, [f"{out}: the signed head of the audit log"])


def _read(path: Path) -> bytes:
    from host.core.limits import DEFAULT

    with path.open("rb") as file:
        return file.read(DEFAULT.frame_bytes_max + 1)


@contextmanager
def _rows(folder: Path, registry: str) -> "Iterator[Iterator[Row]]":
    from host.core.errors import UsageError
    from registry import database
    from registry.audit import AuditLog
    from registry.rollout_client import RolloutHttp

    if registry:
        yield RolloutHttp(registry).every_row()
        return
    path = folder / database.FILE
    if not path.exists():
        raise UsageError(f"{path}: there is no log of roll-outs here; --dir names the registry's folder")
    opened = database.Database(path)
    try:
        yield AuditLog(opened).every()
    finally:
        opened.close()
