"""Paths, readers and writers of all pipeline files.

Writers are atomic (a temporary file beside the target, then a rename), sort rows by key, and store
the manifest inside the file, so that a file outside the repository can be traced.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, get_args

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pydantic import ValidationError

from toxtrail.errors import DataError, is_of_the_system
from toxtrail.provenance.embedded_manifest import (
    METADATA_KEY,
    NETCDF_DATASET,
    in_png,
    in_svg,
    manifest_text,
    read_embedded_manifest,
)
from toxtrail.provenance.identity import (
    InputFile,
    Manifest,
    ModelIdentity,
    content_key,
    sha256_file,
)
from toxtrail.records.analysis_output import (
    SUMMARY_SCHEMAS,
    AnalysisOutput,
    Summary,
    parse_summary,
    refuse_other_schema,
)
from toxtrail.records.columns import ResultTable, to_arrow, to_json
from toxtrail.records.csv_text import rows_to_csv
from toxtrail.records.results import VariantSummary
from toxtrail.records.rows import (
    GENERATION_OPTIONS,
    GENERATION_SCHEMA,
    OPTIONAL_PROMPT_COLUMNS,
    PROMPT_SCHEMA,
    SCORE_OPTIONS,
    SCORE_SCHEMA,
    SERVER_COLUMNS,
    FinishReason,
    Generation,
    Prompt,
    RowStatus,
    Score,
    Turn,
    generation_problem,
    score_problem,
    to_arrow_table,
)
from toxtrail.regular_files import leads_out, name_in, read_text, refuse_irregular
from toxtrail.storage import atomic_writes
from toxtrail.storage.row_journal import RowJournal

if TYPE_CHECKING:
    import xarray


class ArtifactStore:
    """The files of one experiment, below its root."""

    def __init__(self, root: Path, before_publishing: Callable[[], None] | None = None) -> None:
        """Args:
        before_publishing: called with a complete file; raises to prevent its publication.
        """
        self.root = root
        self._before_publishing = before_publishing or (lambda: None)

    # --- paths --------------------------------------------------------------------------------

    def at(self, name: str) -> Path:
        """Return the path of a recorded name, which is untrusted input.

        Raises:
            DataError: the name leads out of the experiment.
        """
        if leads_out(name):
            raise DataError(f"{name!r} leads out of the experiment. It was not opened.")
        return self.root / name

    @property
    def prompts_path(self) -> Path:
        return self.root / "data" / "prompts.parquet"

    @property
    def prompt_card_path(self) -> Path:
        """Sources of the prompts and how they were sampled."""
        return self.root / "data" / "prompts_card.json"

    def model_dir(self, key: str) -> Path:
        return self.at(f"models/{key}")

    def generations_path(self, family: str, variant: str) -> Path:
        return self.root / "data" / "generations" / family / f"{variant}.parquet"

    def scores_path(self, family: str, variant: str) -> Path:
        return self.root / "data" / "scores" / family / f"{variant}.parquet"

    def posterior_dir(self, family: str, variant: str) -> Path:
        return self.root / "results" / "posteriors" / family / variant

    def pooled_dir(self, family: str) -> Path:
        return self.root / "results" / "pooled" / family

    def comparison_dir(self, family: str) -> Path:
        return self.root / "results" / "comparisons" / family

    @property
    def report_path(self) -> Path:
        return self.root / "report" / "index.html"

    def metrics_path(self, family: str) -> Path:
        """Return the file of a comparison for `dvc metrics`."""
        return self.root / "results" / "metrics" / f"{family}.json"

    def plots_path(self, family: str) -> Path:
        """Return the file of a comparison for `dvc plots`."""
        return self.root / "results" / "plots" / f"{family}.csv"

    def variant_receipt_path(self, family: str, variant: str) -> Path:
        return self.root / "mlruns" / "receipts" / "variants" / family / f"{variant}.json"

    def family_receipt_path(self, family: str) -> Path:
        return self.root / "mlruns" / "receipts" / "families" / f"{family}.json"

    def variant_run_files(self, family: str, variant: str) -> dict[str, Path]:
        """Return the files of a variant that its MLflow run holds, by their names there."""
        model, posterior = self.model_dir(variant), self.posterior_dir(family, variant)
        return {
            "model.json": model / "model.json",
            "prompts.parquet": self.prompts_path,
            "prompts_card.json": self.prompt_card_path,
            "generations.parquet": self.generations_path(family, variant),
            "scores.parquet": self.scores_path(family, variant),
            "posterior/summary.json": posterior / "summary.json",
            "posterior/posterior.nc": posterior / "posterior.nc",
            "loss.csv": model / "loss.csv",
            "data_card.json": model / "data_card.json",
        }

    def scratch_dir(self, manifest: Manifest, plan: Mapping[str, Any]) -> Path:
        """Return the folder for unfinished work of the stage with this manifest."""
        digest = content_key({"manifest": manifest.content_key, "plan": dict(plan)})
        return self.root / ".toxtrail" / "scratch" / manifest.kind / digest[:32]

    def row_journal(
        self, stage: str, key: str, identity: Mapping[str, Any], member: int = 0
    ) -> RowJournal:
        """Return the journal of a stage's finished rows, which persists between runs."""
        return RowJournal(self.root / ".toxtrail" / "rows" / stage / key, identity, member)

    # --- reading ------------------------------------------------------------------------------

    def read_prompts(self) -> list[Prompt]:
        return read_prompts(self.prompts_path)

    def read_generations(self, family: str, variant: str) -> list[Generation]:
        return read_generations(self.generations_path(family, variant))

    def read_scores(self, family: str, variant: str) -> list[Score]:
        return read_scores(self.scores_path(family, variant))

    def read_generation_columns(self, family: str, variant: str) -> pa.Table:
        """Return the generation rows as arrays."""
        return read_generation_table(self.generations_path(family, variant))

    def read_score_columns(self, family: str, variant: str, columns: Sequence[str]) -> pa.Table:
        """Return columns of the score rows as arrays."""
        return _arrow_table(self.scores_path(family, variant), SCORE_SCHEMA, columns, SCORE_OPTIONS)

    def read_responses(
        self, family: str, variant: str, columns: Sequence[str]
    ) -> tuple[pa.Table, InputFile, pa.Table | None]:
        """Return the generation rows as arrays, their input file, and columns of the score rows as
        arrays; None if the file of scores lacks one of them."""
        generations = self.describe_input(self.generations_path(family, variant))
        scores = self.read_score_columns(family, variant, columns)
        has_all = set(columns) <= set(scores.column_names)
        return (
            self.read_generation_columns(family, variant),
            generations,
            scores if has_all else None,
        )

    def read_family(
        self, family: str, variants: Sequence[str], columns: Sequence[str]
    ) -> tuple[
        dict[str, pa.Table], dict[str, VariantSummary], dict[str, InputFile], dict[str, InputFile]
    ]:
        """Return variant -> score rows, summary of its rates, input files of the summary and the
        scores."""
        folders = {v: self.posterior_dir(family, v) for v in variants}
        return (
            {v: self.read_score_columns(family, v, columns) for v in variants},
            {v: self.read_results(VariantSummary, folder) for v, folder in folders.items()},
            {v: self.describe_input(folder / "summary.json") for v, folder in folders.items()},
            {v: self.describe_input(self.scores_path(family, v)) for v in variants},
        )

    def read_card(self, key: str) -> ModelIdentity:
        path = self.model_dir(key) / "model.json"
        try:
            return ModelIdentity.model_validate_json(_text(path))
        except ValidationError as error:
            places = dict.fromkeys(".".join(map(str, detail["loc"])) for detail in error.errors())
            raise DataError(
                f"{self._name(path)} is not a model card of this version: check "
                f"{', '.join(key_path or 'the complete file' for key_path in places)}. "
                "Run its stage again."
            ) from None

    def read_results(self, summary_class: type[Summary], folder: Path) -> Summary:
        """Read the summary of a statistics stage.

        Raises:
            DataError: it is damaged, or has another schema than this version reads.
        """
        path = folder / "summary.json"
        return parse_summary(summary_class, read_json(path), self._name(path))

    def read_summary(self, folder: Path) -> dict[str, Any]:
        """Read the JSON of a summary; raise DataError if its schema is not supported."""
        path = folder / "summary.json"
        summary: dict[str, Any] = read_json(path)
        if (kind := summary.get("kind")) in SUMMARY_SCHEMAS:
            refuse_other_schema(summary, kind, self._name(path))
        return summary

    def read_draws(self, folder: Path) -> xarray.Dataset:
        """Read the posterior draws of a statistics stage."""
        import xarray

        path = folder / "posterior.nc"
        refuse_irregular(path)
        try:
            return xarray.load_dataset(path, group="posterior", engine="h5netcdf")
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            if is_of_the_system(error):
                raise
            raise DataError(
                f"{self._name(path)} contains no draws ({error}). Re-run its stage."
            ) from None

    def describe_input(self, path: Path) -> InputFile:
        """Return a stage's input file: its name, hash and manifest."""
        refuse_irregular(path)
        if not path.is_file():
            raise DataError(f"{self._name(path)} does not exist. Run `dvc repro` to make it.")
        return InputFile(
            path=self._name(path), sha256=sha256_file(path), manifest=read_embedded_manifest(path)
        )

    # --- writing ------------------------------------------------------------------------------

    def write_prompts(self, prompts: Sequence[Prompt], manifest: Manifest) -> None:
        rows = sorted(prompts, key=lambda prompt: prompt.prompt_id)
        self._write_table(self.prompts_path, rows, PROMPT_SCHEMA, manifest, OPTIONAL_PROMPT_COLUMNS)

    def write_generations(
        self, family: str, variant: str, rows: Sequence[Generation], manifest: Manifest
    ) -> None:
        ordered = sorted(rows, key=lambda row: row.key)
        self._write_table(
            self.generations_path(family, variant),
            ordered,
            GENERATION_SCHEMA,
            manifest,
            GENERATION_OPTIONS,
        )

    def write_scores(
        self, family: str, variant: str, rows: Sequence[Score], manifest: Manifest
    ) -> None:
        ordered = sorted(rows, key=lambda row: row.key)
        self._write_table(
            self.scores_path(family, variant), ordered, SCORE_SCHEMA, manifest, SCORE_OPTIONS
        )

    def write_analysis(
        self,
        folder: Path,
        posterior: AnalysisOutput[Summary],
        manifest: Manifest,
        tables: Mapping[str, ResultTable] | None = None,
    ) -> None:
        """Write the folder of a statistics stage; each table as Parquet and CSV."""
        with self.atomic_folder(folder) as draft:
            summary = {**to_json(posterior.summary), "manifest": manifest.to_json()}
            (draft / "summary.json").write_text(pretty_json(summary), encoding="utf-8")
            groups = {"posterior": posterior.draws, **posterior.groups}
            _write_draws(draft / "posterior.nc", groups, manifest)
            for name, drawing in posterior.figures.items():
                svg = in_svg(drawing.svg, manifest)
                (draft / f"{name}.svg").write_text(svg, encoding="utf-8")
                png = in_png(drawing.png, manifest)
                (draft / f"{name}.png").write_bytes(png)
            for name, table in (tables or {}).items():
                _write_result_table(draft / name, table, manifest)

    def write_json(self, path: Path, value: object) -> None:
        self.write_text(path, pretty_json(value))

    def write_text(self, path: Path, text: str) -> None:
        with self.atomic_file(path) as draft:
            draft.write_text(text, encoding="utf-8")

    def _write_table(
        self,
        path: Path,
        rows: Sequence[Any],
        schema: pa.Schema,
        manifest: Manifest,
        optional: Set[str],
    ) -> None:
        metadata = {METADATA_KEY: manifest_text(manifest)}
        used = {n for n in optional if any(getattr(row, n) not in (None, ()) for row in rows)}
        written = _with_options(schema, optional, used).with_metadata(metadata)
        table = to_arrow_table(rows, written)
        with self.atomic_file(path) as draft:
            pq.write_table(table, draft, compression="zstd")

    @contextmanager
    def atomic_file(self, path: Path) -> Iterator[Path]:
        """Yield a temporary file that is renamed to `path` if the block succeeds."""
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_writes.file(path) as draft:
            yield draft
            self._before_publishing()

    @contextmanager
    def atomic_folder(self, folder: Path) -> Iterator[Path]:
        """Yield a temporary folder that is renamed to `folder` if the block succeeds."""
        folder.parent.mkdir(parents=True, exist_ok=True)
        with atomic_writes.folder(folder) as draft:
            yield draft
            self._before_publishing()

    def _name(self, path: Path) -> str:
        return name_in(self.root, path)


def read_prompts(path: Path) -> list[Prompt]:
    """Read the prompts of a file at any path."""
    rows = _arrow_table(path, PROMPT_SCHEMA, optional=OPTIONAL_PROMPT_COLUMNS).to_pylist()
    return [
        Prompt(
            **{
                **row,
                "covariates": _mapping(row.get("covariates")),
                "earlier": tuple(Turn(**turn) for turn in row.get("earlier") or ()),
            }
        )
        for row in rows
    ]


def read_generations(path: Path) -> list[Generation]:
    """Read the generation rows of a file at any path."""
    rows = _arrow_table(path, GENERATION_SCHEMA, optional=GENERATION_OPTIONS).to_pylist()
    read = [Generation(**{**row, "token_ids": tuple(row["token_ids"])}) for row in rows]
    return _checked(path, read, generation_problem)


def read_generation_table(path: Path) -> pa.Table:
    """Read generation rows as arrays, with the same checks as `read_generations`."""
    table = _arrow_table(path, GENERATION_SCHEMA, optional=GENERATION_OPTIONS)
    if not _may_be_generations(table):
        read_generations(path)  # It names the row.
    return table


ROW_BY_ROW = {"thought", "thought_tokens", *SERVER_COLUMNS}
"""Columns of generations that are checked row by row."""


def _may_be_generations(table: pa.Table) -> bool:
    """Apply the checks of `generation_problem` column by column."""
    texts = ("prompt_id", "subset", "state", "text", "finish_reason", "error")
    counts = (table["sample"], table["prompt_tokens"], pc.list_flatten(table["token_ids"]))
    return (
        not any(column.null_count for column in (*map(table.column, texts), *counts))
        and not any(len(column) and pc.min(column).as_py() < 0 for column in counts)
        and set(table["state"].unique().to_pylist()) <= set(get_args(RowStatus))
        and set(table["finish_reason"].unique().to_pylist()) <= set(get_args(FinishReason))
        and not ROW_BY_ROW & set(table.column_names)
    )


def read_scores(path: Path) -> list[Score]:
    """Read the score rows of a file at any path."""
    rows = _arrow_table(path, SCORE_SCHEMA, optional=SCORE_OPTIONS).to_pylist()
    read = [Score(**{**row, "heads": _mapping(row["heads"])}) for row in rows]
    return _checked(path, read, score_problem)


Keyed = TypeVar("Keyed", Generation, Score)


def _checked(path: Path, rows: list[Keyed], problem_of: Callable[[Keyed], str]) -> list[Keyed]:
    """Return the rows; raise DataError for the first invalid row."""
    for row in rows:
        if problem := problem_of(row):
            raise DataError(f"{path}: the row {row.key} is damaged: {problem}. Re-run its stage.")
    return rows


def read_json(path: Path) -> Any:
    """Read a JSON file; raise DataError if it is missing or invalid."""
    try:
        return json.loads(_text(path))
    except json.JSONDecodeError as error:
        raise DataError(
            f"{path} is not JSON ({error}). Re-run the stage that creates it."
        ) from None


def _with_options(schema: pa.Schema, optional: Set[str], used: Set[str]) -> pa.Schema:
    return pa.schema([f for f in schema if f.name not in optional or f.name in used])


def _wanted(columns: Sequence[str] | None, absent: Set[str]) -> list[str] | None:
    return None if columns is None else [name for name in columns if name not in absent]


def _arrow_table(
    path: Path,
    schema: pa.Schema,
    columns: Sequence[str] | None = None,
    optional: Set[str] = frozenset(),
) -> pa.Table:
    refuse_irregular(path)
    if not path.is_file():
        raise DataError(f"{path} does not exist. Run `dvc repro` to make it.")
    try:
        found = pq.read_schema(path)
        table = pq.read_table(path, columns=_wanted(columns, optional - set(found.names)))
    except (pa.ArrowException, OSError, ValueError) as error:
        if is_of_the_system(error):
            raise
        raise DataError(f"{path} is not a Parquet file ({error}). Re-run its stage.") from None
    if not found.equals(_with_options(schema, optional, set(found.names))):
        raise DataError(
            f"{path} has the columns {found.names}; this version writes {schema.names}. "
            "Re-run the stage that creates it."
        )
    return table


def _text(path: Path) -> str:
    try:
        return read_text(path)
    except FileNotFoundError:
        raise DataError(f"{path} does not exist. Run `dvc repro` to make it.") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text ({error}). Re-run its stage.") from None


def _mapping(pairs: list[tuple[str, Any]] | None) -> dict[str, Any] | None:
    return None if pairs is None else dict(pairs)


def existing_files(folder: Path, *names: str) -> dict[str, Path]:
    """Return name -> file, for those of these files that exist."""
    return {name: folder / name for name in names if (folder / name).is_file()}


def pretty_json(value: object) -> str:
    """Format JSON as in every JSON file of the pipeline."""
    return json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


HDF5_EXTRA = 2**20
"""Maximum size in bytes of a draws file apart from the draws: names, attributes, manifest."""


def _write_draws(path: Path, groups: Mapping[str, xarray.Dataset], manifest: Manifest) -> None:
    """Write an ArviZ-readable file with the versions and seed of its manifest.

    Time stamps are omitted, so that equal draws give equal bytes.
    """
    import h5py

    seed = manifest.params.get("posterior", {}).get("seed")
    facts = {**manifest.environment, **({} if seed is None else {"seed": seed})}
    atomic_writes.require_room(
        path.parent, sum(group.nbytes for group in groups.values()) + HDF5_EXTRA
    )
    for number, (name, group) in enumerate(groups.items()):
        annotated = group.assign_attrs({**facts, **group.attrs})
        annotated.to_netcdf(path, mode="a" if number else "w", group=name, engine="h5netcdf")
    with h5py.File(path, "r+") as file:
        file[NETCDF_DATASET] = manifest_text(manifest).encode()


def export_file(target: Path, content: str | ResultTable) -> None:
    """Write a text, or a table as Parquet, to a path of the user's choice; completely or not at
    all."""
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".toxtrail-") as folder:
        draft = Path(folder) / target.name
        if isinstance(content, str):
            draft.write_text(content, encoding="utf-8", newline="")
        else:
            pq.write_table(to_arrow(content), draft, compression="zstd")
        draft.replace(target)


def _write_result_table(path: Path, table: ResultTable, manifest: Manifest) -> None:
    """Write `<path>.parquet` and `<path>.csv`."""
    arrow = to_arrow(table).replace_schema_metadata({METADATA_KEY: manifest_text(manifest)})
    pq.write_table(arrow, path.with_suffix(".parquet"), compression="zstd")
    text = rows_to_csv(table.rows, table.names)
    path.with_suffix(".csv").write_text(text, encoding="utf-8", newline="")
