"""`toxtrail init --base` and what `toxtrail quick` refuses; nothing is run."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from fake_hub import COMMIT, adapter, model
from huggingface_hub import constants
from safetensors.numpy import save

from toxtrail.backends import git
from toxtrail.backends.assets import default_cache, download
from toxtrail.backends.assets.store import AssetStore
from toxtrail.backends.protocols import NoProgress
from toxtrail.cli._new_models import free_key
from toxtrail.cli.quick import default_folder
from toxtrail.config.load import load_config

pytestmark = pytest.mark.slow

PINNED = f"@{COMMIT}"
ONE_LAYER = {
    "model_type": "llama", "vocab_size": 4, "hidden_size": 16, "intermediate_size": 16,
    "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 2,
}  # fmt: skip


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch, hub):
    """An empty folder, with the hub of the fixture."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setattr(download, "is_reachable", lambda url: False)
    for person in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{person}_NAME", "test")
        monkeypatch.setenv(f"GIT_{person}_EMAIL", "test@example.org")
    hub.models["org/Base"] = model()
    hub.models["org/Base"].files["config.json"] = json.dumps(ONE_LAYER).encode()
    hub.models["org/Tuned"] = model("org/Base")
    hub.models["org/Other"] = model("org/base-of-another")
    hub.models["org/Lora"] = lora_on_the_hub(tmp_path / "lora", 16)
    (tmp_path / "here/own.csv").write_text("id,prompt\n1,one\n2,two\n3,three\n", "utf-8")
    return tmp_path / "here"


def write_lora(folder, columns, base, scale=1):
    config = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": ["q_proj"],
              "task_type": "CAUSAL_LM", "base_model_name_or_path": base}  # fmt: skip
    folder.mkdir()
    (folder / "adapter_config.json").write_text(json.dumps(config))
    name = "base_model.model.model.layers.0.self_attn.q_proj.lora_"
    tensors = {f"{name}A.weight": np.ones((2, columns), "float32"),
               f"{name}B.weight": np.full((columns, 2), scale, "float32")}  # fmt: skip
    (folder / "adapter_model.safetensors").write_bytes(save(tensors))


def lora_on_the_hub(folder, columns, scale=1):
    write_lora(folder, columns, "org/Base", scale)
    repo = adapter("org/Base")
    repo.files |= {path.name: path.read_bytes() for path in folder.iterdir()}
    return repo


def config_of(here, name="mine"):
    return load_config(here / name / "params.yaml")


def write_texts(path, *prompts):
    lines = [json.dumps({"prompt": p, "text": f"{p}."}) + "\n" for p in prompts]
    path.write_text("".join(lines), "utf-8")


def make(run, *options, code=0):
    return run("init", "mine", "--prompts", "own.csv", *options, code=code)


def test_models_of_the_hub_are_pinned_with_their_parent(run, here):
    output = make(run, "--base", "org/Base", "--tuned", "org/Tuned", "--tuned", "org/Lora@main")
    config = config_of(here)
    assert config.unpinned() == []
    assert config.models["tuned"].uri == f"hf:org/Tuned{PINNED}"
    assert config.models["lora"].uri == f"hf:org/Base{PINNED}"
    assert config.models["lora"].adapter.uri == f"hf:org/Lora{PINNED}"
    assert [(v.role, v.parent) for v in config.variants.values()] == [
        ("base", None), ("community", "base"), ("community", "base"),
    ]  # fmt: skip
    assert config.families["base-family"].reference == "base"
    assert (config.generation.dtype, config.generation.template) == ("float32", "none")
    assert "jigsaw-bilstm (its files are in packages" in output
    assert "prompts: all 3" in output
    assert "which is base" in output
    text = (here / "mine/params.yaml").read_text("utf-8")
    assert "# models" not in text.partition("runtime:")[0].lower().partition("families:")[2]
    assert "  temperature: 0.0            # 0 is greedy" in text
    assert sorted(p.name for p in (here / "mine/data/sources").iterdir()) == ["own.csv"]
    assert git.head_commit(here / "mine")
    assert "match their pins" in run("-C", "mine", "check")


def test_detoxify_is_the_scorer_where_it_can_be_downloaded(run, here, hub, monkeypatch):
    hub.models["FacebookAI/roberta-base"] = model()
    output = make(run, "--base", "org/Base", "--tuned", "org/Tuned", code=0)
    assert "its release on GitHub, which cannot be reached" in output
    shutil.rmtree(here / "mine")
    monkeypatch.setattr(download, "is_reachable", lambda url: url.endswith(".ckpt"))
    monkeypatch.setattr("toxtrail.cli._new_experiment._write_missing_pins", lambda root: None)
    make(run, "--base", "org/Base", "--tuned", "org/Tuned")
    scoring = config_of(here).scoring
    assert list(scoring.scorers) == [scoring.primary] == ["detoxify-unbiased"]
    assert scoring.scorers["detoxify-unbiased"].uri == "detoxify:unbiased"


def test_a_scorer_is_taken_from_the_published_ones(run, here, hub):
    hub.models["facebook/roberta-hate-speech-dynabench-r4-target"] = model()
    make(run, "--base", "org/Base", "--scorer", "roberta-dynabench")
    config = config_of(here)
    assert config.scoring.primary == "roberta-dynabench"
    assert config.posterior.threshold == {"roberta-dynabench": 0.5}
    assert config.unpinned() == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--base", "org/Lora"], "is an adapter, so it cannot be the base"),
        (["--base", "org/Base", "--tuned", "org/Base"], "given twice"),
        (["--base", "org/Base", "--tuned", "hf:org/Base@main"], "already listed"),
        (["--base", "org/Base", "--tuned", "org/Other"], "names org/base-of-another"),
        (["--base", "org/Base", "--tuned", "./missing"], "no such file or folder"),
        (["--base", "org/Base", "--tuned", "out.gguf"], "no such file or folder"),
        (["--base", "org/Base", "--tuned", "out/lora"], "no file or folder out/lora"),
        (["--base", "org/Base", "--tuned", "a/b/c"], "nor a Hub id"),
        (["--base", "org/Base", "--tuned", "own.csv"], "own.csv is a file of texts"),
        (["--base", "org/Base", "--tuned", "api:x"], "a name on a server"),
        (["--base", "org/Base", "--column", "x"], 'no column "x"'),
        (["--base", "org/Base", "--scorer", "x"], 'Unknown scorer "x"'),
    ],
)
def test_what_cannot_be_measured_is_refused_before_anything_is_written(run, here, options, message):
    assert message in " ".join(make(run, *options, code=1).split())
    assert [path.name for path in here.iterdir()] == ["own.csv"]


def test_options_of_models_need_a_base(run):
    assert "--prompts need --base" in make(run, code=2)
    assert "not both" in make(run, "--base", "org/Base", "--preset", "demo", code=2)


def test_a_local_adapter_must_fit_its_base_and_change_it(run, here, tiny_llama):
    tiny_llama(here / "base")
    write_lora(here / "fits", 16, str(here / "base"))
    write_lora(here / "other", 32, "somewhere/else")
    write_lora(here / "idle", 16, str(here / "base"), scale=0)
    output = make(run, "--base", "base", "--tuned", "other", code=1)
    assert "does not fit the base model" in output
    assert "zero" in make(run, "--base", "base", "--tuned", "idle", code=1)
    assert not (here / "mine").exists()
    shutil.copytree(here / "base", here / "copy")
    assert "same content as the base" in make(run, "--base", "base", "--tuned", "copy", code=1)
    output = make(run, "--base", "base", "--tuned", "fits")
    assert "LoRA adapter" in output
    assert config_of(here).models["fits"].adapter.sha256


def test_an_adapter_on_the_hub_must_fit_its_base_and_change_it(run, here, hub, tmp_path):
    hub.models["org/Wide"] = lora_on_the_hub(tmp_path / "wide", 32)
    hub.models["org/Idle"] = lora_on_the_hub(tmp_path / "idle", 16, scale=0)
    output = make(run, "--base", "org/Base", "--tuned", "org/Wide", code=1)
    assert "does not fit the base model" in output
    assert "zero" in make(run, "--base", "org/Base", "--tuned", "org/Idle", code=1)
    assert not (here / "mine").exists()
    config = hub.models["org/Base"].files.pop("config.json")
    hub.models["org/Base"].files["config.json"] = config[:9]
    output = make(run, "--base", "org/Base", "--tuned", "org/Lora", code=1)
    assert "config.json cannot be read" in " ".join(output.split())
    assert not (here / "mine").exists()
    del hub.models["org/Base"].files["config.json"]  # it is checked with the weights
    make(run, "--base", "org/Base", "--tuned", "org/Idle")
    assert not [path for path in hub.asked if "org/Base/resolve" in path and "safetensors" in path]


def test_an_adapter_in_the_cache_is_compared_with_its_base_without_the_hub(
    run, here, hub, tmp_path, monkeypatch
):
    hub.models["org/Idle"] = lora_on_the_hub(tmp_path / "idle", 16, scale=0)
    weights = save({"model.norm.weight": np.ones(16, "float32")})
    hub.models["org/Base"].files["model.safetensors"] = weights
    assets = AssetStore(default_cache(), here, NoProgress(), ())
    for name in ("Base", "Idle"):
        assets.fetch(f"hf:org/{name}{PINNED}", None)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    pinned = ("--base", f"org/Base{PINNED}", "--tuned", f"org/Idle{PINNED}")
    assert "zero" in make(run, *pinned, code=1)
    assert not (here / "mine").exists()


def test_the_folder_of_quick_is_that_of_the_command_group_too(run, here):
    make(run, "--base", "org/Base", "--tuned", "org/Tuned")
    quick = ("quick", "org/Base", "org/Other")
    assert "names org/base-of-another" in run("-C", "mine", *quick, code=1)
    assert "mutually exclusive" in run("-C", "mine", *quick, "--dir", "other", code=2)
    assert "existing experiment" in run("-C", "mine", "init", "other", code=2)
    assert sorted(path.name for path in here.iterdir()) == ["mine", "own.csv"]


def test_two_files_of_texts_bring_their_prompts(run, here):
    write_texts(here / "before.jsonl", "one", "two", "three")
    write_texts(here / "after.jsonl", "three", "one", "four")
    shutil.copy(here / "before.jsonl", here / "copy.jsonl")
    output = run("init", "mine", "--base", "before.jsonl", "--tuned", "copy.jsonl", code=1)
    assert "same content as the base" in output
    options = ("--base", "before.jsonl", "--tuned", "after.jsonl")
    assert "Remove them" in make(run, *options, code=1)
    run("init", "mine", *options, "--n", "1")
    config = config_of(here)
    assert config.prompts.subsets["texts"].n == 1
    assert config.texts_of("after").text == "text"
    assert config.variants["after"].parent == "before"
    lines = (here / "mine/data/sources/prompts.jsonl").read_text("utf-8").splitlines()
    assert [json.loads(line)["prompt"] for line in lines] == ["one", "three"]
    quick = ("quick", "before.jsonl", "after.jsonl", "--dir", "mine", "--n")
    assert "other prompts" in run(*quick, "2", code=1)
    (here / "mine/code/score.sha256").write_text("another version's")
    assert "has other code than this experiment, for: score" in run(*quick, "1", code=1)


def test_quick_in_another_folder_or_with_other_settings_is_refused(run, here):
    def quick(*arguments):
        output = run("quick", *arguments, "--dir", "mine", code=1)
        return " ".join(output.split())

    (here / "notes").mkdir()
    (here / "notes/a.txt").write_text("mine")
    output = run("quick", "org/Base", "org/Tuned", "--prompts", "own.csv", "--dir", "notes", code=1)
    assert "notes is not empty" in " ".join(output.split())
    make(run, "--base", "org/Base", "--tuned", "org/Tuned")
    before = (here / "mine/params.yaml").read_bytes()
    assert "reference of none" in quick("org/Other", "org/Tuned")
    assert "reference of none" in quick("org/Tuned", "org/Lora")
    assert "other prompts" in quick("org/Base", "org/Lora", "--prompts", "own.csv", "--n", "2")
    assert "not detoxify-original" in quick("org/Base", "org/Lora", "--scorer", "detoxify-original")
    assert "names org/base-of-another" in quick("org/Base", "org/Other")
    assert (here / "mine/params.yaml").read_bytes() == before


def test_the_folder_is_named_after_the_base(here):
    assert default_folder("Org/Some.Model@v2").name == "toxtrail-some-model"
    assert default_folder("own.csv").name == "toxtrail-own"
    assert default_folder("path/to/Base/").name == "toxtrail-base"


def test_a_key_that_exists_gets_a_number(run, here):
    make(run, "--base", "org/Base", "--tuned", "org/Tuned")
    config = config_of(here)
    assert free_key("new", config) == "new"
    assert free_key("base", config) == "base-2"
    assert free_key("base-family", config) == "base-family-2"
