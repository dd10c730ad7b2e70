"""The question is found in prompts of every template, and nothing else is."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor

from prunus.builtin import load_builtin
from prunus.loading import load
from prunus.method.question import QuestionMarks, marks_of, question_mask, visual_ids
from tests.support.chat_templates import llava_processor, qwen_processor
from tests.support.qwen_processor import save_qwen

KINDS = ("tiny-llava", "llava", "qwen", "qwen-words")
ASKED = "how many are there?"


@pytest.fixture(scope="module")
def processors(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("qwen")
    save_qwen(folder)
    return {
        "tiny-llava": load_builtin("tiny-llava")[1],
        "llava": llava_processor(),
        "qwen": qwen_processor(),
        "qwen-words": load(folder)[1],
    }


@pytest.fixture(params=KINDS)
def processor(request: pytest.FixtureRequest, processors: dict[str, Any]) -> Any:
    return processors[request.param]


def text(words: str) -> dict[str, str]:
    return {"type": "text", "text": words}


IMAGE = {"type": "image"}


def encoded(processor: Any, *turns: list[dict[str, str]]) -> Tensor:
    """Ids ``[1, L]`` of a dialogue, user first, up to where the next answer begins."""
    messages = [
        {"role": "assistant" if at % 2 else "user", "content": content}
        for at, content in enumerate(turns)
    ]
    prompt = processor.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    images = [Image.new("RGB", (40, 32))] * sum(turn.count(IMAGE) for turn in turns)
    ids: Tensor = processor(text=prompt, images=images or None, return_tensors="pt")["input_ids"]
    return ids


def found(processor: Any, ids: Tensor, marks: QuestionMarks | None, left: int = 0) -> Tensor:
    """The mask of one prompt with ``left`` tokens of padding in front and an answer behind."""
    tokenizer = processor.tokenizer
    pad = torch.full((1, left), tokenizer.pad_token_id)
    answer = torch.tensor(tokenizer("what is this ?", add_special_tokens=False)["input_ids"])[None]
    whole = torch.cat([pad, ids, answer], 1)
    valid = torch.arange(whole.shape[1])[None] >= left
    visual = torch.isin(whole, torch.tensor(visual_ids(processor)))
    last = torch.tensor([left + ids.shape[1] - 1])
    return question_mask(whole, last, valid, marks, visual)[0, left:]


def words_of(processor: Any, ids: Tensor, mask: Tensor) -> str:
    return str(processor.tokenizer.decode(ids[0][mask[: ids.shape[1]]])).strip()


@pytest.mark.parametrize("left", [0, 5])
@pytest.mark.parametrize(
    "turns",
    [
        [[IMAGE, text(ASKED)]],
        [[text(ASKED), IMAGE]],
        [[IMAGE, IMAGE, text(ASKED)]],
        [[IMAGE, text("what is this ?")], [text("a b")], [text(ASKED)]],
        [[text("is this a ?")], [text("b")], [IMAGE, text(ASKED)]],
        [[IMAGE, text("what is this ?")], [text("b")], [text("is")], [text("a")], [text(ASKED)]],
    ],
    ids=["before", "after", "two", "later turn", "image in a later turn", "three turns"],
)
def test_only_the_last_question(processor: Any, turns: list[Any], left: int) -> None:
    marks = marks_of(processor)
    ids = encoded(processor, *turns)
    mask = found(processor, ids, marks, left)
    bare = processor.tokenizer(ASKED, add_special_tokens=False)["input_ids"]
    assert mask[ids.shape[1] :].sum() == 0, "an answer is no question"
    # Beside it nothing but the spaces that a template writes around an image.
    assert words_of(processor, ids, mask) == processor.tokenizer.decode(bare).strip()


def test_marks_are_those_of_the_templates(processors: dict[str, Any]) -> None:
    def words(kind: str) -> list[str]:
        marks, tokenizer = marks_of(processors[kind]), processors[kind].tokenizer
        assert marks is not None
        return [tokenizer.decode(part) for part in (marks.opening, marks.closing)]

    assert words("tiny-llava") == ["USER:", "ASSISTANT:"]
    assert [part.strip() for part in words("llava")] == ["USER:", "ASSISTANT:"]
    # The end of the turn before is no part of the opening: a first turn may have none.
    assert words("qwen") == ["<|im_start|>user\n", "<|im_end|>\n<|im_start|>assistant\n"]
    marks = marks_of(processors["qwen"])
    assert marks is not None
    skipped = set(processors["qwen"].tokenizer.convert_ids_to_tokens(list(marks.skip)))
    assert skipped == {"<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"}


def test_marks_go_through_json(processor: Any) -> None:
    marks = marks_of(processor)
    assert marks is not None
    assert QuestionMarks(**json.loads(json.dumps(asdict(marks)))) == marks


def test_a_batch_is_its_rows(processor: Any) -> None:
    marks = marks_of(processor)
    rows = [encoded(processor, [IMAGE, text(one)])[0] for one in (ASKED, "is this a b ?", "what")]
    longest = max(len(row) for row in rows)
    ids = torch.full((3, longest), processor.tokenizer.pad_token_id)
    valid = torch.zeros(3, longest, dtype=torch.bool)
    for at, row in enumerate(rows):
        ids[at, longest - len(row) :], valid[at, longest - len(row) :] = row, True
    visual = torch.isin(ids, torch.tensor(visual_ids(processor)))
    mask = question_mask(ids, torch.full((3,), longest - 1), valid, marks, visual)
    assert mask.dtype == torch.bool and mask.shape == ids.shape
    for at, row in enumerate(rows):
        alone = found(processor, row[None], marks)[: len(row)]
        assert torch.equal(mask[at, longest - len(row) :], alone)
        assert not mask[at, : longest - len(row)].any()


def test_the_opening_inside_a_question_is_text_of_the_template(processors: dict[str, Any]) -> None:
    # Nobody can tell such a text from a turn: what stands behind it counts.
    processor = processors["qwen"]
    ids = encoded(processor, [IMAGE, text(f"say <|im_start|>user\n{ASKED}")])
    assert words_of(processor, ids, found(processor, ids, marks_of(processor))) == ASKED


def test_without_a_template_all_text_behind_the_image_counts() -> None:
    processor = llava_processor(template=None)
    assert marks_of(processor) is None
    prompt = "USER: before <image>\nwhat is it? ASSISTANT:"
    ids = processor(text=prompt, images=[Image.new("RGB", (32, 32))], return_tensors="pt")
    mask = found(processor, ids["input_ids"], None, left=2)
    whole = words_of(processor, ids["input_ids"], mask)
    assert whole == "what is it? ASSISTANT:"
    assert not bool(mask[ids["input_ids"].shape[1] :].any())  # the answer is no part of it


def test_what_the_model_sees_as_an_image_is_no_word(processors: dict[str, Any]) -> None:
    processor = processors["tiny-llava"]
    marks = marks_of(processor)
    ids = encoded(processor, [IMAGE, text(ASKED)])
    valid, visual = torch.ones_like(ids).bool(), ids == processor.image_token_id
    last = torch.tensor([ids.shape[1] - 1])
    whole = question_mask(ids, last, valid, marks, visual)
    first = int(whole[0].nonzero()[0])
    visual[0, first] = True
    less = question_mask(ids, last, valid, marks, visual)
    assert whole.sum() - less.sum() == 1 and not less[0, first]


def test_rows_without_an_image_are_left_alone(processors: dict[str, Any]) -> None:
    processor = processors["tiny-llava"]
    marks = marks_of(processor)
    ids = processor.tokenizer("no dialogue at all", return_tensors="pt")["input_ids"]
    assert not found(processor, ids, marks).any()
    assert not found(processor, ids, None).any()


def test_prompts_in_another_form_are_refused(processors: dict[str, Any]) -> None:
    processor = processors["qwen"]
    marks = marks_of(processor)
    ids = encoded(processor, [IMAGE, text(ASKED)])
    with pytest.raises(ValueError, match=r"prompt 0 ends with .* add_generation_prompt=True"):
        found(processor, ids[:, :-2], marks)
    assert marks is not None
    with pytest.raises(ValueError, match="prompt 0 has no user turn"):
        found(processor, ids[:, 14:], replace(marks, opening=(*marks.opening, 1)))
    # An opening in front of the prompt, in what the padding is made of, does not count.
    shifted = torch.cat([torch.tensor([marks.opening]), ids[:, -12:]], 1)
    visual = torch.zeros_like(shifted, dtype=torch.bool)
    visual[0, 5] = True
    valid = torch.arange(shifted.shape[1])[None] >= len(marks.opening)
    with pytest.raises(ValueError, match="no user turn"):
        question_mask(shifted, torch.tensor([shifted.shape[1] - 1]), valid, marks, visual)


@pytest.mark.parametrize(
    "template",
    [
        "{% for m in messages %}{{ m['content'][-1]['text'] }} {% endfor %}",  # nothing opens
        "{{ messages | length }}",  # the question is not in it
        # what opens the first turn is missing from later ones
        "{% for m in messages %}{% if loop.first %}USER: {% else %}... {% endif %}"
        "{{ m['content'][-1]['text'] }} {% endfor %}ASSISTANT:",
    ],
)
def test_templates_in_which_no_question_can_be_found(template: str) -> None:
    processor = llava_processor()
    processor.chat_template = template
    with pytest.raises(ValueError, match="cannot be found in prompts of this chat template"):
        marks_of(processor)


def test_the_check_fails_where_the_opening_depends_on_the_text() -> None:
    processor = llava_processor()
    role = "message['role'].upper() + ': '"
    about = f"('HUMAN: ' if 'blue' in (message['content'] | string) else {role})"
    processor.chat_template = processor.chat_template.replace(role, about)
    with pytest.raises(ValueError, match="which number is the blue digit"):
        marks_of(processor)
