"""Signatures of statements.

An unsigned seal is a hash: it detects accidents, but not a forger, who can seal again. A signature
detects changes by anybody without the private key.

Source: DSSE v1 (https://github.com/secure-systems-lab/dsse) around an in-toto Statement v1; ed25519
by RFC 8032.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from toxtrail.errors import ConfigError, DataError
from toxtrail.provenance.identity import sha256_bytes

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import (
        Ed25519PrivateKey,
        Ed25519PublicKey,
    )

PAYLOAD_TYPE = "application/vnd.in-toto+json"


class VerifiedEnvelope(NamedTuple):
    """Decoded envelope with the result of its verification."""

    payload: bytes
    key_ids: tuple[str, ...]
    valid_for: tuple[str, ...]
    """Ids of the given public keys whose signature is valid."""


def generate_key_pair(path: Path) -> Path:
    """Write a new private key (readable by its owner only) and its public key beside it.

    Raises:
        ConfigError: the file exists.
    """
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    public = path.with_name(f"{path.name}.pub")
    for key_path in (path, public):
        if key_path.exists():
            raise ConfigError(f"{key_path} exists already; a key is never overwritten.")
    key = Ed25519PrivateKey.generate()
    path.touch(mode=0o600)
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    public.write_bytes(
        key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
    )
    return public


def envelope(payload: bytes, key: Ed25519PrivateKey) -> dict[str, Any]:
    """Return the DSSE envelope of an in-toto statement."""
    signature = key.sign(_pae_encode(payload))
    return {
        "payloadType": PAYLOAD_TYPE,
        "payload": base64.b64encode(payload).decode(),
        "signatures": [
            {"keyid": key_id(key.public_key()), "sig": base64.b64encode(signature).decode()}
        ],
    }


def open_envelope(text: str, keys: Sequence[Ed25519PublicKey], name: str) -> VerifiedEnvelope:
    """Decode an envelope and verify it with every key.

    Raises:
        DataError: it is not a DSSE envelope of an in-toto statement.
    """
    from cryptography.exceptions import InvalidSignature

    try:
        value = json.loads(text)
        payload = base64.b64decode(value["payload"], validate=True)
        signatures = [(s["keyid"], base64.b64decode(s["sig"])) for s in value["signatures"]]
        if value["payloadType"] != PAYLOAD_TYPE:
            raise ValueError(f"payloadType {value['payloadType']}")
    except (ValueError, KeyError, TypeError, binascii.Error) as error:
        raise DataError(f"{name} is not a DSSE envelope of an in-toto statement: {error}") from None
    valid = []
    for key in keys:
        for _, signature in signatures:
            try:
                key.verify(signature, _pae_encode(payload))
            except InvalidSignature:
                continue
            valid.append(key_id(key))
    return VerifiedEnvelope(payload, tuple(i for i, _ in signatures), tuple(valid))


def private_key(path: Path) -> Ed25519PrivateKey:
    """Read an ed25519 private key in PEM format.

    Raises:
        ConfigError: the file does not exist, or contains another key or none.
    """
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    where = f"--key: {path}"
    block = _pem_block(where, path, "`toxtrail sign --new-key FILE` creates a key.")
    if block.label == "PUBLIC KEY":
        raise ConfigError(f"{where} is a public key. Name the private one: the file without .pub.")
    try:
        key = load_pem_private_key(block.content, None)
    except TypeError:
        raise ConfigError(
            f"{where} is encrypted, which toxtrail does not support. "
            f"`openssl pkey -in {path} -out FILE` writes it unencrypted."
        ) from None
    except (ValueError, UnsupportedAlgorithm):
        raise ConfigError(f"{where}: {_wrong_block(block, 'PRIVATE KEY')}") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise ConfigError(f"{where} is {_kind_of(key)}; an ed25519 key is needed.")
    return key


def public_key(path: Path) -> Ed25519PublicKey:
    """Read an ed25519 public key in PEM format.

    Raises:
        ConfigError: the file does not exist, or contains another key or none.
    """
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    where = f"--public-key: {path}"
    block = _pem_block(where, path, "It is the FILE.pub of whoever signed.")
    if block.label.endswith("PRIVATE KEY"):
        raise ConfigError(f"{where} is a private key. Name the public one, which ends in .pub.")
    try:
        key = load_pem_public_key(block.content)
    except (ValueError, UnsupportedAlgorithm):
        raise ConfigError(f"{where}: {_wrong_block(block, 'PUBLIC KEY')}") from None
    if not isinstance(key, Ed25519PublicKey):
        raise ConfigError(f"{where} is {_kind_of(key)}; an ed25519 key is needed.")
    return key


KEY_LIMIT = 1 << 20
"""Maximum bytes of a file that are searched for a key: a device may be endless."""


class _Block(NamedTuple):
    """PEM content of a file."""

    label: str
    """Text between BEGIN and the dashes, such as PRIVATE KEY; empty if the file is not PEM."""
    content: bytes


def _pem_block(where: str, path: Path, cure: str) -> _Block:
    if not path.exists():
        raise ConfigError(f"{where} does not exist. {cure}")
    with path.open("rb") as file:  # a pipe as well: `--key <(pass show key)`
        content = file.read(KEY_LIMIT)
    begin = re.search(rb"-----BEGIN ([A-Z0-9 ]{1,40})-----", content)
    if begin is None:
        what = "contains no key in PEM format" if content else "is empty"
        raise ConfigError(f"{where} {what}. {cure}")
    return _Block(begin[1].decode(), content)


def _wrong_block(block: _Block, expected: str) -> str:
    if block.label == expected:
        return f"the {expected} in it is damaged, or of an unknown kind."
    return f'it contains "{block.label}" in PEM format; "{expected}" is needed.'


def _kind_of(key: object) -> str:
    """Describe a key of the cryptography package: `an RSA key`."""
    name = type(key).__name__.lstrip("_").removesuffix("Key").removesuffix("Public")
    name = name.removesuffix("Private")
    return f"{'an' if name[:1] in 'AEIOURSX' else 'a'} {name} key"


def key_id(key: Ed25519PublicKey) -> str:
    """Return the first 16 hex digits of the SHA-256 of the raw public key."""
    from cryptography.hazmat.primitives import serialization

    raw = key.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    return sha256_bytes(raw)[:16]


def _pae_encode(payload: bytes) -> bytes:
    """Return DSSE's pre-authentication encoding."""
    kind = PAYLOAD_TYPE.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)
