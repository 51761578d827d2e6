"""Training record of a model folder: identity, recipe, loss."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from toxtrail.backends.protocols import Asset, TrainingResult
from toxtrail.config.schema import FinetuneConfig
from toxtrail.pipeline import code_sha256
from toxtrail.provenance.identity import (
    Adapter,
    ModelIdentity,
    TrainingRecord,
    hash_tree,
    tree_sha256,
)
from toxtrail.records.rows import TrainingSplit


def finetuned_identity(
    key: str, parent: ModelIdentity, adapter: Path, record: TrainingRecord
) -> ModelIdentity:
    """Return the parent's card with one more adapter."""
    files = hash_tree(adapter)
    added = Adapter(
        key=key, uri=None, resolved=None, sha256=tree_sha256(files), files=files, training=record
    )
    return ModelIdentity(key=key, base=parent.base, adapters=(*parent.adapters, added))


def training_record(
    config: FinetuneConfig,
    data: Asset,
    parent: ModelIdentity,
    lessons: TrainingSplit,
    trained: TrainingResult,
    environment: Mapping[str, str],
) -> TrainingRecord:
    """Return the recipe of a training, its data and its result."""
    return TrainingRecord(
        data_uri=data.uri,
        data_sha256=data.sha256,
        examples=len(lessons.learned),
        cut_examples=trained.cut_examples,
        recipe=config.plain(),
        parent_fingerprint=parent.fingerprint,
        steps=trained.steps,
        final_loss=trained.losses[-1][1],
        held_out=len(lessons.held_out) or None,
        held_out_loss=trained.held_out_losses[-1][1] if trained.held_out_losses else None,
        code_sha256=code_sha256("finetune"),
        environment=dict(environment),
    )


def loss_csv(trained: TrainingResult) -> str:
    """Return the loss of every step; the held-out column exists only with held-out examples."""
    return "".join(_loss_lines(trained))


def _loss_lines(trained: TrainingResult) -> Iterator[str]:
    training = {step: f"{loss:.6f}" for step, loss in trained.losses}
    held_out = {step: f"{loss:.6f}" for step, loss in trained.held_out_losses}
    yield "step,loss,held_out_loss\n" if held_out else "step,loss\n"
    for step in sorted({*training, *held_out}):
        cells = [str(step), training.get(step, "")] + ([held_out.get(step, "")] if held_out else [])
        yield ",".join(cells) + "\n"
