"""New experiments, apart from toxtrail's own source: their files, and what ties them to the
installed version.

A checkout of toxtrail names its source files in dvc.yaml. Elsewhere they lie in some
site-packages, out of DVC's sight; so an experiment keeps a list of their hashes for each stage
(code/<stage>.sha256) that its dvc.yaml names instead. Changed code is a changed list, and re-runs
exactly the stages that it belongs to.
"""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from string import Template

from toxtrail import __version__
from toxtrail.errors import ConfigError
from toxtrail.pipeline import PIPELINE, SOURCE, StageName, code_files, code_hash_file
from toxtrail.regular_files import read_bytes

PRESETS = {
    "demo": "SmolLM2-135M-Instruct and two fine-tunes of it; no hub, no account, no GPU",
    "hub": "SmolLM2-135M: base, instruct, and tuned on Dolly; from the Hugging Face hub",
    "paper": "all of Hawkins et al. 2024: 6 families, 26 variants; needs a GPU and a hub account",
}
"""Name -> what it measures."""

FIRST_COMMANDS = {
    "demo": "",
    "hub": "toxtrail pin             # writes which commit of each model and data set is meant\n",
    "paper": "toxtrail pin             # writes which commit of each model and data set is meant\n",
}
"""What must come before the first run."""

TEMPLATE_DIR = SOURCE / "templates" / "experiment"
TEMPLATE_FILES = {
    ".gitignore": "gitignore",
    ".dvcignore": "dvcignore",
    ".dvc/config": "dvc_config",
    ".dvc/.gitignore": "dvc_gitignore",
}
"""File of an experiment -> its model in the package."""

NO_GIT = "    # DVC expects git. After `git init`, delete this line.\n    no_scm = true\n"


def preset_path(preset: str) -> Path:
    """The params.yaml of a preset, inside the package."""
    return SOURCE / "presets" / f"{preset}.yaml"


def new_files(name: str, preset: str, git: bool) -> dict[str, bytes]:
    """Every file of a new experiment.

    Args:
        name: what it is called in its README.
        preset: one of PRESETS.
        git: whether it is in a git repository.
    """
    files = {path: (TEMPLATE_DIR / model).read_bytes() for path, model in TEMPLATE_FILES.items()}
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
    files["params.yaml"] = preset_path(preset).read_bytes()
    if preset == "demo":
        sources = sorted((SOURCE / "presets" / "sources").iterdir())
        files |= {f"data/sources/{path.name}": path.read_bytes() for path in sources}
    return {**files, **versioned_files()}


def versioned_files() -> dict[str, bytes]:
    """What of an experiment follows the installed toxtrail: `toxtrail upgrade` writes it anew."""
    lists = {code_hash_file(stage.name): _listing(stage.name) for stage in PIPELINE}
    return {
        "dvc.yaml": experiment_dvc_yaml(
            (TEMPLATE_DIR / "pipeline.yaml").read_text("utf-8")
        ).encode(),
        "requirements.txt": (TEMPLATE_DIR / "requirements.txt").read_bytes(),
        **lists,
    }


def experiment_dvc_yaml(added: str) -> str:
    """toxtrail's dvc.yaml, with each stage's list of code in place of its source files.

    Args:
        added: the text of the one in toxtrail's repository.
    """
    _, _, stages = added.partition("stages:\n")
    parts = re.split(r"^  (?=[a-z])", stages, flags=re.MULTILINE)
    head = (
        f"# What runs when; written by toxtrail {__version__}, `toxtrail upgrade` writes it anew.\n"
        "# Values are in params.yaml. code/ holds the hashes of each stage's source files: a new\n"
        "# version of toxtrail re-runs the stages whose code it changed.\n"
    )
    return f"{head}stages:\n{'  '.join([parts[0], *map(_without_source, parts[1:])])}"


def _without_source(part: str) -> str:
    """One stage's entry: the first source file becomes the list of all, the others go."""
    name, _, _ = part.partition(":")
    named = f"code/{name}.sha256"
    inline = re.sub(r"src/toxtrail/[^\],\s]+(, src/toxtrail/[^\],\s]+)*", named, part, count=1)
    return re.sub(r"^ *- src/toxtrail/\S+\n", "", inline, flags=re.MULTILINE)


def _listing(name: StageName) -> bytes:
    """As sha256sum writes and checks it, in the package's folder."""
    return "".join(f"{sha256}  {path}\n" for path, sha256 in code_files(name).items()).encode()


def is_checkout(root: Path) -> bool:
    """Return whether the experiment is in a checkout of toxtrail's source."""
    return (root / "src" / "toxtrail").is_dir()


def stages_with_other_code(root: Path) -> list[StageName]:
    """Stages whose code in the installed toxtrail is not what the experiment was set up with; none
    in a checkout, where DVC sees the source itself, and where nothing was set up."""
    if is_checkout(root) or not (root / "code").is_dir():
        return []
    names = [stage.name for stage in PIPELINE]
    return [name for name in names if _content(root / code_hash_file(name)) != _listing(name)]


def outdated_files(root: Path) -> dict[str, bytes]:
    """What `toxtrail upgrade` would write: file -> its new content."""
    files = versioned_files()
    return {name: new for name, new in files.items() if _content(root / name) != new}


def _content(path: Path) -> bytes | None:
    return read_bytes(path) if path.is_file() else None


def write_experiment(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write a new experiment, completely or not at all.

    Raises:
        ConfigError: there is something in the folder (its .git apart), or a file of its name.
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
    """Write files below a folder: all are written aside before the first takes its place."""
    with tempfile.TemporaryDirectory(dir=folder, prefix=".toxtrail-") as scratch:
        for number, content in enumerate(files.values()):
            (Path(scratch) / str(number)).write_bytes(content)
        for number, name in enumerate(files):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (Path(scratch) / str(number)).replace(folder / name)
