"""The spectral map of CLSE, read literally."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def literal_map(states: Tensor, frames: int, rows: int, cols: int, cutoff: float) -> Tensor:
    """S of one image ``[N, D]``, word for word: FFT, shift, Gaussian high-pass, back, modulus."""
    field = states.double().reshape(frames, rows, cols, -1).permute(0, 3, 1, 2)
    if cutoff == 0:
        return field.abs().mean(1).flatten().float()
    spectrum = torch.fft.fftshift(torch.fft.fft2(field), dim=(-2, -1))
    centre_v, centre_h = rows // 2, cols // 2
    sigma = max(cutoff * min(centre_v, centre_h), 1e-3)
    mask = torch.zeros(rows, cols, dtype=torch.float64)
    for u in range(rows):
        for v in range(cols):
            distance = (u - centre_v) ** 2 + (v - centre_h) ** 2
            mask[u, v] = 1 - math.exp(-distance / (2 * sigma**2))
    back = torch.fft.ifft2(torch.fft.ifftshift(spectrum * mask, dim=(-2, -1)))
    return back.abs().mean(1).flatten().float()


def literal_map_over_time(
    states: Tensor, frames: int, rows: int, cols: int, cutoff: float
) -> Tensor:
    """The same with one FFT over frames, rows and columns of a video ``[N, D]`` (Table 6)."""
    field = states.double().reshape(frames, rows, cols, -1).permute(3, 0, 1, 2)
    if cutoff == 0:
        return field.abs().mean(0).flatten().float()
    axes = (-3, -2, -1)
    spectrum = torch.fft.fftshift(torch.fft.fftn(field, dim=axes), dim=axes)
    centre = [side // 2 for side in (frames, rows, cols)]
    sigma = max(cutoff * min(centre), 1e-3)
    mask = torch.zeros(frames, rows, cols, dtype=torch.float64)
    for t in range(frames):
        for u in range(rows):
            for v in range(cols):
                away = (t - centre[0]) ** 2 + (u - centre[1]) ** 2 + (v - centre[2]) ** 2
                mask[t, u, v] = 1 - math.exp(-away / (2 * sigma**2))
    back = torch.fft.ifftn(torch.fft.ifftshift(spectrum * mask, dim=axes), dim=axes)
    return back.abs().mean(0).flatten().float()
