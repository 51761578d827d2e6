"""The models of a new experiment: a base and fine-tunes of it, or files of texts."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from toxtrail.cli._new_prompts import Choice
from toxtrail.config.asset_uris import FileUri, HfUri, parse_uri
from toxtrail.errors import BackendError, ConfigError
from toxtrail.experiment import Experiment
from toxtrail.regular_files import read_text

if TYPE_CHECKING:
    from toxtrail.auditing.lineage.parent_claims import ParentClaimCheck
    from toxtrail.backends.assets.inspect_weights import WeightsCandidate
    from toxtrail.backends.assets.store import AssetStore
    from toxtrail.config.schema import Config, ModelConfig
    from toxtrail.datasets.generated_texts.common import GeneratedText


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


def refuse_mixed_kinds(request: Request) -> None:
    """Raise unless all models have weights, or all are files of texts.

    Raises:
        ConfigError: both kinds, the same model twice, or options that files of texts do not have.
    """
    kinds = {address: is_texts(address) for address in (request.base, *request.tuned)}
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
    add = _add_texts if is_texts(address) else _add_weights
    return add(Experiment(root), address, parent)


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
    if parent is None:
        return
    base = experiment.config.models[parent]
    if candidate.kind == "adapter":
        _refuse_other_base(experiment, base, candidate.uri)
    else:
        _refuse_same_content(address, candidate.sha256, base)


def _refuse_same_content(address: str, sha256: str | None, base: ModelConfig) -> None:
    if sha256 is not None and sha256 == base.sha256:
        raise ConfigError(f"{address} has the same content as the base, {base.uri} ({sha256}).")


def _refuse_other_base(experiment: Experiment, base: ModelConfig, adapter_uri: str) -> None:
    """Raise unless an adapter fits its base and changes it. An adapter on the Hub is downloaded; of
    a base on the Hub, config.json alone is read, and a base without one (GGUF) is checked when its
    weights are downloaded."""
    from toxtrail.backends.assets import default_cache
    from toxtrail.backends.huggingface.weights.resolve import HuggingFaceWeights
    from toxtrail.execution.factories import make_asset_store
    from toxtrail.execution.progress import progress

    adapter, base_address = parse_uri(adapter_uri), parse_uri(base.uri)
    local = [adapter.path] if isinstance(adapter, FileUri) else []
    assets = make_asset_store(experiment, local)
    weights = HuggingFaceWeights(assets, default_cache(), progress())
    if isinstance(base_address, FileUri):
        described = weights.describe(base.uri, base.sha256)
        weights.describe_adapter("adapter", adapter_uri, None, described)
    elif isinstance(base_address, HfUri):
        with tempfile.TemporaryDirectory() as name:
            if folder := _config_folder(base_address, assets, Path(name)):
                weights.require_fitting_adapter(adapter_uri, folder)


def _config_folder(address: HfUri, assets: AssetStore, new: Path) -> Path | None:
    """Return a folder with config.json of a model on the Hub; None if the model has none.

    Args:
        new: empty folder to download it to; unused if the Hub does not answer and it is cached.

    Raises:
        BackendError: the model has a config.json that cannot be read.
    """
    from toxtrail.backends.assets.hub_info import HubClient

    hub = HubClient()
    facts = hub.ask(address).facts
    if facts is None:  # the model was examined in the cache, too
        cached = assets.present(str(address), None)
        return cached.root if cached and (cached.root / "config.json").is_file() else None
    name = f"{address.path}/config.json" if address.path else "config.json"
    if name not in facts.files:
        return None
    config = hub.json_file(facts.name, facts.commit, name)
    if config is None:
        raise BackendError(f"{address}: {name} cannot be read. Try again, or check the file.")
    (new / "config.json").write_text(json.dumps(config), "utf-8")
    return new


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
    if parent:
        _refuse_same_content(address, given.sha256, config.models[parent])
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


def pinned_uri_of(experiment: Experiment, address: str) -> str:
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


def find_model(config: Config, uri: str) -> str | None:
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


def is_texts(address: str) -> bool:
    path = Path(address).expanduser()
    return path.is_file() and path.suffix.lower() != ".gguf"


def read_texts(address: str) -> list[GeneratedText]:
    from toxtrail.datasets.generated_texts import examine_texts, read_generated_texts

    path = Path(address).expanduser()
    return read_generated_texts(path, examine_texts(path))
