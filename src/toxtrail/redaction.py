"""Passwords, tokens and keys masked in text that is shown or recorded."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache, partial
from urllib.parse import quote, unquote

MASK = "***"

SCHEMES = (
    r"(?:https?|ftps?|sftp|ssh|git|postgres(?:ql)?|mysql|mariadb|mssql|oracle|sqlite|mongodb|rediss?"
    r"|amqps?|s3|gs|azure|abfss?|hdfs|webdavs?|file|socks[45]h?)(?:\+\w{1,20})?"
)
"""Pattern of the schemes that begin another address; after any other word, `://` may be a part of a
password."""

USER_INFO = re.compile(
    rf"""(?P<scheme>\b[a-z][a-z0-9+.-]{{0,30}}://)
        (?P<info> [^\s/?#@:"'<>\[\]]{{0,200}}:
            (?!\d*(?:[/?#\s"'<>,;)]|$))  # HOST:PORT is not a user
            # a password, in which people leave `/`, `?`, `#` and `@` as they are:
            (?:(?!\b{SCHEMES}://|'[],;:)}}\s])[^\s"<>]){{0,1000}}(?=@)
          | [^\s/?#"'<>]{{0,1000}}(?=@)  # a user alone
        )@""",
    re.IGNORECASE | re.VERBOSE,
)
"""`scheme://user:password@`; a token alone may replace the user."""

QUERY = re.compile(
    r"(?P<name>[?&;#][\w.-]{0,60}(?:password|passwd|passphrase|pwd|secret|token|api[_-]?key"
    r"|access[_-]?key(?:[_-]?id)?|account[_-]?key|signature|credentials?"
    r"|(?<![a-z0-9])(?:sig|sas|key|auth|jwt))=)[^\s&;#\"'<>]+",
    re.IGNORECASE,
)
"""`?token=...`, `&X-Amz-Signature=...`."""

SETTING = re.compile(
    r"(?P<name>(?:\b|(?<=%3b))\w{0,30}(?:password|passwd|pwd|secret|secret[_-]?(?:access[_-]?)?key"
    r"|api[_-]?key|account[_-]?key|(?:access|auth|id|refresh|session)[_-]token)"
    r"(?:=|%3d|['\"]\s{0,2}:\s{0,2})['\"]?)[^\s&;,\"'<>)}]+",
    re.IGNORECASE,
)
"""`password=...` of a connection string, `"password": "..."`."""

VARIABLE = re.compile(
    r"(?P<name>\b[A-Z][A-Z0-9_]{0,60}_(?:TOKEN|PASSWORD|SECRET|KEY)=['\"]?)[^\s;\"']+"
)
"""`HF_TOKEN=...`, in shell notation."""

OPTION = re.compile(
    r"(?P<name>(?<!\S)--[\w-]{0,30}(?:password|token|secret)[ =]['\"]?)[^\s\"']+", re.IGNORECASE
)

HEADER = re.compile(
    r"(?P<name>\b(?:(?:proxy-)?authorization|[\w-]{0,30}-(?:token|api-key))"
    r"['\"]?\s{0,3}[:=]\s{0,3}(?:b?['\"])?)"
    r"(?:(?:bearer|basic|token)\s{1,3})?[^\s,\"']+",
    re.IGNORECASE,
)
COOKIE = re.compile(
    r"(?P<name>\b(?:set-)?cookie['\"]?\s{0,3}:\s{0,3}['\"]?)(?=[\w.-]{1,60}=)[^\r\n\"']+",
    re.IGNORECASE,
)
BEARER = re.compile(r"(?P<name>\bbearer\s{1,3})(?=\S{0,200}\d)[\w.~+/=-]{16,}", re.IGNORECASE)

TOKENS = re.compile(
    r"\b(?:hf_[A-Za-z0-9]{16,}|gh[pousr]_[A-Za-z0-9]{16,}|github_pat_\w{16,}|glpat-[\w-]{16,}"
    r"|pypi-[\w-]{40,}|sk-(?=[\w-]{0,60}\d)[\w-]{20,}|xox[abeoprs]-[\w-]{10,}|npm_[A-Za-z0-9]{36}"
    r"|gsk_[A-Za-z0-9]{20,}|AIza[\w-]{35}|ya29\.[\w-]{20,}|dapi[0-9a-f]{32}"
    r"|(?:AKIA|ASIA)[A-Z0-9]{16}|eyJ[\w-]{10,}\.eyJ[\w-]{10,}\.[\w-]{10,})"
    r"|-----BEGIN [A-Z ]{0,20}PRIVATE KEY-----[^-]{0,20000}"
    r"(?:-----END [A-Z ]{0,20}PRIVATE KEY-----)?"
)
"""Access tokens of services with a token prefix."""

SECRET_VARIABLE = re.compile(
    r"(?:^|_)(?:PASSWORD|PASSWD|PASSPHRASE|PASS|PGPASSWORD|SECRET|TOKEN|APIKEY"
    r"|(?:API|ACCESS|ACCOUNT|SECRET|SERVER|PRIVATE|STORAGE|SAS)_KEY|CONNECTION_STRING)$"
)
"""Names of environment variables that contain a secret."""
ADDRESS_VARIABLE = re.compile(r"_(?:URI|URL|DSN|ENDPOINT|PROXY)$")
"""Names of environment variables that contain an address, possibly without a scheme."""

SHORTEST = 6
"""Minimum length of a secret to mask in other text: shorter strings occur by chance."""
DISTINCT = 12
"""Minimum length of a secret to mask inside words as well."""


def redacted(text: str, environ: Mapping[str, str] | None = None) -> str:
    """Return the text without secrets: user names and passwords of addresses, tokens in queries,
    headers and settings, and the values of environment variables that contain secrets.

    Args:
        environ: the environment variables; None for those of this process.
    """
    return redactor(environ)(text)


def redactor(environ: Mapping[str, str] | None = None) -> Callable[[str], str]:
    """Return `redacted` for many texts; it reads the environment variables once."""
    return partial(_redact, _secrets_of(os.environ if environ is None else environ))


def _redact(secrets: Sequence[str], text: str) -> str:
    for secret in secrets:
        if secret in text:
            text = _without(secret, text)
    if "://" in text:
        text = USER_INFO.sub(rf"\g<scheme>{MASK}@", text)
    for pattern in (QUERY, SETTING, VARIABLE, OPTION, HEADER, COOKIE, BEARER):
        text = pattern.sub(rf"\g<name>{MASK}", text)
    return TOKENS.sub(MASK, text)


def _without(secret: str, text: str) -> str:
    """Mask a short secret only as a separate word: it may be a syllable of other words."""
    if len(secret) >= DISTINCT:
        return text.replace(secret, MASK)
    before = r"(?<!\w)" if secret[0].isalnum() else ""
    after = r"(?!\w)" if secret[-1].isalnum() else ""
    return re.sub(before + re.escape(secret) + after, MASK, text)


def _secrets_of(environ: Mapping[str, str]) -> tuple[str, ...]:
    return _spellings(
        frozenset(
            secret for name, value in environ.items() for secret in _secrets(name.upper(), value)
        )
    )


def _secrets(name: str, value: str) -> Iterator[str]:
    """Return the secrets in one environment variable."""
    if SECRET_VARIABLE.search(name):
        yield value
    elif "@" in value and ("://" in value or ADDRESS_VARIABLE.search(name)):
        address = value if "://" in value else f"none://{value}"
        for match in USER_INFO.finditer(address):
            user, colon, password = match["info"].partition(":")
            yield password if colon else user


@lru_cache(maxsize=8)
def _spellings(secrets: frozenset[str]) -> tuple[str, ...]:
    """Return each secret as written and URL-encoded, the longest first."""
    spelled = {
        s.strip() for secret in secrets for s in (secret, unquote(secret), quote(secret, safe=""))
    }
    return tuple(sorted((s for s in spelled if len(s) >= SHORTEST), key=lambda s: (-len(s), s)))
