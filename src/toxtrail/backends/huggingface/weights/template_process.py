"""Chat templates are rendered in a process of their own, with limits in time, memory and size.

A chat template is a program of whoever published the model: it may loop for hours or fill the
memory. A process can be ended, in every thread and on every system; the time limit lies in that
process itself, so it ends even if this one is gone. Memory is limited where the system can do it
(not on Windows; hardly on macOS), elsewhere by the time alone.

`python -P -m toxtrail.backends.huggingface.weights.template_process SECONDS BYTES` answers a line
of JSON with another.
"""

from __future__ import annotations

import faulthandler
import json
import os
import subprocess
import sys
import weakref
from collections.abc import Mapping, Sequence
from typing import IO, Any

SECONDS = 10.0
"""For one rendering. A published template takes a few milliseconds. Our choice."""
MEMORY = 2 << 30
"""Bytes that the process may use. Our choice."""
LONGEST = 1_000_000
"""Characters that a template may make of a conversation; of a long one four times as many as it
has. Our choice."""
READY = "ready"


class RenderingError(Exception):
    """A conversation could not be rendered: the text says why."""


class Rendering:
    """A template, rendered by a process that starts when it is first asked and ends with this."""

    def __init__(self, template: str, tokens: Mapping[str, str]) -> None:
        """Args:
        template: Jinja.
        tokens: special tokens that the template may name: `bos_token` -> `<s>`.
        """
        self._job = {"template": template, "tokens": dict(tokens)}
        self._process: subprocess.Popen[str] | None = None

    def render(self, messages: Sequence[Mapping[str, str]]) -> str:
        """A conversation as text, up to where the model's answer starts.

        Raises:
            RenderingError: the template raised an error, or went beyond a limit.
        """
        if self._process is None:
            self._process = _started()
            weakref.finalize(self, _ended, self._process)
        answer = _asked(self._process, {**self._job, "messages": list(messages)})
        if answer is None:
            code, self._process = _ended(self._process), None
            raise RenderingError(
                f"it did not end within {SECONDS:g} s"
                if code == 1
                else f"the process that renders it was ended (exit code {code})"
            )
        if "error" in answer:
            raise RenderingError(answer["error"])
        return str(answer["text"])


def _started() -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", __name__, str(SECONDS), str(MEMORY)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        encoding="ascii",
        env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
    )
    assert process.stdout is not None
    if process.stdout.readline().strip() != READY:
        code = _ended(process)
        raise RenderingError(f"the process that renders it does not start (exit code {code})")
    return process


def _asked(process: subprocess.Popen[str], job: Mapping[str, Any]) -> dict[str, Any] | None:
    """The answer; None if the process ended instead."""
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        process.stdin.write(json.dumps(job) + "\n")
        process.stdin.flush()
    except BrokenPipeError:
        return None
    line = process.stdout.readline()
    return json.loads(line) if line.endswith("\n") else None


def _ended(process: subprocess.Popen[str]) -> int:
    """Let the process end: it does when its input does, or at its own time limit."""
    for pipe in (process.stdin, process.stdout):
        assert pipe is not None
        try:
            pipe.close()
        except BrokenPipeError:  # what it did not read
            continue
    return process.wait()


# --- in the process of its own --------------------------------------------------------------------


def main() -> None:
    """Answer each line of the input, until it ends."""
    seconds, memory, out = float(sys.argv[1]), int(sys.argv[2]), sys.stdout
    sys.stdout = sys.stderr  # whatever a library prints is no answer
    from transformers.utils import chat_template_utils  # noqa: F401  what takes long

    _limit_memory(memory)
    _say(out, READY)
    for line in sys.stdin:
        job = json.loads(line)
        faulthandler.dump_traceback_later(seconds, exit=True)
        answer = _answer(job)
        faulthandler.cancel_dump_traceback_later()
        _say(out, json.dumps(answer))


def _answer(job: Mapping[str, Any]) -> dict[str, str]:
    """`text`, or `error`."""
    from transformers.utils.chat_template_utils import render_jinja_template

    from toxtrail.backends.library_errors import summary

    limit = max(LONGEST, 4 * sum(len(message["content"]) for message in job["messages"]))
    try:
        made: Any = render_jinja_template(  # as tokenizer.apply_chat_template does
            conversations=[job["messages"]],
            tools=None,
            documents=None,
            chat_template=job["template"],
            add_generation_prompt=True,
            **job["tokens"],
        )
    except Exception as error:  # noqa: BLE001  a template is a program: it may raise anything
        said = str(error)
        for message in job["messages"]:
            if content := message["content"].strip():
                said = said.replace(content, f"<{message['role']}>")
        return {"error": summary(type(error).__name__, said)}
    text: str = made[0][0]
    if len(text) > limit:
        return {"error": f"it made {len(text):,} characters, more than {limit:,}"}
    return {"text": text}


def _limit_memory(limit: int) -> None:
    try:
        import resource
    except ImportError:  # Windows
        return
    _, most = resource.getrlimit(resource.RLIMIT_DATA)
    if most == resource.RLIM_INFINITY or limit < most:
        resource.setrlimit(resource.RLIMIT_DATA, (limit, most))


def _say(out: IO[str], line: str) -> None:
    out.write(line + "\n")
    out.flush()


if __name__ == "__main__":
    main()
