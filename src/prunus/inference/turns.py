"""A conversation with texts, images and videos in any order, as the text of a prompt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from PIL import Image

from prunus.errors import PrunusError
from prunus.inference.prompts import (
    PLACEHOLDERS,
    arrange,
    build_prompt,
    check_text,
    rendering,
    token_of,
)
from prunus.tasks.sets import Clip

Role = Literal["system", "user", "assistant"]
Seen = Image.Image | Clip


@dataclass(frozen=True)
class Turn:
    """What one ``role`` says: texts, and what is shown between them."""

    role: Role
    parts: Sequence[str | Seen]

    @property
    def text(self) -> str:
        """All of its texts."""
        return "".join(part for part in self.parts if isinstance(part, str))

    @property
    def seen(self) -> list[Seen]:
        """All that is shown, in order."""
        return [part for part in self.parts if not isinstance(part, str)]

    @property
    def kinds(self) -> list[str]:
        """ "image" or "video" for each of :attr:`seen`."""
        return [_kind(one) for one in self.seen]

    @property
    def plain(self) -> bool:
        """Whether all images come first, then all videos, then the text."""
        kinds = [_kind(part) for part in self.parts]
        return kinds == sorted(kinds, key=("image", "video", "text").index)

    @property
    def marked(self) -> str:
        """Its texts with ``<image>`` and ``<video>`` where something is shown."""
        return "".join(
            part if isinstance(part, str) else PLACEHOLDERS[_kind(part)] for part in self.parts
        )


@dataclass(frozen=True)
class Conversation:
    """The ``text`` of a prompt with all that is shown in it, in the order of the prompt."""

    text: str
    images: Sequence[Image.Image] = ()
    videos: Sequence[Clip] = ()


def converse(processor: Any, turns: Sequence[Turn]) -> Conversation:
    """The prompt behind which the model answers the last of ``turns``.

    A single question with its images in front becomes what every command of prunus makes of it; it
    may say itself, with one ``<image>`` or ``<video>`` for each, where they belong.

    Raises:
        PrunusError: as of :func:`~prunus.inference.prompts.build_prompt`, nothing is asked, or
            several turns for a model without a chat template.
    """
    if not turns or turns[-1].role != "user":
        raise PrunusError("the conversation does not end with a question of the user")
    seen = [one for turn in turns for one in turn.seen]
    images = tuple(one for one in seen if isinstance(one, Image.Image))
    videos = tuple(one for one in seen if isinstance(one, Clip))
    if len(turns) == 1:
        question = turns[0].text if turns[0].plain else turns[0].marked
        text = build_prompt(processor, question, len(images), len(videos))
    else:
        text = _rendered(processor, turns, len(images), len(videos))
    return Conversation(text, images, videos)


def _rendered(processor: Any, turns: Sequence[Turn], images: int, videos: int) -> str:
    if not getattr(processor, "chat_template", None):
        raise PrunusError(
            "this model has no chat template: it takes one question, without a system prompt and "
            "without turns in front of it"
        )
    tokens = {kind: token_of(processor, kind) for kind in PLACEHOLDERS}
    if videos and tokens["video"] is None:
        raise PrunusError("this model takes images only, and a video is given")
    messages = []
    for turn in turns:
        if turn.text.strip() == "" and not turn.seen:
            raise PrunusError(f"a turn of the {turn.role} is empty")
        arrange(turn.marked, turn.kinds.count("image"), turn.kinds.count("video"))
        if tokens["image"] == PLACEHOLDERS["image"] and not turn.plain:
            # Templates of the LLaVA family move all images to the front; as plain text the
            # placeholders stay where they were written.
            content = [{"type": "text", "text": turn.marked}]
        else:
            for part in turn.parts:
                if isinstance(part, str):
                    check_text(processor, part)
            content = [
                {"type": "text", "text": part} if isinstance(part, str) else {"type": _kind(part)}
                for part in turn.parts
            ]
        messages.append({"role": turn.role, "content": content})
    with rendering():
        text = str(
            processor.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
        )
    for kind, given in (("image", images), ("video", videos)):
        found = text.count(tokens[kind]) if tokens[kind] else 0
        if found != given:
            raise PrunusError(f"the chat template placed {found} {kind}s instead of {given}")
    return text


def _kind(part: str | Seen) -> str:
    if isinstance(part, str):
        return "text"
    return "video" if isinstance(part, Clip) else "image"
