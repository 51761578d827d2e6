"""Training callbacks: progress, sealed checkpoints, checks of the loss.

Imports transformers at once (callbacks must be subclasses): import this module where it is used.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers import TrainerCallback

from toxtrail.backends.huggingface.training.checkpoints import seal
from toxtrail.backends.protocols import ProgressCallback
from toxtrail.errors import BackendError
from toxtrail.storage.atomic_writes import require_room

if TYPE_CHECKING:
    from transformers import TrainerControl, TrainerState, TrainingArguments


class TrainingMonitor(TrainerCallback):
    """Callback that advances a bar, seals checkpoints, and stops a training that diverges."""

    def __init__(self, advance: ProgressCallback, scratch: Path, name: str) -> None:
        self._advance = advance
        self._scratch = scratch
        self._name = name
        self._displayed = 0

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Show the steps that an earlier, interrupted training completed."""
        self._advance_to(state.global_step)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **more: Any
    ) -> None:
        """Show one more step; before a checkpoint is written, check the free disk space."""
        self._advance_to(state.global_step)
        if control.should_save:
            self._scratch.mkdir(parents=True, exist_ok=True)
            require_room(self._scratch, checkpoint_size(more["model"]))

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Seal the checkpoint that was just written."""
        seal(self._scratch / f"checkpoint-{state.global_step}")

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl,
        logs: dict[str, float] | None = None, **_: Any,
    ) -> None:  # fmt: skip
        """Stop if the loss is not finite."""
        loss = (logs or {}).get("loss", 0.0)
        if not math.isfinite(loss):
            raise BackendError(
                f"{self._name}: the training loss is {loss} at step {state.global_step}. "
                "Nothing was saved. Lower learning_rate, or choose base_precision float32."
            )

    def _advance_to(self, step: int) -> None:
        self._advance(step - self._displayed)
        self._displayed = step


def checkpoint_size(model: Any) -> int:
    """Return an upper limit on a checkpoint's bytes: trained weights, Adam's two moments, the rest.

    torch aborts the process if the disk is full while it writes a checkpoint.
    """
    trained: int = sum(p.numel() * p.element_size() for p in model.parameters() if p.requires_grad)
    return 3 * trained + 2**20


HELD_OUT = "held_out_loss"
"""Key in the Trainer's history, which its checkpoints include."""


class HeldOutLoss(TrainerCallback):
    """Callback that records the held-out loss before the first step, after each epoch and at the
    end."""

    def __init__(self, loss: Callable[[], float], name: str) -> None:
        self._loss = loss
        self._name = name

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Record the parent's loss; a resumed training has it in its history."""
        if state.global_step == 0:
            self._record(state)

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Record the loss after an epoch."""
        self._record(state)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Record the loss at the end."""
        self._record(state)

    def _record(self, state: TrainerState) -> None:
        if any(
            HELD_OUT in entry and entry["step"] == state.global_step for entry in state.log_history
        ):
            return
        loss = self._loss()
        if not math.isfinite(loss):
            raise BackendError(
                f"{self._name}: the loss on the held-out examples is {loss} at step "
                f"{state.global_step}. Nothing was saved. Lower learning_rate, or choose "
                "base_precision float32."
            )
        state.log_history.append({HELD_OUT: loss, "step": state.global_step})
