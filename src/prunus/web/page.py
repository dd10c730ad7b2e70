"""The page in Gradio: its parts, and which of them ask the model. What is asked and shown is
``show.py``'s."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import gradio

from prunus.bench.quick import ROUNDS, WARM_UP
from prunus.errors import PrunusError, one_line
from prunus.families import family_of
from prunus.method import methods as methods_known
from prunus.web.desk import Desk
from prunus.web.draw import VIEWS
from prunus.web.samples import Sample, known_of, samples
from prunus.web.show import NAMES, Asked, Controls, Side, show
from prunus.web.source import Source

#: Percent of tokens that are kept at first: a ninth, as 64 of 576.
_PERCENT = 11
#: Handlers that use the model wait for each other; those of one tab skip what is overtaken.
_QUEUED: dict[str, Any] = {"concurrency_limit": 1, "concurrency_id": "model"}
_HIDDEN: dict[str, Any] = {"api_visibility": "private"}


@dataclass(frozen=True)
class _Parts:
    """The components of one side."""

    method: Any
    percent: Any
    params: Any
    exact: Any
    hint: Any
    said: Any
    picture: Any
    strip: Any
    below: Any
    python: Any
    command: Any

    @property
    def controls(self) -> list[Any]:
        return [self.method, self.percent, self.params, self.exact]

    @property
    def shown(self) -> list[Any]:
        return [self.said, self.picture, self.strip, self.below, self.python, self.command]


class Page:
    """The page of a desk, on which ``start`` are the two methods at first; answers have ``tokens``
    tokens at most."""

    def __init__(self, desk: Desk, start: Sequence[str], tokens: int) -> None:
        self._desk, self._start, self._tokens = desk, start, tokens
        self._samples = samples(desk.takes_videos)

    def build(self) -> Any:
        """The page, which is to be launched."""
        first = self._samples[0]
        with gradio.Blocks(title="prunus", analytics_enabled=False) as page:
            gradio.HTML(self._head(), elem_id="head", padding=False)
            self._source = gradio.State(first.source)
            self._given(first)
            with gradio.Row():
                self._sides = [self._side(*one) for one in zip(NAMES, self._start, strict=True)]
            self._numbers = gradio.HTML(elem_id="numbers", padding=False)
            with gradio.Accordion("Copy these settings", open=False, elem_id="copy"):
                with gradio.Row():
                    for side in self._sides:
                        with gradio.Column(min_width=320):
                            side.command.render()
                            side.python.render()
            self._wire(page)
        return page

    def _head(self) -> str:
        family = family_of(self._desk.model)
        about = f"{self._desk.name}: {family.summary}, {len(family.layers)} layers"
        return f"<b>prunus</b> <span>{escape(about)}</span>"

    def _given(self, first: Sample) -> None:
        """What is asked, and of what."""
        kinds = ["image", "video"] if self._desk.takes_videos else ["image"]
        with gradio.Row():
            self._gallery = gradio.Gallery(
                [(one.thumbnail, one.caption) for one in self._samples],
                label="Samples",
                elem_id="samples",
                columns=len(self._samples),
                allow_preview=False,
                interactive=False,
                show_label=False,
                object_fit="cover",
                buttons=[],
                format="png",
                scale=3,
                min_width=300,
            )
            self._files = gradio.UploadButton(
                f"Upload {' or '.join(kinds)}",
                file_count="multiple",
                file_types=kinds,
                type="filepath",
                elem_id="files",
                size="sm",
                scale=0,
                min_width=150,
            )
        with gradio.Row(elem_id="asking"):
            self._question = gradio.Dropdown(
                [text for text, _ in first.questions],
                value=first.questions[0][0],
                label="Question",
                show_label=False,
                container=False,
                allow_custom_value=True,
                elem_id="question",
                scale=4,
                min_width=260,
            )
            self._view = gradio.Radio(
                list(VIEWS),
                value=VIEWS[0],
                show_label=False,
                container=False,
                elem_id="view",
                scale=0,
                min_width=400,
            )
            self._live = gradio.Checkbox(
                True, label="live", container=False, elem_id="live", scale=0, min_width=50
            )
            self._ask = gradio.Button(
                "Ask", variant="primary", size="sm", scale=0, min_width=70, elem_id="ask"
            )
            self._time = gradio.Button("Time it", size="sm", scale=0, min_width=80, elem_id="time")
        self._notice = gradio.HTML(visible=False, elem_id="notice", padding=False)

    def _side(self, name: str, method: str) -> _Parts:
        """The controls and pictures of one side; its code is placed later."""
        takes, hint = self._desk.about(method)
        with gradio.Column(min_width=320, elem_id=f"side-{name}"):
            with gradio.Row():
                chosen = gradio.Dropdown(
                    self._desk.offered("image"),
                    value=method,
                    label=f"{name}: method",
                    allow_custom_value=True,
                    elem_id=f"method-{name}",
                    min_width=140,
                )
                percent = gradio.Slider(
                    0,
                    100,
                    _PERCENT,
                    step=0.5,
                    label="Keep, %",
                    interactive=takes,
                    elem_id=f"keep-{name}",
                    min_width=140,
                    buttons=[],
                )
            with gradio.Accordion(
                "Parameters", open=False, elem_classes="more", elem_id=f"more-{name}"
            ):
                params = gradio.Textbox(
                    label="name=value name=value ...",
                    placeholder="keep=64",
                    max_lines=2,
                    elem_id=f"params-{name}",
                )
                exact = gradio.Checkbox(
                    label="exact: what is kept is the average over all layers (budget true)"
                )
                told = gradio.HTML(_hint(method, hint), elem_classes="hint", padding=False)
            said = gradio.HTML(elem_id=f"said-{name}", padding=False)
            return _Parts(
                chosen,
                percent,
                params,
                exact,
                told,
                said,
                gradio.Image(
                    show_label=False,
                    format="png",
                    interactive=False,
                    buttons=["fullscreen", "download"],
                    elem_classes="shot",
                    elem_id=f"shot-{name}",
                    container=False,
                ),
                gradio.Gallery(
                    show_label=False,
                    format="png",
                    columns=4,
                    object_fit="contain",
                    height="auto",
                    visible=False,
                    interactive=False,
                    buttons=["fullscreen"],
                    elem_classes="strip",
                    elem_id=f"strip-{name}",
                ),
                gradio.HTML(elem_id=f"below-{name}", padding=False),
                _code("python", f"{name} in Python", f"python-{name}"),
                _code("shell", f"{name} on the command line", f"command-{name}"),
            )

    def _wire(self, page: Any) -> None:
        """Which parts ask the model, and where it shows."""
        controls = [one for side in self._sides for one in side.controls]
        asked = [self._source, self._question, self._view, *controls]
        shown = [one for side in self._sides for one in side.shown]
        told = {
            "outputs": [*shown, self._numbers, self._notice],
            "show_progress": "minimal",
            "show_progress_on": [side.said for side in self._sides],
            **_QUEUED,
            **_HIDDEN,
        }
        for side in self._sides:
            # A number beyond the slider's ends is refused where it is asked, as on the command
            # line. Gradio's own error would lose what was changed meanwhile.
            side.percent.preprocess = _as_it_is
        moved = [side.percent.input for side in self._sides]
        moved += [one.change for side in self._sides for one in (side.method, side.exact)]
        moved += [side.params.submit for side in self._sides]
        moved += [side.params.blur for side in self._sides]
        moved += [self._view.input, self._question.input]
        gradio.on(moved, self._moved, [self._live, *asked], trigger_mode="always_last", **told)
        gradio.on([page.load, self._ask.click], self._show, asked, **told)
        self._time.click(self._timed, asked, **{**told, "show_progress": "full"})
        for side in self._sides:
            side.method.change(
                self._chosen, side.method, [side.percent, side.hint], queue=False, **_HIDDEN
            )
        given = [self._source, self._question, *(side.method for side in self._sides)]
        methods = [side.method for side in self._sides]
        self._gallery.select(
            self._sampled, methods, [*given, self._notice], **_QUEUED, **_HIDDEN
        ).then(self._show, asked, **told)
        self._files.upload(
            self._uploaded, [self._files, *given], [*given, self._notice], **_QUEUED, **_HIDDEN
        ).success(self._show, asked, **told)

    def _show(self, *values: Any) -> list[Any]:
        """All that is shown of the controls' values."""
        return self._filled(values)

    def _moved(self, live: bool, *values: Any) -> list[Any]:
        """The same while a control moves, unless nobody wants that."""
        count = len(NAMES) * len(self._sides[0].shown) + 2
        return self._filled(values) if live else [gradio.skip()] * count

    def _timed(self, progress: Any = gradio.Progress(), *values: Any) -> list[Any]:  # noqa: B008
        """The same, with times."""
        rounds = 2 * len(NAMES) * (ROUNDS + WARM_UP)
        done = iter(range(1, rounds + 1))
        progress((0, rounds), desc="timing, in turn with the unmodified model")

        def step() -> None:
            progress((next(done), rounds), desc="timing, in turn with the unmodified model")

        return self._filled(values, step)

    def _filled(self, values: Sequence[Any], step: Any = None) -> list[Any]:
        source, question, view, *rest = values
        many = len(rest) // len(NAMES)
        controls = [
            Controls(method or "", float(percent or 0), params or "", bool(exact))
            for method, percent, params, exact in (
                rest[at : at + many] for at in range(0, len(rest), many)
            )
        ]
        asked = Asked(source, question or "", self._tokens, view)
        found = show(self._desk, asked, controls, step)
        filled = [update for side in found.sides for update in _updates(side)]
        told = known_of(self._desk.name, source, question)
        known = told and f'<div class="note">{escape(told)}</div>'
        notice = gradio.update(value=found.refused, visible=bool(found.refused))
        return [*filled, found.numbers and found.numbers + known, notice]

    def _sampled(self, picked: gradio.SelectData, *methods: Any) -> list[Any]:
        """A sample was chosen: its questions, and the methods that go with it."""
        sample = self._samples[picked.index]
        return [*self._offer(sample, methods), gradio.update(visible=False)]

    def _offer(self, sample: Sample, methods: Sequence[Any]) -> list[Any]:
        asked = [text for text, _ in sample.questions]
        question = gradio.update(choices=asked, value=asked[0])
        return [sample.source, question, *self._choices(sample.source, methods)]

    def _uploaded(
        self, files: list[str] | None, source: Source, question: str, *methods: Any
    ) -> list[Any]:
        """Files came: they are asked about from now on, or why they cannot be."""
        try:
            source = Source.of(files or [])
        except PrunusError as error:  # what was asked about before stays
            said = one_line(error)
            raise gradio.Error(said, duration=None, title="", print_exception=False) from error
        asked = gradio.update(choices=[], value=question)
        return [source, asked, *self._choices(source, methods), gradio.update(visible=False)]

    def _choices(self, source: Source, methods: Sequence[Any]) -> list[Any]:
        """The methods that go with a source; one that was chosen and does not is not kept."""
        names = self._desk.offered(source.kind)
        return [
            gradio.update(choices=names, value=one if _stays(one or "", names) else names[0])
            for one in methods
        ]

    def _chosen(self, method: str) -> list[Any]:
        """Another method: whether it takes a share, and its parameters."""
        try:
            takes, hint = self._desk.about(method or "")
            return [gradio.update(interactive=takes), _hint(method, hint)]
        except PrunusError:  # said where it is asked
            return [gradio.skip(), ""]


def _as_it_is(value: Any) -> Any:
    return value


def _hint(method: str, told: str) -> str:
    return escape(f"{method}: {told}. Keep 0 %: as the method says itself.")


def _stays(method: str, names: Sequence[str]) -> bool:
    """Whether a method that was chosen, or typed, may stay where ``names`` are offered."""
    return method in names or method.partition("@")[0] not in methods_known()


def _code(language: str, label: str, name: str) -> Any:
    """A box of code to copy, which is placed later; ``name`` is its id."""
    return gradio.Code(
        language=language,
        label=label,
        interactive=False,
        render=False,
        wrap_lines=True,
        show_line_numbers=False,
        lines=1,
        elem_id=name,
    )


def _updates(side: Side) -> list[Any]:
    """One picture is shown large, several as a strip."""
    alone = len(side.drawn) == 1
    picture = side.drawn[0].picture if alone else None
    strip = [] if alone else [(one.picture, one.caption) for one in side.drawn]
    caption = side.drawn[0].caption if alone else ""
    below = f'<div class="note">{escape(caption)}</div>{side.below}'
    return [
        side.said,
        gradio.update(value=picture, visible=alone),
        gradio.update(value=strip, visible=len(side.drawn) > 1),
        below,
        side.python,
        side.command,
    ]
