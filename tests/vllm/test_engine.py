"""What vLLM's scheduler does with pruned prompts changes no answer: prefix caching, prefill in
chunks, batches. And what would change one is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

import prunus
from tests.vllm.asked import Asked, by_prune, by_vllm
from tests.vllm.conftest import Start
from tests.vllm.test_llava import prompts as llava_prompts
from tests.vllm.test_qwen import film
from tests.vllm.test_qwen import prompts as qwen_prompts

pytest.importorskip("vllm", reason="make vllm-env makes an environment with it")

PROMPTS = {"tiny-llava": llava_prompts, "tiny-qwen": qwen_prompts}


@pytest.mark.parametrize("name", sorted(PROMPTS))
def test_chunks_and_prefixes(name: str, start: Start, tmp_path: Path) -> None:
    from prunus.vllm.folder import write_builtin

    folder = write_builtin(name, tmp_path / name)
    model, processor = prunus.load(name, dtype="float32")
    positions = "compact" if name == "tiny-llava" else "original"
    # A prompt's image ends in the middle of a chunk, and others share the chunk.
    llm = start(folder, "divprune", "0.25", max_num_batched_tokens=64, enable_prefix_caching=True)
    asked = PROMPTS[name](processor)
    wanted = [by_prune(model, processor, one, "divprune", "0.25", positions) for one in asked]
    first = by_vllm(llm, asked)
    assert [one.answer for one in first] == [one.answer for one in wanted]
    again = by_vllm(llm, [*asked, *asked])  # all of it is cached by now
    assert [one.answer for one in again] == [one.answer for one in wanted] * 2
    other = Asked(asked[0].text.replace("?", "? ?"), asked[0].images)  # the image's part is
    expected = by_prune(model, processor, other, "divprune", "0.25", positions)
    assert by_vllm(llm, [other])[0].answer == expected.answer


def test_everything_kept_is_the_unmodified_model(start: Start, tmp_path: Path) -> None:
    from prunus.vllm.folder import write_builtin

    folder = write_builtin("tiny-qwen", tmp_path / "tiny-qwen")
    model, processor = prunus.load("tiny-qwen", dtype="float32")
    asked = qwen_prompts(processor)
    wanted = [by_prune(model, processor, one, None, None, "original") for one in asked]
    llm = start(folder, "divprune", "1.0")
    found = by_vllm(llm, asked)
    assert [one.answer for one in found] == [one.answer for one in wanted]
    assert [one.prompt for one in found] == [one.prompt for one in wanted]
    pixels, told = film(2)
    text = asked[0].text.replace("image_pad", "video_pad")
    video = Asked(text, videos=[pixels], metadata=[told])
    assert by_vllm(llm, [video])[0].prompt == len(
        processor(
            text=[text],
            videos=[pixels],
            video_metadata=[{k: v for k, v in told.items() if k != "do_sample_frames"}],
            do_sample_frames=False,
            return_tensors="pt",
        )["input_ids"][0]
    )


def test_features_made_before_are_refused(start: Start, tmp_path: Path) -> None:
    from prunus.vllm.folder import write_builtin

    folder = write_builtin("tiny-llava", tmp_path / "tiny-llava")
    with pytest.raises(Exception, match="--enable-mm-embeds"):
        start(folder, "divprune", "0.25", enable_mm_embeds=True)


def test_what_is_refused_says_why_at_start(start: Start, tmp_path: Path) -> None:
    from prunus.vllm.folder import write_builtin

    folder = write_builtin("tiny-llava", tmp_path / "tiny-llava")
    with pytest.raises(Exception, match="inside the language model"):
        start(folder, "clse", "64")
    with pytest.raises(Exception, match="must say what prunes"):
        start(folder, None, hf_overrides={"architectures": ["PrunusLlavaForConditionalGeneration"]})
