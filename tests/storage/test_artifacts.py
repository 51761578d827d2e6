"""Files: what is written is read back, whole or not at all, with its manifest inside."""

from __future__ import annotations

import errno
import json
import subprocess
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

from toxtrail.errors import DataError, problem_of
from toxtrail.pipeline import manifest_of
from toxtrail.provenance.embedded_manifest import read_embedded_manifest
from toxtrail.provenance.identity import InputFile, content_key, hash_tree, tree_sha256
from toxtrail.records.analysis_output import SUMMARY_KINDS, SUMMARY_SCHEMAS, AnalysisOutput
from toxtrail.records.columns import result_table
from toxtrail.records.results import PoolSummary
from toxtrail.records.rows import Generation, Prompt, Score, Turn
from toxtrail.reporting.figures.style import new_figure, render
from toxtrail.storage.artifacts import ArtifactStore

MANIFEST = manifest_of(
    "generate",
    "v",
    {"generation": {"seed": 7}, "posterior": {"seed": 11}},
    {"prompts": InputFile(path="p", sha256="0" * 64, manifest=None)},
    {"numpy": "2.4.0"},
)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
IDS = st.lists(st.integers(0, 2**31 - 1), max_size=8).map(tuple)
STATES = st.sampled_from(["ok", "empty", "truncated", "error"])
FINISHES = st.sampled_from(["stop", "length", "none"])
KNOWN = st.none() | st.floats(allow_nan=False, allow_infinity=False)
COVARIATES = st.none() | st.dictionaries(TEXT, KNOWN, max_size=3)
ROLES = st.sampled_from(["system", "user", "assistant"])
TURNS = st.lists(st.tuples(ROLES, TEXT).map(lambda pair: Turn(*pair)), max_size=3)
PROMPTS = st.builds(
    Prompt, TEXT, TEXT, TEXT, TEXT, st.integers(0, 2**40), st.none() | TEXT, COVARIATES,
    st.none() | TEXT, TURNS.map(tuple),
)  # fmt: skip
GENERATIONS = st.builds(
    Generation,
    TEXT,
    st.integers(0, 99),
    TEXT,
    STATES,
    TEXT,
    IDS,
    st.integers(0, 9999),
    FINISHES,
    TEXT,
    thought=st.none(),
    thought_tokens=st.none(),
    server_tokens=st.none() | st.integers(0, 2**31 - 1),
).flatmap(
    lambda row: (
        st.builds(
            lambda thought, count: row._replace(thought=thought, thought_tokens=count),
            TEXT,
            st.integers(0, len(row.token_ids)),
        )
        | st.just(row)
    )
)
HEADS = st.none() | st.dictionaries(TEXT, st.floats(0, 1), min_size=1, max_size=3)
SCORES = st.builds(
    Score,
    TEXT,
    st.integers(0, 99),
    TEXT,
    TEXT,
    STATES,
    st.floats(0, 1),
    HEADS,
    st.integers(0, 9),
    st.none() | TEXT,
    st.none() | st.floats(0, 1),
    st.none() | TEXT,
    st.none() | st.floats(0, 1),
).map(lambda row: row if row.state == "ok" else row._replace(toxicity=None))


def keyed(rows, key):
    return st.lists(rows, max_size=6, unique_by=key)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return ArtifactStore(tmp_path_factory.mktemp("store"))


@given(rows=keyed(PROMPTS, lambda row: row.prompt_id))
def test_prompts_are_read_as_they_were_written(store, rows):
    store.write_prompts(rows, MANIFEST)
    assert store.read_prompts() == sorted(rows, key=lambda row: row.prompt_id)


@given(rows=keyed(GENERATIONS, lambda row: row.key))
def test_generations_are_read_as_they_were_written(store, rows):
    store.write_generations("f", "v", rows, MANIFEST)
    assert store.read_generations("f", "v") == sorted(rows, key=lambda row: row.key)


@given(rows=keyed(SCORES, lambda row: row.key))
def test_scores_are_read_as_they_were_written(store, rows):
    store.write_scores("f", "v", rows, MANIFEST)
    assert store.read_scores("f", "v") == sorted(rows, key=lambda row: row.key)


@given(rows=keyed(SCORES, lambda row: row.key), random=st.randoms(use_true_random=False))
def test_equal_rows_in_another_order_give_equal_bytes(store, rows, random):
    store.write_scores("f", "v", rows, MANIFEST)
    first = store.scores_path("f", "v").read_bytes()
    random.shuffle(rows)
    store.write_scores("f", "v", rows, MANIFEST)
    assert store.scores_path("f", "v").read_bytes() == first


SUMMARY = PoolSummary(
    family="f", schema_version=3, reference="v", primary="judge", threshold={"judge": 0.5},
    level=0.95, interval="equal-tailed", scorers={}, rates=[], pairs=[],
)  # fmt: skip


def posterior():
    draws = xr.Dataset({"rate": (("chain", "draw"), np.full((4, 5), 0.25))})
    seen = xr.Dataset({"n_toxic": ("subset", [1.0])}, {"subset": ["a"]})
    figure, _ = new_figure(1.0)
    figures = {"a": render(figure, "a")}
    return AnalysisOutput(SUMMARY, draws, {"observed_data": seen}, figures)


def test_every_file_carries_its_manifest(tmp_path):
    store = ArtifactStore(tmp_path)
    store.write_prompts([], MANIFEST)
    folder = store.posterior_dir("f", "v")
    store.write_analysis(folder, posterior(), MANIFEST)
    names = ("summary.json", "posterior.nc", "a.svg", "a.png")
    for path in (store.prompts_path, *(folder / name for name in names)):
        assert read_embedded_manifest(path) == MANIFEST


def test_draws_are_readable_by_arviz_and_equal_ones_give_equal_bytes(tmp_path):
    with warnings.catch_warnings(action="ignore"):
        import arviz

    store = ArtifactStore(tmp_path)
    for name in ("one", "two"):
        store.write_analysis(tmp_path / name, posterior(), MANIFEST)
    one, two = (tmp_path / name / "posterior.nc" for name in ("one", "two"))
    assert one.read_bytes() == two.read_bytes()
    found = arviz.from_netcdf(one)
    assert float(found.posterior["rate"].mean()) == 0.25
    assert float(found.observed_data["n_toxic"].sel(subset="a")) == 1
    for group in (found.posterior, found.observed_data):
        assert group.attrs.items() >= {**MANIFEST.environment, "seed": 11}.items()


def test_a_write_that_fails_leaves_the_old_file_and_no_draft(tmp_path):
    store, path = ArtifactStore(tmp_path), tmp_path / "report/index.html"
    store.write_text(path, "old")

    def interrupted():
        with store.atomic_file(path) as draft:
            draft.write_text("new")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert path.read_text() == "old"
    assert not list(tmp_path.rglob(".draft-*"))


def test_a_folder_is_replaced_as_a_whole(tmp_path):
    store, folder = ArtifactStore(tmp_path), tmp_path / "models/m"
    for name in ("a", "b"):
        with store.atomic_folder(folder) as draft:
            (draft / name).write_text(name)
    assert [path.name for path in folder.iterdir()] == ["b"]


@pytest.mark.parametrize("content", [b"", b"garbage", None])
def test_a_file_that_is_missing_or_no_table_is_named_with_its_cure(tmp_path, content):
    store = ArtifactStore(tmp_path)
    if content is not None:
        store.prompts_path.parent.mkdir()
        store.prompts_path.write_bytes(content)
    with pytest.raises(DataError, match=r"prompts\.parquet .*([Rr]un|make)"):
        store.read_prompts()


def test_a_table_of_another_kind_is_refused(tmp_path):
    store = ArtifactStore(tmp_path)
    store.write_prompts([], MANIFEST)
    store.generations_path("f", "v").parent.mkdir(parents=True)
    store.prompts_path.rename(store.generations_path("f", "v"))
    with pytest.raises(DataError, match="has the columns"):
        store.read_generations("f", "v")


def test_the_order_of_keys_and_files_is_no_part_of_an_identity(tmp_path):
    assert content_key({"a": 1, "b": 2}) == content_key({"b": 2, "a": 1})
    paths = [tmp_path / name for name in "ab"]
    for path in paths:
        path.write_text(path.name)
    assert tree_sha256(hash_tree(tmp_path, paths)) == tree_sha256(hash_tree(tmp_path, paths[::-1]))


@dataclass(frozen=True, kw_only=True)
class Example:
    a: str
    b: bool
    c: float
    d: float | None
    e: int


ROWS = [
    {"a": "=1+1", "b": True, "c": 0.1 + 0.2, "d": None, "e": 3},
    {"a": 'plain, "quoted"\nline', "b": False, "c": 1e-300, "d": None, "e": -4},
]


def test_a_table_is_the_same_as_parquet_and_as_csv(tmp_path):
    import csv

    import pyarrow.parquet as pq

    store, folder = ArtifactStore(tmp_path), tmp_path / "t"
    output = AnalysisOutput(SUMMARY, xr.Dataset(), {}, {})
    tables = {"rows": result_table(Example, [Example(**row) for row in ROWS])}
    store.write_analysis(folder, output, MANIFEST, tables)
    assert pq.read_table(folder / "rows.parquet").to_pylist() == ROWS
    assert read_embedded_manifest(folder / "rows.parquet") == MANIFEST
    with (folder / "rows.csv").open(encoding="utf-8", newline="") as file:
        found = list(csv.DictReader(file))
    assert [row["a"] for row in found] == ["'=1+1", ROWS[1]["a"]]
    assert [float(row["c"]) for row in found] == [row["c"] for row in ROWS]
    assert [(row["b"], row["d"], row["e"]) for row in found] == [
        ("true", "", "3"),
        ("false", "", "-4"),
    ]


def test_equal_tables_are_equal_bytes_and_an_empty_one_is_a_table(tmp_path):
    store = ArtifactStore(tmp_path)
    output = AnalysisOutput(SUMMARY, xr.Dataset(), {}, {})
    rows = [Example(**row) for row in ROWS]
    tables = {"rows": result_table(Example, rows), "none": result_table(Example, [])}
    for name in ("one", "two"):
        store.write_analysis(tmp_path / name, output, MANIFEST, tables)
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes()
    assert read_embedded_manifest(tmp_path / "one/none.parquet") == MANIFEST
    assert (tmp_path / "one/none.csv").read_text() == "a,b,c,d,e\n"


SUMMARY_CLASSES = {kind: summary_class for summary_class, kind in SUMMARY_KINDS.items()}
GOOD_SCORE = Score("p", 0, "s", "judge", "ok", 0.5, {"toxic": 0.5}, 1)
GOOD_GENERATION = Generation("p", 0, "s", "ok", "text", (1, 2), 3, "length", "")


@pytest.mark.parametrize(
    "change",
    [
        {"state": "OK"}, {"state": ""}, {"state": "error"}, {"toxicity": None}, {"toxicity": 1.5},
        {"toxicity": float("nan")}, {"toxicity": -0.1}, {"heads": {"toxic": 2.0}},
        {"heads": {"toxic": float("inf")}}, {"other": float("nan")}, {"other": 1.5},
        {"refusal": 1.5},
    ],
    ids=str,
)  # fmt: skip
def test_a_score_row_that_says_what_none_can_say_is_refused_where_it_is_read(store, change):
    store.write_scores("f", "odd", [GOOD_SCORE, GOOD_SCORE._replace(sample=1, **change)], MANIFEST)
    with pytest.raises(DataError, match=r"scores.f.odd\.parquet: the row \('p', 1, 'judge'\)"):
        store.read_scores("f", "odd")


@pytest.mark.parametrize(
    "change",
    [
        {"state": "fine"}, {"finish_reason": "?"}, {"token_ids": (-1,)}, {"prompt_tokens": -1},
        {"thought": "a"}, {"thought_tokens": 1}, {"thought": "a", "thought_tokens": 3},
    ],
    ids=str,
)  # fmt: skip
def test_a_generation_row_that_says_what_none_can_say_is_refused(store, change):
    rows = [GOOD_GENERATION, GOOD_GENERATION._replace(sample=1, **change)]
    store.write_generations("f", "odd", rows, MANIFEST)
    for read in (store.read_generations, store.read_generation_columns):
        with pytest.raises(DataError, match=r"generations.f.odd\.parquet: the row \('p', 1\)"):
            read("f", "odd")


def test_draws_that_find_no_room_are_an_error_and_not_the_end_of_the_process(tmp_path):
    """HDF5 would leave a traceback at the exit, or end the process."""
    code = (
        "import errno, resource, sys, pathlib\n"
        "import numpy as np, xarray as xr\n"
        "from toxtrail.storage.artifacts import _write_draws\n"
        "from tests.storage.test_artifacts import MANIFEST\n"
        "draws = xr.Dataset({'rate': (('chain', 'draw'), np.random.rand(4, 20_000))})\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
        "try:\n"
        "    _write_draws(pathlib.Path(sys.argv[1]), {'posterior': draws}, MANIFEST)\n"
        "except OSError as error:\n"
        "    sys.exit(0 if error.errno == errno.EFBIG else 3)\n"
        "sys.exit(4)\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "posterior.nc")]
    root = Path(__file__).parents[2]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        OSError(errno.ENOMEM, "no"),
        BlockingIOError(errno.EAGAIN, "no"),
        RuntimeError("can't start new thread"),
        RuntimeError(
            "[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory"
        ),
    ],
    ids=str,
)
def test_memory_and_threads_that_run_out_are_said(error):
    assert "memory" in problem_of(error)


@pytest.mark.parametrize("error", [MemoryError(), PermissionError(errno.EACCES, "no")], ids=str)
def test_a_file_that_could_not_be_read_is_not_called_damaged(store, error, monkeypatch):
    store.write_scores("f", "fine", [GOOD_SCORE], MANIFEST)

    def refused(*_, **__):
        raise error

    monkeypatch.setattr("pyarrow.parquet.read_table", refused)
    with pytest.raises(type(error)):
        store.read_scores("f", "fine")


@pytest.mark.parametrize("kind", sorted(SUMMARY_SCHEMAS))
def test_a_summary_of_another_schema_is_refused_with_its_file_and_the_cure(tmp_path, kind):
    store, path = ArtifactStore(tmp_path), tmp_path / "results/x/summary.json"
    path.parent.mkdir(parents=True)
    for schema in (SUMMARY_SCHEMAS[kind], SUMMARY_SCHEMAS[kind] - 1, None):
        path.write_text(json.dumps({"kind": kind, "schema_version": schema}), "utf-8")
        if schema == SUMMARY_SCHEMAS[kind]:
            assert store.read_summary(path.parent)["kind"] == kind
            continue
        with pytest.raises(DataError, match=r"x/summary\.json .*another version.*dvc repro"):
            store.read_summary(path.parent)
        with pytest.raises(DataError, match=r"x/summary\.json .*another version.*dvc repro"):
            store.read_results(SUMMARY_CLASSES[kind], path.parent)
