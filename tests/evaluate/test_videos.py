"""Questions about videos and about images of many sizes: what is asked, shown and kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import prunus
from prunus.evaluate import EvalSet, evaluate, load_builtin_set, make_cells
from prunus.evaluate.asker import answer_tokens
from prunus.evaluate.coverage import best_tokens, coverage
from prunus.grid import Grid
from prunus.tasks.sets import Clip, builtin_set_for
from prunus.tasks.videos import Actor, VideoScene
from tests.support.command_line import Cli

GRID = Grid(4, 8, 8, (16, 16))
VIDEO = VideoScene(
    0,
    (
        Actor("square", "red", 0, 32, 16, dx=8, start=2, end=6),
        Actor("circle", "blue", 64, 90, 30),
    ),
)


@pytest.fixture(scope="module")
def qwen() -> tuple[Any, Any]:
    return prunus.load("tiny-qwen")


def metadata(clip: Clip) -> dict[str, Any]:
    count = len(clip.frames)
    return {"total_num_frames": count, "fps": clip.fps, "frames_indices": list(range(count))}


def plain_answer(model: Any, processor: Any, data: EvalSet, number: int) -> str:
    """The answer to one question by itself, as a user would ask it."""
    query = data.queries[number]
    seen = data.seen(query.image)
    kind = "video" if isinstance(seen, Clip) else "image"
    content = [{"type": kind}, {"type": "text", "text": query.text}]
    prompt = processor.apply_chat_template(
        [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=False
    )
    if isinstance(seen, Clip):
        given: dict[str, Any] = {"videos": [list(seen.frames)], "video_metadata": [metadata(seen)]}
        given["do_sample_frames"] = False
    else:
        given = {"images": [seen]}
    inputs = processor(text=prompt, return_tensors="pt", **given)
    output = model.generate(
        **inputs, max_new_tokens=answer_tokens(processor, data), do_sample=False
    )
    new = output[0, inputs["input_ids"].shape[1] :]
    return str(processor.tokenizer.decode(new, skip_special_tokens=True)).strip()


@pytest.mark.parametrize("name", ["sizes", "videos"])
def test_batched_answers_are_those_of_single_prompts(qwen: tuple[Any, Any], name: str) -> None:
    model, processor = qwen
    few = load_builtin_set(name).first(6)
    cells = make_cells(["ground-truth", "evoprune", "blind"], [1 / 9])
    together = evaluate(model, processor, few, cells, batch=6)
    alone = evaluate(model, processor, few, cells, batch=1)
    for many, one in zip(together, alone, strict=True):
        assert many.answers == one.answers
        assert many.figures == pytest.approx(one.figures)
    expected = [plain_answer(model, processor, few, number) for number in range(6)]
    assert together[0].answers == expected
    truth = together[2]
    assert truth.cell.name == "ground-truth"
    assert np.nanmean([one.objects for one in truth.evidence]) > 0.3


def test_images_of_the_set_have_sizes_of_their_own() -> None:
    plain, sizes = load_builtin_set(), load_builtin_set("sizes")
    assert plain.queries == sizes.queries and plain.scenes == sizes.scenes
    assert {sizes.images[n]().size for n in range(16)} == {
        (wide, high) for wide in (192, 224, 256, 288) for high in (192, 224, 256, 288)
    }
    assert builtin_set_for("tiny-qwen") == "sizes" and builtin_set_for("tiny-llava") == "scenes"
    with pytest.raises(ValueError, match="videos"):
        load_builtin_set("films")


def test_coverage_needs_the_frames_that_were_drawn() -> None:
    assert coverage(VIDEO, GRID).shape == (2, 256)
    with pytest.raises(ValueError, match="slices of time"):
        coverage(VIDEO, Grid(2, 8, 8, (16, 16)))
    scene = load_builtin_set().scenes[0]
    assert scene is not None
    with pytest.raises(ValueError, match="frames"):
        coverage(scene, GRID)


def test_an_all_knowing_observer_keeps_every_moment_of_what_is_asked() -> None:
    cover = coverage(VIDEO, GRID).reshape(2, 4, 64)
    asked = {int(frame * 64 + cover[0, frame].argmax()) for frame in (1, 2)}
    for keep in (2, 10, 30, 256):
        kept = best_tokens(VIDEO, [0], keep, GRID)
        assert len(kept) == keep and (np.diff(kept) > 0).all()
        assert asked <= set(kept.tolist())
    ink = np.flatnonzero(coverage(VIDEO, GRID).sum(axis=0))
    assert set(ink) <= set(best_tokens(VIDEO, [0], len(ink), GRID).tolist())
    # the other object: its best token of each slice before its second best of any
    own = np.flatnonzero(coverage(VIDEO, GRID)[0])
    more = set(best_tokens(VIDEO, [0], len(own) + 4, GRID).tolist()) - set(own.tolist())
    assert more == {int(frame * 64 + cover[1, frame].argmax()) for frame in range(4)}


def test_a_model_without_videos_says_so(tiny: Any) -> None:
    model, processor = tiny
    with pytest.raises(ValueError, match="tiny-qwen"):
        evaluate(model, processor, load_builtin_set("videos").first(2), make_cells([], []))


def test_other_image_needs_one_of_the_same_size(qwen: tuple[Any, Any]) -> None:
    model, processor = qwen
    data = load_builtin_set("sizes").first(12)
    with pytest.raises(ValueError, match="leave other-image out"):
        evaluate(model, processor, data, make_cells(["other-image"], []))


def test_videos_from_the_command_line(cli: Cli, tmp_path: Path) -> None:
    result = cli(
        "eval", "--model", "tiny-qwen", "--data", "videos", "--limit", "8",
        "--methods", "uniform,blind", "--keep", "0.25", "--output", str(tmp_path), "--json",
    )  # fmt: skip
    found = result.json
    assert found["set"]["name"] == "built-in videos" and found["set"]["questions"] == 8
    assert [row["name"] for row in found["rows"]] == ["dense", "blind", "uniform"]
    assert len((tmp_path / "answers.jsonl").read_text().splitlines()) == 8
