"""COSE_Sign1 with Ed25519: the published vectors, and everything that must not verify."""

from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from nacl.exceptions import BadSignatureError
from nacl.signing import SigningKey, VerifyKey

from host.core import cbor, cose
from host.core.errors import MalformedData, SignatureInvalid, SnapcountError, TooLarge

FUZZ = settings(max_examples=400, deadline=None, print_blob=True)

# RFC 8032, section 7.1: secret key, public key, message, signature.
MESSAGE_1024 = """
08b8b2b733424243760fe426a4b54908632110a66c2f6591eabd3345e3e4eb98fa6e264bf09efe12ee50f8f54e9f77b1e355f6c50544e23fb1433ddf73be84d8
79de7c0046dc4996d9e773f4bc9efe5738829adb26c81b37c93a1b270b20329d658675fc6ea534e0810a4432826bf58c941efb65d57a338bbd2e26640f89ffbc
1a858efcb8550ee3a5e1998bd177e93a7363c344fe6b199ee5d02e82d522c4feba15452f80288a821a579116ec6dad2b3b310da903401aa62100ab5d1a36553e
06203b33890cc9b832f79ef80560ccb9a39ce767967ed628c6ad573cb116dbefefd75499da96bd68a8a97b928a8bbc103b6621fcde2beca1231d206be6cd9ec7
aff6f6c94fcd7204ed3455c68c83f4a41da4af2b74ef5c53f1d8ac70bdcb7ed185ce81bd84359d44254d95629e9855a94a7c1958d1f8ada5d0532ed8a5aa3fb2
d17ba70eb6248e594e1a2297acbbb39d502f1a8c6eb6f1ce22b3de1a1f40cc24554119a831a9aad6079cad88425de6bde1a9187ebb6092cf67bf2b13fd65f270
88d78b7e883c8759d2c4f5c65adb7553878ad575f9fad878e80a0c9ba63bcbcc2732e69485bbc9c90bfbd62481d9089beccf80cfe2df16a2cf65bd92dd597b07
07e0917af48bbb75fed413d238f5555a7a569d80c3414a8d0859dc65a46128bab27af87a71314f318c782b23ebfe808b82b0ce26401d2e22f04d83d1255dc51a
ddd3b75a2b1ae0784504df543af8969be3ea7082ff7fc9888c144da2af58429ec96031dbcad3dad9af0dcbaaaf268cb8fcffead94f3c7ca495e056a9b47acdb7
51fb73e666c6c655ade8297297d07ad1ba5e43f1bca32301651339e22904cc8c42f58c30c04aafdb038dda0847dd988dcda6f3bfd15c4b4c4525004aa06eeff8
ca61783aacec57fb3d1f92b0fe2fd1a85f6724517b65e614ad6808d6f6ee34dff7310fdc82aebfd904b01e1dc54b2927094b2db68d6f903b68401adebf5a7e08
d78ff4ef5d63653a65040cf9bfd4aca7984a74d37145986780fc0b16ac451649de6188a7dbdf191f64b5fc5e2ab47b57f7f7276cd419c17a3ca8e1b939ae49e4
88acba6b965610b5480109c8b17b80e1b7b750dfc7598d5d5011fd2dcc5600a32ef5b52a1ecc820e308aa342721aac0943bf6686b64b2579376504ccc493d97e
6aed3fb0f9cd71a43dd497f01f17c0e2cb3797aa2a2f256656168e6c496afc5fb93246f6b1116398a346f1a641f3b041e989f7914f90cc2c7fff357876e506b5
0d334ba77c225bc307ba537152f3f1610e4eafe595f6d9d90d11faa933a15ef1369546868a7f3a45a96768d40fd9d03412c091c6315cf4fde7cb68606937380d
b2eaaa707b4c4185c32eddcdd306705e4dc1ffc872eeee475a64dfac86aba41c0618983f8741c5ef68d3a101e8a3b8cac60c905c15fc910840b94c00a0b9d0
"""
RFC8032 = {
    "TEST 1": (
        "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
        "",
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b",
    ),
    "TEST 2": (
        "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
        "72",
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00",
    ),
    "TEST 3": (
        "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
        "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
        "af82",
        "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a",
    ),
    "TEST 1024": (
        "f5e5767cf153319517630f226876b86c8160cc583bc013744c6bf255f5cc0ee5",
        "278117fc144c72340f67d0f2316e8386ceffbf2b2428c9c51fef7c597f1d426e",
        MESSAGE_1024,
        "0aab4c900501b3e24d7cdf4663326a3a87df5e4843b2cbdb67cbf6e460fec350aa5371b1508f9f4528ecea23c436d94b5e8fcd4f681e30a6ac00a9704a188a03",
    ),
    "TEST SHA(abc)": (
        "833fe62409237b9d62ec77587520911e9a759cec1d19755b7da901b96dca3d42",
        "ec172b93ad5e563bf4932c70e1245034c35467ef2efd4d64ebf819683467e2bf",
        "ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f",
        "dc2a4459e7369633a52b1bf277839a00201009a3efbf3ecb69bea2186c26b58909351fc9ac90b3ecfdfbc7c66431e0303dca179c138ac17ad9bef1177331a704",
    ),
}

# cose-wg/Examples. eddsa-sig-01 is signed with the key of RFC 8032, TEST 1; its protected header is {1: -8, 3: 0}.
COSE_KEY = SigningKey(bytes.fromhex(RFC8032["TEST 1"][0]))
COSE_PAYLOAD = b"This is the content."
EDDSA_SIG_01 = bytes.fromhex(
    "d28445a201270300a10442313154546869732069732074686520636f6e74656e742e58407142fd2ff96d56db85bee905a76ba1d0b7321a95c8c4d3607c578193"
    "2b7afb8711497dfa751bf40b58b3bcc32300b1487f3db34085eef013bf08f4a44d6fef0d"
)
# eddsa-sig-02 is Ed448; its bytes to be signed are those of our own header layout, {1: -8} protected and kid not.
EDDSA_SIG_02_TO_BE_SIGNED = bytes.fromhex("846a5369676e61747572653143a101274054546869732069732074686520636f6e74656e742e")

KEY = SigningKey(b"k" * 32)
KID = bytes(KEY.verify_key)
AAD = b"context"
PAYLOAD = b"payload"


def assert_one_line(error: BaseException, names: str) -> None:
    assert str(error).isprintable()
    assert names in str(error)


def sign1(
    protected: object, unprotected: object, payload: object, *, key: SigningKey = KEY, aad: bytes = b"", tag: bytes = b"\xd2"
) -> bytes:
    """A COSE_Sign1 with whatever headers, rightly signed."""
    header = protected if isinstance(protected, bytes) else cbor.encode(protected)
    signature = key.sign(cbor.encode(["Signature1", header, aad, payload])).signature
    return tag + cbor.encode([header, unprotected, payload, signature])


@pytest.mark.parametrize("name", RFC8032)
def test_rfc_8032_vectors_sign_and_verify(name: str) -> None:
    secret, public, message, signature = (bytes.fromhex(text) for text in RFC8032[name])
    key = SigningKey(secret)
    assert bytes(key.verify_key) == public
    assert key.sign(message).signature == signature
    assert VerifyKey(public).verify(message, signature) == message
    with pytest.raises(BadSignatureError):
        VerifyKey(public).verify(message + b"\0", signature)


def test_the_cose_wg_ed25519_example_verifies_with_its_own_header() -> None:
    protected, _, payload, signature = cbor.decode(EDDSA_SIG_01, "example", tags=(18,)).value
    message = cose.Sign1(protected, b"11", payload, signature)
    assert cose.verify(message, COSE_KEY.verify_key, "example") == COSE_PAYLOAD
    with pytest.raises(SignatureInvalid):
        cose.verify(message, KEY.verify_key, "example")


def test_the_cose_wg_example_carries_a_content_type_so_the_strict_parser_refuses_it() -> None:
    with pytest.raises(MalformedData) as caught:
        cose.parse(EDDSA_SIG_01, "example")
    assert str(caught.value) == "example: a header parameter other than alg and kid"


def test_the_bytes_to_be_signed_are_those_of_the_cose_wg_example() -> None:
    ours = sign1(bytes.fromhex("a10127"), {4: b"11"}, COSE_PAYLOAD, key=COSE_KEY)
    message = cose.parse(ours, "example")
    assert message.kid == b"11"
    assert cose.verify(message, COSE_KEY.verify_key, "example") == COSE_PAYLOAD
    assert COSE_KEY.verify_key.verify(EDDSA_SIG_02_TO_BE_SIGNED, message.signature) == EDDSA_SIG_02_TO_BE_SIGNED


def test_what_is_signed_is_verified_with_its_payload_and_key_id() -> None:
    message = cose.parse(cose.sign(KEY, PAYLOAD, kid=KID, aad=AAD), "thing")
    assert (message.kid, message.payload) == (KID, PAYLOAD)
    assert cose.verify(message, KEY.verify_key, "thing", aad=AAD) == PAYLOAD


def test_a_detached_payload_is_verified_beside_its_signature() -> None:
    signed = cose.sign(KEY, PAYLOAD, kid=KID, detached=True)
    assert PAYLOAD not in signed
    message = cose.parse(signed, "thing")
    assert message.payload is None
    assert cose.verify(message, KEY.verify_key, "thing", payload=PAYLOAD) == PAYLOAD


def test_an_empty_payload_is_a_payload() -> None:
    assert cose.verify(cose.parse(cose.sign(KEY, b"", kid=KID), "thing"), KEY.verify_key, "thing") == b""
    detached = cose.parse(cose.sign(KEY, b"", kid=KID, detached=True), "thing")
    assert cose.verify(detached, KEY.verify_key, "thing", payload=b"") == b""


def test_an_untagged_sign1_is_read_too() -> None:
    signed = cose.sign(KEY, PAYLOAD, kid=KID)
    assert cose.parse(signed[1:], "thing") == cose.parse(signed, "thing")


def test_attached_and_detached_are_never_confused() -> None:
    attached = cose.parse(cose.sign(KEY, PAYLOAD, kid=KID), "thing")
    detached = cose.parse(cose.sign(KEY, PAYLOAD, kid=KID, detached=True), "thing")
    for message, beside in ((attached, PAYLOAD), (attached, b"other"), (detached, None)):
        with pytest.raises(SignatureInvalid) as caught:
            cose.verify(message, KEY.verify_key, "thing", payload=beside)
        assert_one_line(caught.value, "thing: the payload must be either inside the signature or beside it")


def test_a_signature_for_one_purpose_is_worth_nothing_for_another() -> None:
    message = cose.parse(cose.sign(KEY, PAYLOAD, kid=KID, aad=AAD), "thing")
    for aad in (b"", b"context ", b"Context"):
        with pytest.raises(SignatureInvalid) as caught:
            cose.verify(message, KEY.verify_key, "thing", aad=aad)
        assert_one_line(caught.value, f"thing: the signature does not match key ed25519:{KID.hex()}")


def test_any_altered_bit_is_refused() -> None:
    signed = cose.sign(KEY, PAYLOAD, kid=KID, aad=AAD)
    for at in range(len(signed)):
        for bit in range(8):
            altered = bytearray(signed)
            altered[at] ^= 1 << bit
            with pytest.raises((SignatureInvalid, MalformedData)) as caught:
                cose.verify(cose.parse(bytes(altered), "thing"), KEY.verify_key, "thing", aad=AAD)
            assert_one_line(caught.value, "thing")


def test_every_truncation_is_refused() -> None:
    signed = cose.sign(KEY, PAYLOAD, kid=KID)
    for length in range(len(signed)):
        with pytest.raises(MalformedData):
            cose.parse(signed[:length], "thing")


def test_an_altered_protected_header_breaks_the_signature() -> None:
    message = cose.parse(cose.sign(KEY, PAYLOAD, kid=KID), "thing")
    other = cbor.encode({1: -8, 4: b"\0" * 32})
    for forged in (
        cose.Sign1(other, KID, PAYLOAD, message.signature),
        cose.Sign1(message.protected, KID, PAYLOAD + b".", message.signature),
        cose.Sign1(message.protected, KID, PAYLOAD, message.signature[::-1]),
        cose.Sign1(message.protected, KID, PAYLOAD, b"\0" * 64),
    ):
        with pytest.raises(SignatureInvalid):
            cose.verify(forged, KEY.verify_key, "thing")
    assert cose.verify(message, KEY.verify_key, "thing") == PAYLOAD


def test_a_signature_with_s_beyond_the_group_order_is_refused() -> None:
    # RFC 8032, section 5.1.7: S + L would verify where it is not checked, and make signatures malleable.
    order = (1 << 252) + 27742317777372353535851937790883648493
    message = cose.parse(cose.sign(KEY, PAYLOAD, kid=KID), "thing")
    s = int.from_bytes(message.signature[32:], "little") + order
    forged = cose.Sign1(message.protected, KID, PAYLOAD, message.signature[:32] + s.to_bytes(32, "little"))
    with pytest.raises(SignatureInvalid):
        cose.verify(forged, KEY.verify_key, "thing")


def test_a_key_of_small_order_verifies_nothing() -> None:
    # With the neutral element as key and as R, S = 0 would verify every message.
    neutral = (1).to_bytes(32, "little")
    message = cose.Sign1(cbor.encode({1: -8, 4: neutral}), neutral, PAYLOAD, neutral + b"\0" * 32)
    with pytest.raises(SignatureInvalid):
        cose.verify(message, VerifyKey(neutral), "thing")


@pytest.mark.parametrize(
    ("protected", "unprotected", "says"),
    [
        ({1: -7}, {}, "expected the algorithm EdDSA (-8)"),  # ES256
        ({1: -19, 4: KID}, {}, "expected the algorithm EdDSA (-8)"),  # Ed25519 of RFC 9864: one name only
        ({1: "EdDSA"}, {}, "expected the algorithm EdDSA (-8)"),
        ({4: KID}, {1: -8}, "expected the algorithm EdDSA (-8)"),
        ({}, {}, "expected the algorithm EdDSA (-8)"),
        (cbor.encode([1, -8]), {}, "expected the algorithm EdDSA (-8)"),
        (b"", {}, "not deterministic CBOR"),
        (b"\xa1\x01\x27\x00", {}, "bytes follow the item"),
        (b"\xa2\x01\x27\x01\x27", {}, "map keys are out of order or repeated"),
        (cbor.encode({1: -8, 4: b"k" * 300}), {}, "at most 256 bytes"),
        ({1: -8, 2: [4], 4: KID}, {}, "other than alg and kid"),  # crit
        ({1: -8, 3: 0}, {4: KID}, "other than alg and kid"),
        ({1: -8, "kid": KID}, {}, "other than alg and kid"),
        ({1: -8}, {4: KID, 5: b"iv"}, "other than alg and kid"),
        ({1: -8, 4: KID}, {1: -8}, "other than alg and kid"),
        ({1: -8, 4: KID}, {4: KID}, "kid stands in both headers"),
        ({1: -8, 4: KID}, {4: b"another"}, "kid stands in both headers"),
        ({1: -8, 4: "kid"}, {}, "kid must be bytes"),
        ({1: -8}, {4: 7}, "kid must be bytes"),
        ({1: -8}, {4: b"k" * 65}, "kid must be bytes, at most 64 of them"),
    ],
)
def test_a_rightly_signed_message_with_another_header_is_refused(protected: object, unprotected: object, says: str) -> None:
    signed = sign1(protected, unprotected, PAYLOAD)
    with pytest.raises((MalformedData, TooLarge)) as caught:
        cose.parse(signed, "thing")
    assert_one_line(caught.value, "thing")
    assert says in str(caught.value)


@pytest.mark.parametrize(
    "value",
    [
        None,
        b"",
        [],
        {},
        [b"", {}, b""],
        [b"", {}, b"", b"s" * 63],
        [b"", {}, b"", b"s" * 65],
        [b"", {}, b"", b"s" * 64, b""],
        [b"", [], b"", b"s" * 64],
        ["", {}, b"", b"s" * 64],
        [b"", {}, "text", b"s" * 64],
        [b"", {}, False, b"s" * 64],
        [b"", {}, b"", "s" * 64],
    ],
)
def test_another_shape_is_refused(value: Any) -> None:
    for tag in (b"", b"\xd2"):
        with pytest.raises(MalformedData) as caught:
            cose.parse(tag + cbor.encode(value), "thing")
        assert str(caught.value) == "thing: not a COSE_Sign1 of [protected, unprotected, payload, 64-byte signature]"


def test_another_tag_or_a_tag_in_a_tag_is_refused() -> None:
    signed = cose.sign(KEY, PAYLOAD, kid=KID)
    for tagged in (b"\xd1" + signed[1:], b"\xd8\x62" + signed[1:], b"\xd2" + signed, b"\xd2\xd2" + signed):
        with pytest.raises(MalformedData):
            cose.parse(tagged, "thing")


def test_a_message_beyond_its_bound_is_too_large() -> None:
    signed = cose.sign(KEY, b"x" * 1000, kid=KID)
    with pytest.raises(TooLarge) as caught:
        cose.parse(signed, "thing", bytes_max=1000)
    assert_one_line(caught.value, "thing: at most 1000 bytes expected")


PIECES: st.SearchStrategy[Any] = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-20, 20),
        st.binary(max_size=4),
        st.text(max_size=4),
        st.just(b"s" * 64),
        st.just(b"\xa1\x01\x27"),
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=5), st.dictionaries(st.integers(-2, 5), inner, max_size=3)),
    max_leaves=8,
)


@pytest.mark.slow
@FUZZ
@given(st.one_of(st.binary(max_size=200), PIECES.map(cbor.encode), PIECES.map(lambda value: b"\xd2" + cbor.encode(value))))
@example(b"\xd2\x84\x43\xa1\x01\x27\xa1\x04\xd2\x80\xf6\x58\x40" + b"s" * 64)
def test_parsing_anything_gives_a_message_or_malformed_data_in_one_line(data: bytes) -> None:
    try:
        message = cose.parse(data, "thing")
    except MalformedData as error:
        assert_one_line(error, "thing")
    else:
        assert len(message.signature) == 64


@pytest.mark.slow
@FUZZ
@given(st.binary(max_size=40), st.binary(max_size=20), st.booleans(), st.data())
def test_nothing_but_the_very_signed_bytes_verifies(payload: bytes, aad: bytes, detached: bool, draw: st.DataObject) -> None:
    signed = bytearray(cose.sign(KEY, payload, kid=KID, detached=detached, aad=aad))
    beside = payload if detached else None
    assert cose.verify(cose.parse(bytes(signed), "thing"), KEY.verify_key, "thing", payload=beside, aad=aad) == payload
    at = draw.draw(st.integers(0, len(signed) - 1))
    signed[at : at + draw.draw(st.integers(0, 2))] = draw.draw(st.binary(max_size=3))
    changed = bytes(signed) not in (cose.sign(KEY, payload, kid=KID, detached=detached, aad=aad),)
    try:
        found = cose.verify(cose.parse(bytes(signed), "thing"), KEY.verify_key, "thing", payload=beside, aad=aad)
    except SnapcountError as error:
        assert changed
        assert_one_line(error, "thing")
    else:
        assert found == payload
        assert not changed or bytes(signed) == cose.sign(KEY, payload, kid=KID, detached=detached, aad=aad)[1:], (
            "only the tag may be left out"
        )
