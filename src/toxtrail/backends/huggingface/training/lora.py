"""LoRA fine-tuning with transformers' Trainer: resumable, bitwise reproducible on one machine."""

from __future__ import annotations

import math
import os
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from toxtrail.backends.huggingface.training.checkpoints import last_complete
from toxtrail.backends.huggingface.training.examples import (
    IGNORE_INDEX,
    EncodedExample,
    collate,
    encode_examples,
    refuse_unknown_tokens,
)
from toxtrail.backends.huggingface.weights.adapters import add_lora, write_adapter
from toxtrail.backends.huggingface.weights.load import VerifiedFiles, merged_base, verify_files
from toxtrail.backends.huggingface.weights.pretrained import embedding_rows, load_base
from toxtrail.backends.huggingface.weights.resolve import HuggingFaceWeights
from toxtrail.backends.protocols import Progress, TrainingResult
from toxtrail.backends.silence import silence_libraries
from toxtrail.config.schema import FinetuneConfig
from toxtrail.errors import BackendError
from toxtrail.provenance.identity import Manifest, ModelIdentity
from toxtrail.records.rows import TrainingSplit

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel, Trainer, TrainingArguments

MAX_GRAD_NORM = 1.0
"""Gradients are clipped to this norm: the Trainer's default, as in the reference experiment."""
_OPTIMIZERS = {"adamw_torch": "adamw_torch", "adamw_8bit": "adamw_bnb_8bit", "sgd": "sgd"}


class HuggingFaceTuner:
    """Trainer of LoRA adapters."""

    def __init__(
        self, weights: HuggingFaceWeights, device: str, checkpoint_steps: int, progress: Progress
    ) -> None:
        self._weights = weights
        self._device = device
        self._checkpoint_steps = checkpoint_steps
        self._progress = progress

    def tune(
        self, parent: ModelIdentity, parent_folder: Path, lessons: TrainingSplit,
        recipe: FinetuneConfig, out: Path, scratch: Path, manifest: Manifest,
    ) -> TrainingResult:  # fmt: skip
        """Train on the parent with its adapters merged, and write the new adapter to `out`.

        Args:
            parent_folder: models/<parent>, with its adapters in adapters/<key>.
            out: empty folder for adapter_model.safetensors and adapter_config.json.
            manifest: how the adapter is created; stored in the file.
            scratch: folder for checkpoints; training resumes from the last complete one.

        Raises:
            ConfigError: a LoRA target that the parent does not have, or no chat template.
            DataError: nothing to learn.
            BackendError: the recipe needs a GPU, or the loss is not finite.
        """
        require_trainable(recipe, self._device, has_adapters=bool(parent.adapters))
        files = verify_files(parent, parent_folder, self._weights)
        tokenizer = files.tokenizer()
        encoded = encode_examples(lessons.learned, tokenizer, recipe)
        held_out = encode_examples(lessons.held_out, tokenizer, recipe) if lessons.held_out else []
        pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else 0
        with deterministic(recipe.seed, self._device):
            model = add_lora(
                self._base(files, recipe),
                recipe.lora,
                quantized=recipe.base_precision == "4bit",
            )
            rows = embedding_rows(model)
            refuse_unknown_tokens([*encoded, *held_out], rows, recipe)
            pad = pad if pad < rows else 0  # any token id works: it is masked
            trainer = _trainer(model, encoded, pad, self._arguments(recipe, scratch))
            if held_out:
                _add_held_out_loss(trainer, model, held_out, pad, recipe.batch_size)
            self._train(trainer, parent.key, total_steps(recipe, len(encoded)), scratch)
        write_adapter(model, parent.base.uri, out, manifest)
        return TrainingResult(
            trainer.state.global_step,
            _history(trainer, "loss"),
            sum(example.cut for example in encoded),
            _history(trainer, "held_out_loss"),
        )

    def _base(self, files: VerifiedFiles, recipe: FinetuneConfig) -> PreTrainedModel:
        if recipe.base_precision == "4bit":
            return load_base(files.base, files.name, "bfloat16", self._device, nf4_config())
        return merged_base(files, files.adapters, recipe.base_precision, self._device)

    def _arguments(self, recipe: FinetuneConfig, scratch: Path) -> TrainingArguments:
        from transformers import TrainingArguments

        arguments = TrainingArguments(
            output_dir=str(scratch),
            num_train_epochs=recipe.epochs or 1.0,
            max_steps=recipe.max_steps or -1,
            per_device_train_batch_size=recipe.batch_size,
            gradient_accumulation_steps=recipe.accumulation,
            learning_rate=recipe.learning_rate,
            lr_scheduler_type=recipe.schedule,
            warmup_steps=recipe.warmup_steps,
            weight_decay=recipe.weight_decay,
            max_grad_norm=MAX_GRAD_NORM,
            optim=_OPTIMIZERS[recipe.optimizer],
            seed=recipe.seed,
            use_cpu=self._device == "cpu",
            logging_steps=1,
            logging_nan_inf_filter=False,
            save_strategy="steps",
            save_steps=self._checkpoint_steps,
            save_total_limit=2,
            report_to="none",
            disable_tqdm=True,
            remove_unused_columns=False,
            dataloader_pin_memory=False,
        )
        # Use one GPU: DataParallel over several would change the batch size.
        arguments._n_gpu = min(1, arguments.n_gpu)
        return arguments

    def _train(self, trainer: Trainer, parent: str, total: int, scratch: Path) -> None:
        from transformers.trainer_callback import PrinterCallback

        from toxtrail.backends.huggingface.training.callbacks import TrainingMonitor

        label = f"fine-tune {parent}"
        checkpoint = last_complete(scratch)
        trainer.remove_callback(PrinterCallback)
        with self._progress.bar(label, total, "steps") as advance, silence_libraries():
            trainer.add_callback(TrainingMonitor(advance, scratch, label))
            trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)


def _history(trainer: Trainer, name: str) -> tuple[tuple[int, float], ...]:
    """List (step, value) of an entry of the Trainer's history."""
    return tuple(
        (int(entry["step"]), entry[name]) for entry in trainer.state.log_history if name in entry
    )


def _add_held_out_loss(
    trainer: Trainer, model: PeftModel, examples: Sequence[EncodedExample], pad: int, batch: int
) -> None:
    """Record the loss on held-out examples besides the training loss."""
    from toxtrail.backends.huggingface.training.callbacks import HeldOutLoss

    loss = partial(mean_loss, model, examples, pad, batch)
    trainer.add_callback(HeldOutLoss(loss, "fine-tune"))


def mean_loss(
    model: PeftModel, examples: Sequence[EncodedExample], pad: int, batch_size: int
) -> float:
    """Compute the mean loss of all learned tokens, in nats per token, without changing the model or
    any random generator."""
    import torch

    training, total, tokens = model.training, 0.0, 0
    model.eval()
    with torch.no_grad():
        for start in range(0, len(examples), batch_size):
            batch = collate(examples[start : start + batch_size], pad)
            learned = int((batch["labels"][:, 1:] != IGNORE_INDEX).sum())
            on_device = {name: tensor.to(model.device) for name, tensor in batch.items()}
            total += float(model(**on_device).loss) * learned
            tokens += learned
    model.train(training)
    return total / tokens


def require_trainable(recipe: FinetuneConfig, device: str, has_adapters: bool) -> None:
    """Raise, before anything is loaded, if the recipe cannot run on this machine."""
    needs = [
        f'{field}: "{value}"'
        for field, value, special in (
            ("base_precision", recipe.base_precision, "4bit"),
            ("optimizer", recipe.optimizer, "adamw_8bit"),
        )
        if value == special
    ]
    if needs and (not device.startswith("cuda") or find_spec("bitsandbytes") is None):
        raise BackendError(
            f"{' and '.join(needs)} needs an NVIDIA GPU and the package bitsandbytes; the device "
            f"is {device}. Use base_precision: bfloat16 and optimizer: adamw_torch, or another "
            "machine."
        )
    if recipe.base_precision == "4bit" and has_adapters:
        raise BackendError(
            f'base_precision: "4bit" on {recipe.parent}, which has adapters: they cannot be merged '
            "into 4-bit weights without loss. Use bfloat16."
        )


def nf4_config() -> object:
    """Return a 4-bit NormalFloat configuration (Dettmers et al. 2023, arXiv:2305.14314)."""
    import torch
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(  # type: ignore[no-untyped-call]
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.bfloat16
    )


@contextmanager
def deterministic(seed: int, device: str) -> Iterator[None]:
    """Seed every generator and force deterministic kernels inside the block; restore both after."""
    import numpy as np
    import torch
    from transformers import set_seed

    strict = torch.are_deterministic_algorithms_enabled()
    python, numbers = random.getstate(), np.random.get_state()
    if device.startswith("cuda"):
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    forked = [torch.cuda.current_device()] if device.startswith("cuda") else []
    with torch.random.fork_rng(devices=forked):
        set_seed(seed)
        torch.use_deterministic_algorithms(True)
        try:
            yield
        finally:
            torch.use_deterministic_algorithms(strict)
            random.setstate(python)
            np.random.set_state(numbers)


def total_steps(recipe: FinetuneConfig, examples: int) -> int:
    """Count the optimiser steps of the complete training, as the Trainer does."""
    if recipe.max_steps is not None:
        return recipe.max_steps
    batches = math.ceil(examples / recipe.batch_size)
    return math.ceil((recipe.epochs or 1.0) * math.ceil(batches / recipe.accumulation))


def _trainer(
    model: PeftModel, examples: list[EncodedExample], pad: int, arguments: TrainingArguments
) -> Trainer:
    from transformers import Trainer

    with silence_libraries():
        return Trainer(
            model=model,
            args=arguments,
            train_dataset=examples,
            data_collator=partial(collate, pad=pad),
        )
