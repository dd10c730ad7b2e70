"""Unambiguous questions about a scene, of the kinds that the papers' benchmarks ask.

Every question type offers candidates, and the answer is balanced before the candidate is chosen,
so that a model that cannot see stays near chance.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from prunus.errors import PrunusError
from prunus.tasks.labels import third
from prunus.tasks.scenes import COLORS, KINDS, Scene, SceneObject
from prunus.tasks.videos import Actor, VideoScene
from prunus.tasks.words import COLUMNS, NUMBERS, ROWS

T = TypeVar("T")

#: Types that are scored by exact match, and their chance level when the answers are known.
TYPES: dict[str, float] = {
    "existence": 1 / 2,
    "counting": 1 / 8,
    "color": 1 / 6,
    "shape": 1 / 7,
    "relation": 1 / 2,
    "position": 1 / 9,
    "reading": 1 / 10,
}
CAPTION = "caption"

#: Pixels between an object's centre and a border of thirds, below which "where" is not asked.
_CLEAR = 8
#: Pixels between two centres along an axis, below which "left of" and "above" are not asked.
_APART = 20


@dataclass(frozen=True)
class Question:
    """A question, its answer, and the indices of the objects that it is about."""

    type: str
    text: str
    answer: str
    objects: tuple[int, ...]


def plural(kind: str) -> str:
    """``crosses`` for ``cross``, ``stars`` for ``star``."""
    return f"{kind}es" if kind.endswith("s") else f"{kind}s"


def references(scene: Scene | VideoScene, index: int) -> list[str]:
    """Noun phrases that fit the object and no other, e.g. ``red star``, ``digit 7``."""
    objects: Sequence[SceneObject | Actor] = scene.objects
    item = objects[index]
    others = [o for at, o in enumerate(objects) if at != index]
    found = []
    if all(o.kind != item.kind for o in others):
        found.append(item.kind)
    if all(o.color != item.color for o in others):
        found.append(f"{item.color} object")
    if all((o.kind, o.color) != (item.kind, item.color) for o in others):
        found.append(f"{item.color} {item.kind}")
    if item.digit is not None and all(o.digit != item.digit for o in others):
        found.append(f"digit {item.digit}")
    return found


def pick(rng: np.random.Generator, choices: Sequence[T]) -> T:
    """One of ``choices``, each as likely as the others."""
    return choices[int(rng.integers(len(choices)))]


def _phrases(item: SceneObject | Actor) -> list[str]:
    """All noun phrases that fit an object, unique or not."""
    found = [item.kind, f"{item.color} {item.kind}", f"{item.color} {item.kind}"]
    if item.digit is not None:
        found.append(f"digit {item.digit}")
    return [*found, f"{item.color} object"]


def matching(scene: Scene | VideoScene, phrase: str) -> tuple[int, ...]:
    """Indices of the objects that a phrase of this module fits (singular nouns)."""
    words = phrase.split()
    objects: Sequence[SceneObject | Actor] = scene.objects
    found = []
    for index, item in enumerate(objects):
        facts = {item.kind, item.color, "object"}
        if item.digit is not None:
            facts.add(str(item.digit))
        if facts.issuperset(words):
            found.append(index)
    return tuple(found)


def existence(scene: Scene | VideoScene, rng: np.random.Generator) -> Question | None:
    """Whether something is there, half of the time made of what is there."""
    objects: Sequence[SceneObject | Actor] = scene.objects
    want = rng.random() < 0.5
    for _ in range(30):
        if want:
            phrase = pick(rng, _phrases(pick(rng, objects)))
        else:
            phrase = _absent(scene, rng)
        fits = matching(scene, str(phrase))
        if bool(fits) == want:
            return Question("existence", f"is there a {phrase}?", "yes" if want else "no", fits)
    return None


def _absent(scene: Scene | VideoScene, rng: np.random.Generator) -> str:
    """A phrase that probably fits nothing; half of the time made of what the scene does hold."""
    objects: Sequence[SceneObject | Actor] = scene.objects
    hard = rng.random() < 0.5
    kinds = [o.kind for o in objects] if hard else KINDS
    colors = [o.color for o in objects] if hard else tuple(COLORS)
    kind, color = str(pick(rng, kinds)), str(pick(rng, colors))
    form = rng.random()
    if form < 0.55 or hard:
        return f"{color} {kind}"
    if form < 0.75:
        return kind
    return f"{color} object" if form < 0.88 else f"digit {rng.integers(10)}"


def _counting(scene: Scene, rng: np.random.Generator) -> Question | None:
    candidates: dict[int, list[tuple[str, str]]] = {}
    for kind in KINDS:
        candidates.setdefault(len(matching(scene, kind)), []).append((plural(kind), kind))
    for color in COLORS:
        phrase = f"{color} object"
        candidates.setdefault(len(matching(scene, phrase)), []).append((f"{color} objects", phrase))
    candidates.setdefault(len(scene.objects), []).append(("objects", "object"))
    # counts that few scenes offer are taken more often where they are offered
    weights = np.array([(0.35, 0.45, 1.0, 2.5, 4.0, 3.0, 2.0, 2.0)[min(n, 7)] for n in candidates])
    count = list(candidates)[int(rng.choice(len(candidates), p=weights / weights.sum()))]
    noun, phrase = candidates[count][int(rng.integers(len(candidates[count])))]
    text = f"how many {noun} are there?"
    return Question("counting", text, NUMBERS[count], matching(scene, phrase))


def _color(scene: Scene, rng: np.random.Generator) -> Question | None:
    found = [
        (index, phrase)
        for index in range(len(scene.objects))
        for phrase in references(scene, index)
        if phrase == scene.objects[index].kind or phrase.startswith("digit ")
    ]
    if not found:
        return None
    index, phrase = found[int(rng.integers(len(found)))]
    return Question("color", f"what color is the {phrase}?", scene.objects[index].color, (index,))


def _shape(scene: Scene, rng: np.random.Generator) -> Question | None:
    found = [
        index
        for index, item in enumerate(scene.objects)
        if f"{item.color} object" in references(scene, index)
    ]
    if not found:
        return None
    weights = np.array([0.3 if scene.objects[i].kind == "digit" else 1.0 for i in found])
    index = found[int(rng.choice(len(found), p=weights / weights.sum()))]
    item = scene.objects[index]
    return Question("shape", f"what shape is the {item.color} object?", item.kind, (index,))


def _relation(scene: Scene, rng: np.random.Generator) -> Question | None:
    named = {i: phrases for i in range(len(scene.objects)) if (phrases := references(scene, i))}
    pairs = []
    for i in named:
        for j in named:
            (x1, y1), (x2, y2) = scene.objects[i].center, scene.objects[j].center
            pairs += [(i, j, "left" if x1 < x2 else "right")] * (i != j and abs(x1 - x2) >= _APART)
            pairs += [(i, j, "above" if y1 < y2 else "below")] * (i != j and abs(y1 - y2) >= _APART)
    if not pairs:
        return None
    i, j, true = pairs[int(rng.integers(len(pairs)))]
    first, second = pick(rng, named[i]), pick(rng, named[j])
    across = true in ("left", "right")
    if rng.random() < 0.5:
        choice = "left or right of" if across else "above or below"
        return Question("relation", f"is the {first} {choice} the {second}?", true, (i, j))
    asked = str(pick(rng, ("left", "right") if across else ("above", "below")))
    text = f"is the {first} {asked}{' of' if across else ''} the {second}?"
    return Question("relation", text, "yes" if asked == true else "no", (i, j))


def _position(scene: Scene, rng: np.random.Generator) -> Question | None:
    found = []
    for index, item in enumerate(scene.objects):
        clear = all(abs(v - border) >= _CLEAR for v in item.center for border in (64, 128))
        if clear and (phrases := references(scene, index)):
            found.append((index, phrases))
    if not found:
        return None
    index, phrases = found[int(rng.integers(len(found)))]
    x, y = scene.objects[index].center
    answer = f"{ROWS[third(y)]} {COLUMNS[third(x)]}"
    return Question("position", f"where is the {pick(rng, phrases)}?", answer, (index,))


def _reading(scene: Scene, rng: np.random.Generator) -> Question | None:
    digits = [index for index, item in enumerate(scene.objects) if item.kind == "digit"]
    found = [(i, f"{scene.objects[i].color} digit") for i in digits]
    found = [pair for pair in found if len(matching(scene, pair[1])) == 1]
    if len(digits) == 1:
        found.append((digits[0], "digit"))
    if not found:
        return None
    index, phrase = found[int(rng.integers(len(found)))]
    answer = str(scene.objects[index].digit)
    return Question("reading", f"which number is the {phrase}?", answer, (index,))


def caption(scene: Scene) -> Question:
    """The request to describe the scene: its objects from top to bottom (by centre)."""
    order = sorted(range(len(scene.objects)), key=lambda i: (scene.objects[i].center[1], i))
    parts = []
    for item in (scene.objects[i] for i in order):
        value = "" if item.digit is None else f" {item.digit}"
        parts.append(f"{item.color} {item.kind}{value}")
    return Question(CAPTION, "describe the image.", ", ".join(parts), tuple(order))


_ASK: dict[str, Callable[[Scene, np.random.Generator], Question | None]] = {
    "existence": existence,
    "counting": _counting,
    "color": _color,
    "shape": _shape,
    "relation": _relation,
    "position": _position,
    "reading": _reading,
}


#: What takes several objects at once is learned last: training asks it twice as often.
_HARD = ("counting", "relation")


def ask(scene: Scene, kind: str, rng: np.random.Generator) -> Question | None:
    """One question of a type, or None where the scene allows no unambiguous one."""
    if kind not in _ASK:
        raise PrunusError(f"unknown question type {kind!r}; there are {', '.join(_ASK)}")
    return _ASK[kind](scene, rng)


def ask_many(scene: Scene, count: int, seed: int, captions: float = 0.0) -> list[Question]:
    """``count`` questions, the types taken in turns; a caption with probability ``captions``."""
    rng = np.random.default_rng([seed, 3])
    found: list[Question] = [caption(scene)] if rng.random() < captions else []
    kinds = [str(name) for name in rng.permutation([*_ASK, *_HARD])]
    return collect(kinds, lambda kind: ask(scene, kind, rng), count, found)


def collect(
    kinds: Sequence[str],
    draw: Callable[[str], Question | None],
    count: int,
    found: Sequence[Question] = (),
) -> list[Question]:
    """``found`` and further questions up to ``count``, ``kinds`` taken in turns, none twice."""
    gathered = list(found)
    names = _forever(kinds)
    misses = 0
    while len(gathered) < count and misses < 50:
        question = draw(next(names))
        if question is None or question in gathered:
            misses += 1
        else:
            gathered.append(question)
    return gathered


def _forever(names: Sequence[str]) -> Iterator[str]:
    while True:
        yield from names
