"""Servers of OpenAI's completions API on 127.0.0.1: one that says what a test wants, one that
holds real weights."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Status(Exception):  # noqa: N818
    """Raised by an answer: reply with this status."""

    def __init__(self, status: int, body: object = "", **headers: str) -> None:
        super().__init__(status)
        self.status, self.body = status, body
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}


class Raw(Exception):  # noqa: N818
    """Raised by an answer: send these bytes as a JSON body said to be longer by `missing`."""

    def __init__(self, data: bytes, missing: int = 0) -> None:
        super().__init__(data)
        self.data, self.missing = data, missing


class CompletionsServer:
    """Runs in threads of this process. Use as a context manager."""

    def __init__(
        self,
        answer: Callable[[dict[str, Any]], dict[str, Any]],
        models: tuple[dict[str, Any], ...] = ({"id": "m"},),
        version: str | None = None,
        port: int = 0,
    ) -> None:
        self.answer = answer
        self.models = models
        self.version = version
        self.asked: list[dict[str, Any]] = []
        self.keys: set[str | None] = set()
        self.times: list[float] = []
        self.most_at_a_time = 0
        self._now = 0
        self._lock = threading.Lock()
        self._http = ThreadingHTTPServer(("127.0.0.1", port), _Handler)
        self._http.owner = self
        self._http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._http.server_port}/v1"

    def __enter__(self) -> CompletionsServer:
        threading.Thread(target=self._http.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._http.server_close()

    def reply(self, body: dict[str, Any]) -> dict[str, Any]:
        with self._lock:
            self.asked.append(body)
            self.times.append(time.monotonic())
            self._now += 1
            self.most_at_a_time = max(self.most_at_a_time, self._now)
        try:
            return self.answer(body)
        finally:
            with self._lock:
                self._now -= 1

    def listing(self, path: str) -> dict[str, Any]:
        if path == "/v1/models":
            return {"object": "list", "data": list(self.models)}
        if path == "/version" and self.version:
            return {"version": self.version}
        raise Status(404, {"detail": "Not Found"})


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.say(lambda: self.server.owner.listing(self.path))

    def do_POST(self) -> None:
        data = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.owner.keys.add(self.headers["Authorization"])
        self.say(lambda: self.server.owner.reply(json.loads(data)))

    def say(self, make: Callable[[], dict[str, Any]]) -> None:
        try:
            self.send(200, json.dumps(make()).encode())
        except Status as status:
            self.send(status.status, json.dumps(status.body).encode(), **status.headers)
        except Raw as raw:
            self.send(200, raw.data, missing=raw.missing)

    def send(self, status: int, data: bytes, missing: int = 0, **headers: str) -> None:
        headers |= {"Content-Type": "application/json", "Content-Length": str(len(data) + missing)}
        self.close_connection = self.close_connection or missing > 0
        with suppress(BrokenPipeError, ConnectionResetError):
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(data)

    def log_message(self, *_: object) -> None: ...


def completion(text: str, finish: str = "length", **more: Any) -> dict[str, Any]:
    """The body of an answer; `usage`, `model` and fields of the choice as given."""
    choice = {"index": 0, "text": text, "finish_reason": finish}
    outer = {
        name: more.pop(name) for name in ("usage", "model", "system_fingerprint") if name in more
    }
    return {"object": "text_completion", "model": "m", "choices": [{**choice, **more}], **outer}


def chat(content: Any, finish: str | None = "stop", **more: Any) -> dict[str, Any]:
    """The body of a chat answer; `usage`, `model` and fields of the message as given."""
    outer = {
        name: more.pop(name) for name in ("usage", "model", "system_fingerprint") if name in more
    }
    message = {"role": "assistant", "content": content, **more}
    choice = {"index": 0, "message": message, "finish_reason": finish}
    return {"object": "chat.completion", "choices": [choice], **outer}


class ChatAnswers:
    """A chat-only server: answers with words of the last message, and refuses what it is told to.

    Args:
        unsupported: fields of a request that it rejects, each by its name as OpenAI does.
        quirks: last message -> what to answer with: a body, or a Status to raise.
    """

    def __init__(
        self,
        unsupported: tuple[str, ...] = (),
        quirks: dict[str, Any] | None = None,
        model: str = "m-2026-01-01",
    ) -> None:
        self.unsupported, self.quirks, self.model = unsupported, quirks or {}, model

    def __call__(self, body: dict[str, Any]) -> dict[str, Any]:
        if "messages" not in body:
            raise Status(404, {"detail": "Not Found"})
        for name in self.unsupported:
            if name in body:
                text = f"Unsupported parameter: '{name}' is not supported with this model."
                raise Status(400, {"error": {"message": text, "param": name}})
        last = body["messages"][-1]["content"]
        if (quirk := self.quirks.get(last)) is not None:
            if isinstance(quirk, Status):
                raise quirk
            return {"model": self.model, **quirk}
        words = last.split()
        usage = {"prompt_tokens": len(words), "completion_tokens": len(words[:3])}
        text = " ".join(words[:3])
        return chat(text, model=self.model, usage=usage, system_fingerprint="fp_1")


class RealAnswers:
    """transformers' own generate behind the API: one prompt at a time, token ids or text."""

    def __init__(self, model: Any, tokenizer: Any, stop: int) -> None:
        self.model, self.tokenizer, self.stop = model.eval(), tokenizer, stop
        self._lock = threading.Lock()

    def __call__(self, body: dict[str, Any]) -> dict[str, Any]:
        import torch

        prompt = body["prompt"]
        ids = self.tokenizer(prompt)["input_ids"] if isinstance(prompt, str) else prompt
        with self._lock, torch.inference_mode():
            out = self.model.generate(
                torch.tensor([ids]),
                attention_mask=torch.ones(1, len(ids), dtype=torch.long),
                max_new_tokens=body["max_tokens"],
                do_sample=False,
                eos_token_id=body.get("stop_token_ids", [self.stop]),
                pad_token_id=self.stop,
            )
        new = out[0, len(ids) :].tolist()
        ended = bool(new) and new[-1] in body.get("stop_token_ids", [self.stop])
        text = self.tokenizer.decode(
            new, skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        usage = {"prompt_tokens": len(ids), "completion_tokens": len(new)}
        return completion(
            text, "stop" if ended else "length", usage=usage, token_ids=new, prompt_token_ids=ids,
            model=body["model"], **self.logprobs(ids, body),
        )  # fmt: skip

    def logprobs(self, ids: list[int], body: dict[str, Any]) -> dict[str, Any]:
        """The most likely first tokens, as vLLM gives them: by text or id, more only if asked."""
        import torch

        if not body.get("logprobs"):
            return {}
        with torch.inference_mode():
            logits = self.model(torch.tensor([ids])).logits[0, -1]
        values, tokens = torch.log_softmax(logits, dim=-1).topk(body["logprobs"])
        by_id = body.get("return_tokens_as_token_ids")
        names = [f"token_id:{t}" if by_id else self.tokenizer.decode([t]) for t in tokens.tolist()]
        top = dict(zip(names, values.tolist(), strict=True))
        return {"logprobs": {"tokens": names[:1], "top_logprobs": [top]}}
