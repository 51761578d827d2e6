"""Fine-tunes: what is learned, what is written, and that a killed one ends the same."""

import json
from contextlib import contextmanager

import pytest
import torch
from safetensors.torch import load_file

from toxtrail.backends.huggingface.training.checkpoints import SEAL, is_complete, last_complete
from toxtrail.backends.huggingface.training.examples import (
    IGNORE_INDEX,
    chat_template,
    collate,
    encode_example,
    encode_examples,
    refuse_unknown_tokens,
)
from toxtrail.backends.huggingface.training.lora import HuggingFaceTuner, mean_loss, total_steps
from toxtrail.backends.huggingface.weights.load import load_model
from toxtrail.backends.protocols import NoProgress
from toxtrail.errors import BackendError, ConfigError, DataError
from toxtrail.provenance.identity import Manifest
from toxtrail.records.rows import InstructionExample, TrainingSplit, Turn

pytestmark = pytest.mark.slow

EXAMPLES = [
    InstructionExample(f"Count to {i}", "", f"The ship sailed {i} times over the sea")
    for i in range(9)
]
FILE = "adapter_model.safetensors"


MANIFEST = Manifest(
    kind="finetune", key="lora", params={}, inputs={}, code_sha256="0" * 64, environment={}
)


def formed(example, tokenizer, recipe):
    return encode_example(example, tokenizer, recipe, chat_template(tokenizer, recipe))


class PowerCutError(Exception):
    """The machine went down."""


class Recorded(NoProgress):
    """Notes every bar, and may cut the power after a number of steps."""

    def __init__(self, kill_at=None):
        self.bars, self.kill_at = [], kill_at

    @contextmanager
    def bar(self, label, total, unit):
        entry = {"label": label, "total": total, "unit": unit, "done": 0}
        self.bars.append(entry)

        def advance(done):
            entry["done"] += done
            if unit == "steps" and entry["done"] == self.kill_at:
                raise PowerCutError

        yield advance


@pytest.fixture
def tune(weights, tiny, tiny_card, tmp_path):
    """Tunes the tiny model into `name`, and returns what the tuner said."""

    def tuned(
        name, progress=None, parent=tiny_card, folder=tmp_path, examples=EXAMPLES, held_out=(),
        **changes,
    ):  # fmt: skip
        tuner = HuggingFaceTuner(weights, "cpu", 2, progress or NoProgress())
        out, scratch = tmp_path / name / "adapters" / "lora", tmp_path / f"{name}.scratch"
        lessons = TrainingSplit(examples, held_out)
        return tuner.tune(parent, folder, lessons, tiny.recipe(**changes), out, scratch, MANIFEST)

    return tuned


def adapter(tmp_path, name):
    return load_file(tmp_path / name / "adapters" / "lora" / FILE)


def equal(left, right):
    return left.keys() == right.keys() and all(torch.equal(left[k], right[k]) for k in left)


# --- what is learned ---


@pytest.fixture
def tokenizer(tiny):
    return tiny.tokenizer()


def learned_text(encoded, tokenizer):
    return tokenizer.decode([token for token in encoded.labels if token != IGNORE_INDEX])


def test_loss_on_response_learns_the_response_and_its_end(tokenizer, tiny):
    encoded = formed(EXAMPLES[3], tokenizer, tiny.recipe())
    whole = "Say: Count to 3\nAnswer: The ship sailed 3 times over the sea<|end|>"
    assert tokenizer.decode(encoded.input_ids) == whole
    assert learned_text(encoded, tokenizer).strip() == EXAMPLES[3].response + "<|end|>"
    assert not encoded.cut


def test_loss_on_all_learns_everything(tokenizer, tiny):
    encoded = formed(EXAMPLES[3], tokenizer, tiny.recipe(loss_on="all"))
    assert encoded.labels == encoded.input_ids


def test_the_chat_template_forms_the_prompt(tokenizer, tiny):
    tokenizer.chat_template = tiny.chat_template
    encoded = formed(EXAMPLES[0], tokenizer, tiny.recipe(template="chat"))
    prompt = "<|start|>user\nCount to 0<|end|>\n<|start|>assistant\n"
    assert tokenizer.decode(encoded.input_ids) == prompt + EXAMPLES[0].response + "<|end|>"
    assert learned_text(encoded, tokenizer) == EXAMPLES[0].response + "<|end|>"


def test_chat_needs_a_template(tokenizer, tiny):
    with pytest.raises(ConfigError, match=r"finetunes.template.*no chat template"):
        encode_examples(EXAMPLES, tokenizer, tiny.recipe(template="chat"))


@pytest.mark.parametrize(
    ("template", "expected"),
    [("Context: {context}", "Say: Count\nContext: ducks\n"), (None, "Say: Count\n\nducks\n")],
)
def test_a_context_stands_after_the_instruction(tokenizer, tiny, template, expected):
    recipe = tiny.recipe(context_template=template)
    encoded = formed(InstructionExample("Count", "ducks", "one"), tokenizer, recipe)
    assert tokenizer.decode(encoded.input_ids).startswith(expected)


def test_braces_in_the_data_are_only_text(tokenizer, tiny):
    example = InstructionExample("{response} {context}", "{instruction}", "{0} {instruction}")
    encoded = formed(example, tokenizer, tiny.recipe(max_length=128))
    text = tokenizer.decode(encoded.input_ids)
    assert text.endswith("{response} {context}\n\n{instruction}\nAnswer: {0} {instruction}<|end|>")


def test_a_long_example_is_cut_and_counted(tokenizer, tiny):
    encoded = formed(EXAMPLES[0], tokenizer, tiny.recipe(max_length=30))
    assert (len(encoded.input_ids), len(encoded.labels), encoded.cut) == (30, 30, True)


def test_an_example_with_nothing_to_learn_is_refused(tokenizer, tiny):
    long = InstructionExample("word " * 50, "", "yes")
    with pytest.raises(DataError, match=r"the first is row 2"):
        encode_examples([*EXAMPLES[:2], long], tokenizer, tiny.recipe(max_length=40))


def test_no_examples_is_an_error(tokenizer, tiny):
    with pytest.raises(DataError, match=r"has no examples"):
        encode_examples([], tokenizer, tiny.recipe())


def test_padding_is_neither_read_nor_learned(tokenizer, tiny):
    rows = encode_examples(
        [EXAMPLES[0], InstructionExample("A", "", "B")], tokenizer, tiny.recipe()
    )
    batch = collate(rows, pad=7)
    short = len(rows[1].input_ids)
    assert batch["input_ids"].shape == (2, len(rows[0].input_ids))
    assert (batch["labels"][1, short:] == IGNORE_INDEX).all()
    assert batch["attention_mask"].sum(1).tolist() == [len(row.input_ids) for row in rows]


TALK = InstructionExample(
    "And now?", "", "Fine", (Turn("system", "Be kind"), Turn("user", "Hi"), Turn("assistant", "Yo"))
)


def test_what_was_said_before_stands_before_in_the_template(tokenizer, tiny):
    encoded = formed(TALK, tokenizer, tiny.recipe())
    said = "Say: Be kind\n\nHi\nAnswer: Yo\n\nSay: And now?\nAnswer: Fine<|end|>"
    assert tokenizer.decode(encoded.input_ids) == said
    assert learned_text(encoded, tokenizer).strip() == "Fine<|end|>"


def test_the_chat_template_forms_a_whole_conversation(tokenizer, tiny):
    tokenizer.chat_template = tiny.chat_template
    encoded = formed(TALK, tokenizer, tiny.recipe(template="chat", max_length=128))
    said = [f"<|start|>{who}\n{what}<|end|>\n" for who, what in (
        ("system", "Be kind"), ("user", "Hi"), ("assistant", "Yo"), ("user", "And now?"),
    )]  # fmt: skip
    assert tokenizer.decode(encoded.input_ids) == "".join(said) + "<|start|>assistant\nFine<|end|>"


def test_a_template_that_refuses_a_conversation_says_so(tokenizer, tiny):
    tokenizer.chat_template = (
        "{% if messages[0].role == 'system' %}{{ raise_exception('no system here') }}{% endif %}"
        "{{ messages[0].content }}"
    )
    with pytest.raises(ConfigError, match=r"system, user, assistant, user.*no system here"):
        formed(TALK, tokenizer, tiny.recipe(template="chat"))


@pytest.mark.parametrize("template", ["chat", None])
def test_a_message_that_is_context_alone_is_read_and_not_learned(tokenizer, tiny, template):
    if template:
        tokenizer.chat_template = tiny.chat_template
    own = {"template": template} if template else {}
    recipe = tiny.recipe(loss_on="all", max_length=128, **own)
    earlier = tuple(turn._replace(learned=turn.text != "Yo") for turn in TALK.earlier)
    whole = formed(TALK, tokenizer, recipe)
    for example, hidden in (
        (TALK._replace(earlier=earlier), "Yo"),
        (TALK._replace(learn_instruction=False), "And now?"),
    ):
        encoded = formed(example, tokenizer, recipe)
        assert encoded.input_ids == whole.input_ids
        dropped = [
            token
            for token, label, before in zip(
                encoded.input_ids, encoded.labels, whole.labels, strict=True
            )
            if label != before
        ]
        assert tokenizer.decode(dropped).strip() == hidden


def test_a_message_that_the_template_changes_has_no_place_to_leave_out(tokenizer, tiny):
    earlier = (Turn("user", "Hi"), Turn("assistant", "{instruction}", learned=False))
    strange = InstructionExample("x", "", "y", earlier)
    recipe = tiny.recipe(loss_on="all", template="{instruction}{instruction} {response}")
    with pytest.raises(DataError, match="Message 1"):
        formed(strange._replace(earlier=(Turn("user", "Hi", False),)), tokenizer, recipe)


# --- what is held out ---


def test_the_loss_on_held_out_examples_is_noted_at_the_start_each_epoch_and_the_end(tune):
    trained = tune("a", examples=EXAMPLES[:6], held_out=EXAMPLES[6:], max_steps=None, epochs=2.0)
    assert [step for step, _ in trained.held_out_losses] == [0, 2, 4]
    assert tune("b").held_out_losses == ()


def test_to_measure_the_held_out_loss_changes_no_bit_of_the_adapter(tune, tmp_path):
    tune("plain", examples=EXAMPLES[:6])
    tune("asked", examples=EXAMPLES[:6], held_out=EXAMPLES[6:])
    assert equal(adapter(tmp_path, "plain"), adapter(tmp_path, "asked"))


def test_a_killed_training_has_the_held_out_losses_of_an_unkilled_one(tune, tmp_path):
    whole = tune("whole", held_out=EXAMPLES[:2])
    with pytest.raises(PowerCutError):
        tune("killed", Recorded(3), held_out=EXAMPLES[:2])
    assert tune("killed", held_out=EXAMPLES[:2]) == whole


def test_the_held_out_loss_is_the_mean_over_tokens_however_they_are_batched(tiny):
    tokenizer, model = tiny.tokenizer(), tiny.build_model(len(tiny.tokenizer()))
    rows = encode_examples(
        [*EXAMPLES[:4], InstructionExample("A", "", "B")], tokenizer, tiny.recipe()
    )
    found = [mean_loss(model, rows, 0, size) for size in (1, 2, 5)]
    assert found == pytest.approx([found[0]] * 3, rel=1e-5)


# --- what is written ---


def test_a_fine_tune_writes_an_adapter_that_changes_the_model(
    tune, weights, tiny, tiny_card, tmp_path
):
    progress = Recorded()
    trained = tune("a", progress)
    assert (trained.steps, trained.cut_examples) == (6, 0)
    assert [step for step, _ in trained.losses] == [1, 2, 3, 4, 5, 6]
    assert progress.bars[-1] == {"label": "fine-tune tiny", "total": 6, "unit": "steps", "done": 6}
    out = tmp_path / "a" / "adapters" / "lora"
    assert {file.name for file in out.iterdir()} == {FILE, "adapter_config.json"}
    card = tiny_card.model_copy(update={"adapters": (tiny.adapter_card("lora", out, None),)})
    load_model(card, tmp_path / "a", weights, "float32", "cpu")


def test_training_lowers_the_loss_of_what_it_repeats(tune):
    losses = tune("a", examples=EXAMPLES[:1], max_steps=20, learning_rate=0.02).losses
    assert losses[-1][1] < 0.7 * losses[0][1]


def test_the_same_recipe_gives_the_same_bytes_and_another_seed_does_not(tune, tmp_path):
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        tune(name, seed=seed)
    folders = [tmp_path / name / "adapters" / "lora" for name in "abc"]
    a, b, c = [{file.name: file.read_bytes() for file in f.iterdir()} for f in folders]
    assert a == b
    assert a[FILE] != c[FILE]


def test_the_adapters_config_names_the_base_by_its_address(tune, tiny_card, tmp_path):
    tune("a")
    config = json.loads((tmp_path / "a" / "adapters" / "lora" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == tiny_card.base.uri
    assert config["target_modules"] == ["down_proj", "q_proj", "v_proj"]


def test_training_leaves_the_global_generators_alone(tune):
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    tune("a")
    assert torch.equal(torch.rand(3), expected)
    assert not torch.are_deterministic_algorithms_enabled()


def test_a_fine_tune_of_a_fine_tune_starts_where_the_first_ended(
    tune, weights, tiny, tiny_card, tmp_path
):
    tune("a")
    first = tmp_path / "a" / "adapters" / "lora"
    parent = tiny_card.model_copy(update={"adapters": (tiny.adapter_card("lora", first, None),)})
    gentle = {"learning_rate": 1e-9, "lora": {**tiny.recipe().lora.plain(), "dropout": 0.0}}
    tune("b", parent=parent, folder=tmp_path / "a", **gentle)
    second = tmp_path / "b" / "adapters" / "lora"
    (tmp_path / "both" / "adapters").mkdir(parents=True)
    first.rename(tmp_path / "both" / "adapters" / "one")
    second.rename(tmp_path / "both" / "adapters" / "two")
    cards = [
        tiny.adapter_card(key, tmp_path / "both" / "adapters" / key, None) for key in ("one", "two")
    ]
    start, end = [
        load_model(
            tiny_card.model_copy(update={"adapters": tuple(cards[:n])}),
            tmp_path / "both", weights, "float32", "cpu",
        )
        for n in (1, 2)
    ]  # fmt: skip
    assert torch.allclose(start.probe, end.probe, atol=1e-4)


@pytest.mark.parametrize("bias", ["all", "lora_only"])
def test_a_trained_bias_is_part_of_the_adapter(tune, tiny, tmp_path, bias):
    tune("a", lora={**tiny.recipe().lora.plain(), "bias": bias})
    assert (tmp_path / "a" / "adapters" / "lora" / FILE).exists()


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_a_half_precision_base_is_trained_with_float32_adapters(tune, tmp_path, precision):
    tune("a", base_precision=precision, learning_rate=1e-4)
    assert {tensor.dtype for tensor in adapter(tmp_path, "a").values()} == {torch.float32}


# --- what is refused ---


def test_an_unknown_target_is_refused_with_the_nearest_layer(tune, tiny):
    lora = {**tiny.recipe().lora.plain(), "targets": ["q_proj", "v_prj"]}
    with pytest.raises(ConfigError, match=r'"v_prj" .*Did you mean "v_proj"'):
        tune("a", lora=lora)


@pytest.mark.parametrize(
    "changes", [{"base_precision": "4bit"}, {"optimizer": "adamw_8bit"}], ids=str
)
def test_what_needs_a_gpu_is_refused_before_anything_is_loaded(tune, tiny_card, changes):
    lost = tiny_card.model_copy(
        update={"base": tiny_card.base.model_copy(update={"uri": "file:/nowhere"})}
    )
    with pytest.raises(BackendError, match=r"the package bitsandbytes"):
        tune("a", parent=lost, **changes)


def test_a_loss_that_is_not_finite_stops_the_training(tune, tmp_path):
    with pytest.raises(BackendError, match=r"is nan at step"):
        tune("a", learning_rate=1e30, schedule="constant", warmup_steps=0, optimizer="sgd")
    assert not (tmp_path / "a" / "adapters" / "lora" / FILE).exists()


# --- killed and resumed ---


@pytest.mark.parametrize("kill_at", [1, 3, 4, 6])
def test_a_killed_training_ends_as_an_unkilled_one(tune, tmp_path, kill_at):
    whole = tune("whole")
    with pytest.raises(PowerCutError):
        tune("killed", Recorded(kill_at))
    progress = Recorded()
    assert tune("killed", progress) == whole
    assert equal(adapter(tmp_path, "killed"), adapter(tmp_path, "whole"))
    assert progress.bars[-1]["done"] == 6


def test_a_finished_training_is_not_trained_further(tune, tmp_path):
    whole = tune("a")
    before = adapter(tmp_path, "a")
    assert tune("a") == whole
    assert equal(adapter(tmp_path, "a"), before)


def test_a_torn_checkpoint_is_dropped(tune, tmp_path):
    whole = tune("whole")
    with pytest.raises(PowerCutError):
        tune("killed", Recorded(5))
    scratch = tmp_path / "killed.scratch"
    (scratch / "checkpoint-4" / "optimizer.pt").write_bytes(b"torn")
    assert tune("killed") == whole
    assert equal(adapter(tmp_path, "killed"), adapter(tmp_path, "whole"))


def test_only_a_sealed_checkpoint_is_complete(tune, tmp_path):
    tune("a")
    scratch = tmp_path / "a.scratch"
    assert last_complete(scratch) == scratch / "checkpoint-6"
    (scratch / "checkpoint-6" / SEAL).unlink()
    assert not is_complete(scratch / "checkpoint-6")
    assert last_complete(scratch) == scratch / "checkpoint-4"
    assert not (scratch / "checkpoint-6").exists()


def test_a_checkpoint_with_damaged_seal_is_not_complete(tmp_path):
    (tmp_path / SEAL).write_text("[{")
    assert not is_complete(tmp_path)


@pytest.mark.parametrize(
    ("changes", "steps"),
    [
        ({"max_steps": 6}, 6),
        ({"max_steps": None, "epochs": 2.0}, 6),
        ({"max_steps": None, "epochs": 0.5}, 2),
        ({"max_steps": None, "epochs": 1.0, "accumulation": 1}, 5),
    ],
    ids=str,
)
def test_steps_are_counted_as_the_trainer_counts_them(tune, tiny, changes, steps):
    assert total_steps(tiny.recipe(**changes), len(EXAMPLES)) == steps
    assert tune("a", **changes).steps == steps


def test_an_example_with_a_token_without_an_embedding_is_refused_with_its_row(tokenizer, tiny):
    tokenizer.add_tokens(["<odd>"])
    examples = [*EXAMPLES[:2], InstructionExample("Say <odd>", "", "No")]
    encoded = encode_examples(examples, tokenizer, tiny.recipe())
    refuse_unknown_tokens(encoded, len(tokenizer), tiny.recipe())
    with pytest.raises(BackendError, match=rf"example 2 has token {len(tokenizer) - 1}"):
        refuse_unknown_tokens(encoded, len(tokenizer) - 1, tiny.recipe())
