"""PyramidDrop against a slow, literal reading of its formula."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

import prunus
from prunus import Fixed
from prunus.method.budget import Budget
from prunus.pruners.pyramiddrop import PyramidDrop
from tests.support.decoders import Decoder
from tests.support.facts import counts
from tests.support.literal.clse import best
from tests.support.literal.inside import Literal, check, drop, number_of, rotated, softmax
from tests.support.llava import DEPTH
from tests.support.models import Case
from tests.support.oracles.layered import Line
from tests.support.proof.bench import model_of, plain, prompt
from tests.support.runs import decoded, gap


def last_row(line: Line) -> list[float]:
    """Mean over heads of the last token's attention in the layer that is about to run, where tokens
    are now."""
    query = rotated(line, line.layer, line.states, "q")[-1]
    keys = rotated(line, line.layer, line.states, "k")
    shared = len(query) // keys.shape[1]
    total = [0.0] * len(line.tokens)
    for head, one in enumerate(query):
        dots = [float(one @ key[head // shared]) / math.sqrt(len(one)) for key in keys]
        for slot, weight in enumerate(softmax(dots)):
            total[slot] += weight
    return [value / len(query) for value in total]


def literal_pyramid(layers: tuple[int, ...], ratio: float, compact: bool) -> Literal:
    def cut(line: Line, spots: list[list[int]]) -> list[list[int]] | None:
        if line.layer not in layers:
            return None
        row, kept = last_row(line), []
        stage = layers.index(line.layer)
        for places in spots:
            there = number_of(line, places)
            scores = [row[line.tokens.index(places[number])] for number in there]
            count = max(1, int(len(places) * ratio ** (stage + 1)))
            kept.append([there[slot] for slot in best(scores, count)])
        drop(line, spots, kept)
        # Three positions for each token are no line that could be closed up.
        line.closed = line.closed or (compact and line.where.ndim == 1)
        return kept

    return cut


@pytest.mark.parametrize("positions", ["compact", "original"])
@pytest.mark.parametrize(
    ("layers", "ratio"), [((1, 2, 3), 0.5), ((2, 4), 0.3), ((0, 1, 2, 3), 0.7)]
)
def test_equals_the_formula(
    case: Case, layers: tuple[int, ...], ratio: float, positions: Any
) -> None:
    method = PyramidDrop(ratio=ratio, layers=layers, positions=positions)
    trace = check(case, method, lambda: literal_pyramid(layers, ratio, positions == "compact"))
    line = case.name.startswith("llava")
    assert {one.compact for one in trace} == {positions == "compact" and line}


def test_the_row_by_hand_is_that_of_the_model(llava: Case) -> None:
    seen = []

    def look(line: Line, spots: list[list[int]]) -> list[list[int]] | None:
        expected = line.attention()[1][:, -1].mean(0).tolist()
        assert last_row(line) == pytest.approx(expected, abs=1e-6)
        seen.append(line.closed)
        return literal_pyramid((1, 3), 0.5, True)(line, spots)

    check(llava, PyramidDrop(layers=(1, 3)), lambda: look)
    assert True in seen


def test_positions_matter_to_what_is_said(llava: Case) -> None:
    inputs, found = llava.prompts.rows(1), []
    for positions in ("compact", "original"):
        method = PyramidDrop(ratio=0.4, layers=(1,), positions=positions)
        with prunus.prune(llava.model, method) as run, torch.no_grad():
            found.append(llava.model(**inputs).logits[:, -1])
        assert run.trace[0].compact == (positions == "compact")
    assert float((found[0] - found[1]).abs().max()) > 1e-3


@pytest.mark.parametrize("images", [(2, 1), (1,)])
def test_decode_steps_continue_closed_positions(case: Case, images: tuple[int, ...]) -> None:
    _, difference = decoded(case, PyramidDrop(ratio=0.3), case.prompts.rows(*images), 12)
    assert difference < 1e-4


def test_counts_are_shares_of_the_original_number_rounded_down() -> None:
    assert counts(PyramidDrop(), 10, 32) == (5, 2, 1)
    assert [cut.layer for cut in PyramidDrop().cuts(32)] == [8, 16, 24]
    assert (8 * 10 + 8 * 5 + 8 * 2 + 8 * 1) / 32 == 4.5
    assert counts(PyramidDrop(), 576, 32) == (288, 144, 72)
    method = PyramidDrop()
    assert Budget([method], 32).asked(method, 1, 576) == 270


@pytest.mark.parametrize(
    ("preset", "expected"), [("192", (145, 36, 9)), ("128", (223, 86, 33)), ("64", (92, 14, 2))]
)
def test_presets_average_what_they_say(preset: str, expected: tuple[int, ...]) -> None:
    method = PyramidDrop(**PyramidDrop.presets[preset])  # type: ignore[arg-type]
    found = counts(method, 576, 32)
    assert all(abs(a - b) <= 1 for a, b in zip(found, expected, strict=True))
    there = [576] * 32
    for cut, count in zip(method.cuts(32), found, strict=True):
        there[cut.layer :] = [count] * (32 - (cut.layer or 0))
    assert abs(sum(there) / 32 - int(preset)) <= 0.5


@pytest.mark.parametrize(("name", "first"), [("window", 1), ("alternating", 2)])
def test_refused_before_a_sliding_window(name: str, first: int) -> None:
    types = ["sliding_attention", "full_attention"] * 2
    options = {
        "window": {},
        "alternating": {
            "use_sliding_window": True,
            "max_window_layers": 0,
            "layer_types": types,
        },
    }
    decoder = Decoder("mistral" if name == "window" else "qwen2", name, options[name])
    model, call = model_of(decoder), prompt(1)
    before = plain(model, call)
    with prunus.prune(model, PyramidDrop(layers=(first,))):
        with pytest.raises(ValueError, match=f"positions up at decoder layer {first}.*window"):
            plain(model, call)
    assert torch.equal(plain(model, call), before)
    with prunus.prune(model, PyramidDrop(layers=(first,), positions="original")) as run:
        plain(model, call)
    assert run.report()["pruned"]
    if name == "alternating":  # behind the last layer with a window
        with prunus.prune(model, PyramidDrop(layers=(3,))) as run:
            plain(model, call)
        assert run.trace[0].compact


def test_refused_where_positions_jump(llava: Case) -> None:
    inputs = llava.prompts.rows(1)
    length = inputs["input_ids"].shape[1]
    ids = torch.arange(length)[None]
    starts = torch.cat([ids[:, :9], ids[:, : length - 9]], dim=1)
    before = plain(llava.model, {**inputs, "position_ids": starts})
    with prunus.prune(llava.model, Fixed([1, 2, 5], layer=1, compact=True)) as run:
        with pytest.raises(ValueError, match="position_ids jump within a row"):
            plain(llava.model, {**inputs, "position_ids": starts})
        # From another number on they are closed up all the same.
        later = plain(llava.model, {**inputs, "position_ids": ids + 40})
        assert run.trace[0].compact
        assert gap(later[:, -4:], plain(llava.model, inputs)[:, -4:]) < 1e-4
    assert torch.equal(plain(llava.model, {**inputs, "position_ids": starts}), before)


def test_refused(llava: Case) -> None:
    with pytest.raises(ValueError, match="name one or more"):
        PyramidDrop(layers=())
    for ratio in (0.0, 1.5, float("nan")):
        with pytest.raises(ValueError, match="ratio="):
            PyramidDrop(ratio=ratio)
    for layers, words in (
        ((1, DEPTH), f"cannot cut at layer {DEPTH}"),
        ((-1, 2), "cannot cut at layer -1"),
        ((3, 2), "increasing"),
    ):
        with pytest.raises(ValueError, match=words):
            prunus.prune(llava.model, PyramidDrop(layers=layers))
