"""Track which training checkpoints are complete; training resumes only from these."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from toxtrail.provenance.identity import FileHash, hash_tree, sha256_file
from toxtrail.regular_files import read_text

SEAL = "complete.json"


def seal(checkpoint: Path) -> None:
    """Mark a checkpoint as complete by writing a list of its files' hashes atomically."""
    files = hash_tree(checkpoint)
    draft = checkpoint / f"{SEAL}.draft"
    draft.write_text(json.dumps([file.to_json() for file in files]), encoding="utf-8")
    draft.replace(checkpoint / SEAL)


def is_complete(checkpoint: Path) -> bool:
    """Return whether every file exists with the hash that was recorded.

    Raises:
        OSError: a file cannot be read, so its state is unknown.
    """
    try:
        files = [FileHash(**file) for file in json.loads(read_text(checkpoint / SEAL))]
        return all(sha256_file(checkpoint / file.path) == file.sha256 for file in files)
    except (FileNotFoundError, ValueError):
        return False


def last_complete(scratch: Path) -> Path | None:
    """Return the newest complete checkpoint; delete newer, incomplete ones."""
    checkpoints = sorted(scratch.glob("checkpoint-*"), key=_step_of, reverse=True)
    for checkpoint in checkpoints:
        if is_complete(checkpoint):
            return checkpoint
        shutil.rmtree(checkpoint)
    return None


def _step_of(checkpoint: Path) -> int:
    return int(checkpoint.name.rpartition("-")[2])
