"""Build an experiment from a base and fine-tunes of it, for `toxtrail init` and `toxtrail quick`.

Every setting that the user did not give is returned as a Choice. A new experiment is complete in
memory before its folder is written.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, NamedTuple

from toxtrail.cli._new_prompts import (
    Choice,
    NewPrompts,
    prompts_of_file,
    prompts_of_package,
    prompts_of_texts,
)
from toxtrail.config.asset_uris import FileUri, HfUri, parse_uri
from toxtrail.errors import BackendError, ConfigError
from toxtrail.experiment import Experiment
from toxtrail.regular_files import read_bytes, read_text

if TYPE_CHECKING:
    from toxtrail.auditing.lineage.parent_claims import ParentClaimCheck
    from toxtrail.backends.assets.inspect_weights import WeightsCandidate
    from toxtrail.config.schema import Config, ModelConfig
    from toxtrail.datasets.generated_texts.common import GeneratedText

PRESET = "empty"
EMBEDDED_SCORER = "jigsaw-bilstm"
"""Scorer of the preset; its files are in packages, so that it needs no hub."""
DETOXIFY = "detoxify-unbiased"
"""Default scorer where its files can be downloaded."""


class Request(NamedTuple):
    """A base, its fine-tunes, and the settings that the user gave."""

    base: str
    tuned: Sequence[str]
    prompts: Path | None = None
    column: str | None = None
    scorer: str | None = None
    n: int | None = None

    @classmethod
    def of(cls, base: str, tuned: Sequence[str], *settings: Any) -> Request:
        """Return the request with paths in place of file: URIs, which start in the experiment."""
        first, *others = (address.removeprefix("file:") for address in (base, *tuned))
        return cls(first, tuple(others), *settings)


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
    base = _find_model(config, _pinned_uri_of(experiment, request.base))
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
        key = _find_model(config, _pinned_uri_of(experiment, address))
        if key is None:
            key, added = add_model(root, address, base)
            choices += added
            git.commit_file(root, "params.yaml", f"Add {address}")
        tuned.append(key)
    return Extended(family, tuned, choices)


def refuse_mixed_kinds(request: Request) -> None:
    """Raise unless all models have weights, or all are files of texts.

    Raises:
        ConfigError: both kinds, the same model twice, or options that files of texts do not have.
    """
    kinds = {address: _is_texts(address) for address in (request.base, *request.tuned)}
    if len({_path_or_name(address) for address in kinds}) < 1 + len(request.tuned):
        raise ConfigError("The same model is given twice. Give a base and other models.")
    if len(set(kinds.values())) > 1:
        texts = next(address for address, is_texts in kinds.items() if is_texts)
        raise ConfigError(
            f"{texts} is a file of texts, and the other model has weights. Settings of texts that "
            "exist already are not known, so the two are not comparable. Give two files of texts, "
            "or weights for both; docs/texts.md has the alternative (allow_mismatch)."
        )
    if kinds[request.base] and (request.prompts or request.column):
        raise ConfigError(
            "--prompts and --column are not used with files of texts: the prompts are those in "
            "the files. Remove them."
        )


def add_model(root: Path, address: str, parent: str | None) -> tuple[str, list[Choice]]:
    """Add a base (without a parent) or a fine-tune to params.yaml; return its key and the choices.

    Raises:
        ConfigError, DataError, BackendError: it cannot be used; params.yaml is unchanged.
    """
    add = _add_texts if _is_texts(address) else _add_weights
    return add(Experiment(root), address, parent)


def new_prompts(experiment: Experiment, request: Request) -> NewPrompts:
    """Return the prompts of the request."""
    from toxtrail.execution.factories import make_asset_store

    if request.prompts is not None:
        return prompts_of_file(request.prompts, request.column, request.n)
    if _is_texts(request.base):
        others = [_read_texts(address) for address in request.tuned]
        return prompts_of_texts(_read_texts(request.base), others, request.n)
    return prompts_of_package(experiment.config, make_asset_store(experiment), request.n)


def free_key(name: str, config: Config) -> str:
    """Return the name, or the name with a number, that no entry of params.yaml has."""
    names = {*config.models, *config.finetunes, *config.variants, *config.families}
    numbered = (f"{name}-{number}" for number in range(2, len(names) + 3))
    return next(key for key in (name, *numbered) if key not in names)


def _add_weights(
    experiment: Experiment, address: str, parent: str | None
) -> tuple[str, list[Choice]]:
    from toxtrail.auditing.lineage.parent_claims import propose_entry, slug
    from toxtrail.cli.variants import with_variant
    from toxtrail.config.asset_uris import api_model_name
    from toxtrail.config.edit_params import replace_file

    if api_model_name(address) is not None:
        raise ConfigError(
            f"{address} is a name on a server: create an experiment with `toxtrail init DIR "
            f"--preset empty`, and add it with `toxtrail variants add {address} --url URL`."
        )
    candidate, origin = _examine(experiment, address, parent)
    _refuse_unusable(experiment, address, candidate, origin)
    key = free_key(slug(candidate.name), experiment.config)
    family = experiment.config.variants[parent].family if parent else f"{key}-family"
    wishes = {"key": key, "family": family, "role": None if parent else "base"}
    proposal = propose_entry(candidate, experiment.config, origin.parent, wishes)
    path = experiment.root / "params.yaml"
    replace_file(path, with_variant(experiment, read_text(path), proposal, candidate, origin))
    kind = "LoRA adapter" if candidate.kind == "adapter" else candidate.kind
    choices = [Choice(f"variants.{key}", proposal.role, f"{kind} {candidate.uri}")]
    if parent:
        reason = (origin.agreed or origin.weak)[0]
        choices.append(Choice(f"variants.{key}.parent", parent, reason))
    return key, choices


def _examine(
    experiment: Experiment, address: str, parent: str | None
) -> tuple[WeightsCandidate, ParentClaimCheck]:
    from toxtrail.cli.variants import examine_candidate

    try:
        return examine_candidate(experiment, address, parent, base=parent is None)
    except BackendError as error:
        if ":" in address or Path(address).expanduser().exists():
            raise
        raise BackendError(f"{error} There is also no file or folder {address}.") from error


def _refuse_unusable(
    experiment: Experiment, address: str, candidate: WeightsCandidate, origin: ParentClaimCheck
) -> None:
    """Raise unless the weights can be used as a base, or as a fine-tune of their parent."""
    parent = origin.parent
    if parent is None and candidate.kind == "adapter":
        bases = ", ".join({claim.base: None for claim in candidate.claims}) or "not stated"
        raise ConfigError(
            f"{address} is an adapter, so it cannot be the base. Give the weights that it was "
            f"trained on (according to its metadata: {bases}) as the base, and the adapter as the "
            "fine-tune."
        )
    if problems := [*candidate.unusable, *origin.contradictions]:
        advice = (
            "Give the model that it was tuned from as the base. If its metadata is wrong, add it "
            "to an experiment with `toxtrail variants add --force`."
        )
        last = [advice] if origin.contradictions else []
        raise ConfigError("\n  ".join([f"{address} cannot be used:", *problems, *last]))
    base = experiment.config.models[parent] if parent else None
    if base is None or candidate.kind != "adapter":
        return
    _refuse_other_base(experiment, base, candidate.uri)


def _refuse_other_base(experiment: Experiment, base: ModelConfig, adapter_uri: str) -> None:
    """Raise unless a local adapter fits a local base and changes it. On the Hub, this is checked
    when the weights are downloaded."""
    from toxtrail.backends.assets import default_cache
    from toxtrail.backends.huggingface.weights.resolve import HuggingFaceWeights
    from toxtrail.execution.factories import make_asset_store
    from toxtrail.execution.progress import progress

    adapter = parse_uri(adapter_uri)
    if not isinstance(parse_uri(base.uri), FileUri) or not isinstance(adapter, FileUri):
        return
    assets = make_asset_store(experiment, [adapter.path])
    weights = HuggingFaceWeights(assets, default_cache(), progress())
    weights.describe_adapter("adapter", adapter_uri, None, weights.describe(base.uri, base.sha256))


def _add_texts(
    experiment: Experiment, address: str, parent: str | None
) -> tuple[str, list[Choice]]:
    from toxtrail.auditing.lineage.parent_claims import slug
    from toxtrail.cli.texts import GivenTexts, with_texts
    from toxtrail.config.edit_params import replace_file
    from toxtrail.datasets.generated_texts import examine_texts

    path, config = Path(address).expanduser(), experiment.config
    given = GivenTexts.of(experiment, path, examine_texts(path))
    counts, limit = given.match.counts if given.match else None, config.generation.max_error_share
    if counts and counts.missing_texts > limit * counts.prompts * config.generation.samples:
        raise ConfigError(
            f"{address} has no text for {counts.missing_texts:,} of the "
            f"{counts.prompts * config.generation.samples:,} rows of the experiment; "
            f"generation.max_error_share allows {limit:.1%}. Give another folder with --dir, or "
            "raise it in params.yaml."
        )
    key = free_key(slug(path.stem), config)
    family = config.variants[parent].family if parent else f"{key}-family"
    fields = {"family": family, "role": "community" if parent else "base"}
    fields |= {"parent": parent} if parent else {}
    params = experiment.root / "params.yaml"
    replace_file(params, with_texts(experiment, params, key, fields, given)[1])
    reader = ", ".join(f"{name} {value}" for name, value in given.reader.plain().items())
    choices = [Choice(f"variants.{key}", fields["role"], f"texts of {path.name}: {reader}")]
    if parent:
        choices.append(Choice(f"variants.{key}.parent", parent, "given; texts do not confirm it"))
    return key, choices


def _write_settings(root: Path, prompts: NewPrompts, request: Request) -> list[Choice]:
    """Write prompts, scorer and precision into params.yaml; return the choices."""
    from toxtrail.backends.default_precision import default_precision
    from toxtrail.config.edit_params import replace_file, replace_values
    from toxtrail.config.load import parse_config
    from toxtrail.config.yaml_text import parse_yaml

    scorer, values = _scorer_settings(request.scorer)
    values |= {"prompts.subsets": prompts.subsets, **prompts.settings}
    choices = [*prompts.choices, scorer]
    if not _is_texts(request.base):
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
    if not _is_texts(request.base):
        present = {key: subset.plain() for key, subset in subsets.items()}
        return new_prompts(experiment, request).subsets == present
    texts = subsets.get(TEXTS_SUBSET)
    if texts is None or request.n is None:
        return False
    path = make_asset_store(experiment).fetch(texts.uri, texts.sha256).path
    available = len(read_subset(path, TEXTS_SUBSET, texts).candidates)
    return texts.n == (request.n if request.n < available else "all")


def _pinned_uri_of(experiment: Experiment, address: str) -> str:
    """Return the URI of an address, with the commit of its branch or tag if it names one.

    Raises:
        ConfigError: the address is malformed.
        BackendError: the Hub does not give the commit.
    """
    from toxtrail.backends.assets.hub_info import HubClient
    from toxtrail.cli.variants import uri_of

    uri = uri_of(experiment, address)
    parsed = parse_uri(uri)
    if not isinstance(parsed, HfUri) or parsed.revision is None or parsed.is_immutable:
        return uri
    answer = HubClient().ask(parsed)
    if answer.facts is None:
        raise BackendError(f"{uri}: {answer.message}.")
    return str(replace(parsed, revision=answer.facts.commit))


def _find_model(config: Config, uri: str) -> str | None:
    """Return the variant of these weights or texts."""
    return next(
        (
            key
            for key, model in config.models.items()
            if key in config.variants and _is_same_source((model.adapter or model).uri, uri)
        ),
        None,
    )


def _is_same_source(pinned: str, uri: str) -> bool:
    """Return whether a pinned URI is of the same source as one that may have no revision."""
    known, other = parse_uri(pinned), parse_uri(uri)
    if not isinstance(known, HfUri) or not isinstance(other, HfUri):
        return pinned == uri
    return (
        known.repo.lower() == other.repo.lower()
        and other.revision in (None, known.revision)
        and other.path in (None, known.path)
    )


def _path_or_name(address: str) -> str:
    path = Path(address).expanduser()
    return str(path.resolve()) if path.exists() else address


def _is_texts(address: str) -> bool:
    path = Path(address).expanduser()
    return path.is_file() and path.suffix.lower() != ".gguf"


def _read_texts(address: str) -> list[GeneratedText]:
    from toxtrail.datasets.generated_texts import examine_texts, read_generated_texts

    path = Path(address).expanduser()
    return read_generated_texts(path, examine_texts(path))
