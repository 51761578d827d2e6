"""The metadata of a README are claims: whatever is wrong with them, the rest goes on."""

import pytest

from toxtrail.backends.huggingface.weights.card_metadata import read_readme
from toxtrail.backends.huggingface.weights.resolve import readme_license


def written(folder, text):
    data = text if isinstance(text, bytes) else text.encode()
    (folder / "README.md").write_bytes(data)
    return folder


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("---\nlicense: mit\n---\n# A model\n", {"license": "mit"}),
        ("---\r\nlicense: mit\r\n---\r\n# A model\r\n", {"license": "mit"}),
        (
            "\n\n---\nlicense: mit\ntags: [a, b]\n---\n---\nx\n",
            {"license": "mit", "tags": ["a", "b"]},
        ),
        ("---\nlicense: mit\n---", {"license": "mit"}),
        ("---\n---\ntext\n", {}),
        ("---\n\n---\ntext\n", {}),
        ("# A model\n\n---\n\nlicense: mit\n", {}),
        ("", {}),
    ],
)
def test_metadata_are_read_where_they_stand(text, values, tmp_path):
    assert read_readme(written(tmp_path, text)) == (values, None)


def test_a_folder_without_a_readme_says_nothing(tmp_path):
    assert read_readme(tmp_path) == ({}, None)


@pytest.mark.parametrize(
    "line",
    [
        "description: a: b", "\tlicense: mit", "by: @x", "picture: *pic", "nul: \0",
        "made: !!python/object/apply:os.system [ls]", "date: 2024-13-45", "- a\n- b", "just text",
        "[", "{" * 5000, "a: &a [*a", "? [a]\n: b\n? {c: d}\n: e", "time: 2024-01-01T99:99:99",
    ],
)  # fmt: skip
def test_metadata_that_cannot_be_read_are_a_remark(line, tmp_path):
    folder = written(tmp_path, f"---\nlicense: mit\n{line}\n---\n# A model\n")
    values, problem = read_readme(folder)
    assert values == {}
    assert problem
    assert problem.isprintable()
    assert readme_license(folder) is None


def test_metadata_that_are_never_closed_are_a_remark(tmp_path):
    assert read_readme(written(tmp_path, "---\nlicense: mit\n# A model\n")).problem


def test_another_encoding_loses_its_own_characters_alone(tmp_path):
    text = "---\nlicense: mit\nauthor: René\n---\n".encode("latin-1")
    values, problem = read_readme(written(tmp_path, text))
    assert values["license"] == "mit"
    assert "UTF-8" in problem
