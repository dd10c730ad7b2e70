"""A server of transformers with a pruned model, in a thread of this process, and what asks it."""

from __future__ import annotations

import base64
import json
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any

import torch
from PIL import Image

import prunus
from prunus.serving import transformers as server
from prunus.serving.models import Served

Message = list[dict[str, Any]]


@dataclass
class Address:
    """Where a server listens, and what it ``said`` of its requests."""

    name: str
    url: str
    said: list[str] = field(default_factory=list)

    def post(self, path: str, body: dict[str, Any]) -> tuple[int, str]:
        """Status and text of the answer."""
        data = json.dumps(body).encode()
        head = {"Content-Type": "application/json"}
        request = urllib.request.Request(self.url + path, data, head, method="POST")
        try:
            with urllib.request.urlopen(request, timeout=120) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def ask(self, message: Message, tokens: int = 4, **more: Any) -> tuple[int, str]:
        """Status, and the answer's text or the error's message; the pieces of a stream are joined,
        and must come to their end."""
        body = {"model": self.name, "messages": message, "max_tokens": tokens, "temperature": 0}
        status, text = self.post("/v1/chat/completions", {**body, **more})
        if status != 200:
            return status, json.loads(text)["error"]["message"]
        if not more.get("stream"):
            return status, json.loads(text)["choices"][0]["message"]["content"]
        lines = [line.removeprefix("data: ") for line in text.splitlines() if line]
        chunks = [json.loads(line) for line in lines]
        assert chunks[-1]["choices"][0]["finish_reason"] in ("stop", "length")
        return status, "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks)


@contextmanager
def serving(served: Served) -> Iterator[Address]:
    """Run a server for the time of the block."""
    said: list[str] = []
    options = {"host": "127.0.0.1", "port": 0, "log_level": "error", "non_blocking": True}
    running = server.serve(served, said.append, **options)
    try:
        deadline = time.monotonic() + 60
        while not running.server.started:
            assert time.monotonic() < deadline and running._thread.is_alive()
            time.sleep(0.02)
        port = running.server.servers[0].sockets[0].getsockname()[1]
        yield Address(served.name, f"http://127.0.0.1:{port}", said)
    finally:
        running.kill_server()


def data_uri(image: Image.Image, kind: str = "png") -> str:
    """The image as a request has it."""
    written = BytesIO()
    image.save(written, kind)
    return f"data:image/{kind};base64,{base64.b64encode(written.getvalue()).decode()}"


def about(question: str, images: Sequence[Image.Image | str] = ()) -> Message:
    """The messages of one request."""
    uris = [one if isinstance(one, str) else data_uri(one) for one in images]
    parts = [{"type": "image_url", "image_url": {"url": uri}} for uri in uris]
    return [{"role": "user", "content": [*parts, {"type": "text", "text": question}]}]


def answered(
    name: str, methods: Any, asked: Sequence[tuple[str, Sequence[Image.Image]]], tokens: int = 4
) -> list[str]:
    """What the model of prunus, pruned by ``methods`` (None: not), says to one question after the
    other, without any server."""
    model, processor = prunus.load(name)
    run = None if methods is None else prunus.prune(model, methods, processor=processor).attach()
    found = []
    for question, images in asked:
        content = [{"type": "image", "image": image} for image in images]
        message = [{"role": "user", "content": [*content, {"type": "text", "text": question}]}]
        inputs = processor.apply_chat_template(
            message,
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
        )
        with torch.no_grad():
            output = model.generate(**inputs, max_new_tokens=tokens, do_sample=False)
        found.append(processor.decode(output[0, inputs["input_ids"].shape[1] :], True))
    if run is not None:
        run.detach()
    return found
