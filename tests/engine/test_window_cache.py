"""A pruned layer with a sliding window lets go of what left the window, by logical position."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor

from prunus.engine.cache import Lease, PrunedWindowLayer, Resident

LENGTH = 12  # tokens of the prompt
PLACES = [  # by row, what is left of it; -1: padding of ours
    [[0, 1, 5, 9, 11]],
    [[0, 3, 10, 11], [1, 2, 4, 11]],
    [[-1, -1, 3, 10, 11], [0, 1, 2, 3, 4]],
]


def layer_of(places: list[list[int]], window: int) -> PrunedWindowLayer:
    """Keys are the logical positions; values are their negatives."""
    place = torch.tensor(places)
    held = place[:, None, :, None].float()
    valid = None if bool((place >= 0).all()) else place >= 0
    prompt = Resident(place.clamp(min=0), LENGTH, valid, 1)
    return PrunedWindowLayer(held, -held, prompt, window)


def step(layer: PrunedWindowLayer, count: int) -> None:
    """Let the next ``count`` tokens in."""
    new = torch.arange(layer.seen, layer.seen + count).float()
    new = new.view(1, 1, count, 1).expand(layer.prompt.place.shape[0], -1, -1, -1)
    layer.lease = Lease()
    keys, values = layer.update(new, -new)
    assert torch.equal(values, -keys)


def expected(places: list[list[int]], seen: int, window: int) -> list[list[int]]:
    """Slot by slot: it is held as long as the next token, at ``seen``, sees it in some row."""
    whole = [row + list(range(LENGTH, seen)) for row in places]
    slots = [
        n
        for n in range(len(whole[0]))
        if any(seen - row[n] < window and row[n] >= 0 for row in whole)
    ]
    return [[row[n] for n in slots] for row in whole]


def held(layer: PrunedWindowLayer) -> Tensor:
    assert layer.keys is not None and layer.values is not None
    assert torch.equal(layer.values, -layer.keys)
    return layer.keys[:, 0, :, 0].long()


@pytest.mark.parametrize("window", [1, 2, 4, 9, 30])
@pytest.mark.parametrize("steps", [[1] * 40, [3] * 13, [7, 1, 1, 20, 2]])
@pytest.mark.parametrize("places", PLACES)
def test_what_is_held_is_what_the_next_token_sees(
    places: list[list[int]], steps: list[int], window: int
) -> None:
    layer = layer_of(places, window)
    for count in [0, *steps]:
        if count:
            step(layer, count)
        wanted = torch.tensor(expected(places, layer.seen, window)).view(len(places), -1)
        assert torch.equal(held(layer), wanted)
        assert layer.physical <= max(window - 1, 0)
        valid = layer.valid(0)
        inside = wanted >= 0
        assert torch.equal(torch.ones_like(inside) if valid is None else valid, inside)
        assert torch.equal(layer.places(0), wanted.clamp(min=0))
        assert layer.get_seq_length() == layer.seen


def test_rows_that_are_chosen_go_on_as_they_were() -> None:
    """What one of the others still saw stays a while longer; nothing that is seen goes."""
    layer, window = layer_of(PLACES[1], 6), 6
    step(layer, 1)
    layer.batch_select_indices(torch.tensor([1]))
    for _ in range(12):
        step(layer, 1)
        seen = {n for n in held(layer)[0].tolist() if layer.seen - n < window}
        whole = [*PLACES[1][1], *range(LENGTH, layer.seen)]
        assert seen == {n for n in whole if layer.seen - n < window}
        assert torch.equal(layer.places(0), held(layer))


def test_a_layer_that_is_not_full_can_be_cropped_and_emptied() -> None:
    layer = layer_of(PLACES[0], 30)
    step(layer, 2)
    layer.crop(-3)
    assert held(layer).tolist() == [[0, 1, 5, 9]] and layer.seen == LENGTH - 1
    step(layer, 22)  # to 33: the next token sees what is at 4 and later
    assert held(layer)[0].tolist() == [5, 9, *range(11, 33)]
    empty = copy.deepcopy(layer)
    empty.reset()
    assert empty.seen == 0 and empty.places(0).shape == (1, 0)
