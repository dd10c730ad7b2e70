"""One road from a question to the text of its prompt."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import prunus
from prunus.checking.probe import QUESTIONS, from_processor
from prunus.errors import PrunusError
from prunus.families import family_of
from prunus.inference.batches import encode
from prunus.inference.inputs import process
from prunus.inference.prompts import build_prompt, render
from prunus.tasks.sample import load_sample
from prunus.train.data import Example
from prunus.train.data import encode as encode_example

SOURCES = Path(prunus.__file__).parent


def bare(**facts: Any) -> Any:
    """A processor without a chat template."""
    return SimpleNamespace(image_token="<image>", **facts)


def parts(messages: list[dict[str, Any]], **options: Any) -> str:
    """A template that writes what it is given."""
    words = []
    for message in messages:
        words += [part.get("text", f"[{part['type']}]") for part in message["content"]]
    return "|".join(words) + ("|>" if options["add_generation_prompt"] else "")


def templated(**facts: Any) -> Any:
    usual = {"image_token": "[image]", "video_token": "[video]", "apply_chat_template": parts}
    return SimpleNamespace(chat_template="there", **{**usual, **facts})


def test_the_form_of_llava() -> None:
    assert render(bare(), "what ?") == "USER: what ? ASSISTANT:"
    assert render(bare(), "what ?", ["image"]) == "USER: <image>\nwhat ? ASSISTANT:"
    two = render(bare(), "what ?", ["image", "image"], answer="a cat")
    assert two == "USER: <image>\n<image>\nwhat ? ASSISTANT: a cat"
    assert build_prompt(bare(), "is <image> red ?", 1) == "USER: is <image> red ? ASSISTANT:"


def test_a_template_gets_images_and_videos_where_the_question_has_them() -> None:
    assert build_prompt(templated(), "what ?", 1, 1) == "[image]|[video]|what ?|>"
    assert build_prompt(templated(), "in <video> is <image> ?", 1, 1) == (
        "in |[video]| is |[image]| ?|>"
    )
    assert render(templated(), "what ?", ["image"], answer="red") == "[image]|what ?|red"
    # To a family whose own placeholder is written, it stays where it was written.
    llava = templated(image_token="<image>")
    assert build_prompt(llava, "is <image> red ?", 1) == "is <image> red ?|>"


def test_what_cannot_be_rendered_is_refused() -> None:
    with pytest.raises(PrunusError, match="holds the placeholder <image>: take it out"):
        render(bare(), "is <image> red ?", ["image"])
    with pytest.raises(PrunusError, match="holds the placeholder"):
        render(bare(), "is it red ?", ["image"], answer="no, <image>")
    with pytest.raises(PrunusError, match="takes images only"):
        render(bare(), "what moves ?", ["video"])
    forgetful = templated(apply_chat_template=lambda messages, **options: "[image]")
    with pytest.raises(PrunusError, match="placed 1 images instead of 2"):
        render(forgetful, "what ?", ["image", "image"])

    def broken(messages: Any, **options: Any) -> str:
        raise ValueError("no such\nrole")

    with pytest.raises(PrunusError, match="cannot render this prompt: no such role"):
        render(templated(apply_chat_template=broken), "what ?")
    with pytest.raises(PrunusError, match="the prompt is empty"):
        build_prompt(bare(), " ", 1)


def test_asking_and_training_see_the_same_prompt() -> None:
    model, processor = prunus.load("tiny-llava")
    image, question = load_sample()[0], QUESTIONS[0]
    asked, pixels = encode(processor, 0, question, image)
    learned = encode_example(processor, Example((lambda: image,), question, "two"))
    assert asked.ids.tolist() == learned.prompt.tolist()
    assert pixels["pixel_values"].equal(learned.per_image["pixel_values"])
    run = process(processor, build_prompt(processor, question, 1), [image])
    assert run["input_ids"][0].tolist() == asked.ids.tolist()
    checked = from_processor(family_of(model), processor, 1).rows[0]
    assert checked["input_ids"][0].tolist() == asked.ids.tolist()


def test_no_other_file_renders_a_template() -> None:
    found = {
        str(path.relative_to(SOURCES))
        for path in SOURCES.rglob("*.py")
        if "apply_chat_template(" in path.read_text("utf-8")
    }
    # Conversations of several turns; and where the answer begins in what a server was asked.
    others = {"inference/turns.py", "serving/texts.py"}
    assert found == {"inference/prompts.py", "method/question.py"} | others
