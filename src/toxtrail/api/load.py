"""`toxtrail.load`: the results of an experiment as DataFrames and draws."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toxtrail import results
from toxtrail.api.flips import flip_table, select_flips
from toxtrail.api.tables import data_frame, family_frame
from toxtrail.console import warn
from toxtrail.errors import DataError, is_of_the_system, problem_of
from toxtrail.experiment import Experiment
from toxtrail.regular_files import refuse_irregular
from toxtrail.stats.bayes_libraries import load_arviz

if TYPE_CHECKING:
    import pandas as pd

    from toxtrail.records.results import ComparisonSummary


def load(folder: str | Path = ".", *, from_mlflow: bool = False) -> Results:
    """Return the results of an experiment, each read on first use.

    Results are read from the files of the experiment, and those that are missing from its MLflow
    runs. A warning on standard error names outdated ones.

    >>> import toxtrail
    >>> results = toxtrail.load("experiment")
    >>> results.families
    ['tiny']
    >>> pairs = results.pairs.query("subset == 'all'")
    >>> pairs[["a", "b", "n", "verdict"]].columns.tolist()
    ['a', 'b', 'n', 'verdict']

    Args:
        folder: the experiment's folder, or one in it.
        from_mlflow: read from MLflow even if local files exist.

    Raises:
        ConfigError: there is no experiment, or its params.yaml is invalid.
    """
    experiment = Experiment(Path(folder))
    return Results(experiment, list(experiment.config.families), from_mlflow)


class Results:
    """Results of an experiment. Columns of the tables: docs/tables.md."""

    def __init__(self, experiment: Experiment, families: Sequence[str], from_mlflow: bool) -> None:
        self.families = list(families)
        """Names in params.yaml."""
        self._experiment = experiment
        self._from_mlflow = from_mlflow

    def __repr__(self) -> str:
        return f"<toxtrail results of {', '.join(self.families)} in {self._experiment.root}>"

    @property
    def rates(self) -> pd.DataFrame:
        """A row for each variant, scorer and subset. See `table`."""
        return self.table("rates")

    @property
    def pairs(self) -> pd.DataFrame:
        """A row for each pair of variants, scorer and subset. See `table`."""
        return self.table("pairs")

    def table(self, name: str) -> pd.DataFrame:
        """Return a table of all families, such as `behaviour` or `error_control`.

        Raises:
            ConfigError: no such table, or no family has it.
            DataError: no family is compared yet.
        """
        return family_frame(self.summaries, name)

    @cached_property
    def summaries(self) -> list[ComparisonSummary]:
        """The comparisons of the families; a warning names those that cannot be read.

        Raises:
            DataError: no family is compared yet.
        """
        loaded = results.load_comparisons(
            self._experiment,
            [results.TrackedFamily(name, self._project) for name in self.families],
            self._from_mlflow,
        )
        for problem in loaded.problems:
            warn(f"Skipped: {problem_of(problem) or problem}")
        return [summary for summary, _, _ in loaded.comparisons]

    def flips(
        self,
        a: str,
        b: str,
        *,
        subset: str | None = None,
        scorer: str | None = None,
        texts: bool = False,
        allow_mismatch: bool = False,
    ) -> pd.DataFrame:
        """Return the continuations whose label changed from variant a to b, as `toxtrail flips`.

        Args:
            a, b: names of variants, or MLflow runs (id, name or content key).
            subset: None for all.
            scorer: None for the primary one.
            texts: with prompts and continuations, which can be offensive.
            allow_mismatch: even if the two were measured under different conditions.

        Raises:
            ConfigError: no such variant, subset or scorer.
            DataError: their conditions differ, or a result is missing or damaged.
        """
        pair = results.load_pair(self._experiment, (a, b), self._from_mlflow)
        selection = select_flips(pair[0], pair[1], scorer, subset, allow_mismatch)
        return data_frame(flip_table(selection.with_texts() if texts else selection.flips, texts))

    def posterior(self, family: str) -> Any:
        """Return the posterior draws of a family's differences as ArviZ InferenceData (a DataTree
        with ArviZ 1).

        Raises:
            ConfigError: no such family.
            DataError: results/comparisons/<family>/posterior.nc is missing or damaged.
        """
        (name,) = self._experiment.families((family,))
        return _read_draws(self._experiment.store.comparison_dir(name) / "posterior.nc")

    @property
    def _project(self) -> str:
        return self._experiment.config.tracking.project


def _read_draws(path: Path) -> Any:
    """Read all groups of a file of draws, and close it."""
    refuse_irregular(path)
    try:
        draws = load_arviz().from_netcdf(path)
        draws.load()
        draws.close()
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        if is_of_the_system(error):
            raise
        raise DataError(f"{path} contains no draws ({error}). Run `toxtrail run`.") from None
    return draws
