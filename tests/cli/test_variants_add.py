"""`toxtrail variants add`: what weights say of their origin, and what is written."""

from __future__ import annotations

import json

import numpy as np
import pytest
import yaml
from click.testing import CliRunner
from fake_hub import COMMIT, FakeHub, Repo, adapter, model, pointed_at, serving
from safetensors.numpy import save

from toxtrail.cli import cli
from toxtrail.config.load import load_config

pytestmark = pytest.mark.slow

PARAMS = """# My experiment.
prompts:
  seed: 1
  subsets:
    plain: {uri: "file:prompts.txt", n: 2}
generation: {max_new_tokens: 5, temperature: 0.0, top_p: 1.0, samples: 1, template: none,
             dtype: float32, seed: 1, max_error_share: 0.0}
scoring:
  primary: judge
  max_error_share: 0.0
  scorers:
    judge: {kind: hf, uri: "file:judge", head: toxic, golden: [], golden_tolerance: 0.1}
posterior: {threshold: {judge: 0.5}, rope_pp: 1.0, level: 0.95, prior: 0.5, draws: 1000, seed: 1}
pooling: null
models:                       # weights taken as they are
  base: {uri: "hf:org/Base"}  # the base
  chat:
    uri: hf:org/Chat@main     # tuned by its makers
  # a comment that stays
finetunes: {}
variants:
  base: {family: f, role: base}
  chat: {family: f, role: instruct, parent: base}   # the reference
families:
  f:
    reference: chat
    variants: [base, chat]    # everyone
tracking: {experiment: t, project: lab-0000abcd}
runtime: {device: cpu, threads: 1, processes: 1, engine: auto, batch_tokens: 64,
          score_batch_size: 4, checkpoint_steps: 2}
"""


@pytest.fixture
def hub(monkeypatch, tmp_path):
    with serving() as own:
        pointed_at(own, monkeypatch, tmp_path)
        own.models |= {"org/Base": model(), "org/Chat": model("org/Base", license="apache-2.0")}
        yield own


@pytest.fixture
def lab(tmp_path):
    (tmp_path / "lab").mkdir()
    (tmp_path / "lab/params.yaml").write_text(PARAMS, "utf-8")
    return tmp_path / "lab"


def add(lab, *arguments, code=0):
    done = CliRunner().invoke(cli, ["-C", str(lab), "variants", "add", *arguments])
    assert done.exit_code == code, done.output + str(done.exception)
    return done.output


def text(lab):
    return (lab / "params.yaml").read_text("utf-8")


def only_added(lab):
    """What is new in the file; nothing else may differ."""
    after = text(lab).split("\n")
    rest = PARAMS.replace("[base, chat]", "[base, chat, NEW]").split("\n")
    key = next(iter(load_config(lab / "params.yaml").variants.keys() - {"base", "chat"}))
    rest = [line.replace("NEW", key) for line in rest]
    assert [line for line in after if line in rest] == rest
    return [line for line in after if line not in rest]


def test_a_community_model_gets_its_parent_from_its_card_and_every_comment_stays(hub, lab):
    hub.models["org/Chat-German"] = model("org/Chat", license="apache-2.0", datasets=["org/data"])
    said = add(lab, "org/Chat-German")
    assert "names org/Chat, which is chat" in said
    assert "uploader's claim" in said
    config = load_config(lab / "params.yaml")
    assert config.models["chat-german"].uri == f"hf:org/Chat-German@{COMMIT}"
    who = config.variants["chat-german"]
    assert (who.family, who.role, who.parent) == ("f", "community", "chat")
    assert config.families["f"].variants == ["base", "chat", "chat-german"]
    new = only_added(lab)
    assert any("# license: apache-2.0" in line for line in new)
    assert any("# weak:" in line for line in new)


def test_a_card_that_names_another_base_is_refused_unless_the_user_insists(hub, lab):
    hub.models["org/other"] = model("org/Base")
    said = add(lab, "org/other", "--parent", "chat", code=1)
    assert "names org/Base, which is base" in said
    assert "--force" in said
    assert text(lab) == PARAMS
    add(lab, "org/other", "--parent", "chat", "--force")
    assert "weak: its card (base_model) names org/Base" in text(lab)


def test_missing_lineage_is_said_and_never_guessed(hub, lab):
    hub.models["org/silent"] = model()
    said = add(lab, "org/silent", code=1)
    assert "does not state it" in said
    assert "--parent" in said
    said = add(lab, "org/silent", "--parent", "chat")
    assert "state its parent" in said


def test_an_adapter_sits_on_its_parent_s_weights(hub, lab):
    hub.models["org/lora"] = adapter("org/Chat")
    add(lab, "org/lora")
    own = load_config(lab / "params.yaml").models["lora"]
    assert (own.uri, own.adapter.uri) == ("hf:org/Chat@main", f"hf:org/lora@{COMMIT}")


def test_an_adapter_cannot_sit_on_texts_from_a_file(hub, lab):
    hub.models["org/lora"] = adapter("/content/drive/my-model")
    values = '{uri: "file:a.jsonl", texts: {format: garak}}'
    changed = text(lab).replace('{uri: "hf:org/Base"}', values)
    (lab / "params.yaml").write_text(changed, "utf-8")
    said = add(lab, "org/lora", "--parent", "base", code=1)
    assert "base has texts" in said


def test_an_adapter_of_another_base_is_refused(hub, lab):
    hub.models["org/lora"] = adapter("org/Base")
    said = add(lab, "org/lora", "--parent", "chat", code=1)
    assert "adapter_config.json names org/Base" in said


def test_a_quantized_copy_of_the_parent_counts_as_the_parent_and_is_said(hub, lab):
    hub.models["copies/chat-bnb-4bit"] = model("org/Chat", base_model_relation="quantized")
    hub.models["org/lora"] = adapter("copies/chat-bnb-4bit")
    said = add(lab, "org/lora")
    assert "quantized copy of org/Chat" in said


def test_a_merge_names_what_else_is_in_it(hub, lab):
    hub.models["org/mix"] = model(["org/Chat", "else/where"])
    said = add(lab, "org/mix")
    assert "names else/where" in said
    assert "differs from chat" in said
    assert load_config(lab / "params.yaml").variants["mix"].role == "merge"


def test_a_merge_does_not_excuse_an_adapter_of_another_base(hub, lab):
    hub.models["org/lora"] = adapter("org/Base", base_model=["org/Chat", "else/where"])
    said = add(lab, "org/lora", "--parent", "chat", code=1)
    assert "adapter_config.json names org/Base" in said


def test_a_path_on_the_uploader_s_disk_says_nothing_either_way(hub, lab):
    hub.models["org/lora"] = adapter("/content/drive/my-model")
    said = add(lab, "org/lora", "--parent", "chat")
    assert "chat has no name" in " ".join(said.split())


def test_another_architecture_is_no_fine_tune(hub, lab):
    hub.models["org/odd"] = model("org/Chat")
    hub.models["org/odd"].config["model_type"] = "gemma"
    said = add(lab, "org/odd", code=1)
    assert "gemma, chat a llama" in said


@pytest.mark.parametrize(
    ("card", "said"),
    [
        ({"license": "cc-by-nc-4.0"}, "cc-by-nc-4.0: no commercial use"),
        ({"license": "cc-by-nd-4.0"}, "no changed versions"),
        ({"license": "other", "license_name": "house"}, "other (house): a custom license"),
        ({}, "no license is stated"),
    ],
)
def test_a_licence_that_forbids_is_shown(hub, lab, card, said):
    hub.models["org/tuned"] = model("org/Chat", **card)
    assert said in " ".join(add(lab, "org/tuned").split())


def test_a_plain_licence_needs_no_warning(hub, lab):
    hub.models["org/tuned"] = model("org/Chat", license="apache-2.0")
    assert "license: " not in add(lab, "org/tuned").split("---")[0]


@pytest.mark.parametrize(
    ("repo", "said"),
    [
        (Repo(files={"weights.pt": b"x", "config.json": b"{}"}), "it has no model.safetensors"),
        (Repo(files={"model.safetensors": b"x"}, tags=["custom_code"]), "never run"),
        (Repo(files={"adapter_config.json": b'{"peft_type": "IA3"}',
                     "adapter_model.safetensors": b"x"}), "peft_type 'IA3'"),
        (Repo(files={"adapter_config.json": b'{"peft_type": "LORA", "own_scale": 2}',
                     "adapter_model.safetensors": b"x"}), "own_scale = 2"),
    ],
)  # fmt: skip
def test_what_could_never_be_loaded_is_refused_now(hub, lab, repo, said):
    hub.models["org/bad"] = repo
    assert said in add(lab, "org/bad", "--parent", "chat", "--force", code=1)
    assert text(lab) == PARAMS


def test_a_gated_model_is_added_with_what_to_do(hub, lab):
    hub.models["org/gated"] = model("org/Chat")
    hub.models["org/gated"].gated, hub.models["org/gated"].open_to_us = "manual", False
    assert "must be accepted first" in " ".join(add(lab, "org/gated").split())


@pytest.mark.parametrize(
    ("name", "said"),
    [("org/none", "no such repo"), ("hf:org/Chat@v9", "repo has no v9")],
)
def test_what_is_not_there_is_said(hub, lab, name, said):
    assert said in add(lab, name, "--parent", "chat", code=1)


def test_a_gguf_repo_needs_the_name_of_one_file(hub, lab):
    files = {"a.Q4.gguf": b"x", "a.Q8.gguf": b"x"}
    hub.models["org/gguf"] = Repo(files=files, card={"base_model": "org/Chat"})
    assert "name one: hf:org/gguf@main/FILE (a.Q4.gguf, a.Q8.gguf)" in add(lab, "org/gguf", code=1)
    add(lab, "hf:org/gguf@main/a.Q4.gguf")
    assert load_config(lab / "params.yaml").models["a-q4"].uri == f"hf:org/gguf@{COMMIT}/a.Q4.gguf"


def test_a_local_folder_is_read_and_pinned_by_its_hash(hub, lab):
    folder = lab / "mine"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(save({"a": np.zeros(2)}))
    (folder / "config.json").write_text('{"model_type": "llama"}')
    (folder / "README.md").write_text("---\nbase_model: org/Chat\nlicense: mit\n---\nMine.\n")
    add(lab, str(folder))
    own = load_config(lab / "params.yaml").models["mine"]
    assert own.uri == "file:mine"
    assert len(own.sha256) == 64


def test_a_gguf_file_s_own_metadata_names_its_base(hub, lab):
    from gguf import GGUFWriter

    writer = GGUFWriter(lab / "mine.gguf", "llama")
    writer.add_base_model_count(1)
    writer.add_base_model_repo_url(0, "https://huggingface.co/org/Chat")
    writer.add_license("mit")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    said = add(lab, str(lab / "mine.gguf"))
    assert "metadata names org/Chat" in said


def test_a_dry_run_shows_the_difference_and_writes_nothing(hub, lab):
    hub.models["org/tuned"] = model("org/Chat")
    said = add(lab, "org/tuned", "--dry-run")
    assert "+  tuned: {family: f, role: community, parent: chat}" in said
    assert text(lab) == PARAMS
    found = json.loads(add(lab, "org/tuned", "--dry-run", "--json"))
    assert found["proposal"]["parent"] == "chat"
    assert found["candidate"]["claims"][0]["base"] == "org/Chat"
    assert not found["written"]


def test_a_second_time_is_refused(hub, lab):
    hub.models["org/tuned"] = model("org/Chat")
    add(lab, "org/tuned")
    assert '"tuned" exists already' in add(lab, "org/tuned", code=1)
    assert "already listed: models.tuned" in add(lab, "org/tuned", "--key", "t", code=1)


def test_a_base_of_a_new_family_needs_no_parent(hub, lab):
    hub.models["org/new"] = model()
    assert "needs a family" in add(lab, "org/new", "--base", code=1)
    add(lab, "org/new", "--base", "--family", "g", "--role", "base")
    assert load_config(lab / "params.yaml").families["g"].reference == "new"


def test_a_parent_of_another_family_is_refused_and_nothing_is_written(hub, lab):
    hub.models["org/tuned"] = model("org/Chat")
    said = add(lab, "org/tuned", "--family", "g", code=1)
    assert 'family "f", not in "g"' in said
    assert text(lab) == PARAMS


def test_what_a_card_says_cannot_break_the_file(hub, lab):
    evil = "org/Chat\n  evil: {uri: x}"
    hub.models["org/tuned"] = model(evil, license="mit\nmodels: {}")
    add(lab, "org/tuned", "--parent", "chat", "--force")
    assert set(yaml.safe_load(text(lab))["models"]) == {"base", "chat", "tuned"}


def test_with_the_hub_out_of_reach_it_says_so(lab, monkeypatch, tmp_path):
    silent = FakeHub()
    silent.server_close()
    pointed_at(silent, monkeypatch, tmp_path)
    assert "HF_ENDPOINT" in add(lab, "org/tuned", "--parent", "chat", code=1)


def test_the_list_is_still_what_the_bare_command_prints(lab):
    done = CliRunner().invoke(cli, ["-C", str(lab), "variants"])
    assert done.exit_code == 0
    assert "chat" in done.output
    rows = json.loads(CliRunner().invoke(cli, ["-C", str(lab), "variants", "--json"]).output)
    assert [row["variant"] for row in rows] == ["base", "chat"]


@pytest.mark.parametrize(
    ("content", "word"),
    [(b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"), (b"", "empty")],
)
@pytest.mark.parametrize("kind", ["model", "adapter"])
def test_weights_that_are_none_are_not_added(hub, lab, kind, content, word):
    folder = lab / "mine"
    folder.mkdir()
    name = "model.safetensors" if kind == "model" else "adapter_model.safetensors"
    (folder / name).write_bytes(content)
    (folder / "config.json").write_text('{"model_type": "llama"}')
    if kind == "adapter":
        settings = {"peft_type": "LORA", "base_model_name_or_path": "org/Chat"}
        (folder / "adapter_config.json").write_text(json.dumps(settings))
    said = add(lab, str(folder), "--parent", "chat", code=1)
    assert name in said
    assert word in said
    assert text(lab) == PARAMS


@pytest.mark.parametrize(
    "section",
    ["", "assets: {outside: [/data/a]}\n", "assets:\n  outside:\n    - /data/a   # ours\n"],
)
def test_a_folder_elsewhere_is_added_with_its_permission(hub, lab, tmp_path, section):
    folder = tmp_path / "shared: models/mine"
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(save({"a": np.zeros(2)}))
    (folder / "config.json").write_text('{"model_type": "llama"}')
    (lab / "params.yaml").write_text(PARAMS + section, "utf-8")
    add(lab, str(folder), "--parent", "chat", "--force")
    config = load_config(lab / "params.yaml")
    assert config.models["mine"].uri == f"file:{folder}"
    before = ["/data/a"] if section else []
    assert list(config.outside) == [*before, str(folder)]
    assert "# a comment that stays" in text(lab)
    add(lab, str(folder), "--key", "other", "--parent", "chat", code=1)


def folder_of(lab, config='{"model_type": "llama"}', readme="---\nlicense: mit\n---\n"):
    folder = lab / "mine"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(save({"a": np.zeros(2)}))
    (folder / "config.json").write_text(config)
    (folder / "README.md").write_bytes(readme if isinstance(readme, bytes) else readme.encode())
    return str(folder)


@pytest.mark.parametrize(
    "line",
    ["a: b: c", "\tx", "by: @x", "is: *pic", "\0", "a: !!python/name:os.x", "on: 2024-13-45"],
)
def test_a_card_that_cannot_be_read_is_a_note(hub, lab, line):
    said = add(lab, folder_of(lab, readme=f"---\nlicense: mit\n{line}\n---\n"), "--parent", "chat")
    assert "README.md could not" in " ".join(said.split())
    assert load_config(lab / "params.yaml").models["mine"].uri == "file:mine"


def test_a_card_whose_values_are_huge_once_written_out_is_no_trouble(hub, lab):
    bomb = "a: &a [x, x]\n" + "".join(
        f"{after}: &{after} [{', '.join([f'*{before}'] * 9)}]\n"
        for before, after in zip("abcdefghij", "bcdefghijk")
    )
    add(lab, folder_of(lab, readme=f"---\n{bomb}tags: *k\nlicense: *k\n---\n"), "--parent", "chat")


def test_code_beside_a_type_that_transformers_knows_is_no_obstacle(hub, lab):
    config = {"model_type": "llama", "auto_map": {"AutoModelForCausalLM": "own.Model"}}
    hub.models["org/own"] = model("org/Chat")
    hub.models["org/own"].config |= config
    hub.models["org/own"].tags.append("custom_code")
    add(lab, "org/own")
    add(lab, folder_of(lab, json.dumps(config)), "--parent", "chat")


@pytest.mark.parametrize(
    "config", [{"model_type": "own", "auto_map": {}}, {"model_type": ["llama"]}]
)
def test_a_type_that_the_stages_would_refuse_is_refused_now(hub, lab, config):
    said = add(lab, folder_of(lab, json.dumps(config)), "--parent", "chat", "--force", code=1)
    assert "model_type" in said
    assert text(lab) == PARAMS


def test_an_adapter_s_own_tokenizer_is_said(hub, lab):
    hub.models["org/lora"] = adapter("org/Chat")
    hub.models["org/lora"].files["chat_template.jinja"] = b"x"
    assert "a tokenizer" in " ".join(add(lab, "org/lora").split())


def test_a_gguf_file_whose_metadata_have_other_types_is_still_added(hub, lab):
    from gguf import GGUFWriter

    writer = GGUFWriter(lab / "MINE.GGUF", "llama")
    writer.add_string("general.base_model.count", "two")
    writer.add_uint32("general.license", 5)
    writer.add_uint32("general.tags", 5)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    add(lab, str(lab / "MINE.GGUF"), "--parent", "chat")


def test_a_name_on_a_server_is_added_with_its_url(lab):
    chat = text(lab).replace("template: none", "template: chat")
    (lab / "params.yaml").write_text(chat, "utf-8")
    options = ("api:org/gpt-x", "--url", "https://host/v1")
    add(lab, *options, "--base", "--family", "apis", "--dry-run")
    assert text(lab) == chat
    add(lab, *options, "--base", "--family", "apis")
    add(lab, *options, "--parent", "org-gpt-x", "--key", "two")
    config = load_config(lab / "params.yaml")
    assert config.api_name_of("org-gpt-x") == config.api_name_of("two") == "org/gpt-x"
    assert config.variants["two"].parent == "org-gpt-x"
    assert config.families["apis"].variants == ["org-gpt-x", "two"]
    assert {server.url for server in (config.runtime.servers or {}).values()} == {"https://host/v1"}
    assert "# a comment that stays" in text(lab)


@pytest.mark.parametrize(
    "options",
    [("api:x",), ("api:x", "--url", "https://h/v1"), ("hf:org/Name", "--url", "https://h/v1"),
     ("api:x", "--url", "https://h/v1", "--base")],
)  # fmt: skip
def test_what_a_name_on_a_server_needs(lab, options):
    add(lab, *options, code=2)


def test_a_name_on_a_server_needs_the_chat_template(lab):
    before = text(lab)
    add(lab, "api:x", "--url", "https://h/v1", "--base", "--family", "f2", code=1)
    assert text(lab) == before
