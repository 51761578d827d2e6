"""Git's merge driver for params.yaml and dvc.lock: the command `toxtrail merge`.

The names of the files are in .gitattributes, which git tracks; the command is in .git/config, which
each clone has for itself. Where it is missing, git merges lines.
"""

from __future__ import annotations

from pathlib import Path

from toxtrail.backends import git
from toxtrail.regular_files import read_text
from toxtrail.scaffold import TEMPLATE_DIR, replace_files

SETTINGS = {
    "merge.toxtrail.name": "merge params.yaml and dvc.lock by entries",
    "merge.toxtrail.driver": "toxtrail merge --driver %O %A %B %P",
}
"""Key in git's configuration -> value."""

NOT_INSTALLED = (
    "in this clone, git merges params.yaml and dvc.lock by lines, and branches that add variants "
    "conflict. `toxtrail merge --install` makes it merge them by entries."
)


def install_merge_driver(root: Path) -> bool:
    """Define the merge driver in this clone, and complete .gitattributes.

    Returns:
        Whether git accepted the settings.
    """
    present = _attributes(root)
    wanted = read_text(TEMPLATE_DIR / "gitattributes")
    if set(wanted.splitlines()) - set(present.splitlines()):
        separator = "" if present.endswith("\n") or not present else "\n"
        replace_files(root, {".gitattributes": f"{present}{separator}{wanted}".encode()})
    return all(git.set_setting(root, key, value) for key, value in SETTINGS.items())


def lacks_merge_driver(root: Path) -> bool:
    """Return whether .gitattributes names the merge driver, but this clone does not define it."""
    names_it = "merge=toxtrail" in _attributes(root)
    return names_it and git.setting(root, "merge.toxtrail.driver") is None


def _attributes(root: Path) -> str:
    path = root / ".gitattributes"
    return read_text(path) if path.is_file() else ""
