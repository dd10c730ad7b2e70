"""High-frequency content of visual tokens on their grid (CLSE, arXiv 2606.24165, Eq. 7-12)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Literal

import torch
from torch import Tensor

from prunus.errors import PrunusError
from prunus.grid import AnyGrid, Grid, Tiles

Tiling = Literal["local", "global"]
"""A spectrum of each tile that the vision tower saw by itself, or of all of them put together."""


@lru_cache(maxsize=64)
def _low_pass(side: int, sigma: float) -> Tensor:
    """Circulant float32 ``[side, side]`` matrix that convolves one axis with the Gaussian whose
    frequency response is ``exp(-k^2 / (2 sigma^2))`` at signed frequency ``k``."""
    frequency = torch.fft.fftfreq(side, d=1.0 / side, dtype=torch.float64)
    response = torch.exp(-(frequency**2) / (2.0 * sigma**2))
    kernel = torch.fft.ifft(response).real
    offset = torch.arange(side)
    circulant: Tensor = kernel[(offset[:, None] - offset[None, :]) % side].float()
    return circulant


def sigma_of(sides: Sequence[int], cutoff: float) -> float:
    """Width of the Gaussian in frequency bins, ``r * min(H // 2, W // 2)`` (as released; of three
    axes the smallest), but at least 1e-3: on a grid with a side of 1 that removes the constant part
    and nothing else."""
    return max(cutoff * (min(sides) // 2), 1e-3)


def high_frequency(
    states: Tensor,
    grid: AnyGrid,
    cutoff: float,
    chunk: int = 512,
    over_time: bool = False,
    tiles: Tiling = "local",
) -> Tensor:
    """Spectral map S: mean over channels of ``|x - lowpass(x)|``, float32 ``[G, N]``.

    The paper writes a 2-D FFT per channel, a Gaussian high-pass ``1 - exp(-dist^2 / (2 sigma^2))``,
    the inverse FFT and the modulus. That Gaussian is a product over the two axes and symmetric, so
    the same map is two small real matrix products per frame (equal to 1e-6; the literal FFT is the
    reference in the tests). Where an image is made of parts, each part has a spectrum of its own.

    Args:
        states: ``[G, N, D]`` with N = grid.size, any floating dtype; computed in float32.
        cutoff: r in [0, 1]; 0 means no filter at all (S = mean |x|), as released for LLaVA.
        chunk: channels per step, which bounds the working memory to a few ``[G, N, chunk]``.
        over_time: one 3-D transform over frames, rows and columns, with one Gaussian for all axes
            (Table 6), instead of a 2-D one in each frame. Of a single frame it is the 2-D one.
        tiles: the two forms that the paper has for InternVL, where a part is made of tiles.

    Raises:
        PrunusError: tokens are missing; or tiles put together of which nobody knows how they lie.
    """
    tokens = states.shape[1]
    if tokens != grid.size:
        raise PrunusError(f"{tokens} tokens do not fill a grid of {grid.size}: it is not intact")
    if tiles == "global" and isinstance(grid, Tiles) and grid.loose:
        raise PrunusError(
            "one spectrum of all tiles (tiles='global') needs to know how they are arranged: say "
            "how large the pictures are (image_sizes), or choose tiles='local'"
        )

    def one(own: Tensor, part: Grid) -> Tensor:
        return _map(own, part, cutoff, chunk, over_time and part.frames > 1)

    whole = one if tiles == "global" else _by_tile(one)
    maps, start = [], 0
    for part in grid.parts:
        maps.append(whole(states.narrow(1, start, part.size), part))
        start += part.size
    return maps[0] if len(maps) == 1 else torch.cat(maps, dim=1)


def _by_tile(one: Callable[[Tensor, Grid], Tensor]) -> Callable[[Tensor, Grid], Tensor]:
    """``one``, which makes ``[G, N]`` of ``[G, N, D]``, for each tile of a grid."""

    def each(states: Tensor, grid: Grid) -> Tensor:
        if not any(grid.seams):
            return one(states, grid)
        field = states.unflatten(1, (grid.frames, grid.rows, grid.cols))
        bands = []
        for band, shapes in zip(field.tensor_split(grid.seams[0], 2), grid.tiles, strict=True):
            line = [
                one(own.flatten(1, 3), tile).unflatten(1, own.shape[1:4])
                for own, tile in zip(band.tensor_split(grid.seams[1], 3), shapes, strict=True)
            ]
            bands.append(torch.cat(line, dim=3))
        return torch.cat(bands, dim=2).flatten(1)

    return each


def at_each_resolution(grid: AnyGrid, function: Callable[..., Tensor], *values: Tensor) -> Tensor:
    """``function`` of ``values [G, N]``, with statistics of its own for each resolution at which an
    image is shown (tiles, and a thumbnail): ``[G, N]``."""
    sizes = [sum(part.size for part in parts) for parts in grid.resolutions]
    if len(sizes) == 1:
        return function(*values)
    split = zip(*(one.split(sizes, dim=1) for one in values), strict=True)
    return torch.cat([function(*own) for own in split], dim=1)


def _map(states: Tensor, grid: Grid, cutoff: float, chunk: int, over_time: bool) -> Tensor:
    """:func:`high_frequency` of one rectangular part."""
    groups, tokens, width = states.shape
    total = states.new_zeros(groups, tokens, dtype=torch.float32)
    times = grid.frames if over_time else 1  # frames of one transform
    if cutoff > 0:
        sides = (times, grid.rows, grid.cols) if over_time else (grid.rows, grid.cols)
        sigma = sigma_of(sides, cutoff)
        over_frames = _low_pass(times, sigma).to(states.device)
        over_rows = _low_pass(grid.rows, sigma).to(states.device)
        over_cols = _low_pass(grid.cols, sigma).to(states.device)
    for part in states.split(chunk, dim=-1):
        field = part.float()
        if cutoff > 0:
            field = field.reshape(groups * grid.frames, grid.rows, grid.cols, -1)
            # One product per axis: columns first (batched over rows), then time, then rows (one
            # flat GEMM, which also takes the difference).
            low = torch.matmul(over_cols, field)
            if over_time:
                low = torch.matmul(over_frames, low.unflatten(0, (groups, times)).flatten(2))
            low = low.reshape(len(field), grid.rows, -1)
            rows = over_rows.expand(len(low), -1, -1)
            field = torch.baddbmm(field.flatten(2), rows, low, alpha=-1)
            field = field.reshape(groups, tokens, -1)
        total += field.abs().sum(dim=-1)
    return total / width


def evolution(current: Tensor, reference: Tensor, epsilon: float = 1e-6) -> Tensor:
    """Evolution intensity I in [0, 1] (Eq. 11-12) from two spectral maps ``[G, N]``: the relative
    absolute change, its denominator raised by the image's mean, clipped at 1."""
    mean = reference.mean(dim=-1, keepdim=True)
    return ((current - reference).abs() / (reference + mean + epsilon)).clamp(max=1.0)


def z_score(intensity: Tensor, epsilon: float = 1e-6) -> Tensor:
    """How far each of ``intensity [G, N]`` is from their mean, in (unbiased) deviations; with one
    token only there is no deviation, and it is 0."""
    centred = intensity - intensity.mean(dim=-1, keepdim=True)
    if intensity.shape[-1] < 2:
        return torch.zeros_like(intensity)
    return centred / (intensity.std(dim=-1, keepdim=True) + epsilon)


def gate(intensity: Tensor, temperature: float) -> Tensor:
    """Sigmoid of the :func:`z_score` of ``intensity [G, N]`` (Eq. 22; as released)."""
    return torch.sigmoid(z_score(intensity) / temperature)
