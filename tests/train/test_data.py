"""Examples, their order, batches of them, and the schedules."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor

from prunus.builtin import load_builtin
from prunus.selector.config import TrainSettings
from prunus.tasks.digits import split_indices
from prunus.tasks.evalset import load_evalset
from prunus.tasks.sets import training_questions
from prunus.train.conversations import load_conversations
from prunus.train.data import Batch, Example, collate
from prunus.train.loader import index_at
from prunus.train.schedule import Schedule, rate_at
from prunus.train.sources import Questions, Scenes, open_source
from tests.support.chat_templates import llava_processor, qwen_processor


def picture(width: int = 40, height: int = 32, grey: int = 90) -> Callable[[], Image.Image]:
    return lambda: Image.new("RGB", (width, height), (grey, grey, grey))


PROCESSORS: dict[str, Callable[[], Any]] = {
    "tiny-llava": lambda: load_builtin("tiny-llava")[1],
    "llava": llava_processor,
    "llava without template": lambda: llava_processor(template=None),
    "qwen": qwen_processor,
}


@pytest.fixture(scope="module", params=list(PROCESSORS))
def processor(request: pytest.FixtureRequest) -> Any:
    return PROCESSORS[request.param]()


EXAMPLES = [
    Example((picture(),), "what color is the box?", "red"),
    Example((picture(64, 48), picture(grey=200)), "how many are there?", "red and blue"),
]


def part(processor: Any, ids: Tensor, chosen: Tensor) -> str:
    return " ".join(str(processor.tokenizer.decode(ids[chosen])).split())


# -- batches -----------------------------------------------------------------------------------


def test_labels_are_the_answers_and_their_end(processor: Any) -> None:
    batch = collate(processor, EXAMPLES)
    ids, end = batch.inputs["input_ids"], processor.tokenizer.eos_token
    for row, example in enumerate(EXAMPLES):
        labels = batch.labels[row]
        asked = labels != -100
        assert part(processor, ids[row], asked).replace(" ", "") == (
            example.answer.replace(" ", "") + end
        )
        assert torch.equal(labels[asked], ids[row, asked])
        places = asked.nonzero()[:, 0]
        assert places.diff().eq(1).all(), "one answer"
        # Right padding: the answer is the last thing that is there.
        there = batch.inputs["attention_mask"][row].nonzero()[:, 0]
        assert there.tolist() == list(range(int(places[-1]) + 1))


def test_an_answer_ends_once(processor: Any) -> None:
    batch = collate(processor, EXAMPLES)
    ends = (batch.labels == processor.tokenizer.eos_token_id).sum(1)
    assert ends.tolist() == [1, 1]
    assert (batch.labels[:, -1] == processor.tokenizer.eos_token_id).any()


def test_the_prompt_is_the_templates_own(processor: Any) -> None:
    batch = collate(processor, EXAMPLES)
    for row, example in enumerate(EXAMPLES):
        if processor.chat_template:
            content = [{"type": "image"}] * len(example.images)
            content += [{"type": "text", "text": example.question}]
            text = processor.apply_chat_template(
                [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=False
            )
        else:
            places = "<image>\n" * len(example.images)
            text = f"USER: {places}{example.question} ASSISTANT:"
        images = [one() for one in example.images]
        alone = processor(text=text, images=images, return_tensors="pt")
        length = alone["input_ids"].shape[1]
        assert torch.equal(batch.inputs["input_ids"][row, :length], alone["input_ids"][0])
        assert batch.labels[row, length - 1] == -100 and batch.labels[row, length] != -100
        if "mm_token_type_ids" in alone:
            types = batch.inputs["mm_token_type_ids"][row]
            assert torch.equal(types[:length], alone["mm_token_type_ids"][0])
            assert not types[length:].any()


def test_the_question_is_the_question(processor: Any) -> None:
    batch = collate(processor, EXAMPLES)
    for row, example in enumerate(EXAMPLES):
        words = part(processor, batch.inputs["input_ids"][row], batch.question[row])
        if not processor.chat_template:
            assert words.endswith("ASSISTANT:")
            words = words.removesuffix("ASSISTANT:").strip()
        assert words.replace(" ", "") == example.question.replace(" ", "")
    assert not (batch.question & (batch.labels != -100)).any()


def test_pixels_of_all_images_in_order(processor: Any) -> None:
    batch = collate(processor, EXAMPLES)
    images = [one() for example in EXAMPLES for one in example.images]
    alone = processor.image_processor(images, return_tensors="pt")
    for name in ("pixel_values", "image_grid_thw"):
        assert (name in alone) == (name in batch.inputs)
        if name in alone:
            torch.testing.assert_close(batch.inputs[name], torch.as_tensor(alone[name]))


def test_to_another_dtype() -> None:
    batch = collate(qwen_processor(), EXAMPLES).to("cpu", torch.bfloat16)
    assert isinstance(batch, Batch)
    assert batch.inputs["pixel_values"].dtype == torch.bfloat16
    assert batch.inputs["input_ids"].dtype == batch.inputs["image_grid_thw"].dtype == torch.int64


@pytest.mark.parametrize(
    ("images", "question", "answer", "words"),
    [
        ((), "what?", "red", "no image belongs"),
        ((picture(),), " ", "red", "neither may be empty"),
        ((picture(),), "what?", "", "neither may be empty"),
    ],
)
def test_impossible_examples(images: Any, question: str, answer: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Example(images, question, answer)


def test_placeholders_in_texts_are_refused() -> None:
    with pytest.raises(ValueError, match="placeholder <image>"):
        collate(llava_processor(), [Example((picture(),), "<image> what?", "red")])


def test_a_tokenizer_that_cannot_end() -> None:
    processor = llava_processor()
    processor.tokenizer.eos_token = None
    with pytest.raises(ValueError, match="no end-of-sequence token"):
        collate(processor, EXAMPLES)


# -- sources -----------------------------------------------------------------------------------


def test_scenes_are_functions_of_their_index() -> None:
    scenes = Scenes(seed=1)
    assert scenes.size is None
    first, again = scenes[7], Scenes(seed=1)[7]
    assert (first.question, first.answer) == (again.question, again.answer)
    assert first.images[0]().tobytes() == again.images[0]().tobytes()
    asked = [(one.question, one.answer) for one in map(scenes.__getitem__, range(20))]
    assert len(set(asked)) > 10
    assert asked != [(one.question, one.answer) for one in map(Scenes(2).__getitem__, range(20))]


def test_nothing_that_is_evaluated_tuned_or_trained_on_is_drawn() -> None:
    def seed(example: Example) -> int:
        return int(example.images[0].args[0].seed)  # type: ignore[attr-defined]

    drawn = {seed(Scenes(number)[at]) for number in (0, 39, 40) for at in (0, 99_999)}
    held = open_source("builtin", 30).held_out
    assert held is not None
    measured = {scene.seed for scene in held.scenes if scene is not None}
    assert all(400_000_000 <= one < 440_000_000 for one in drawn)
    assert all(450_000_000 <= one < 460_000_000 for one in measured)
    others = {item.scene.seed for item in load_evalset()}
    others |= {one.seed for one in training_questions(20, 1).scenes if one is not None}
    assert not (drawn | measured) & others


def test_digits_of_held_out_scenes_are_unseen() -> None:
    held = open_source("builtin", 200).held_out
    assert held is not None and len(held.queries) == 200
    ids = {item.digit_id for scene in held.scenes if scene for item in scene.objects}
    assert ids - {-1} and ids - {-1} <= set(split_indices("val").tolist())
    trained = {
        item.digit_id
        for at in range(30)
        for item in Scenes()[at].images[0].args[0].objects  # type: ignore[attr-defined]
    }
    assert trained - {-1} <= set(split_indices("train").tolist())
    assert open_source("builtin", 0).held_out is None


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number in range(4):
        picture(grey=40 * number)().save(tmp_path / f"{number}.png")
    return tmp_path


def test_rows_as_for_eval(folder: Path) -> None:
    rows = [
        {"image": f"{at % 4}.png", "question": f"what is {at}?", "answer": str(at), "type": "n"}
        for at in range(12)
    ]
    path = folder / "mine.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in rows))
    split = open_source(path, 3, seed=5)
    assert split.name == "mine" and isinstance(split.train, Questions)
    assert split.held_out is not None and len(split.held_out.queries) == 3
    held = {query.image for query in split.held_out.queries}
    assert split.train.size == 9 and len(held) == 1
    kept = [split.train[at] for at in range(split.train.size)]
    assert not {one.images[0]().getpixel((0, 0)) for one in kept} & {
        (40 * image,) * 3 for image in held
    }, "no image is in both"
    assert {one.type for one in kept} == {"n"}
    assert {one.question for one in kept} | {q.text for q in split.held_out.queries} == {
        row["question"] for row in rows
    }
    whole = open_source(path, 0)
    assert whole.train.size == 12 and whole.held_out is None
    other = open_source(path, 3, seed=6).held_out
    again = open_source(path, 3, seed=5).held_out
    assert other is not None and again is not None
    assert again.queries == split.held_out.queries
    with pytest.raises(ValueError, match="7 held-out questions leave 3 of the 12"):
        open_source(path, 7)
    with pytest.raises(ValueError, match="held_out=-1"):
        open_source(path, -1)


def record(*turns: str, **others: Any) -> dict[str, Any]:
    said = [{"from": "gpt" if at % 2 else "human", "value": text} for at, text in enumerate(turns)]
    return {"id": "x", "conversations": said, **others}


RECORDS = [
    record("<image>\nwhat is it?", "a box", "what color?", "red", image="0.png"),
    record("hello", "hi"),
    record("why?\n<image>", "because", image="1.png"),
    record("which differ?", "both", image=["0.png", "1.png"]),
    record("again?", "yes", image=["1.png"]),
    record("<image>", "a caption without a question", image="2.png"),
]


@pytest.mark.parametrize("lines", [False, True])
def test_llavas_conversations(folder: Path, lines: bool) -> None:
    path = folder / ("mix.jsonl" if lines else "mix.json")
    path.write_text("\n".join(map(json.dumps, RECORDS)) if lines else json.dumps(RECORDS))
    data, left_out = load_conversations(path)
    assert [(q.image, q.text, q.answer) for q in data.queries] == [
        (0, "what is it?", "a box"),
        (0, "what color?", "red"),
        (1, "why?", "because"),
        (1, "again?", "yes"),
    ]
    assert left_out == {
        "records without an image": 1,
        "records with several images": 1,
        "records without a question and its answer": 1,
    }
    split = open_source(path, 0)
    assert split.train.size == 4
    assert "left out: 1 records without an image" in split.notes
    assert split.train[2].images[0]().getpixel((0, 0)) == (40, 40, 40)


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("gone.json", None, "cannot read the data in .*gone.json"),
        ("gone.jsonl", None, "cannot read the data in .*gone.jsonl"),
        ("a.json", "{", "a.json is no JSON"),
        ("a.json", "{}", "a.json: expected a list"),
        ("a.json", "[1]", 'a.json, record 1: expected an object with "conversations"'),
        ("a.json", "[]", "holds no question about an image"),
        ("a.json", json.dumps([record("a", "b")]), "no question about an image .1 records without"),
        ("a.json", json.dumps([record("a", "b", image="no.png")]), "record 1: no such image file"),
        ("a.json", json.dumps([record("a", "b", image=3)]), "record 1: no such image file: 3"),
        ("a.json", '[{"conversations": [{"from": "human"}], "image": "0.png"}]', '"value"'),
        ("a.jsonl", '{"conversations": []}\n{"image": "0.png"}', "line 2: expected an object with"),
        ("a.jsonl", '{"image": "0.png"}', "line 1: expected an object with the texts"),
        ("a.jsonl", "nothing", "line 1 is no JSON"),
    ],
)
def test_unusable_files(folder: Path, name: str, text: str | None, words: str) -> None:
    if text is not None:
        (folder / name).write_text(text)
    with pytest.raises(ValueError, match=words):
        open_source(folder / name, 0)


def test_an_image_that_is_none(folder: Path) -> None:
    (folder / "0.png").write_text("no picture")
    (folder / "mix.json").write_text(json.dumps(RECORDS))
    with pytest.raises(ValueError, match="no image that Pillow can read"):
        open_source(folder / "mix.json", 0).train[0].images[0]()


# -- order -------------------------------------------------------------------------------------


def test_every_epoch_holds_everything_once() -> None:
    order = [index_at(position, 7, seed=3) for position in range(21)]
    epochs = [order[0:7], order[7:14], order[14:21]]
    assert all(sorted(epoch) == list(range(7)) for epoch in epochs)
    assert epochs[0] != epochs[1] or epochs[1] != epochs[2]
    assert order != [index_at(position, 7, seed=4) for position in range(21)]
    # Asked out of order, and again, the answers are the same.
    assert [index_at(position, 7, seed=3) for position in (20, 0, 13, 20)] == [
        order[20],
        order[0],
        order[13],
        order[20],
    ]
    assert index_at(10**9, None, seed=3) == 10**9


# -- schedules ---------------------------------------------------------------------------------

SETTINGS = TrainSettings(
    steps=1000, rate=1e-3, final_rate=1e-4, warmup=0.1, text_gate=0.3, sharpen=0.4
)


def test_the_text_gate_rises_along_a_line() -> None:
    gates = [Schedule.at(step, SETTINGS).text_gate for step in (0, 75, 150, 300, 999)]
    assert gates == [0, 0.25, 0.5, 1, 1]
    assert Schedule.at(0, SETTINGS.changed(text_gate=0.0)).text_gate == 1


def test_the_temperature_falls_along_a_cosine() -> None:
    at = {step: Schedule.at(step, SETTINGS).temperature for step in (0, 100, 200, 400, 999)}
    assert at[0] == SETTINGS.sharp_from and at[400] == at[999] == SETTINGS.sharp_to
    assert at[200] == pytest.approx((SETTINGS.sharp_from + SETTINGS.sharp_to) / 2)
    assert at[100] > (at[0] + at[200]) / 2, "slow at first"
    assert Schedule.at(0, SETTINGS.changed(sharpen=0.0)).temperature == SETTINGS.sharp_to


def test_the_length_weighs_in_along_a_line() -> None:
    later = SETTINGS.changed(lengthen=0.5)
    assert [Schedule.at(step, later).length for step in (0, 125, 500, 999)] == [0, 0.25, 1, 1]
    assert Schedule.at(0, SETTINGS).length == 1, "from the start, as printed"


def test_the_rate_warms_up_and_falls() -> None:
    rates = [rate_at(step, SETTINGS) for step in range(1000)]
    assert rates[0] == pytest.approx(1e-5) and rates[49] == pytest.approx(5e-4)
    assert max(rates) == rates[100] == 1e-3
    assert rates[550] == pytest.approx(5.5e-4)
    assert rates[999] == pytest.approx(1e-4, rel=1e-3)
    assert all(a >= b for a, b in pairwise(rates[100:]))
    assert rate_at(0, SETTINGS.changed(warmup=0.0)) == 1e-3
