"""Where examples come from: freshly drawn scenes, or a file; and which of them are held out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Protocol

import numpy as np
from PIL import Image

from prunus.errors import PrunusError
from prunus.tasks.evalset import Item
from prunus.tasks.faults import Faults, OnError, told
from prunus.tasks.pictures import draw_size, picture
from prunus.tasks.questions import ask_many
from prunus.tasks.scenes import Scene, make_scene, render
from prunus.tasks.sets import EvalSet, load_file, scene_set
from prunus.train.conversations import is_conversations, load_conversations
from prunus.train.data import Example

#: What ``--data`` calls drawn scenes.
BUILTIN = "builtin"

#: Seeds that nothing else draws from: the built-in models are trained below 1e8 and from 1e9 on,
#: parameters are tuned from 3e8 on, and evaluated is from 5e8 on. Runs of different seeds start a
#: million scenes apart.
_TRAIN, _HELD_OUT = 400_000_000, 450_000_000
_RUNS, _APART = 40, 1_000_000
_PER_SCENE = 4  # held-out questions


class Source(Protocol):
    """Examples by index; ``size`` of them, or None where there is no end."""

    @property
    def size(self) -> int | None:
        """How many examples there are."""

    def __getitem__(self, index: int) -> Example:
        """Example number ``index``."""


@dataclass(frozen=True)
class Scenes:
    """One question about each of endlessly many scenes with training digits; with ``sizes`` each is
    stretched to a size of its own."""

    seed: int = 0
    sizes: bool = False

    @property
    def size(self) -> None:
        return None

    def __getitem__(self, index: int) -> Example:
        seed = _TRAIN + self.seed % _RUNS * _APART + index
        scene = make_scene(seed, "train")
        [question, *_] = ask_many(scene, 1, seed)
        drawn = partial(_stretched, scene, seed) if self.sizes else partial(render, scene)
        return Example((drawn,), question.text, question.answer, question.type)


@dataclass(frozen=True)
class Questions:
    """The questions of a set."""

    data: EvalSet

    @property
    def size(self) -> int:
        return len(self.data.queries)

    def __getitem__(self, index: int) -> Example:
        query = self.data.queries[index]
        images = (self.data.images[query.image],)
        return Example(images, query.text, query.answer, query.type, query.place)


@dataclass(frozen=True)
class Split:
    """What a run learns from, and what it is measured on (None: nothing).

    Attributes:
        name: of the data, for the log.
        train: the examples.
        held_out: questions about images that ``train`` does not have.
        notes: what the file holds that is not used, in words.
    """

    name: str
    train: Source
    held_out: EvalSet | None
    notes: Sequence[str] = ()


def open_source(
    data: str | Path,
    held_out: int,
    seed: int = 0,
    sizes: bool = False,
    on_error: OnError = "stop",
) -> Split:
    """Training and held-out examples.

    Args:
        data: :data:`BUILTIN`, or a file: JSON lines with ``image``, ``question``, ``answer`` and,
            optionally, ``type`` (as for ``prunus eval``), or LLaVA's conversations.
        held_out: how many questions to measure on. Of a file these are the questions about some
            images, drawn by ``seed``, which are then not trained on. Drawn scenes with digits of
            the validation split are the same for every seed.
        seed: of the training scenes, and of the choice of held-out images.
        sizes: draw scenes at many sizes, for a model that takes them.
        on_error: "stop" raises the first line that cannot be used, "skip" leaves them out, and
            says so in the notes.

    Raises:
        PrunusError: an unreadable file, a line that cannot be used, or too few images to hold
            some out.
    """
    if held_out < 0:
        raise PrunusError(f"held_out={held_out}: give a number of questions, or 0 for none")
    if str(data) == BUILTIN:
        name = "training scenes at many sizes" if sizes else "training scenes"
        measured = held_out_scenes(held_out, sizes) if held_out else None
        return Split(name, Scenes(seed, sizes), measured)
    path = Path(data)
    notes: list[str] = []
    faults = Faults(on_error)
    if is_conversations(path):
        whole, left_out = load_conversations(path, faults)
        notes = [f"left out: {count} {kind}" for kind, count in sorted(left_out.items())]
    else:
        whole = _with_answers(load_file(path, faults), faults)
    if faults.found:
        notes += [f"skipped: {len(faults.found)}", *told(faults.found)]
    if not held_out:
        return Split(whole.name, Questions(whole), None, notes)
    train, measured = _by_image(whole, held_out, seed)
    return Split(whole.name, Questions(train), measured, notes)


def _with_answers(data: EvalSet, faults: Faults) -> EvalSet:
    """The questions that something can be learned from."""
    kept = []
    for query in data.queries:
        if query.text.strip() and query.answer.strip():
            kept.append(query)
        else:
            faults.take(PrunusError(f"{query.place}: question or answer is empty"))
    if not kept:
        raise PrunusError(f"{data.name!r} holds no question with an answer")
    return replace(data, queries=tuple(kept))


def _stretched(scene: Scene, seed: int) -> Image.Image:
    return picture(scene, draw_size(np.random.default_rng([seed, 8])))


def held_out_scenes(count: int, sizes: bool = False) -> EvalSet:
    """``count`` questions about scenes that no selector is trained on, with digits of the
    validation split; with ``sizes`` each is stretched to a size of its own."""
    seeds = range(_HELD_OUT, _HELD_OUT + -(-count // _PER_SCENE))
    items = [
        Item(scene, tuple(ask_many(scene, _PER_SCENE, seed)))
        for seed in seeds
        for scene in [make_scene(seed, "val")]
    ]
    whole = scene_set("held-out scenes", items)
    if sizes:
        pairs = zip(items, seeds, strict=True)
        drawn = [partial(_stretched, item.scene, seed) for item, seed in pairs]
        whole = replace(whole, images=tuple(drawn))
    return whole.first(count)


def _by_image(whole: EvalSet, count: int, seed: int) -> tuple[EvalSet, EvalSet]:
    """Training set, and ``count`` questions about images that it does not have."""
    order = np.random.default_rng([seed, 7]).permutation(len(whole.images))
    asked = np.bincount([query.image for query in whole.queries], minlength=len(order))
    enough = int(np.searchsorted(asked[order].cumsum(), count)) + 1
    left = int(asked[order[enough:]].sum())
    if left < max(1, len(whole.queries) // 2):
        raise PrunusError(
            f"{count} held-out questions leave {left} of the {len(whole.queries)} questions in "
            f"{whole.name!r} for training, because no image may be in both: hold fewer out, or "
            "none (0)"
        )
    measured = set(order[:enough].tolist())
    inside = tuple(query for query in whole.queries if query.image in measured)
    outside = tuple(query for query in whole.queries if query.image not in measured)
    return replace(whole, queries=outside), replace(whole, queries=inside).first(count)
