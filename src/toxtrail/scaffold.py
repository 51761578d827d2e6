"""New experiments outside toxtrail's source: their files, and their link to the installed version.

In a checkout of toxtrail, dvc.yaml names the source files. In other experiments, DVC cannot track
them inside site-packages, so an experiment contains a list of their hashes for each stage
(code/<stage>.sha256), which its dvc.yaml names instead. Changed code changes the list, which
re-runs exactly the stages that use the code.
"""

from __future__ import annotations

import json
import re
import secrets
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from string import Template

from toxtrail import __version__
from toxtrail.config.edit_params import Entry, add_entries
from toxtrail.config.load import read_yaml
from toxtrail.errors import ConfigError
from toxtrail.pipeline import PIPELINE, SOURCE, StageName, code_files, code_hash_file
from toxtrail.regular_files import read_bytes, read_text

PRESETS = {
    "demo": "SmolLM2-135M-Instruct and two fine-tunes of it; no hub, no account, no GPU",
    "empty": "settings, prompts and a scorer for models of your own, which you add",
    "hub": "SmolLM2-135M: base, instruct, and tuned on Dolly; from the Hugging Face hub",
    "paper": "all of Hawkins et al. 2024: 6 families, 26 variants; needs a GPU and a hub account",
}
"""Name -> description."""

FIRST_COMMANDS = {
    "demo": "",
    "empty": "toxtrail variants add ADDRESS --base --family NAME    # a base; docs/models.md\n"
    "toxtrail variants add ADDRESS --parent BASE            # a fine-tune of it\n",
    "hub": "toxtrail pin             # write the commit of each model and data set\n",
    "paper": "toxtrail pin             # write the commit of each model and data set\n",
}
"""Preset -> commands to run before the first run."""

LOCAL_DATA = {"demo": "*", "empty": "prompts_neutral.txt"}
"""Preset -> pattern of its files in presets/sources."""

TEMPLATE_DIR = SOURCE / "templates" / "experiment"
TEMPLATE_FILES = {
    ".gitattributes": "gitattributes",
    ".gitignore": "gitignore",
    ".dvcignore": "dvcignore",
    ".dvc/config": "dvc_config",
    ".dvc/.gitignore": "dvc_gitignore",
}
"""File of an experiment -> its template in the package."""

NO_GIT = "    # DVC expects git. After `git init`, delete this line.\n    no_scm = true\n"


TRACKING_EXPERIMENT = re.compile(r"(?<=^tracking:\n)  experiment: [\w-]+", re.MULTILINE)
TRACKING_PROJECT = re.compile(r"^  project: [\w.-]+$", re.MULTILINE)


def new_project_id(name: str) -> str:
    """Return a new id for a project: its name, as far as an id may contain it, and 32 random
    bits."""
    readable = re.sub(r"[^a-z0-9]+", "-", name.lower())[:NAME_CHARS].strip("-")
    return f"{readable or 'project'}-{secrets.token_hex(4)}"


NAME_CHARS = 40
"""Maximum number of characters of the name in a new id."""


def preset_path(preset: str) -> Path:
    """Return the path of a preset's params.yaml in the package."""
    return SOURCE / "presets" / f"{preset}.yaml"


def new_files(
    name: str, preset: str, git: bool, tracking_experiment: str | None = None
) -> dict[str, bytes]:
    """Return every file of a new experiment. It is a new project, with an id of its own.

    Args:
        name: the title of its README.
        tracking_experiment: name of its MLflow experiment; default: `name`, since experiments that
            share one list each other's runs.
        preset: one of PRESETS.
        git: whether the experiment is in a git repository.
    """
    files = {path: (TEMPLATE_DIR / model).read_bytes() for path, model in TEMPLATE_FILES.items()}
    # git keeps the execution records of an experiment, but not those of the demo in this repository
    files[".gitignore"] = files[".gitignore"].replace(b"/data/records/\n", b"")
    if not git:
        files[".dvc/config"] += NO_GIT.encode()
    readme = Template((TEMPLATE_DIR / "README.md").read_text("utf-8"))
    facts = {
        "name": name,
        "preset": preset,
        "what": PRESETS[preset],
        "first": FIRST_COMMANDS[preset],
    }
    files["README.md"] = readme.substitute(facts, version=__version__).encode()
    tracked = f"  experiment: {json.dumps(tracking_experiment or name, ensure_ascii=False)}"
    params = preset_path(preset).read_text("utf-8")
    params = TRACKING_EXPERIMENT.sub(lambda _: tracked, params)
    params = TRACKING_PROJECT.sub(f"  project: {new_project_id(name)}", params)
    files["params.yaml"] = params.encode()
    folder = SOURCE / "presets" / "sources"
    sources = sorted(folder.glob(LOCAL_DATA[preset])) if preset in LOCAL_DATA else []
    files |= {f"data/sources/{path.name}": path.read_bytes() for path in sources}
    return {**files, **versioned_files()}


def versioned_files() -> dict[str, bytes]:
    """Return the files that depend on the installed version, which `toxtrail upgrade`
    overwrites."""
    lists = {code_hash_file(stage.name): _listing(stage.name) for stage in PIPELINE}
    return {
        "dvc.yaml": experiment_dvc_yaml(
            (TEMPLATE_DIR / "pipeline.yaml").read_text("utf-8")
        ).encode(),
        "requirements.txt": (TEMPLATE_DIR / "requirements.txt").read_bytes(),
        **lists,
    }


def experiment_dvc_yaml(added: str) -> str:
    """Return dvc.yaml with each stage's list of code hashes in place of its source files.

    Args:
        added: the text of dvc.yaml in toxtrail's repository.
    """
    _, _, stages = added.partition("stages:\n")
    parts = re.split(r"^  (?=[a-z])", stages, flags=re.MULTILINE)
    head = (
        f"# Written by toxtrail {__version__}; `toxtrail upgrade` overwrites it.\n"
        "# Settings are in params.yaml. code/ contains the hashes of each stage's source files; a\n"
        "# new version of toxtrail re-runs the stages whose code it changed.\n"
    )
    return f"{head}stages:\n{'  '.join([parts[0], *map(_without_source, parts[1:])])}"


def _without_source(part: str) -> str:
    """Return a stage's entry with the first source file replaced by the list, and the others
    removed."""
    name, _, _ = part.partition(":")
    named = f"code/{name}.sha256"
    inline = re.sub(r"src/toxtrail/[^\],\s]+(, src/toxtrail/[^\],\s]+)*", named, part, count=1)
    return re.sub(r"^ *- src/toxtrail/\S+\n", "", inline, flags=re.MULTILINE)


def _listing(name: StageName) -> bytes:
    """Return the hashes in the format of sha256sum, relative to the package's folder."""
    return "".join(f"{sha256}  {path}\n" for path, sha256 in code_files(name).items()).encode()


def is_checkout(root: Path) -> bool:
    """Return whether the experiment is in a checkout of toxtrail's source."""
    return (root / "src" / "toxtrail").is_dir()


def stages_with_other_code(root: Path) -> list[StageName]:
    """Return the stages whose code differs between the experiment and the installed toxtrail.

    Empty in a checkout, where DVC tracks the source itself, and in a folder without `code/`.
    """
    if is_checkout(root) or not (root / "code").is_dir():
        return []
    names = [stage.name for stage in PIPELINE]
    return [name for name in names if _content(root / code_hash_file(name)) != _listing(name)]


def require_same_code(root: Path) -> None:
    """Raise if the installed code differs from the code on which DVC depends.

    Raises:
        ConfigError: the installed toxtrail is not the version of the experiment.
    """
    if names := stages_with_other_code(root):
        raise ConfigError(code_differs_message(names))


def code_differs_message(names: Sequence[str]) -> str:
    """Return the message for stages whose installed code differs from the experiment's."""
    return (
        f"the installed toxtrail ({__version__}) has other code than this experiment, for: "
        f"{', '.join(names)}. Run `toxtrail upgrade` to accept it, and `toxtrail run` to run these "
        "stages again; or install the version that produced the results."
    )


def outdated_files(root: Path) -> dict[str, bytes]:
    """Return the files that `toxtrail upgrade` would write, with their new content.

    Raises:
        ConfigError: params.yaml has no id of its project, and cannot be read or edited.
    """
    files = {**versioned_files(), **_params_with_project(root)}
    return {name: new for name, new in files.items() if _content(root / name) != new}


def _params_with_project(root: Path) -> dict[str, bytes]:
    """Return params.yaml with a new id of the project; nothing if it has one, or no section
    `tracking`, in which case more than the id is missing."""
    path = root / "params.yaml"
    values = read_yaml(path)
    tracking = values.get("tracking") if isinstance(values, dict) else None
    if not isinstance(tracking, dict) or "project" in tracking:
        return {}
    entry = Entry("tracking", "project", new_project_id(root.name))
    return {path.name: add_entries(read_text(path), [entry], [], path.name).encode()}


def _content(path: Path) -> bytes | None:
    return read_bytes(path) if path.is_file() else None


def write_experiment(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write a new experiment, completely or not at all.

    Raises:
        ConfigError: the folder contains something except .git, or is a file.
    """
    if folder.is_dir():
        if names := sorted(path.name for path in folder.iterdir() if path.name != ".git"):
            raise ConfigError(
                f"{folder} is not empty ({', '.join(names[:3])}{', ...' if names[3:] else ''}). "
                "Name a new or an empty folder; nothing was written."
            )
    elif folder.exists():
        raise ConfigError(f"{folder} is a file. Name a new or an empty folder.")
    created = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    try:
        replace_files(folder, files)
    except BaseException:
        for top in {Path(name).parts[0] for name in files}:
            path = folder / top
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        for path in created:
            path.rmdir()
        raise


def replace_files(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write files below a folder: all are written to a temporary folder before the first is
    moved."""
    with tempfile.TemporaryDirectory(dir=folder, prefix=".toxtrail-") as scratch:
        for number, content in enumerate(files.values()):
            (Path(scratch) / str(number)).write_bytes(content)
        for number, name in enumerate(files):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (Path(scratch) / str(number)).replace(folder / name)
