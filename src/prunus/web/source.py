"""What is asked about: images or one video, uploaded or built in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from PIL import Image
from torch import Tensor

from prunus.errors import PrunusError
from prunus.families import family_of
from prunus.inference.inputs import check_frames, placed, process
from prunus.inference.pictures import open_pictures
from prunus.inference.prompts import arrange, build_prompt
from prunus.inference.sampling import MOST, Sampling
from prunus.inference.videos import Excerpt, plan_videos
from prunus.io.videos import PICTURES, is_animated

Kind = Literal["image", "video"]


@dataclass(frozen=True)
class Source:
    """Files that a question is about, ``builtin:3`` among them: images, or one video."""

    kind: Kind
    files: tuple[str, ...]

    @classmethod
    def of(cls, files: Sequence[str]) -> Source:
        """What uploaded ``files`` are.

        Raises:
            PrunusError: none, several videos, or videos beside images.
        """
        moving = [not _is_still(Path(file)) for file in files]
        if not files:
            raise PrunusError("nothing to look at: choose a sample, or upload an image or a video")
        if not any(moving):
            return cls("image", tuple(files))
        if len(files) > 1:
            raise PrunusError("give images, or one video: not several videos, nor both")
        return cls("video", tuple(files))

    @property
    def names(self) -> list[str]:
        """The files as their owner calls them: without the folder that uploads are kept in."""
        plain = [file if file.startswith("builtin:") else Path(file).name for file in self.files]
        return [f"./{name}" if name.startswith("-") else name for name in plain]


def _is_still(path: Path) -> bool:
    return path.suffix.lower() in PICTURES and not is_animated(path)


@dataclass(frozen=True)
class Prompt:
    """A question about a source, as one model is given it.

    Attributes:
        source, question: what was asked.
        images, videos: what is shown; ``order``: "image" or "video" for each.
        sampling: which frames were taken.
        inputs: of the model, where it is.
    """

    source: Source
    question: str
    images: tuple[Image.Image, ...]
    videos: tuple[Excerpt, ...]
    order: tuple[str, ...]
    sampling: Sampling
    inputs: dict[str, Tensor]

    @cached_property
    def cpu(self) -> dict[str, Tensor]:
        """The inputs where pictures are made of them."""
        return {name: value.cpu() for name, value in self.inputs.items()}


def prepare(model: Any, processor: Any, source: Source, question: str) -> Prompt:
    """Open and encode. A video has as many frames as ``prunus run`` takes, or, where the model was
    made for fewer, as many as that.

    Raises:
        PrunusError: a file that cannot be read, a question that is empty or places images wrongly,
            a model that takes no videos.
    """
    paths = [Path(file) for file in source.files]
    pictures = open_pictures(paths) if source.kind == "image" else []
    sampling = Sampling(most=most_frames(processor))
    planned = plan_videos(paths, sampling) if source.kind == "video" else []
    text = build_prompt(processor, question, len(pictures), len(planned))
    for one in planned:
        check_frames(processor, one.count)
    videos = [one.read() for one in planned]
    encoded = process(processor, text, pictures, videos, family_of(model))
    return Prompt(
        source,
        question,
        tuple(pictures),
        tuple(videos),
        tuple(arrange(question, len(pictures), len(videos))),
        sampling,
        placed(encoded, model.device, model.dtype),
    )


def most_frames(processor: Any) -> int | None:
    """Frames of a video at most, where the model was made for fewer than are taken anyway."""
    most = getattr(getattr(processor, "video_processor", None), "max_frames", None)
    return most if isinstance(most, int) and most < MOST else None
