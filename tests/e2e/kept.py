"""An experiment that a test changes, and that is put back afterwards."""

from __future__ import annotations

import os
import shutil
import sqlite3
from contextlib import closing, suppress

DATABASE = "mlruns/mlflow.db"


class Kept:
    """A copy of an experiment, and the way back to it after a change.

    Only what was changed is copied back: a change of a file, of its mode or of its time stamps
    changes its ctime, which no program can set. The database is written in place: MLflow holds it
    open.
    """

    def __init__(self, root, folder):
        self._root, self._folder = root, folder
        shutil.copytree(root, folder, symlinks=True)
        self._states = states(root)

    def put_back(self):
        now = states(self._root)
        for name in sorted(now.keys() - self._states.keys()):
            remove(self._root / name)
        for name, state in self._states.items():
            if now.get(name) != state:
                self._restore(name)
        self._states = states(self._root)

    def _restore(self, name):
        kept, path = self._folder / name, self._root / name
        if name == DATABASE and path.is_file() and copied_in_place(kept, path):
            return
        if kept.is_dir() and not kept.is_symlink():
            if path.is_symlink() or not path.is_dir():
                path.unlink(missing_ok=True)
                path.mkdir()
            shutil.copystat(kept, path)
        else:
            if os.path.lexists(path):
                remove(path)
            shutil.copy2(kept, path, follow_symlinks=False)


def copied_in_place(kept, path):
    """Whether the database could be written: a file that is none cannot."""
    with (
        suppress(sqlite3.DatabaseError),
        closing(sqlite3.connect(kept)) as source,
        closing(sqlite3.connect(path)) as target,
    ):
        source.backup(target)
        return True
    return False


def states(root):
    """Name below the root -> what tells that it is the same, parents first."""
    found, folders = {}, [root]
    while folders:
        with os.scandir(folders.pop()) as entries:
            for entry in entries:
                it = entry.stat(follow_symlinks=False)
                is_folder = entry.is_dir(follow_symlinks=False)
                times = () if is_folder else (it.st_size, it.st_mtime_ns, it.st_ctime_ns)
                name = entry.path[len(str(root)) + 1 :]
                found[name] = (it.st_ino, it.st_mode, *times)
                if is_folder:
                    folders.append(entry.path)
    return found


def remove(path):
    shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink(missing_ok=True)
