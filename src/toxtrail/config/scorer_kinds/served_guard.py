"""Guard models on an OpenAI-compatible server."""

from __future__ import annotations

from typing import ClassVar, Literal

from toxtrail.config.scorer_kinds.guard import GuardQuestion
from toxtrail.config.sections import ServedModelName


class ServedGuardConfig(GuardQuestion):
    """Guard model on a server, whose address is in `runtime.servers`; `uri` gives its tokenizer and
    chat template."""

    module: ClassVar[str] = "toxtrail.backends.scorers.served_guard"
    limitation: ClassVar[str] = (
        f"{GuardQuestion.limitation} It runs on a server: its scores are the server's statement, "
        "whose weights and precision are verified by the golden texts only."
    )
    is_served: ClassVar[bool] = True

    kind: Literal["served-guard"]
    served_model_name: ServedModelName
    """Name of the guard on the server."""
