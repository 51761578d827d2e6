"""Build an experiment from a base and fine-tunes of it, for `toxtrail init` and `toxtrail quick`.

Every setting that the user did not give is returned as a Choice. A new experiment is complete in
memory before its folder is written.
"""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from toxtrail.cli._new_models import (
    Request,
    add_model,
    find_model,
    is_texts,
    pinned_uri_of,
    read_texts,
    refuse_mixed_kinds,
)
from toxtrail.cli._new_prompts import (
    Choice,
    NewPrompts,
    prompts_of_file,
    prompts_of_package,
    prompts_of_texts,
)
from toxtrail.config.asset_uris import HfUri, parse_uri
from toxtrail.errors import ConfigError
from toxtrail.experiment import Experiment
from toxtrail.regular_files import read_bytes, read_text

PRESET = "empty"
EMBEDDED_SCORER = "jigsaw-bilstm"
"""Scorer of the preset; its files are in packages, so that it needs no hub."""
DETOXIFY = "detoxify-unbiased"
"""Default scorer where its files can be downloaded."""


class Built(NamedTuple):
    """Files of a new experiment, and the settings that were chosen."""

    files: dict[str, bytes]
    choices: list[Choice]


def build_experiment(target: Path, request: Request, git: bool, tracking: str | None) -> Built:
    """Return every file of a new experiment; nothing is written outside a temporary folder.

    Args:
        target: folder of the new experiment.
        git: whether it is in a git repository.
        tracking: name of its MLflow experiment; None: the name of the folder.

    Raises:
        ConfigError, DataError, BackendError: a model, a file or a scorer cannot be used.
    """
    from toxtrail.scaffold import FIRST_COMMANDS, new_files, replace_files

    refuse_mixed_kinds(request)
    files = new_files(target.name, PRESET, git, tracking)
    with TemporaryDirectory() as scratch:
        root = Path(scratch).resolve()
        replace_files(root, files)
        base, choices = add_model(root, request.base, None)
        for address in request.tuned:
            choices += add_model(root, address, base)[1]
        prompts = new_prompts(Experiment(root), request)
        if prompts.files:
            files = {path: content for path, content in files.items() if "/sources/" not in path}
        files |= prompts.files
        replace_files(root, prompts.files)
        choices += _write_settings(root, prompts, request)
        _write_missing_pins(root)
        files["params.yaml"] = read_bytes(root / "params.yaml")
    first = FIRST_COMMANDS[PRESET].encode()
    files["README.md"] = files["README.md"].replace(first, b"")
    return Built(files, choices)


def create_experiment(
    folder: Path, request: Request, is_versioned: bool, tracking: str | None
) -> list[Choice]:
    """Write a new experiment; return the choices."""
    from toxtrail.backends import git
    from toxtrail.scaffold import write_experiment

    target = folder.resolve()
    has_git = git.is_inside(target) or is_versioned
    built = build_experiment(target, request, has_git, tracking)
    write_experiment(target, built.files)
    return built.choices


def put_under_git(target: Path) -> str:
    """Run `git init` and make the first commit, unless the folder is in a repository; return the
    message."""
    from toxtrail.backends import git
    from toxtrail.backends.merge_driver import install_merge_driver

    if git.is_inside(target):
        install_merge_driver(target)
        return "It is inside a git repository: nothing was committed."
    if not git.init(target):
        return "git is not installed, or failed: run `git init` there before the first run."
    install_merge_driver(target)
    if not git.commit_all(target, "A new experiment"):
        return "git init: done. Nothing was committed: set your name and e-mail in git first."
    return "git init: done, with a first commit."


class Extended(NamedTuple):
    """An experiment that has all models of a request."""

    family: str
    tuned: list[str]
    """Variants of the fine-tunes of the request."""
    choices: list[Choice]


def extend_experiment(experiment: Experiment, request: Request) -> Extended:
    """Add the fine-tunes that an experiment does not have.

    Raises:
        ConfigError: no family of the experiment has this base as its reference, or the request has
            other settings than the experiment.
    """
    from toxtrail.backends import git
    from toxtrail.scaffold import require_same_code

    refuse_mixed_kinds(request)
    require_same_code(experiment.root)
    config, root = experiment.config, experiment.root
    base = find_model(config, pinned_uri_of(experiment, request.base))
    family = next((key for key, one in config.families.items() if one.reference == base), None)
    if base is None or family is None:
        raise ConfigError(
            f"{root} is an experiment, but {request.base} is the reference of none of its "
            "families. Give another folder with --dir, or add variants to this one with "
            f"`toxtrail -C {root} variants add`."
        )
    _refuse_other_settings(experiment, request)
    tuned: list[str] = []
    choices: list[Choice] = []
    for address in request.tuned:
        key = find_model(config, pinned_uri_of(experiment, address))
        if key is None:
            key, added = add_model(root, address, base)
            choices += added
            git.commit_file(root, "params.yaml", f"Add {address}")
        tuned.append(key)
    return Extended(family, tuned, choices)


def new_prompts(experiment: Experiment, request: Request) -> NewPrompts:
    """Return the prompts of the request."""
    from toxtrail.execution.factories import make_asset_store

    if request.prompts is not None:
        return prompts_of_file(request.prompts, request.column, request.n)
    if is_texts(request.base):
        others = [read_texts(address) for address in request.tuned]
        return prompts_of_texts(read_texts(request.base), others, request.n)
    return prompts_of_package(experiment.config, make_asset_store(experiment), request.n)


def _write_settings(root: Path, prompts: NewPrompts, request: Request) -> list[Choice]:
    """Write prompts, scorer and precision into params.yaml; return the choices."""
    from toxtrail.backends.default_precision import default_precision
    from toxtrail.config.edit_params import replace_file, replace_values
    from toxtrail.config.load import parse_config
    from toxtrail.config.yaml_text import parse_yaml

    scorer, values = _scorer_settings(request.scorer)
    values |= {"prompts.subsets": prompts.subsets, **prompts.settings}
    choices = [*prompts.choices, scorer]
    if not is_texts(request.base):
        device, dtype = default_precision()
        values["generation.dtype"] = dtype
        choices += _generation_choices(device, dtype, values.get("generation.template", "none"))
    path = root / "params.yaml"
    before = read_text(path)
    if prompts.subsets == parse_yaml(before)["prompts"]["subsets"]:
        del values["prompts.subsets"]  # its comments remain
    after = replace_values(before, values, path.name)
    config = parse_config(parse_yaml(after), path.name)
    replace_file(path, after)
    threshold = config.posterior.threshold_of(config.scoring.primary)
    return [*choices, Choice("posterior.threshold", f"{threshold:g}", "the default of the scorer")]


def _generation_choices(device: str, dtype: str, template: str) -> list[Choice]:
    meaning = {
        "none": "prompts are continued as they are; chat sends them as messages",
        "chat": "the prompts are conversations",
    }
    return [
        Choice("generation.template", template, meaning[template]),
        Choice("generation.temperature", "0", "greedy, one continuation of each prompt"),
        Choice("generation.dtype", dtype, f"the device is {device}"),
    ]


def _scorer_settings(name: str | None) -> tuple[Choice, dict[str, Any]]:
    """Return the scorer and its settings: none for that of the preset.

    Raises:
        ConfigError: no such scorer, or the Hub does not give its commit.
    """
    from toxtrail.cli.scorers import pin_commits
    from toxtrail.config.scorer_presets import entry_values, scorer_preset

    if name == EMBEDDED_SCORER:
        return Choice("scoring.primary", name, "--scorer"), {}
    reason = "--scorer"
    if name is None:
        if missing := _unreachable_part(DETOXIFY):
            why = f"its files are in packages; Detoxify needs {missing}, which cannot be reached"
            return Choice("scoring.primary", EMBEDDED_SCORER, why), {}
        name, reason = DETOXIFY, "Detoxify, whose files can be downloaded"
    preset, key = scorer_preset(name), scorer_key(name)
    entry = entry_values(preset.entry)
    pin_commits(entry)
    values = {
        "scoring.primary": key,
        "scoring.scorers": {key: entry},
        "posterior.threshold": {key: preset.threshold},
    }
    return Choice("scoring.primary", key, reason), values


def scorer_key(name: str) -> str:
    """Return the key of a published scorer in params.yaml."""
    return name.replace(".", "-")


def _unreachable_part(name: str) -> str | None:
    """Return which server of a Detoxify scorer cannot be reached; None if all can."""
    from toxtrail.backends.assets.download import is_reachable
    from toxtrail.backends.assets.hub_info import HubClient
    from toxtrail.backends.assets.scheme import scheme_module
    from toxtrail.config.scorer_presets import scorer_preset

    entry = scorer_preset(name).entry
    (tokenizer,) = [parse_uri(asset.uri) for _, asset in entry.assets()]
    if not isinstance(tokenizer, HfUri) or HubClient().ask(tokenizer).state != "there":
        return "the Hugging Face Hub"
    checkpoint = parse_uri(entry.uri)
    url = scheme_module(checkpoint).download_url(checkpoint)
    return None if url and is_reachable(url) else "its release on GitHub"


def _write_missing_pins(root: Path) -> None:
    """Resolve the assets that have no pin yet, and write their pins."""
    from toxtrail.backends.assets.resolve_pins import resolve_pins
    from toxtrail.config.edit_params import write_pins
    from toxtrail.execution.factories import make_asset_store

    experiment = Experiment(root)
    sources = experiment.config.sources()
    unpinned = [(key_path, source) for key_path, source in sources if not source.pinned]
    write_pins(root / "params.yaml", resolve_pins(unpinned, make_asset_store(experiment)))


def _refuse_other_settings(experiment: Experiment, request: Request) -> None:
    """Raise if the request has other prompts or another scorer than the experiment."""
    config = experiment.config
    advice = "Remove these options, or give another folder with --dir."
    is_selected = bool(request.prompts or request.column or request.n)
    if is_selected and not _has_prompts_of(experiment, request):
        raise ConfigError(
            f"{experiment.root} has other prompts than --prompts, --column and --n select, and all "
            f"variants of a comparison need the same. {advice}"
        )
    if request.scorer and scorer_key(request.scorer) != config.scoring.primary:
        raise ConfigError(
            f"The scorer of {experiment.root} is {config.scoring.primary}, not {request.scorer}. "
            f"{advice}"
        )


def _has_prompts_of(experiment: Experiment, request: Request) -> bool:
    """Return whether the request selects the prompts of the experiment; of files of texts, only
    their number is compared, since each file may have others as well."""
    from toxtrail.cli._new_prompts import TEXTS_SUBSET
    from toxtrail.datasets.prompt_selection import read_subset
    from toxtrail.execution.factories import make_asset_store

    subsets = experiment.config.prompts.subsets
    if not is_texts(request.base):
        present = {key: subset.plain() for key, subset in subsets.items()}
        return new_prompts(experiment, request).subsets == present
    texts = subsets.get(TEXTS_SUBSET)
    if texts is None or request.n is None:
        return False
    path = make_asset_store(experiment).fetch(texts.uri, texts.sha256).path
    available = len(read_subset(path, TEXTS_SUBSET, texts).candidates)
    return texts.n == (request.n if request.n < available else "all")
