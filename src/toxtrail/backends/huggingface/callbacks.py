"""What happens at each training step: progress, a sealed checkpoint, a look at the loss.

Imports transformers at once (callbacks must be subclasses): import this module where it is used.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers import TrainerCallback

from toxtrail.backends.base import Advance
from toxtrail.backends.huggingface.checkpoints import seal
from toxtrail.errors import BackendError

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
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Show one more step."""
        self._show(state.global_step)

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
