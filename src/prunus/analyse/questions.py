"""Which questions an analysis asks: a few, spread over types and images, not the first ones."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from PIL import Image

from prunus.errors import PrunusError
from prunus.tasks.sets import EvalSet, Query


def spread(data: EvalSet, limit: int, seed: int = 0) -> EvalSet:
    """At most ``limit`` questions of ``data``: types take turns, and of each type the question
    about the image that has been asked least so far is taken, in an order shuffled by ``seed``.

    The questions keep their order, and the set all its images. The first questions of a longer
    list are not those of a shorter one, only its types are as even.

    Raises:
        PrunusError: ``limit`` below 1.
    """
    if limit < 1:
        raise PrunusError(f"limit={limit} leaves no question: give a positive number")
    order = np.random.default_rng(seed).permutation(len(data.queries)).tolist()
    waiting: dict[str, list[int]] = {}
    for number in order:
        waiting.setdefault(data.queries[number].type, []).append(number)
    used: Counter[int] = Counter()
    chosen: list[int] = []
    kinds = sorted(waiting)
    while len(chosen) < min(limit, len(order)):
        for kind in kinds:
            if len(chosen) == limit or not waiting[kind]:
                continue
            best = min(waiting[kind], key=lambda number: used[data.queries[number].image])
            waiting[kind].remove(best)
            used[data.queries[best].image] += 1
            chosen.append(best)
    return replace(data, queries=tuple(data.queries[number] for number in sorted(chosen)))


def about_same_images(data: EvalSet, images: int, each: int, seed: int = 0) -> EvalSet:
    """Questions for comparing what different questions look at in one image: up to ``each`` about
    each of up to ``images`` images that have at least two, the images with most questions first
    (ties in an order shuffled by ``seed``). Without such images the set has no questions."""
    own: dict[int, list[Query]] = {}
    for query in data.queries:
        own.setdefault(query.image, []).append(query)
    order = np.random.default_rng(seed).permutation(list(own)).tolist()
    several = [image for image in order if len(own[image]) > 1]
    several.sort(key=lambda image: -min(len(own[image]), each))
    chosen = [query for image in several[:images] for query in own[image][:each]]
    return replace(data, queries=tuple(chosen))


def every_prompt(pictures: Sequence[Image.Image], prompts: Sequence[str]) -> EvalSet:
    """Every prompt asked of every picture; the answers are unknown (empty texts).

    Raises:
        PrunusError: no picture, or no prompt.
    """
    if not pictures or not prompts:
        raise PrunusError("give at least one picture and one prompt")
    queries = tuple(
        Query(number, prompt, "", "prompt") for number in range(len(pictures)) for prompt in prompts
    )
    images = tuple(_giver(picture) for picture in pictures)
    return EvalSet("your prompts", queries, images, (None,) * len(images), {})


def _giver(picture: Image.Image) -> Callable[[], Image.Image]:
    return lambda: picture
