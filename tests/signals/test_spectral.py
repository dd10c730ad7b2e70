"""The spectral map against the literal transform of the paper (Eq. 7-10)."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from prunus.grid import Grid
from prunus.signals.spectral import evolution, gate, high_frequency, sigma_of
from prunus.signals.topk import stable_topk
from tests.support.literal.spectral import literal_map, literal_map_over_time

GRIDS = [(1, 24, 24), (1, 5, 8), (3, 4, 6), (1, 1, 9), (1, 7, 1), (1, 1, 1), (1, 2, 3), (2, 16, 16)]


@pytest.mark.parametrize("shape", GRIDS)
@pytest.mark.parametrize("cutoff", [0.0, 0.1, 0.2, 1.0])
def test_equals_the_literal_fft(shape: tuple[int, int, int], cutoff: float) -> None:
    torch.manual_seed(0)
    grid = Grid(*shape, (8, 8))
    states = torch.randn(2, grid.size, 37) * 5 + 3
    found = high_frequency(states, grid, cutoff, chunk=16)
    for image in range(2):
        assert (found[image] - literal_map(states[image], *shape, cutoff)).abs().max() < 1e-5


@pytest.mark.parametrize("shape", [(8, 16, 16), (3, 4, 6), (5, 1, 7), (2, 3, 3), (4, 7, 5)])
@pytest.mark.parametrize("cutoff", [0.0, 0.1, 0.7])
def test_over_time_equals_the_literal_fft_of_three_axes(
    shape: tuple[int, int, int], cutoff: float
) -> None:
    torch.manual_seed(0)
    grid = Grid(*shape, (8, 8))
    states = torch.randn(2, grid.size, 37) * 5 + 3
    found = high_frequency(states, grid, cutoff, chunk=16, over_time=True)
    for video in range(2):
        expected = literal_map_over_time(states[video], *shape, cutoff)
        assert (found[video] - expected).abs().max() < 1e-5
    flat = high_frequency(states, grid, cutoff, chunk=16)
    assert torch.equal(found, flat) == (cutoff == 0)


def test_over_time_a_picture_is_what_it_was() -> None:
    torch.manual_seed(0)
    grid = Grid(1, 5, 8, (8, 8))
    states = torch.randn(2, grid.size, 37)
    assert torch.equal(
        high_frequency(states, grid, 0.1, over_time=True), high_frequency(states, grid, 0.1)
    )


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_inputs_lose_nothing_beyond_their_own_rounding(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    grid = Grid(1, 24, 24, (8, 8))
    states = (torch.randn(1, grid.size, 64) * 30).to(dtype)
    found = high_frequency(states, grid, 0.1)
    assert found.dtype == torch.float32
    assert (found[0] - literal_map(states[0].float(), 1, 24, 24, 0.1)).abs().max() < 1e-4


def test_a_constant_image_has_no_high_frequencies_and_no_nan() -> None:
    for shape in GRIDS:
        grid = Grid(*shape, (8, 8))
        states = torch.full((1, grid.size, 8), 3.7)
        found = high_frequency(states, grid, 0.1)
        assert found.abs().max() < 1e-5
        intensity = evolution(found, found)
        assert torch.equal(intensity, torch.zeros_like(intensity))
        opened = gate(intensity, 0.1)
        assert torch.isfinite(opened).all()
        assert stable_topk(intensity, 1).tolist() == [[0]]


def test_filter_values_quoted_in_the_specification() -> None:
    # 24 x 24 at r = 0.1: M at distance 0, 1, 2, 3, 4 = 0, .293, .751, .956, .996.
    grid = Grid(1, 24, 24, (8, 8))
    x = torch.arange(24).float()
    for frequency, expected in enumerate((0.0, 0.293, 0.751, 0.956, 0.996)):
        wave = torch.cos(2 * math.pi * frequency * x / 24).repeat(24, 1)
        found = high_frequency(wave.reshape(1, -1, 1), grid, 0.1).mean()
        assert float(found / wave.abs().mean()) == pytest.approx(expected, abs=1e-3)
    assert sigma_of((24, 24), 0.1) == pytest.approx(1.2)
    assert sigma_of((8, 16, 16), 0.1) == pytest.approx(0.4)  # Video-LLaVA, 3-D


def test_working_memory_is_bounded_by_the_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []
    split = Tensor.split

    def spy(self: Tensor, size: int, dim: int = 0) -> tuple[Tensor, ...]:
        parts = split(self, size, dim)
        sizes.append(max(part.shape[-1] for part in parts))
        return parts

    monkeypatch.setattr(Tensor, "split", spy)
    high_frequency(torch.randn(1, 36, 4096), Grid(1, 6, 6, (8, 8)), 0.1)
    assert sizes == [512]


def test_evolution_is_the_clipped_relative_change() -> None:
    reference = torch.tensor([[1.0, 2.0, 0.0, 1.0]])
    current = torch.tensor([[1.5, 1.0, 9.0, 1.0]])
    found = evolution(current, reference)
    expected = [0.5 / (1 + 1), 1.0 / (2 + 1), 1.0, 0.0]  # the mean of the reference is 1
    assert found[0].tolist() == pytest.approx(expected, abs=1e-5)


def test_gate_is_the_sigmoid_of_the_unbiased_z_score() -> None:
    values = torch.tensor([[0.1, 0.4, 0.7, 0.2]])
    mean = sum(values[0].tolist()) / 4
    deviation = math.sqrt(sum((v - mean) ** 2 for v in values[0].tolist()) / 3)
    for found, value in zip(gate(values, 0.1)[0].tolist(), values[0].tolist(), strict=True):
        z = (value - mean) / (deviation + 1e-6)
        assert found == pytest.approx(1 / (1 + math.exp(-z / 0.1)), abs=1e-5)
    assert gate(torch.tensor([[0.3]]), 0.1).tolist() == [[0.5]]


def test_a_broken_grid_is_refused() -> None:
    with pytest.raises(ValueError, match="not intact"):
        high_frequency(torch.randn(1, 5, 4), Grid(1, 2, 3, (8, 8)), 0.1)


def test_ties_go_to_the_lower_index() -> None:
    scores = torch.tensor([[1.0, 2.0, 2.0, 1.0, 2.0, 1.0], [0.0] * 6])
    assert stable_topk(scores, 4).tolist() == [[0, 1, 2, 4], [0, 1, 2, 3]]
