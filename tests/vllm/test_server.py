"""`prunus serve vllm` over HTTP: vLLM's server in its own processes, streamed answers, usage."""

from __future__ import annotations

import asyncio
import base64
import io
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from prunus.tasks.sample import load_sample

pytest.importorskip("vllm", reason="make vllm-env makes an environment with it")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """Its address and log."""
    log = tmp_path_factory.mktemp("server") / "log"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = ["-m", "prunus", "serve", "vllm", "tiny-llava", "--method", "visionzip"]
    command += ["--keep", "64", "--host", "127.0.0.1", "--port", str(port), "--enforce-eager"]
    command += ["--max-model-len", "1536", "--dtype", "float32"]
    own = {**os.environ, "VLLM_CPU_KVCACHE_SPACE": "1"}
    own.pop("VLLM_ENABLE_V1_MULTIPROCESSING", None)
    with log.open("w") as out:
        process = subprocess.Popen([sys.executable, *command], stdout=out, stderr=out, env=own)
        try:
            end = time.monotonic() + 300
            while time.monotonic() < end and process.poll() is None:
                try:
                    socket.create_connection(("127.0.0.1", port), 1).close()
                    break
                except OSError:
                    time.sleep(0.5)
            else:
                pytest.fail(f"the server did not start:\n{log.read_text()[-2000:]}")
            yield f"http://127.0.0.1:{port}/v1", log
        finally:
            process.terminate()
            process.wait(60)


def counted(usage: Any) -> tuple[int, dict[str, int]]:
    """Prompt tokens, and those of them that are left of images."""
    return usage.prompt_tokens, usage.prompt_tokens_details.multimodal_tokens


async def ask(base: str, images: int, stream: bool) -> tuple[str, tuple[int, dict[str, int]]]:
    """The answer, and tokens by the response's usage."""
    from openai import AsyncOpenAI

    picture, questions = load_sample()
    out = io.BytesIO()
    picture.save(out, "PNG")
    url = "data:image/png;base64," + base64.b64encode(out.getvalue()).decode()
    content: list[Any] = [{"type": "image_url", "image_url": {"url": url}}] * images
    content.append({"type": "text", "text": questions[0].text})
    given: dict[str, Any] = {
        "model": "tiny-llava",
        "messages": [{"role": "user", "content": content}],
        "max_tokens": 8,
        "temperature": 0,
    }
    async with AsyncOpenAI(base_url=base, api_key="none") as client:
        if not stream:
            whole = await client.chat.completions.create(**given)
            return whole.choices[0].message.content or "", counted(whole.usage)
        text, tokens = "", (0, {})
        parts = await client.chat.completions.create(
            **given, stream=True, stream_options={"include_usage": True}
        )
        async for part in parts:
            text += "".join(choice.delta.content or "" for choice in part.choices)
            tokens = counted(part.usage) if part.usage else tokens
        return text, tokens


def test_answers_and_usage(server: tuple[str, Path]) -> None:
    base, log = server

    async def several() -> list[Any]:
        asked = [ask(base, images, stream) for images in (1, 2, 1) for stream in (True, False)]
        return await asyncio.gather(*asked)

    found = asyncio.run(several())
    assert found[0] == found[1] == found[4] == found[5] and found[2] == found[3]
    assert found[0][0].strip()
    (one, kept), (two, both) = found[0][1], found[2][1]
    assert two - one in (64, 65)  # a second image, and perhaps what is between
    assert (kept, both) == ({"image": 64}, {"image": 128})
    told = log.read_text()
    assert re.search(r"prunus: VisionZip\(keep=64.*prunes tiny-llava", told), told[-2000:]
