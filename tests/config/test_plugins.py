"""Plug-ins: found without being imported, pinned by their code, validated like built-in kinds."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest
import yaml

from toxtrail.config.edit_params import write_plugin_pins
from toxtrail.config.load import parse_config
from toxtrail.config.plugins import (
    BACKENDS,
    SCORERS,
    PluginPin,
    collisions,
    installed_plugins,
    plugin_named,
    usage_problem,
)
from toxtrail.config.scorer_kinds.plugin import MissingPluginConfig
from toxtrail.errors import ConfigError
from toxtrail.preflight.pinned_files import plugin_problems
from toxtrail.provenance.comparability import scorer_options
from toxtrail.reporting.scorer_limitations import scorer_limitations

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "tests" / "fixtures" / "plugin_example" / "src" / "toxtrail_words"
ENTRIES = {
    SCORERS: "words = toxtrail_words.options:WordsConfig",
    BACKENDS: "copying = toxtrail_words.options:CopyingConfig",
}
SCORER = {
    "kind": "words",
    "uri": "file:words.txt",
    "head": "listed",
    "golden": [],
    "golden_tolerance": 0.1,
    "enough": 2,
}
PIN = {"distribution": "toxtrail-words", "version": "1.0", "sha256": "0" * 64}


def distribution(folder: Path, name: str, entries: dict[str, str], version: str = "1.0") -> None:
    """The metadata that pip writes."""
    info = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    sections = [f"[{group}]\n{line}\n" for group, line in entries.items()]
    (info / "entry_points.txt").write_text("\n".join(sections))


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder of installed packages; what is imported from it is forgotten afterwards."""
    place = tmp_path / "site"
    place.mkdir()
    before = set(sys.modules)
    monkeypatch.syspath_prepend(str(place))
    yield place
    for name in set(sys.modules) - before:
        if name.split(".")[0] in ("toxtrail_words", "broken_words"):
            del sys.modules[name]


@pytest.fixture
def example(folder):
    """The example plug-in, installed."""
    distribution(folder, "toxtrail-words", ENTRIES)
    shutil.copytree(EXAMPLE, folder / "toxtrail_words", ignore=shutil.ignore_patterns("__pyc*"))
    return folder / "toxtrail_words"


def config(scorer=None, engine=None):
    values = yaml.safe_load((ROOT / "params.yaml").read_text("utf-8"))
    if scorer is not None:
        values["scoring"] |= {"primary": "s", "scorers": {"s": scorer}}
        values["posterior"] |= {"threshold": {"s": 0.5}}
    if engine is not None:
        values["generation"]["engine"] = engine
    return parse_config(values, "params.yaml")


def pin(group=SCORERS, name="words") -> PluginPin:
    return plugin_named(group, name).pin()


def test_plugins_are_listed_without_importing_them(example):
    (plugin,) = installed_plugins(SCORERS)
    assert (plugin.name, plugin.label) == ("words", "toxtrail-words 1.0")
    config()
    assert "toxtrail_words" not in sys.modules


def test_options_of_a_plugin_are_validated_and_recorded(example):
    scorer = config({**SCORER, "plugin": pin().plain()}).scoring.scorers["s"]
    assert scorer.plain() == {**SCORER, "plugin": pin().plain()}
    assert scorer.code().known_heads(scorer, None) == ("listed",)
    assert "toxtrail-words 1.0" in scorer_limitations("s", scorer.plain(), corrected=False)
    engine = config(engine={"kind": "copying", "times": 2}).generation.engine
    assert engine.plain() == {"kind": "copying", "times": 2}


@pytest.mark.parametrize(
    ("scorer", "engine", "message"),
    [
        ({**SCORER, "enouhg": 3}, None, r's\.enouhg.*"enough"'),
        ({**SCORER, "enough": 0}, None, r"s\.enough"),
        ({**SCORER, "kind": "wrds"}, None, r"s\.kind.*'served-guard' or 'words'"),
        ({**SCORER, "plugin": {"version": "1"}}, None, r"s\.plugin\.distribution: missing"),
        (None, {"kind": "copying", "tims": 1}, r'engine\.tims.*"times"'),
        (None, {"kind": "copyin"}, r'"copyin".*"copying"'),
        (None, "vlm", r"generation\.engine"),
    ],
)
def test_a_wrong_option_is_named_with_its_place(example, scorer, engine, message):
    with pytest.raises(ConfigError, match=message):
        config(scorer, engine)


def test_the_hash_depends_on_every_byte_of_the_code_and_not_on_its_place(example, tmp_path):
    before = pin().sha256
    (example / "__pycache__").mkdir()
    (example / "__pycache__" / "words.cpython-311.pyc").write_bytes(b"compiled")
    assert pin().sha256 == before
    assert pin(BACKENDS, "copying").sha256 == before
    for path in sorted(example.glob("*.py")):
        content = path.read_bytes()
        path.write_bytes(content + b"\n")
        assert pin().sha256 != before, path.name
        path.write_bytes(content)
    (example / "more.txt").touch()
    assert pin().sha256 != before
    (example / "more.txt").rename(example / "other.txt")
    (example / "other.txt").unlink()
    assert pin().sha256 == before
    (example / "linked").symlink_to(tmp_path)
    with pytest.raises(ConfigError, match="linked"):
        pin()


def test_an_editable_install_has_the_same_hash(example, folder, monkeypatch, tmp_path):
    before = pin().sha256
    source = tmp_path / "source"
    source.mkdir()
    shutil.move(example, source / "toxtrail_words")
    monkeypatch.syspath_prepend(str(source))  # as its .pth file does
    assert pin().sha256 == before


def test_a_plugin_is_used_only_with_the_pin_of_its_code(example):
    assert plugin_problems(config()) == []
    (unpinned,) = plugin_problems(config(SCORER))
    assert "toxtrail pin" in unpinned
    pinned = {**SCORER, "plugin": pin().plain()}
    assert plugin_problems(config(pinned)) == []
    (other,) = plugin_problems(config({**SCORER, "plugin": PIN}))
    assert PIN["sha256"] in other
    assert pin().sha256 in other
    assert len(plugin_problems(config(pinned, {"kind": "copying", "times": 1}))) == 1


def test_other_code_is_another_condition_of_a_comparison():
    recorded = {**SCORER, "plugin": PIN}
    changed = {**SCORER, "plugin": {**PIN, "sha256": "1" * 64}}
    assert scorer_options(recorded) != scorer_options(changed)


def test_a_missing_plugin_can_be_read_and_not_used(folder):
    values = config({**SCORER, "plugin": PIN}, {"kind": "copying", "times": 2, "plugin": PIN})
    scorer = values.scoring.scorers["s"]
    assert isinstance(scorer, MissingPluginConfig)
    assert scorer.plain() == {**SCORER, "plugin": PIN}
    assert values.generation.engine.plain() == {"kind": "copying", "times": 2, "plugin": PIN}
    problems = plugin_problems(values)
    assert len(problems) == 2
    assert all("toxtrail-words 1.0 is not installed" in problem for problem in problems)
    with pytest.raises(ConfigError, match="words"):
        config(SCORER)


def test_a_name_that_two_distributions_provide_is_refused(example, folder):
    distribution(folder, "other-words", {SCORERS: ENTRIES[SCORERS]}, "2.0")
    both = "other-words 2.0 and toxtrail-words 1.0"
    with pytest.raises(ConfigError, match=both):
        config(SCORER)
    assert both in collisions(SCORERS, ["hf"])[0]
    assert plugin_problems(config()) == []


def test_the_name_of_a_built_in_kind_is_refused(folder):
    distribution(folder, "other-kinds", {SCORERS: "hf = a.b:C", BACKENDS: "vllm = a.b:C"})
    hf = {"kind": "hf", "uri": "file:x", "head": "a", "golden": [], "golden_tolerance": 0.1}
    for problem in plugin_problems(config(hf, "vllm")):
        assert "toxtrail 0" in problem
        assert "other-kinds 1.0" in problem
    assert len(plugin_problems(config(hf, "vllm"))) == 2
    assert len(collisions(SCORERS, ["hf"]) + collisions(BACKENDS, ["vllm"])) == 2


@pytest.mark.parametrize(
    ("code", "value"),
    [
        ("raise RuntimeError('no licence')", "broken_words:Config"),
        ("import not_a_module_at_all", "broken_words:Config"),
        ("class Config: pass", "broken_words:Config"),
        ("", "broken_words:Config"),
    ],
)
def test_a_plugin_that_cannot_be_imported_is_named_only_if_it_is_used(folder, code, value):
    distribution(folder, "broken-words", {SCORERS: f"broken = {value}"})
    (folder / "broken_words.py").write_text(code)
    assert plugin_problems(config()) == []
    assert len(installed_plugins(SCORERS)) == 1
    with pytest.raises(ConfigError, match=r"broken-words 1\.0"):
        config({**SCORER, "kind": "broken"})
    assert len(pin(SCORERS, "broken").sha256) == 64


def test_a_package_that_is_not_installed_has_no_hash(folder):
    distribution(folder, "broken-words", {SCORERS: "broken = broken_words:Config"})
    with pytest.raises(ConfigError, match=r"broken-words 1\.0"):
        pin(SCORERS, "broken")


def test_an_unpinned_kind_of_toxtrail_is_no_plugin():
    assert usage_problem("generation.engine", BACKENDS, "vllm", None) is None


@pytest.mark.parametrize(
    "entry",
    [
        "{kind: words, uri: 'file:a'}  # why\n",
        "\n      # why\n      kind: words  # a comment\n      uri: file:a\n",
        "\n      kind: words\n      plugin: null\n      uri: file:a\n",
        "\n      kind: words\n      plugin:\n      uri: file:a\n",
        "\n      kind: words\n      plugin:\n        distribution: x\n        version: '0'  # old\n"
        "      uri: file:a\n",
        "{plugin: {distribution: x}, kind: words, uri: 'file:a'}\n",
    ],
)
def test_a_pin_is_written_beside_the_kind(entry, tmp_path):
    path = tmp_path / "params.yaml"
    before = f"# top\nscoring:\n  scorers:\n    s: {entry}tail: 1\n"
    path.write_text(before)
    write_plugin_pins(path, {"scoring.scorers.s": PIN})
    values = yaml.safe_load(path.read_text())
    assert values["scoring"]["scorers"]["s"] == {"kind": "words", "uri": "file:a", "plugin": PIN}
    assert values["tail"] == 1
    assert path.read_text().count("# why") == before.count("# why")


def test_the_page_shows_the_example_as_it_is():
    page = (ROOT / "docs" / "plugins.md").read_text("utf-8")
    for path in (EXAMPLE.parents[1] / "pyproject.toml", *EXAMPLE.glob("[!_]*.py")):
        assert f"\n{path.read_text('utf-8').rstrip()}\n```" in page, path.name
