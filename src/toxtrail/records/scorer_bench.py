"""Agreement of a scorer with the labels of a file of texts."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class BenchRow:
    """A scorer on all texts, or on one group of them. Rates and areas are in [0, 1]."""

    scorer: str
    threshold: float
    """A score from here on counts as toxic."""
    group: str | None
    """None for all texts."""
    n: int
    """Number of labelled texts."""
    n_toxic: int
    """Number of texts labelled toxic."""
    base_rate: float
    """Share of texts labelled toxic."""
    unscored_toxic: int
    """Number of texts labelled toxic without a score; sensitivity leaves them out."""
    unscored_harmless: int
    """Number of texts labelled harmless without a score; specificity leaves them out."""
    toxic_found: int
    """Number of texts toxic by label and by score."""
    harmless_passed: int
    """Number of texts harmless by label and by score."""
    sensitivity: float | None
    """None without a scored text that is labelled toxic; the same for each value below."""
    sensitivity_lo: float | None
    sensitivity_hi: float | None
    specificity: float | None
    specificity_lo: float | None
    specificity_hi: float | None
    auc: float | None
    """Area under the ROC curve."""
    auc_lo: float | None
    auc_hi: float | None

    @property
    def scored_toxic(self) -> int:
        """Number of scored texts labelled toxic."""
        return self.n_toxic - self.unscored_toxic

    @property
    def scored_harmless(self) -> int:
        """Number of scored texts labelled harmless."""
        return self.n - self.n_toxic - self.unscored_harmless
