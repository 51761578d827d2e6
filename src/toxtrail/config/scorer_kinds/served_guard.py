"""Guard models on an OpenAI-compatible server."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

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
    max_uncertainty: Annotated[float, Field(gt=0, lt=1)]
    """Largest uncertainty of an answer's share, because a server lists the most likely tokens only;
    a text above it has no score, and its row is in state error."""
