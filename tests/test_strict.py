"""Deterministic CBOR: one suite over the compiled checker and its readable reference, and over the codec that stands on them."""

import itertools
import math
import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cython_core import strict, strict_reference
from cython_core.strict_reference import (
    DEPTH,
    INDEFINITE,
    ITEMS,
    KEY_ORDER,
    KEY_TYPE,
    NOT_SHORTEST,
    OK,
    PROBLEMS,
    SIMPLE,
    TAG,
    TRAILING,
    TRUNCATED,
)
from host.core import cbor
from host.core.errors import MalformedData, TooLarge
from host.core.limits import DEFAULT

Check = Callable[[bytes, int, int, tuple[int, ...]], tuple[int, int]]
FUZZ = settings(max_examples=400, deadline=None, print_blob=True)
DEPTH_MAX, ITEMS_MAX = 16, 1000


@pytest.fixture(params=[strict.check, strict_reference.check], ids=["compiled", "reference"])
def check(request: pytest.FixtureRequest) -> Check:
    chosen: Check = request.param
    return chosen


# RFC 8949, appendix A: the encodings inside the profile, with their values.
INSIDE: list[tuple[str, Any]] = [
    ("00", 0),
    ("01", 1),
    ("0a", 10),
    ("17", 23),
    ("1818", 24),
    ("1819", 25),
    ("1864", 100),
    ("1903e8", 1000),
    ("1a000f4240", 1000000),
    ("1b000000e8d4a51000", 1000000000000),
    ("1bffffffffffffffff", 18446744073709551615),
    ("3bffffffffffffffff", -18446744073709551616),
    ("20", -1),
    ("29", -10),
    ("3863", -100),
    ("3903e7", -1000),
    ("f90000", 0.0),
    ("f98000", -0.0),
    ("f93c00", 1.0),
    ("fb3ff199999999999a", 1.1),
    ("f93e00", 1.5),
    ("f97bff", 65504.0),
    ("fa47c35000", 100000.0),
    ("fa7f7fffff", 3.4028234663852886e38),
    ("fb7e37e43c8800759c", 1.0e300),
    ("f90001", 5.960464477539063e-08),
    ("f90400", 6.103515625e-05),
    ("f9c400", -4.0),
    ("fbc010666666666666", -4.1),
    ("f97c00", math.inf),
    ("f97e00", math.nan),
    ("f9fc00", -math.inf),
    ("f4", False),
    ("f5", True),
    ("f6", None),
    ("40", b""),
    ("4401020304", b"\x01\x02\x03\x04"),
    ("60", ""),
    ("6161", "a"),
    ("6449455446", "IETF"),
    ("62225c", '"\\'),
    ("62c3bc", "\u00fc"),
    ("63e6b0b4", "\u6c34"),
    ("64f0908591", "\U00010151"),
    ("80", []),
    ("83010203", [1, 2, 3]),
    ("8301820203820405", [1, [2, 3], [4, 5]]),
    ("98190102030405060708090a0b0c0d0e0f101112131415161718181819", list(range(1, 26))),
    ("a0", {}),
    ("a201020304", {1: 2, 3: 4}),
    ("a26161016162820203", {"a": 1, "b": [2, 3]}),
    ("826161a161626163", ["a", {"b": "c"}]),
    ("a56161614161626142616361436164614461656145", {"a": "A", "b": "B", "c": "C", "d": "D", "e": "E"}),
]

# RFC 8949, appendix A: the encodings outside the profile, with the rule that each breaks.
OUTSIDE: list[tuple[str, int]] = [
    ("c249010000000000000000", TAG),  # bignum
    ("c349010000000000000000", TAG),
    ("fa7f800000", NOT_SHORTEST),  # infinities and NaN in more bytes than they need
    ("fa7fc00000", NOT_SHORTEST),
    ("faff800000", NOT_SHORTEST),
    ("fb7ff0000000000000", NOT_SHORTEST),
    ("fb7ff8000000000000", NOT_SHORTEST),
    ("fbfff0000000000000", NOT_SHORTEST),
    ("f7", SIMPLE),  # undefined
    ("f0", SIMPLE),
    ("f818", SIMPLE),
    ("f8ff", SIMPLE),
    ("c074323031332d30332d32315432303a30343a30305a", TAG),
    ("c11a514b67b0", TAG),
    ("c1fb41d452d9ec200000", TAG),
    ("d74401020304", TAG),
    ("d818456449455446", TAG),
    ("d82076687474703a2f2f7777772e6578616d706c652e636f6d", TAG),
    ("5f42010243030405ff", INDEFINITE),
    ("7f657374726561646d696e67ff", INDEFINITE),
    ("9fff", INDEFINITE),
    ("9f018202039f0405ffff", INDEFINITE),
    ("9f01820203820405ff", INDEFINITE),
    ("83018202039f0405ff", INDEFINITE),
    ("83019f0203ff820405", INDEFINITE),
    ("9f0102030405060708090a0b0c0d0e0f101112131415161718181819ff", INDEFINITE),
    ("bf61610161629f0203ffff", INDEFINITE),
    ("826161bf61626163ff", INDEFINITE),
    ("bf6346756ef563416d7421ff", INDEFINITE),
]

# One or more encodings for every rule of the docstring, with the offset of the item that breaks it.
REFUSED: list[tuple[str, int, int]] = [
    ("", TRUNCATED, 0),
    ("18", TRUNCATED, 0),
    ("1b00000000000000", TRUNCATED, 0),
    ("42ff", TRUNCATED, 0),
    ("6261", TRUNCATED, 0),
    ("8201", TRUNCATED, 0),
    ("a101", TRUNCATED, 0),
    ("a10118", TRUNCATED, 2),
    ("d2", TRUNCATED, 1),
    ("f9", TRUNCATED, 0),
    ("f97e", TRUNCATED, 0),
    ("0000", TRAILING, 1),
    ("8000", TRAILING, 1),
    ("60f6", TRAILING, 1),
    ("1c", INDEFINITE, 0),  # reserved heads
    ("3d", INDEFINITE, 0),
    ("5e", INDEFINITE, 0),
    ("fc", INDEFINITE, 0),
    ("ff", INDEFINITE, 0),
    ("81ff", INDEFINITE, 1),
    ("df00", INDEFINITE, 0),
    ("1817", NOT_SHORTEST, 0),
    ("1900ff", NOT_SHORTEST, 0),
    ("1a0000ffff", NOT_SHORTEST, 0),
    ("1b00000000ffffffff", NOT_SHORTEST, 0),
    ("3817", NOT_SHORTEST, 0),
    ("5800", NOT_SHORTEST, 0),
    ("780161", NOT_SHORTEST, 0),
    ("9800", NOT_SHORTEST, 0),
    ("b800", NOT_SHORTEST, 0),
    ("d81200", NOT_SHORTEST, 0),
    ("fa00000000", NOT_SHORTEST, 0),
    ("fa80000000", NOT_SHORTEST, 0),
    ("fa3f800000", NOT_SHORTEST, 0),  # 1.0
    ("fa33800000", NOT_SHORTEST, 0),  # 2**-24, the smallest half
    ("fa387fc000", NOT_SHORTEST, 0),  # the largest subnormal half
    ("fa477fe000", NOT_SHORTEST, 0),  # 65504, the largest half
    ("fb36a0000000000000", NOT_SHORTEST, 0),  # 2**-149, the smallest single
    ("fb47efffffe0000000", NOT_SHORTEST, 0),  # the largest single
    ("fb8000000000000000", NOT_SHORTEST, 0),
    ("f97c01", NOT_SHORTEST, 0),  # every NaN but f9 7e00
    ("f97fff", NOT_SHORTEST, 0),
    ("f9fe00", NOT_SHORTEST, 0),
    ("fa7fc00001", NOT_SHORTEST, 0),
    ("fb7ff8000000000001", NOT_SHORTEST, 0),
    ("d300", TAG, 0),
    ("81c000", TAG, 1),
    ("e0", SIMPLE, 0),
    ("f3", SIMPLE, 0),
    ("81f7", SIMPLE, 1),
    ("f814", SIMPLE, 0),
    ("a18000", KEY_TYPE, 1),
    ("a1a000", KEY_TYPE, 1),
    ("a1f400", KEY_TYPE, 1),
    ("a1f93c0000", KEY_TYPE, 1),
    ("a1d20000", KEY_TYPE, 1),
    ("a201000100", KEY_ORDER, 3),
    ("a202000100", KEY_ORDER, 3),
    ("a2616100616100", KEY_ORDER, 4),
    ("a220001818" + "00", KEY_ORDER, 3),  # 24 stands before -1: bytewise, not shorter first
    ("a2626161006162" + "00", KEY_ORDER, 5),
    ("a240000100", KEY_ORDER, 3),
]

ACCEPTED = [
    "fa33000000",
    "fa00000001",
    "fa477fe001",
    "fa47800000",
    "fb36a0000000000001",
    "fb7fefffffffffffff",
    "a2181800" + "2000",
    "a30100" + "4000" + "6000",
]


@pytest.mark.parametrize(("encoded", "value"), INSIDE, ids=[encoded for encoded, _ in INSIDE])
def test_an_appendix_a_vector_inside_the_profile_is_accepted_and_comes_back_the_same(check: Check, encoded: str, value: Any) -> None:
    data = bytes.fromhex(encoded)
    assert check(data, DEPTH_MAX, ITEMS_MAX, ()) == (OK, 0)
    decoded = cbor.decode(data, "vector")
    assert type(decoded) is type(value)
    assert repr(decoded) == repr(value), "repr tells -0.0 from 0.0, and NaN is NaN"
    assert cbor.encode(value) == data


@pytest.mark.parametrize(("encoded", "problem"), OUTSIDE, ids=[encoded for encoded, _ in OUTSIDE])
def test_an_appendix_a_vector_outside_the_profile_is_refused_for_its_reason(check: Check, encoded: str, problem: int) -> None:
    data = bytes.fromhex(encoded)
    assert check(data, DEPTH_MAX, ITEMS_MAX, ())[0] == problem
    with pytest.raises(MalformedData) as caught:
        cbor.decode(data, "the vector")
    assert str(caught.value).startswith("the vector: not deterministic CBOR at byte ")
    assert str(caught.value).endswith(PROBLEMS[problem])
    assert str(caught.value).isprintable()


def test_appendix_a_is_here_whole() -> None:
    assert len({encoded for encoded, _ in INSIDE} | {encoded for encoded, _ in OUTSIDE}) == len(INSIDE) + len(OUTSIDE) == 82


@pytest.mark.parametrize(("encoded", "problem", "offset"), REFUSED, ids=[f"{e or 'nothing'}" for e, _, _ in REFUSED])
def test_each_rule_refuses_and_says_where(check: Check, encoded: str, problem: int, offset: int) -> None:
    assert check(bytes.fromhex(encoded), DEPTH_MAX, ITEMS_MAX, (18,)) == (problem, offset)


def test_every_problem_has_a_case_and_a_sentence() -> None:
    assert {problem for _, problem, _ in REFUSED} | {OK, DEPTH, ITEMS} == set(range(len(PROBLEMS)))
    assert all(sentence.isprintable() for sentence in PROBLEMS)
    assert len(set(PROBLEMS)) == len(PROBLEMS)


@pytest.mark.parametrize("encoded", ACCEPTED)
def test_what_only_looks_too_long_is_accepted(check: Check, encoded: str) -> None:
    data = bytes.fromhex(encoded)
    assert check(data, DEPTH_MAX, ITEMS_MAX, ()) == (OK, 0)
    assert cbor.encode(cbor.decode(data, "x")) == data


def test_every_half_float_gets_one_verdict_and_is_its_own_encoding() -> None:
    accepted = 0
    for raw in range(1 << 16):
        data = b"\xf9" + raw.to_bytes(2, "big")
        verdict = strict.check(data, 1, 1, ())
        assert verdict == strict_reference.check(data, 1, 1, ())
        accepted += verdict == (OK, 0)
    assert accepted == (1 << 16) - 2 * (1 << 10) + 2 + 1, "all but the NaNs; the two infinities and one NaN again"


def test_single_floats_around_every_exponent_get_one_verdict() -> None:
    mantissas = (0, 1, 0x1000, 0x1FFF, 0x2000, 0x3FFFFF, 0x400000, 0x7FE000, 0x7FFFFF, *(1 << bit for bit in range(23)))
    for sign, exponent in itertools.product((0, 1), range(256)):
        for mantissa in mantissas:
            data = b"\xfa" + (sign << 31 | exponent << 23 | mantissa).to_bytes(4, "big")
            assert strict.check(data, 1, 1, ()) == strict_reference.check(data, 1, 1, ()), data.hex()


def test_a_tag_passes_only_where_its_number_is_named(check: Check) -> None:
    data = bytes.fromhex("d280")
    assert check(data, DEPTH_MAX, ITEMS_MAX, (18,)) == (OK, 0)
    assert check(data, DEPTH_MAX, ITEMS_MAX, (17, 61)) == (TAG, 0)
    assert check(bytes.fromhex("db8000000000000000" + "00"), DEPTH_MAX, ITEMS_MAX, (1 << 63,)) == (OK, 0)


def test_depth_is_counted_through_arrays_maps_and_tags(check: Check) -> None:
    for nest in (b"\x81", b"\xa1\x00", b"\xd2"):
        for depth in (1, 2, 7, DEPTH_MAX):
            fits = nest * (depth - 1) + b"\x00"
            assert check(fits, depth, ITEMS_MAX, (18,)) == (OK, 0)
            assert check(nest + fits, depth, ITEMS_MAX, (18,))[0] == DEPTH


def test_a_depth_bomb_is_refused_at_the_bound(check: Check) -> None:
    for bomb in (b"\x81" * 200_000, b"\xa1\x00" * 100_000):
        problem, offset = check(bomb, DEPTH_MAX, 1 << 30, ())
        assert problem == DEPTH
        assert offset <= 2 * DEPTH_MAX
    with pytest.raises(MalformedData, match=r"^bomb: .* byte 16: nested too deeply$"):
        cbor.decode(b"\x81" * 200_000, "bomb")


def test_items_are_counted_one_for_each_value_and_key(check: Check) -> None:
    data = cbor.encode({"a": [1, 2], "b": b"x"})  # 1 map, 2 keys, 1 list, 2 numbers, 1 bytes
    assert check(data, DEPTH_MAX, 7, ()) == (OK, 0)
    assert check(data, DEPTH_MAX, 6, ())[0] == ITEMS
    assert check(b"\x00", 1, 0, ()) == (ITEMS, 0)


def test_an_item_bomb_is_refused_at_the_bound() -> None:
    count = DEFAULT.cbor_items_max
    data = b"\x9a" + count.to_bytes(4, "big") + b"\x00" * count
    with pytest.raises(MalformedData, match=r"^bomb: .*: too many items$"):
        cbor.decode(data, "bomb")
    allowed = b"\x99" + (count - 1).to_bytes(2, "big") + b"\x00" * (count - 1)
    assert len(cbor.decode(allowed, "no bomb")) == count - 1


@pytest.mark.parametrize("head", ["5b", "7b", "9b", "bb", "5a", "9a", "ba"])
@pytest.mark.parametrize("fill", ["ff", "7f"])
def test_a_huge_claimed_length_is_refused_without_allocating(check: Check, head: str, fill: str) -> None:
    width = 8 if head[1] == "b" else 4
    data = bytes.fromhex(head + fill * width) + b"\x00" * 100
    tracemalloc.start()
    try:
        assert check(data, DEPTH_MAX, ITEMS_MAX, ()) == (TRUNCATED, 0)
        assert tracemalloc.get_traced_memory()[1] < 64 << 10
    finally:
        tracemalloc.stop()


def test_a_map_that_claims_half_of_all_numbers_does_not_overflow(check: Check) -> None:
    assert check(b"\xbb\x80" + b"\x00" * 7 + b"\x00" * 10, DEPTH_MAX, ITEMS_MAX, ()) == (TRUNCATED, 0)
    assert check(b"\xbb\x80" + b"\x00" * 6 + b"\x01" + b"\x00" * 10, DEPTH_MAX, ITEMS_MAX, ()) == (TRUNCATED, 0)


def test_bytes_beyond_the_bound_are_too_large_and_named() -> None:
    with pytest.raises(TooLarge) as caught:
        cbor.decode(b"\x00" * 11, "frame from n1", bytes_max=10)
    assert str(caught.value) == "frame from n1: at most 10 bytes expected, 11 came"
    assert cbor.decode(b"\x49" + b"\x00" * 9, "frame", bytes_max=10) == b"\x00" * 9


@pytest.mark.parametrize("encoded", ["61ff", "62c328", "63eda080", "64f4908080", "62c0af", "a161ff00"])
def test_bad_utf8_is_refused_in_one_line(encoded: str) -> None:
    with pytest.raises(MalformedData) as caught:
        cbor.decode(bytes.fromhex(encoded), "text")
    assert str(caught.value).startswith("text: not valid CBOR: ")
    assert str(caught.value).isprintable()


def test_more_tags_than_the_compiled_checker_holds_are_our_own_mistake() -> None:
    with pytest.raises(ValueError, match="at most 8 tags, not 9"):
        strict.check(b"\x00", 1, 1, tuple(range(9)))


def test_only_bytes_are_checked_and_nothing_that_could_change_meanwhile() -> None:
    with pytest.raises(TypeError):
        strict.check(bytearray(b"\x00"), 1, 1, ())  # type: ignore[arg-type]


def both(data: bytes, depth_max: int = 6, items_max: int = 50, tags: tuple[int, ...] = (18,)) -> tuple[int, int]:
    verdict = strict.check(data, depth_max, items_max, tags)
    assert verdict == strict_reference.check(data, depth_max, items_max, tags)
    return verdict


@FUZZ
@given(st.binary(max_size=64))
@example(b"\xbb\xff\xff\xff\xff\xff\xff\xff\xff\x00\x00")
def test_random_bytes_get_the_same_verdict_from_both(data: bytes) -> None:
    both(data)


# Heads are what a random byte string seldom gets right, so this one is made of them.
HEADS = st.lists(
    st.one_of(
        st.sampled_from([bytes.fromhex(encoded) for encoded, *_ in REFUSED] + [bytes.fromhex(encoded) for encoded, _ in INSIDE]),
        st.integers(0, 255).map(lambda byte: bytes([byte])),
        st.floats(width=64).map(cbor.encode),
    ),
    max_size=12,
).map(b"".join)


@pytest.mark.slow
@FUZZ
@given(HEADS)
def test_strings_of_heads_get_the_same_verdict_from_both(data: bytes) -> None:
    both(data)
    both(b"\x84" + data)
    both(b"\xa3" + data)


KEYS = st.one_of(st.integers(-(1 << 64), (1 << 64) - 1), st.text(max_size=6), st.binary(max_size=6))
VALUES: st.SearchStrategy[Any] = st.recursive(
    st.one_of(KEYS, st.floats(), st.floats(width=32), st.floats(width=16), st.booleans(), st.none()),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(KEYS, inner, max_size=4)),
    max_leaves=12,
)


@pytest.mark.slow
@FUZZ
@given(VALUES)
@example({24: 0, -1: 0, 1000: 0, "a": 0, b"": 0})
def test_whatever_is_encoded_is_accepted_and_comes_back_the_same(value: Any) -> None:
    data = cbor.encode(value)
    assert both(data, 16, 1000, ()) == (OK, 0)
    assert cbor.encode(cbor.decode(data, "x")) == data


@pytest.mark.slow
@FUZZ
@given(VALUES, st.data())
def test_a_mutated_encoding_gets_one_verdict_and_is_canonical_where_it_is_accepted(value: Any, draw: st.DataObject) -> None:
    data = bytearray(cbor.encode(value))
    for _ in range(draw.draw(st.integers(1, 3))):
        at = draw.draw(st.integers(0, len(data)))
        edit = draw.draw(st.sampled_from(["put", "insert", "cut", "flip"]))
        if edit == "insert":
            data[at:at] = draw.draw(st.binary(min_size=1, max_size=3))
        elif edit == "cut":
            del data[at : at + 2]
        elif at < len(data):
            data[at] = draw.draw(st.integers(0, 255)) if edit == "put" else data[at] ^ (1 << draw.draw(st.integers(0, 7)))
    if both(bytes(data), 16, 1000, ()) == (OK, 0):
        try:
            decoded = cbor.decode(bytes(data), "x")
        except MalformedData as error:
            assert "not valid CBOR" in str(error), "only bad UTF-8 is left for the decoder to find"
        else:
            assert cbor.encode(decoded) == bytes(data)


@pytest.mark.slow
@FUZZ
@given(VALUES, st.integers(0, 5), st.integers(0, 20))
def test_both_count_depth_and_items_alike(value: Any, depth_max: int, items_max: int) -> None:
    both(cbor.encode(value), depth_max, items_max)
