"""DSSE envelopes: they open with the right key, on the very bytes that were signed."""

from __future__ import annotations

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toxtrail.auditing.bundle.signing import (
    envelope,
    generate_key_pair,
    key_id,
    open_envelope,
    private_key,
    public_key,
)
from toxtrail.errors import ConfigError, DataError


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    folder = tmp_path_factory.mktemp("keys")
    generate_key_pair(folder / "mine")
    generate_key_pair(folder / "other")
    return folder


@pytest.fixture(scope="module")
def mine(keys):
    return private_key(keys / "mine")


@pytest.fixture(scope="module")
def pub(keys):
    return public_key(keys / "mine.pub")


def test_what_was_signed_is_vouched_for_by_its_key_alone(keys, mine, pub):
    text = json.dumps(envelope(b"{}", mine))
    other = public_key(keys / "other.pub")
    assert open_envelope(text, [other, pub], "x").valid_for == (key_id(pub),)
    assert open_envelope(text, [other], "x").valid_for == ()
    assert open_envelope(text, [], "x").key_ids == (key_id(pub),)


def test_the_encoding_is_that_of_the_specification(mine, pub):
    """DSSE v1: `DSSEv1 SP len(type) SP type SP len(body) SP body`."""
    value = envelope(b"hello world", mine)
    signature = base64.b64decode(value["signatures"][0]["sig"])
    pub.verify(signature, b"DSSEv1 28 application/vnd.in-toto+json 11 hello world")


@given(payload=st.binary(max_size=60), place=st.integers(0, 10**6), bit=st.integers(0, 7))
def test_no_changed_bit_of_payload_or_signature_passes(mine, pub, payload, place, bit):
    value = envelope(payload, mine)
    signature = value["signatures"][0]["sig"]
    for text, put in (
        (value["payload"], lambda t: value.update(payload=t)),
        (signature, lambda t: value["signatures"][0].update(sig=t)),
    ):
        content = bytearray(base64.b64decode(text))
        if not content:
            continue
        content[place % len(content)] ^= 1 << bit
        put(base64.b64encode(bytes(content)).decode())
        assert open_envelope(json.dumps(value), [pub], "x").valid_for == ()
        put(text)
    assert open_envelope(json.dumps(value), [pub], "x").payload == payload


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"payload": 1}', '{"payload": "!", "signatures": []}', "\x00"]
)
def test_what_is_no_envelope_is_named(text):
    with pytest.raises(DataError, match="^x is .*not a DSSE envelope"):
        open_envelope(text, [], "x")


def test_an_envelope_of_another_type_is_refused(mine):
    value = envelope(b"{}", mine) | {"payloadType": "text/plain"}
    with pytest.raises(DataError, match="payloadType text/plain"):
        open_envelope(json.dumps(value), [], "x")


def test_a_new_key_is_its_owners_and_overwrites_nothing(keys):
    assert (keys / "mine").stat().st_mode & 0o077 == 0
    with pytest.raises(ConfigError, match="never overwritten"):
        generate_key_pair(keys / "mine")


def test_a_wrong_kind_of_key_is_named(keys, tmp_path):
    from cryptography.hazmat.primitives import serialization as form
    from cryptography.hazmat.primitives.asymmetric import x25519
    from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key

    key = generate_private_key(SECP256R1())
    pem = (form.Encoding.PEM, form.PrivateFormat.PKCS8, form.NoEncryption())
    (tmp_path / "ec").write_bytes(key.private_bytes(*pem))
    with pytest.raises(ConfigError, match="an ed25519 key is needed"):
        private_key(tmp_path / "ec")
    other = x25519.X25519PrivateKey.generate()
    (tmp_path / "x").write_bytes(other.private_bytes(*pem))
    secret = form.BestAvailableEncryption(b"word")
    (tmp_path / "secret").write_bytes(key.private_bytes(*pem[:2], secret))
    (tmp_path / "empty").touch()
    (tmp_path / "readme").write_text("# A readme\n")
    (tmp_path / "cut").write_text((keys / "mine").read_text()[:80])
    (tmp_path / "cert").write_text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    for path, said in (
        (tmp_path / "x", "an X25519 key"),
        (tmp_path / "secret", "encrypted"),
        (tmp_path / "empty", "empty"),
        (tmp_path / "readme", "no key in PEM"),
        (tmp_path / "cut", "damaged"),
        (tmp_path / "cert", "CERTIFICATE"),
        (tmp_path / "none", "does not exist"),
        (keys / "mine.pub", "public key"),
    ):
        with pytest.raises(ConfigError, match=said) as raised:
            private_key(path)
        assert str(path) in str(raised.value)
    for path, said in (
        (keys / "mine", "private key"),
        (tmp_path / "readme", "no key in PEM"),
        (tmp_path / "none", "does not exist"),
    ):
        with pytest.raises(ConfigError, match=said):
            public_key(path)
