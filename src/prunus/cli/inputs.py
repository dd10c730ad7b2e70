"""Images and a question from the command line, as the model wants them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image, ImageOps, UnidentifiedImageError

from prunus.cli.errors import BadInput, reading

#: What a person writes where an image belongs.
PLACEHOLDER = "<image>"


def open_images(paths: Sequence[Path]) -> list[Image.Image]:
    """Read image files, upright (EXIF) and in RGB.

    Raises:
        BadInput: a file that is missing, unreadable or no image.
    """
    return [_open_image(path) for path in paths]


def _open_image(path: Path) -> Image.Image:
    try:
        with Image.open(path) as image:
            upright = ImageOps.exif_transpose(image)
            return upright.convert("RGB")
    except FileNotFoundError:
        raise BadInput(f"no such image file: {str(path)!r}") from None
    except IsADirectoryError:
        raise BadInput(f"{str(path)!r} is a folder: name image files") from None
    except UnidentifiedImageError:
        raise BadInput(f"{str(path)!r} is no image that Pillow can read (PNG, JPEG ...)") from None
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise BadInput(f"cannot read the image {str(path)!r}: {error}") from error


def build_prompt(processor: Any, question: str, images: int) -> str:
    """The full prompt: the processor's chat template, or LLaVA-1.5's ``USER: ... ASSISTANT:``.

    ``question`` may say where the images go with ``<image>``; otherwise they come first.

    Raises:
        BadInput: an empty question, or not one placeholder per image.
    """
    if not question.strip():
        raise BadInput("the prompt is empty: ask something with --prompt")
    places = question.count(PLACEHOLDER)
    if places not in (0, images):
        raise BadInput(
            f"the prompt has {places} {PLACEHOLDER} placeholder{'s' * (places != 1)} but "
            f"{images} image{'s' * (images != 1)} {'are' if images != 1 else 'is'} given: "
            f"write one {PLACEHOLDER} per image, or none"
        )
    token = getattr(processor, "image_token", None) or PLACEHOLDER
    if getattr(processor, "chat_template", None):
        with reading("the chat template cannot render this prompt"):
            prompt = processor.apply_chat_template(
                [{"role": "user", "content": _content(question, images, token)}],
                add_generation_prompt=True,
                tokenize=False,
            )
    else:
        body = question if places else "\n".join([token] * images + [question])
        prompt = f"USER: {body} ASSISTANT:"
    if (found := prompt.count(token)) != images:
        raise BadInput(f"the chat template placed {found} images instead of {images}")
    return str(prompt)


def _content(question: str, images: int, token: str) -> list[dict[str, str]]:
    if PLACEHOLDER not in question:
        return [{"type": "image"}] * images + [{"type": "text", "text": question}]
    if token == PLACEHOLDER:
        # Templates of the LLaVA family move all images to the front; as plain text the
        # placeholders stay where they were written.
        return [{"type": "text", "text": question}]
    content: list[dict[str, str]] = []
    for index, text in enumerate(question.split(PLACEHOLDER)):
        content += [{"type": "image"}] * (index > 0)
        content += [{"type": "text", "text": text}] * bool(text.strip())
    return content


def encode(processor: Any, prompt: str, images: Sequence[Image.Image], model: Any) -> Any:
    """Model inputs (a ``BatchFeature``) on the model's device, pixels in its dtype.

    Raises:
        BadInput: the processor refuses them.
    """
    with reading("the processor cannot encode this prompt with these images"):
        encoded = processor(images=list(images), text=prompt, return_tensors="pt")
    return encoded.to(model.device, dtype=model.dtype)
