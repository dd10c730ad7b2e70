"""From what the page is set to, to what it shows: the one road for all that happens on it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from prunus.errors import PrunusError
from prunus.inference.answer import Answer
from prunus.web.chart import chart
from prunus.web.code import command, python
from prunus.web.desk import Desk
from prunus.web.draw import Drawn, draw
from prunus.web.setting import Setting
from prunus.web.source import Prompt, Source
from prunus.web.told import Times, notes, numbers, refusal, said

#: What the two sides are called.
NAMES = ("A", "B")


@dataclass(frozen=True)
class Controls:
    """One side as it is set: a method, percent of tokens, parameters, an exact average."""

    method: str
    percent: float = 0
    params: str = ""
    exact: bool = False


@dataclass(frozen=True)
class Side:
    """What one side shows: pictures, HTML above and below them, and the setting as Python and as a
    command (empty where it was refused)."""

    drawn: Sequence[Drawn]
    said: str
    below: str = ""
    python: str = ""
    command: str = ""


@dataclass(frozen=True)
class Shown:
    """Both sides, and the numbers of both as HTML; or why there is nothing to show, as HTML."""

    sides: tuple[Side, ...]
    numbers: str = ""
    refused: str = ""


@dataclass(frozen=True)
class Asked:
    """A question as the page has it, with the length of the answer and the view of pictures."""

    source: Source
    question: str
    tokens: int
    view: str


def show(
    desk: Desk,
    asked: Asked,
    controls: Sequence[Controls],
    step: Callable[[], None] | None = None,
) -> Shown:
    """Answers of all sides and of the unmodified model. With ``step``, which is called behind each
    round, times are measured as well. What is refused is said where it belongs."""
    try:
        prompt = desk.prompt(asked.source, asked.question)
        dense = desk.ask(prompt, None, asked.tokens)
    except PrunusError as error:
        return Shown(tuple(Side((), "") for _ in controls), refused=refusal(error))
    sides: list[Side] = []
    columns: list[tuple[str, Answer, Times] | None] = []
    for one in controls:
        try:
            setting = desk.setting(one.method, one.percent, one.params, one.exact)
            answer = desk.ask(prompt, setting, asked.tokens)
            if step is not None:
                desk.measure(prompt, setting, asked.tokens, step)
        except PrunusError as error:
            plain = draw(desk.processor, prompt, dense, "as seen")
            sides.append(Side(plain, refusal(error)))
            columns.append(None)
            continue
        sides.append(_side(desk, asked, prompt, setting, answer, dense))
        columns.append((setting.title, answer, desk.times(prompt, setting, asked.tokens)))
    return Shown(tuple(sides), numbers(dense, columns, NAMES))


def _side(
    desk: Desk, asked: Asked, prompt: Prompt, setting: Setting, answer: Answer, dense: Answer
) -> Side:
    given = (desk.name, desk.options, prompt, setting, asked.tokens)
    return Side(
        draw(desk.processor, prompt, answer, asked.view),
        said(setting.title, answer, dense),
        chart(answer) + notes(answer),
        python(*given),
        command(*given),
    )
