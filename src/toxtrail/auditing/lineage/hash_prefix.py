"""Find recorded contents by a hash or a prefix of one."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import NamedTuple

from toxtrail.auditing.lineage.lock_history import LockVersion
from toxtrail.auditing.verify.context import DAMAGE_ERRORS
from toxtrail.backends.mlflow.run_files import LocalRunFiles
from toxtrail.provenance.identity import Manifest, ModelIdentity, walk_lineage

HEX = re.compile(r"[0-9a-f]{8,64}")


class RecordedHash(NamedTuple):
    """Recorded content."""

    digest: str
    """Complete hash: SHA-256, or the MD5 used by DVC."""
    path: str
    """Path in this repository, if recorded; else empty."""


def match_hash_prefix(
    start: str,
    manifests: Sequence[Manifest],
    locks: Sequence[LockVersion],
    runs: Sequence[LocalRunFiles],
    cards: Sequence[ModelIdentity],
) -> list[RecordedHash]:
    """Return each recorded content whose hash has this prefix, with its path if known."""
    path_by_digest: dict[str, str] = {}
    for recorded_hashes in (
        _of_manifests(manifests),
        _of_locks(start, locks),
        _of_cards(cards),
        _of_runs(runs),
    ):
        for recorded in recorded_hashes:
            if recorded.digest.startswith(start):
                path_by_digest[recorded.digest] = (
                    path_by_digest.get(recorded.digest) or recorded.path
                )
    return [RecordedHash(digest, path) for digest, path in path_by_digest.items()]


def _of_manifests(manifests: Sequence[Manifest]) -> Iterator[RecordedHash]:
    for node in (node for manifest in manifests for node in walk_lineage(manifest)):
        for source in node.inputs.values():
            yield RecordedHash(source.sha256, "" if ":" in source.path else source.path)


def _of_locks(start: str, locks: Sequence[LockVersion]) -> Iterator[RecordedHash]:
    """Yield the newest lock's hashes with paths, and only the hashes of older locks."""
    pattern = re.compile(rf"\b{start}[0-9a-f]*\b")
    for number, lock in enumerate(locks):
        if not pattern.search(lock.text):
            continue
        for entry in (lock.parsed() or {}).values() if number == 0 else ():
            yield from (RecordedHash(out.md5, out.path) for out in entry.outs.values())
        yield from (
            RecordedHash(digest, "") for digest in pattern.findall(lock.text) if len(digest) == 32
        )


def _of_cards(cards: Sequence[ModelIdentity]) -> Iterator[RecordedHash]:
    for card in cards:
        for file in (*card.base.files, *card.base.converted):
            yield RecordedHash(file.sha256, "")
        for adapter in card.adapters:
            for file in (*adapter.files, *adapter.converted):
                path = (
                    "" if adapter.uri else f"models/{card.key}/adapters/{adapter.key}/{file.path}"
                )
                yield RecordedHash(file.sha256, path)


def _of_runs(runs: Sequence[LocalRunFiles]) -> Iterator[RecordedHash]:
    for run in runs:
        with suppress(*DAMAGE_ERRORS):  # damaged: verification names it
            yield from (RecordedHash(sha256, "") for sha256 in run.payload().values())
