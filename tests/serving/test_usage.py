"""What answers of transformers' server say was kept, and videos of requests."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import prunus
from prunus.inference.inputs import process
from prunus.inference.prompts import build_prompt
from prunus.inference.sampling import Sampling
from prunus.inference.videos import open_videos
from prunus.method import make_method
from prunus.tasks.sample import load_sample
from tests.support.served import Address, about, data_uri, serving

pytest.importorskip("fastapi", reason="needs prunus[serve]")
pytest.importorskip("uvicorn", reason="needs prunus[serve]")
pytest.importorskip("openai", reason="needs prunus[serve]")

from prunus.serving.models import Served
from prunus.serving.usage import counted

METHOD = make_method("fastv", {"keep": 0.25, "layer": 2})


@pytest.fixture(scope="module")
def qwen() -> Iterator[Address]:
    with serving(Served("tiny-qwen", (METHOD,))) as address:
        yield address


def usages(text: str) -> list[dict[str, Any]]:
    """Every ``usage`` of an answer, or of the events of a stream."""
    lines = text.splitlines() if text.startswith(("data:", "event:")) else [f"data: {text}"]
    events = [json.loads(line[6:]) for line in lines if line.startswith("data: {")]
    both = [one.get("usage") or (one.get("response") or {}).get("usage") for one in events]
    return [one for one in both if one]


def asked(path: str, question: str, uri: str) -> dict[str, Any]:
    if path == "/v1/responses":
        parts = [
            {"type": "input_image", "image_url": uri},
            {"type": "input_text", "text": question},
        ]
        return {"input": [{"role": "user", "content": parts}], "max_output_tokens": 3}
    return {"messages": about(question, [uri]), "max_tokens": 3}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/responses"])
def test_usage_says_what_was_kept(qwen: Address, path: str, stream: bool) -> None:
    picture = load_sample()[0]
    body = asked(path, "what is it ?", data_uri(picture))
    status, text = qwen.post(path, {"model": "tiny-qwen", "stream": stream, **body})
    assert status == 200, text
    [usage] = usages(text)
    model, processor = prunus.load("tiny-qwen")
    inputs = process(processor, build_prompt(processor, "what is it ?", 1), [picture])
    with prunus.prune(model, METHOD) as run, torch.no_grad():
        model(**inputs)
    tokens = run.report()["tokens"]
    wanted = (tokens["original"], tokens["kept"], tokens["average"])
    assert tuple(usage["prunus"].values()) == pytest.approx(wanted)
    assert usage["prunus"]["kept"] < usage["prunus"]["visual_tokens"]
    prompt = usage.get("prompt_tokens", usage.get("input_tokens"))
    assert prompt == inputs["input_ids"].shape[1]  # as it was sent


def test_a_request_without_images_kept_nothing(qwen: Address) -> None:
    body = {"model": "tiny-qwen", "messages": about("what is it ?"), "max_tokens": 2}
    [usage] = usages(qwen.post("/v1/chat/completions", body)[1])
    assert usage["prunus"] == {"visual_tokens": 0, "kept": 0, "average": 0.0}


def film(path: Path, count: int) -> str:
    """A video of a moving picture as an address that holds it."""
    from tests.support.clips import write_video  # which needs PyAV

    picture = np.asarray(load_sample()[0].resize((96, 96)))
    write_video(path, count, 2, draw=lambda number: np.roll(picture, 4 * number, 1))
    return f"data:video/mp4;base64,{base64.b64encode(path.read_bytes()).decode()}"


def about_film(uri: str) -> list[dict[str, Any]]:
    part = {"type": "video_url", "video_url": {"url": uri}}
    return [{"role": "user", "content": [part, {"type": "text", "text": "does it move ?"}]}]


@pytest.mark.parametrize("stream", [False, True])
def test_videos_are_seen_as_by_every_other_command(
    qwen: Address, tmp_path: Path, stream: bool
) -> None:
    pytest.importorskip("av", reason="needs prunus[video]")
    path = tmp_path / "film.mp4"
    uri = film(path, 6)
    qwen.said.clear()
    status, text = qwen.ask(about_film(uri), stream=stream)
    assert status == 200, text
    model, processor = prunus.load("tiny-qwen")
    videos = open_videos([path], Sampling())
    inputs = process(processor, build_prompt(processor, "does it move ?", 0, 1), (), videos)
    with prunus.prune(model, METHOD) as run, torch.no_grad():
        output = model.generate(**inputs, max_new_tokens=4, do_sample=False)
    assert text == processor.decode(output[0, inputs["input_ids"].shape[1] :], True)
    tokens = run.report()["tokens"]
    assert qwen.said[0].startswith(
        f"visual tokens {tokens['original']:g} -> {tokens['kept']:g} at the last layer"
    )


def test_videos_that_are_refused(qwen: Address, tmp_path: Path) -> None:
    pytest.importorskip("av", reason="needs prunus[video]")
    path = tmp_path / "film.mp4"
    uri = film(path, 6)
    for address, reason in (
        (str(path), "files of the server are not read"),
        ("data:video/mp4;base64,AAAA", "damaged or no video"),
        ("data:video/mp4,AAAA", "not in base64"),
        ("http://127.0.0.1:9/none.mp4", "cannot be fetched"),
    ):
        status, text = qwen.ask(about_film(address))
        assert status == 400 and reason in text and "prunus-" not in text
    for wish in ("num_frames", "fps"):
        status, text = qwen.ask(about_film(uri), chat_template_kwargs={wish: 2})
        assert status == 400 and f"{wish} is not listened to" in text


async def _stream(pieces: list[str]) -> Any:
    for piece in pieces:
        yield piece


def test_only_the_event_with_the_usage_is_changed() -> None:
    tokens = {"original": 9.0, "kept": 3.0, "average": 4.5}
    end = 'event: end\ndata: {"response": {"usage": {"input_tokens": 12}}}\n\n'
    pieces = ['data: {"a":  1}\n\n', 'data: {"usage": null}\n\n', end]

    async def all_of() -> list[str]:
        return [piece async for piece in counted(_stream(pieces), lambda: tokens)]

    found = asyncio.run(all_of())
    assert found[:2] == pieces[:2] and found[2].startswith("event: end\ndata: {")
    [usage] = usages(found[2])
    assert usage == {
        "input_tokens": 12,
        "prunus": {"visual_tokens": 9, "kept": 3, "average": 4.5},
    }
