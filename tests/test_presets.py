"""The presets: whole experiments that come with the package."""

from __future__ import annotations

import re
import textwrap
from collections import Counter
from pathlib import Path

import pytest

from toxtrail.config.asset_uris import HfUri, parse_uri
from toxtrail.config.load import load_config, read_yaml
from toxtrail.config.yaml_text import parse_yaml
from toxtrail.pipeline import SOURCE
from toxtrail.scaffold import PRESETS, preset_path

ROOT = Path(__file__).resolve().parents[1]
FROM_HUB = ["hub", "paper"]


@pytest.fixture(scope="module")
def paper():
    return load_config(preset_path("paper"))


def repos(config):
    return [
        address.repo
        for _, source in config.sources()
        if isinstance(address := parse_uri(source.uri), HfUri)
    ]


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_is_a_right_params_yaml(preset):
    assert bool(load_config(preset_path(preset)).variants) == (preset != "empty")


def yaml_texts():
    """The YAML of the package, and each block of it in the documentation."""
    for path in sorted((SOURCE / "presets").rglob("*.yaml")):
        yield pytest.param(path.read_text("utf-8"), id=path.name)
    for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))):
        blocks = re.findall(r"^ *```yaml\n(.*?)^ *```", path.read_text("utf-8"), re.M | re.S)
        for number, block in enumerate(blocks):
            yield pytest.param(textwrap.dedent(block), id=f"{path.name} {number}")


@pytest.mark.parametrize("text", list(yaml_texts()))
def test_every_yaml_is_read_alike_by_all_parsers(text):
    parse_yaml(text)


def test_the_empty_preset_has_the_scorer_and_the_prompts_of_the_demo():
    empty, demo = (load_config(preset_path(name)) for name in ("empty", "demo"))
    assert empty.scoring == demo.scoring
    assert empty.posterior == demo.posterior
    for key, subset in demo.prompts.subsets.items():
        assert empty.prompts.subsets[key] == subset.model_copy(update={"n": 50})


def test_there_is_no_other_preset():
    assert {path.stem for path in (SOURCE / "presets").glob("*.yaml")} - {"paper_published"} == set(
        PRESETS
    )


def test_the_demo_is_the_repositorys_own_experiment():
    assert preset_path("demo").read_bytes() == (ROOT / "params.yaml").read_bytes()
    own = {path.name: path.read_bytes() for path in (ROOT / "data" / "sources").iterdir()}
    carried = {path.name: path.read_bytes() for path in (SOURCE / "presets/sources").iterdir()}
    assert carried == own


def test_the_demos_local_files_come_along():
    config = load_config(preset_path("demo"))
    named = {s.uri for _, s in config.sources() if s.uri.startswith("file:")}
    here = {f"file:data/sources/{p.name}" for p in (SOURCE / "presets/sources").iterdir()}
    assert named <= here


@pytest.mark.parametrize("preset", FROM_HUB)
def test_no_commit_or_hash_is_invented(preset):
    assert not re.search(r"[0-9a-f]{40}", preset_path(preset).read_text("utf-8"))


def test_the_paper_preset_has_the_papers_models(paper):
    assert Counter(who.role for who in paper.variants.values()) == {
        "base": 4,
        "instruct": 6,
        "dolly-authors": 6,
        "dolly": 6,
        "community": 4,
    }
    assert set(repos(paper)) >= {
        "microsoft/Phi-3-mini-4k-instruct",
        "mlkro/Phi-3-mini-4k-instruct-bnb-4bit-dolly-toxicity-study",
        "microsoft/Phi-3.5-mini-instruct",
        "mlkro/Phi-3.5-mini-instruct-dolly-toxicity-study",
        "meta-llama/Llama-2-7b-hf",
        "meta-llama/Llama-2-7b-chat-hf",
        "mlkro/llama-2-7b-chat-bnb-4bit-dolly-toxicity-study",
        "georgesung/llama2_7b_chat_uncensored",
        "meta-llama/Llama-3.1-8B",
        "meta-llama/Llama-3.1-8B-Instruct",
        "mlkro/Meta-Llama-3.1-8B-Instruct-bnb-4bit-dolly-toxicity-study",
        "shenzhi-wang/Llama3.1-8B-Chinese-Chat",
        "VAGOsolutions/Llama-3.1-SauerkrautLM-8b-Instruct",
        "google/gemma-2b",
        "google/gemma-2b-it",
        "mlkro/gemma-2b-it-bnb-4bit-dolly-toxicity-study",
        "google/gemma-2-2b",
        "google/gemma-2-2b-it",
        "mlkro/gemma-2-2b-it-bnb-4bit-dolly-toxicity-study",
        "IlyaGusev/gemma-2-2b-it-abliterated",
        "allenai/real-toxicity-prompts",
        "databricks/databricks-dolly-15k",
        "facebook/roberta-hate-speech-dynabench-r4-target",
    }


def test_the_paper_preset_makes_the_papers_three_comparisons(paper):
    roles = {key: who.role for key, who in paper.variants.items()}
    pairs = Counter(
        (roles[who.parent], who.role) for who in paper.variants.values() if who.parent is not None
    )
    assert pairs["base", "instruct"] == 4
    assert pairs["instruct", "dolly"] == pairs["instruct", "dolly-authors"] == 6
    assert all(roles[family.reference] == "instruct" for family in paper.families.values())


def test_the_paper_preset_has_the_papers_numbers(paper):
    subsets = {key: subset.n for key, subset in paper.prompts.subsets.items()}
    assert sum(subsets.values()) == 2400
    assert subsets["random"] == 1000
    made = paper.generation
    assert (made.max_new_tokens, made.temperature, made.samples) == (50, 0.0, 1)
    assert (made.template, made.dtype) == ("none", "float16")
    assert paper.posterior.threshold == {"dynabench": 0.5, "detoxify": 0.5}
    scorer = paper.scoring.scorers[paper.scoring.primary]
    assert (scorer.kind, scorer.head) == ("hf", "hate")
    for recipe in paper.finetunes.values():
        assert (recipe.lora.r, recipe.lora.alpha, recipe.lora.dropout) == (16, 16, 0.0)
        assert (recipe.batch_size, recipe.accumulation, recipe.epochs) == (2, 8, 1.0)
        assert (recipe.learning_rate, recipe.warmup_steps, recipe.schedule) == (2e-4, 5, "linear")
        assert (recipe.max_length, recipe.loss_on, recipe.weight_decay) == (2048, "all", 0.01)
        assert recipe.seed == 3407


def test_gated_models_are_marked_in_the_preset_and_named_in_the_docs(paper):
    text, docs = preset_path("paper").read_text("utf-8"), (ROOT / "docs/paper.md").read_text()
    gated = {repo for repo in repos(paper) if repo.startswith(("meta-llama/", "google/"))}
    assert len(gated) == 8
    for line in text.splitlines():
        if any(re.search(rf"hf:{repo}\b", line) for repo in gated):
            assert "# gated:" in line, line
    assert all(f"`{repo}`" in docs for repo in gated)


def test_uncertain_details_are_explained_in_the_docs():
    docs = (ROOT / "docs/paper.md").read_text("utf-8")
    table = docs[docs.index("## Uncertain details") : docs.index("## Differences from")]
    for key in ("severe", "ceb-*", "llama2-7b-uncensored", "llama31-8b-chinese",
                "gemma2-2b-abliterated", "phi3-mini-authors", "phi35-mini-authors",
                "posterior.level"):  # fmt: skip
        assert key in table, key


def test_literal_ways_in_comments_are_valid_values(paper):
    """Values in comments that a user may uncomment are accepted."""
    values = read_yaml(preset_path("paper"))
    recipe = values["finetunes"]["llama2-7b-dolly"]
    literal = re.search(r'^ *# (template: ".*")$', preset_path("paper").read_text("utf-8"), re.M)
    assert literal is not None
    recipe |= {
        "template": literal[1].partition(": ")[2].strip('"'),
        "base_precision": "4bit",
        "optimizer": "adamw_8bit",
    }
    from toxtrail.config.load import parse_config

    made = parse_config(values, "params.yaml").finetunes["llama2-7b-dolly"]
    assert made.template == "<s>[INST] {instruction} [/INST] {response}"


@pytest.mark.parametrize("preset", FROM_HUB)
def test_pins_can_be_written_into_it_with_every_comment_kept(preset, tmp_path):
    """Merges and aliases are no hindrance: each address is written out at its own place."""
    from toxtrail.config.edit_params import Pin, write_pins

    path = tmp_path / "params.yaml"
    path.write_bytes(preset_path(preset).read_bytes())
    pins = []
    for place, source in load_config(path).sources():
        address = parse_uri(source.uri)
        if isinstance(address, HfUri):
            kind = "datasets/" if address.repo_type == "dataset" else ""
            file = f"/{address.path}" if address.path else ""
            uri = f"hf:{kind}{address.repo}@{'a' * 40}{file}"
            pins.append(Pin(place, source.uri, uri, None, True))
        else:
            pins.append(Pin(place, source.uri, source.uri, "b" * 64, True))
    write_pins(path, pins)
    assert load_config(path).unpinned() == []
    before, after = preset_path(preset).read_text("utf-8"), path.read_text("utf-8")
    assert re.findall("#.*", before) == re.findall("#.*", after)
