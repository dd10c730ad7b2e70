"""A user's questions, with answers or without, and drawn ones to try it with."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from PIL import Image

from prunus.compare.identity import digest, seen_digest
from prunus.errors import PrunusError, shown
from prunus.io.files import make_folder, replacing, write_text
from prunus.io.images import open_image
from prunus.io.jsons import lines, parse
from prunus.tasks.faults import Faults
from prunus.tasks.sets import find_image, load_tuning_set

#: Questions that are drawn: their names, and the sets whose form they have. Digits and scenes are
#: those of neither training nor evaluation, nor of other searches.
DRAWN = {"tuning-scenes": "scenes", "tuning-sizes": "sizes"}
_NUMBER = 7


@dataclass(frozen=True)
class Asked:
    """A question about the file ``image``, whose digest is ``pixels``; ``answer`` None where the
    dense model's own is what counts; ``place`` is where the file of questions has it."""

    image: Path
    pixels: str
    text: str
    answer: str | None
    type: str
    place: str

    @property
    def digest(self) -> str:
        """Of pixels and words."""
        return digest([self.pixels, self.text])[:32]


def read_questions(path: Path, faults: Faults) -> list[Asked]:
    """The questions of a file of JSON lines: ``image`` (beside the file), ``question`` and,
    optionally, ``type``; ``answer`` on each line, or on none. A picture that is there under several
    names is one picture; a line that says what another one says is left out.

    Args:
        path: the file.
        faults: what becomes of lines that cannot be used.

    Raises:
        PrunusError: an unreadable file, a line that is no question, answers to some alone, or two
            answers to the same question.
    """
    found: dict[str, Asked] = {}
    seen: dict[Path, str] = {}
    first: dict[str, Path] = {}
    for place, line in lines(path, "the questions in"):
        try:
            one = _asked(path.parent, line, place, seen)
            before = found.get(one.digest)
            if before is not None and before.answer != one.answer:
                raise PrunusError(
                    f"{place}: asks what {before.place} asks, with another answer: leave one out"
                )
        except PrunusError as error:
            faults.take(error)
            continue
        one = replace(one, image=first.setdefault(one.pixels, one.image))
        found.setdefault(one.digest, one)
    if not found:
        why = f" that can be asked ({faults.found[0]})" if faults.found else ""
        raise PrunusError(f"{str(path)!r} holds no questions{why}: write one JSON object per line")
    questions = list(found.values())
    without = [one for one in questions if one.answer is None]
    if 0 < len(without) < len(questions):
        raise PrunusError(
            f"{without[0].place}: has no answer, and other lines have one: give all of them, or "
            "none (then agreement with the dense model's own answers is what counts)"
        )
    return questions


def _asked(folder: Path, line: bytes, place: str, seen: dict[Path, str]) -> Asked:
    row = parse(line, place)
    texts = isinstance(row, dict) and all(
        isinstance(row.get(key), str) for key in ("image", "question")
    )
    if not texts or not all(isinstance(row.get(key, ""), str) for key in ("answer", "type")):
        raise PrunusError(
            f"{place}: expected an object with the texts image, question and, optionally, answer "
            "and type"
        )
    if not row["question"].strip():
        raise PrunusError(f"{place}: the question is empty")
    if not row.get("answer", "-").strip():
        raise PrunusError(f"{place}: the answer is empty: leave the key out where there is none")
    image = find_image(folder, row["image"], place).resolve()
    if image not in seen:
        seen[image] = seen_digest(open_image(image, place))
    return Asked(
        image, seen[image], row["question"], row.get("answer"), row.get("type", "all"), place
    )


def draw_questions(name: str, folder: Path, scenes: int = 400, per_type: int = 200) -> Path:
    """Write drawn pictures and questions about them into ``folder``, unless they are there: the
    file of questions.

    Raises:
        PrunusError: an unknown name; PrunusFileError: it cannot be written.
    """
    if name not in DRAWN:
        raise PrunusError(f"no questions are called {shown(name)}: there are {', '.join(DRAWN)}")
    make_folder(folder)
    data = load_tuning_set(DRAWN[name], _NUMBER, scenes, per_type)
    rows: list[str] = []
    for query in data.queries:
        picture = f"{query.image:04}.png"
        if not (folder / picture).is_file():
            _draw(data.seen(query.image), folder / picture)
        row = {"image": picture, "question": query.text, "answer": query.answer, "type": query.type}
        rows.append(json.dumps(row))
    path = folder / f"{name}.jsonl"
    text = "\n".join(rows) + "\n"
    if not path.is_file() or path.read_bytes() != text.encode():
        write_text(path, text)
    return path


def _draw(picture: object, path: Path) -> None:
    if not isinstance(picture, Image.Image):
        raise PrunusError(f"{path.name} is no picture")
    with replacing(path) as partial:
        picture.save(partial, format="PNG")


def answered(questions: Sequence[Asked]) -> bool:
    """Whether answers are given."""
    return questions[0].answer is not None
