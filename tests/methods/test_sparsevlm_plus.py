"""SparseVLM v2.0 against a slow, literal reading of its formulas."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

import prunus
from prunus.errors import PrunusError
from prunus.pruners.sparsevlm_plus import SparseVLMPlus
from prunus.signals.gravity import gravity
from tests.support.facts import counts
from tests.support.literal.clse import best
from tests.support.literal.inside import Literal, check, drop, number_of
from tests.support.literal.recycling import literal_raters
from tests.support.llava import DEPTH
from tests.support.models import Case
from tests.support.oracles.layered import Line
from tests.support.runs import decoded, plain


def pull(distance: float, width: int, base: float) -> float:
    """The logit of two vectors of ones at a ``distance``."""
    total = 0.0
    for m in range(width // 2):
        total += math.cos(distance * base ** (-2 * m / width))
    return 2 * total / math.sqrt(width)


def literal_plus(layers: tuple[int, ...], method: SparseVLMPlus, seen: set[bool]) -> Literal:
    raters: dict[int, list[int]] = {}

    def scores_of(line: Line, spots: list[list[int]], image: int, there: list[int]) -> list[float]:
        places = spots[image]
        if line.layer == layers[0]:
            raters[image] = literal_raters(line, places, spots)
        maps, tokens = line.maps[line.layer - 1]
        config = line.model.config.get_text_config()
        width = line.model.get_decoder().layers[0].self_attn.head_dim
        base, where = (
            config.rope_parameters["rope_theta"],
            line.where.view(-1, line.where.shape[-1]),
        )
        corrected = []  # [H][n]
        for head in range(len(maps)):
            row = []
            for place in there:
                total = 0.0
                for rater in raters[image]:
                    away = [float(axis[rater] - axis[place]) for axis in where]
                    divisor = sum(pull(one, width, base) for one in away) / len(away)
                    seen.add(divisor < method.floor)
                    given = float(maps[head, tokens.index(rater), tokens.index(place)])
                    total += given / max(divisor, method.floor)
                row.append(total)
            corrected.append(row)
        count = max(1, int(method.heads * len(maps) + 1e-6))
        heads = best([sum(row) for row in corrected], count)
        return [
            sum(corrected[head][n] for head in heads) / count / len(raters[image])
            for n in range(len(there))
        ]

    def cut(line: Line, spots: list[list[int]]) -> list[list[int]] | None:
        if line.layer not in layers:
            return None
        kept = []
        for image, places in enumerate(spots):
            there = number_of(line, places)
            scores = scores_of(line, spots, image, [places[number] for number in there])
            wanted = counts(method, len(places), DEPTH)[layers.index(line.layer)]
            kept.append([there[slot] for slot in best(scores, wanted)])
        drop(line, spots, kept)
        return kept

    return cut


@pytest.mark.parametrize(("heads", "floor"), [(0.5, 1.0), (0.25, 0.1), (1.0, 2.0)])
def test_equals_the_formula(case: Case, heads: float, floor: float) -> None:
    method, seen = SparseVLMPlus(keep=0.3, layers=(1, 2, 4), heads=heads, floor=floor), set[bool]()
    trace = check(case, method, lambda: literal_plus((1, 2, 4), method, seen))
    assert not any(entry.compact or entry.mix is not None for entry in trace)
    labels = {word for entry in trace for row in entry.labels or [] for word in row}
    assert (True in seen) == ("clamped" in labels) and labels <= {"clamped", "corrected"}


def turned(positions: torch.Tensor, width: int = 128, base: float = 1e4) -> Any:
    """Cosines and sines ``[1, n, 1, width]`` as models make them."""
    steps = torch.arange(0, width, 2, dtype=torch.float64) / width
    angle = (positions.double()[:, None] * base**-steps).repeat(1, 2)[None, :, None]
    return angle.cos().float(), angle.sin().float()


def test_published_divisors() -> None:
    """Of 128 channels and a base of 10,000; the first that is not positive is 1,707 away."""
    there = torch.arange(2900)
    found = gravity(turned(torch.zeros(1)), turned(there))[0, 0]
    for distance, wanted in (
        (0, 11.314),
        (1, 10.977),
        (10, 7.570),
        (100, 5.399),
        (300, 3.474),
        (576, 2.646),
        (640, 3.117),
        (1000, 1.799),
        (2048, 1.350),
    ):
        assert float(found[distance]) == pytest.approx(wanted, abs=2e-3)
        assert float(found[distance]) == pytest.approx(pull(distance, 128, 1e4), abs=2e-3)
    assert int((found <= 0).nonzero()[0]) == 1707
    far = gravity(turned(torch.zeros(1), base=1e6), turned(torch.arange(4096), base=1e6))
    assert float(far.min()) == pytest.approx(2.29, abs=0.01)


def test_only_differences_of_positions_count_and_axes_are_averaged() -> None:
    first = gravity(turned(torch.tensor([7.0])), turned(torch.tensor([2.0])))
    later = gravity(turned(torch.tensor([907.0])), turned(torch.tensor([902.0])))
    torch.testing.assert_close(first, later, rtol=1e-4, atol=1e-4)
    axes = [turned(torch.tensor([float(n)])) for n in (0, 3, 9)]
    several = [torch.cat(parts, 2) for parts in zip(*axes, strict=True)]
    none = [part.expand(-1, -1, 3, -1) for part in turned(torch.zeros(1))]
    found = gravity((none[0], none[1]), (several[0], several[1]))
    mean = sum(pull(distance, 128, 1e4) for distance in (0, 3, 9)) / 3
    assert float(found) == pytest.approx(mean, abs=1e-3)


def test_released_schedules() -> None:
    averages = {192: 206.8, 128: 144.1, 96: 113.9, 64: 81.8}
    kept = {192: (300, 200, 118), 128: (238, 108, 60), 96: (246, 54, 28), 64: (66, 34, 20)}
    for name, own in SparseVLMPlus.presets.items():
        method = SparseVLMPlus(**own)  # type: ignore[arg-type]
        first, second, third = counts(method, 576, 32)
        assert (first, second, third) == kept[int(name)]
        assert [cut.layer for cut in method.cuts(32)] == [3, 7, 16]
        average = (3 * 576 + 4 * first + 9 * second + 16 * third) / 32
        assert average == pytest.approx(averages[int(name)], abs=0.06)


def test_decode_steps(case: Case) -> None:
    _, difference = decoded(case, SparseVLMPlus(keep=0.3), case.prompts.rows(2, 1), 10)
    assert difference < 1e-4


def test_refused(llava: Case) -> None:
    for params, words in (
        ({"layers": (1, 2)}, "name three"),
        ({"layers": (0, 1, 2)}, "name three"),
        ({"heads": 0.0}, "heads=0"),
        ({"floor": 0.0}, "floor=0"),
    ):
        with pytest.raises(PrunusError, match=words):
            SparseVLMPlus(**params)
    inputs = llava.prompts.rows(1)
    places = llava.prompts.spots(inputs["input_ids"])[0][0]
    ended = {name: inputs[name][:, : places[-1] + 1] for name in ("input_ids", "attention_mask")}
    with prunus.prune(llava.model, SparseVLMPlus(keep=5)):
        with pytest.raises(PrunusError, match="sparsevlm-plus: no text stands behind"):
            plain(llava.model, {**inputs, **ended})
