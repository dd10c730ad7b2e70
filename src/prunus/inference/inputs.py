"""From a prompt with its images and videos to model inputs: the one road for all commands."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from prunus.errors import PrunusError, brief
from prunus.families import Family
from prunus.grid import AnyGrid
from prunus.inference.prompts import token_of
from prunus.tasks.sets import Clip


def process(
    processor: Any,
    prompt: str,
    images: Sequence[Image.Image] = (),
    videos: Sequence[Clip] = (),
    family: Family | None = None,
) -> dict[str, Tensor]:
    """What the model's ``forward`` takes for one prompt, on the CPU: ``input_ids`` and
    ``attention_mask`` int64 ``[1, t]``, pixels, grids; how large the pictures are, if ``family``,
    the model's, wants to know.

    Raises:
        PrunusError: the processor refuses them, or a video has more frames than it takes.
    """
    for video in videos:
        check_frames(processor, len(video.frames))
    given: dict[str, Any] = {"images": list(images)} if images else {}
    if videos:
        given |= {
            "videos": [list(video.frames) for video in videos],
            "video_metadata": [metadata_of(video) for video in videos],
            "do_sample_frames": False,  # they have been chosen already
        }
    with _processing():
        found = processor(text=prompt, return_tensors="pt", **given)
    inputs = {name: value for name, value in found.items() if isinstance(value, Tensor)}
    inputs.pop("labels", None)  # some processors make them of a prompt: all are -100
    if family is not None and family.takes_sizes and (images or videos):
        inputs["image_sizes"] = _sizes(processor, prompt, images, videos)
    return inputs


def _sizes(
    processor: Any, prompt: str, images: Sequence[Image.Image], videos: Sequence[Clip]
) -> Tensor:
    """Int64 ``[n, 2]``: height and width of each picture of a prompt, frames of videos among them,
    in its order."""
    shown: dict[str, Iterator[Sequence[Image.Image]]] = {
        token_of(processor, "image"): iter([[image] for image in images])
    }
    if videos:
        shown[token_of(processor, "video")] = iter([video.frames for video in videos])
    marks = re.findall("|".join(map(re.escape, shown)), prompt)
    return torch.tensor([one.size[::-1] for mark in marks for one in next(shown[mark])])


def check_frames(processor: Any, count: int) -> None:
    """Raise PrunusError where a video of ``count`` frames is longer than what the processor's model
    was made for."""
    most = getattr(getattr(processor, "video_processor", None), "max_frames", None)
    if isinstance(most, int) and count > most:
        raise PrunusError(
            f"a video of {count} frames: this model takes {most} at most; take fewer (--frames "
            f"{most}, or a lower --fps or --max-frames), or a part of it (--start, --end)"
        )


def metadata_of(video: Clip) -> dict[str, Any]:
    """What processors want to know of time, as if the video had been recorded at the rate of its
    frames, or, where its start lies between two of these, at the smallest multiple of that rate
    which has a frame there. So what they make of it is exact: ``frames_indices / fps`` is when each
    frame is shown, and their share of ``total_num_frames`` how far they are apart.
    """
    count = len(video.frames)
    start = Fraction(video.start * video.fps).limit_denominator(1000)
    times = start.denominator
    return {
        "total_num_frames": times * count,
        "fps": times * video.fps,
        "frames_indices": [start.numerator + times * number for number in range(count)],
        "duration": video.start + count / video.fps,
    }


@contextmanager
def _processing() -> Iterator[None]:
    """Turn what a model's processor raises about a question and its image into a PrunusError:
    inside the block nothing else runs."""
    try:
        yield
    except PrunusError:
        raise
    except (ValueError, TypeError, LookupError, ArithmeticError, RuntimeError, OSError) as error:
        raise PrunusError(
            f"the model's processor cannot take this question and image: {brief(error)}"
        ) from error


@dataclass(frozen=True)
class Parts:
    """The inputs of one prompt by what they belong to: token ids ``[t]``, what else is known of
    each token (``[t]`` by name), and its pixels with what stands beside them."""

    ids: Tensor
    per_token: dict[str, Tensor]
    pixels: dict[str, Tensor]

    @classmethod
    def of(cls, inputs: Mapping[str, Tensor]) -> Parts:
        """The parts of what :func:`process` made."""
        rest = dict(inputs)
        ids = rest.pop("input_ids")[0]
        rest.pop("attention_mask", None)
        per_token = {name: rest.pop(name)[0] for name in list(rest) if name.endswith("_type_ids")}
        return cls(ids, per_token, rest)


def placed(
    inputs: Mapping[str, Tensor], device: torch.device | str, dtype: torch.dtype | None = None
) -> dict[str, Tensor]:
    """The same on ``device``, pixels in ``dtype`` (not the times of frames, which half precision
    would move)."""
    return {
        name: value.to(device, dtype if name.startswith("pixel_values") else None)
        for name, value in inputs.items()
    }


@dataclass(frozen=True)
class Spot:
    """One image or video of a prompt: its ``kind``, where its visual tokens lie, and the
    ``positions``, int64 ``[N]``, of those that have a cell there."""

    kind: str
    grid: AnyGrid
    positions: Tensor


def find_spots(family: Family, inputs: Mapping[str, Tensor]) -> list[list[Spot]]:
    """For each row of a batch its images and videos, in the order of the prompt.

    Raises:
        PrunusError: placeholders and images do not match.
    """
    ids = inputs["input_ids"]
    found: list[list[Spot]] = [[] for _ in ids]
    grids = family.grids_of(dict(inputs))
    for kind, places in family.placeholders(ids, None).items():
        queue = list(grids.get(kind, ()))
        for row, holds in enumerate(places):
            left = holds.nonzero().flatten()
            while len(left):
                if not queue:
                    raise PrunusError(f"the prompts have more placeholders than {kind}s")
                grid = queue.pop(0)
                count = len(family.cells(grid))
                if len(left) < count:
                    raise PrunusError(
                        f"the prompts have fewer placeholders than their {kind}s need"
                    )
                places = left[family.places(grid).to(left.device)]
                found[row].append(Spot(kind, grid, places))
                left = left[count:]
    return [sorted(row, key=lambda spot: int(spot.positions[0])) for row in found]
