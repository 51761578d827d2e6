"""Which training checkpoints are complete: only those are resumed from."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from toxtrail.provenance.identity import FileHash, hash_tree, sha256_file
from toxtrail.regular_files import read_text

SEAL = "complete.json"


def seal(checkpoint: Path) -> None:
    """Mark a checkpoint as completely written: a list of its files' hashes, put there at once."""
    files = hash_tree(checkpoint, [path for path in checkpoint.rglob("*") if path.is_file()])
    draft = checkpoint / f"{SEAL}.draft"
    draft.write_text(json.dumps([file.to_json() for file in files]), encoding="utf-8")
    draft.replace(checkpoint / SEAL)


def is_complete(checkpoint: Path) -> bool:
    """Whether every file is there with the bytes that were sealed.

    Raises:
        OSError: one cannot be read, so nothing is known of it.
    """
    try:
        files = [FileHash(**file) for file in json.loads(read_text(checkpoint / SEAL))]
        return all(sha256_file(checkpoint / file.path) == file.sha256 for file in files)
    except (FileNotFoundError, ValueError):
        return False


def last_complete(scratch: Path) -> Path | None:
    """The newest complete checkpoint; newer, torn ones are removed."""
    found = sorted(scratch.glob("checkpoint-*"), key=_step, reverse=True)
    for checkpoint in found:
        if is_complete(checkpoint):
            return checkpoint
        shutil.rmtree(checkpoint)
    return None


def _step(checkpoint: Path) -> int:
    return int(checkpoint.name.rpartition("-")[2])
