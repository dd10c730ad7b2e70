"""Every answer is checked by a slow reader of the question's words that shares no code."""

from __future__ import annotations

import re
from collections import Counter
from importlib.resources import files

import numpy as np
import pytest
from PIL import Image

from prunus.tasks.evalset import Item
from prunus.tasks.questions import CAPTION, TYPES, Question, ask, ask_many, caption
from prunus.tasks.sample import load_sample
from prunus.tasks.scenes import Scene, SceneObject, make_scene, render_array

COUNTS = ["zero", "one", "two", "three", "four", "five", "six", "seven"]


def fits(item: SceneObject, phrase: str) -> bool:
    for word in phrase.split():
        if word in {"object", "objects"}:
            continue
        single = {"crosses": "cross"}.get(word, word[:-1] if word.endswith("s") else word)
        single = "cross" if word == "cross" else single
        if word.isdigit():
            if item.kind != "digit" or item.digit != int(word):
                return False
        elif item.color != word and item.kind != single:
            return False
    return True


def only(scene: Scene, phrase: str) -> SceneObject:
    found = [item for item in scene.objects if fits(item, phrase)]
    assert len(found) == 1, f"{phrase!r} is ambiguous"
    return found[0]


def middle(item: SceneObject) -> tuple[float, float]:
    return item.x + item.size / 2, item.y + item.size / 2


def check(scene: Scene, question: Question) -> None:
    text, answer = question.text, question.answer
    if match := re.fullmatch(r"is there a (.+)\?", text):
        assert answer == ("yes" if any(fits(o, match[1]) for o in scene.objects) else "no")
    elif match := re.fullmatch(r"how many (.+) are there\?", text):
        assert answer == COUNTS[sum(fits(o, match[1]) for o in scene.objects)]
    elif match := re.fullmatch(r"what color is the (.+)\?", text):
        assert answer == only(scene, match[1]).color
    elif match := re.fullmatch(r"what shape is the (.+)\?", text):
        assert answer == only(scene, match[1]).kind
    elif match := re.fullmatch(r"which number is the (.+)\?", text):
        assert answer == str(only(scene, match[1]).digit)
    elif match := re.fullmatch(r"where is the (.+)\?", text):
        x, y = middle(only(scene, match[1]))
        row = "top" if y < 64 else "middle" if y < 128 else "bottom"
        column = "left" if x < 64 else "center" if x < 128 else "right"
        assert answer == f"{row} {column}"
    elif match := re.fullmatch(r"is the (.+) (left|above) or (right of|below) the (.+)\?", text):
        (x1, y1), (x2, y2) = middle(only(scene, match[1])), middle(only(scene, match[4]))
        sideways = "left" if x1 < x2 else "right"
        assert answer == (sideways if match[2] == "left" else "above" if y1 < y2 else "below")
    elif match := re.fullmatch(r"is the (.+) (left of|right of|above|below) the (.+)\?", text):
        (x1, y1), (x2, y2) = middle(only(scene, match[1])), middle(only(scene, match[3]))
        true = {"left of": x1 < x2, "right of": x1 > x2, "above": y1 < y2, "below": y1 > y2}
        assert answer == ("yes" if true[match[2]] else "no")
    else:
        pytest.fail(f"cannot read {text!r}")


@pytest.mark.parametrize("kind", TYPES)
def test_answers_are_true_and_unambiguous(kind: str) -> None:
    rng = np.random.default_rng(0)
    asked = 0
    for seed in range(300):
        scene = make_scene(seed)
        question = ask(scene, kind, rng)
        if question is not None:
            check(scene, question)
            assert question.type == kind
            assert all(0 <= index < len(scene.objects) for index in question.objects)
            asked += 1
    assert asked > 100


@pytest.mark.parametrize(("kind", "most"), [("existence", 0.6), ("relation", 0.6), ("color", 0.3)])
def test_no_answer_dominates(kind: str, most: float) -> None:
    rng = np.random.default_rng(1)
    found = [ask(make_scene(seed), kind, rng) for seed in range(400)]
    answers = Counter(question.answer for question in found if question)
    assert max(answers.values()) / sum(answers.values()) < most


def test_unknown_type_is_refused() -> None:
    with pytest.raises(ValueError, match="existence"):
        ask(make_scene(0), "taste", np.random.default_rng(0))


def test_ask_many_is_deterministic_and_has_no_doubles() -> None:
    scene = make_scene(5)
    first = ask_many(scene, 14, seed=9, captions=1.0)
    assert first == ask_many(scene, 14, seed=9, captions=1.0)
    assert len(set(first)) == len(first) == 14
    assert first[0].type == CAPTION


def test_caption_names_all_objects_from_top_to_bottom() -> None:
    scene = make_scene(7)
    parts = caption(scene).answer.split(", ")
    by_height = sorted(scene.objects, key=lambda item: middle(item)[1])
    for part, item in zip(parts, by_height, strict=True):
        assert part.split()[:2] == [item.color, item.kind]
        assert part.split()[2:] == ([str(item.digit)] if item.kind == "digit" else [])


def test_sample_of_the_demo_is_true() -> None:
    line = files("prunus.tasks").joinpath("data/sample.json").read_text("utf-8")
    item = Item.from_json(line)
    image, questions = load_sample()
    assert np.array_equal(np.asarray(image), render_array(item.scene))
    with files("prunus.tasks").joinpath("data/sample.png").open("rb") as handle:
        assert np.array_equal(np.asarray(Image.open(handle)), np.asarray(image))
    assert questions == item.questions
    assert len(questions) == 3
    for question in questions:
        check(item.scene, question)
