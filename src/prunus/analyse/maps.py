"""Maps of evolution intensity, layer by layer, for a few images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from prunus.analyse.context import Context
from prunus.analyse.plots import Drawing, map_panel
from prunus.analyse.result import Picture
from prunus.analyse.signals import Notes
from prunus.grid import Grid

SCENES = 3
_MOST = 11  # columns of maps; a deeper model shows evenly chosen layers


def evolution_maps(context: Context, notes: Sequence[Notes]) -> list[Picture]:
    """For a few images of different content, the intensity of every layer's input against layer 0
    and against the layer before. Videos, and images that are made of parts, are left out."""
    chosen: dict[int, int] = {}
    for number, query in enumerate(context.data.queries):
        grid = notes[number].grid
        if isinstance(grid, Grid) and grid.frames == 1:
            chosen.setdefault(query.image, number)
    numbers = list(chosen.values())
    numbers = [numbers[at * len(numbers) // SCENES] for at in range(min(SCENES, len(numbers)))]
    if not numbers:
        return []
    layers = list(range(1, context.depth))
    if len(layers) > _MOST:
        layers = [layers[at * (len(layers) - 1) // (_MOST - 1)] for at in range(_MOST)]
    chosen_notes = {number: notes[number] for number in numbers}
    most = _most_adjacent(list(chosen_notes.values()), layers)
    caption = (
        f"Evolution intensity of {len(numbers)} images at the input of each layer, against layer 0 "
        "(upper rows; yellow is 1, where it is clipped) and against the layer before (lower rows; "
        f"yellow is {most:.2f})"
    )
    return [Picture("spectral-maps", caption, _draw(context, chosen_notes, layers, most))]


def _most_adjacent(notes: Sequence[Notes], layers: Sequence[int]) -> float:
    """Intensity against the layer before that 99.5 % of the tokens stay below: a few outliers
    would leave the maps dark."""
    values = [note.intensity(layer, layer - 1) for note in notes for layer in layers]
    return float(torch.cat(values).quantile(0.995))


def _draw(
    context: Context, notes: Mapping[int, Notes], layers: Sequence[int], most: float
) -> Drawing:
    """``notes`` by number of their question."""

    def draw(figure: Any) -> None:
        axes = figure.subplots(2 * len(notes), 1 + len(layers), squeeze=False)
        for place, (number, note) in enumerate(notes.items()):
            image = context.data.images[context.data.queries[number].image]()
            picture = np.asarray(image.resize((16 * note.grid.cols, 16 * note.grid.rows)))
            for below, words in enumerate(("against\nlayer 0", "against\nlayer before")):
                line = axes[2 * place + below]
                map_panel(line[0], picture, "")
                line[0].set_ylabel(words, fontsize=7)
                for axis, layer in zip(line[1:], layers, strict=True):
                    reference = layer - 1 if below else 0
                    values = note.intensity(layer, reference).numpy()
                    values = values.reshape(note.grid.rows, note.grid.cols)
                    drawn = map_panel(axis, values, f"{reference}→{layer}")
                    drawn.set_clim(0, most if below else 1)

    return Drawing(0.95 * (1 + len(layers)), 1.12 * 2 * len(notes), draw)
