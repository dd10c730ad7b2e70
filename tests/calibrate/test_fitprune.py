"""The fitted table against a slow, literal reading of how it is fitted, and what it saves."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import prunus
from prunus.calibrate.fitprune import TRIED, WIDTH, Fit, best_fit, calibrate_fitprune, least
from prunus.cost.published import fitted_flops, visual_flops
from prunus.errors import PrunusError
from prunus.families.decoder_shapes import read_decoder
from prunus.method.calibration import Calibration
from tests.support.command_line import Cli
from tests.support.literal.inside import behind
from tests.support.llava import DEPTH
from tests.support.models import Case, case_of
from tests.support.oracles.layered import Line, walk
from tests.support.runs import plain

Inputs = dict[str, Tensor]


def head_max(maps: Tensor, rows: list[int], columns: list[int]) -> list[float]:
    """For each of ``columns`` the mean over ``rows`` of the largest head."""
    return [
        sum(max(float(one[row, column]) for one in maps) for row in rows) / len(rows)
        for column in columns
    ]


def both(
    line: Line, places: list[int], spots: list[list[int]]
) -> list[tuple[list[int], list[float]]]:
    """Present tokens, and cross and self of the layer that just ran, of one image."""
    maps, tokens = line.maps[line.layer - 1]
    own = [place for place in places if place in line.tokens]
    slots = [tokens.index(place) for place in own]
    text = [tokens.index(one) for one in behind(line, tokens, places, spots)]
    return [(own, head_max(maps, rows, slots)) for rows in (text, slots)]


def literal_least(own: list[int], values: list[float], bound: float) -> set[int]:
    """As published: sums of what is left, one token after the other."""
    order = sorted(range(len(own)), key=lambda n: (values[n], -n))
    for count in range(len(own)):
        if sum(values) - sum(values[n] for n in order[:count]) < bound:
            return {own[n] for n in order[: max(count - 1, 0)]}
    return {own[n] for n in order[: len(own) - 1]}


def literal_counts(case: Case, inputs: Inputs, alpha: float) -> list[tuple[int, list[int]]]:
    """Of each image, its tokens and how many go in each layer but the last."""
    found = []
    for row, spots in enumerate(case.prompts.spots(inputs["input_ids"])):
        sums: dict[tuple[int, int], list[float]] = {}

        def look(line: Line, spots: Any = spots, sums: Any = sums) -> None:
            if line.layer:
                for image, places in enumerate(spots):
                    sums[line.layer, image] = [sum(v) for _, v in both(line, places, spots)]

        walk(case.model, inputs, row, look)
        gone: list[list[int]] = [[] for _ in spots]

        def cut(line: Line, spots: Any = spots, sums: Any = sums, gone: Any = gone) -> None:
            if not line.layer:
                return
            out: set[int] = set()
            for image, places in enumerate(spots):
                one, other = (
                    literal_least(own, values, (1 - alpha) * bound)
                    for (own, values), bound in zip(
                        both(line, places, spots), sums[line.layer, image], strict=True
                    )
                )
                gone[image].append(len(one & other))
                out |= one & other
            line.go_on([token for token in line.tokens if token not in out])

        walk(case.model, inputs, row, cut)
        found += [(len(places), own) for places, own in zip(spots, gone, strict=True)]
    return found


def literal_table(counts: list[tuple[int, list[int]]]) -> tuple[int, ...]:
    tokens = round(sum(size for size, _ in counts) / len(counts))
    found = []
    for layer in range(DEPTH - 1):
        share = sum(own[layer] / size for size, own in counts) / len(counts)
        found.append(math.floor(tokens * share + 1e-6))
    return (*found, 0)


@pytest.mark.parametrize("name", ["llava-clip", "qwen2.5-vl"])
def test_equals_the_literal_fit(name: str) -> None:
    """Also of a padded batch, with several images, of several sizes."""
    case = case_of(name)
    batches = [case.prompts.rows(1, 2), case.prompts.rows(1, seed=5)]
    steps: list[int] = []
    found = calibrate_fitprune(
        case.model, "tiny", [lambda one=one: one for one in batches], 0.5, steps.append
    )
    assert steps == [2, 1] * (1 + TRIED)
    tried = {one["alpha"]: one["flops"] for one in found.measured["tried"]}
    assert len(tried) == TRIED and found.measured["images"] == 4 and found.measured["prompts"] == 3
    alpha = found.measured["alpha"]
    counts = [own for inputs in batches for own in literal_counts(case, inputs, alpha)]
    assert tuple(found.params["deleted"]) == literal_table(counts)
    assert sum(found.params["deleted"]) > 0
    assert found.measured["flops"] == tried[alpha] <= 0.5
    assert all(flops > 0.5 for other, flops in tried.items() if other < alpha)


def test_what_is_fitted_is_saved(tmp_path: Path) -> None:
    case = case_of("llava-clip")
    inputs = case.prompts.rows(1, 1)
    path = tmp_path / "fit.json"
    for ratio in (0.3, 0.6):
        found = calibrate_fitprune(case.model, "tiny", [lambda: inputs], ratio)
        found.save(path)
        with prunus.prune(case.model, "fitprune", calibration=str(path)) as run:
            plain(case.model, inputs)
        report = run.report()
        figures = report["published"]["fitprune"]
        assert figures["visual MACs"] / figures["of"] == pytest.approx(found.measured["flops"])
        assert 1 - figures["visual MACs"] / figures["of"] >= ratio
        assert report["tokens"]["average"] == found.measured["average"]
        assert report["tokens"]["kept"] == found.measured["left"]


def test_the_best_that_reaches_it_counts_and_not_the_last_that_was_tried() -> None:
    """The released code prints the last."""

    def fit(alpha: float) -> Fit:
        return Fit(alpha, (int(100 * alpha),), 100, 1 - alpha)

    found, tried = best_fit(fit, 0.3)
    assert tried[-1].flops > 0.3 and found is not tried[-1]
    assert found.flops <= 0.3 and found.alpha - WIDTH < 0.7
    assert len(tried) == TRIED == 7
    with pytest.raises(PrunusError, match=r"ratio=0.999 cannot be reached.* 0.8% of the visual"):
        best_fit(fit, 0.001)


def test_how_many_may_go() -> None:
    values = torch.tensor([[4.0, 1.0, 2.0, 3.0]])
    cases = {10.0: [], 9.5: [], 9.0: [1], 7.1: [1], 7.0: [1, 2], 4.0: [1, 2, 3], 0.0: [1, 2, 3]}
    for bound, gone in cases.items():
        found = least(values, torch.tensor([bound]))
        assert found[0].nonzero().flatten().tolist() == gone
        assert literal_least([0, 1, 2, 3], values[0].tolist(), bound) == set(gone)
    ties = least(torch.ones(2, 3), torch.tensor([2.0, 1.0]))
    assert ties.tolist() == [[False, False, True], [False, True, True]]


def test_flops_are_the_papers() -> None:
    shape = read_decoder(case_of("llava-clip").model.config.get_text_config())
    assert fitted_flops(shape, [16.0] * DEPTH) == visual_flops(shape, [16.0] * DEPTH)
    d, f = 64, 96
    expected = 0.0
    for n, m in ((16, 10), (10, 10), (10, 4), (4, 3), (3, 3)):
        expected += 3 * n * d * d + 2 * n * n * d + m * d * d + 3 * m * d * f
    assert fitted_flops(shape, [16, 10, 10, 4, 3]) == expected


def test_refused() -> None:
    case = case_of("llava-clip")
    with pytest.raises(PrunusError, match="no prompts"):
        calibrate_fitprune(case.model, "tiny", [], 0.5)
    words = case.prompts.rows(1, 0)
    with pytest.raises(PrunusError, match="prompt 1 has no image"):
        calibrate_fitprune(case.model, "tiny", [lambda: words], 0.5)
    some = case.prompts.rows(1)
    with pytest.raises(PrunusError, match="cannot be reached"):
        calibrate_fitprune(case.model, "tiny", [lambda: some], 0.99)


def test_on_drawn_scenes_and_into_run(cli: Cli, picture: Path, tmp_path: Path) -> None:
    path = tmp_path / "new" / "fit.json"
    result = cli("calibrate", "fitprune", "--output", path, "--limit", 2, "--ratio", 0.6)
    assert result.code == 0, result.err
    assert "2 prompts (training scenes), 12 decoder layers" in result.out
    found = Calibration.load(path)
    assert (found.method, found.depth, found.params["tokens"]) == ("fitprune", 12, 576)
    assert found.measured["data"] == "training scenes" and found.measured["flops"] <= 0.4
    run = cli(
        *("run", picture, "--prompt", "how many objects are there?", "--method", "fitprune"),
        *("--param", f"calibration={path}", "--max-new-tokens", 1, "--json"),
    )
    assert run.code == 0, run.err
    assert run.json["tokens"]["kept"] == found.measured["left"] < 576
    for ratio in (0, 1, "nan"):
        wrong = cli("calibrate", "fitprune", "--output", path, "--ratio", ratio)
        assert wrong.code == 2 and f"--ratio {ratio}" in wrong.err
