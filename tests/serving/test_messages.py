"""Requests whose form is wrong, or of which something would be left out, are refused with 400."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest
from PIL import Image

from prunus import CLSE

pytest.importorskip("fastapi", reason="needs prunus[serve]")
pytest.importorskip("uvicorn", reason="needs prunus[serve]")
pytest.importorskip("openai", reason="needs prunus[serve]")

from prunus.serving.models import Served
from tests.support.served import Address, about, data_uri, serving

PICTURE = {"type": "image_url", "image_url": {"url": data_uri(Image.new("RGB", (32, 32)))}}
TEXT = {"type": "text", "text": "what is it ?"}
AUDIO = {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}}
VIDEO = {"type": "video_url", "video_url": {"url": "data:video/mp4;base64,AAAA"}}


@pytest.fixture(scope="module")
def llava() -> Iterator[Address]:
    with serving(Served("tiny-llava", (CLSE(keep=64),))) as address:
        yield address


def said(found: tuple[int, str]) -> str:
    status, text = found
    assert status == 400, text
    error = json.loads(text)["error"]
    assert error["type"] == "invalid_request_error"
    return str(error["message"])


def chat(address: Address, **body: Any) -> tuple[int, str]:
    whole = {"model": address.name, "messages": about("what is it ?"), "max_tokens": 2}
    return address.post("/v1/chat/completions", {**whole, **body})


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("parts", "reason"),
    [
        ([VIDEO, TEXT], "content[0]: this model takes no video"),
        ([AUDIO, TEXT], "content[0]: this model takes no audio"),
        ([TEXT, {"type": "file", "file": {}}], "content[1]: a part of type 'file' is not known"),
        ([PICTURE, {**TEXT, "text": "is <image> it ?"}], "content[1]: the text 'is <image> it ?'"),
        ([{"type": "image_url"}, TEXT], 'content[0]: expected "image_url"'),
        ([{"type": "text", "text": 3}], "content[0]: expected a text"),
        ("\ud800", "messages[0]: '\\ud800' holds half of a surrogate pair"),
        (["what ?"], "content[0]: a part of type None is not known"),
        ([], "messages[0]: it has no content"),
        (None, "messages[0]: it has no content"),
        (7, "messages[0]: it has no content"),
    ],
)
def test_nothing_of_a_message_is_left_out(
    llava: Address, parts: Any, reason: str, stream: bool
) -> None:
    messages = [{"role": "user", "content": parts}]
    assert reason in said(chat(llava, messages=messages, stream=stream))


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ({"messages": []}, "messages: give a list"),
        ({"messages": "what ?"}, "messages: give a list"),
        ({"messages": ["what ?"]}, "messages[0]: expected an object with a role of"),
        ({"messages": [{"role": "king", "content": "?"}]}, "messages[0]: expected an object"),
        ({"max_tokens": 0}, "max_tokens: 0 is no number of tokens"),
        ({"max_tokens": "many"}, "max_tokens: 'many' is no number of tokens"),
        ({"max_tokens": True}, "max_tokens: True is no number of tokens"),
        ({"n": 3}, "n: 3: there is one answer"),
        ({"chat_template_kwargs": {"tools": 1}}, "no prompt can be made of this request: "),
    ],
)
def test_a_body_that_is_none(llava: Address, body: dict[str, Any], reason: str) -> None:
    assert reason in said(chat(llava, **body))


def test_what_is_no_text_at_all(llava: Address) -> None:
    head = {"Content-Type": "application/json"}
    url = f"{llava.url}/v1/chat/completions"
    for content in (b'{"model": "\xff"}', b"{", b"[]"):
        request = urllib.request.Request(url, content, head, method="POST")
        with pytest.raises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(request, timeout=60)
        assert caught.value.code in (400, 422)


def test_what_processors_refuse_is_no_fault_of_the_server() -> None:
    with serving(Served("tiny-qwen", None)) as address:
        flat = [data_uri(Image.new("RGB", (3000, 1)))]
        messages = about("what is it ?", flat)
        assert "aspect ratio" in said(chat(address, messages=messages))
        responses = {"model": address.name, "input": [{"role": "user", "content": [AUDIO]}]}
        assert "takes no audio" in said(address.post("/v1/responses", responses))
        assert chat(address)[0] == 200
        turns = [{"role": "system", "content": "Be short."}, *about("what is it ?")]
        turns += [{"role": "assistant", "content": "a dot"}, {"role": "user", "content": "so ?"}]
        assert chat(address, messages=turns)[0] == 200
