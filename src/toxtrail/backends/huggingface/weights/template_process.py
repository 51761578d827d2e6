"""Render chat templates in a separate process, with limits on time, memory and size.

A chat template is a program written by the model's publisher: it may loop for hours or exhaust the
memory. A process can be stopped from every thread and on every system; it enforces its own time
limit, so it ends even if this process is gone. Memory is limited where the system supports it (not
on Windows; hardly on macOS), elsewhere only by the time limit.

`python -P -m toxtrail.backends.huggingface.weights.template_process SECONDS BYTES` answers each
line of JSON with another.
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
"""Time limit of one rendering. A published template takes a few milliseconds. Our choice."""
MEMORY = 2 << 30
"""Bytes that the process may use. Our choice."""
MAX_CHARACTERS = 1_000_000
"""Largest number of characters of a rendered conversation; for a long one, four times its length.
Our choice."""
READY = "ready"


class RenderingError(Exception):
    """A conversation could not be rendered; the message gives the reason."""


class Rendering:
    """A template, rendered by a process that starts at the first call and ends with this object."""

    def __init__(self, template: str, tokens: Mapping[str, str]) -> None:
        """Args:
        template: Jinja.
        tokens: special tokens that the template may use: `bos_token` -> `<s>`.
        """
        self._job: dict[str, Any] = {"template": template, "tokens": dict(tokens)}
        self._process: subprocess.Popen[str] | None = None

    def render(
        self, messages: Sequence[Mapping[str, Any]], arguments: Mapping[str, Any] | None = None
    ) -> str:
        """Render a conversation up to the start of the model's answer.

        Args:
            messages: role and content of each; content is a text, or a list of parts.
            arguments: further variables of the template: JSON values by name.

        Raises:
            RenderingError: the template raised an error, or exceeded a limit.
        """
        arguments = dict(arguments or {})
        if taken := sorted(arguments.keys() & self._job["tokens"].keys()):
            raise RenderingError(f"{taken[0]} is a special token of the tokenizer, not an argument")
        return str(self._answer({"messages": list(messages), "arguments": arguments})["text"])

    def variables(self) -> frozenset[str]:
        """Return the names of the variables that the template may read before it defines them.

        Raises:
            RenderingError: the template is not valid Jinja.
        """
        return frozenset(self._answer({})["variables"])

    def _answer(self, task: Mapping[str, Any]) -> dict[str, Any]:
        if self._process is None:
            self._process = _start_process()
            weakref.finalize(self, _end_process, self._process)
        answer = _request(self._process, {**self._job, **task})
        if answer is None:
            code, self._process = _end_process(self._process), None
            raise RenderingError(
                f"it did not end within {SECONDS:g} s"
                if code == 1
                else f"the process that renders it was stopped (exit code {code})"
            )
        if "error" in answer:
            raise RenderingError(answer["error"])
        return answer


def _start_process() -> subprocess.Popen[str]:
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
        code = _end_process(process)
        raise RenderingError(f"the process that renders it does not start (exit code {code})")
    return process


def _request(process: subprocess.Popen[str], job: Mapping[str, Any]) -> dict[str, Any] | None:
    """Send a job and return the answer; None if the process ended."""
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        process.stdin.write(json.dumps(job) + "\n")
        process.stdin.flush()
    except BrokenPipeError:
        return None
    line = process.stdout.readline()
    return json.loads(line) if line.endswith("\n") else None


def _end_process(process: subprocess.Popen[str]) -> int:
    """Wait for the process to end: at the end of its input, or at its time limit."""
    for pipe in (process.stdin, process.stdout):
        assert pipe is not None
        try:
            pipe.close()
        except BrokenPipeError:  # it did not read everything
            continue
    return process.wait()


# --- in the separate process ----------------------------------------------------------------------


def main() -> None:
    """Answer each line of the input until it ends."""
    seconds, memory, out = float(sys.argv[1]), int(sys.argv[2]), sys.stdout
    sys.stdout = sys.stderr  # output of a library is not an answer
    from transformers.utils import chat_template_utils  # noqa: F401  slow import

    _limit_memory(memory)
    _write_line(out, READY)
    for line in sys.stdin:
        job = json.loads(line)
        faulthandler.dump_traceback_later(seconds, exit=True)
        answer = _render_job(job) if "messages" in job else _variables_job(job)
        faulthandler.cancel_dump_traceback_later()
        _write_line(out, json.dumps(answer))


def _render_job(job: Mapping[str, Any]) -> dict[str, str]:
    """Render a job; return `text` or `error`."""
    from transformers.utils.chat_template_utils import render_jinja_template

    from toxtrail.backends.library_errors import summary

    length = sum(len(_content_text(message["content"])) for message in job["messages"])
    limit = max(MAX_CHARACTERS, 4 * length)
    try:
        rendered: Any = render_jinja_template(  # as tokenizer.apply_chat_template does
            conversations=[job["messages"]],
            tools=None,
            documents=None,
            chat_template=job["template"],
            add_generation_prompt=True,
            **{**job["tokens"], **job["arguments"]},
        )
    except Exception as error:  # noqa: BLE001  a template is a program: it may raise anything
        message_text = str(error)
        for message in job["messages"]:
            if content := _content_text(message["content"]).strip():
                message_text = message_text.replace(content, f"<{message['role']}>")
        return {"error": summary(type(error).__name__, message_text)}
    text: str = rendered[0][0]
    if len(text) > limit:
        return {"error": f"it rendered {len(text):,} characters, more than {limit:,}"}
    return {"text": text}


def _variables_job(job: Mapping[str, Any]) -> dict[str, Any]:
    """Find the variables of a template; return `variables` or `error`."""
    from jinja2.meta import find_undeclared_variables
    from transformers.utils.chat_template_utils import _compile_jinja_template

    from toxtrail.backends.library_errors import summary

    try:
        environment = _compile_jinja_template(job["template"]).environment
        names = find_undeclared_variables(environment.parse(job["template"]))
    except Exception as error:  # noqa: BLE001  a template is foreign text
        return {"error": summary(type(error).__name__, str(error))}
    return {"variables": sorted(names - environment.globals.keys())}


def _content_text(content: str | list[dict[str, str]]) -> str:
    """Return the text of a message whose content is a text or a list of parts."""
    return content if isinstance(content, str) else "".join(part["text"] for part in content)


def _limit_memory(limit: int) -> None:
    try:
        import resource
    except ImportError:  # Windows
        return
    _, hard_limit = resource.getrlimit(resource.RLIMIT_DATA)
    if hard_limit == resource.RLIM_INFINITY or limit < hard_limit:
        resource.setrlimit(resource.RLIMIT_DATA, (limit, hard_limit))


def _write_line(out: IO[str], line: str) -> None:
    out.write(line + "\n")
    out.flush()


if __name__ == "__main__":
    main()
