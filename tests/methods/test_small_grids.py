"""Grids of one row, one column and one token: nothing is divided by what is not there."""

from __future__ import annotations

import warnings

import pytest
import torch

import prunus
from prunus import CLSE, MMR, EvoPrune, Fixed, Method, Random, Uniform
from prunus.errors import PrunusError
from prunus.grid import Grid
from prunus.signals.density import diversity
from prunus.signals.spectral import evolution, gate, high_frequency
from tests.support import qwen as tiny
from tests.support.facts import in_tower, proportional
from tests.support.llava import DEPTH
from tests.support.models import Case
from tests.support.oracles.masked import visibility
from tests.support.qwen import QwenPrompts, Size, qwen
from tests.support.runs import gap, masked_logits, plain, survivors
from tests.support.settings import settings

SIZES: dict[str, tuple[Size, ...]] = {  # in patches, two by two of which are a token
    "token": ((1, 2, 2),),
    "row": ((1, 2, 18),),
    "column": ((1, 18, 2),),
    "row-and-token": ((1, 2, 14), (1, 2, 2)),
    "two-tokens": ((1, 2, 4),),
}
MORE: dict[str, Method] = {
    "one-uniform": Uniform(keep=1, layer=None),
    "one-stride": Uniform(keep=1, pattern="stride"),
    "one-random": Random(keep=1),
    "one-mmr": MMR(keep=1),
    "one-clse": CLSE(keep=1, variant="hybrid"),
    "one-evoprune": EvoPrune(keep=1, schedule="mean", start=0, order="append", parity="cls"),
}
METHODS = {
    name: method
    for name, method in (settings() | MORE).items()
    if not isinstance(method, Fixed) and not proportional(method)
}


@pytest.mark.parametrize("kinds", [("image",), ("video",)], ids=["image", "video"])
@pytest.mark.parametrize("size", sorted(SIZES))
@pytest.mark.parametrize("name", sorted(METHODS))
def test_every_method_equals_the_oracle(
    name: str, size: str, kinds: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tiny, "IMAGES", SIZES[size])
    monkeypatch.setattr(tiny, "VIDEOS", tuple((2, rows, cols) for _, rows, cols in SIZES[size]))
    case = Case("qwen2.5-vl", qwen(), QwenPrompts(kinds))
    inputs = case.prompts.rows(1, 2)
    method = METHODS[name]
    evo = [part for part in method.parts() if isinstance(part, EvoPrune)]
    shares = any(part.per == "video" for part in evo) and kinds == ("video",)
    if shares and "token" in size.split("-"):  # half of two tokens for two frames
        with prunus.prune(case.model, method), pytest.raises(PrunusError, match="cannot share"):
            plain(case.model, inputs)
        return
    with prunus.prune(case.model, method) as run, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # an adaptive method may find nothing to do
        logits = plain(case.model, inputs)
    spots, mask = case.prompts.spots(inputs["input_ids"]), inputs["attention_mask"]
    visible = visibility(run.trace, spots, mask, DEPTH, mask.shape[1])
    expected = masked_logits(case.model, inputs, visible, run.trace)
    assert not bool(logits.isnan().any())
    assert gap(logits, expected, survivors(case, inputs, run.trace)) < 1e-4
    if name in MORE:
        frames = 2 if kinds == ("video",) and in_tower(method) else 1  # a budget per frame
        kept = [len(kept) for sample in run.trace[-1].kept for kept in sample]
        assert kept == [frames] * 3
    assert run.report()["flops"]["ratio"] > 0


@pytest.mark.parametrize(("rows", "cols"), [(1, 1), (1, 6), (6, 1)])
@pytest.mark.parametrize("cutoff", [0.0, 0.1, 1.0])
def test_the_spectrum_of_a_line(rows: int, cols: int, cutoff: float) -> None:
    grid = Grid(1, rows, cols, (1, 1))
    generator = torch.Generator().manual_seed(0)
    now, then = (torch.randn(2, grid.size, 7, generator=generator) for _ in range(2))
    maps = [high_frequency(states, grid, cutoff) for states in (now, then)]
    intensity = evolution(*maps)
    for found in (*maps, intensity, gate(intensity, 0.1)):
        assert found.shape == (2, grid.size) and bool(found.isfinite().all())
    if cutoff and grid.size == 1:  # a constant has no high frequencies
        assert float(maps[0].abs().max()) < 1e-6
        assert gate(intensity, 0.1).tolist() == [[0.5], [0.5]]


def test_one_token_has_no_neighbours() -> None:
    assert diversity(torch.ones(2, 1, 3), 10, "auto").tolist() == [[0.0], [0.0]]
