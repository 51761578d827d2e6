"""The files behind the numbers: weights, adapters, classifiers, prompt sources, training data."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from toxtrail.audit.verify.context import (
    DAMAGE,
    Check,
    Evidence,
    Problem,
    absent,
    broken,
    guarded,
    judged,
    of_stage,
    ok,
    problem,
    unread_only,
    weak,
)
from toxtrail.audit.verify.params import changes, other_model
from toxtrail.backends.huggingface.weights.gguf import converted_folder
from toxtrail.config.schema import Config, Source
from toxtrail.pipeline import Instance
from toxtrail.preflight.pinned_files import used_hashes
from toxtrail.provenance.identity import (
    Adapter,
    FileHash,
    ModelCard,
    TrainingRecord,
    probe_digest,
    tree_sha256,
)
from toxtrail.provenance.identity_caveats import doubts
from toxtrail.regular_files import files_below, leads_out, read_bytes

LINK_OF_SECTION = {
    "prompts": "prompt set",
    "finetunes": "training data",
    "posterior": "posteriors",
}
"""Of sources."""
BLOB = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")


def paths_of_weights(evidence: Evidence, scope: Sequence[Instance]) -> Iterator[Path]:
    """Every file that the checks below will hash, so that all are hashed side by side."""
    for card in cards(evidence, scope).values():
        for uri, resolved in _addresses(card):
            found = evidence.assets.present(uri, resolved)
            yield from found.files if found else ()
        if card.base.converted:
            yield converted_folder(evidence.asset_cache, card.base.sha256)
    for source in (*_sources(evidence, scope).values(), *_scorer_sources(evidence, scope).values()):
        found = evidence.assets.present(source.uri, None)
        yield from found.files if found else ()


def cards(evidence: Evidence, scope: Sequence[Instance]) -> dict[str, ModelCard]:
    """The model cards of the scope that are here."""
    found: dict[str, ModelCard] = {}
    for key in _keys(scope):
        with suppress(*DAMAGE):  # its hash is reported with the outputs
            found[key] = evidence.store.read_card(key)
    return found


def _keys(scope: Sequence[Instance]) -> list[str]:
    return [one.key for one in of_stage(scope, "model", "finetune") if one.key]


def _unread_cards(evidence: Evidence, scope: Sequence[Instance]) -> Iterator[Check]:
    """Each card that could not be read: neither were its weights verified then."""
    for key in _keys(scope):
        try:
            evidence.store.read_card(key)
        except DAMAGE as error:
            name = f"models/{key}/model.json"
            yield from unread_only("model cards", f"{name} (content)", error)


def verify_weights(evidence: Evidence, scope: Sequence[Instance]) -> Iterator[Check]:
    """Each weight and adapter file is the one on the card; no file is missing, none is new."""
    known = cards(evidence, scope)
    marks = weak_marks(evidence.config, known)
    yield from _unread_cards(evidence, scope)
    for key, card in known.items():
        base = card.base
        asset = _asset(evidence, "weights", base.uri, base.resolved, base.files)
        yield from guarded("weights", base.uri, asset)
        if base.converted:
            folder = converted_folder(evidence.asset_cache, base.sha256)
            copy = _copy(evidence, base.uri, folder, base.converted)
            yield from guarded("weights", f"the converted copy of {base.uri}", copy)
        for adapter in card.adapters:
            own = adapter.uri or f"models/{key}/adapters/{adapter.key}"
            yield from guarded("adapters", own, _adapter(evidence, key, adapter))
        yield from _card(evidence, card, known)
        for line in marks.get(key, ()):
            yield weak("model cards", f"models/{key}/model.json", line)


def weak_marks(config: Config, known: Mapping[str, ModelCard]) -> dict[str, list[str]]:
    """Variant -> why less is sure of it than params.yaml says."""
    parents = {key: own.parent for key, own in config.variants.items()}
    return doubts(known, parents)


def verify_sources(evidence: Evidence, scope: Sequence[Instance]) -> Iterator[Check]:
    """Prompt files, training data and classifiers are as params.yaml pins them."""
    used: dict[str, str] = {}
    with suppress(*DAMAGE):  # a damaged manifest or card is reported with its file
        used = dict(used_hashes(evidence.config, evidence.store))
    for place, source in _sources(evidence, scope).items():
        link = LINK_OF_SECTION[place.partition(".")[0]]
        checks = _pinned(evidence, link, place, source, used.get(place))
        yield from guarded(link, f"{place}: {source.uri}", checks)
    for place, source in _scorer_sources(evidence, scope).items():
        checks = _pinned(evidence, "scorers", place, source, None)
        yield from guarded("scorers", f"{place}: {source.uri}", checks)


def _sources(evidence: Evidence, scope: Sequence[Instance]) -> dict[str, Source]:
    names = {one.name for one in scope}
    return {
        place: source
        for place, source in evidence.config.sources()
        if (place.startswith("prompts.") and "prompts" in names)
        or (place.startswith("finetunes.") and f"finetune@{place.split('.')[1]}" in names)
        or (place.startswith("posterior.") and of_stage(scope, "posterior"))
    }


def _scorer_sources(evidence: Evidence, scope: Sequence[Instance]) -> dict[str, Source]:
    if not of_stage(scope, "score"):
        return {}
    return {p: s for p, s in evidence.config.sources() if p.startswith("scoring.")}


def _addresses(card: ModelCard) -> Iterator[tuple[str, str | None]]:
    yield card.base.uri, card.base.resolved
    for adapter in card.adapters:
        if adapter.uri:
            yield adapter.uri, adapter.resolved


def _asset(
    evidence: Evidence, link: str, uri: str, resolved: str | None, recorded: Iterable[FileHash]
) -> Iterator[Check]:
    found = evidence.assets.present(uri, resolved)
    if found is None:
        why = evidence.assets.why_not_used(uri) or "it is not on this machine"
        yield absent(link, uri, f"{why}; its recorded hashes stand alone")
        return
    present = {p.relative_to(found.root).as_posix(): p for p in found.files}
    yield from judged(link, uri, list(_odd(evidence, present, recorded)))


def _copy(
    evidence: Evidence, uri: str, folder: Path, recorded: Iterable[FileHash]
) -> Iterator[Check]:
    name = f"the converted copy of {uri}"
    if not folder.is_dir():
        yield absent("weights", name, "it is not on this machine")
        return
    wanted = {file.path: file for file in recorded}
    inside = [name for name in wanted if not leads_out(name)]
    present = {n: folder / n for n in inside if (folder / n).is_file()}
    yield from judged("weights", name, list(_odd(evidence, present, wanted.values())))


def _adapter(evidence: Evidence, key: str, adapter: Adapter) -> Iterator[Check]:
    if adapter.uri is not None:
        yield from _asset(evidence, "adapters", adapter.uri, adapter.resolved, adapter.files)
        claim = "that it was trained on the data its card names is its uploader's claim"
        yield weak("adapters", adapter.uri, claim)
        return
    name = f"models/{key}/adapters/{adapter.key}"
    folder = evidence.path(name)
    if not folder.is_dir():
        yield absent("adapters", name, "it is not here. `dvc checkout` or `dvc pull` brings it.")
        return
    present = {p.relative_to(folder).as_posix(): p for p in files_below(folder)}
    yield from judged("adapters", name, list(_odd(evidence, present, adapter.files)))


def _odd(
    evidence: Evidence, present: dict[str, Path], recorded: Iterable[FileHash]
) -> Iterator[Problem]:
    wanted = {file.path: file for file in recorded}
    for name in sorted(wanted.keys() | present.keys()):
        try:
            digest = evidence.digests.of(present[name]) if name in present else None
        except (OSError, MemoryError) as error:
            yield problem(error, f"{name} cannot be read")
            continue
        if name not in wanted:
            yield f"{name} is an extra file that the card does not list"
        elif digest is None:
            yield f"{name} is missing"
        elif digest.sha256 != wanted[name].sha256:
            yield f"{name} was changed: sha256 {digest.sha256}, the card has {wanted[name].sha256}"


def _card(evidence: Evidence, card: ModelCard, known: dict[str, ModelCard]) -> Iterator[Check]:
    if card.probe is None:
        yield weak("model cards", card.key, "no probe: nothing shows that its weights ever loaded")
    problems = list(card_problems(evidence.config, card, known))
    yield from judged("model cards", f"models/{card.key}/model.json", problems)


def card_problems(config: Config, card: ModelCard, known: dict[str, ModelCard]) -> Iterator[str]:
    """Where a card contradicts itself, params.yaml or its parent."""
    yield from other_model(config, card)
    if not card.base.files:
        yield "it lists no weight files"
    elif card.base.sha256 not in (tree_sha256(card.base.files), card.base.files[0].sha256):
        yield "its pin is not the hash of the files that it lists"
    for adapter in card.adapters:
        if adapter.sha256 != tree_sha256(adapter.files):
            yield f"adapter {adapter.key}: its pin is not the hash of its files"
    probe = card.probe
    if probe and probe.digest != probe_digest(probe.texts, probe.dtype, probe.top_tokens):
        yield "the digest of its probe is not that of the tokens beside it"
    training = card.adapters[-1].training if card.adapters else None
    if training:
        yield from _training(config, card, training, known)


def _training(
    config: Config, card: ModelCard, training: TrainingRecord, known: dict[str, ModelCard]
) -> Iterator[str]:
    recipe = config.finetunes.get(card.key)
    if recipe is None:
        yield "params.yaml has no fine-tune of this name"
        return
    for place, was, now in changes(f"finetunes.{card.key}", training.recipe, recipe.plain()):
        yield f"{place}: it was trained with {was}, params.yaml has {now}"
    parent = known.get(recipe.parent)
    if parent is None:
        return
    if training.parent_fingerprint != parent.fingerprint:
        yield f"it was trained on other weights than {recipe.parent} has now"
    if card.base != parent.base or card.adapters[:-1] != parent.adapters:
        yield f"its base or earlier adapters are not those of its parent {recipe.parent}"


def _pinned(
    evidence: Evidence, link: str, place: str, source: Source, used: str | None
) -> Iterator[Check]:
    """A source against its sha256 in params.yaml; without one, against what a result was made from,
    or against the names that the hub gave its files.
    """
    name = f"{place}: {source.uri}"
    found = evidence.assets.present(source.uri, None)
    if found is None:
        why = evidence.assets.why_not_used(source.uri)
        yield absent(link, name, why or "it is not on this machine")
        return
    digests = {p: evidence.digests.of(p) for p in found.files}
    files = tuple(
        FileHash(path=p.relative_to(found.root).as_posix(), sha256=d.sha256, size=d.size)
        for p, d in digests.items()
        if d
    )
    single = len(files) == 1 and found.root == found.files[0].parent
    hashes = {tree_sha256(files), *((files[0].sha256,) if single else ())}
    wanted = source.sha256 or used
    if wanted is None:
        yield _named_by_hub(evidence, link, name, found.files)
    elif wanted in hashes:
        yield ok(link, name)
    else:
        yield broken(
            link,
            name,
            f"it was changed: sha256 {files[0].sha256 if single else tree_sha256(files)}, "
            f"{'pinned' if source.sha256 else 'used'} {wanted} ({found.root}).",
        )


def _named_by_hub(evidence: Evidence, link: str, name: str, files: Iterable[Path]) -> Check:
    """The hub's cache calls each file by its content: large ones by SHA-256, others as git does."""
    known = True
    for path in files:
        blob, digest = path.resolve(), evidence.digests.of(path)
        found = digest.sha256 if digest else ""
        if BLOB.fullmatch(blob.name) and len(blob.name) == 40:
            found = git_sha1(read_bytes(blob))
        known &= bool(BLOB.fullmatch(blob.name))
        if known and found != blob.name:
            return broken(link, name, f"{path.name} was changed after it was fetched ({blob})")
    detail = "nothing here says what its bytes must hash to. Run `toxtrail pin`."
    return ok(link, name) if known else weak(link, name, detail)


def git_sha1(content: bytes) -> str:
    """Git's name for a file's content; no security rests on it alone."""
    head = b"blob %d\x00" % len(content)
    return hashlib.sha1(head + content, usedforsecurity=False).hexdigest()
