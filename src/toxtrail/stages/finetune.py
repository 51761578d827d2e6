"""Fine-tune: train a LoRA adapter on a parent.

reads   models/<parent>/, the training data that `finetunes.<key>.data` names
writes  models/<key>/model.json, loss.csv, data_card.json, adapters/<key>/ (and copies of the
        parent's own adapters)
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from toxtrail.backends.huggingface.training.record import (
    finetuned_identity,
    loss_csv,
    training_record,
)
from toxtrail.backends.protocols import Asset, Assets, Finetuner, TrainingResult, WeightsVerifier
from toxtrail.config.schema import FinetuneConfig
from toxtrail.datasets.instruction_data import (
    InstructionDataset,
    data_card,
    read_training_data,
    split_training_data,
)
from toxtrail.pipeline import manifest_of
from toxtrail.provenance.identity import InputFile, LogitProbe, Manifest, ModelIdentity
from toxtrail.records.rows import TrainingSplit
from toxtrail.storage.artifacts import ArtifactStore
from toxtrail.storage.row_journal import exclusive_lock


def run(
    store: ArtifactStore,
    key: str,
    config: FinetuneConfig,
    assets: Assets,
    tuner: Finetuner,
    verifier: WeightsVerifier,
    environment: Mapping[str, str],
) -> TrainingResult:
    """Read the data, train, verify that the result loads, write the card."""
    parent = store.read_card(config.parent)
    data, examples, split = _read_data(assets, key, config)
    manifest = _manifest(store, key, config, data, environment)
    with _scratch(store, manifest) as scratch, store.atomic_folder(store.model_dir(key)) as draft:
        trained = _train(store, config, split, manifest, tuner, draft, scratch)
        record = training_record(config, data, parent, split, trained, environment)
        card = finetuned_identity(key, parent, draft / "adapters" / key, record)
        _write_model(store, draft, card, verifier.prove(card, draft), trained)
        store.write_json(draft / "data_card.json", data_card(examples, split, config.data, data))
    return trained


def _read_data(
    assets: Assets, key: str, config: FinetuneConfig
) -> tuple[Asset, InstructionDataset, TrainingSplit]:
    data = assets.fetch(config.data.uri, config.data.sha256)
    examples = read_training_data(data.path, key, config)
    return data, examples, split_training_data(key, examples, config)


@contextmanager
def _scratch(store: ArtifactStore, manifest: Manifest) -> Iterator[Path]:
    """Lock the folder of the training's checkpoints; delete it after success."""
    scratch = store.scratch_dir(manifest, {})
    with exclusive_lock(scratch):
        yield scratch
    shutil.rmtree(scratch, ignore_errors=True)


def _train(
    store: ArtifactStore,
    config: FinetuneConfig,
    split: TrainingSplit,
    manifest: Manifest,
    tuner: Finetuner,
    draft: Path,
    scratch: Path,
) -> TrainingResult:
    """Train into the draft, next to copies of the parent's adapters, which make it complete."""
    card, parent = store.read_card(config.parent), store.model_dir(config.parent)
    adapter = draft / "adapters" / str(manifest.key)
    adapter.mkdir(parents=True)
    if (parent / "adapters").is_dir():
        shutil.copytree(parent / "adapters", draft / "adapters", dirs_exist_ok=True)
    return tuner.tune(card, parent, split, config, adapter, scratch, manifest)


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
    parent = store.read_card(config.parent)
    return manifest_of("finetune", key, {"finetune": config.plain()}, inputs, environment, parent)


def _write_model(
    store: ArtifactStore,
    draft: Path,
    card: ModelIdentity,
    probe: LogitProbe,
    trained: TrainingResult,
) -> None:
    store.write_json(draft / "model.json", card.model_copy(update={"probe": probe}).to_json())
    store.write_text(draft / "loss.csv", loss_csv(trained))
