"""params.yaml: strict, all problems at once, each with its cure."""

from __future__ import annotations

import copy
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from toxtrail.config.load import load_config, parse_config, read_yaml
from toxtrail.config.schema import Config
from toxtrail.config.sections import ConfigSection
from toxtrail.errors import ConfigError

SERVER = {"url": "http://127.0.0.1:8000/v1", "concurrency": 4, "timeout": 60.0, "max_attempts": 3}
VALUES = yaml.safe_load((Path(__file__).parents[2] / "params.yaml").read_text("utf-8"))


def changed(path: str, value: Any) -> dict[str, Any]:
    """The default experiment with one value changed; `...` removes it."""
    values = copy.deepcopy(VALUES)
    *parents, last = path.split("/")
    place = values
    for name in parents:
        place = place[name]
    if value is ...:
        del place[last]
    else:
        place[last] = value
    return values


def refused(values: Any) -> str:
    with pytest.raises(ConfigError, match=r"params\.yaml has \d+ problem") as caught:
        parse_config(values, "params.yaml")
    return str(caught.value)


def test_the_default_experiment_is_valid():
    config = parse_config(VALUES, "params.yaml")
    assert config.variants["smollm2-rude"].parent == "smollm2-instruct"


def test_a_server_is_said_apart_from_the_name_under_which_it_holds_the_weights():
    values = changed("variants/smollm2-rude/served_model_name", "org/rude")
    values["runtime"]["servers"] = {"smollm2-rude": SERVER}
    assert (
        parse_config(values, "params.yaml").variants["smollm2-rude"].served_model_name == "org/rude"
    )


TEXTS = {"uri": "file:a.jsonl", "texts": {"format": "table", "prompt": "p", "text": "t"}}


def test_texts_from_a_file_have_no_weights_to_tune_serve_or_adapt():
    values = changed("models/smollm2-instruct", {**TEXTS, "adapter": {"uri": "file:lora"}})
    values["variants"]["smollm2-instruct"]["served_model_name"] = "org/m"
    text = refused(values)
    assert "models.smollm2-instruct.adapter: " in text
    assert "variants.smollm2-instruct.served_model_name: " in text
    assert "smollm2-instruct is a file" in text


API = {"uri": "api:org/gpt-x:free"}
API_SERVER = {"url": "http://h/v1", "concurrency": 1, "timeout": 1.0, "max_attempts": 1}


def api_values(template="chat", **variant):
    """A configuration with a name on a server."""
    values = changed("generation/template", template)
    values["models"]["gpt"] = API
    values["variants"]["gpt"] = {"family": "smollm2-135m", "role": "api", **variant}
    values["families"]["smollm2-135m"]["variants"].append("gpt")
    values["runtime"]["servers"] = {"gpt": API_SERVER}
    return values


def test_a_name_on_a_server_is_a_model_without_files_for_chat_messages():
    config = parse_config(api_values(), "params.yaml")
    assert (config.api_name_of("gpt"), config.is_served("gpt")) == ("org/gpt-x:free", True)
    assert "models.gpt" not in dict(config.sources())
    assert not [line for line in config.unpinned() if "gpt" in line]
    assert "generation.template" in refused(api_values("none"))
    assert "variants.gpt.served_model_name" in refused(api_values(served_model_name="gpt"))
    for name, value in {"sha256": "0" * 64, "adapter": {"uri": "file:a"}}.items():
        values = api_values()
        values["models"]["gpt"] = {**API, name: value}
        assert f"models.gpt.{name}" in refused(values)
    values = api_values()
    values["finetunes"]["smollm2-rude"]["parent"] = "gpt"
    assert "finetunes.smollm2-rude.parent" in refused(values)


@pytest.mark.parametrize("uri", ["api:", "api: x", "api:x ", "api:a\nb", "api:a\x1bb"])
def test_a_name_on_a_server_is_printable(uri):
    values = api_values()
    values["models"]["gpt"] = {"uri": uri}
    assert "models.gpt.uri" in refused(values)


def test_only_models_are_names_on_a_server():
    assert "prompts.subsets.neutral.uri" in refused(changed("prompts/subsets/neutral/uri", "api:x"))


@pytest.mark.parametrize(
    "reader",
    [{"format": "table"}, {"format": "xml"}, {"format": "garak", "text": "t"}, {"prompt": "p"}],
)
def test_how_texts_are_read_is_checked(reader):
    assert "models.smollm2-instruct.texts" in refused(
        changed("models/smollm2-instruct/texts", reader)
    )


def test_several_samples_at_temperature_0_are_allowed_where_nothing_is_generated():
    values = changed("generation/samples", 3)
    assert "generation.samples" in refused(values)
    values["models"] = {"given": TEXTS}
    values["finetunes"] = {}
    values["variants"] = {"given": {"family": "f", "role": "community"}}
    values["families"] = {"f": {"reference": "given", "variants": ["given"]}}
    assert parse_config(values, "params.yaml").texts_of("given") is not None


def test_every_asset_of_the_default_experiment_is_pinned():
    assert parse_config(VALUES, "params.yaml").unpinned() == []


def test_all_problems_are_reported_at_once():
    values = changed("posterior/threshold", ...)
    values["posterior"]["treshold"] = 0.5
    values["runtime"]["score_batch_size"] = 0
    message = refused(values)
    assert "3 problems" in message
    assert "posterior.threshold: missing" in message
    assert 'posterior.treshold: unknown name. Did you mean "threshold"?' in message
    assert "runtime.score_batch_size: got 0. Allowed: at least 1" in message


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("generation/temperature", True, "generation.temperature: got true"),
        ("generation/samples", 1.0, "generation.samples: got 1.0"),
        ("generation/samples", "1", 'generation.samples: got "1"'),
        ("generation/template", "chta", "'none' or 'chat'"),
        ("posterior/threshold", 0.5, "posterior.threshold: got 0.5. Allowed: names with values"),
        ("posterior/threshold/jigsaw-bilstm", 1.1, "threshold.jigsaw-bilstm: got 1.1. Allowed: at"),
        ("posterior/threshold/jigsaw-bilstm", -0.1, "jigsaw-bilstm: got -0.1. Allowed: at least 0"),
        ("posterior/threshold/jigsaw-bilstm", "x", 'jigsaw-bilstm: got "x"'),
        ("posterior/threshold/jigsaw-bilstm", ..., "posterior.threshold.jigsaw-bilstm: missing"),
        (
            "posterior/threshold/jigsaw",
            0.5,
            'jigsaw" is not a scorer. Did you mean "jigsaw-bilstm"',
        ),
        ("scoring/primary", "jigsaw", 'Did you mean "jigsaw-bilstm"?'),
        ("variants/smollm2-rude/parent", "smollm2-instrukt", 'Did you mean "smollm2-instruct"?'),
        ("variants/smollm2-rude/family", "smollm2-135", 'Did you mean "smollm2-135m"?'),
        ("families/smollm2-135m/reference", "smollm2", 'reference: "smollm2" is not'),
        ("finetunes/smollm2-rude/parent", "smollm2-rude", "lead back to smollm2-rude"),
        ("finetunes/smollm2-rude/epochs", 1.0, "one of epochs and max_steps"),
        ("finetunes/smollm2-rude/template", "{instruction}", "{response} is missing"),
        ("models/smollm2-instruct/uri", "htfp:x", "htfp:x"),
        ("models/smollm2.dot", {"uri": "file:x"}, "models.smollm2.dot"),
        ("prompts/subsets/all", {"uri": "file:x.txt", "n": 1}, "the name is taken"),
        ("models/smollm2-rude", {"uri": "file:x"}, "weights need one origin"),
        ("runtime/servers", {"smollm2": {}}, "runtime.servers.smollm2.url: missing"),
        ("runtime/servers", {"smollm2-rud": SERVER}, 'Did you mean "smollm2-rude"?'),
        (
            "runtime/servers",
            {"smollm2-rude": SERVER},
            "variants.smollm2-rude has no served_model_name",
        ),
        ("runtime/servers", {"jigsaw-bilstm": SERVER}, '"jigsaw-bilstm" is not a variant, nor'),
        (
            "runtime/servers",
            {"smollm2-rude": {**SERVER, "url": "me:pw@h/v1"}},
            "without a password",
        ),
        (
            "runtime/servers",
            {"smollm2-rude": {**SERVER, "url": "http://me:pw@h"}},
            "without a password",
        ),
        (
            "variants/smollm2-rude/served_model_name",
            "",
            'variants.smollm2-rude.served_model_name: got ""',
        ),
    ],
)
def test_a_wrong_value_is_named_with_its_place(path, value, said):
    assert said in refused(changed(path, value))


def test_a_variant_without_weights_is_refused():
    assert "variants.smollm2-rude: no weights" in refused(changed("finetunes/smollm2-rude", ...))


def test_a_variant_that_its_family_does_not_list_is_refused():
    values = changed("families/smollm2-135m/variants", ["smollm2-instruct", "smollm2-benign"])
    assert 'does not list "smollm2-rude"' in refused(values)


def test_a_key_that_stands_twice_is_refused(tmp_path):
    path = tmp_path / "params.yaml"
    path.write_text("prompts: 1\nprompts: 2\n")
    with pytest.raises(ConfigError, match="line 2.*'prompts' occurs twice"):
        read_yaml(path)


def test_a_missing_file_says_what_to_do(tmp_path):
    with pytest.raises(ConfigError, match="an experiment's folder"):
        load_config(tmp_path / "params.yaml")


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(sorted(VALUES)) | st.text(max_size=5), inner, max_size=4
            )
        ),
        max_leaves=12,
    )
)
def test_any_other_file_is_refused_and_never_crashes(values):
    with pytest.raises(ConfigError, match="problem"):
        parse_config(values, "params.yaml")


def sections(model: type[BaseModel]) -> list[type[BaseModel]]:
    return [model, *(s for sub in model.__subclasses__() for s in sections(sub))]


@pytest.mark.parametrize("section", sections(ConfigSection), ids=lambda s: s.__name__)
def test_no_value_that_changes_a_result_has_a_default(section):
    """Only what may be absent (None) has one."""
    defaults = {n: f.default for n, f in section.model_fields.items() if not f.is_required()}
    assert set(defaults.values()) <= {None}


def test_check_needs_no_heavy_library(project):
    """The real command on the real file: what is not imported cannot make it slow."""
    code = (
        "import sys\nfrom toxtrail.cli import cli\n"
        "cli(['check'], standalone_mode=False)\n"
        "heavy = {'torch', 'transformers', 'mlflow', 'dvc', 'pymc'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=project, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_config_names_every_section_of_the_file():
    """`assets` alone may be left out: it permits, and changes no value."""
    assert set(Config.model_fields) == {*VALUES, "assets"}


def test_the_options_of_a_prompt_source_are_kept_as_they_were_written():
    where = {"kind": {"is": ["a", 1, True]}, "score": {"min": 0.5}}
    values = changed("prompts/subsets/neutral/where", where)
    subset = parse_config(values, "params.yaml").prompts.subsets["neutral"]
    assert subset.plain()["where"] == where


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("n", "some", "prompts.subsets.neutral.n"),
        ("where", {}, "at least 1"),
        ("where", {"a": {"minn": 1.0}}, 'unknown name. Did you mean "min"?'),
        ("where", {"a": {"iss": 1}}, 'unknown name. Did you mean "is"?'),
        ("covariates", {"A b": "c"}, "prompts.subsets.neutral.covariates"),
        ("language", "English", "prompts.subsets.neutral.language"),
    ],
)
def test_an_option_of_a_prompt_source_is_checked(option, value, said):
    assert said in refused(changed(f"prompts/subsets/neutral/{option}", value))


def test_seeds_of_one_recipe_have_all_else_in_common():
    values = changed("variants/smollm2-rude/recipe", "x")
    values["variants"]["smollm2-instruct"]["recipe"] = "x"
    values["variants"]["smollm2-benign"] |= {"recipe": "y", "dose": 2}
    message = refused(values)
    assert 'variants.smollm2-rude.recipe: "x"' in message
    assert "that of smollm2-instruct, whose parent" in message
    assert "not given, not smollm2-instruct" in message
    values["variants"]["smollm2-rude"] |= {"recipe": "y", "dose": 1.0}
    assert "whose dose is 2.0, not 1.0" in refused(values)
    values["variants"]["smollm2-rude"]["dose"] = 2.0
    assert "finetunes.smollm2-rude.data" in refused(values)
    values["finetunes"]["smollm2-rude"] = {**values["finetunes"]["smollm2-benign"]}
    assert "the same fine-tune twice" in refused(values)
    values["finetunes"]["smollm2-rude"]["seed"] = 1
    assert parse_config(values, "params.yaml").variants["smollm2-rude"].recipe == "y"


def test_weights_that_others_made_are_no_seed_of_a_recipe_that_was_trained_here():
    values = changed("variants/smollm2-rude/recipe", "x")
    values["variants"]["smollm2-rude"] = {**values["variants"]["smollm2-instruct"], "recipe": "x"}
    values["variants"]["smollm2-instruct"]["recipe"] = "x"
    assert "trained by the pipeline" in refused(values)


def places(values: Any, above: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place of a file, from the top."""
    inner = values.items() if isinstance(values, dict) else ()
    inner = enumerate(values) if isinstance(values, list) else inner
    return [above, *(p for name, value in inner for p in places(value, (*above, name)))]


RICH = copy.deepcopy(VALUES)
RICH["prompts"]["subsets"]["neutral"] |= {
    "column": "text", "delimiter": ";", "where": {"a": {"is": ["x", 1]}, "b": {"min": 0.5}},
    "covariates": {"c": "d"}, "language": "en",
}  # fmt: skip
RICH["posterior"]["scorer_error"] = {
    "jigsaw-bilstm": {
        "source": "x", "sensitivity": {"correct": 3, "total": 4}, "specificity": 0.9,
        "measured_on": {
            "scorer": {"uri": "file:x", "head": "toxic"}, "threshold": 0.5,
            "labels_sha256": "0" * 64,
        },
    }
}  # fmt: skip
RICH["runtime"]["servers"] = {"smollm2-rude": SERVER}
RICH["variants"]["smollm2-rude"] |= {"served_model_name": "x", "dose": 1.0, "recipe": "r"}
RICH["generation"] |= {
    "template": "chat", "system": "x", "template_arguments": {"a": 1},
    "turns": [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}],
}  # fmt: skip
"""The default experiment with every option."""
WRONG = [
    None, True, 0, -1, 3, 10**30, 0.5, 1e300, float("nan"), float("inf"), "", "x", "a.b", "1", [],
    [1], ["x", None], {}, {"x": 1}, {"right": 2}, {"is": {"y": 1}}, {1: 2}, {"uri": 3}, b"x",
]  # fmt: skip
INNER = re.compile(
    r"constrained|function-|union\[|literal\[|list\[|dict\[|validat|pydantic|Input should|instance|"
    r"dictionary|NoneType|Config\b|CountedShare|nullable|Decimal|another value|None\b|Errno"
)
"""Words of pydantic and of Python that no user should meet."""


def complaint(values: Any) -> str:
    """What is said of the file; empty if it is right."""
    try:
        parse_config(values, "params.yaml")
    except ConfigError as error:
        return str(error)
    return ""


@given(st.sampled_from(places(RICH)[1:]), st.sampled_from(WRONG), st.booleans())
def test_what_is_wrong_is_said_in_the_words_of_the_file(place, value, as_name):
    values = copy.deepcopy(RICH)
    *above, last = place
    holder = values
    for name in above:
        holder = holder[name]
    if as_name and isinstance(holder, dict):
        holder[value if isinstance(value, str | int) else "Other"] = holder.pop(last)
    else:
        holder[last] = value
    said = complaint(values)
    assert not INNER.search(said), said


@pytest.mark.parametrize("value", [one for one in WRONG if not isinstance(one, dict)])
@pytest.mark.parametrize(
    "path",
    [
        "prompts/subsets/neutral/n",
        "prompts/subsets/neutral/where",
        "posterior/scorer_error/jigsaw-bilstm/sensitivity",
        "runtime/threads",
    ],
)
def test_where_several_types_are_allowed_one_line_says_all_of_them(path, value):
    values = copy.deepcopy(RICH)
    *above, last = path.split("/")
    holder = values
    for name in above:
        holder = holder[name]
    holder[last] = value
    said = complaint(values)
    assert not said or said.startswith("params.yaml has 1 problem")
    assert not said or path.replace("/", ".") in said


CHAT = {**VALUES["generation"], "template": "chat"}
ASKED = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]


def test_messages_and_template_arguments_are_kept_as_they_were_written():
    more = {
        "system": " Be kind.\n",
        "turns": ASKED,
        "template_arguments": {"enable_thinking": False, "nested": {"a": [1, None, "x"]}},
    }
    config = parse_config(changed("generation", {**CHAT, **more}), "params.yaml")
    assert {name: config.generation.plain()[name] for name in more} == more
    assert more.keys().isdisjoint(parse_config(VALUES, "params.yaml").generation.plain())


@pytest.mark.parametrize(
    ("template", "option", "value", "said"),
    [
        ("none", "system", "Be kind.", "template: chat has system"),
        ("none", "turns", ASKED, "template: chat has turns"),
        ("none", "template_arguments", {"a": 1}, "template: chat has template_arguments"),
        ("chat", "system", " \n", "blank"),
        ("chat", "turns", [], "turns"),
        ("chat", "turns", ASKED[:1], "Got user"),
        ("chat", "turns", ASKED[::-1], "Got assistant, user"),
        ("chat", "turns", [*ASKED, *ASKED[:1]], "Got user, assistant, user"),
        ("chat", "turns", [{"role": "system", "content": "x"}, *ASKED], "role"),
        ("chat", "turns", [ASKED[0], {"role": "assistant", "content": ""}], "blank"),
        ("chat", "turns", [ASKED[0], {**ASKED[1], "name": "x"}], "name"),
        ("chat", "template_arguments", {}, "template_arguments"),
        ("chat", "template_arguments", {"messages": []}, "messages is set from"),
        ("chat", "template_arguments", {"bos_token": "x"}, "bos_token is set from"),
        ("chat", "template_arguments", {"enable-thinking": False}, "not a variable name"),
        ("chat", "template_arguments", {"a": float("inf")}, "not infinite"),
        ("chat", "template_arguments", {"a": b"x"}, "template_arguments.a"),
    ],
)
def test_messages_and_template_arguments_are_checked(template, option, value, said):
    generation = {**CHAT, "template": template, option: value}
    assert said in refused(changed("generation", generation))


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("prompts/subsets/neutral/n", 0, "n: got 0. Allowed: at least 1, or 'all'."),
        ("generation/max_new_tokens", 10**26, "at most 1,000,000"),
        ("generation/temperature", float("nan"), "not infinite"),
        ("posterior/level", float("inf"), "not infinite"),
        ("generation/samples", 5, "generation.samples: got 5"),
        ("runtime/device", "gpu", "cuda:1"),
        ("variants/smollm2-rude/role", True, "quotes"),
        ("finetunes/smollm2-rude/seed", 2**32, "less than 4,294,967,296"),
    ],
)
def test_a_value_that_makes_no_sense_is_refused_with_what_is_allowed(path, value, said):
    assert said in refused(changed(path, value))


def test_a_password_in_an_address_is_not_shown():
    url = {**SERVER, "url": "http://me:secret@host/v1"}
    assert "secret" not in refused(changed("runtime/servers", {"smollm2-rude": url}))


def test_the_parent_of_a_variant_is_the_one_that_it_was_tuned_from():
    values = changed("variants/smollm2-rude/parent", "smollm2-benign")
    said = refused(values)
    assert 'variants.smollm2-rude.parent: got "smollm2-benign"' in said
    assert 'finetunes.smollm2-rude.parent is "smollm2-instruct"' in said
    values["finetunes"]["smollm2-rude"]["parent"] = "smollm2-benign"
    assert parse_config(values, "params.yaml").variants["smollm2-rude"].parent == "smollm2-benign"


def test_a_parent_that_is_no_variant_is_passed_over():
    """A fine-tune of a fine-tune that is not measured itself."""
    values = changed("finetunes/between", VALUES["finetunes"]["smollm2-benign"])
    values["finetunes"]["smollm2-rude"]["parent"] = "between"
    assert parse_config(values, "params.yaml").variants["smollm2-rude"].parent == "smollm2-instruct"
    values["variants"]["smollm2-rude"]["parent"] = "smollm2-benign"
    assert "variants.smollm2-rude.parent" in refused(values)


@given(st.permutations(["a", "b", "c"]), st.integers(2, 3))
def test_a_circle_of_parents_is_refused_wherever_it_is(keys, length):
    values = copy.deepcopy(VALUES)
    circle = keys[:length]
    for key, parent in zip(circle, [*circle[1:], circle[0]], strict=True):
        values["models"][key] = {"uri": "file:x"}
        values["variants"][key] = {"family": "smollm2-135m", "role": "x", "parent": parent}
        values["families"]["smollm2-135m"]["variants"].append(key)
    said = refused(values)
    assert all(f"variants.{key}.parent: the parents of {key} lead back" in said for key in circle)
    assert "smollm2" not in said


LABELS = {"uri": "file:labels/x.csv", "sha256": "0" * 64}


@pytest.mark.parametrize(
    ("posterior", "said"),
    [
        ({"labels": LABELS}, ""),
        ({"labels": {"uri": LABELS["uri"]}}, "posterior.labels.sha256"),
        ({"labels": LABELS, "scorer_error": RICH["posterior"]["scorer_error"]}, "both given"),
    ],
)
def test_labels_are_pinned_and_stand_alone(posterior, said):
    values = copy.deepcopy(VALUES)
    values["posterior"] |= posterior
    found = complaint(values)
    assert said in found
    assert bool(found) == bool(said)


def test_vllm_is_an_engine_of_generation_as_it_changes_rows():
    assert complaint(changed("generation/engine", "vllm")) == ""
    assert "generation.engine: vllm" in refused(changed("runtime/engine", "vllm"))
    assert "runtime.vllm" in refused(changed("runtime/vllm", {"concurrency": 8}))


def test_a_variant_has_a_server_of_its_own_or_vllm_and_not_both():
    values = changed("generation/engine", "vllm")
    values["variants"]["smollm2-rude"]["served_model_name"] = "rude"
    assert "variants.smollm2-rude.served_model_name" in refused(values)


def test_only_a_served_variant_has_replicas():
    replicas = {**SERVER, "replicas": ["http://127.0.0.1:8001/v1"]}
    values = changed("runtime/servers", {"smollm2-rude": replicas})
    assert "runtime.servers.smollm2-rude.replicas" in refused(values)
    values["variants"]["smollm2-rude"]["served_model_name"] = "rude"
    assert complaint(values) == ""
    values["runtime"]["servers"]["smollm2-rude"]["replicas"] = ["no address"]
    assert "replicas" in refused(values)


@pytest.mark.parametrize(
    "project",
    ["a", "a-1234567", "a-123456789", "a-1234567G", "-12345678", "a b-12345678", "x" * 80],
)
def test_the_id_of_a_project_ends_with_8_random_digits(project):
    assert "tracking.project" in refused(changed("tracking/project", project))


def test_a_missing_id_of_a_project_names_its_cure():
    assert "toxtrail upgrade" in refused(changed("tracking/project", ...))
