"""Images, videos and a question from the command line, as the model wants them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from PIL import Image

from prunus.cli.errors import BadInput, reading

if TYPE_CHECKING:
    from prunus.inference.videos import Video

#: What a person writes where an image or a video belongs.
PLACEHOLDERS = {"image": "<image>", "video": "<video>"}
_PLACES = re.compile("|".join(PLACEHOLDERS.values()))


def arrange(question: str, images: int, videos: int = 0) -> list[str]:
    """The order of "image" and "video" in the prompt: where ``question`` places them with
    ``<image>`` and ``<video>``, or else images and then videos in front of it.

    Raises:
        BadInput: an empty question, or not one placeholder for each image and video.
    """
    if not question.strip():
        raise BadInput("the prompt is empty: ask something with --prompt")
    kinds = {place: kind for kind, place in PLACEHOLDERS.items()}
    order = [kinds[place] for place in _PLACES.findall(question)]
    for kind, given in (("image", images), ("video", videos)):
        places = order.count(kind)
        if order and places != given:
            raise BadInput(
                f"the prompt has {places} {PLACEHOLDERS[kind]} placeholder{'s' * (places != 1)} "
                f"but {given} {kind}{'s' * (given != 1)} {'are' if given != 1 else 'is'} given: "
                f"write one {PLACEHOLDERS[kind]} per {kind}, or no placeholders at all"
            )
    return order or ["image"] * images + ["video"] * videos


def build_prompt(processor: Any, question: str, images: int, videos: int = 0) -> str:
    """The full prompt: the processor's chat template, or LLaVA-1.5's ``USER: ... ASSISTANT:``.

    ``question`` may say where images and videos go, see :func:`arrange`.

    Raises:
        BadInput: an empty question, not one placeholder per image and video, or videos for a
            model that takes none.
    """
    order = arrange(question, images, videos)
    tokens: dict[str, Any] = {
        "image": getattr(processor, "image_token", None) or PLACEHOLDERS["image"],
        "video": getattr(processor, "video_token", None),
    }
    if videos and tokens["video"] is None:
        raise BadInput("this model takes images only: leave out --video")
    if getattr(processor, "chat_template", None):
        content = _content(question, order, tokens["image"] == PLACEHOLDERS["image"])
        with reading("the chat template cannot render this prompt"):
            prompt = processor.apply_chat_template(
                [{"role": "user", "content": content}],
                add_generation_prompt=True,
                tokenize=False,
            )
    else:
        placed = _PLACES.search(question) is not None
        body = question if placed else "\n".join([*(tokens[kind] for kind in order), question])
        prompt = f"USER: {body} ASSISTANT:"
    for kind, given in (("image", images), ("video", videos)):
        found = prompt.count(tokens[kind]) if tokens[kind] else 0
        if found != given:
            raise BadInput(f"the chat template placed {found} {kind}s instead of {given}")
    return str(prompt)


def _content(question: str, order: Sequence[str], as_text: bool) -> list[dict[str, str]]:
    if not _PLACES.search(question):
        return [*({"type": kind} for kind in order), {"type": "text", "text": question}]
    if as_text:
        # Templates of the LLaVA family move all images to the front; as plain text the
        # placeholders stay where they were written.
        return [{"type": "text", "text": question}]
    content: list[dict[str, str]] = []
    for number, text in enumerate(_PLACES.split(question)):
        content += [{"type": order[number - 1]}] if number else []
        content += [{"type": "text", "text": text}] * bool(text.strip())
    return content


def encode(
    processor: Any,
    prompt: str,
    images: Sequence[Image.Image],
    model: Any,
    videos: Sequence[Video] = (),
) -> Any:
    """Model inputs (a ``BatchFeature``) on the model's device, pixels in its dtype.

    Raises:
        BadInput: the processor refuses them.
    """
    given: dict[str, Any] = {"images": list(images)} if images else {}
    if videos:
        given |= {
            "videos": [video.frames for video in videos],
            "video_metadata": [_metadata(video) for video in videos],
            "do_sample_frames": False,  # they have been chosen already
        }
    with reading("the processor cannot encode this prompt with these images and videos"):
        encoded = processor(text=prompt, return_tensors="pt", **given)
    encoded = encoded.to(model.device)
    for name, values in encoded.items():
        if name.startswith("pixel_values"):  # not the times of frames: bfloat16 would move them
            encoded[name] = values.to(model.dtype)
    return encoded


def _metadata(video: Video) -> dict[str, Any]:
    count = len(video.frames)
    return {"total_num_frames": count, "fps": video.fps, "frames_indices": list(range(count))}
