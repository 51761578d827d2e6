"""A chat template must lose nothing of what is said, and end."""

import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toxtrail.backends.huggingface.weights import template_process
from toxtrail.backends.huggingface.weights.chat_template import (
    LONG,
    MARKER,
    ChatTemplate,
    lost_turns,
    template_variables,
)
from toxtrail.backends.huggingface.weights.template_process import Rendering, RenderingError
from toxtrail.config.sections import RESERVED_ARGUMENTS
from toxtrail.errors import ConfigError
from toxtrail.records.rows import Turn

USER = "m['content']"
"""What the mutations below put something else in place of."""

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
LLAMA_2 = (
    "{% if messages[0]['role'] == 'system' %}{% set system = '<<SYS>>\n' + messages[0]['content'] "
    "+ '\n<</SYS>>\n\n' %}{% set rest = messages[1:] %}{% else %}{% set system = '' %}"
    "{% set rest = messages %}{% endif %}{% for m in rest %}"
    "{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant/user') }}{% endif %}"
    "{% if loop.first %}{% set text = system + m['content'] %}{% else %}"
    "{% set text = m['content'] %}{% endif %}{% if m['role'] == 'user' %}"
    "{{ bos_token }}{{ '[INST] ' + text.strip() + ' [/INST]' }}{% else %}"
    "{{ ' ' + text.strip() + ' ' + eos_token }}{% endif %}{% endfor %}"
)
LLAMA_3 = (
    "{{- bos_token }}{%- set date = strftime_now('%d %b %Y') %}"
    "{%- if messages[0]['role'] == 'system' %}{%- set system = messages[0]['content'] | trim %}"
    "{%- set messages = messages[1:] %}{%- else %}{%- set system = '' %}{%- endif %}"
    "{{- '<|start_header_id|>system<|end_header_id|>\n\nToday Date: ' + date + '\n\n' }}"
    "{{- system }}{{- '<|eot_id|>' }}{%- for m in messages %}"
    "{%- if not (m.role == 'ipython' or 'tool_calls' in m) %}"
    "{{- '<|start_header_id|>' + m['role'] + '<|end_header_id|>\n\n' + m['content'] | trim "
    "+ '<|eot_id|>' }}{%- endif %}{%- endfor %}{%- if add_generation_prompt %}"
    "{{- '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{%- endif %}"
)
GEMMA = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}"
    "{{ raise_exception('System role not supported') }}{% endif %}{% for m in messages %}"
    "{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate') }}{% endif %}"
    "{% set role = 'model' if m['role'] == 'assistant' else m['role'] %}"
    "{{ '<start_of_turn>' + role + '\n' + m['content'] | trim + '<end_of_turn>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{'<start_of_turn>model\n'}}{% endif %}"
)
MISTRAL = (
    "{%- if messages[0].role == 'system' %}{%- set system = messages[0].content %}"
    "{%- set rest = messages[1:] %}{%- else %}{%- set rest = messages %}{%- endif %}"
    "{{- bos_token }}{%- for m in rest %}{%- if m.role == 'user' %}"
    "{%- if loop.last and system is defined %}"
    "{{- '[INST] ' + system + '\n\n' + m['content'] + '[/INST]' }}{%- else %}"
    "{{- '[INST] ' + m['content'] + '[/INST]' }}{%- endif %}{%- else %}"
    "{{- ' ' + m['content'] | trim + eos_token }}{%- endif %}{%- endfor %}"
)
PHI_3 = (
    "{% for m in messages %}{% if m['role'] == 'system' %}"
    "{{'<|system|>\n' + m['content'] + '<|end|>\n'}}{% elif m['role'] == 'user' %}"
    "{{'<|user|>\n' + m['content'] + '<|end|>\n'}}{% elif m['role'] == 'assistant' %}"
    "{{'<|assistant|>\n' + m['content'] + '<|end|>\n'}}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% else %}{{ eos_token }}{% endif %}"
)
ZEPHYR = (
    "{% for m in messages %}\n{% if m['role'] == 'user' %}\n"
    "{{ '<|user|>\n' + m['content'] + eos_token }}\n{% elif m['role'] == 'system' %}\n"
    "{{ '<|system|>\n' + m['content'] + eos_token }}\n{% elif m['role'] == 'assistant' %}\n"
    "{{ '<|assistant|>\n'  + m['content'] + eos_token }}\n{% endif %}\n"
    "{% if loop.last and add_generation_prompt %}\n{{ '<|assistant|>' }}\n{% endif %}\n{% endfor %}"
)
ALPACA = (
    "{% if messages[0]['role'] == 'system' %}{{ messages[0]['content'] }}\n\n{% endif %}"
    "{% for m in messages %}{% if m['role'] == 'user' %}### Instruction:\n{{ m['content'] }}\n\n"
    "{% elif m['role'] == 'assistant' %}### Response:\n{{ m['content'] }}{{ eos_token }}\n\n"
    "{% endif %}{% endfor %}{% if add_generation_prompt %}### Response:\n{% endif %}"
)
QWEN_3 = (
    "{%- if messages[0].role == 'system' %}{{- '<|im_start|>system\n' + messages[0].content "
    "+ '<|im_end|>\n' }}{%- endif %}{%- set ns = namespace(last=messages|length - 1) %}"
    "{%- for m in messages %}{%- if m['content'] is string %}{%- set content = m['content'] %}"
    "{%- else %}{%- set content = '' %}{%- endif %}{%- if m.role == 'user' %}"
    "{{- '<|im_start|>user\n' + content + '<|im_end|>\n' }}{%- elif m.role == 'assistant' %}"
    "{%- if '</think>' in content and loop.index0 < ns.last %}"
    "{%- set content = content.split('</think>')[-1].lstrip('\n') %}{%- endif %}"
    "{{- '<|im_start|>assistant\n' + content + '<|im_end|>\n' }}{%- endif %}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n' }}"
    "{%- if enable_thinking is defined and enable_thinking is false %}"
    "{{- '<think>\n\n</think>\n\n' }}{%- endif %}{%- endif %}"
)
GEMMA_3 = (
    "{{ bos_token }}{%- if messages[0]['role'] == 'system' -%}"
    "{%- set first = messages[0]['content'] + '\n\n' -%}{%- set rest = messages[1:] -%}"
    "{%- else -%}{%- set first = '' -%}{%- set rest = messages -%}{%- endif -%}"
    "{%- for m in rest -%}{%- if (m['role'] == 'user') != (loop.index0 % 2 == 0) -%}"
    "{{ raise_exception('Conversation roles must alternate') }}{%- endif -%}"
    "{{ '<start_of_turn>' + ('model' if m['role'] == 'assistant' else m['role']) + '\n' "
    "+ (first if loop.first else '') }}{{ m['content'] | trim }}{{ '<end_of_turn>\n' }}"
    "{%- endfor -%}{%- if add_generation_prompt -%}{{ '<start_of_turn>model\n' }}{%- endif -%}"
)
QWEN_2 = (
    "{%- if messages[0]['role'] == 'system' %}"
    "{{- '<|im_start|>system\n' + messages[0]['content'] + '<|im_end|>\n' }}{%- else %}"
    "{{- '<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n' }}{%- endif %}"
    "{%- for m in messages %}{%- if m.role != 'system' or not loop.first %}"
    "{{- '<|im_start|>' + m.role + '\n' + m['content'] + '<|im_end|>' + '\n' }}{%- endif %}"
    "{%- endfor %}{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n' }}{%- endif %}"
)
LISTS_OR_TEXT = (
    "{% for m in messages %}<|{{ m['role'] }}|>{% if m['content'] is string %}{{ m['content'] }}"
    "{% else %}{% for part in m['content'] %}{{ part['text'] }}{% endfor %}{% endif %}<|end|>"
    "{% endfor %}<|assistant|>"
)
REAL = {
    "chatml": CHATML, "llama-2": LLAMA_2, "llama-3": LLAMA_3, "gemma": GEMMA, "mistral": MISTRAL,
    "phi-3": PHI_3, "zephyr": ZEPHYR, "alpaca": ALPACA, "qwen-3": QWEN_3,
    "lists-or-text": LISTS_OR_TEXT, "gemma-3": GEMMA_3, "qwen-2": QWEN_2,
}  # fmt: skip
TAKES_A_SYSTEM = sorted(set(REAL) - {"gemma"})

LOSSY = {
    "upper": "(m['content'] | upper)",
    "lower": "m['content'].lower()",
    "capitalize": "(m['content'] | capitalize)",
    "title": "(m['content'] | title)",
    "escaped": "(m['content'] | escape | string)",
    "json": "(m['content'] | tojson)",
    "striptags": "(m['content'] | striptags)",
    "links": "(m['content'] | urlize)",
    "wrapped": "(m['content'] | wordwrap(60))",
    "cut": "m['content'][:1000]",
    "truncated": "(m['content'] | truncate(500))",
    "first-line": "m['content'].split('\n')[0]",
    "one-line": "(m['content'] | replace('\n', ' '))",
    "indented": "(m['content'] | indent)",
    "single-spaces": "(m['content'].split() | join(' '))",
    "reversed": "(m['content'] | reverse)",
    "no-quotes": "m['content'].replace('\"', '')",
    "no-tabs": "m['content'].expandtabs()",
    "value": "(m['value'] | string)",
    "nothing": "''",
    "the-same": "'How are you?'",
    "random": "(m['content'] + (range(99999) | random * 99999 + range(99999) | random) | string)",
    "repr": "('%r' % m['content'])",
    "ascii": "(m['content'].encode('ascii', 'ignore') | string)",
}


@pytest.fixture
def in_this_process(monkeypatch):
    """Without the process of its own, which takes more than a second to start."""

    def render(self, messages, arguments=None):
        answer = template_process._render_job(
            {**self._job, "messages": list(messages), "arguments": dict(arguments or {})}
        )
        if "error" in answer:
            raise RenderingError(answer["error"])
        return answer["text"]

    monkeypatch.setattr(Rendering, "render", render)


@pytest.fixture(scope="module")
def tokenizer():
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    made = Tokenizer(models.WordLevel({"a": 0}, unk_token="a"))
    return PreTrainedTokenizerFast(tokenizer_object=made, bos_token="<s>", eos_token="</s>")


@pytest.fixture
def template(tokenizer):
    def made(text, arguments=None):
        tokenizer.chat_template = text
        return ChatTemplate(tokenizer, "generation.template", arguments)

    return made


def by_transformers(tokenizer, turns):
    """What `apply_chat_template` itself makes of a conversation."""
    messages = [{"role": turn.role, "content": turn.text} for turn in turns]
    return tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)


@pytest.mark.usefixtures("in_this_process")
@pytest.mark.parametrize("name", REAL)
def test_templates_of_published_models_are_taken_and_rendered_as_transformers_does(
    name, template, tokenizer
):
    turns = [Turn("user", " Who? "), Turn("assistant", "I."), Turn("user", "\nAnd <b>you</b>?\n")]
    rendered = template(REAL[name]).render(turns[-1].text, turns[:-1])
    if name != "llama-3":  # it reads the clock
        assert rendered == by_transformers(tokenizer, turns)
    assert "Who?" in rendered
    assert "And <b>you</b>?" in rendered


@pytest.mark.usefixtures("in_this_process")
@pytest.mark.parametrize("name", TAKES_A_SYSTEM)
def test_a_systems_message_stands_wherever_the_template_puts_it(name, template):
    turns = [Turn("system", "Be kind. "), Turn("user", "Who?"), Turn("assistant", "I.")]
    assert "Be kind." in template(REAL[name]).render("And you?", turns)


@pytest.mark.usefixtures("in_this_process")
def test_the_clock_stands_still(template):
    assert "26 Jul 2024" in template(LLAMA_3).render("Who?")


@pytest.mark.usefixtures("in_this_process")
@pytest.mark.parametrize("loss", LOSSY)
@pytest.mark.parametrize("name", REAL)
def test_a_template_that_changes_the_prompt_is_refused_at_load(name, loss, template):
    assert USER in REAL[name]
    with pytest.raises(ConfigError, match="generation.template"):
        template(REAL[name].replace(USER, LOSSY[loss]))


@pytest.mark.usefixtures("in_this_process")
def test_what_was_rendered_is_shown_without_control_characters(template):
    with pytest.raises(ConfigError) as refused:
        template("\x1b]52;c;\x07{% for c in messages[0].content %}{{ c.text }}{% endfor %}<a>")
    assert r"\x1b]52;c;\x07<a>" in str(refused.value)
    assert "\x1b" not in str(refused.value)


@pytest.mark.usefixtures("in_this_process")
def test_roles_by_other_names_are_refused(template):
    with pytest.raises(ConfigError, match="loses or repeats"):
        template("{% for m in messages if m.role == 'human' %}{{ m.content }}{% endfor %}")


@pytest.mark.usefixtures("in_this_process")
@pytest.mark.parametrize(
    ("text", "lost"),
    [
        ("{{ messages[-1].content }}", "system"),
        ("{% for m in messages if m.role != 'system' %}{{ m.content }}{% endfor %}", "system"),
        ("{% for m in messages if m.role != 'assistant' %}{{ m.content }}{% endfor %}", "assist"),
        ("{% for m in (messages | reverse) %}{{ m.content }}{% endfor %}", "assistant"),
        ("{% for m in messages[:1] + messages[1:][-1:] %}{{ m.content }}{% endfor %}", "assistant"),
    ],
)
def test_a_template_that_drops_a_turn_is_refused_for_that_conversation(text, lost, template):
    made = template(text)
    earlier = [Turn("system", "Be kind."), Turn("user", "Who?"), Turn("assistant", "I am.")]
    with pytest.raises(ConfigError, match=rf"the text of: .*{lost}"):
        made.render("And you?", earlier)


@pytest.mark.usefixtures("in_this_process")
def test_a_prompt_that_is_lost_later_is_refused_and_not_shown(template):
    made = template(
        "{% if 'secret' in messages[0].content %}x{% else %}{{ messages[0].content }}{% endif %}"
    )
    assert made.render("Hello") == "Hello"
    with pytest.raises(ConfigError, match="the text of: user") as refused:
        made.render("a secret word")
    assert "secret" not in str(refused.value)


@pytest.mark.usefixtures("in_this_process")
@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{{ tools | length }}", "TypeError"),
        ("{{ 2.0 ** 100000 }}", "OverflowError"),
        ("{% if %}", "TemplateSyntaxError"),
        ("{{ raise_exception('not for ' + messages[0].content) }}", "not for <user>"),
        ("{{ messages[9].content }}", "UndefinedError"),
        ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "RecursionError"),
        ("{{ messages.__class__.__mro__ }}", "SecurityError"),
        ("{{ messages[0].content }}{{ 'x' * 2000000 }}", "2,0"),
        ("{% for n in range(1000000000) %}{% endfor %}", "OverflowError"),
    ],
)
def test_a_template_that_fails_says_how(text, said, template):
    with pytest.raises(ConfigError, match=said):
        template(text)


@pytest.mark.parametrize(
    ("text", "said"),
    [(None, "no chat template"), ({"rag": CHATML}, "named default: 'rag'"), (5, "string: 5")],
)
def test_what_is_no_template_is_refused(text, said, template):
    with pytest.raises(ConfigError, match=said):
        template(text)


@pytest.mark.usefixtures("in_this_process")
def test_of_several_templates_the_default_is_taken(template):
    assert template({"rag": "x", "default": CHATML}).render("Who?").startswith("<|im_start|>user")


# --- messages before each prompt, and arguments --------------------------------------------------

SYSTEM, TURNS = Turn("system", "Be kind."), [Turn("user", "Who?"), Turn("assistant", "I.")]


@pytest.mark.usefixtures("in_this_process")
@pytest.mark.parametrize("name", TAKES_A_SYSTEM)
def test_a_template_that_keeps_a_system_message_and_turns_accepts_them(name, template):
    made = template(REAL[name])
    made.check_earlier([SYSTEM], "generation.system")
    made.check_earlier([SYSTEM, *TURNS, *TURNS], "generation.turns")


@pytest.mark.usefixtures("in_this_process")
@pytest.mark.parametrize(
    ("text", "earlier", "said"),
    [
        (GEMMA, [SYSTEM], r"system, user: TemplateError.*System role not supported.*generation\.x"),
        (
            "{% for m in messages if m.role != 'system' %}{{ m.content }}{% endfor %}",
            [SYSTEM],
            r"drops the text of: system\..*Remove generation\.x",
        ),
        (CHATML.replace(USER, "(m.content[:30] if m.role == 'system' else m.content)"), [SYSTEM],
         "drops the text of: system"),
        ("{{ messages[-1].content }}", TURNS, "drops the text of: user, assistant"),
        (CHATML.replace(USER, "(m.content * (2 if m.role == 'assistant' else 1))"), TURNS,
         "renders the text of assistant more than once"),
        (
            "{% if messages | length > 2 %}{{ raise_exception('one turn') }}{% endif %}"
            "{{ messages[0].content }}",
            TURNS,
            "user, assistant, user: TemplateError.*one turn",
        ),
    ],
)  # fmt: skip
def test_a_template_that_loses_or_repeats_an_earlier_message_is_refused(
    text, earlier, said, template
):
    with pytest.raises(ConfigError, match=f"the chat template of .*{said}"):
        template(text).check_earlier(earlier, "generation.x")


@pytest.mark.usefixtures("in_this_process")
@given(st.data())
def test_a_template_of_any_order_is_accepted_only_if_each_turn_is_rendered_once(data):
    """A template as a list of the messages that it renders, by their index."""
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    made = Tokenizer(models.WordLevel({"a": 0}, unk_token="a"))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=made)
    order = data.draw(st.lists(st.integers(0, 2), max_size=4))
    tokenizer.chat_template = (
        "{% if messages | length == 1 %}{{ messages[0].content }}{% else %}"
        f"{{% for n in {order} %}}<{{{{ messages[n].content }}}}>{{% endfor %}}{{% endif %}}"
    )
    chat = ChatTemplate(tokenizer, "generation.template")
    if order == [0, 1, 2]:
        chat.check_earlier(TURNS, "generation.turns")
        assert chat.render("And you?", TURNS) == "<Who?><I.><And you?>"
    else:
        with pytest.raises(ConfigError):
            chat.check_earlier(TURNS, "generation.turns")


@pytest.mark.usefixtures("in_this_process")
def test_arguments_reach_the_template_and_special_tokens_stay(template):
    assert template(QWEN_3, {"enable_thinking": False}).render("Who?").endswith("</think>\n\n")
    assert "<think>" not in template(QWEN_3, {"enable_thinking": True}).render("Who?")
    assert "<think>" not in template(QWEN_3).render("Who?")


def test_a_special_token_of_the_tokenizer_is_no_argument():
    with pytest.raises(RenderingError, match="image_token is a special token"):
        Rendering("{{ image_token }}", {"image_token": "<i>"}).render([], {"image_token": "x"})


@pytest.mark.parametrize(
    ("text", "read"),
    [
        (QWEN_3, {"enable_thinking", "content"}),  # content: defined in some branches only
        (CHATML, set()),
        ("{% if not date is defined %}{% set date = 'today' %}{% endif %}{{ date }}", {"date"}),
        ("{% set x = 1 %}{{ x }}{% generation %}{{ range(2) }}{% endgeneration %}{{ a.b }}", {"a"}),
        ("{% macro f(m) %}{{ m }}{{ style }}{% endmacro %}{{ f(1) }}", {"style"}),
    ],
)
def test_the_variables_of_a_template_are_those_that_it_may_read_undefined(text, read):
    job = {"template": text, "tokens": {}}
    found = set(template_process._variables_job(job)["variables"])
    assert found - RESERVED_ARGUMENTS == read


def test_the_variables_of_a_text_that_is_no_template_are_refused(tokenizer):
    tokenizer.chat_template = "{% if %}"
    with pytest.raises(ConfigError, match="TemplateSyntaxError"):
        template_variables(tokenizer, "generation.template")


# --- what counts as lost --------------------------------------------------------------------------

texts = st.text(max_size=30)


@given(st.lists(texts, min_size=1, max_size=5), st.data())
def test_turns_that_stand_in_order_are_never_lost(said, data):
    turns = [Turn("assistant" if n % 2 else "user", text) for n, text in enumerate(said)]
    between = data.draw(st.lists(texts, min_size=len(said), max_size=len(said)))
    rendered = "".join(extra + turn.text.strip() for extra, turn in zip(between, turns))
    assert list(lost_turns(rendered, turns)) == []


@given(st.lists(st.text("ab", min_size=1, max_size=4), min_size=1, max_size=5), st.data())
def test_a_turn_that_was_left_out_is_always_lost(said, data):
    """Texts of two letters: the others must not stand in for the one that is missing."""
    turns = [Turn("assistant" if n % 2 else "user", text) for n, text in enumerate(said)]
    out = data.draw(st.integers(0, len(said) - 1))
    rendered = "|".join(text for n, text in enumerate(said) if n != out)
    lost = list(lost_turns(rendered, turns))
    in_order, place = True, 0
    for text in said:
        place = rendered.find(text, place)
        in_order = in_order and place >= 0
        place += len(text)
        if not in_order:
            break
    assert bool(lost) == (not in_order)


def test_thoughts_of_an_earlier_answer_may_go_and_switches_of_a_system():
    thought = Turn("assistant", "<think>Who am I?</think>\n\nI am.")
    assert list(lost_turns("Who?I am.And?", [Turn("user", "Who?"), thought])) == []
    assert list(lost_turns("Who?And?", [Turn("user", "Who?"), thought])) == [thought]
    switched = Turn("system", "Be kind. /no_think")
    assert list(lost_turns("Be kind.", [switched])) == []
    assert list(lost_turns("kind.", [switched])) == [switched]


# --- the process of its own -----------------------------------------------------------------------


def messages(text):
    return [{"role": "user", "content": text}]


def test_a_process_renders_any_text_and_ends_with_its_owner():
    made = Rendering("{{ bos_token }}{{ messages[0].content }}", {"bos_token": "<s>"})
    for text in (MARKER, LONG, "", "\ud800", "a\x00b\r\n\u2028"):
        assert made.render(messages(text)) == f"<s>{text}"
    process = made._process
    del made
    assert process.poll() == 0


def test_an_error_of_one_text_leaves_the_next_one_alone():
    made = Rendering("{{ 1 // (messages[0].content | length) }}", {})
    with pytest.raises(RenderingError, match="ZeroDivisionError"):
        made.render(messages(""))
    assert made.render(messages("a")) == "1"


@pytest.mark.parametrize(
    "text",
    [
        "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
        "{{ 9 ** (9 ** (messages[0].content | length + 8)) }}",
    ],
    ids=["loops", "power"],
)
def test_a_template_that_does_not_end_is_ended(text, monkeypatch):
    monkeypatch.setattr(template_process, "SECONDS", 0.3)
    made = Rendering("{% if messages[0].content %}" + text + "{% endif %}done", {})
    with pytest.raises(RenderingError, match="within 0.3 s"):
        made.render(messages("a"))
    assert made.render(messages("")) == "done", "and the next one is rendered"


@pytest.mark.skipif(sys.platform != "linux", reason="Linux limits memory, others the time")
@pytest.mark.parametrize(
    "text",
    [
        "{{ 'x' * 10 ** 11 }}",
        "{% set ns = namespace(s='x') %}{% for n in range(99) %}{% set ns.s = ns.s ~ ns.s %}"
        "{% endfor %}{{ ns.s }}",
    ],
    ids=["times", "doubling"],
)
def test_a_template_that_fills_the_memory_is_ended(text, monkeypatch):
    monkeypatch.setattr(template_process, "MEMORY", 400_000_000)
    with pytest.raises(RenderingError, match="MemoryError"):
        Rendering(text, {}).render(messages("a"))
