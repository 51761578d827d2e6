"""Checks of the input files: weights, adapters, classifiers, prompt sources, training data."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from toxtrail.auditing.verify.context import (
    DAMAGE_ERRORS,
    Check,
    Problem,
    Unread,
    VerifyContext,
    absent,
    broken,
    catch_damage,
    checks_of,
    compare_files,
    ok,
    runs_of_stage,
    unread_only,
    weak,
)
from toxtrail.auditing.verify.params import changes, other_model
from toxtrail.backends.checkpoint_files.converted_copies import converted_folder
from toxtrail.backends.openai_api.api_identity import build_api_identity
from toxtrail.config.plugins import (
    BACKENDS,
    SCORERS,
    PluginPin,
    installed_plugins,
    usage_problem,
)
from toxtrail.config.schema import Config
from toxtrail.config.sections import PinnedAsset
from toxtrail.errors import DataError
from toxtrail.experiment import Experiment
from toxtrail.pipeline import StageRun
from toxtrail.preflight.pinned_files import hashes_used_by_results
from toxtrail.provenance.identity import (
    Adapter,
    FileHash,
    ModelIdentity,
    TrainingRecord,
    probe_digest,
    tree_sha256,
)
from toxtrail.provenance.identity_caveats import doubts
from toxtrail.regular_files import files_by_name, leads_out, read_bytes

USED_BY = {SCORERS: ("scorers", "score"), BACKENDS: ("generations", "generate")}
"""Group of plug-ins -> category of its checks, and the stage that uses it."""
LINK_OF_SECTION = {
    "prompts": "prompt set",
    "finetunes": "training data",
    "posterior": "posteriors",
}
"""Section of params.yaml -> category of checks."""
BLOB = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")


def paths_of_weights(evidence: VerifyContext, scope: Sequence[StageRun]) -> Iterator[Path]:
    """Yield every file that the checks below hash, so that they are hashed in parallel."""
    for card in cards(evidence, scope).values():
        for uri, resolved in _addresses(card):
            asset = evidence.assets.present(uri, resolved)
            yield from asset.files if asset else ()
        for _, sha256, _ in card.converted_copies:
            yield converted_folder(evidence.asset_cache, sha256)
    for source in (*_sources(evidence, scope).values(), *_scorer_sources(evidence, scope).values()):
        asset = evidence.assets.present(source.uri, None)
        yield from asset.files if asset else ()


def cards(evidence: VerifyContext, scope: Sequence[StageRun]) -> dict[str, ModelIdentity]:
    """Return the model cards of the scope that are present."""
    cards_by_key: dict[str, ModelIdentity] = {}
    for key in _model_keys(scope):
        with suppress(*DAMAGE_ERRORS):  # its hash is reported with the outputs
            cards_by_key[key] = evidence.store.read_card(key)
    return cards_by_key


def _model_keys(scope: Sequence[StageRun]) -> list[str]:
    return [instance.key for instance in runs_of_stage(scope, "model", "finetune") if instance.key]


def _unread_cards(evidence: VerifyContext, scope: Sequence[StageRun]) -> Iterator[Check]:
    """Yield a check for each card that could not be read; its weights are not verified then."""
    for key in _model_keys(scope):
        try:
            evidence.store.read_card(key)
        except DAMAGE_ERRORS as error:
            name = f"models/{key}/model.json"
            yield from unread_only("model cards", f"{name} (content)", error)


def verify_weights(evidence: VerifyContext, scope: Sequence[StageRun]) -> Iterator[Check]:
    """Verify every weight and adapter file against its card; report missing and extra files."""
    cards_by_key = cards(evidence, scope)
    marks = weak_marks(evidence.config, cards_by_key)
    yield from _unread_cards(evidence, scope)
    for key, card in cards_by_key.items():
        base = card.base
        if card.api is None:
            asset = _verify_asset(evidence, "weights", base.uri, base.resolved, base.files)
            yield from catch_damage("weights", base.uri, asset)
        for uri, sha256, files in card.converted_copies:
            folder = converted_folder(evidence.asset_cache, sha256)
            copy = _verify_converted(evidence, uri, folder, files)
            yield from catch_damage("weights", f"the converted copy of {uri}", copy)
        for adapter in card.adapters:
            name = adapter.uri or f"models/{key}/adapters/{adapter.key}"
            yield from catch_damage("adapters", name, _verify_adapter(evidence, key, adapter))
        yield from _verify_card(evidence, card, cards_by_key)
        for line in marks.get(key, ()):
            yield weak("model cards", f"models/{key}/model.json", line)


def identity_caveats(experiment: Experiment) -> dict[str, list[str]]:
    """Return variant -> caveats of its identity, for identified weights."""
    return weak_marks(experiment.config, identified_cards(experiment))


def identified_cards(experiment: Experiment) -> dict[str, ModelIdentity]:
    """Return the readable model cards of variants; `verify` reports a damaged one."""
    store, cards_by_key = experiment.store, {}
    for key in experiment.config.variants:
        if (store.model_dir(key) / "model.json").is_file():
            with suppress(DataError):
                cards_by_key[key] = store.read_card(key)
    return cards_by_key


def weak_marks(config: Config, cards_by_key: Mapping[str, ModelIdentity]) -> dict[str, list[str]]:
    """Return the caveats of each variant's lineage."""
    parents = {key: variant_config.parent for key, variant_config in config.variants.items()}
    return doubts(cards_by_key, parents)


def verify_sources(evidence: VerifyContext, scope: Sequence[StageRun]) -> Iterator[Check]:
    """Verify prompt files, training data and classifiers against their pins in params.yaml."""
    used: dict[str, str] = {}
    with suppress(*DAMAGE_ERRORS):  # a damaged manifest or card is reported with its file
        used = dict(hashes_used_by_results(evidence.config, evidence.store))
    for key_path, source in _sources(evidence, scope).items():
        link = LINK_OF_SECTION[key_path.partition(".")[0]]
        checks = _verify_pinned(evidence, link, key_path, source, used.get(key_path))
        yield from catch_damage(link, f"{key_path}: {source.uri}", checks)
    for key_path, source in _scorer_sources(evidence, scope).items():
        checks = _verify_pinned(evidence, "scorers", key_path, source, None)
        yield from catch_damage("scorers", f"{key_path}: {source.uri}", checks)
    yield from _verify_plugins(evidence.config, scope)


def _verify_plugins(config: Config, scope: Sequence[StageRun]) -> Iterator[Check]:
    """Verify that the installed plug-ins are the pinned ones that made the rows."""
    for key_path, group, kind, options in config.plugin_entries():
        pin: PluginPin | None = getattr(options, "plugin", None)
        link, stage = USED_BY[group]
        if pin is None or not runs_of_stage(scope, stage):
            continue
        name = f"{key_path}: plug-in {pin.label}"
        problem = usage_problem(key_path, group, kind, options)
        if problem is None:
            yield ok(link, name)
        elif any(plugin.name == kind for plugin in installed_plugins(group)):
            yield weak(link, name, problem)
        else:
            yield absent(link, name, problem)


def _sources(evidence: VerifyContext, scope: Sequence[StageRun]) -> dict[str, PinnedAsset]:
    names = {instance.name for instance in scope}
    return {
        key_path: source
        for key_path, source in evidence.config.sources()
        if (key_path.startswith("prompts.") and "prompts" in names)
        or (key_path.startswith("finetunes.") and f"finetune@{key_path.split('.')[1]}" in names)
        or (key_path.startswith("posterior.") and runs_of_stage(scope, "posterior"))
    }


def _scorer_sources(evidence: VerifyContext, scope: Sequence[StageRun]) -> dict[str, PinnedAsset]:
    if not runs_of_stage(scope, "score"):
        return {}
    return {p: s for p, s in evidence.config.sources() if p.startswith("scoring.")}


def _addresses(card: ModelIdentity) -> Iterator[tuple[str, str | None]]:
    if card.api is None:
        yield card.base.uri, card.base.resolved
    for adapter in card.adapters:
        if adapter.uri:
            yield adapter.uri, adapter.resolved


def _verify_asset(
    evidence: VerifyContext, link: str, uri: str, resolved: str | None, recorded: Iterable[FileHash]
) -> Iterator[Check]:
    asset = evidence.assets.present(uri, resolved)
    if asset is None:
        why = evidence.assets.why_not_used(uri) or "it is not on this machine"
        yield absent(link, uri, f"{why}; only its recorded hashes are known")
        return
    present = {p.relative_to(asset.root).as_posix(): p for p in asset.files}
    yield from checks_of(link, uri, _file_problems(evidence, present, recorded))


def _verify_converted(
    evidence: VerifyContext, uri: str, folder: Path, recorded: Sequence[FileHash]
) -> Iterator[Check]:
    name = f"the converted copy of {uri}"
    if not folder.is_dir():
        yield absent("weights", name, "it is not on this machine")
        return
    inside = [file.path for file in recorded if not leads_out(file.path)]
    present = {n: folder / n for n in inside if (folder / n).is_file()}
    yield from checks_of("weights", name, _file_problems(evidence, present, recorded))


def _verify_adapter(evidence: VerifyContext, key: str, adapter: Adapter) -> Iterator[Check]:
    if adapter.uri is not None:
        yield from _verify_asset(evidence, "adapters", adapter.uri, adapter.resolved, adapter.files)
        claim = "that it was trained on the data its card names is its uploader's claim"
        yield weak("adapters", adapter.uri, claim)
        return
    name = f"models/{key}/adapters/{adapter.key}"
    folder = evidence.path(name)
    if not folder.is_dir():
        yield absent(
            "adapters",
            name,
            "it does not exist here. Restore it with `dvc checkout` or `dvc pull`.",
        )
        return
    problems = _file_problems(evidence, files_by_name(folder), adapter.files)
    yield from checks_of("adapters", name, problems)


def _file_problems(
    evidence: VerifyContext, present: Mapping[str, Path], files: Iterable[FileHash]
) -> list[Problem]:
    recorded = {file.path: file.sha256 for file in files}
    return [
        item if isinstance(item, Unread) else f"{name}: {item}"
        for name, problems in compare_files(evidence.digests, present, recorded, "the model card")
        for item in problems
    ]


def _verify_card(
    evidence: VerifyContext, card: ModelIdentity, cards_by_key: dict[str, ModelIdentity]
) -> Iterator[Check]:
    if card.probe is None and card.has_weights:
        yield weak("model cards", card.key, "no probe: it was never checked that its weights load")
    problems = list(card_problems(evidence.config, card, cards_by_key))
    yield from checks_of("model cards", f"models/{card.key}/model.json", problems)


def verify_cards(evidence: VerifyContext, scope: Sequence[StageRun]) -> Iterator[Check]:
    """Check the model cards of the scope without their weights."""
    cards_by_key = cards(evidence, scope)
    for card in cards_by_key.values():
        name = f"models/{card.key}/model.json"
        problems = list(card_problems(evidence.config, card, cards_by_key))
        yield from checks_of("model cards", name, problems)
        if card.probe is None and card.has_weights:
            yield weak("model cards", name, "no probe: it was never checked that its weights load")


def _api_problems(card: ModelIdentity) -> Iterator[str]:
    """Yield where the card of a name on a server states weights, or another name."""
    assert card.api is not None
    if card != build_api_identity(card.key, card.api.model):
        yield "it is the card of a name on a server, and states more than the name"


def card_problems(
    config: Config, card: ModelIdentity, cards_by_key: dict[str, ModelIdentity]
) -> Iterator[str]:
    """Yield where a card contradicts itself, params.yaml or its parent."""
    yield from other_model(config, card)
    if card.api is not None:
        yield from _api_problems(card)
    elif not card.base.files:
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
        yield from _training_problems(config, card, training, cards_by_key)


def _training_problems(
    config: Config,
    card: ModelIdentity,
    training: TrainingRecord,
    cards_by_key: dict[str, ModelIdentity],
) -> Iterator[str]:
    recipe = config.finetunes.get(card.key)
    if recipe is None:
        yield "params.yaml has no fine-tune of this name"
        return
    for key_path, was, now in changes(f"finetunes.{card.key}", training.recipe, recipe.plain()):
        yield f"{key_path}: it was trained with {was}, params.yaml has {now}"
    parent = cards_by_key.get(recipe.parent)
    if parent is None:
        return
    if training.parent_fingerprint != parent.fingerprint:
        yield f"it was trained on other weights than {recipe.parent} has now"
    if card.base != parent.base or card.adapters[:-1] != parent.adapters:
        yield f"its base or earlier adapters are not those of its parent {recipe.parent}"


def _verify_pinned(
    evidence: VerifyContext, link: str, key_path: str, source: PinnedAsset, used: str | None
) -> Iterator[Check]:
    """Verify a source against its sha256 in params.yaml; without one, against the inputs of a
    result, or against the blob names in the Hub cache."""
    name = f"{key_path}: {source.uri}"
    asset = evidence.assets.present(source.uri, None)
    if asset is None:
        why = evidence.assets.why_not_used(source.uri)
        yield absent(link, name, why or "it is not on this machine")
        return
    digests = {p: evidence.digests.of(p) for p in asset.files}
    files = tuple(
        FileHash(path=p.relative_to(asset.root).as_posix(), sha256=d.sha256, size=d.size)
        for p, d in digests.items()
        if d
    )
    single = len(files) == 1 and asset.root == asset.files[0].parent
    hashes = {tree_sha256(files), *((files[0].sha256,) if single else ())}
    expected = source.sha256 or used
    if expected is None:
        yield _verify_hub_names(evidence, link, name, asset.files)
    elif expected in hashes:
        yield ok(link, name)
    else:
        yield broken(
            link,
            name,
            f"it was changed: sha256 {files[0].sha256 if single else tree_sha256(files)}, "
            f"{'pinned' if source.sha256 else 'used'} {expected} ({asset.root}).",
        )


def _verify_hub_names(
    evidence: VerifyContext, link: str, name: str, files: Iterable[Path]
) -> Check:
    """Verify files by their blob names in the Hub cache: SHA-256 (large files) or git's SHA-1."""
    all_named = True
    for path in files:
        blob, digest = path.resolve(), evidence.digests.of(path)
        content_hash = digest.sha256 if digest else ""
        if BLOB.fullmatch(blob.name) and len(blob.name) == 40:
            content_hash = git_sha1(read_bytes(blob))
        all_named &= bool(BLOB.fullmatch(blob.name))
        if all_named and content_hash != blob.name:
            return broken(link, name, f"{path.name} was changed after it was fetched ({blob})")
    detail = "its expected hash is not recorded. Run `toxtrail pin`."
    return ok(link, name) if all_named else weak(link, name, detail)


def git_sha1(content: bytes) -> str:
    """Return git's hash of a file's content; security does not depend on it alone."""
    head = b"blob %d\x00" % len(content)
    return hashlib.sha1(head + content, usedforsecurity=False).hexdigest()
