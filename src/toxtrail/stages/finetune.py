"""Fine-tune: train a LoRA adapter on a parent.

reads   models/<parent>/, the training data that `finetunes.<key>.data` names
writes  models/<key>/model.json, loss.csv, data_card.json, adapters/<key>/ (and copies of the
        parent's own adapters)
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

from toxtrail.backends.protocols import Asset, Assets, Finetuner, TrainingResult, WeightsVerifier
from toxtrail.config.schema import FinetuneConfig
from toxtrail.datasets.instruction_data import (
    InstructionDataset,
    data_card,
    read_instructions,
    split_held_out,
)
from toxtrail.errors import ConfigError, DataError
from toxtrail.pipeline import code_sha256, manifest_of
from toxtrail.provenance.identity import (
    Adapter,
    InputFile,
    Manifest,
    ModelIdentity,
    TrainingRecord,
    hash_tree,
    tree_sha256,
)
from toxtrail.records.rows import TrainingSplit
from toxtrail.storage.artifacts import ArtifactStore
from toxtrail.storage.row_journal import exclusive_lock


def finetuned_identity(
    key: str, parent: ModelIdentity, adapter: Path, record: TrainingRecord
) -> ModelIdentity:
    """Return the parent's card with one more adapter."""
    files = hash_tree(adapter, _files(adapter))
    added = Adapter(
        key=key, uri=None, resolved=None, sha256=tree_sha256(files), files=files, training=record
    )
    return ModelIdentity(key=key, base=parent.base, adapters=(*parent.adapters, added))


def run(
    store: ArtifactStore,
    key: str,
    config: FinetuneConfig,
    assets: Assets,
    tuner: Finetuner,
    prover: WeightsVerifier,
    environment: Mapping[str, str],
) -> TrainingResult:
    """Read the data, train, verify that the result loads, write the card."""
    parent, data = store.read_card(config.parent), assets.fetch(config.data.uri, config.data.sha256)
    instructions = read_training_data(data.path, key, config)
    lessons = split_training_data(key, instructions, config)
    manifest = _manifest(store, key, config, data, environment)
    scratch = store.scratch_dir(manifest, {})
    with exclusive_lock(scratch), store.atomic_folder(store.model_dir(key)) as draft:
        adapter = draft / "adapters" / key
        adapter.mkdir(parents=True)
        _copy_adapters(store.model_dir(config.parent), draft)
        trained = tuner.tune(
            parent, store.model_dir(config.parent), lessons, config, adapter, scratch, manifest
        )
        record = _training_record(config, data, parent, lessons, trained, environment)
        card = finetuned_identity(key, parent, adapter, record)
        proved = card.model_copy(update={"probe": prover.prove(card, draft)})
        store.write_json(draft / "model.json", proved.to_json())
        store.write_text(draft / "loss.csv", "".join(_loss_lines(trained)))
        store.write_json(
            draft / "data_card.json", data_card(instructions, lessons, config.data, data)
        )
    shutil.rmtree(scratch, ignore_errors=True)
    return trained


def read_training_data(path: Path, key: str, config: FinetuneConfig) -> InstructionDataset:
    """Read the training data of a fine-tune; an error names the fine-tune."""
    try:
        return read_instructions(path, config.data.delimiter)
    except (ConfigError, DataError) as error:
        raise type(error)(f"finetunes.{key}.data: {error}") from None


def split_training_data(
    key: str, instructions: InstructionDataset, config: FinetuneConfig
) -> TrainingSplit:
    """Split the examples into training and held-out; an error names the fine-tune."""
    try:
        return split_held_out(instructions.examples, config.data, config.seed)
    except ConfigError as error:
        raise ConfigError(f"finetunes.{key}.{error}") from None


def _manifest(
    store: ArtifactStore,
    key: str,
    config: FinetuneConfig,
    data: Asset,
    environment: Mapping[str, str],
) -> Manifest:
    """Return the manifest that identifies the training, so that only its checkpoint is resumed."""
    inputs = {
        "parent": store.describe_input(store.model_dir(config.parent) / "model.json"),
        "data": InputFile(path=data.uri, sha256=data.sha256, manifest=None),
    }
    return manifest_of(
        "finetune",
        key,
        {"finetune": config.plain()},
        inputs,
        environment,
        store.read_card(config.parent),
    )


def _training_record(
    config: FinetuneConfig,
    data: Asset,
    parent: ModelIdentity,
    lessons: TrainingSplit,
    trained: TrainingResult,
    environment: Mapping[str, str],
) -> TrainingRecord:
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


def _copy_adapters(parent: Path, draft: Path) -> None:
    """Copy the parent's adapters, so that the folder is complete without the parent's."""
    if (parent / "adapters").is_dir():
        shutil.copytree(parent / "adapters", draft / "adapters", dirs_exist_ok=True)


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def _loss_lines(trained: TrainingResult) -> Iterator[str]:
    """Yield a line for each step; the held-out column exists only with held-out examples."""
    training = {step: f"{loss:.6f}" for step, loss in trained.losses}
    held_out = {step: f"{loss:.6f}" for step, loss in trained.held_out_losses}
    yield "step,loss,held_out_loss\n" if held_out else "step,loss\n"
    for step in sorted({*training, *held_out}):
        cells = [str(step), training.get(step, "")] + ([held_out.get(step, "")] if held_out else [])
        yield ",".join(cells) + "\n"
