"""Unambiguous questions about a video: what moves, which way, in which order, how many.

As for scenes, the answer is balanced before the candidate is chosen, so that a model that cannot
see stays near chance.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from prunus.errors import PrunusError
from prunus.tasks.questions import Question, collect, existence, pick, references
from prunus.tasks.videos import FRAMES, Actor, VideoScene
from prunus.tasks.words import NUMBERS

#: Types that are scored by exact match, and their chance level when the answers are known.
VIDEO_TYPES: dict[str, float] = {
    "existence": 1 / 2,
    "motion": 1 / 5,
    "order": 1 / 2,
    "counting": 1 / 5,
    "color": 1 / 6,
    "shape": 1 / 7,
}

#: What an object can be said to do, and whether it does.
_DEEDS: dict[str, Callable[[Actor], bool]] = {
    "move": lambda item: item.motion != "still",
    "appear": lambda item: item.appears,
    "disappear": lambda item: item.disappears,
}

#: What can be counted, and which objects count.
_COUNTED: dict[str, Callable[[Actor], bool]] = {
    **{f"how many objects {verb}?": deed for verb, deed in _DEEDS.items()},
    "how many objects stand still?": lambda item: item.motion == "still",
    "how many objects are there at the start?": lambda item: item.start == 0,
    "how many objects are there at the end?": lambda item: item.end == FRAMES,
    "how many objects are there in all?": lambda item: True,
}


def _named(video: VideoScene) -> dict[int, list[str]]:
    """The phrases that single each object out, for those that have one."""
    found = {index: references(video, index) for index in range(len(video.objects))}
    return {index: phrases for index, phrases in found.items() if phrases}


def _existence(video: VideoScene, rng: np.random.Generator) -> Question | None:
    if rng.random() < 0.3:
        return existence(video, rng)
    verb = pick(rng, list(_DEEDS))
    want = rng.random() < 0.5
    named = _named(video)
    fits = [index for index in named if _DEEDS[verb](video.objects[index]) == want]
    if not fits:
        return None
    index = pick(rng, fits)
    text = f"does the {pick(rng, named[index])} {verb}?"
    return Question("existence", text, "yes" if want else "no", (index,))


def _motion(video: VideoScene, rng: np.random.Generator) -> Question | None:
    named = _named(video)
    words = list(dict.fromkeys(video.objects[index].motion for index in named))
    if not words:
        return None
    # what stands still is common: it is taken less often where something moves
    weights = np.array([0.3 if word == "still" else 1.0 for word in words])
    word = words[int(rng.choice(len(words), p=weights / weights.sum()))]
    if words == ["still"] and rng.random() < 0.6:
        return None
    index = pick(rng, [i for i in named if video.objects[i].motion == word])
    return Question("motion", f"which way does the {pick(rng, named[index])} move?", word, (index,))


def _events(video: VideoScene) -> list[tuple[int, str, int]]:
    """Index, verb and frame of everything that comes or goes and can be named."""
    found = []
    for index in _named(video):
        item = video.objects[index]
        found += [(index, "appear", item.start)] * item.appears
        found += [(index, "disappear", item.end)] * item.disappears
    return found


def _order(video: VideoScene, rng: np.random.Generator) -> Question | None:
    named, events = _named(video), _events(video)
    pairs = [(a, b) for a in events for b in events if a[0] != b[0] and a[2] < b[2]]
    if not pairs:
        return None
    (i, verb, _), (j, other, _) = pick(rng, pairs)
    first, second = pick(rng, named[i]), pick(rng, named[j])
    asked = (i, j)
    swap = rng.random() < 0.5
    if verb == other and rng.random() < 0.5:
        last = rng.random() < 0.5
        choice = f"the {second} or the {first}" if swap else f"the {first} or the {second}"
        text = f"which {verb}s {'last' if last else 'first'}, {choice}?"
        return Question("order", text, second if last else first, asked)
    if swap:
        text = f"does the {second} {other} before the {first} {verb}s?"
        return Question("order", text, "no", asked)
    text = f"does the {first} {verb} before the {second} {other}s?"
    return Question("order", text, "yes", asked)


def _counting(video: VideoScene, rng: np.random.Generator) -> Question | None:
    candidates: dict[int, list[tuple[str, tuple[int, ...]]]] = {}
    for text, fits in _COUNTED.items():
        found = tuple(i for i, item in enumerate(video.objects) if fits(item))
        candidates.setdefault(len(found), []).append((text, found))
    weights = np.array([(0.5, 0.5, 1.0, 2.0, 4.0)[min(count, 4)] for count in candidates])
    count = list(candidates)[int(rng.choice(len(candidates), p=weights / weights.sum()))]
    text, objects = pick(rng, candidates[count])
    return Question("counting", text, NUMBERS[count], objects)


def singled_out(video: VideoScene) -> list[tuple[str, int]]:
    """Descriptions by what happens that fit one object only, e.g. ``object that moves``."""
    items = list(enumerate(video.objects))
    found = []
    for verb, does in _DEEDS.items():
        fits = [index for index, item in items if does(item)]
        found += [(f"object that {verb}s", index) for index in fits if len(fits) == 1]
    still = [index for index, item in items if item.motion == "still"]
    found += [("object that stands still", index) for index in still if len(still) == 1]
    for verb in ("appear", "disappear"):
        when = {
            index: item.start if verb == "appear" else item.end
            for index, item in items
            if _DEEDS[verb](item)
        }
        for word, frame in (("first", min), ("last", max)):
            at = [i for i, time in when.items() if time == frame(when.values())]
            if len(when) > 1 and len(at) == 1:
                found.append((f"object that {verb}s {word}", at[0]))
    return found


def _color(video: VideoScene, rng: np.random.Generator) -> Question | None:
    found = singled_out(video)
    if not found or rng.random() < 0.2:
        named = _named(video)
        found = [(p, i) for i, ps in named.items() for p in ps if video.objects[i].color not in p]
    if not found:
        return None
    phrase, index = pick(rng, found)
    answer = video.objects[index].color
    return Question("color", f"what color is the {phrase}?", answer, (index,))


def _shape(video: VideoScene, rng: np.random.Generator) -> Question | None:
    found = singled_out(video)
    if not found or rng.random() < 0.2:
        named = _named(video)
        found = [(p, i) for i, ps in named.items() for p in ps if p.endswith(" object")]
    if not found:
        return None
    phrase, index = pick(rng, found)
    answer = video.objects[index].kind
    return Question("shape", f"what shape is the {phrase}?", answer, (index,))


_ASK: dict[str, Callable[[VideoScene, np.random.Generator], Question | None]] = {
    "existence": _existence,
    "motion": _motion,
    "order": _order,
    "counting": _counting,
    "color": _color,
    "shape": _shape,
}

#: What needs several moments at once is learned last: training asks it twice as often.
_HARD = ("order", "counting")


def ask_video(video: VideoScene, kind: str, rng: np.random.Generator) -> Question | None:
    """One question of a type, or None where the video allows no unambiguous one."""
    if kind not in _ASK:
        raise PrunusError(f"unknown question type {kind!r}; there are {', '.join(_ASK)}")
    return _ASK[kind](video, rng) if video.objects else None


def ask_many_video(video: VideoScene, count: int, seed: int) -> list[Question]:
    """``count`` questions (fewer where a video offers fewer), the types taken in turns."""
    rng = np.random.default_rng([seed, 8])
    kinds: Sequence[str] = [str(name) for name in rng.permutation([*_ASK, *_HARD])]
    return collect(kinds, lambda kind: ask_video(video, kind, rng), count)
