"""What the page shows is what prunus does: answers, pictures, numbers, refusals. No browser."""

from __future__ import annotations

import re
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import prunus
from prunus.errors import PrunusError
from prunus.inference.answer import answer
from prunus.inference.named import build_methods
from prunus.viz.overlay import kept_cells
from prunus.web.desk import Desk
from prunus.web.draw import VIEWS
from prunus.web.samples import known_of, samples
from prunus.web.show import Asked, Controls, Shown, show
from prunus.web.source import Source, most_frames, prepare
from tests.support.clips import write_video
from tests.web.conftest import ABOUT_CLIP, CLIP, QUESTION, SCENE


def shown(desk: Desk, view: str = "kept", source: Source = SCENE, **more: Any) -> Shown:
    question = ABOUT_CLIP if source.kind == "video" else QUESTION
    both = [Controls("clse", 11), Controls("divprune", 25)]
    return show(desk, Asked(source, question, 6, view), both, **more)


def text_of(html: str) -> str:
    return re.sub(r"<[^>]*>", " ", html)


def test_answers_are_those_of_prunus(llava_desk: Desk) -> None:
    found = shown(llava_desk)
    prompt = prepare(llava_desk.model, llava_desk.processor, SCENE, QUESTION)
    assert not found.refused
    for side, method, keep in zip(found.sides, ("clse", "divprune"), ("0.11", "0.25"), strict=True):
        methods = build_methods(method, keep, [])
        direct = answer(llava_desk.model, llava_desk.processor, prompt.inputs, methods, 6)
        assert f'<b class="answer">{direct.text}</b>' in side.said
        assert f"{direct.report['tokens']['kept']:g} of 576" in text_of(found.numbers)
        assert f"{direct.report['kv_bytes']['pruned'] / 1024:,.0f}" in text_of(found.numbers)


def test_what_is_dropped_is_pale_and_the_rest_as_seen(llava_desk: Desk) -> None:
    [drawn] = shown(llava_desk).sides[1].drawn
    [plain] = shown(llava_desk, "as seen").sides[1].drawn
    assert drawn.picture.shape == plain.picture.shape == (768, 768, 3)
    assert drawn.caption == "144 of 576 kept"
    prompt = llava_desk.prompt(SCENE, QUESTION)
    [entry] = llava_desk.ask(prompt, llava_desk.setting("divprune", 25, "", False), 6).trace
    cells = kept_cells(entry.kept[0][0], entry.grid[0][0]).reshape(24, 24)
    same = (drawn.picture == plain.picture).all(-1).reshape(24, 32, 24, 32).all((1, 3))
    assert (same == cells).all()


def test_views_differ(llava_desk: Desk) -> None:
    drawn = {view: shown(llava_desk, view).sides[0].drawn for view in VIEWS}
    assert [len(drawn[view]) for view in VIEWS] == [1, 1, 3, 1]
    assert "importance by rank, layer 1" in drawn["scores"][0].caption
    assert not np.array_equal(drawn["kept"][0].picture, drawn["scores"][0].picture)
    assert "clse: 63 of 576 kept, layer 1" in drawn["stages"][2].caption


def test_a_chart_of_every_layer(llava_desk: Desk) -> None:
    below = shown(llava_desk).sides[0].below
    assert 'alt="visual tokens per layer: 576, 63, 63' in below
    assert "data:image/svg+xml;base64," in below


def test_every_frame_of_a_video(qwen_desk: Desk) -> None:
    found = shown(qwen_desk, source=CLIP)
    assert [len(side.drawn) for side in found.sides] == [8, 8]
    assert found.sides[0].drawn[0].caption.startswith("0.0 s: ")
    counts = [int(one.caption.split()[2]) for one in found.sides[1].drawn[::2]]
    sizes = {one.caption.split()[-1] for one in found.sides[1].drawn}
    assert sum(counts) == 4 * int(sizes.pop()) // 4
    scores = shown(qwen_desk, "scores", CLIP)
    assert [len(side.drawn) for side in scores.sides] == [4, 4]  # a slice has two frames


def test_methods_that_let_vision_leave(llava_desk: Desk) -> None:
    asked = Asked(SCENE, QUESTION, 4, "scores")
    side = show(llava_desk, asked, [Controls("visipruner")]).sides[0]
    assert "chose" in side.drawn[0].caption
    assert "filtering layer" in side.below
    assert show(llava_desk, asked, [Controls("pooling", 10)]).sides[0].drawn[0].caption == (
        "no scores: the method gives none"
    )
    assert show(llava_desk, asked, [Controls("none")]).sides[0].drawn


def test_times_are_those_of_turns(llava_desk: Desk) -> None:
    steps: list[int] = []
    asked = Asked(SCENE, QUESTION, 2, "kept")
    found = show(llava_desk, asked, [Controls("clse", 11)], step=lambda: steps.append(1))
    assert len(steps) == 2 * 8  # dense and pruned, a round to warm up and seven that count
    cells = re.search(r"first token, ms</th>(.*?)</tr>", found.numbers)
    assert cells is not None and re.search(r"\d of it \[\d", text_of(cells[1]))
    again = show(llava_desk, asked, [Controls("clse", 11)])
    assert again.numbers == found.numbers  # known from now on
    other = show(llava_desk, asked, [Controls("clse", 12)])
    assert "first token" not in other.numbers  # not of another setting


@pytest.mark.parametrize(
    ("controls", "words"),
    [
        (Controls("clsee", 11), "did you mean"),
        (Controls("clse", 11, "keep=0"), "keeps nothing"),
        (Controls("clse", 1, "", True), "cannot"),
        (Controls("<script>alert(1)</script>", 11), "&lt;script&gt;"),
    ],
)
def test_one_side_is_refused_and_the_other_is_not(
    llava_desk: Desk, controls: Controls, words: str
) -> None:
    found = show(llava_desk, Asked(SCENE, QUESTION, 6, "kept"), [controls, Controls("clse", 11)])
    assert words in found.sides[0].said and "<script>" not in found.sides[0].said
    assert 'class="refusal"' in found.sides[0].said
    assert found.sides[0].python == found.sides[0].command == ""
    assert "clse" in found.sides[1].command and "63 of 576" in text_of(found.numbers)
    assert len(found.sides[0].drawn) == 1  # the image as it is


@pytest.mark.parametrize(
    ("source", "question", "words"),
    [
        (SCENE, " ", "ask something"),
        (SCENE, "what is in <video>?", "0 &lt;image&gt; placeholders"),
        (CLIP, ABOUT_CLIP, "takes images only"),
        (Source("image", ("builtin:500",)), QUESTION, "builtin:499"),
    ],
)
def test_a_question_that_cannot_be_asked(
    llava_desk: Desk, source: Source, question: str, words: str
) -> None:
    found = show(llava_desk, Asked(source, question, 6, "kept"), [Controls("clse", 11)])
    assert words in found.refused
    assert [side.drawn for side in found.sides] == [()]


def test_sources_are_images_or_one_video(tmp_path: Path, picture: Path) -> None:
    clip = str(write_video(tmp_path / "clip.mp4", 8))
    assert Source.of([str(picture)] * 2).kind == "image"
    assert Source.of([clip]).kind == "video"
    for files in ([], [clip, clip], [clip, str(picture)]):
        with pytest.raises(PrunusError):
            Source.of(files)


def test_a_long_video_is_taken_as_the_model_takes_it(qwen_desk: Desk) -> None:
    class Short:
        class video_processor:
            max_frames = 2

    assert most_frames(Short()) == 2
    assert most_frames(qwen_desk.processor) in (None, 8)


def test_only_what_runs_is_offered(llava_desk: Desk, qwen_desk: Desk) -> None:
    images, videos = qwen_desk.offered("image"), qwen_desk.offered("video")
    assert {"clse", "clse@hybrid", "fastv@192", "none"} <= set(images)
    assert "fixed" not in images  # needs what it replays
    assert "one-shot" in llava_desk.offered("image") and "one-shot" not in images
    assert not llava_desk.takes_videos and qwen_desk.takes_videos
    for name in ("evs", "clse-m", "divprune"):
        assert name in videos


@pytest.mark.parametrize("kind", ["image", "video"])
def test_all_that_is_offered_runs(qwen_desk: Desk, kind: Any) -> None:
    """At half of the tokens; presets of published budgets may be for other sizes."""
    source, question = (SCENE, QUESTION) if kind == "image" else (CLIP, ABOUT_CLIP)
    names = [name for name in qwen_desk.offered(kind) if "@" not in name]
    found = show(
        qwen_desk, Asked(source, question, 1, "kept"), [Controls(name, 50) for name in names]
    )
    refused = {
        name: text_of(side.said)
        for name, side in zip(names, found.sides, strict=True)
        if "refusal" in side.said
    }
    assert refused == {}


def test_tabs_at_once_get_their_own(llava_desk: Desk) -> None:
    """Two at a time, each with other settings, many rounds."""
    fresh = Desk("tiny-llava", llava_desk.model, llava_desk.processor)
    wrong: list[object] = []
    wanted = {
        (method, percent): show(
            llava_desk, Asked(SCENE, QUESTION, 3, "kept"), [Controls(method, percent)]
        )
        for method in ("clse", "tome")
        for percent in (10, 20, 30)
    }

    def tab(method: str) -> None:
        try:
            for percent in (10, 20, 30):
                asked = Asked(SCENE, QUESTION, 3, "kept")
                found = show(fresh, asked, [Controls(method, percent)])
                right = wanted[method, percent]
                if found.sides[0].said != right.sides[0].said or found.numbers != right.numbers:
                    wrong.append((method, percent, found.sides[0].said))
        except BaseException as error:
            wrong.append(error)

    tabs = [threading.Thread(target=tab, args=(method,)) for method in ("clse", "tome")]
    for one in tabs:
        one.start()
    for one in tabs:
        one.join()
    assert wrong == []
    assert not prunus.engine.hooks.hooked(llava_desk.model.model)


def test_a_photograph_has_no_true_answer_and_a_built_in_model_says_what_it_knows() -> None:
    """Drawn scenes have theirs; of a real model nothing is said."""
    photographs = [one for one in samples(True) if one.source.files[0] == "builtin:coffee"]
    [sample] = photographs
    asked = [text for text, _ in sample.questions]
    assert len(asked) > 1 and min(sample.thumbnail.size) > 256
    assert "knows drawn scenes only" in known_of("tiny-llava", sample.source, asked[0])
    assert "knows drawn scenes only" in known_of("tiny-qwen", Source("image", ("a.jpg",)), "what?")
    assert known_of("my-org/my-model", sample.source, asked[0]) == ""
    scene = samples(False)[0]
    text, right = scene.questions[0]
    assert known_of("tiny-llava", scene.source, text) == f"True answer: {right}"
    assert known_of("tiny-llava", scene.source, "another question") == ""
    assert known_of("tiny-qwen", CLIP, "another question") == ""
