"""Resolve a file at any path to its result."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from toxtrail.auditing.lineage.context import AuditContext, AuditTarget
from toxtrail.auditing.lineage.lineage import LineageNode
from toxtrail.auditing.lineage.lock_history import RecordedLocation, uncached_folders
from toxtrail.auditing.lineage.resolve_path import resolve_path
from toxtrail.auditing.verify.hash_cache import Digest, hash_file
from toxtrail.backends import git
from toxtrail.backends.dvc import cache_folder
from toxtrail.errors import DataError
from toxtrail.provenance.embedded_manifest import read_embedded_manifest
from toxtrail.provenance.identity import Adapter, BaseWeights, Manifest, ModelIdentity

OTHER_NOW = (
    "the output of its stage has changed or does not exist here: check out the commit named "
    "above to see its lineage"
)


def resolve_file(reference: str, scene: AuditContext) -> AuditTarget | None:
    """Resolve a file or folder; None if it does not exist.

    Raises:
        ConfigError: it cannot be read, or is a pipe or device.
        DataError: it is neither recorded nor contains a manifest.
    """
    path = None if reference in ("", ".", "..") else resolve_path(reference, search_folders(scene))
    if path is None:
        return None
    path = path.resolve()
    return _of_folder(path, scene) if path.is_dir() else target_from_file(path, scene)


def search_folders(scene: AuditContext) -> list[Path]:
    """Return the folders in which relative paths are searched."""
    return [scene.start_folder, *([scene.store.root] if scene.store else [])]


def _of_folder(path: Path, scene: AuditContext) -> AuditTarget:
    """Resolve an adapter's folder, or an output folder, by its contents."""
    inside = [path / name for name in ("adapter_model.safetensors", "summary.json")]
    inner_file = next((p for p in inside if p.is_file()), None)
    if inner_file:
        return target_from_file(inner_file, scene)
    card = path / "model.json"
    if card.is_file() and scene.store and path.parent == scene.store.root / "models":
        model_card = scene.store.read_card(path.name)
        return AuditTarget(
            "file",
            _card_link(card, model_card, scene),
            (_model_stage(model_card.key, scene),),
            card,
        )
    raise DataError(
        f"{path} is a folder that contains neither an adapter (adapter_model.safetensors) nor a "
        "summary.json nor a model of this experiment. Name a file in it."
    )


def target_from_file(path: Path, scene: AuditContext) -> AuditTarget:
    """Resolve a file by its manifest, a model card that lists it, or its recorded locations.

    Raises:
        DataError: none of the three applies.
    """
    manifest, digest = read_embedded_manifest(path), hash_file(path)
    locations = scene.recorded_locations(digest)
    if manifest is not None:
        link = scene.chain.of_file(path)
        writer = producing_stage(path, scene) or next(iter(stage_run_of(manifest)))
        targets = tuple(instance.name for instance in scene.instances if instance.name == writer)
        return AuditTarget(
            "file", add_recorded_locations(link, locations), targets, path, locations
        )
    if card := _card_with(digest, scene):
        link = scene.chain.of_adapter(path, card)._replace(sha256=digest.sha256)
        return AuditTarget(
            "file",
            add_recorded_locations(link, locations),
            (_model_stage(card.key, scene),),
            path,
            locations,
        )
    if locations:
        return _from_location(path, digest, locations, scene)
    raise DataError(
        f"{path.name} carries no manifest of toxtrail, and its content "
        f"(sha256 {digest.sha256[:12]}...) is neither in dvc.lock at any of "
        f"{len(scene.locks)} commits nor in any of {len(scene.runs)} MLflow runs: it is a file of "
        f"another format, of another experiment, or it was changed.{_unsearched(scene)}"
    )


def _unsearched(scene: AuditContext) -> str:
    """Return which records could not be searched."""
    if scene.store is None:
        return ""
    gaps = []
    if git.is_shallow(scene.store.root):
        gaps.append("this clone is shallow, so older commits were not searched")
    if missing := uncached_folders(scene.locks, cache_folder(scene.store.root)):
        gaps.append(
            f"DVC's cache lacks the lists of {missing} folders, so files in them cannot be "
            "identified by hash (`dvc fetch --all-commits`)"
        )
    return f" But {'; '.join(gaps)}." if gaps else ""


def _from_location(
    path: Path, digest: Digest, locations: Sequence[RecordedLocation], scene: AuditContext
) -> AuditTarget:
    """Resolve a file without a manifest whose content is recorded here."""
    instances_by_name = {instance.name: instance for instance in scene.instances}
    location = next(
        (s for s in locations if s.stage in instances_by_name and _is_present(s, digest, scene)),
        None,
    )
    link = LineageNode("file", str(path), digest.sha256, "matches")
    if location is None or scene.store is None:
        weak = (OTHER_NOW,) if any(s.stage for s in locations) else ()
        link = link._replace(standing="recorded", weak=weak)
        return AuditTarget(
            "file", add_recorded_locations(link, locations), (), path, tuple(locations)
        )
    instance = instances_by_name[location.stage]
    if instance.stage.name in ("model", "finetune") and instance.key:
        below = [_card_link(path, scene.store.read_card(instance.key), scene)]
    else:
        outs = [scene.store.root / out for out in instance.writes]
        files = [p / "summary.json" if p.is_dir() else p for p in outs]
        below = [scene.chain.of_file(p) for p in files if p.is_file() and read_embedded_manifest(p)]
    link = link._replace(made_from=tuple(below))
    return AuditTarget(
        "file", add_recorded_locations(link, locations), (instance.name,), path, tuple(locations)
    )


def _is_present(location: RecordedLocation, digest: Digest, scene: AuditContext) -> bool:
    """Return whether the recorded location still has this content."""
    path = scene.store.root / location.path if scene.store else None
    return path is not None and path.is_file() and hash_file(path).md5 == digest.md5


def _card_link(path: Path, card: ModelIdentity, scene: AuditContext) -> LineageNode:
    link = scene.chain.of_adapter(path, card)
    facts = (("fingerprint", card.fingerprint),)
    return LineageNode(f"model@{card.key}", str(path), None, "recorded", facts, made_from=(link,))


def _card_with(digest: Digest, scene: AuditContext) -> ModelIdentity | None:
    """Return the card whose last adapter, or whose weights, include this file."""
    for card in scene.cards:
        weights: Adapter | BaseWeights = card.adapters[-1] if card.adapters else card.base
        if any(file.sha256 == digest.sha256 for file in (*weights.files, *weights.converted)):
            return card
    return None


def _model_stage(key: str, scene: AuditContext) -> str:
    stage = "finetune" if scene.config and key in scene.config.finetunes else "model"
    return f"{stage}@{key}"


def producing_stage(path: Path, scene: AuditContext) -> str | None:
    """Return the stage run whose output contains this path."""
    if scene.store is None or not path.is_relative_to(scene.store.root):
        return None
    name = path.relative_to(scene.store.root).as_posix()
    inside = (
        instance.name
        for instance in scene.instances
        for out in instance.outs
        if name == out or name.startswith(f"{out}/")
    )
    return next(inside, None)


def add_recorded_locations(link: LineageNode, locations: Iterable[RecordedLocation]) -> LineageNode:
    """Return the link with the recorded locations first."""
    facts = tuple(("found", _location_text(location)) for location in locations)
    return link._replace(facts=(*facts, *link.facts))


def _location_text(location: RecordedLocation) -> str:
    when = f" ({location.date}, {location.subject})" if location.date else ""
    stage = f", stage {location.stage}" if location.stage else ""
    return f"{location.where}{when}: {location.path}{stage}"


def stage_run_of(manifest: Manifest) -> tuple[str, ...]:
    """Return the stage run that created a file."""
    return (manifest.kind if manifest.key is None else f"{manifest.kind}@{manifest.key}",)
