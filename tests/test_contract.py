"""dvc.yaml, pipeline.py, the CLI, the config and the pages say the same."""

from __future__ import annotations

import ast
import re

import grimp
import pytest
import yaml

from toxtrail.cli import COMMANDS, cli
from toxtrail.cli.stage import stage as stage_group
from toxtrail.config.schema import Config
from toxtrail.pipeline import PIPELINE, SOURCE, Stage, code_sha256

MAX_STAGE_LINES, MAX_RUN_LINES, MAX_README_LINES = 120, 10, 150

PLUMBING = {
    "toxtrail",
    "toxtrail.storage.artifacts",
    "toxtrail.config.schema",
    "toxtrail.config.sections",
    "toxtrail.config.scorer_kinds.base",
    "toxtrail.config.scorer_kinds.detoxify",
    "toxtrail.config.scorer_kinds.guard",
    "toxtrail.config.scorer_kinds.hf_classifier",
    "toxtrail.config.scorer_kinds.jigsaw_bilstm",
    "toxtrail.config.plugins",
    "toxtrail.config.scorer_kinds.plugin",
    "toxtrail.config.scorer_kinds.registry",
    "toxtrail.config.scorer_kinds.served_guard",
    "toxtrail.storage.atomic_writes",
    "toxtrail.provenance.embedded_manifest",
    "toxtrail.errors",
    "toxtrail.provenance.identity",
    "toxtrail.storage.row_journal",
    "toxtrail.pipeline",
    "toxtrail.config.load",
    "toxtrail.config.cross_checks",
    "toxtrail.datasets.readers",
    "toxtrail.datasets.readers.csv_rows",
    "toxtrail.datasets.readers.json_rows",
    "toxtrail.datasets.readers.text",
    "toxtrail.records.columns",
    "toxtrail.records.results",
    "toxtrail.records.rows",
    "toxtrail.records.thought",  # the markers are config; `generate`, which cuts, lists it
    "toxtrail.redaction",
    "toxtrail.regular_files",
    "toxtrail.text_escaping",
    "toxtrail.config.asset_uris",
    "toxtrail.config.yaml_text",
    "toxtrail.backends",
    "toxtrail.backends.protocols",
    "toxtrail.backends.assets.cache_folder",
    "toxtrail.backends.assets.cache_lock",
    "toxtrail.backends.library_errors",
    "toxtrail.backends.silence",
    "toxtrail.backends.subprocesses",
    "toxtrail.analysis",
    "toxtrail.config",
    "toxtrail.datasets",
    "toxtrail.provenance",
    "toxtrail.records",
    "toxtrail.records.analysis_output",
    "toxtrail.records.csv_text",
    "toxtrail.records.figure",
    "toxtrail.reporting",
    "toxtrail.reporting.figures",
    "toxtrail.stages",
    "toxtrail.stats",
    "toxtrail.storage",
    "toxtrail.backends.assets",
    "toxtrail.backends.huggingface",
}
"""Modules whose change alters no result: types, paths, hashes, readers."""


@pytest.fixture(scope="module")
def declared(project_text):
    return yaml.safe_load(project_text("dvc.yaml"))["stages"]


@pytest.fixture(scope="module")
def project_text():
    from pathlib import Path

    root = Path(__file__).resolve().parents[1]
    return lambda name: (root / name).read_text("utf-8")


def by_name(stage: Stage) -> str:
    return stage.name


def as_dvc(text: str, stage: Stage) -> str:
    """`{family}` in pipeline.py is `${item.family}` in dvc.yaml."""
    return re.sub(r"\{(\w+)\}", lambda m: "${key}" if m[1] == "key" else f"${{item.{m[1]}}}", text)


def names(outs: list[object]) -> list[str]:
    return [next(iter(out)) if isinstance(out, dict) else str(out) for out in outs]


def test_dvc_runs_the_stages_of_the_pipeline_in_its_order(declared):
    assert list(declared) == [stage.name for stage in PIPELINE]


def test_the_cli_has_a_command_for_every_stage_and_no_other():
    assert set(stage_group.commands) == {stage.name for stage in PIPELINE}


@pytest.mark.parametrize("stage", PIPELINE, ids=by_name)
def test_dvc_yaml_says_what_the_pipeline_says(stage, declared):
    entry = declared[stage.name]
    body = entry["do"] if stage.foreach else entry
    assert entry.get("foreach") == (f"${{{stage.foreach}}}" if stage.foreach else None)
    key = " ${key}" if stage.foreach else ""
    assert body["cmd"] == f"toxtrail stage {stage.name}{key}"
    assert body["params"] == [as_dvc(param, stage) for param in stage.params]
    code = [f"src/toxtrail/{path}" for path in stage.code]
    assert body["deps"] == [*(as_dvc(path, stage) for path in stage.reads), *code]
    assert names(body["outs"]) == [as_dvc(path, stage) for path in stage.writes]
    assert names(body.get("metrics", [])) == [as_dvc(path, stage) for path in stage.metrics]
    assert names(body.get("plots", [])) == [as_dvc(path, stage) for path in stage.plots]


@pytest.mark.parametrize("stage", PIPELINE, ids=by_name)
def test_a_stage_depends_on_sections_of_the_config_and_never_on_speed(stage):
    sections = {param.split(".")[0] for param in stage.params}
    assert sections <= set(Config.model_fields)
    assert "runtime" not in sections


def test_every_section_but_speed_and_permission_belongs_to_a_stage():
    used = {param.split(".")[0] for stage in PIPELINE for param in stage.params}
    assert used == set(Config.model_fields) - {"runtime", "assets"}


@pytest.mark.parametrize("stage", PIPELINE, ids=by_name)
def test_a_stages_code_exists_and_is_hashed(stage):
    for path in stage.code:
        assert (SOURCE / path).exists(), path
    assert re.fullmatch("[0-9a-f]{64}", code_sha256(stage.name))


def test_each_stage_is_one_thin_file():
    """A stage reads, calls analysis, reporting, backends or datasets, and writes."""
    files = {
        path.stem: path for path in (SOURCE / "stages").glob("*.py") if path.stem != "__init__"
    }
    assert set(files) == {stage.name.replace("-", "_") for stage in PIPELINE}
    for path in files.values():
        text = path.read_text("utf-8")
        assert len(text.splitlines()) <= MAX_STAGE_LINES, path
        (run,) = (
            node
            for node in ast.parse(text).body
            if isinstance(node, ast.FunctionDef) and node.name == "run"
        )
        first = run.body[1]  # after the docstring
        assert run.end_lineno - first.lineno + 1 <= MAX_RUN_LINES, path


def module_of(path: str) -> str:
    return "toxtrail." + path.removesuffix(".py").replace("/", ".")


@pytest.mark.parametrize("stage", PIPELINE, ids=by_name)
def test_every_module_whose_mathematics_a_stage_uses_is_in_its_deps(stage):
    """So that a changed formula re-runs what it changes."""
    graph = grimp.build_graph("toxtrail")
    modules = [module_of(path) for path in stage.code if path.endswith(".py") or "." not in path]
    roots = [
        m for name in modules for m in (name, *graph.find_descendants(name)) if m in graph.modules
    ]
    used = {m for root in roots for m in (root, *graph.find_upstream_modules(root))}
    missing = {
        m for m in used - PLUMBING if not any(m == n or m.startswith(n + ".") for n in modules)
    }
    assert missing == set()


def test_the_pages_show_every_stage_and_every_command(project_text):
    stages, commands = project_text("docs/pipeline.md"), project_text("docs/commands.md")
    for stage in PIPELINE:
        assert f"| `{stage.name}` | {stage.description} |" in stages
    for command in COMMANDS:
        assert f"| `toxtrail {command}" in commands, command


def test_the_readme_is_short_and_names_commands_that_exist(project_text):
    readme = project_text("README.md")
    assert len(readme.splitlines()) <= MAX_README_LINES
    assert {*re.findall(r"`toxtrail ([a-z]+)", readme)} <= set(COMMANDS)
    assert "make demo" in readme
    assert "make test" in readme


def test_architecture_shows_every_folder_of_the_source(project_text):
    tree = re.search(
        r"^src/toxtrail/\n(.*?)^```", project_text("docs/architecture.md"), re.M | re.S
    )
    folders = {path.parent.name for path in SOURCE.glob("*/__init__.py")}
    assert set(re.findall(r"^  (\w+)/ ", tree[1], re.M)) == folders


def test_each_public_file_of_the_cli_is_a_command_and_each_command_has_one():
    """What several commands, or a long one, need beside that is private: `_<name>.py`."""
    files = {path.stem for path in (SOURCE / "cli").glob("*.py") if not path.stem.startswith("_")}
    assert set(files) == set(COMMANDS)


@pytest.mark.parametrize("name", list(COMMANDS))
def test_every_command_has_help_with_examples(name):
    command = cli.get_command(None, name)
    assert "Examples:" in (command.help or ""), name


@pytest.mark.parametrize(
    "name",
    [
        "status",
        "variants",
        "runs",
        "compare",
        "plan",
        "contamination",
        "published",
        "audit",
        "verify",
        "check",
        "doctor",
        "pin",
    ],
)
def test_every_reading_command_speaks_json(name):
    command = cli.get_command(None, name)
    assert "--json" in {option for param in command.params for option in param.opts}
