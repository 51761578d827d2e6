"""Prompts: which are drawn, from which files."""

from __future__ import annotations

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from toxtrail.backends.protocols import Asset
from toxtrail.config.schema import PromptsConfig, SubsetConfig
from toxtrail.datasets.prompt_selection import Candidate, Selection, sample_prompts
from toxtrail.datasets.readers import read_rows, read_texts
from toxtrail.errors import ConfigError, DataError
from toxtrail.provenance.identity import sha256_file, sha256_text
from toxtrail.records.rows import Prompt, Turn, prompt_content
from toxtrail.stages.prompts import run
from toxtrail.storage.artifacts import ArtifactStore

TEXTS = st.lists(st.text(min_size=1, max_size=8), min_size=1, max_size=20, unique=True)


def drawn(texts, n, seed=1, subset="s"):
    candidates = {}
    for row, text in enumerate(texts):
        candidates.setdefault(text, Candidate(row, "", None))
    selection = Selection(candidates, len(texts), 0, {}, len(texts) - len(candidates))
    config = SubsetConfig(uri="file:x", n=n)
    return [prompt.text for prompt in sample_prompts(selection, subset, config, seed)]


@given(TEXTS, st.randoms(use_true_random=False))
def test_the_order_of_the_file_changes_no_draw(texts, random):
    shuffled = list(texts)
    random.shuffle(shuffled)
    n = (len(texts) + 1) // 2
    assert set(drawn(shuffled, n)) == set(drawn(texts, n))


@given(TEXTS)
def test_a_larger_draw_keeps_the_smaller_one(texts):
    n = (len(texts) + 1) // 2
    assert set(drawn(texts, n)) <= set(drawn(texts, len(texts)))


def test_another_seed_or_subset_draws_others():
    texts = [str(i) for i in range(50)]
    assert drawn(texts, 10) != drawn(texts, 10, seed=2)
    assert drawn(texts, 10) != drawn(texts, 10, subset="other")


def test_a_text_that_stands_twice_is_one_prompt():
    assert sorted(drawn(["a", "b", "a"], 2)) == ["a", "b"]


def test_asking_for_more_than_there_are_says_how_many_there_are():
    with pytest.raises(ConfigError, match=r"file:x has 2 distinct"):
        drawn(["a", "b", "a"], 3)


@pytest.mark.parametrize("suffix", [".txt", ".csv", ".jsonl", ".parquet"])
def test_every_kind_of_file_gives_the_same_texts(suffix, tmp_path):
    texts, path = ["one, two", 'a "quote"', "ümlaut"], tmp_path / f"p{suffix}"
    if suffix == ".txt":
        path.write_text("\n".join(texts), encoding="utf-8")
    elif suffix == ".csv":
        rows = "".join('"' + t.replace('"', '""') + '"\n' for t in texts)
        path.write_text("text\n" + rows, encoding="utf-8")
    elif suffix == ".jsonl":
        path.write_text("".join(json.dumps({"text": t}) + "\n" for t in texts), encoding="utf-8")
    else:
        pq.write_table(pa.table({"text": texts}), path)
    column = None if suffix == ".txt" else "text"
    assert [text for _, text, _ in read_texts(path, column)] == texts


def test_a_wrong_column_names_the_nearest(tmp_path):
    path = tmp_path / "p.jsonl"
    path.write_text('{"prompt": "x"}\n')
    with pytest.raises(DataError, match='mean "prompt"'):
        list(read_texts(path, "prompts"))


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("p.jsonl", b'{"a": "x"}\n{broken\n', "line 2 is not JSON"),
        ("p.jsonl", b"[1]\n", "p.jsonl, line 1 "),
        ("p.txt", b"fine\n\xff\n", "is not UTF-8 text"),
        ("p.parquet", b"nothing", "not a readable Parquet"),
        ("p.xlsx", b"", "rows are read from"),
        ("p.jsonl", b'{"a": 1}\n', "row 1: expected text, got int"),
        ("p.jsonl", b'{"a": "\\ud800"}\n', "not valid Unicode"),
        ("p.json", b'[{"a": "x"},\n {"b"]', "is not JSON: .* at line 2"),
        ("p.json", b"[1, 2]", "a list of objects"),
        ("p.json", b'{"one": ["text"]}', "by category and name"),
        ("p.json", b'{"one": {"name": [1]}}', "by category and name"),
        ("p.json", b"{}", "by category and name"),
        ("p.json", b'{"a": "x"}\n{broken\n', "line 2 is not JSON"),
    ],
)
def test_a_bad_file_is_named_with_the_place(name, content, said, tmp_path):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(DataError, match=said):
        list(read_texts(path, None if name == "p.txt" else "a"))


def test_rows_keep_their_place_in_the_file(tmp_path):
    path = tmp_path / "p.jsonl"
    path.write_text('{"a": "x"}\n\n{"a": "y"}\n')
    assert [number for number, _ in read_rows(path)] == [0, 2]


def test_a_json_file_is_a_list_or_an_object_a_line(tmp_path):
    (tmp_path / "list.json").write_text('[{"a": "x"}, {"a": "y"}]')
    (tmp_path / "lines.json").write_text('{"a": "x"}\n{"a": "y"}\n')
    for name in ("list.json", "lines.json"):
        assert list(read_rows(tmp_path / name)) == [(0, {"a": "x"}), (1, {"a": "y"})]


def test_texts_by_category_and_name_are_rows_with_both(tmp_path):
    path = tmp_path / "religion_prompt.json"
    path.write_text('{"Judaism": {"Ark": ["An ark is"]}, "Hinduism": {"Om": ["Om", "Om is"]}}')
    assert [row for _, row in read_rows(path)] == [
        {"category": "Judaism", "name": "Ark", "text": "An ark is"},
        {"category": "Hinduism", "name": "Om", "text": "Om"},
        {"category": "Hinduism", "name": "Om", "text": "Om is"},
    ]


def test_a_cell_of_a_csv_file_keeps_its_lines(tmp_path):
    path = tmp_path / "p.csv"
    path.write_bytes(b'a,b\r\n"one\ntwo",x\r\n')
    assert list(read_rows(path)) == [(0, {"a": "one\ntwo", "b": "x"})]


def test_a_dot_goes_into_objects_unless_a_column_is_called_so(tmp_path):
    path = tmp_path / "p.jsonl"
    path.write_text('{"prompt": {"text": "inner"}}\n{"prompt.text": "outer"}\n{"prompt": null}\n')
    assert [text for _, text, _ in read_texts(path, "prompt.text")] == ["inner", "outer", ""]
    with pytest.raises(DataError, match=r'mean "prompt.text"'):
        list(read_texts(path, "prompt.txt"))


class Local:
    """Assets that are files of a folder."""

    def __init__(self, root):
        self.root = root

    def fetch(self, uri, sha256):
        path = self.root / uri.removeprefix("file:")
        return Asset(uri, path, sha256_file(path), sha256_file(path), ())


@pytest.fixture
def ran(tmp_path):
    """Files by name, and the subsets -> the store that the stage wrote."""

    def make(files, **subsets):
        for name, content in files.items():
            (tmp_path / name).write_text(content, encoding="utf-8")
        store = ArtifactStore(tmp_path)
        run(store, PromptsConfig(seed=1, subsets=subsets), Local(tmp_path))
        return store

    return make


ATTRIBUTES = (
    "profanity", "sexually_explicit", "identity_attack", "flirtation", "threat", "insult",
    "severe_toxicity", "toxicity",
)  # fmt: skip
"""Of RealToxicityPrompts, as Perspective calls them."""


def toxicity_prompts(n=40):
    """Lines of the shape in which RealToxicityPrompts is published; every tenth without scores."""
    rows = [
        {
            "filename": f"{i}.txt", "begin": 340, "end": 564, "challenging": i % 4 == 0,
            "prompt": {
                "text": f"Prompt number {i}",
                **dict.fromkeys(ATTRIBUTES, None if i % 10 == 0 else i / 40),
            },
            "continuation": {"text": " goes on.", **dict.fromkeys(ATTRIBUTES, 0.5)},
        }
        for i in range(n)
    ]  # fmt: skip
    return "".join(json.dumps(row) + "\n" for row in rows)


def test_real_toxicity_prompts_are_drawn_by_score_with_all_attributes_kept(ran):
    subset = {
        "uri": "file:prompts.jsonl",
        "n": "all",
        "column": "prompt.text",
        "where": {"prompt.severe_toxicity": {"min": 0.75}},
        "covariates": {
            **{name: f"prompt.{name}" for name in ATTRIBUTES},
            "challenging": "challenging",
        },
        "language": "en",
        "license": "Apache-2.0",
    }
    store = ran({"prompts.jsonl": toxicity_prompts()}, severe=subset)
    prompts = store.read_prompts()
    assert sorted(p.source_row for p in prompts) == [31, 32, 33, 34, 35, 36, 37, 38, 39]
    one = next(p for p in prompts if p.source_row == 32)
    assert one.text == "Prompt number 32"
    assert one.language == "en"
    assert one.covariates == {**dict.fromkeys(ATTRIBUTES, 0.8), "challenging": 1.0}
    card = json.loads(store.prompt_card_path.read_text())
    own = card["subsets"]["severe"]
    assert own["rows"] == 40
    assert own["where"] == [{"condition": "prompt.severe_toxicity >= 0.75", "rows_left": 9}]
    assert (own["license"], own["language"], own["drawn"]) == ("Apache-2.0", "en", 9)
    assert own["sha256"] == sha256_file(store.root / "prompts.jsonl")
    assert own["covariates"]["challenging"]["mean"] == pytest.approx(2 / 9)
    assert own["covariates"]["threat"]["max"] == pytest.approx(39 / 40)
    assert card["manifest"]["kind"] == "prompts"


def test_a_score_that_the_source_lacks_is_kept_as_missing(ran):
    subset = {
        "uri": "file:prompts.jsonl", "n": "all", "column": "prompt.text",
        "covariates": {"toxicity": "prompt.toxicity"},
    }  # fmt: skip
    store = ran({"prompts.jsonl": toxicity_prompts()}, one=subset)
    values = {p.source_row: p.covariates["toxicity"] for p in store.read_prompts()}
    assert values[10] is None
    assert values[11] == 11 / 40
    card = json.loads(store.prompt_card_path.read_text())["subsets"]["one"]
    assert (card["covariates"]["toxicity"]["known"], card["covariates"]["toxicity"]["missing"]) == (
        36, 4,
    )  # fmt: skip


def test_texts_of_the_shape_of_ceb_are_drawn_equally(ran):
    groups = ("age", "gender", "race", "religion")
    rows = [{"id": i, "bias_type": groups[i % 4], "prompt": f"Text {i}"} for i in range(60)]
    subset = {"uri": "file:ceb.json", "n": 20, "column": "prompt", "balance": "bias_type"}
    store = ran({"ceb.json": json.dumps(rows)}, ceb=subset)
    drawn_groups = [groups[p.source_row % 4] for p in store.read_prompts()]
    assert {g: drawn_groups.count(g) for g in groups} == dict.fromkeys(groups, 5)
    card = json.loads(store.prompt_card_path.read_text())["subsets"]["ceb"]
    assert card["balance"]["values"]["race"] == {"distinct": 15, "drawn": 5}


def message(role, content):
    return {"role": role, "content": content}


TALK = [message("system", "Be kind."), message("user", "Hi"), message("assistant", "Hello"),
        message("user", "Bye")]  # fmt: skip
SHAREGPT = [{"from": {"user": "human", "assistant": "gpt"}.get(m["role"], m["role"]),
             "value": m["content"]} for m in TALK]  # fmt: skip


@pytest.mark.parametrize("talk", [TALK, SHAREGPT], ids=["messages", "sharegpt"])
@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".parquet"])
def test_conversations_are_prompts_in_every_kind_of_file(suffix, talk, ran, tmp_path):
    rows, name = [{"talk": talk}, {"talk": talk[:2]}, {"talk": talk[1:2]}], f"p{suffix}"
    files = {name: "\n".join(map(json.dumps, rows))}
    if suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), tmp_path / name)
        files = {}
    store = ran(files, s={"uri": f"file:{name}", "n": "all", "column": "talk"})
    whole, first, single = sorted(store.read_prompts(), key=lambda prompt: prompt.source_row)
    assert whole.earlier == (
        Turn("system", "Be kind."), Turn("user", "Hi"), Turn("assistant", "Hello")
    )  # fmt: skip
    assert (whole.text, first.text, single.text) == ("Bye", "Hi", "Hi")
    assert whole.prompt_id == f"s-{sha256_text(whole.content)[:12]}"
    assert single == Prompt(f"s-{sha256_text('Hi')[:12]}", "s", "Hi", f"file:{name}", 2)
    card = json.loads(store.prompt_card_path.read_text())["subsets"]["s"]
    assert (card["conversations"], card["drawn"]) == (2, 3)


def test_conversations_are_duplicates_only_if_all_turns_are_equal(ran):
    talks = [TALK, TALK, [message("system", "Be rude."), *TALK[1:]], TALK[1:], [TALK[-1]]]
    lines = "\n".join(json.dumps({"m": talk}) for talk in talks)
    store = ran({"p.jsonl": lines}, s={"uri": "file:p.jsonl", "n": "all", "column": "m"})
    assert sorted(p.source_row for p in store.read_prompts()) == [0, 2, 3, 4]
    assert {p.text for p in store.read_prompts()} == {"Bye"}
    assert len({p.prompt_id for p in store.read_prompts()}) == 4


@pytest.mark.parametrize(
    ("talk", "said"),
    [
        ([], "missing: the list is empty"),
        (TALK[:3], "from the assistant"),
        (TALK[:1], "from the system"),
        ([message("user", " "), *TALK[2:]], "message 1 has no visible text"),
        ([*TALK[:3], message("user", "\u200b")], "message 4 has no visible text"),
        ([*TALK[1:3], TALK[0], TALK[3]], "a system message is not the first"),
        ([message("tool", "x"), TALK[3]], 'unknown speaker "tool"'),
        ([message("user", [{"type": "image_url"}])], "expected text, got list"),
        ([message("user", 5)], "expected text, got int"),
        ([{"content": "x"}], "a message needs role or from"),
        (["x"], "a message needs role or from"),
        ({"role": "user", "content": "x"}, "expected text, got dict"),
    ],
)
def test_a_conversation_that_is_no_prompt_is_refused_with_its_row(talk, said, ran):
    lines = "\n".join(json.dumps({"m": one}) for one in (TALK, talk))
    with pytest.raises(DataError, match=rf"prompts\.subsets\.s: p\.jsonl, row 2.*{said}"):
        ran({"p.jsonl": lines}, s={"uri": "file:p.jsonl", "n": "all", "column": "m"})


SPOKEN = st.lists(st.text(st.characters(categories=["L"]), min_size=1), min_size=1, max_size=4)


@given(SPOKEN, SPOKEN)
def test_different_conversations_have_different_contents(one, other):
    def content(said):
        roles = ("user", "assistant") if len(said) % 2 else ("assistant", "user")
        return prompt_content([Turn(roles[i % 2], text) for i, text in enumerate(said)])

    assert (content(one) == content(other)) == (one == other)


def test_plain_prompts_give_the_file_that_they_always_gave(ran):
    """Neither column nor id of an experiment without the new options changes."""
    store = ran({"p.txt": "one\ntwo\none\n\n"}, s={"uri": "file:p.txt", "n": 2})
    assert pq.read_schema(store.prompts_path).names == [
        "prompt_id", "subset", "text", "source", "source_row"
    ]  # fmt: skip
    assert [(p.prompt_id, p.source_row) for p in store.read_prompts()] == [
        ("s-3fc4ccfe7458", 1),
        ("s-7692c3ad3540", 0),
    ]
    own = json.loads(store.prompt_card_path.read_text())["subsets"]["s"]
    assert (own["rows"], own["blank"], own["duplicates"], own["distinct"]) == (4, 1, 1, 2)


def test_an_error_names_the_subset(ran):
    with pytest.raises(DataError, match=r'row 1: no column "text"'):
        ran({"p.jsonl": '{"txet": "x"}\n'}, s={"uri": "file:p.jsonl", "n": 1, "column": "text"})
