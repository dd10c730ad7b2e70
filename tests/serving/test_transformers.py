"""transformers' own server with a pruned model, over HTTP."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncGenerator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import prunus
from prunus import CLSE, Fixed
from prunus.errors import PrunusError
from prunus.io.images import open_image
from prunus.method import Method, make_method
from prunus.tasks.sets import load_builtin_set
from tests.support.command_line import Cli, refused

pytest.importorskip("fastapi", reason="needs prunus[serve]")
pytest.importorskip("uvicorn", reason="needs prunus[serve]")
pytest.importorskip("openai", reason="needs prunus[serve]")

from prunus.serving import transformers as server
from prunus.serving.models import Served
from prunus.serving.pictures import open_address
from prunus.serving.requests import begun
from tests.support.served import Address, about, answered, data_uri, serving

Asked = list[tuple[str, list[Image.Image]]]


def questions(name: str, count: int) -> Asked:
    """Questions of the built-in set ``name``, each about another image."""
    data = load_builtin_set(name)
    step = len(data.queries) // count
    queries = [data.queries[number * step] for number in range(count)]
    return [(query.text, [data.images[query.image]()]) for query in queries]


def find(name: str, **params: Any) -> Method:
    return make_method(name, params)


@pytest.fixture(scope="module")
def llava() -> Iterator[Address]:
    with serving(Served("tiny-llava", (CLSE(keep=64),))) as address:
        yield address


def at_once(address: Address, asked: Asked, clients: int = 4) -> list[str]:
    """The answers, asked for by several clients at the same time; every other one as a stream."""

    def ask(number: int) -> str:
        question, images = asked[number]
        status, text = address.ask(about(question, images), stream=number % 2 == 1)
        assert status == 200, text
        return text

    with ThreadPoolExecutor(clients) as pool:
        return list(pool.map(ask, range(len(asked))))


def test_four_clients_get_what_the_pruned_model_says_alone(llava: Address) -> None:
    asked = questions("scenes", 8)
    asked.insert(3, ("is there a circle ?", []))  # no image: nothing is pruned
    asked.insert(6, ("is there a circle ?", [asked[0][1][0]] * 2))
    llava.said.clear()
    answers = at_once(llava, asked)
    assert answers == answered("tiny-llava", [CLSE(keep=64)], asked)
    assert len(set(answers)) > 2  # not one answer for all
    told = [re.sub(", .*", "", line) for line in llava.said]
    one, two = (f"visual tokens {576 * n} -> {64 * n} at the last layer" for n in (1, 2))
    assert sorted(told) == sorted([one] * 8 + [two, "no image: nothing to prune"])


def test_a_model_with_sizes_of_its_own_and_a_count_of_its_own() -> None:
    asked = questions("sizes", 6)
    assert len({images[0].size for _, images in asked}) > 2
    methods = prunus.prune(prunus.load("tiny-qwen")[0], "stepwise").methods
    with serving(Served("tiny-qwen", methods)) as address:
        assert at_once(address, asked) == answered("tiny-qwen", "stepwise", asked)
        counts = {re.findall(r"-> ([\d.]+)", line)[0] for line in address.said}
    assert len(address.said) == 6 and len(counts) > 2  # the method decides each time


def test_a_folder_pruned_inside_the_language_model(tmp_path: Path) -> None:
    model, processor = prunus.load("tiny-llava")
    folder = tmp_path / "mine@2"
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    asked = questions("scenes", 4)
    method = find("fastv", keep=200, layer=3)
    with serving(Served(str(folder), (method,), "true")) as address:
        answers = at_once(address, asked)
        _, models = address.post("/load_model", {"model": str(folder)})
    with prunus.prune(model, method, budget="true"):
        own = [address_free(model, processor, *one) for one in asked]
    assert answers == own
    averages = [float(re.findall(r"([\d.]+) per layer", line)[0]) for line in address.said]
    assert averages == pytest.approx([200] * 4, abs=0.5)
    assert '"ready"' in models


def address_free(model: Any, processor: Any, question: str, images: Sequence[Image.Image]) -> str:
    text = processor.apply_chat_template(about(question, images), add_generation_prompt=True)
    inputs = processor(text=text, images=list(images), return_tensors="pt")
    output = model.generate(**inputs, max_new_tokens=4, do_sample=False)
    return str(processor.decode(output[0, inputs["input_ids"].shape[1] :], True))


@pytest.mark.parametrize("stream", [False, True])
def test_a_refusal_is_an_error_of_http_and_no_answer(stream: bool) -> None:
    (question, images), *_ = questions("scenes", 1)
    with serving(Served("tiny-llava", (Fixed(indices=[[[3, 5, 8]]]),))) as address:
        status, text = address.ask(about(question, images * 2), stream=stream)
        assert status == 400 and "image" in text
        assert address.said == [f"refused: {text}"]
        # The server goes on.
        assert address.ask(about(question, images), stream=stream)[0] == 200


@pytest.mark.parametrize("stream", [False, True])
def test_a_request_cannot_ask_for_what_pruning_has_not(llava: Address, stream: bool) -> None:
    (question, images), *_ = questions("scenes", 1)
    for wish, word in (
        ({"use_cache": False}, "use_cache"),
        ({"cache_implementation": "static"}, "cache_implementation='static'"),
    ):
        status, text = llava.ask(
            about(question, images), stream=stream, generation_config=json.dumps(wish)
        )
        assert status == 400 and word in text


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("data:image/png;base64,AAAA", "no image"),
        ("data:image/png;base64,!!", "no base64"),
        ("data:image/png,AAAA", "not in base64"),
        ("/etc/hostname", "files of the server are not read"),
        ("http://127.0.0.1:9/none.png", "cannot be fetched"),
    ],
)
def test_images_that_cannot_be_read(llava: Address, address: str, reason: str) -> None:
    status, text = llava.ask(about("what is it ?", [address]))
    assert status == 400 and reason in text


def test_images_are_seen_as_by_every_other_command(tmp_path: Path) -> None:
    picture = questions("scenes", 1)[0][1][0]
    turned = picture.rotate(90, expand=True)
    turned.getexif()[0x0112] = 6  # "turn me by 90 degrees to the right"
    path = tmp_path / "turned.png"
    turned.save(path, exif=turned.getexif())
    clear = picture.convert("RGBA")
    clear.putalpha(Image.linear_gradient("L").resize(clear.size))
    clear.save(tmp_path / "clear.png")
    for name in (path, tmp_path / "clear.png"):
        uri = f"data:image/png;base64,{base64.b64encode(name.read_bytes()).decode()}"
        assert open_address(uri).tobytes() == open_image(name).tobytes()
    assert open_image(path).tobytes() == picture.tobytes()  # it was turned back


def test_the_model_comes_back_pruned(llava: Address) -> None:
    (question, images), *_ = questions("scenes", 1)
    before = llava.ask(about(question, images))
    assert llava.post("/reset", {})[0] == 200
    llava.said.clear()
    assert llava.ask(about(question, images)) == before
    assert "576 -> 64" in llava.said[0]


def test_no_other_model_is_loaded(llava: Address) -> None:
    body = {"model": "tiny-qwen", "messages": about("what ?")}
    assert llava.post("/v1/chat/completions", body)[0] == 400
    status, text = llava.post("/load_model", {"model": "tiny-qwen"})
    assert '"error"' in text and "this server has tiny-llava only" in text
    assert status == 200  # a stream of events


async def _pieces(said: list[str], error: Exception | None) -> AsyncGenerator[str, None]:
    try:
        for one in said:
            yield one
        if error is not None:
            raise error
    finally:
        said.append("closed")


def streamed(said: list[str], after: int, error: Exception | None) -> list[str]:
    """What a client gets where generating begins with piece number ``after``."""

    async def all_of() -> list[str]:
        seen = iter(range(1, 100))
        pieces = _pieces(said, error)
        return [piece async for piece in await begun(pieces, lambda: next(seen) >= after)]

    return asyncio.run(all_of())


def test_a_stream_that_breaks_off_says_so() -> None:
    said = ["a", "b"]
    assert streamed(["a", "b", "c"], 2, None) == ["a", "b", "c"]
    *pieces, last = streamed(said, 2, PrunusError('not "so"'))
    assert pieces == ["a", "b"] and said[-1] == "closed"
    assert json.loads(last.removeprefix("data: "))["error"]["message"] == 'not "so"'
    with pytest.raises(PrunusError, match="at once"):
        streamed(["a"], 2, PrunusError("at once"))


def test_a_client_that_leaves_ends_the_stream() -> None:
    said = ["a", "b", "c"]

    async def leave() -> None:
        pieces = await begun(_pieces(said, None), lambda: True)
        assert await anext(pieces) == "a"
        await pieces.aclose()

    asyncio.run(leave())
    assert said[-1] == "closed"


def test_what_a_pruned_model_cannot_have(cli: Cli) -> None:
    serve = ("serve", "transformers", "tiny-llava")
    refused(cli(*serve, "--continuous-batching"), "--continuous-batching", "paged cache")
    refused(cli(*serve, "--compile"), "--compile", "static cache")
    refused(cli(*serve, "--attn-implementation", "paged|sdpa"), "paged cache")
    refused(cli(*serve, "--method", "none", "--budget", "true"), "leave out --budget")
    refused(cli(*serve, "--method", "clsee"), "did you mean 'clse'")
    refused(cli(*serve, "--chat-template-kwargs", "[1]"), "JSON object")
    refused(cli("serve", "transformers", "tiny-lava"), "unknown model")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        refused(cli(*serve, "--host", "127.0.0.1", "--port", port), f"--port {port}", "is taken")


def test_another_server_of_transformers_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers.cli.serving import utils

    monkeypatch.delattr(utils, "GenerationState")
    with pytest.raises(PrunusError, match="has no GenerationState"):
        server.serve(Served("tiny-llava", None), print)


def test_nothing_of_transformers_stays_changed(llava: Address) -> None:
    from transformers.cli.serving import model_manager, utils
    from transformers.cli.serving import server as theirs

    parts = (model_manager.ModelManager, utils.GenerationState, theirs.build_server)
    assert all(part.__module__.startswith("transformers.") for part in parts)


def test_as_a_program() -> None:
    command = [sys.executable, "-m", "prunus", "serve", "transformers", "tiny-llava"]
    more = ["--method", "fastv", "--keep", "0.25", "--host", "127.0.0.1", "--port", "0"]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(
        [*command, *more],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    assert process.stdout is not None
    said = ""
    try:
        for line in process.stdout:
            said += line
            if found := re.search(r"running on (http://127.0.0.1:\d+)", line):
                address = Address("tiny-llava", found[1])
                picture = questions("scenes", 1)[0][1][0]
                assert address.ask(about("how many objects ?", [data_uri(picture)]))[0] == 200
                process.send_signal(signal.SIGINT)
                break
        else:
            raise AssertionError(said)
        said += process.stdout.read()
        assert process.wait(60) == 130, said
    finally:
        process.kill()
        process.stdout.close()
    assert said.startswith("prunus: tiny-llava is pruned by FastV(")
    assert "keep=0.25" in said and "visual tokens 576 -> 144 at the last layer" in said
    assert "Traceback" not in said
