"""Fine-tune: train a LoRA adapter on a parent.

reads   models/<parent>/, the training data that `finetunes.<key>.data` names
writes  models/<key>/model.json, loss.csv, adapters/<key>/ (and copies of the parent's own adapters)
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from toxtrail.artifacts import Store
from toxtrail.backends.base import Asset, Assets, Prover, Trained, Tuner
from toxtrail.config import FinetuneConfig
from toxtrail.errors import DataError
from toxtrail.identity import (
    Adapter,
    Input,
    Manifest,
    ModelCard,
    TrainingRecord,
    hash_tree,
    tree_sha256,
)
from toxtrail.pipeline import code_sha256, manifest_of
from toxtrail.readers import clean_text, read_rows
from toxtrail.records import Example
from toxtrail.rowstore import alone

FIELDS: Mapping[str, tuple[str, ...]] = {
    "instruction": ("instruction", "prompt", "question"),
    "context": ("context", "input"),
    "response": ("response", "output", "answer"),
}
"""What an example needs, and the names by which data sets call it (Dolly's first, then
Alpaca's)."""


def read_examples(path: Path) -> list[Example]:
    """Instruction, context and response of every row.

    Raises:
        DataError: no rows, or a row without an instruction or a response; the row is named.
    """
    examples = [_example(path, number, row) for number, row in read_rows(path)]
    if not examples:
        raise DataError(f"{path.name} holds no examples: there is nothing to learn.")
    return examples


def _example(path: Path, number: int, row: Mapping[str, Any]) -> Example:
    values = {
        name: clean_text(path, number, next((row[n] for n in names if n in row), None)).strip()
        for name, names in FIELDS.items()
    }
    for name in ("instruction", "response"):
        if not values[name]:
            raise DataError(
                f"{path.name}, row {number + 1}: no {name}. A row needs one of "
                f"{', '.join(FIELDS['instruction'])} and one of {', '.join(FIELDS['response'])}."
            )
    return Example(**values)


def tuned_card(key: str, parent: ModelCard, adapter: Path, record: TrainingRecord) -> ModelCard:
    """The parent's card with one adapter more."""
    files = hash_tree(adapter, _files(adapter))
    added = Adapter(
        key=key, uri=None, resolved=None, sha256=tree_sha256(files), files=files, training=record
    )
    return ModelCard(key=key, base=parent.base, adapters=(*parent.adapters, added))


def run(
    store: Store,
    key: str,
    config: FinetuneConfig,
    assets: Assets,
    tuner: Tuner,
    prover: Prover,
    environment: Mapping[str, str],
) -> Trained:
    """Read, train, load what was written to prove it, write the card."""
    parent, data = store.read_card(config.parent), assets.fetch(config.data.uri, config.data.sha256)
    examples = read_examples(data.path)
    manifest = _plan(store, key, config, data, environment)
    scratch = store.scratch(manifest, {})
    with alone(scratch), store.draft_folder(store.model(key)) as draft:
        adapter = draft / "adapters" / key
        adapter.mkdir(parents=True)
        _copy_adapters(store.model(config.parent), draft)
        trained = tuner.tune(
            parent, store.model(config.parent), examples, config, adapter, scratch, manifest
        )
        record = _record(config, data, parent, len(examples), trained, environment)
        card = tuned_card(key, parent, adapter, record)
        proved = card.model_copy(update={"probe": prover.prove(card, draft)})
        store.write_json(draft / "model.json", proved.to_json())
        store.write_text(draft / "loss.csv", "".join(_loss_lines(trained.losses)))
    shutil.rmtree(scratch, ignore_errors=True)
    return trained


def _plan(
    store: Store, key: str, config: FinetuneConfig, data: Asset, environment: Mapping[str, str]
) -> Manifest:
    """What decides which adapter comes out, and so whether a checkpoint may be continued."""
    inputs = {
        "parent": store.input(store.model(config.parent) / "model.json"),
        "data": Input(path=data.uri, sha256=data.sha256, manifest=None),
    }
    return manifest_of(
        "finetune",
        key,
        {"finetune": config.plain()},
        inputs,
        environment,
        store.read_card(config.parent),
    )


def _record(
    config: FinetuneConfig,
    data: Asset,
    parent: ModelCard,
    examples: int,
    trained: Trained,
    environment: Mapping[str, str],
) -> TrainingRecord:
    return TrainingRecord(
        data_uri=data.uri,
        data_sha256=data.sha256,
        examples=examples,
        cut_examples=trained.cut_examples,
        recipe=config.plain(),
        parent_fingerprint=parent.fingerprint,
        steps=trained.steps,
        final_loss=trained.losses[-1][1],
        code_sha256=code_sha256("finetune"),
        environment=dict(environment),
    )


def _copy_adapters(parent: Path, draft: Path) -> None:
    """A fine-tune of a fine-tune holds its whole chain, so its folder can travel alone."""
    if (parent / "adapters").is_dir():
        shutil.copytree(parent / "adapters", draft / "adapters", dirs_exist_ok=True)


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def _loss_lines(losses: Sequence[tuple[int, float]]) -> Iterator[str]:
    yield "step,loss\n"
    for step, loss in losses:
        yield f"{step},{loss:.6f}\n"
