"""Feature flags of a fleet: an operator signs that a flag is on, for all nodes or some, or off. Each node's desired state carries those that are on for it."""

import sqlite3
from collections.abc import Collection, Mapping
from typing import Annotated

import msgspec
from msgspec import Meta
from nacl.signing import SigningKey, VerifyKey

from host.core import documents
from host.core.errors import TooLarge, Untimely
from host.core.limits import DEFAULT
from host.core.manifest import HookName
from registry.database import Database
from registry.inventory import Known
from registry.rollout_document import NONCE_BYTES, Reason, Selection
from registry.selection import selects

AAD = b"snapcount feature flag 1"
FLAGS_MAX = 64  # as many as a desired state carries


class FlagChange(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The flag is `on` for the nodes of `selection` and for no others; or off for all. Taken once: the nonce makes a second use a replay."""

    flag: HookName
    on: bool
    selection: Selection = Selection()
    at_ms: Annotated[int, Meta(ge=0)]
    nonce: Annotated[bytes, Meta(min_length=NONCE_BYTES, max_length=NONCE_BYTES)]
    reason: Reason = ""


def sign(change: FlagChange, operator: SigningKey) -> bytes:
    return documents.sign(change, operator, AAD)


def verify(data: bytes, operators: Collection[VerifyKey]) -> FlagChange:
    """Raises SignatureInvalid, MalformedData, TooLarge. Whether it came before is for the caller to check."""
    return documents.verify(data, FlagChange, operators, AAD, "feature flag")


def on_for(flags: Mapping[str, Selection], node: Known) -> tuple[str, ...]:
    """The flags that are on for a node, sorted."""
    return tuple(
        sorted(flag for flag, chosen in flags.items() if selects(chosen, node.node, node.generation, node.sector, node.capabilities))
    )


def changed(flags: Mapping[str, Selection], change: FlagChange, now_ms: int) -> dict[str, Selection]:
    """The flags after a change. Raises Untimely for one that was signed long before or after now, TooLarge for one flag too many."""
    if abs(now_ms - change.at_ms) > DEFAULT.action_age_s_max * 1000:
        raise Untimely(
            f"feature flag {change.flag}: signed more than {DEFAULT.action_age_s_max} s from now; is a clock wrong? sign it anew"
        )
    others = {flag: chosen for flag, chosen in flags.items() if flag != change.flag}
    if change.on and len(others) >= FLAGS_MAX:
        raise TooLarge(f"feature flag {change.flag}: {len(others)} are on already, and a desired state carries no more")
    return others | ({change.flag: change.selection} if change.on else {})


def load(database: Database) -> dict[str, Selection]:
    with database.reading() as db:
        rows = db.execute("SELECT flag, selection FROM flags").fetchall()
    return {flag: msgspec.msgpack.decode(row, type=Selection) for flag, row in rows}


def save(db: sqlite3.Connection, flags: Mapping[str, Selection]) -> None:
    """In the caller's transaction."""
    db.execute("DELETE FROM flags")
    db.executemany(
        "INSERT INTO flags (flag, selection) VALUES (?, ?)", [(flag, msgspec.msgpack.encode(chosen)) for flag, chosen in flags.items()]
    )
