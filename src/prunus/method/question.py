"""Where the user's question stands in a prompt: what a selector reads of the text."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from prunus.errors import PrunusError
from prunus.method.fields import fit

#: What the chat template is tried with. First and last words differ, so that what prompts have in
#: common is the template's; a tokenizer needs to know only some of them.
_QUESTIONS = ("what is this ?", "is a b in", "where are the red stars", "5 and 7", "does it move")
_ANSWERS = ("yes", "a b")
#: What the marks found so are checked on.
_OTHERS = ("which number is the blue digit ?", "how many objects are there", "this is a")


@dataclass(frozen=True)
class QuestionMarks:
    """Token ids around the user's turn in the prompts of one chat template.

    Attributes:
        opening: what stands in front of the turn, in the first turn as in later ones.
        closing: what follows the question up to where the answer begins.
        skip: placeholders of images and videos, and the tokens that start and end them.
    """

    opening: tuple[int, ...]
    closing: tuple[int, ...]
    skip: tuple[int, ...]

    def __post_init__(self) -> None:
        for name in ("opening", "closing", "skip"):  # lists, where they come from JSON
            ids = fit(name, getattr(self, name), tuple[int, ...])
            if any(one < 0 for one in ids):
                raise PrunusError(f"{name} holds {min(ids)}: no token has such an id")
            object.__setattr__(self, name, ids)


def marks_of(processor: Any) -> QuestionMarks | None:
    """The marks of a processor's chat template, found by rendering prompts that differ in the
    question alone; None where there is no template.

    Raises:
        PrunusError: prompts of the template do not begin and end the user's turn with tokens of
            their own, so that no question can be found in them.
    """
    if not getattr(processor, "chat_template", None):
        return None
    firsts = [_render(processor, [question]) for question in _QUESTIONS]
    laters = [
        _render(processor, [_QUESTIONS[0], answer, question])
        for answer in _ANSWERS
        for question in _QUESTIONS
    ]
    closing = _common_end([*firsts, *laters])
    first = _common_start(firsts)
    per_answer = [laters[: len(_QUESTIONS)], laters[len(_QUESTIONS) :]]
    opening = _common_end([first, *(_common_start(prompts) for prompts in per_answer)])
    ended = _common_end([_render(processor, [one], generate=False) for one in _QUESTIONS])
    if ended and opening[: len(ended)] == ended:  # the end of the turn before
        opening = opening[len(ended) :]
    marks = QuestionMarks(tuple(opening), tuple(closing), tuple(_placeholders(processor)))
    _check(processor, marks)
    return marks


_PROCESSORS: weakref.WeakKeyDictionary[Any, Any] = weakref.WeakKeyDictionary()


def belongs(processor: Any, model: Any) -> None:
    """Remember that ``processor`` makes the prompts of ``model``, as long as that lives."""
    _PROCESSORS[model] = processor


_MARKS: weakref.WeakKeyDictionary[Any, tuple[Any, QuestionMarks | None]]
_MARKS = weakref.WeakKeyDictionary()


def marks_known(processor: Any) -> QuestionMarks | None:
    """:func:`marks_of`, found once for as long as the processor and its template stay."""
    template = getattr(processor, "chat_template", None)
    if processor not in _MARKS or _MARKS[processor][0] != template:
        _MARKS[processor] = template, marks_of(processor)
    return _MARKS[processor][1]


def processor_of(model: Any) -> Any:
    """What was remembered of ``model``, or None."""
    return _PROCESSORS.get(model)


def visual_ids(processor: Any) -> list[int]:
    """Token ids that stand for images and videos in a processor's prompts."""
    tokenizer = getattr(processor, "tokenizer", processor)
    names = [getattr(processor, f"{kind}_token", None) for kind in ("image", "video")]
    return [int(tokenizer.convert_tokens_to_ids(name)) for name in names if name]


def question_mask(
    ids: Tensor, last: Tensor, valid: Tensor, marks: QuestionMarks | None, visual: Tensor
) -> Tensor:
    """The tokens of the last question of every prompt.

    Between the last ``opening`` and the ``closing`` everything but ``skip`` counts, in front of
    images as behind them. Nothing behind ``last`` is looked at, so that an answer never counts.
    Without marks it is all text behind the last visual token. Rows without visual tokens have no
    question: there is nothing to select in them.

    Args:
        ids: int64 ``[B, L]``.
        last: int64 ``[B]``, index of each prompt's last token; padding may stand in front of a
            prompt, and an answer behind it.
        valid: bool ``[B, L]``, False at padding.
        marks: from :func:`marks_of`.
        visual: bool ``[B, L]``, the tokens of images and videos.

    Returns:
        bool ``[B, L]`` on the device of ``ids``.

    Raises:
        PrunusError: a prompt is not in the form of the chat template that ``marks`` are from.
    """
    rows, ends = ids.tolist(), (last + 1).tolist()
    seen, there = visual.tolist(), valid.tolist()
    found = torch.zeros(ids.shape, dtype=torch.bool)
    for number, (row, end) in enumerate(zip(rows, ends, strict=True)):
        if not any(seen[number]):
            continue
        if marks is None:
            start = max(at for at, is_visual in enumerate(seen[number]) if is_visual) + 1
            found[number, start:end] = True
        else:
            start, stop = _span(row, there[number].index(True), end, marks, number)
            found[number, start:stop] = True
    found = found.to(ids.device) & valid & ~visual
    if marks is not None and marks.skip:
        found &= ~torch.isin(ids, torch.tensor(marks.skip, device=ids.device))
    return found


def _span(
    row: Sequence[int], begin: int, end: int, marks: QuestionMarks, number: int
) -> tuple[int, int]:
    """Start and end of the last user turn of a prompt that is ``row[begin:end]``."""
    opening, closing = list(marks.opening), list(marks.closing)
    stop = end - len(closing)
    if stop < begin or list(row[stop:end]) != closing:
        raise PrunusError(
            f"prompt {number} ends with the token ids {list(row[max(begin, stop) : end])}, and not "
            f"with {closing} as the processor's chat template ends it: make prompts with "
            "processor.apply_chat_template(..., add_generation_prompt=True)"
        )
    start = _last(row, opening, begin, stop)
    if start is None:
        raise PrunusError(
            f"prompt {number} has no user turn: the token ids {opening}, with which the "
            "processor's chat template opens one, are missing. Make prompts with "
            "processor.apply_chat_template(..., add_generation_prompt=True)"
        )
    return start + len(opening), stop


def _last(row: Sequence[int], part: list[int], begin: int, end: int) -> int | None:
    """Where ``part`` begins for the last time within ``row[begin:end]``."""
    for at in range(end - len(part), begin - 1, -1):
        if list(row[at : at + len(part)]) == part:
            return at
    return None


def _render(
    processor: Any, turns: Sequence[str], images: int = 0, generate: bool = True
) -> list[int]:
    """Token ids of a dialogue of ``turns`` (user first), ``images`` in the last user turn.
    Placeholders stand once: nothing is looked at."""
    messages = [
        {"role": "assistant" if at % 2 else "user", "content": [{"type": "text", "text": text}]}
        for at, text in enumerate(turns)
    ]
    messages[-1]["content"] = [*[{"type": "image"}] * images, *messages[-1]["content"]]
    text = processor.apply_chat_template(messages, add_generation_prompt=generate, tokenize=False)
    tokenizer = getattr(processor, "tokenizer", processor)
    return [int(one) for one in tokenizer(text)["input_ids"]]


def _placeholders(processor: Any) -> list[int]:
    """The visual ids and the special tokens that the template writes around an image."""
    tokenizer = getattr(processor, "tokenizer", processor)
    special = {*tokenizer.all_special_ids, *tokenizer.get_added_vocab().values()}
    plain = set(_render(processor, [_QUESTIONS[0]]))
    around = set(_render(processor, [_QUESTIONS[0]], images=1)) - plain
    return sorted({*visual_ids(processor), *(around & special)})


def _check(processor: Any, marks: QuestionMarks) -> None:
    """Find the last turn of dialogues that had no part in finding the marks."""
    opening, closing = list(marks.opening), list(marks.closing)
    for other in _OTHERS:
        for before in ((), (_OTHERS[0], "no")):
            own = _render(processor, [*before, other])
            alike = [_render(processor, [*before, question]) for question in _QUESTIONS]
            begins, ends = len(_common_start([own, *alike])), len(own) - len(closing)
            start = _last(own, opening, 0, ends) if opening else None
            if own[ends:] != closing or start is None or start + len(opening) != begins:
                raise PrunusError(
                    "the question cannot be found in prompts of this chat template: it should open "
                    f"every user turn with the token ids {opening} and close it with {closing}, "
                    f"but it makes {own} of a prompt that ends with {other!r}"
                )


def _common_start(rows: Sequence[Sequence[int]]) -> list[int]:
    """The longest prefix that all ``rows`` share."""
    shared = []
    for column in zip(*rows, strict=False):
        if len(set(column)) > 1:
            break
        shared.append(column[0])
    return shared


def _common_end(rows: Sequence[Sequence[int]]) -> list[int]:
    """The longest suffix that all ``rows`` share."""
    return _common_start([row[::-1] for row in rows])[::-1]
