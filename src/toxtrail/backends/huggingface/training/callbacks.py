"""What happens at each training step: progress, a sealed checkpoint, a look at the loss.

Imports transformers at once (callbacks must be subclasses): import this module where it is used.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers import TrainerCallback

from toxtrail.backends.huggingface.training.checkpoints import seal
from toxtrail.backends.protocols import Advance
from toxtrail.errors import BackendError
from toxtrail.storage.atomic_writes import require_room

if TYPE_CHECKING:
    from transformers import TrainerControl, TrainerState, TrainingArguments


class Watch(TrainerCallback):
    """Advances a bar, seals checkpoints, and stops a training that has diverged."""

    def __init__(self, advance: Advance, scratch: Path, name: str) -> None:
        self._advance = advance
        self._scratch = scratch
        self._name = name
        self._shown = 0

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Show the steps that an earlier, killed training has done."""
        self._show(state.global_step)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **more: Any
    ) -> None:
        """Show one more step; before a checkpoint is written, ask whether there is room for it."""
        self._show(state.global_step)
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
                "Nothing was kept. Lower learning_rate, or choose base_precision float32."
            )

    def _show(self, step: int) -> None:
        self._advance(step - self._shown)
        self._shown = step


def checkpoint_size(model: Any) -> int:
    """Bytes of a checkpoint, at most: what is trained, Adam's two moments of it, and the rest.

    torch ends the process if the disk is full while it writes one.
    """
    trained: int = sum(p.numel() * p.element_size() for p in model.parameters() if p.requires_grad)
    return 3 * trained + 2**20


HELD_OUT = "held_out_loss"
"""In the Trainer's history, which its checkpoints keep."""


class HeldOut(TrainerCallback):
    """Notes the loss on examples that are not learned: before the first step, after each epoch and
    at the end."""

    def __init__(self, loss: Callable[[], float], name: str) -> None:
        self._loss = loss
        self._name = name

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Note what the parent makes of them; a resumed training has it in its history."""
        if state.global_step == 0:
            self._note(state)

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Note it after an epoch."""
        self._note(state)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Note it at the end."""
        self._note(state)

    def _note(self, state: TrainerState) -> None:
        if any(HELD_OUT in h and h["step"] == state.global_step for h in state.log_history):
            return
        loss = self._loss()
        if not math.isfinite(loss):
            raise BackendError(
                f"{self._name}: the loss on the held-out examples is {loss} at step "
                f"{state.global_step}. Nothing was kept. Lower learning_rate, or choose "
                "base_precision float32."
            )
        state.log_history.append({HELD_OUT: loss, "step": state.global_step})
