"""Who a node is and what it runs: keys, certificates, configuration, attestation, and the measurement of the host's own files."""

import base64
import hashlib
import os
import shutil
import stat
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nacl.signing import SigningKey

from host import config, identity, installed
from host.core import attestation, cbor, certificate, cose, keys
from host.core.attestation import ActiveSkill, Report
from host.core.certificate import ROTATION_S, VALIDITY_S, Claims, issue, verify_chain
from host.core.clock import SystemClock, SystemRandom
from host.core.errors import CertificateInvalid, HostAltered, MalformedData, SignatureInvalid, SnapcountError, StateDamaged, UsageError
from host.core.limits import DEFAULT

FUZZ = settings(max_examples=400, deadline=None, print_blob=True)
ROOT = Path(__file__).resolve().parent.parent
SEED = b"\x07" * 32


def refusal(kind: type[SnapcountError] | tuple[type[SnapcountError], ...], act: Callable[[], object], *names: object) -> str:
    """The message of what `act` raises: one line, and it names what it should."""
    with pytest.raises(kind) as caught:
        act()
    message = str(caught.value)
    assert message.isprintable(), repr(message)
    for name in names:
        assert str(name) in message, message
    return message


# Keys.


def test_a_key_is_written_for_its_owner_only_with_its_public_half_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "owner.key"
    former = os.umask(0)
    try:
        key = keys.create(path, SEED)
    finally:
        os.umask(former)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert bytes(keys.load(path)) == bytes(key) == SEED
    assert bytes(keys.load_public(tmp_path / "owner.pub")) == bytes(key.verify_key)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["owner.key", "owner.pub"]


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o602, 0o610, 0o601, 0o644, 0o666, 0o777])
def test_a_key_that_others_can_use_is_refused(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "owner.key"
    keys.create(path, SEED)
    path.chmod(mode)
    refusal(StateDamaged, lambda: keys.load(path), path, f"{mode:04o}", "chmod 600")


def test_a_key_that_even_its_owner_can_only_read_is_fine(tmp_path: Path) -> None:
    path = tmp_path / "owner.key"
    keys.create(path, SEED)
    path.chmod(0o400)
    assert bytes(keys.load(path)) == SEED


def test_a_key_is_never_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "owner.key"
    keys.create(path, SEED)
    refusal(UsageError, lambda: keys.create(path, b"\x08" * 32), path, "never overwritten")
    assert bytes(keys.load(path)) == SEED
    link = tmp_path / "link.key"
    link.symlink_to(tmp_path / "elsewhere")
    refusal(UsageError, lambda: keys.create(link, SEED), link)
    assert not (tmp_path / "elsewhere").exists()


def test_a_public_key_is_never_overwritten_either(tmp_path: Path) -> None:
    public = tmp_path / "alice.pub"
    public.write_text("the key of another alice\n")
    refusal(UsageError, lambda: keys.create(tmp_path / "alice.key", SEED), public, "never overwritten")
    refusal(UsageError, lambda: keys.create(tmp_path / "bob.pub", SEED), "bob.pub")
    assert public.read_text() == "the key of another alice\n"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["alice.pub"]


@pytest.mark.parametrize("size", [0, 31, 33])
def test_a_key_needs_exactly_32_random_bytes(tmp_path: Path, size: int) -> None:
    refusal(UsageError, lambda: keys.create(tmp_path / "k.key", b"x" * size), 32, size)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", [b"", b"\n", SEED, b"7" * 63, b"7" * 65, b"g" * 64, b"\xff" * 64, b"0x" + b"7" * 62, b"7 " * 32])
def test_a_damaged_key_is_refused_and_its_content_not_shown(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "node.key"
    path.write_bytes(content)
    path.chmod(0o600)
    message = refusal(StateDamaged, lambda: keys.load(path), path, "expected 64 hexadecimal digits")
    assert "7" * 20 not in message.replace(str(path), "")


def test_a_missing_key_or_a_directory_in_its_place_is_named(tmp_path: Path) -> None:
    refusal(StateDamaged, lambda: keys.load(tmp_path / "no.key"), tmp_path / "no.key", "No such file")
    refusal(StateDamaged, lambda: keys.load(tmp_path), tmp_path, "directory")
    refusal(UsageError, lambda: keys.create(tmp_path / "no" / "k.key", SEED), tmp_path / "no" / "k.key", "No such file")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "ed25519",
        "ed25519:",
        "ed25519:00",
        "rsa:" + "00" * 32,
        "ed25519:" + "0g" * 32,
        "ed25519:" + "00" * 33,
        "\x1b[2J",
        "ed25519:\n\n" + "0" * 62,
    ],
)
def test_what_is_no_public_key_is_refused_and_shown_harmlessly(text: str) -> None:
    refusal(UsageError, lambda: keys.parse_public(text, "node.toml: node.owner"), "node.toml: node.owner")


def test_a_public_key_file_that_is_missing_or_not_text_is_named(tmp_path: Path) -> None:
    binary = tmp_path / "b.pub"
    binary.write_bytes(b"\xff\xfe\x00")
    refusal(UsageError, lambda: keys.load_public(binary), binary)
    refusal(UsageError, lambda: keys.load_public(tmp_path / "no.pub"), tmp_path / "no.pub", "No such file")


# Certificates.

NOW = 1_700_000_000
ROOT_KEY, MIDDLE, LOWER, NODE, STRANGER = (SigningKey(letter * 32) for letter in (b"r", b"m", b"l", b"n", b"s"))
LEAF = Claims("root", "node-1", bytes(NODE.verify_key), ("node",), 3, ("motion", "state"), NOW - 10, NOW + 1000, NOW - 10, b"leaf")
SKEW = DEFAULT.clock_skew_s_max


def authority(subject: str, issuer: str, key: SigningKey, roles: tuple[str, ...] = ("authority", "node")) -> Claims:
    return replace(LEAF, issuer=issuer, subject=subject, key=bytes(key.verify_key), roles=roles, id=subject.encode())


def chain_of(length: int, **leaf: Any) -> list[bytes]:
    """A sound chain, leaf first: node-1 under a-1 under a-2 … under the trusted root."""
    holders = [ROOT_KEY, *(SigningKey(bytes([number]) * 32) for number in range(1, length))]
    names = ["root", *(f"a-{length - number}" for number in range(1, length))]
    found = [issue(holders[i - 1], authority(names[i], names[i - 1], holders[i])) for i in range(1, length)]
    return [issue(holders[-1], replace(LEAF, issuer=names[-1], **leaf)), *reversed(found)]


def verified(chain: list[bytes], now_s: int = NOW, revoked: frozenset[bytes] = frozenset()) -> Claims:
    return verify_chain(chain, {ROOT_KEY.verify_key}, now_s, revoked=revoked)


@pytest.mark.parametrize("length", [1, 2, 3, 4])
def test_a_sound_chain_gives_the_claims_of_its_first_certificate(length: int) -> None:
    claims = verified(chain_of(length))
    assert claims == replace(LEAF, issuer="root" if length == 1 else "a-1")


def test_an_empty_chain_and_one_of_five_are_refused() -> None:
    refusal(CertificateInvalid, lambda: verified([]), "1 to 4 certificates, 0 came")
    refusal(CertificateInvalid, lambda: verified(chain_of(5)), "1 to 4 certificates, 5 came")


def test_a_certificate_counts_within_the_skew_of_its_validity_and_not_beyond() -> None:
    chain = [issue(ROOT_KEY, LEAF)]
    for now in (LEAF.not_before_s, LEAF.not_before_s - SKEW, LEAF.expires_s, LEAF.expires_s + SKEW):
        assert verified(chain, now) == LEAF
    refusal(CertificateInvalid, lambda: verified(chain, LEAF.not_before_s - SKEW - 1), "node-1: valid from", "is this clock right?")
    refusal(CertificateInvalid, lambda: verified(chain, LEAF.expires_s + SKEW + 1), "node-1: expired at", "renew it")


def test_an_expired_certificate_anywhere_in_the_chain_breaks_it() -> None:
    old = authority("a-1", "root", MIDDLE)
    chain = [issue(MIDDLE, replace(LEAF, issuer="a-1")), issue(ROOT_KEY, replace(old, expires_s=NOW - SKEW - 1))]
    refusal(CertificateInvalid, lambda: verified(chain), "certificate of a-1: expired")
    early = [chain[0], issue(ROOT_KEY, replace(old, not_before_s=NOW + SKEW + 1))]
    refusal(CertificateInvalid, lambda: verified(early), "certificate of a-1: valid from")


@pytest.mark.parametrize("name", ["leaf", "a-1", "a-2", "a-3"])
def test_a_revoked_certificate_at_any_level_breaks_the_chain_and_is_named(name: str) -> None:
    subject = "node-1" if name == "leaf" else name
    refusal(
        CertificateInvalid, lambda: verified(chain_of(4), revoked=frozenset({name.encode()})), f"certificate of {subject}: revoked (id "
    )


def test_another_certificates_revocation_changes_nothing() -> None:
    assert verified(chain_of(4), revoked=frozenset({b"other", b"", b"lea"})).subject == "node-1"


def test_roles_cannot_be_widened_below_their_issuer() -> None:
    chain = [
        issue(MIDDLE, replace(LEAF, issuer="a-1", roles=("node", "operator", "admin"))),
        issue(ROOT_KEY, authority("a-1", "root", MIDDLE)),
    ]
    refusal(CertificateInvalid, lambda: verified(chain), "node-1: has roles that its issuer cannot grant: admin, operator")


def test_a_wrong_issuer_name_is_refused() -> None:
    chain = [issue(MIDDLE, replace(LEAF, issuer="root")), issue(ROOT_KEY, authority("a-1", "root", MIDDLE))]
    refusal(CertificateInvalid, lambda: verified(chain), "node-1: names the issuer root, was signed by a-1")


def test_an_intermediate_without_the_authority_role_issues_nothing() -> None:
    chain = [issue(MIDDLE, replace(LEAF, issuer="node-2")), issue(ROOT_KEY, authority("node-2", "root", MIDDLE, ("node",)))]
    refusal(CertificateInvalid, lambda: verified(chain), "node-1: its issuer node-2 has not the role authority")


def test_a_leaf_signed_by_a_stranger_is_refused_and_the_stranger_named() -> None:
    stranger = cose.key_name(bytes(STRANGER.verify_key))
    refusal(CertificateInvalid, lambda: verified([issue(STRANGER, LEAF)]), stranger, "no trusted authority")
    chain = [issue(STRANGER, replace(LEAF, issuer="a-1")), issue(ROOT_KEY, authority("a-1", "root", MIDDLE))]
    refusal(CertificateInvalid, lambda: verified(chain), stranger)
    claimed = cose.parse(issue(ROOT_KEY, LEAF), "x").payload
    assert claimed is not None
    forged = cose.sign(STRANGER, claimed, kid=bytes(ROOT_KEY.verify_key))
    refusal(CertificateInvalid, lambda: verified([forged]), "the signature does not match key")


def test_the_order_of_a_chain_matters_and_a_root_below_it_helps_nobody() -> None:
    chain = chain_of(3)
    for wrong in (chain[::-1], [chain[0], chain[2], chain[1]], chain[:2], [chain[0], chain[2]], [*chain, issue(STRANGER, LEAF)]):
        refusal(CertificateInvalid, lambda wrong=wrong: verified(wrong))
    assert verified(chain[1:]).subject == "a-1"


def test_no_authority_trusts_nobody() -> None:
    refusal(CertificateInvalid, lambda: verify_chain([issue(ROOT_KEY, LEAF)], set(), NOW), "no trusted authority")


def claims_map(**changes: Any) -> dict[Any, Any]:
    payload = cose.parse(issue(ROOT_KEY, LEAF), "x").payload
    assert payload is not None
    value = cbor.decode(payload, "x")
    value.update({getattr(certificate, name.upper()): item for name, item in changes.items()})
    return {key: item for key, item in value.items() if item is not ...}


CLAIM_TYPES: dict[str, type | None] = {
    "iss": str, "sub": str, "exp": int, "nbf": int, "iat": int, "cti": bytes, "cnf": None, "roles": list, "generation": int, "capabilities": list,
}  # fmt: skip
WRONG = [..., None, True, "text", 1.5, b"bytes", [], [1], {}, {1: {}}]


@pytest.mark.parametrize(("claim", "value"), [(c, v) for c, fits in CLAIM_TYPES.items() for v in WRONG if type(v) is not fits or v == [1]])
def test_a_missing_or_wrongly_typed_claim_is_malformed_even_when_rightly_signed(claim: str, value: Any) -> None:
    signed = cose.sign(ROOT_KEY, cbor.encode(claims_map(**{claim: value})), kid=bytes(ROOT_KEY.verify_key))
    refusal(MalformedData, lambda: verified([signed]), "certificate")


@pytest.mark.parametrize(
    "key",
    [
        {1: 2, -1: 6, -2: b"k" * 32},  # EC2
        {1: 1, -1: 4, -2: b"k" * 32},  # X25519
        {1: 1, -1: 6, -2: b"k" * 31},
        {1: 1, -1: 6, -2: "k" * 32},
        {1: 1, -1: 6},
        [],
        None,
    ],
)
def test_a_confirmation_key_of_another_kind_is_malformed(key: Any) -> None:
    signed = cose.sign(ROOT_KEY, cbor.encode(claims_map(cnf={1: key})), kid=bytes(ROOT_KEY.verify_key))
    refusal(MalformedData, lambda: verified([signed]), "certificate")


@pytest.mark.parametrize("payload", [b"", b"\x80", b"\xf6", b"\x60", b"\x99\x00\x20" + b"\x00" * 32, cbor.encode([[]] * 16)])
def test_a_rightly_signed_payload_that_is_no_map_is_malformed(payload: bytes) -> None:
    refusal(MalformedData, lambda: verified([cose.sign(ROOT_KEY, payload, kid=bytes(ROOT_KEY.verify_key))]), "certificate")


@pytest.mark.parametrize("name", ["node\n1", "\x1b[2Jnode", "node\u202e", "n" * 301])
def test_a_name_that_could_forge_a_log_line_is_malformed(name: str) -> None:
    for changes in ({"subject": name}, {"issuer": name}, {"roles": (name,)}, {"capabilities": (name,)}):
        refusal(MalformedData, lambda changes=changes: verified([issue(ROOT_KEY, replace(LEAF, **changes))]), "certificate")


def test_a_certificate_beyond_its_bound_is_refused() -> None:
    many = replace(LEAF, capabilities=tuple(f"capability-{number}" for number in range(400)))
    refusal(SnapcountError, lambda: verified([issue(ROOT_KEY, many)]), "certificate: at most 4096 bytes")


def test_any_altered_bit_of_a_certificate_is_refused() -> None:
    encoded = issue(ROOT_KEY, LEAF)
    for at in range(len(encoded)):
        altered = bytearray(encoded)
        altered[at] ^= 1 << (at % 8)
        refusal((CertificateInvalid, MalformedData), lambda altered=altered: verified([bytes(altered)]), "certificate")


@pytest.mark.slow
@FUZZ
@given(st.lists(st.one_of(st.binary(max_size=60), st.sampled_from(chain_of(3)), st.just(issue(STRANGER, LEAF))), max_size=5), st.data())
def test_a_mangled_chain_raises_nothing_but_what_it_says(chain: list[bytes], draw: st.DataObject) -> None:
    if chain and draw.draw(st.booleans()):
        index = draw.draw(st.integers(0, len(chain) - 1))
        mangled = bytearray(chain[index])
        at = draw.draw(st.integers(0, len(mangled)))
        mangled[at : at + 1] = draw.draw(st.binary(max_size=2))
        chain[index] = bytes(mangled)
    try:
        claims = verified(chain)
    except (CertificateInvalid, MalformedData) as error:
        assert str(error).isprintable()
        assert "certificate" in str(error)
    else:
        sound = [one[1:] if one[:1] == b"\xd2" else one for one in chain]  # the tag may be left out
        assert sound in ([one[1:] for one in chain_of(3)][i:] for i in range(3))
        assert claims.subject in ("node-1", "a-1", "a-2")


CLAIM = st.one_of(
    st.none(), st.booleans(), st.integers(-5, 5), st.text(max_size=3), st.binary(max_size=3), st.lists(st.text(max_size=2), max_size=2)
)
CLAIM_MAP = st.dictionaries(st.one_of(st.integers(1, 8), st.sampled_from(["roles", "generation", "capabilities"])), CLAIM, max_size=11)


@pytest.mark.slow
@FUZZ
@given(st.one_of(CLAIM_MAP, CLAIM_MAP.map(lambda some: {**claims_map(), **some}), CLAIM))
def test_whatever_an_authority_signs_is_claims_or_malformed(value: Any) -> None:
    signed = cose.sign(ROOT_KEY, cbor.encode(value), kid=bytes(ROOT_KEY.verify_key))
    try:
        claims = verified([signed])
    except (CertificateInvalid, MalformedData) as error:
        assert str(error).isprintable()
    else:
        assert isinstance(claims.subject, str)
        assert all(isinstance(role, str) for role in claims.roles)


# A node's state directory.


class Counter:
    """Randomness that counts, so that no two tokens are equal and every run is."""

    def __init__(self) -> None:
        self.count = 0

    def token(self, size: int) -> bytes:
        self.count += 1
        return hashlib.sha512(str(self.count).encode()).digest()[:size]


@pytest.fixture
def state(tmp_path: Path, owner: SigningKey, author: SigningKey, clock: Any) -> Path:
    path = tmp_path / "state"
    toml = config.template(
        "node-1", keys.public_text(owner.verify_key), 3, "http://127.0.0.1:1", (keys.public_text(author.verify_key),), ("log",), ()
    )
    identity.create(path, toml, owner, clock, Counter())
    return path


def test_a_made_node_has_a_private_key_a_certificate_and_signed_limits(
    state: Path, owner: SigningKey, author: SigningKey, clock: Any
) -> None:
    assert stat.S_IMODE((state / "identity").stat().st_mode) == 0o700
    for name in ("node.key", "cache.key"):
        assert stat.S_IMODE((state / "identity" / name).stat().st_mode) == 0o600
    key = identity.load_key(state)
    claims = verify_chain([identity.load_certificate(state)], {owner.verify_key}, clock.now_ms() // 1000)
    assert (claims.subject, claims.key, claims.roles, claims.generation, claims.capabilities) == (
        "node-1",
        bytes(key.verify_key),
        ("node",),
        3,
        ("log",),
    )
    settings_ = config.load(state)
    assert bytes(settings_.owner) == bytes(owner.verify_key)
    assert [bytes(one) for one in settings_.authors] == [bytes(author.verify_key)]
    assert identity.load_envelope(state, owner.verify_key, lambda refusal: None).tripped is None


def test_a_nodes_identity_is_never_made_twice(state: Path, owner: SigningKey, clock: Any) -> None:
    before = (state / identity.KEY).read_bytes()
    refusal(UsageError, lambda: identity.create(state, "", owner, clock, Counter()), state, "never made twice")
    (state / config.FILE).unlink()
    refusal(UsageError, lambda: identity.create(state, "", owner, clock, Counter()), state, "not empty")
    assert (state / identity.KEY).read_bytes() == before


def test_certificates_overlap_when_they_rotate(state: Path, owner: SigningKey, clock: Any) -> None:
    start = clock.now_ms() // 1000
    first = identity.load_certificate(state)
    clock.advance(ROTATION_S * 1000)
    identity.certify(state, owner, clock, Counter())
    second = identity.load_certificate(state)
    assert first != second

    def valid(encoded: bytes, at_s: int) -> bool:
        try:
            return bool(verify_chain([encoded], {owner.verify_key}, at_s))
        except CertificateInvalid:
            return False

    rotated, first_ends = start + ROTATION_S, start + VALIDITY_S
    assert [valid(first, at) for at in (start, rotated, first_ends, first_ends + SKEW + 1)] == [True, True, True, False]
    assert [valid(second, at) for at in (start, rotated, first_ends + SKEW + 1, rotated + VALIDITY_S)] == [False, True, True, True]


def test_only_the_owner_certifies(state: Path, clock: Any) -> None:
    before = identity.load_certificate(state)
    refusal(UsageError, lambda: identity.certify(state, STRANGER, clock, Counter()), state, "not the owner's key")
    assert identity.load_certificate(state) == before


def test_a_node_without_a_certificate_has_an_empty_one(state: Path) -> None:
    (state / identity.CERTIFICATE).unlink()
    assert identity.load_certificate(state) == b""


def test_altered_limits_keep_the_envelope_from_loading_until_the_owner_signs_them(state: Path, owner: SigningKey) -> None:
    path = state / identity.SAFETY
    path.write_bytes(path.read_bytes().replace(b"max = 250.0", b"max = 100.0"))
    refusal(SignatureInvalid, lambda: identity.load_envelope(state, owner.verify_key, lambda refusal: None), path)
    identity.sign_safety(state, owner)
    assert identity.load_envelope(state, owner.verify_key, lambda refusal: None).limits.speed_mm_s.max == 100.0


@pytest.mark.parametrize("name", [identity.SAFETY, identity.SAFETY_SIGNATURE])
def test_missing_limits_are_named(state: Path, owner: SigningKey, name: Path) -> None:
    (state / name).unlink()
    refusal(StateDamaged, lambda: identity.load_envelope(state, owner.verify_key, lambda refusal: None), state / name)
    refusal(StateDamaged, lambda: identity.config_digest(state), state / name)


def test_unsound_limits_are_not_signed(state: Path, owner: SigningKey) -> None:
    before = (state / identity.SAFETY_SIGNATURE).read_bytes()
    (state / identity.SAFETY).write_text("[travel_mm]\nx = [1.0, 0.0]\n")
    refusal(MalformedData, lambda: identity.sign_safety(state, owner), "safety.toml")
    assert (state / identity.SAFETY_SIGNATURE).read_bytes() == before


def test_a_trip_is_kept_on_disk_until_it_is_reset(state: Path, owner: SigningKey) -> None:
    from host.core.safety import sign_reset

    identity.load_envelope(state, owner.verify_key, lambda refusal: None).trip("interlock door is not closed", 5)
    again = identity.load_envelope(state, owner.verify_key, lambda refusal: None)
    assert again.tripped is not None
    assert (again.tripped.at_ms, again.tripped.reason) == (5, "interlock door is not closed")
    again.reset(sign_reset(owner, again.tripped.id))
    assert identity.load_envelope(state, owner.verify_key, lambda refusal: None).tripped is None


@pytest.mark.parametrize(
    "content", [b"", b"{}", b"null", b'{"id":"\xff","at_ms":1,"reason":""}', b"[" * 100_000, b'{"id":1,"at_ms":1,"reason":"x"}', None]
)
def test_a_damaged_trip_keeps_safe_mode_on(state: Path, owner: SigningKey, content: bytes | None) -> None:
    path = state / identity.TRIP
    if content is None:
        path.mkdir()
    else:
        path.write_bytes(content)
    tripped = identity.load_envelope(state, owner.verify_key, lambda refusal: None).tripped
    assert tripped is not None
    assert tripped.reason == f"{path} is damaged"


def test_a_cache_key_of_the_wrong_size_is_refused_and_a_missing_one_made(state: Path) -> None:
    path = state / identity.CACHE_KEY
    before = identity.load_cache_key(state, Counter())
    assert identity.load_cache_key(state, Counter()) == before
    path.write_bytes(b"short")
    refusal(StateDamaged, lambda: identity.load_cache_key(state, Counter()), path, "found 5")
    path.unlink()
    assert len(identity.load_cache_key(state, Counter())) == identity.KEY_BYTES
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_the_config_digest_changes_with_each_thing_that_the_owner_decided(state: Path, owner: SigningKey) -> None:
    seen = {identity.config_digest(state)}
    for name in (Path(config.FILE), identity.SAFETY, identity.SAFETY_SIGNATURE):
        path = state / name
        path.write_bytes(path.read_bytes() + b" ")
        seen.add(identity.config_digest(state))
    assert len(seen) == 4
    assert config.digest(b"ab", b"c") != config.digest(b"a", b"bc"), "the parts cannot be shifted"


OWNER_TEXT = "ed25519:" + "00" * 32
NODE_TOML = f'[node]\nname = "node-1"\nowner = "{OWNER_TEXT}"\n'


@pytest.mark.parametrize(
    ("toml", "names"),
    [
        ("", "node"),
        ("[node]\n", "name"),
        (NODE_TOML.replace("node-1", "Node 1"), "node.name"),
        (NODE_TOML.replace("node-1", "../node"), "node.name"),
        (NODE_TOML.replace("node-1", "node-1\\n"), "node.name"),
        (NODE_TOML + "generation = 0\n", "node.generation"),
        (NODE_TOML + "generation = 256\n", "node.generation"),
        (NODE_TOML + 'generation = "1"\n', "node.generation"),
        (NODE_TOML + "color = 1\n", "color"),
        (NODE_TOML + "[trust]\nauthors = [1]\n", "trust.authors"),
        (NODE_TOML + '[capabilities]\nallowed = ["Motion!"]\n', "capabilities.allowed"),
        (NODE_TOML + "[plugins]\nnative = 1\n", "plugins.native"),
        (NODE_TOML + "[extra]\n", "extra"),
        ("name = \n", "line 1"),
        (NODE_TOML + "#" * (64 << 10), "at most 65536 bytes"),
    ],
)
def test_a_node_toml_that_is_not_sound_is_refused_and_file_and_field_named(tmp_path: Path, toml: str, names: str) -> None:
    (tmp_path / config.FILE).write_text(toml)
    refusal(StateDamaged, lambda: config.load(tmp_path), tmp_path / config.FILE, names)


def test_a_node_toml_that_is_missing_or_not_text_is_named(tmp_path: Path) -> None:
    refusal(StateDamaged, lambda: config.load(tmp_path), tmp_path / config.FILE, "snapcount node init")
    (tmp_path / config.FILE).write_bytes(b"\xff\xfe")
    refusal(StateDamaged, lambda: config.load(tmp_path), tmp_path / config.FILE)


def test_a_key_in_node_toml_that_is_none_is_named_by_its_field(tmp_path: Path) -> None:
    (tmp_path / config.FILE).write_text('[node]\nname = "n"\nowner = "ed25519:zz"\n[trust]\nauthors = ["rsa:00"]\n')
    loaded = config.load(tmp_path)
    refusal(UsageError, lambda: loaded.owner, "node.toml: node.owner")
    refusal(UsageError, lambda: loaded.authors, "node.toml: trust.authors")


# Attestation.

REPORT = Report(
    node="node-1",
    key="00",
    at_ms=1,
    nonce=b"n" * 16,
    host="sha256:0",
    sealed=True,
    config="sha256:1",
    skills=(ActiveSkill("drill", "1.0.0", "sha256:2"),),
)


def test_a_report_is_verified_with_the_nodes_key_and_the_askers_nonce() -> None:
    assert attestation.verify(attestation.sign(REPORT, NODE), NODE.verify_key, b"n" * 16) == REPORT


def test_a_replayed_report_is_refused() -> None:
    signed = attestation.sign(REPORT, NODE)
    for nonce in (b"", b"m" * 16, b"n" * 15, b"n" * 17):
        refusal(SignatureInvalid, lambda nonce=nonce: attestation.verify(signed, NODE.verify_key, nonce), "attestation", "replay")


def test_a_report_by_another_key_for_another_purpose_or_altered_is_refused() -> None:
    signed = attestation.sign(REPORT, NODE)
    payload = cose.parse(signed, "x").payload
    assert payload is not None
    refusal(SignatureInvalid, lambda: attestation.verify(signed, STRANGER.verify_key, REPORT.nonce), "attestation")
    other = cose.sign(NODE, payload, kid=b"", aad=b"snapcount fleet 1")
    refusal(SignatureInvalid, lambda: attestation.verify(other, NODE.verify_key, REPORT.nonce), "attestation")
    for at in range(0, len(signed)):
        altered = signed[:at] + bytes([signed[at] ^ 0x01]) + signed[at + 1 :]
        refusal(
            (SignatureInvalid, MalformedData),
            lambda altered=altered: attestation.verify(altered, NODE.verify_key, REPORT.nonce),
            "attestation",
        )


def test_a_rightly_signed_report_of_another_shape_is_malformed_and_the_field_named() -> None:
    value = msgspec.to_builtins(REPORT, builtin_types=(bytes,))
    for changes, names in (
        ({"sealed": 1}, "sealed"),
        ({"nonce": b"n" * 65}, "nonce"),
        ({"extra": 1}, "extra"),
        ({"skills": [{"name": "x"}]}, "skills"),
    ):
        signed = cose.sign(NODE, cbor.encode({**value, **changes}), kid=b"", aad=attestation.AAD)
        refusal(MalformedData, lambda signed=signed: attestation.verify(signed, NODE.verify_key, b"n" * 16), "attestation", names)


# The host's own files.

FILES = {
    "host/__init__.py": b"",
    "host/core/safety.py": b"LIMIT = 1\n",
    "host/core/bundle.py": b"STRICT = True\n",
    "cython_core/strict.so": b"\x7fELF",
}


def sha256_hex(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


RECORDED: dict[str, str | None] = {name: sha256_hex(data) for name, data in FILES.items()}


def read_from(files: dict[str, bytes]) -> Callable[[str], bytes]:
    def read(name: str) -> bytes:
        if name not in files:
            raise FileNotFoundError(2, "No such file or directory", name)
        return files[name]

    return read


def test_measuring_compares_each_file_with_its_recorded_digest() -> None:
    measured = attestation.measure(RECORDED, read_from(FILES))
    assert (measured.sealed, measured.files) == (True, 4)
    assert measured == attestation.measure(dict(reversed(RECORDED.items())), read_from(FILES)), "the order of the record does not matter"


@pytest.mark.parametrize("name", FILES)
def test_measuring_names_the_altered_and_the_missing_file(name: str) -> None:
    refusal(
        HostAltered,
        lambda: attestation.measure(RECORDED, read_from({**FILES, name: b"x"})),
        f"{name}: this file of the host was altered",
        "reinstall",
    )
    missing = {other: data for other, data in FILES.items() if other != name}
    refusal(
        HostAltered, lambda: attestation.measure(RECORDED, read_from(missing)), f"{name}: this file of the host cannot be read", "reinstall"
    )


def test_an_unrecorded_digest_is_measured_but_not_sealed() -> None:
    loose: dict[str, str | None] = dict.fromkeys(FILES)
    measured = attestation.measure(loose, read_from(FILES))
    assert not measured.sealed
    assert measured.digest == attestation.measure(RECORDED, read_from(FILES)).digest
    assert attestation.measure(loose, read_from({**FILES, "host/__init__.py": b"x"})).digest != measured.digest
    assert not attestation.measure({**RECORDED, "host/__init__.py": None}, read_from(FILES)).sealed
    refusal(HostAltered, lambda: installed.require_sealed(measured), "development tree", "--development")
    installed.require_sealed(attestation.measure(RECORDED, read_from(FILES)))


class Layout:
    """A distribution on disk as pip leaves one: packages, and a dist-info with its RECORD."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root, self.info = root, root / "snapcount-0.1.0.dist-info"
        self.info.mkdir(parents=True)
        (self.info / "METADATA").write_text("Metadata-Version: 2.1\nName: snapcount\nVersion: 0.1.0\n")
        for name, data in FILES.items():
            self.put(name, data)
        self.record({name: self.digest(data) for name, data in FILES.items()})
        monkeypatch.setattr(installed.host, "__file__", str(root / "host" / "__init__.py"))
        monkeypatch.setattr(installed.metadata, "distribution", lambda name: metadata.PathDistribution(self.info))

    @staticmethod
    def digest(data: bytes) -> str:
        return "sha256=" + base64.urlsafe_b64encode(hashlib.sha256(data).digest()).decode().rstrip("=")

    def put(self, name: str, data: bytes) -> None:
        (self.root / name).parent.mkdir(parents=True, exist_ok=True)
        (self.root / name).write_bytes(data)

    def record(self, digests: dict[str, str]) -> None:
        others = "host/__pycache__/x.pyc,,\n../../bin/snapcount,sha256=AAAA,9\nsnapcount-0.1.0.dist-info/RECORD,,\n"
        (self.info / "RECORD").write_text("".join(f"{name},{digest},1\n" for name, digest in digests.items()) + others)


@pytest.fixture
def layout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Layout:
    return Layout(tmp_path.resolve() / "site-packages", monkeypatch)


def test_an_installed_host_is_sealed_by_its_record(layout: Layout) -> None:
    measured = installed.measure_host()
    assert (measured.sealed, measured.files) == (True, len(FILES))
    assert measured.digest == attestation.measure(RECORDED, read_from(FILES)).digest


@pytest.mark.parametrize("name", FILES)
def test_an_installed_file_that_was_altered_or_removed_is_named(layout: Layout, name: str) -> None:
    layout.put(name, b"altered")
    refusal(HostAltered, installed.measure_host, f"{name}: this file of the host was altered")
    (layout.root / name).unlink()
    if name == "host/__init__.py":
        (layout.root / name).parent.mkdir(exist_ok=True)
    refusal(HostAltered, installed.measure_host, f"{name}: this file of the host cannot be read: No such file or directory")


@pytest.mark.parametrize(
    "name", ["host/core/safety.cpython-311-x86_64-linux-gnu.so", "host/core/evil.py", "cython_core/strict.py", "host/new/__init__.py"]
)
def test_a_file_that_was_not_installed_with_the_host_is_named(layout: Layout, name: str) -> None:
    layout.put(name, b"")
    refusal(HostAltered, installed.measure_host, f"{name}: this file was not installed with the host")


def test_files_of_other_packages_and_caches_are_not_the_hosts(layout: Layout) -> None:
    before = installed.measure_host()
    layout.put("other/__init__.py", b"")
    layout.put("host/__pycache__/x.pyc", b"")
    layout.put("host/py.typed", b"")
    assert installed.measure_host() == before


@pytest.mark.parametrize("digest", ["", "md5=AAAA", "sha256"])
def test_a_record_without_a_digest_for_a_file_does_not_hide_it(layout: Layout, digest: str) -> None:
    layout.record({name: Layout.digest(data) for name, data in FILES.items()} | {"host/core/safety.py": digest})
    refusal(HostAltered, installed.measure_host, "host/core/safety.py")


def test_a_damaged_digest_in_the_record_is_named(layout: Layout) -> None:
    for digest in ("sha256=A", "sha256=AAAA", "sha256==", "sha256=\u00e9"):
        layout.record({name: Layout.digest(data) for name, data in FILES.items()} | {"host/core/safety.py": digest})
        refusal(HostAltered, installed.measure_host, "host/core/safety.py")


def test_an_empty_record_or_another_place_is_a_development_tree(layout: Layout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (layout.info / "RECORD").write_text("\n,\nx\n")
    assert not installed.measure_host().sealed
    monkeypatch.setattr(installed.metadata, "distribution", lambda name: metadata.PathDistribution(tmp_path / "elsewhere" / "x.dist-info"))
    assert not installed.measure_host().sealed


def test_a_host_that_no_distribution_knows_is_a_development_tree(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(name: str) -> metadata.Distribution:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(installed.metadata, "distribution", unknown)
    assert not installed.measure_host().sealed


# The real thing.


def run(*command: object, check: bool = True) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    found = subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=300, check=False, env=clean, cwd="/")
    assert found.returncode == 0 or not check, found.stdout + found.stderr
    return found


@pytest.fixture(scope="module")
def venv(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment with the host installed from a wheel, and the dependencies of the one that runs this test."""
    base = tmp_path_factory.mktemp("wheel")
    source, target = base / "source", base / "venv"
    parts = ("host", "sdk", "registry", "cython_core", "skills", "pyproject.toml", "setup.py", "LICENSE", "README.md")
    source.mkdir()
    for part in parts:
        if (ROOT / part).is_dir():
            shutil.copytree(
                ROOT / part, source / part, ignore=shutil.ignore_patterns("__pycache__", "*.so", "zig-cache", ".zig-cache", "node_modules")
            )
        else:
            shutil.copy2(ROOT / part, source / part)
    pip = (sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check")
    run(*pip, "wheel", "--no-deps", "-w", base, source)
    run(sys.executable, "-m", "venv", "--without-pip", target)
    (wheel,) = base.glob("snapcount-*.whl")
    run(*pip, "--python", target / "bin" / "python", "install", "--no-deps", "--no-index", wheel)
    packages = sysconfig.get_path("purelib", vars={"base": str(target)})
    (Path(packages) / "outer.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return target


@pytest.mark.slow
@pytest.mark.ci
def test_an_installed_node_refuses_to_run_altered_and_names_the_file(venv: Path, tmp_path: Path) -> None:
    snapcount = venv / "bin" / "snapcount"
    keys.create(tmp_path / "owner.key", SEED)
    state = tmp_path / "state"
    run(snapcount, "node", "init", "--state", state, "--name", "node-1", "--owner-key", tmp_path / "owner.key")
    measured = run(
        venv / "bin" / "python", "-c", "from host.installed import measure_host; m = measure_host(); print(m.sealed, m.files > 50)"
    )
    assert measured.stdout.split() == ["True", "True"]

    safety = Path(sysconfig.get_path("purelib", vars={"base": str(venv)})) / "host" / "core" / "safety.py"
    added = safety.with_name("added.py")
    original = safety.read_bytes()
    try:
        safety.write_bytes(original.replace(b"if not low <= value <= high:", b"if False and not low <= value <= high:"))
        assert safety.read_bytes() != original
        refused = run(snapcount, "node", "run", "--state", state, check=False)
        assert refused.returncode == HostAltered.exit_code
        said = (refused.stdout + refused.stderr).strip()
        assert len(said.splitlines()) == 1, said
        assert "host/core/safety.py: this file of the host was altered" in said

        safety.write_bytes(original)
        added.write_bytes(b"")
        refused = run(snapcount, "node", "run", "--state", state, check=False)
        assert refused.returncode == HostAltered.exit_code
        assert "host/core/added.py: this file was not installed" in refused.stdout + refused.stderr
    finally:
        safety.write_bytes(original)
        added.unlink(missing_ok=True)
    assert (
        run(venv / "bin" / "python", "-c", "from host.installed import measure_host; print(measure_host().sealed)").stdout.strip() == "True"
    )


def test_the_systems_own_clock_and_randomness_have_the_units_they_claim() -> None:
    clock, random = SystemClock(), SystemRandom()
    assert clock.now_ms() > 1_600_000_000_000
    first = clock.monotonic_ms()
    assert clock.monotonic_ms() >= first
    assert len(random.token(16)) == 16
    assert random.token(16) != random.token(16)
