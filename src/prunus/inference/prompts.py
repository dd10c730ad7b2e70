"""From a question and what it is about to the text of a prompt: the one road for all commands."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from prunus.errors import PrunusError, one_line, shown

#: What a person writes where an image or a video belongs.
PLACEHOLDERS = {"image": "<image>", "video": "<video>"}
_PLACES = re.compile("|".join(PLACEHOLDERS.values()))


def arrange(question: str, images: int, videos: int = 0) -> list[str]:
    """The order of "image" and "video" in the prompt: where ``question`` places them with
    ``<image>`` and ``<video>``, or else images and then videos in front of it.

    Raises:
        PrunusError: an empty question, or not one placeholder for each image and video.
    """
    if not question.strip():
        raise PrunusError("the prompt is empty: ask something")
    kinds = {place: kind for kind, place in PLACEHOLDERS.items()}
    order = [kinds[place] for place in _PLACES.findall(question)]
    for kind, given in (("image", images), ("video", videos)):
        places = order.count(kind)
        if order and places != given:
            raise PrunusError(
                f"the prompt has {places} {PLACEHOLDERS[kind]} placeholder{'s' * (places != 1)} "
                f"but {given} {kind}{'s' * (given != 1)} {'are' if given != 1 else 'is'} given: "
                f"write one {PLACEHOLDERS[kind]} per {kind}, or no placeholders at all"
            )
    return order or ["image"] * images + ["video"] * videos


def build_prompt(processor: Any, question: str, images: int, videos: int = 0) -> str:
    """The prompt of a question that may say where its images and videos go, see :func:`arrange`.

    Raises:
        PrunusError: as of :func:`arrange` and :func:`render`.
    """
    order = arrange(question, images, videos)
    return render(processor, question, order, placed=_PLACES.search(question) is not None)


def render(
    processor: Any,
    question: str,
    order: Sequence[str] = (),
    *,
    placed: bool = False,
    answer: str | None = None,
) -> str:
    """The processor's chat template around one question, or LLaVA-1.5's ``USER: ... ASSISTANT:``
    where it has none.

    Args:
        processor: of the model.
        question: the text.
        order: "image" or "video" for each visual input that is shown, in the order of the prompt.
        placed: ``question`` itself says with ``<image>`` and ``<video>`` where they go; otherwise
            they stand in front of it, and the text may hold no placeholder.
        answer: text that the template is to continue the prompt with; None: it ends where the
            model begins to answer.

    Raises:
        PrunusError: a text that holds a placeholder, videos for a model that takes none, or a
            template that cannot render the question or places another number of visual inputs.
    """
    if not placed:
        check_text(processor, question)
    if answer is not None:
        check_text(processor, answer)
    tokens = {kind: token_of(processor, kind) for kind in PLACEHOLDERS}
    if "video" in order and tokens["video"] is None:
        raise PrunusError(
            "this model takes images only, and a video is given: choose a model for videos, e.g. "
            "tiny-qwen, or give images"
        )
    if getattr(processor, "chat_template", None):
        as_text = tokens["image"] == PLACEHOLDERS["image"]
        content = _content(question, order, as_text) if placed else _in_front(question, order)
        messages: list[dict[str, Any]] = [{"role": "user", "content": content}]
        if answer is not None:
            said = {"type": "text", "text": answer}
            messages.append({"role": "assistant", "content": [said]})
        with rendering():
            prompt = str(
                processor.apply_chat_template(
                    messages, add_generation_prompt=answer is None, tokenize=False
                )
            )
    else:
        lines = [] if placed else [tokens[kind] for kind in order]
        body = "\n".join([*lines, question])
        prompt = f"USER: {body} ASSISTANT:" + ("" if answer is None else f" {answer}")
    for kind, token in tokens.items():
        found = prompt.count(token) if token else 0
        if found != order.count(kind):
            raise PrunusError(
                f"the chat template placed {found} {kind}s instead of {order.count(kind)}"
            )
    return prompt


def token_of(processor: Any, kind: str) -> Any:
    """What stands in a prompt where an image or a video is put in; None where a model takes none of
    the ``kind``."""
    default = PLACEHOLDERS["image"] if kind == "image" else None
    return getattr(processor, f"{kind}_token", None) or default


def check_text(processor: Any, text: str) -> None:
    """Raise PrunusError for a ``text`` that holds a placeholder of images or videos, which the
    model would take for one."""
    for kind in PLACEHOLDERS:
        token = getattr(processor, f"{kind}_token", None)
        if token and token in text:
            raise PrunusError(
                f"the text {shown(text)} holds the placeholder {token}: take it out, {kind}s are "
                "put in front by themselves"
            )


def _in_front(question: str, order: Sequence[str]) -> list[dict[str, str]]:
    return [*({"type": kind} for kind in order), {"type": "text", "text": question}]


def _content(question: str, order: Sequence[str], as_text: bool) -> list[dict[str, str]]:
    """The parts of a question that places what it is about."""
    if as_text:
        # Templates of the LLaVA family move all images to the front; as plain text the
        # placeholders stay where they were written.
        return [{"type": "text", "text": question}]
    content: list[dict[str, str]] = []
    for number, text in enumerate(_PLACES.split(question)):
        content += [{"type": order[number - 1]}] if number else []
        content += [{"type": "text", "text": text}] * bool(text.strip())
    return content


@contextmanager
def rendering() -> Iterator[None]:
    """Turn what a chat template raises into a PrunusError: inside the block nothing else runs."""
    try:
        yield
    except PrunusError:
        raise
    except (ValueError, TypeError, OSError) as error:
        said = one_line(error)
        raise PrunusError(f"the chat template cannot render this prompt: {said}") from error
