"""The bytes of a registry's snapshot: deterministic CBOR.

Columns are byte strings (little-endian), so that the number of CBOR items does not grow with the fleet. The outer map holds the `body` and
its SHA-256 `digest`: a disk that flips a bit must not send a fleet's messages at the wrong time.
"""

import hashlib
import sys
from array import array
from collections.abc import Iterable
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from cython_core.arrival_reference import AGENTS_MAX, HUMAN, OFFLINE, QUARANTINED
from host.core import cbor
from host.core.errors import SnapcountError, StateDamaged
from host.core.text import safe
from host.mesh.history import History
from host.mesh.profiler import Vitals
from host.mesh.rows import NEVER, Rows, checked_capabilities, checked_name
from host.mesh.scoring import FLAGS, SCORE_MAX

WHAT = "impedance snapshot"
SNAPSHOT_BYTES_MAX = 1 << 20
SNAPSHOT_ROW_BYTES_MAX = 8 << 10
"""A snapshot has at most the former plus the latter for each row of capacity; 700 bytes a row are usual."""
_DIGEST_BYTES = 32
_UNIX_MS_MAX = 1e14
_DELAY_MS_MAX = 1e13
"""More than 1e8 ms of processing behind 65,535 others come to."""

_VITALS = (
    ("rtt_ms", "d"), ("rtt_p95_ms", "d"), ("processing_ms", "d"), ("processing_p95_ms", "d"), ("queue", "H"), ("success", "d"),
    ("drift", "d"), ("samples", "B"),
)  # fmt: skip
"""Each figure with the type of its column: double, so that what is restored is what was kept."""


class Sealed(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    body: bytes
    digest: Annotated[bytes, Meta(min_length=_DIGEST_BYTES, max_length=_DIGEST_BYTES)]


class Body(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`names` and `reasons` (of the quarantined, in order) are lines; so are `sets` of capabilities, which `capabilities` number."""

    format: Literal[1] = 1
    capacity: Annotated[int, Meta(ge=0, le=AGENTS_MAX)]
    names: str
    reasons: str
    sets: str
    capabilities: bytes
    vitals: dict[str, bytes]
    agent_class: bytes
    generation: bytes
    state: bytes
    flags: bytes
    score: bytes
    baseline_ms: bytes
    heard_ms: bytes
    history: bytes
    history_minute: bytes
    table: bytes


def pack(rows: Rows, capacity: int, table: bytes) -> bytes:
    """`table` is the snapshot of the rows' arrival table."""
    numbers: dict[tuple[str, ...], int] = {}
    capabilities = array("I", (numbers.setdefault(able, len(numbers)) for able in rows.capabilities))
    scores, minutes = rows.history.columns()
    body = cbor.encode(
        Body(
            capacity=capacity,
            names="\n".join(rows.names),
            reasons="\n".join(rows.reasons[row] for row in sorted(rows.reasons)),
            sets="\n".join(" ".join(able) for able in numbers),
            capabilities=_bytes(capabilities),
            vitals={name: _bytes(array(code, (getattr(vitals, name) for vitals in rows.vitals))) for name, code in _VITALS},
            agent_class=_bytes(rows.agent_class),
            generation=_bytes(rows.generation),
            state=_bytes(rows.state),
            flags=_bytes(rows.flags),
            score=_bytes(rows.score),
            baseline_ms=_bytes(rows.baseline_ms),
            heard_ms=_bytes(rows.heard_ms),
            history=_bytes(scores),
            history_minute=_bytes(minutes),
            table=table,
        )
    )
    return cbor.encode(Sealed(body=body, digest=hashlib.sha256(body).digest()))


def unpack(data: bytes, capacity: int) -> tuple[Rows, bytes]:
    """The rows and the table's own snapshot, which is not checked here. Raises StateDamaged for anything that `pack` did not write."""
    bytes_max = SNAPSHOT_BYTES_MAX + SNAPSHOT_ROW_BYTES_MAX * capacity
    try:
        sealed = cbor.decode_struct(data, Sealed, "envelope", bytes_max=bytes_max)
        if hashlib.sha256(sealed.body).digest() != sealed.digest:
            raise ValueError("its digest is not that of its body")
        body = cbor.decode_struct(sealed.body, Body, "body", bytes_max=bytes_max)
        if body.capacity != capacity:
            raise ValueError(f"it is of a registry of {body.capacity} rows, this one has {capacity}")
        return _rows(body), body.table
    except (SnapcountError, ValueError) as error:
        raise StateDamaged(f"{WHAT}: cannot be used: {safe(str(error))}") from error


def _rows(body: Body) -> Rows:
    count = len(body.state)
    if count > body.capacity:
        raise ValueError(f"it has {count} rows, more than its capacity of {body.capacity}")
    rows = Rows(
        names=_names(body.names, count),
        capabilities=_capabilities(body, count),
        vitals=_vitals(body.vitals, count),
        agent_class=_integers("B", body.agent_class, count, HUMAN),
        generation=_integers("B", body.generation, count, 255),
        state=_integers("B", body.state, count, QUARANTINED),
        flags=_integers("B", body.flags, count, len(FLAGS) - 1),
        score=_floats(body.score, count, SCORE_MAX),
        baseline_ms=_floats(body.baseline_ms, count, _DELAY_MS_MAX),
        heard_ms=_floats(body.heard_ms, count, NEVER),
        history=History.of(_column("H", body.history), _column("I", body.history_minute)),
    )
    if len(rows.history) != count:
        raise ValueError("its history has another number of rows")
    quarantined = [row for row, state in enumerate(rows.state) if state == QUARANTINED]
    rows.reasons = dict(zip(quarantined, _lines(body.reasons, len(quarantined)), strict=True))
    if any(safe(reason) != reason for reason in rows.reasons.values()):
        raise ValueError("a reason is not one printable line")
    for name, state, heard_ms in zip(rows.names, rows.state, rows.heard_ms, strict=True):
        if not (heard_ms <= _UNIX_MS_MAX if name else (state == OFFLINE and heard_ms == NEVER)):
            raise ValueError("a free row is not offline, or an agent's time is out of range")
    return rows


def _names(text: str, count: int) -> list[str]:
    names = _lines(text, count)
    taken = [checked_name(name) for name in names if name]
    if len(set(taken)) != len(taken):
        raise ValueError("a name is there twice")
    return names


def _capabilities(body: Body, count: int) -> list[tuple[str, ...]]:
    sets = [tuple(line.split()) for line in body.sets.split("\n")]
    if any(checked_capabilities(able) != able for able in sets):
        raise ValueError("a set of capabilities is out of order")
    return [sets[number] for number in _integers("I", body.capabilities, count, len(sets) - 1)]


def _vitals(columns: dict[str, bytes], count: int) -> list[Vitals]:
    names = [name for name, _ in _VITALS]
    if sorted(columns) != sorted(names):
        raise ValueError("its vitals have other columns")
    values: list[Iterable[Any]] = [_sized(_column(code, columns[name]), count) for name, code in _VITALS]
    try:
        # One conversion for the whole list: the types check each value's range.
        return msgspec.convert([dict(zip(names, row, strict=True)) for row in zip(*values, strict=True)], list[Vitals])
    except msgspec.ValidationError as error:
        raise ValueError(f"its vitals are out of range: {error}") from error


def _lines(text: str, count: int) -> list[str]:
    lines = text.split("\n") if count else []
    if len(lines) != count:
        raise ValueError(f"{count} lines expected, {len(lines)} came")
    return lines


def _integers(code: Literal["B", "I"], data: bytes, count: int, most: int) -> "array[int]":
    column: array[int] = _sized(_column(code, data), count)
    if max(column, default=0) > most:
        raise ValueError(f"a number is over {most}")
    return column


def _floats(data: bytes, count: int, most: float) -> "array[float]":
    column: array[float] = _sized(_column("d", data), count)
    if not all(0.0 <= value <= most for value in column):  # false for NaN too
        raise ValueError(f"a number is not from 0 to {most:g}")
    return column


def _sized(column: Any, count: int) -> Any:
    if len(column) != count:
        raise ValueError(f"a column has {len(column)} rows, not {count}")
    return column


def _bytes(column: "array[Any]") -> bytes:
    return _swapped(column).tobytes()


def _column(code: str, data: bytes) -> Any:
    column: array[Any] = array(code)
    column.frombytes(data)  # ValueError where the length is no multiple of an item's
    return _swapped(column)


def _swapped(column: "array[Any]") -> "array[Any]":
    if sys.byteorder == "little":
        return column
    column = column[:]
    column.byteswap()
    return column
