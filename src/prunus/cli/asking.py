"""A question of the command line, about whatever pictures: asked, told and drawn."""

from __future__ import annotations

import dataclasses
import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prunus.cli import filmed

if TYPE_CHECKING:
    from PIL import Image

    from prunus.inference.answer import Answer
    from prunus.inference.videos import Excerpt
    from prunus.method import Method
    from prunus.method.budget import Meaning
    from prunus.viz import Panel
    from prunus.viz.film import Film


@dataclass(frozen=True)
class Question:
    """A ``prompt`` to the model that was named ``model``, with the methods that ``name`` names
    (None: unmodified)."""

    model: str
    network: Any
    processor: Any
    prompt: str
    name: str
    methods: Sequence[Method] | None
    meaning: Meaning
    max_new_tokens: int

    def ask(
        self,
        pictures: Sequence[Image.Image],
        videos: Sequence[Excerpt] = (),
        step: Callable[[], None] | None = None,
    ) -> Asked:
        """The answer about ``pictures`` and ``videos``; ``step`` is called per token.

        Raises:
            PrunusError: as of :func:`prunus.inference.answer.answer`.
        """
        from prunus.families import family_of
        from prunus.inference.answer import answer
        from prunus.inference.inputs import placed, process
        from prunus.inference.prompts import arrange, build_prompt
        from prunus.viz.clips import films as films_of

        network, processor = self.network, self.processor
        text = build_prompt(processor, self.prompt, len(pictures), len(videos))
        encoded = process(processor, text, pictures, videos, family_of(network))
        inputs = placed(encoded, network.device, network.dtype)
        said = answer(
            network, processor, inputs, self.methods, self.max_new_tokens, step, self.meaning
        )
        order = arrange(self.prompt, len(pictures), len(videos))
        films = films_of(videos, order, said, processor, encoded)
        return Asked(self, said, inputs, tuple(pictures), tuple(videos), order, films)

    @property
    def spelled(self) -> str:
        """The methods as they are spelled."""
        from prunus.inference.named import as_spelled

        return as_spelled(self.name)


@dataclass(frozen=True)
class Asked:
    """An answer, with what was looked at; ``order`` is that of images and videos in the prompt."""

    question: Question
    said: Answer
    inputs: Any
    pictures: Sequence[Image.Image]
    videos: Sequence[Excerpt]
    order: Sequence[str]
    films: Sequence[Sequence[Film]]

    def facts(self, images: Sequence[str]) -> dict[str, Any]:
        """What ``--json`` says of it; ``images`` are the names of the pictures."""
        from prunus.results.events import events_of

        report, question = self.said.report, self.question
        params = {one.name: _params(one) for one in question.methods or ()}
        return {
            "answer": self.said.text,
            "model": question.model,
            "method": question.spelled,
            "params": next(iter(params.values()), {}) if len(params) < 2 else params,
            "prompt": question.prompt,
            "images": list(images),
            "new_tokens": self.said.new_tokens,
            "pruned": report["pruned"],
            "tokens": {k: _whole(v) for k, v in report["tokens"].items() if k != "per_layer"},
            "per_layer": [_whole(count) for count in report["tokens"]["per_layer"]],
            "stages": report["stages"],
            "events": [event.facts() for event in events_of(self.said.trace)],
            "idle": report["idle"],
            "flops": report["flops"],
            "kv_bytes": report["kv_bytes"],
            "visual_attention": report["visual_attention"],
            "published": report["published"],
            "notes": report["notes"],
        }

    def draw(self, path: Path) -> None:
        """Stages of the images in rows of panels, and contact sheets of videos below; above, what
        was asked of whom, and what it said.

        Raises:
            PrunusError: it cannot be drawn, or not be written.
        """
        from prunus.viz import Key, Strip, draw_panels, fold, trace_panels
        from prunus.viz.as_seen import pictures_as_seen
        from prunus.viz.clips import owners, sheet

        said, question = self.said, self.question
        pairs = zip(self.videos, self.films, strict=True)
        sheets = [row for pair in pairs for row in sheet(*pair)]
        counts = [len(video.frames) for video in self.videos]
        kinds = [self.order[place] for place in owners(self.order, counts, said.grids)]
        grids = [grid for kind, grid in zip(kinds, said.grids, strict=True) if kind == "image"]
        shown = [[one] for one in self.pictures]
        seen = iter(pictures_as_seen(question.processor, self.inputs, shown, grids))
        pictures = [next(seen) if kind == "image" else [] for kind in kinds]
        rows = trace_panels(pictures, said.trace)
        size, most, tallest = layout([row[0] for row in rows])
        panels = [piece for row in rows for piece in fold(row, most)]
        strip = Strip.of(said.trace, said.report["tokens"]["per_layer"])
        draw_panels(
            [*panels, *sheets],
            path,
            title=self.title(),
            size=size,
            strip=strip,
            key=Key.of(said.trace) if rows and said.trace else None,
            tallest=tallest,
        )

    def title(self) -> str:
        """Three lines: the question; model, method and budget; the answer."""
        tokens = self.said.report["tokens"]
        what = f"{self.question.model}, unmodified: {tokens['original']:g} visual tokens"
        if self.question.methods is not None:
            meaning = "" if self.question.meaning == "nominal" else ", a true budget"
            what = (
                f"{self.question.model}, {self.question.spelled}: {tokens['original']:g} -> "
                f"{tokens['kept']:g} visual tokens ({tokens['average']:.1f} per layer on "
                f"average{meaning})"
            )
        prompt = " ".join(self.question.prompt.split())
        said = " ".join(self.said.text.split()) or "(nothing)"
        return f"{_brief(prompt)}\n{what}\nanswer: {_brief(said)}"


def layout(panels: Sequence[Panel]) -> tuple[float, int, float]:
    """Width of a panel in inches, how many stand beside each other, and the most of its height by
    its width, so that wide pictures and high ones can be seen as well as square ones."""
    if not panels:
        return filmed.SIDE, 7, 1.0
    aspects = [panel.picture.shape[0] / panel.picture.shape[1] for panel in panels]
    size = _SIZE if max(aspects) > 0.6 else min(_WIDEST, _SIZE / math.sqrt(max(aspects)))
    most = max((count for count in (7, 5, 3) if count * size <= _WIDTH), default=1)
    return size, most, min(3.0, max(1.0, *aspects))


#: Inches: width of a square panel, of the widest, and of all panels of a row.
_SIZE, _WIDEST, _WIDTH = 2.6, 8.0, 19.0
_MOST = 240


def _brief(text: str) -> str:
    return text if len(text) <= _MOST else f"{text[:_MOST]}..."


@contextmanager
def quietly(as_json: bool) -> Iterator[None]:
    """A block in which nobody is warned that a method found nothing to do, which a line of the
    report says; ``as_json`` has no such line."""
    with warnings.catch_warnings():
        if not as_json:
            warnings.filterwarnings("ignore", "prunus: .* found nothing to do")
        yield


def _whole(count: float | None) -> float | int | None:
    """A count as an integer where it is one: the report holds means over samples."""
    return int(count) if count is not None and count == int(count) else count


def _params(method: Method) -> dict[str, Any]:
    fields = dataclasses.asdict(method)  # type: ignore[call-overload]
    return {key: _plain(value) for key, value in fields.items()}


def _plain(value: Any) -> Any:
    """``value`` if JSON knows it, its text otherwise."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    return str(value)
