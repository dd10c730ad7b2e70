"""Which questions are held out: by the pixels of their images, and nothing else."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from PIL import Image

from prunus.errors import PrunusError, PrunusFileError
from prunus.tasks.faults import Faults
from prunus.tune.questions import Asked, answered, draw_questions, read_questions
from prunus.tune.split import is_held_out, split

Row = dict[str, object]


def asked(image: str, text: str, answer: str | None = "yes") -> Asked:
    pixels = hashlib.sha256(image.encode()).hexdigest()
    return Asked(Path(image), pixels, text, answer, "all", "somewhere")


MANY = [asked(f"{n}.png", f"question {k}") for n in range(200) for k in range(1 + n % 3)]


def test_no_image_is_on_both_sides() -> None:
    found = split(MANY, 0.5)
    tuning, held_out = ({one.pixels for one in side} for side in (found.tuning, found.held_out))
    assert not tuning & held_out and len(tuning | held_out) == 200
    assert len(found.tuning) + len(found.held_out) == len(MANY)
    assert 80 <= len(held_out) <= 120
    assert 20 <= len({one.pixels for one in split(MANY, 0.2).held_out}) <= 60
    # an image that is held out of a part of the questions is held out of all
    assert {one.pixels for one in split(MANY, 0.2).held_out} < held_out
    some = split(MANY[:100], 0.5)
    assert {one.pixels for one in some.held_out} <= held_out
    assert {one.pixels for one in some.tuning} <= tuning
    assert split(MANY[::-1], 0.5).digests != [] and set(split(MANY[::-1], 0.5).digests) == set(
        found.digests
    )


def test_sides_are_asked_image_by_image() -> None:
    """Every image once, then those again that have a second question."""
    found = split(MANY, 0.5).tuning
    images = len({one.pixels for one in found})
    assert len({one.pixels for one in found[:images]}) == images
    numbers = [int(one.text.split()[1]) for one in found]
    assert numbers == sorted(numbers) and numbers[images] == 1
    order = [one.pixels for one in found[:images]]
    assert order != sorted(order) and order == [
        one.pixels for one in split(MANY[::-1], 0.5).tuning[:images]
    ]


def test_a_limit_takes_whole_images() -> None:
    whole, some = split(MANY, 0.5), split(MANY, 0.5, limit=100)
    assert 100 <= len(some.tuning) + len(some.held_out) < 103
    for side, part in ((whole.tuning, some.tuning), (whole.held_out, some.held_out)):
        there = {one.pixels for one in part}
        assert {one.digest for one in part} == {one.digest for one in side if one.pixels in there}


def test_too_few_images_are_refused() -> None:
    with pytest.raises(PrunusError, match="1 images.*split gets.*more images"):
        split([asked("one.png", "who?")], 0.5)
    for share in (0.0, 1.0, float("nan")):
        with pytest.raises(PrunusError, match="--held-out"):
            split(MANY, share)
    assert is_held_out("0" * 64, 1.0) and not is_held_out("0" * 64, 0.0)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number in range(4):
        Image.new("RGB", (8, 8), (number, 0, 0)).save(tmp_path / f"{number}.png")
    Image.new("RGB", (8, 8), (1, 0, 0)).save(tmp_path / "copy.png")
    return tmp_path


def written(folder: Path, rows: Sequence[Row | str]) -> Path:
    path = folder / "mine.jsonl"
    path.write_text("\n".join(r if isinstance(r, str) else json.dumps(r) for r in rows))
    return path


def read(folder: Path, rows: Sequence[Row | str], skip: bool = False) -> list[Asked]:
    return read_questions(written(folder, rows), Faults("skip" if skip else "stop"))


def row(image: str = "0.png", question: str = "who?", **more: object) -> Row:
    return {"image": image, "question": question, **more}


def test_a_picture_with_two_names_is_one(folder: Path) -> None:
    found = read(folder, [row("1.png", answer="a"), row("copy.png", "where?", answer="b"),
                          row("copy.png", answer="a")])  # fmt: skip
    assert [(one.text, one.answer) for one in found] == [("who?", "a"), ("where?", "b")]
    assert len({one.pixels for one in found}) == len({one.image for one in found}) == 1


def test_answers_are_given_to_all_or_to_none(folder: Path) -> None:
    assert answered(read(folder, [row(answer="a"), row("1.png", answer="b")]))
    assert not answered(read(folder, [row(), row("1.png")]))
    with pytest.raises(PrunusError, match="line 2: has no answer.*all of them, or none"):
        read(folder, [row(answer="a"), row("1.png")])
    with pytest.raises(PrunusError, match="line 2: asks what mine.jsonl, line 1 asks"):
        read(folder, [row(answer="a"), row(answer="b")])


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("{", "no JSON"),
        ("[]", "expected an object"),
        ({"image": "0.png"}, "image, question"),
        (row(answer=3), "expected an object"),
        (row(question=" "), "the question is empty"),
        (row(answer=" "), "leave the key out"),
        (row("9.png"), "no such image file"),
        (row("mine.jsonl"), "line 2"),
    ],
)
def test_lines_that_are_no_questions_are_named(folder: Path, line: Row | str, words: str) -> None:
    good = row("1.png", answer="b")
    with pytest.raises(PrunusError, match=words) as error:
        read(folder, [good, line])
    assert "mine.jsonl, line 2" in str(error.value)
    assert [one.text for one in read(folder, [good, line], skip=True)] == ["who?"]
    with pytest.raises(PrunusError, match="holds no questions"):
        read(folder, [line], skip=True)


def test_sides_are_files_of_questions(folder: Path) -> None:
    """With pictures where they lie; without answers these are empty."""
    from prunus.tasks.sets import load_file

    for number in range(12):
        Image.new("RGB", (8, 8), (0, number, 9)).save(folder / f"b{number}.png")
    sides = split(read(folder, [row(f"b{number}.png") for number in range(12)]), 0.5)
    tuning, held_out = sides.write(folder / "deep" / "er")
    before = tuning.stat().st_mtime_ns
    sides.write(folder / "deep" / "er")
    assert tuning.stat().st_mtime_ns == before  # nothing to write
    data = load_file(tuning)
    assert [query.text for query in data.queries] == [one.text for one in sides.tuning]
    assert {query.answer for query in data.queries} == {""}
    pixels = {data.images[query.image]().getpixel((0, 0)) for query in data.queries}
    other = load_file(held_out)
    rest = {other.images[query.image]().getpixel((0, 0)) for query in other.queries}
    assert not pixels & rest and len(pixels | rest) == 12


def test_sides_in_a_folder_behind_a_link(folder: Path) -> None:
    """Pictures are found from where the folder is, not from where the link to it is."""
    from prunus.tasks.sets import load_file

    for number in range(12):
        Image.new("RGB", (8, 8), (0, number, 9)).save(folder / f"b{number}.png")
    sides = split(read(folder, [row(f"b{number}.png") for number in range(12)]), 0.5)
    (folder / "far" / "away" / "out").mkdir(parents=True)
    (folder / "link").symlink_to(folder / "far" / "away" / "out")
    for path, side in zip(
        sides.write(folder / "link" / "q"), (sides.tuning, sides.held_out), strict=True
    ):
        data = load_file(path)
        assert len(data.images) == len(side)
        assert all(image().getpixel((0, 0))[2] == 9 for image in data.images)
        path.write_bytes(b"\xff broken")
    tuning, _ = sides.write(folder / "link" / "q")
    assert len(load_file(tuning).queries) == len(sides.tuning)


def test_drawn_questions_are_those_of_neither_training_nor_evaluation(tmp_path: Path) -> None:
    from prunus.tasks.sets import load_builtin_set

    path = draw_questions("tuning-scenes", tmp_path, scenes=6, per_type=2)
    found = read_questions(path, Faults())
    assert answered(found) and len(found) == 14 and len({one.type for one in found}) == 7
    evaluated = load_builtin_set("scenes")
    [image] = {one.image for one in found if one.image.name == "0000.png"}
    assert Image.open(image).tobytes() != evaluated.images[0]().tobytes()
    before = image.stat().st_mtime_ns
    assert draw_questions("tuning-scenes", tmp_path, scenes=6, per_type=2) == path
    assert image.stat().st_mtime_ns == before
    with pytest.raises(PrunusError, match="tuning-sizes"):
        draw_questions("scenes", tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(PrunusFileError):
        draw_questions("tuning-scenes", tmp_path / "file" / "in")
