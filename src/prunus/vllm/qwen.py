"""What the Qwen-VL models have in common: inputs come with grids (frames, rows, columns)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from prunus.grid import AnyGrid
from prunus.vllm.processor import Shorter


class TellsGrid(Shorter):
    """In front of a processor that says ``image_grid_thw`` and ``video_grid_thw``."""

    def grid_of(self, kind: str, item: Mapping[str, Any]) -> AnyGrid:
        name = f"{kind}_grid_thw"
        return self.counts.grid(kind, {name: item[name].data[None]})


class GridThw:
    """In front of a model that is given them."""

    def calls(self, kwargs: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
        """By kind, in the order in which vLLM names them."""
        for name in kwargs:
            if name == "pixel_values":
                yield "image", _of(kwargs, "pixel_values", "image_grid_thw")
            if name == "pixel_values_videos":
                names = ("pixel_values_videos", "video_grid_thw", "second_per_grid_ts")
                yield "video", _of(kwargs, *names)


def _of(kwargs: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {name: kwargs[name] for name in names if kwargs.get(name) is not None}
