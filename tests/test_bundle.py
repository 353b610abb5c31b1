"""Bundles: what is signed, by whom, and everything that must not pass for it."""

import hashlib
import unicodedata
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from nacl.signing import SigningKey

from host.core import bundle, cbor, cose, manifest, wasm
from host.core.bundle import Bundle, UnverifiedBundle, with_manifest, with_signature
from host.core.errors import MalformedData, MalformedModule, SignatureInvalid, SnapcountError, TooLarge, UntrustedInput
from host.core.limits import DEFAULT
from host.core.manifest import Manifest, version_key
from host.core.text import safe

FUZZ = settings(max_examples=400, deadline=None, print_blob=True)

HEADER = b"\0asm\x01\0\0\0"
# A type section with one type, as a stand-in for code: the bundle's rules look into no section but custom ones.
MODULE = HEADER + b"\x01\x04\x01\x60\x00\x00"
SKILL = Manifest(name="drill-planner", version="1.2.3", hooks=("plan_job",))
ALICE, BOB, STRANGER = (SigningKey(name * 32) for name in (b"A", b"B", b"S"))


def name_of(key: SigningKey) -> str:
    return cose.key_name(bytes(key.verify_key))


def unsigned() -> bytes:
    return with_manifest(MODULE, SKILL, "drill.wasm")


def signed(*keys: SigningKey) -> bytes:
    data = unsigned()
    for key in keys:
        data = with_signature(data, key, "drill.wasm")
    return data


def verify(data: bytes, *keys: SigningKey, threshold: int = 1) -> Bundle:
    return UnverifiedBundle.parse(data, "drill.wasm").verify([key.verify_key for key in keys], threshold=threshold)


def with_raw_manifest(content: bytes) -> bytes:
    return MODULE + wasm.custom_section(manifest.SECTION, content)


def refused(kind: type[SnapcountError], data: bytes, *keys: SigningKey, threshold: int = 1) -> str:
    """The message of the refusal, after a look at its form."""
    with pytest.raises(kind) as caught:
        verify(data, *keys, threshold=threshold)
    message = str(caught.value)
    assert message.isprintable(), "one line"
    assert message.startswith("drill.wasm"), "names the file"
    return message


# Signatures.


def test_a_signed_bundle_verifies_and_says_what_it_is() -> None:
    data = signed(ALICE)
    found = verify(data, ALICE)
    assert (found.data, found.manifest, found.label) == (data, SKILL, "drill-planner 1.2.3")
    assert found.digest == "sha256:" + hashlib.sha256(data).hexdigest()
    assert found.signers == (bytes(ALICE.verify_key),)


def test_an_unsigned_bundle_is_refused_and_says_how_to_sign_it() -> None:
    assert refused(SignatureInvalid, unsigned(), ALICE) == "drill.wasm: unsigned; sign it with `snapcount skill sign`"


def test_a_strangers_signature_counts_for_nothing_and_is_named() -> None:
    message = refused(SignatureInvalid, signed(STRANGER), ALICE)
    assert message == f"drill.wasm: 1 trusted signature(s) needed, 0 found; signed by {name_of(STRANGER)}, not trusted here"
    assert verify(signed(STRANGER, ALICE), ALICE).signers == (bytes(ALICE.verify_key),)
    assert verify(signed(ALICE, STRANGER), ALICE).signers == (bytes(ALICE.verify_key),)


def test_no_key_is_trusted_where_none_is_given() -> None:
    assert "0 found" in refused(SignatureInvalid, signed(ALICE, BOB))


def test_two_signers_reach_a_threshold_of_two_and_one_does_not() -> None:
    assert verify(signed(ALICE, BOB), ALICE, BOB, threshold=2).signers == (bytes(ALICE.verify_key), bytes(BOB.verify_key))
    assert "2 trusted signature(s) needed, 1 found" in refused(SignatureInvalid, signed(ALICE), ALICE, BOB, threshold=2)
    message = refused(SignatureInvalid, signed(ALICE, STRANGER), ALICE, BOB, threshold=2)
    assert f"1 found; signed by {name_of(STRANGER)}" in message


def test_one_signer_twice_does_not_count_twice() -> None:
    data = signed(ALICE)
    again = cose.sign(ALICE, hashlib.sha256(data).digest(), kid=bytes(ALICE.verify_key), detached=True, aad=bundle.AAD)
    twice = data + wasm.custom_section(bundle.SIGNATURE_SECTION, again)
    assert verify(twice, ALICE).signers == (bytes(ALICE.verify_key),)
    assert "2 trusted signature(s) needed, 1 found" in refused(SignatureInvalid, twice, ALICE, BOB, threshold=2)
    copied = data + data[len(unsigned()) :]
    assert "does not match key" in refused(SignatureInvalid, copied, ALICE), "the same section again signs other bytes"


def test_signing_twice_with_one_key_is_refused_when_signing() -> None:
    with pytest.raises(SignatureInvalid) as caught:
        with_signature(signed(ALICE, BOB), ALICE, "drill.wasm")
    assert str(caught.value) == f"drill.wasm: {name_of(ALICE)} has signed it already"


def test_a_signature_that_claims_a_trusted_key_and_does_not_verify_is_an_error_beside_good_ones() -> None:
    data = signed(ALICE)
    forged = cose.sign(STRANGER, hashlib.sha256(data).digest(), kid=bytes(BOB.verify_key), detached=True, aad=bundle.AAD)
    message = refused(SignatureInvalid, data + wasm.custom_section(bundle.SIGNATURE_SECTION, forged), ALICE, BOB)
    assert message == f"drill.wasm: the signature does not match key {name_of(BOB)}"


@pytest.mark.parametrize("what", ["attached", "another purpose", "not the digest"])
def test_a_signature_by_the_right_key_over_something_else_is_refused(what: str) -> None:
    data, kid = unsigned(), bytes(ALICE.verify_key)
    digest = hashlib.sha256(data).digest()
    signature = {
        "attached": cose.sign(ALICE, digest, kid=kid, aad=bundle.AAD),
        "another purpose": cose.sign(ALICE, digest, kid=kid, detached=True, aad=b"snapcount fleet 1"),
        "not the digest": cose.sign(ALICE, data, kid=kid, detached=True, aad=bundle.AAD),
    }[what]
    refused(SignatureInvalid, data + wasm.custom_section(bundle.SIGNATURE_SECTION, signature), ALICE)


def test_what_is_no_signature_in_a_signature_section_is_refused() -> None:
    for content in (b"", b"\xf6", b"\0" * 100, cose.sign(ALICE, b"", kid=b"")[:-1]):
        message = refused(MalformedData, unsigned() + wasm.custom_section(bundle.SIGNATURE_SECTION, content), ALICE)
        assert "signature" in message


def test_an_altered_bit_anywhere_never_verifies() -> None:
    data = signed(ALICE)
    for at in range(len(data)):
        for bit in range(8):
            altered = bytearray(data)
            altered[at] ^= 1 << bit
            refused(UntrustedInput, bytes(altered), ALICE)


def test_an_altered_bit_in_any_section_of_two_signers_never_reaches_two() -> None:
    data = signed(ALICE, BOB)
    for at in range(len(data)):
        altered = bytearray(data)
        altered[at] ^= 1 << (at % 8)
        refused(UntrustedInput, bytes(altered), ALICE, BOB, threshold=2)


def test_every_truncation_of_a_bundle_is_refused() -> None:
    data = signed(ALICE)
    for length in range(len(data)):
        refused(UntrustedInput, data[:length], ALICE)
    whole, first = signed(ALICE, BOB), len(signed(ALICE))
    for length in range(len(whole)):
        refused(UntrustedInput, whole[:length], ALICE, BOB, threshold=2)
        if length != first:
            refused(UntrustedInput, whole[:length], ALICE)


def test_sections_cannot_be_exchanged_removed_or_added_under_a_signature() -> None:
    data = signed(ALICE)
    parts = [data[s.start : s.end] for s in wasm.sections(data, "x")]
    code, described, signature = parts
    extra = wasm.custom_section("name", b"extra")
    for order in ([described, code, signature], [described, signature], [code, extra, described, signature], [extra, *parts]):
        refused(SignatureInvalid, HEADER + b"".join(order), ALICE)


@pytest.mark.parametrize("added", [wasm.custom_section("name", b""), wasm.custom_section(manifest.SECTION + "2", b""), b"\x01\x01\x00"])
def test_something_after_a_signature_is_refused(added: bytes) -> None:
    assert refused(MalformedModule, signed(ALICE) + added, ALICE) == "drill.wasm: something stands after a signature"
    between = with_signature(unsigned(), ALICE, "x") + added
    second = cose.sign(BOB, hashlib.sha256(between).digest(), kid=bytes(BOB.verify_key), detached=True, aad=bundle.AAD)
    refused(MalformedModule, between + wasm.custom_section(bundle.SIGNATURE_SECTION, second), ALICE, BOB)


def test_eight_signatures_are_read_and_nine_are_not() -> None:
    keys = [SigningKey(bytes([number]) * 32) for number in range(9)]
    eight = signed(*keys[:8])
    assert len(verify(eight, *keys, threshold=8).signers) == 8
    signature = cose.sign(keys[8], hashlib.sha256(eight).digest(), kid=bytes(keys[8].verify_key), detached=True, aad=bundle.AAD)
    nine = eight + wasm.custom_section(bundle.SIGNATURE_SECTION, signature)
    assert refused(TooLarge, nine, *keys) == "drill.wasm: at most 8 signatures, found 9"


def test_a_strangers_long_key_id_cannot_flood_the_error() -> None:
    header = cbor.encode({1: -8})
    signature = b"\xd2" + cbor.encode([header, {4: b"k" * 100_000}, None, b"\0" * 64])
    message = refused(MalformedData, unsigned() + wasm.custom_section(bundle.SIGNATURE_SECTION, signature), ALICE)
    assert len(message) < 200


def test_an_oversized_bundle_is_refused_before_it_is_read() -> None:
    message = refused(TooLarge, b"\xff" * (DEFAULT.bundle_bytes_max + 1), ALICE)
    assert message == f"drill.wasm: a bundle has at most {DEFAULT.bundle_bytes_max} bytes, this one has {DEFAULT.bundle_bytes_max + 1}"
    with pytest.raises(MalformedModule):
        UnverifiedBundle.parse(b"\xff" * DEFAULT.bundle_bytes_max, "drill.wasm")


# Manifests.


def test_a_bundle_needs_exactly_one_manifest() -> None:
    section = wasm.custom_section(manifest.SECTION, SKILL.encode())
    assert "expected one section snapcount.manifest, found 0" in refused(MalformedModule, MODULE, ALICE)
    assert "expected one section snapcount.manifest, found 2" in refused(MalformedModule, MODULE + section + section, ALICE)


def test_a_new_manifest_replaces_the_former_one_and_its_signatures() -> None:
    newer = Manifest(name="drill-planner", version="1.2.4", hooks=("plan_job",))
    data = with_manifest(signed(ALICE, BOB), newer, "x")
    assert data == with_manifest(MODULE, newer, "x")
    assert UnverifiedBundle.parse(data, "x").signatures == ()


def described(**changes: Any) -> bytes:
    value = {"abi": 1, "name": "drill", "version": "1.0.0", "hooks": ["plan_job"], **changes}
    return with_raw_manifest(cbor.encode({field: item for field, item in value.items() if item is not None}))


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({"extra": 1}, "extra"),
        ({"limits": {"fuel": 1, "gas": 1}}, "gas"),
        ({"name": None}, "name"),
        ({"version": None}, "version"),
        ({"hooks": None}, "hooks"),
        ({"hooks": []}, "hooks"),
        ({"hooks": ["plan_job", "plan_job"]}, "hooks names something twice"),
        ({"capabilities": ["log", "log"]}, "capabilities names something twice"),
        ({"generations": [3, 3]}, "generations names something twice"),
        ({"hooks": ["plan-job"]}, "hooks"),
        ({"hooks": ["hook"] * 33}, "hooks"),
        ({"hooks": "plan_job"}, "hooks"),
        ({"generations": [0]}, "generations"),
        ({"generations": [256]}, "generations"),
        ({"abi": 0}, "abi"),
        ({"abi": "1"}, "abi"),
        ({"abi": True}, "abi"),
        ({"instance": "shared"}, "instance"),
        ({"lineage": "A"}, "lineage"),
        ({"lineage": "a\n"}, "lineage"),
        ({"description": "x" * 501}, "description"),
        ({"limits": {"fuel": 0}}, "limits.fuel"),
        ({"limits": {"fuel": -1}}, "limits.fuel"),
        ({"limits": {"memory_bytes": 65_535}}, "limits.memory_bytes"),
        ({"limits": {"reply_bytes": 1.5}}, "limits.reply_bytes"),
    ],
)
def test_an_unsound_manifest_is_refused_and_the_field_named(changes: dict[str, Any], names: str) -> None:
    message = refused(MalformedData, described(**changes), ALICE)
    assert "manifest" in message
    assert names in message


@pytest.mark.parametrize(
    "name",
    [
        "",
        "Drill",
        "drill_planner",
        "1drill",
        "-drill",
        "drill-",
        "drill--planner",
        "../drill",
        "a/b",
        "/etc",
        "..",
        ".",
        "drill.",
        "a\\b",
        "drill\x00",
        "drill\n",
        "drill ",
        "drıll",
        "drill\u202e",
        "d" * 65,
    ],
)
def test_a_name_that_is_no_name_or_a_path_is_refused(name: str) -> None:
    assert "name" in refused(MalformedData, described(name=name), ALICE)


@pytest.mark.parametrize(
    "version",
    [
        "",
        "1",
        "1.0",
        "1.0.0.0",
        "v1.0.0",
        "01.0.0",
        "1.00.0",
        "1.0.-1",
        "1.0.0-",
        "1.0.0-01",
        "1.0.0-a..b",
        "1.0.0-.",
        "1.0.0-a.",
        "1.0.0-a_b",
        "1.0.0+build",
        "1.0.0-a+b",
        "1.0.0\n",
        "1.0.0-a\n",
        " 1.0.0",
        "1١.0.0",
        "1234567890.0.0",
        "1.0.0-" + "a" * 65,
        "1.0.0-é",
    ],
)
def test_what_is_no_semantic_version_is_refused(version: str) -> None:
    assert "version" in refused(MalformedData, described(version=version), ALICE)
    with pytest.raises(MalformedData) as caught:
        version_key(version)
    assert str(caught.value).startswith("not a semantic version: ")
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    "version", ["0.0.0", "1.0.0", "10.20.30", "1.0.0-0", "1.0.0-alpha.1", "1.0.0--1", "1.0.0-0a", "1.0.0--", "999999999.0.0"]
)
def test_a_semantic_version_is_accepted(version: str) -> None:
    assert UnverifiedBundle.parse(described(version=version), "x").manifest.version == version


def test_versions_are_ordered_as_section_11_of_semantic_versioning_orders_them() -> None:
    spec = ["1.0.0-alpha", "1.0.0-alpha.1", "1.0.0-alpha.beta", "1.0.0-beta", "1.0.0-beta.2", "1.0.0-beta.11", "1.0.0-rc.1", "1.0.0"]
    numbers = ["0.9.9", *spec, "2.0.0", "2.1.0", "2.1.1", "2.1.10", "2.2.0", "10.0.0"]
    keys = [version_key(version) for version in numbers]
    assert keys == sorted(keys)
    assert len(set(keys)) == len(keys)


def test_a_hyphen_belongs_to_a_pre_release_identifier_and_makes_it_text() -> None:
    assert version_key("1.0.0--1") > version_key("1.0.0-1"), "numeric identifiers have lower precedence"
    assert version_key("1.0.0-2") > version_key("1.0.0-1")


def test_a_manifest_beyond_its_bound_or_with_trailing_bytes_is_refused() -> None:
    assert "at most 65536 bytes" in refused(TooLarge, with_raw_manifest(b"\0" * (DEFAULT.manifest_bytes_max + 1)), ALICE)
    assert "bytes follow the item" in refused(MalformedData, with_raw_manifest(SKILL.encode() + b"\0"), ALICE)


def test_a_field_name_cannot_write_to_the_terminal() -> None:
    message = refused(MalformedData, described(**{"\x1b[2J\u202e": 1}), ALICE)
    assert "\\x1b[2J\\u202e" in message


def test_limits_are_capped_and_never_raised() -> None:
    greedy = manifest.SkillLimits(
        fuel=1 << 60, deadline_ms=1 << 40, memory_bytes=1 << 40, reply_bytes=1 << 40, host_calls=1 << 40, log_bytes=1 << 40
    )
    assert greedy.capped(DEFAULT) == manifest.SkillLimits(
        fuel=DEFAULT.fuel_max,
        deadline_ms=DEFAULT.deadline_ms_max,
        memory_bytes=DEFAULT.memory_bytes_max,
        reply_bytes=DEFAULT.reply_bytes_max,
        host_calls=DEFAULT.host_calls_max,
        log_bytes=DEFAULT.log_bytes_max,
    )
    modest = manifest.SkillLimits(fuel=1, deadline_ms=1, memory_bytes=65_536, reply_bytes=1, host_calls=0, log_bytes=0)
    assert modest.capped(DEFAULT) == modest


# The section reader.


@pytest.mark.parametrize(
    ("module", "says"),
    [
        (b"", "found nothing"),
        (b"\0as", "found 00 61 73"),
        (b"\x7fELF\x02\x01\x01\0", "found 7f 45 4c 46"),
        (b"\0asm", "expected WebAssembly core version 1"),
        (b"\0asm\x0d\0\x02\0", "or a component (0d 00 01 00), found 0d 00 02 00"),
        (HEADER + b"\x01", "ends inside a number"),
        (HEADER + b"\x01\x80", "ends inside a number"),
        (HEADER + b"\x01\xff\xff\xff\xff\x1f", "longer than 32 bits"),
        (HEADER + b"\x01\x80\x80\x80\x80\x80\x00", "longer than 32 bits"),
        (HEADER + b"\x01\x05\x00", "claims 5 bytes, 1 are left"),
        (HEADER + b"\x01\xff\xff\xff\xff\x0f", "claims 4294967295 bytes"),
        (HEADER + b"\x00\x00", "ends inside a number"),
        (HEADER + b"\x00\x00\x00\x00", "a name longer than itself"),
        (HEADER + b"\x00\x02\x02a", "a name longer than itself"),
        (HEADER + b"\x00\x01\xff" + b"\x00" * 9, "a name longer than itself"),
        (HEADER + b"\x01\x00" * 257, "more than 256 sections"),
    ],
)
def test_what_is_no_module_is_refused_and_says_what_was_found(module: bytes, says: str) -> None:
    with pytest.raises(MalformedModule) as caught:
        wasm.sections(module, "m.wasm")
    assert str(caught.value).startswith("m.wasm: ")
    assert str(caught.value).isprintable()
    assert says in str(caught.value)


def test_sections_are_read_with_their_bounds() -> None:
    data = MODULE + wasm.custom_section("n\u00e9", b"body")
    first, second = wasm.sections(data, "m")
    assert (first.id, data[first.start : first.end]) == (1, MODULE[8:])
    assert (second.id, second.name, second.content, second.end) == (0, "n\u00e9", b"body", len(data))


@FUZZ
@given(st.integers(0, (1 << 32) - 1))
@example((1 << 32) - 1)
def test_a_number_comes_back_from_its_shortest_form(value: int) -> None:
    encoded = wasm.write_u32(value)
    assert wasm.read_u32(b"?" + encoded + b"!", 1, "m") == (value, 1 + len(encoded))
    assert len(encoded) == max(1, -(-value.bit_length() // 7))


@FUZZ
@given(st.binary(max_size=120))
def test_the_section_reader_raises_nothing_but_malformed_module(body: bytes) -> None:
    try:
        found = wasm.sections(HEADER + body, "m")
    except MalformedModule as error:
        assert str(error).isprintable()
    else:
        assert b"".join(body[s.start - 8 : s.end - 8] for s in found) == body


@pytest.mark.slow
@FUZZ
@given(
    st.lists(st.one_of(st.binary(max_size=6), st.sampled_from([b"\0", b"\x01"]), st.just(signed(ALICE)[len(HEADER) :])), max_size=6),
    st.data(),
)
def test_a_mangled_bundle_raises_nothing_but_untrusted_input(pieces: list[bytes], draw: st.DataObject) -> None:
    data = bytearray(HEADER + b"".join(pieces))
    for _ in range(draw.draw(st.integers(0, 3))):
        at = draw.draw(st.integers(0, len(data) - 1))
        data[at] = draw.draw(st.integers(0, 255))
    try:
        found = verify(bytes(data), ALICE)
    except UntrustedInput as error:
        assert str(error).isprintable()
        assert str(error).startswith("drill.wasm")
    else:
        assert bytes(data) == signed(ALICE)
        assert found.manifest == SKILL


# Text from outside.


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[31mred\x1b[0m", "\\x1b[31mred\\x1b[0m"),
        ("\x1b]0;title\x07", "\\x1b]0;title\\x07"),
        ("a\nb\r\tc", "a\\nb\\r\\tc"),
        ("\x00\x7f\x85\x9b", "\\x00\\x7f\\x85\\x9b"),
        ("user\u202egnp.exe", "user\\u202egnp.exe"),
        ("\u2066\u2069\u200e\u061c", "\\u2066\\u2069\\u200e\\u061c"),
        ("pay\u200bpal\ufeff\u00ad\u2060", "pay\\u200bpal\\ufeff\\xad\\u2060"),
        ("line\u2028para\u2029", "line\\u2028para\\u2029"),
        ("\ud800", "\\ud800"),
        ("\ue000\U000e0041", "\\ue000\\U000e0041"),
        (b"caf\xc3\xa9 \xff", "caf\u00e9 \ufffd"),
        ("Gr\u00fc\u00dfe, \u4e16\u754c \U0001f600", "Gr\u00fc\u00dfe, \u4e16\u754c \U0001f600"),
    ],
)
def test_text_from_outside_is_shown_with_its_dangers_escaped(text: str | bytes, shown: str) -> None:
    assert safe(text) == shown


def test_a_long_line_is_cut_and_says_so() -> None:
    assert safe("x" * 300) == "x" * 300
    assert safe("x" * 301) == "x" * 300 + "\u2026"
    assert safe("y" * 1_000_000, 10) == "y" * 10 + "\u2026"


def test_escapes_count_towards_the_length() -> None:
    assert len(safe("\x1b" * 300)) == 301
    assert len(safe("\U000e0041" * 30, 100)) == 101


@pytest.mark.slow
@FUZZ
@given(st.one_of(st.text(max_size=60), st.binary(max_size=60)), st.integers(0, 80))
def test_safe_text_is_one_bounded_line_without_controls(text: str | bytes, most: int) -> None:
    shown = safe(text, most)
    assert len(shown) <= most + 1
    assert not any(unicodedata.category(character) in ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp") for character in shown)
    assert len(shown.splitlines()) <= 1
    assert safe(safe(text, 10_000), 10_000) == safe(text, 10_000)
