"""What is asked: the built-in evaluation set, or a JSON-lines file of the user's."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from prunus.errors import PrunusError, PrunusFileError, shown
from prunus.io.images import open_image
from prunus.io.jsons import lines, parse
from prunus.tasks.faults import Faults
from prunus.tasks.scenes import Scene, render
from prunus.tasks.videos import VideoScene

if TYPE_CHECKING:
    from prunus.tasks.evalset import Item
    from prunus.tasks.evalset.videos import VideoItem

#: Names of the questions that ship with prunus.
BUILTIN_SETS = ("scenes", "sizes", "videos")

_FIELDS = ("image", "question", "answer")
#: Scenes for choosing parameters: far from the seeds of training (below 1e8, and from 1e9 on) and
#: of the evaluation set.
_TUNING_SEED = 300_000_000


@dataclass(frozen=True)
class Clip:
    """A video: RGB ``frames`` of one size, ``fps`` of them for each second, of which the first is
    shown at second ``start``."""

    frames: tuple[Image.Image, ...]
    fps: float
    start: float = 0.0

    @property
    def times(self) -> tuple[float, ...]:
        """The second at which each frame is shown."""
        return tuple(self.start + number / self.fps for number in range(len(self.frames)))


@dataclass(frozen=True)
class Query:
    """A question about image (or video) number ``image`` of its set.

    ``asked`` are the scene's objects that it is about, empty where unknown; ``place`` is where a
    file has it ("questions.jsonl, line 3").
    """

    image: int
    text: str
    answer: str
    type: str
    asked: tuple[int, ...] = ()
    place: str = ""


@dataclass(frozen=True)
class EvalSet:
    """Questions about images that are drawn or opened when they are needed.

    ``scenes[i]`` is the scene behind image i, None where there is only an image. ``chance`` is the
    chance level of a question type where it is known. A set about videos has ``clips`` and
    ``videos``, what is behind them (none where that is unknown), instead of images and scenes.
    """

    name: str
    queries: tuple[Query, ...]
    images: tuple[Callable[[], Image.Image], ...]
    scenes: tuple[Scene | None, ...]
    chance: dict[str, float]
    clips: tuple[Callable[[], Clip], ...] = ()
    videos: tuple[VideoScene, ...] = ()

    @property
    def has_scenes(self) -> bool:
        """Whether the objects of every image or video are known."""
        if self.clips:
            return bool(self.videos)
        return all(scene is not None for scene in self.scenes)

    def seen(self, number: int) -> Image.Image | Clip:
        """Image or video ``number``, drawn or opened."""
        return self.clips[number]() if self.clips else self.images[number]()

    def drawn(self, number: int) -> Scene | VideoScene | None:
        """What is behind image or video ``number``, None where that is unknown."""
        if self.clips:
            return self.videos[number] if self.videos else None
        return self.scenes[number]

    def first(self, limit: int | None) -> EvalSet:
        """The first ``limit`` questions (all of them for None), with all images.

        Raises:
            PrunusError: ``limit`` below 1.
        """
        if limit is None:
            return self
        if limit < 1:
            raise PrunusError(f"limit={limit} leaves no question: give a positive number")
        return replace(self, queries=self.queries[:limit])


def load_builtin_set(name: str = "scenes") -> EvalSet:
    """The questions about unseen scenes that ship with prunus.

    Args:
        name: ``scenes``, 192 pixels square; ``sizes``, the same scenes and questions, each scene
            stretched to a size of its own (192 to 288 pixels a side); ``videos``.

    Raises:
        PrunusError: an unknown name.
    """
    from prunus.tasks.evalset import load_evalset
    from prunus.tasks.evalset.videos import load_video_evalset

    if name == "videos":
        return video_set("built-in videos", load_video_evalset())
    if name == "scenes":
        return scene_set("built-in scenes", load_evalset())
    if name == "sizes":
        return _stretched(scene_set("built-in scenes at several sizes", load_evalset()))
    raise PrunusError(f"no built-in questions {name!r}: there are {', '.join(BUILTIN_SETS)}")


def load_set(data: str, faults: Faults | None = None) -> EvalSet:
    """The questions called ``data``: built-in ones, or those of a file; ``faults`` as of
    :func:`load_file`.

    Raises:
        PrunusError: no such questions, an unreadable file, or a line of it that cannot be used.
    """
    if data in BUILTIN_SETS:
        return load_builtin_set(data)
    if not os.path.exists(data):
        close = get_close_matches(data, BUILTIN_SETS, n=1)
        hint = f"did you mean {close[0]!r}? " if close else ""
        raise PrunusFileError(
            f"no such file: {shown(data)} ({hint}built-in questions: {', '.join(BUILTIN_SETS)})"
        )
    return load_file(Path(data), faults)


def builtin_set_for(model: str) -> str:
    """The name of the built-in questions that a model is asked unless others are wanted."""
    return "sizes" if model == "tiny-qwen" else "scenes"


def load_tuning_set(name: str, number: int = 0, scenes: int = 30, per_type: int = 6) -> EvalSet:
    """Questions of the form of :func:`load_builtin_set`, about other scenes with *training* digits:
    for choosing parameters, which must not be done on the evaluation sets.

    Args:
        name: as there.
        number: of the set: different ones share no scene.
        scenes: images or videos; at most 100,000.
        per_type: questions of each type.

    Raises:
        PrunusError: an unknown name.
    """
    from prunus.tasks.evalset import Item, even_questions
    from prunus.tasks.evalset.videos import VideoItem
    from prunus.tasks.questions import TYPES, ask
    from prunus.tasks.scenes import make_scene
    from prunus.tasks.video_questions import VIDEO_TYPES, ask_video
    from prunus.tasks.videos import make_video

    if name not in BUILTIN_SETS:
        raise PrunusError(f"no tuning set {name!r}: there are {', '.join(BUILTIN_SETS)}")
    first = _TUNING_SEED + 100_000 * (1 + number)
    seeds = range(first, first + scenes)
    title = f"tuning {name} {number}"
    if name == "videos":
        videos = [make_video(seed, "train") for seed in seeds]
        about = even_questions(videos, tuple(VIDEO_TYPES), ask_video, per_type, first)
        pairs = zip(videos, about, strict=True)
        return video_set(title, [VideoItem(video, tuple(own)) for video, own in pairs])
    drawn = [make_scene(seed, "train") for seed in seeds]
    asked = even_questions(drawn, tuple(TYPES), ask, per_type, first)
    items = [Item(scene, tuple(own)) for scene, own in zip(drawn, asked, strict=True)]
    found = scene_set(title, items)
    return _stretched(found) if name == "sizes" else found


def _stretched(data: EvalSet) -> EvalSet:
    from prunus.tasks.pictures import image_size, picture

    def drawer(number: int, scene: Scene) -> Callable[[], Image.Image]:
        return lambda: picture(scene, image_size(number))

    scenes = [scene for scene in data.scenes if scene is not None]
    return replace(data, images=tuple(drawer(n, scene) for n, scene in enumerate(scenes)))


def video_set(name: str, items: Sequence[VideoItem]) -> EvalSet:
    """Questions about drawn videos, each at a size fixed by its number."""
    from prunus.tasks.pictures import FPS, video_side
    from prunus.tasks.video_questions import VIDEO_TYPES
    from prunus.tasks.videos import render_video

    def drawer(number: int, video: VideoScene) -> Callable[[], Clip]:
        return lambda: Clip(tuple(render_video(video, video_side(number))), FPS)

    queries = tuple(
        Query(number, question.text, question.answer, question.type, question.objects)
        for number, item in enumerate(items)
        for question in item.questions
    )
    videos = tuple(item.scene for item in items)
    clips = tuple(drawer(number, video) for number, video in enumerate(videos))
    return EvalSet(name, queries, (), (), dict(VIDEO_TYPES), clips, videos)


def training_questions(scenes: int, each: int) -> EvalSet:
    """``each`` questions about every one of ``scenes`` fresh scenes with *training* digits: for
    choosing parameters, which must not be done on the evaluation set."""
    from prunus.tasks.evalset import Item
    from prunus.tasks.questions import ask_many
    from prunus.tasks.scenes import make_scene

    seeds = range(_TUNING_SEED, _TUNING_SEED + scenes)
    drawn = {seed: make_scene(seed, "train") for seed in seeds}
    items = [Item(scene, tuple(ask_many(scene, each, seed))) for seed, scene in drawn.items()]
    return scene_set("training scenes", items)


def scene_set(name: str, items: Sequence[Item]) -> EvalSet:
    """Questions about drawn scenes."""
    from prunus.tasks.questions import TYPES

    queries = tuple(
        Query(number, question.text, question.answer, question.type, question.objects)
        for number, item in enumerate(items)
        for question in item.questions
    )
    scenes = tuple(item.scene for item in items)
    return EvalSet(name, queries, tuple(_drawer(s) for s in scenes), scenes, dict(TYPES))


def load_file(path: Path, faults: Faults | None = None) -> EvalSet:
    """A JSON-lines file: ``image`` (path, relative to the file), ``question``, ``answer`` and,
    optionally, ``type`` on each line.

    Args:
        path: the file.
        faults: what becomes of lines that cannot be used; default: the first one is raised.

    Raises:
        PrunusError: an unreadable file, a line that is no such object, or a missing image; the
            message names the line.
    """
    faults = faults or Faults()
    numbers: dict[Path, int] = {}
    places: list[str] = []
    queries = []
    for place, line in lines(path, "the questions in"):
        try:
            row = _row(line, place)
            image = find_image(path.parent, row["image"], place)
        except PrunusError as error:
            faults.take(error)
            continue
        if image not in numbers:
            numbers[image] = len(numbers)
            places.append(place)
        kind = row.get("type", "all")
        queries.append(Query(numbers[image], row["question"], row["answer"], kind, place=place))
    if not queries:
        why = f" that can be asked ({faults.found[0]})" if faults.found else ""
        raise PrunusError(f"{str(path)!r} holds no questions{why}: write one JSON object per line")
    images = tuple(opener(*both) for both in zip(numbers, places, strict=True))
    return EvalSet(path.stem, tuple(queries), images, (None,) * len(images), {})


def _row(line: bytes, place: str) -> dict[str, str]:
    row = parse(line, place)
    wanted = f"{place}: expected an object with the texts {', '.join(_FIELDS)}"
    if not isinstance(row, dict):
        raise PrunusError(wanted)
    for key in _FIELDS:
        if not isinstance(row.get(key), str):
            raise PrunusError(f"{wanted}: {key} is {'no text' if key in row else 'missing'}")
    if not isinstance(row.get("type", ""), str):
        raise PrunusError(f"{place}: the type must be a text")
    return row


def find_image(folder: Path, name: object, place: str) -> Path:
    """The image file ``name`` in ``folder``.

    Raises:
        PrunusFileError: there is none; ``place`` starts the message.
    """
    if not isinstance(name, str) or not os.path.isfile(folder / name):
        folded = isinstance(name, str) and os.path.isdir(folder / name)
        what = "a folder is no image file" if folded else "no such image file"
        raise PrunusFileError(f"{place}: {what}: {shown(name)} (beside {place.split(',')[0]})")
    return folder / name


def _drawer(scene: Scene) -> Callable[[], Image.Image]:
    return lambda: render(scene)


def opener(path: Path, place: str = "") -> Callable[[], Image.Image]:
    """Opens an image file, which is named at ``place``, when it is called: see
    :func:`prunus.io.images.open_image`."""
    return lambda: open_image(path, place)
