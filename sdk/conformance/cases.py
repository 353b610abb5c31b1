"""The cases of sdk/contract/vectors, made from the host's structs and, at the level of bytes, by hand. `python -m sdk.conformance` writes the files anew.

What a case expects: `answer` is a reply of the contract's shape or an error reply of the skill's own; `bad_request` is that error reply; `any` is either, for
values outside the contract's bounds, which a host never sends and a guest library need not refuse.
"""

import random
from collections.abc import Iterator
from typing import Any, Literal

import msgspec
from msgspec import inspect

from host.plugins.contract import SHAPES, STREAMING, HandleRequest, PlanJobRequest, PlanSettings, SelfTestRequest, Shape
from sdk import samples
from sdk.conformance.raw import Pairs, Raw, encode, head, sorted_pairs
from sdk.demo.samples import BID, LOT, PART

SEED = 1
FROM_TYPES = 8
CUTS = 8
DEEP = 1_000
UINT_MAX = (1 << 64) - 1
TYPICAL: dict[str, Shape] = {
    "assess_feedstock": LOT,
    "bid": BID,
    "handle": HandleRequest(
        at_ms=1_795_000_000_000, correlation=bytes(range(16)), id=bytes(range(16, 32)), payload=b"\x00\xff", phase="prepare", priority=2, source="lead-1",
        topic="cell.start", verb="act", weight=0.5,
    ),
    "inspect_part": PART,
    "plan_job": PlanJobRequest(chunk=b"G21\nG1 X10 F600\n", last=True, run=False, seq=0, settings=PlanSettings(accel_mm_s2=500.0, start_mm=(0.0, 0.0, 0.0))),
    "self_test": SelfTestRequest(),
}  # fmt: skip
"""A request that each hook answers. A hook without one here gets those from its types only."""
NUMBERS = (0.0, -0.0, 1.0, 65504.0, 65505.0, 2.0**-24, 2.0**-25, 2.0**-14, 0.1, 3.4028234663852886e38, 5e-324, 1.7976931348623157e308)
"""Zero, the edges of half, single and double precision, and a number that no shorter form holds."""

Expect = Literal["answer", "bad_request", "any"]


class Case(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, omit_defaults=True):
    """One request: `cbor` is its bytes in hexadecimal, `value` what they say, for people, where they are sound."""

    name: str
    about: str
    expect: Expect
    cbor: str
    value: Any = None


class CaseFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The cases of one hook."""

    hook: str
    about: str
    cases: tuple[Case, ...]


def request_of(hook: str) -> type[Shape]:
    return SHAPES[hook][0] if hook in SHAPES else STREAMING[hook][0]


def made(hook: str) -> CaseFile:
    """All cases of a hook, the sound ones first."""
    shape = request_of(hook)
    base = samples.plain(TYPICAL[hook]) if hook in TYPICAL else samples.fresh(shape, random.Random(SEED))
    cases = [
        *_sound(shape, base),
        *_wrong_keys(base, inspect.type_info(shape)),
        *_wrong_types(base, inspect.type_info(shape)),
        *_wrong_bytes(base),
        *_out_of_bounds(base, shape),
    ]
    unique = {case.cbor: case for case in reversed(cases)}
    return CaseFile(
        hook=hook, about=f"Requests of the hook {hook}, sound and unsound; see README.md", cases=tuple(reversed(unique.values()))
    )


def _case(name: str, about: str, value: Any, expect: Expect = "bad_request") -> Case:
    shown = msgspec.to_builtins(value) if expect == "answer" else None
    return Case(name=name, about=about, expect=expect, cbor=encode(value).hex(), value=shown)


# ---- Sound requests ----------------------------------------------------------------------------


def _sound(shape: type[Shape], base: dict[str, Any]) -> Iterator[Case]:
    yield _case("typical", "an ordinary request", base, "answer")
    rng = random.Random(SEED)
    for number in range(FROM_TYPES):
        yield _case(f"from-types-{number + 1}", "made up from the types", samples.fresh(shape, rng), "answer")
    for path, kind in _leaves(base, inspect.type_info(shape)):
        where = _words(path)
        if isinstance(kind, inspect.FloatType):
            for value in NUMBERS:
                if _typed(shape, changed := _with(base, path, value)):
                    yield _case(f"{where}-{value!r}", f"{where} is {value!r}, in the shortest form that keeps it", changed, "answer")
            break
    for path, kind in _leaves(base, inspect.type_info(shape)):
        if isinstance(kind, inspect.IntType) and kind.le is None:
            yield _case(f"{_words(path)}-most", f"{_words(path)} is the largest number of 64 bits", _with(base, path, UINT_MAX), "answer")


def _typed(shape: type[Shape], value: dict[str, Any]) -> bool:
    try:
        msgspec.convert(value, shape)
    except msgspec.ValidationError:
        return False
    return True


# ---- Keys --------------------------------------------------------------------------------------


def _wrong_keys(base: dict[str, Any], kind: Any) -> Iterator[Case]:
    for path, _ in _maps(base):
        optional = _optional(kind, path)
        inner = _at(base, path)
        where = _words(path) or "request"
        yield _case(f"{where}-surplus", f"{where} has a key that the contract does not know", _with(base, path, inner | {"surplus": 1}))
        pairs = sorted_pairs(inner)
        if len(pairs) > 1:
            yield _case(
                f"{where}-order", f"the first two keys of {where} are swapped", _with(base, path, Pairs((pairs[1], pairs[0], *pairs[2:])))
            )
            yield _case(f"{where}-twice", f"the first key of {where} is there twice", _with(base, path, Pairs((pairs[0], *pairs))))
        for key in inner:
            if key not in optional:
                less = {name: value for name, value in inner.items() if name != key}
                yield _case(f"{_words((*path, key))}-missing", f"{_words((*path, key))} is missing", _with(base, path, less))
    yield _case("key-number", "a key is a number", Pairs(((1, 1), *sorted_pairs(base))))


# ---- Types -------------------------------------------------------------------------------------

WRONG: tuple[tuple[str, Any], ...] = (
    ("null", Raw(b"\xf6")), ("undefined", Raw(b"\xf7")), ("tag", Raw(b"\xc1\x00")), ("integer", 7), ("negative", -7), ("float", 0.5), ("text", "x"), ("bytes", b"x"),
    ("boolean", True), ("list", []), ("map", {}),
)  # fmt: skip
FITS = {"FloatType": "float", "IntType": "integer", "StrType": "text", "BytesType": "bytes", "BoolType": "boolean"}


def _wrong_types(base: dict[str, Any], kind: Any) -> Iterator[Case]:
    """Each kind of leaf once with every other type, the first list and map too, and each leaf with null."""
    seen: set[str] = set()
    for path, leaf in _leaves(base, kind):
        name = type(leaf).__name__
        for label, value in WRONG[:1] if name in seen else WRONG:
            if label != FITS.get(name) and not (name == "LiteralType" and label == "text"):
                yield _case(
                    f"{_words(path)}-{label}", f"{_words(path)} is {label} instead of what the contract says", _with(base, path, value)
                )
        if isinstance(leaf, inspect.LiteralType):
            yield _case(f"{_words(path)}-word", f"{_words(path)} is no word of the contract", _with(base, path, "obey"))
        seen.add(name)
    for label, value in WRONG[:-1]:
        yield _case(f"request-{label}", f"the request is {label} instead of a map", value)


# ---- Bytes -------------------------------------------------------------------------------------


def _wrong_bytes(base: dict[str, Any]) -> Iterator[Case]:
    whole = encode(base)
    yield Case(name="empty", about="no bytes at all", expect="bad_request", cbor="")
    for number in range(1, CUTS + 1):
        cut = whole[: max(0, len(whole) * number // (CUTS + 1))]
        yield Case(name=f"cut-{number}", about=f"cut off after {len(cut)} of {len(whole)} bytes", expect="bad_request", cbor=cut.hex())
    yield _case("behind", "a byte stands behind the request", Raw(whole + b"\x00"))
    yield _case("twice", "the request stands there twice", Raw(whole * 2))
    yield _case("tagged", "the request has a tag", Raw(b"\xd9\xd9\xf7" + whole))
    body = b"".join(encode(key) + encode(value) for key, value in sorted_pairs(base))
    yield _case("map-indefinite", "a map without a definite length", Raw(b"\xbf" + body + b"\xff"))
    yield _case("map-long-head", "the length of a map in more bytes than it needs", Raw(bytes([0xB8, len(base)]) + body))
    yield _case("map-one-more", "a map that announces a key more than it has", Raw(head(5, len(base) + 1) + body))
    yield _case("map-of-all", "a map that announces 2^64 - 1 keys", Raw(head(5, UINT_MAX) + body))
    yield _case("deep", f"lists {DEEP} deep", Raw(b"\x81" * DEEP + b"\x80"))
    yield _case("reserved", "an initial byte that means nothing (RFC 8949, section 3)", Raw(b"\xbc" + body))
    for path, _ in [*_plain_leaves(base)]:
        for label, about, item in _odd_forms(_at(base, path)):
            yield _case(f"{_words(path)}-{label}", f"{_words(path)}: {about}", _with(base, path, Raw(item)))


def _odd_forms(value: Any) -> Iterator[tuple[str, str, bytes]]:
    match value:
        case bool():
            yield "long-boolean", "a boolean in two bytes", b"\xf8\x15"
        case int():
            yield "long-number", "a number in more bytes than it needs", b"\x1b" + (value % 24).to_bytes(8)
        case float():
            yield "not-a-number", "a NaN", b"\xf9\x7e\x00"
            yield "infinity", "an infinity", b"\xf9\x7c\x00"
            yield "long-single", "half of a whole in single precision, where half would do", b"\xfa\x3f\x00\x00\x00"
            yield "long-double", "half of a whole in double precision, where half would do", b"\xfb\x3f\xe0" + bytes(6)
        case str():
            yield "long-text-head", "the length of a text in more bytes than it needs", b"\x78\x01x"
            yield "indefinite-text", "a text without a definite length", b"\x7f\x61x\xff"
            yield "not-utf8", "a text that is not UTF-8", b"\x61\xff"
            yield "overlong-utf8", "a text with an overlong form", b"\x62\xc0\x80"
            yield "surrogate", "a text with half of a surrogate pair", b"\x63\xed\xa0\x80"
            yield "endless-text", "a text that claims 2^64 - 1 bytes", b"\x7b" + b"\xff" * 8
        case bytes():
            yield "indefinite-bytes", "bytes without a definite length", b"\x5f\x41x\xff"
            yield "endless-bytes", "bytes that claim to be 2^64 - 1", b"\x5b" + b"\xff" * 8
        case list():
            yield "indefinite-list", "a list without a definite length", b"\x9f" + b"".join(map(encode, value)) + b"\xff"
            yield "endless-list", "a list that claims 2^64 - 1 items", b"\x9b" + b"\xff" * 8
            yield "large-list", "a list that claims 2^31 items", b"\x9a\x80\x00\x00\x00"


# ---- Bounds ------------------------------------------------------------------------------------


def _out_of_bounds(base: dict[str, Any], shape: type[Shape]) -> Iterator[Case]:
    for path, kind in _leaves(base, inspect.type_info(shape)):
        for label, value in _beyond(kind):
            if not _typed(shape, changed := _with(base, path, value)):
                yield _case(f"{_words(path)}-{label}", f"{_words(path)} is outside the contract's bounds", changed, "any")


def _beyond(kind: Any) -> Iterator[tuple[str, Any]]:
    match kind:
        case inspect.FloatType(ge=low, le=high):
            yield from [] if low is None else [("below", low - 1.0)]
            yield from [] if high is None else [("above", high + 1.0)]
        case inspect.IntType(le=high) if high is not None:
            yield "above", high + 1
        case inspect.StrType(min_length=low, max_length=high):
            yield from [("short", "")] if low else []
            yield from [] if high is None or high > 1024 else [("long", "x" * (high + 1))]
        case inspect.BytesType(min_length=low, max_length=high):
            yield from [("short", bytes(low - 1))] if low else []
            yield from [] if high is None or high > 1024 else [("long", bytes(high + 1))]


# ---- Ways into a request -----------------------------------------------------------------------

Path = tuple[str | int, ...]


def _leaves(value: Any, kind: Any, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    """The places of plain values, with their types."""
    match kind:
        case inspect.StructType(fields=fields):
            for field in fields:
                if field.encode_name in value:
                    yield from _leaves(value[field.encode_name], samples.present(field.type), (*path, field.encode_name))
        case inspect.VarTupleType(item_type=item):
            for index, one in enumerate(value[:1]):
                yield from _leaves(one, item, (*path, index))
        case inspect.TupleType(item_types=kinds):
            yield from _leaves(value[0], kinds[0], (*path, 0))
        case _:
            yield path, kind


def _plain_leaves(value: Any, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    """One place of each kind of plain value and of list, the first that comes."""
    seen: set[type] = set()
    for place, inner in _walk(value, path):
        if not isinstance(inner, dict) and type(inner) not in seen:
            seen.add(type(inner))
            yield place, inner


def _walk(value: Any, path: Path) -> Iterator[tuple[Path, Any]]:
    if path:
        yield path, value
    entries = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in entries:
        yield from _walk(inner, (*path, key))


def _maps(value: Any) -> Iterator[tuple[Path, Any]]:
    """The places of maps, of those in a list the first only."""
    yield (), value
    for path, inner in _walk(value, ()):
        if isinstance(inner, dict) and all(step in ("", 0) or isinstance(step, str) for step in path):
            yield path, inner


def _optional(kind: Any, path: Path) -> set[str]:
    """The keys that may be absent from the map at this place."""
    for step in path:
        if isinstance(kind, inspect.VarTupleType):
            kind = kind.item_type
        else:
            kind = next(samples.present(field.type) for field in kind.fields if field.encode_name == step)
    return {field.encode_name for field in kind.fields if not field.required}


def _at(value: Any, path: Path) -> Any:
    for step in path:
        value = value[step]
    return value


def _with(value: Any, path: Path, item: Any) -> Any:
    if not path:
        return item
    made: Any = dict(value) if isinstance(value, dict) else list(value)
    made[path[0]] = _with(value[path[0]], path[1:], item)
    return made


def _words(path: Path) -> str:
    return ".".join(str(step) for step in path)


HOOKS = tuple(sorted({*SHAPES, *STREAMING}))
