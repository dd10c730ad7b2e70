"""FitPrune against a slow, literal reading of its formula, and of where published code prunes."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import prunus
from prunus.errors import PrunusError
from prunus.method.budget import Budget
from prunus.method.calibration import Calibration
from prunus.method.signals import Attention
from prunus.pruners.fitprune import RELEASED, FitPrune
from prunus.signals.schedule import left, stretched
from prunus.signals.topk import stable_topk
from tests.methods.test_signals import look
from tests.support.facts import counts
from tests.support.literal.clse import best
from tests.support.literal.inside import Literal, behind, check, drop, number_of
from tests.support.llava import DEPTH
from tests.support.models import Case
from tests.support.oracles.layered import Line, eager, entering
from tests.support.runs import decoded, plain


def scores_of(maps: Tensor, text: list[int], own: list[int]) -> list[float]:
    """Of a map ``[H, S, S]``: cross times self of the tokens in the slots ``own``, where ``text``
    are the slots of the text behind them."""
    found = []
    for column in own:
        cross = sum(max(float(one[row, column]) for one in maps) for row in text)
        self_ = sum(max(float(one[row, column]) for one in maps) for row in own) / len(own)
        found.append(cross * self_)
    return found


def literal_fit(method: FitPrune, sizes: set[int]) -> Literal:
    """In a batch with images of ``sizes`` tokens."""
    after = {size: (size, *counts(method, size, DEPTH)) for size in sizes}

    def cut(line: Line, spots: list[list[int]]) -> list[list[int]] | None:
        layer = line.layer
        if layer == 0 or all(own[layer] == own[layer - 1] for own in after.values()):
            return None
        maps, tokens = line.maps[layer - 1]
        kept = []
        for places in spots:
            there = number_of(line, places)
            own = [tokens.index(places[number]) for number in there]
            text = [tokens.index(one) for one in behind(line, tokens, places, spots)]
            count = after[len(places)][layer]
            if count < len(there):
                there = [there[slot] for slot in best(scores_of(maps, text, own), count)]
            kept.append(there)
        drop(line, spots, kept)
        return kept

    return cut


@pytest.mark.parametrize(
    "method",
    [
        FitPrune(),
        FitPrune(keep=0.6),
        FitPrune(deleted=(2, 0, 5, 1, 4), tokens=16),
        FitPrune(ratio=0.85),
    ],
    ids=["default", "keep", "own", "ratio"],
)
def test_equals_the_formula(case: Case, method: FitPrune) -> None:
    inputs = case.prompts.rows(2, 1)
    spots = case.prompts.spots(inputs["input_ids"])
    sizes = {len(places) for row in spots for places in row}
    check(case, method, lambda: literal_fit(method, sizes), inputs)


def test_numbers_of_the_specification() -> None:
    cross, own = torch.tensor([[0.4, 0.1]]), torch.tensor([[0.1, 0.5]])
    assert (cross * own)[0].tolist() == pytest.approx([0.04, 0.05])
    assert stable_topk(cross * own, 1).tolist() == [[1]]  # of two, 0 goes
    maps = torch.zeros(2, 4, 4)
    maps[0, 3, :2], maps[1, 3, :2] = torch.tensor([0.4, 0.05]), torch.tensor([0.1, 0.1])
    maps[0, 0, 0], maps[1, 1, :2] = 0.15, torch.tensor([0.05, 1.0])
    assert scores_of(maps, [3], [0, 1]) == pytest.approx([0.4 * 0.1, 0.1 * 0.5])


def test_the_largest_head_counts_in_each_row(llava: Case) -> None:
    """Not the head whose sum over rows is the largest."""
    inputs = llava.prompts.rows(1)
    [places] = llava.prompts.spots(inputs["input_ids"])[0]
    sees = (Attention(1, "visual", "max"), Attention(1, "visual", "each"))
    _, seen = look(llava, inputs, 2, *sees)
    llava.model.set_attn_implementation("eager")
    with torch.no_grad():
        maps = llava.model(**inputs, output_attentions=True).attentions[1][0]
    expected = maps.amax(0)[places][:, places].mean(0)
    assert float((seen[sees[0]][0] - expected).abs().max()) < 1e-6
    assert float((seen[sees[1]][0].amax(0) - expected).abs().max()) > 1e-4


# -- where published code prunes ---------------------------------------------------------------


def published(case: Case, inputs: dict[str, Tensor], deleted: tuple[int, ...]) -> Tensor:
    """Logits ``[V]`` of the last token of one prompt with one image, where tokens go *inside* each
    layer, between attention and MLP."""
    model = case.model
    [places] = case.prompts.spots(inputs["input_ids"])[0]
    tokens = list(range(inputs["input_ids"].shape[1]))
    with torch.no_grad(), eager(model):
        states = entering(model, inputs)[0]
        where = torch.arange(len(tokens))
        for number, block in enumerate(model.get_decoder().layers):
            rope = model.get_decoder().rotary_emb(states[None], where[tokens][None])
            mask = torch.full((len(tokens), len(tokens)), torch.finfo(states.dtype).min).triu(1)
            output, maps = block.self_attn(
                hidden_states=block.input_layernorm(states[None]),
                attention_mask=mask[None, None],
                position_embeddings=rope,
            )
            own = [tokens.index(place) for place in places if place in tokens]
            text = [tokens.index(one) for one in tokens if one > places[-1]]
            kept = best(scores_of(maps[0], text, own), len(own) - deleted[number])
            gone = {own[slot] for slot in range(len(own)) if slot not in kept}
            stay = [slot for slot in range(len(tokens)) if slot not in gone]
            states = states[stay] + output[0][stay]
            states = states + block.mlp(block.post_attention_layernorm(states))
            tokens = [tokens[slot] for slot in stay]
        logits: Tensor = model.lm_head(model.get_decoder().norm(states))
    return logits[-1]


@pytest.mark.parametrize("name", ["llava-clip", "llava-siglip"])
def test_dropping_before_the_next_layer_is_what_published_code_computes(name: str) -> None:
    from tests.support.models import case_of

    case = case_of(name)
    inputs, deleted = case.prompts.rows(1), (4, 3, 0, 5, 2)
    expected = published(case, inputs, deleted)
    with prunus.prune(case.model, FitPrune(deleted=deleted, tokens=16)) as run:
        found = plain(case.model, inputs)[0, -1]
    assert float((found - expected).abs().max()) < 1e-4
    assert run.report()["tokens"]["per_layer"] == [16, 12, 9, 9, 4]


def test_decode_steps(case: Case) -> None:
    _, difference = decoded(case, FitPrune(), case.prompts.rows(2, 1), 8)
    assert difference < 1e-4


# -- tables ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ratio", "attention", "mlp", "final"),
    [
        (0.6, 245.0, 230.9, 127),
        (0.7, 187.9, 172.6, 88),
        (0.8, 130.6, 114.5, 62),
        (0.9, 72.8, 56.0, 37),
    ],
)
def test_released_tables(ratio: float, attention: float, mlp: float, final: int) -> None:
    there, before, behind_ = 576, [], []
    for gone in RELEASED[ratio]:
        before.append(there)
        there -= gone
        behind_.append(there)
    assert there == final
    assert sum(before) / 32 == pytest.approx(attention, abs=0.06)
    assert sum(behind_) / 32 == pytest.approx(mlp, abs=0.06)
    method = FitPrune(**FitPrune.presets[f"{100 * ratio:.0f}"])
    assert counts(method, 576, 32) == tuple(behind_[:-1])
    assert [cut.layer for cut in method.cuts(32)] == list(range(1, 32))
    assert Budget([method], 32).asked(method, 1, 576) == pytest.approx(attention, abs=0.06)


@pytest.mark.parametrize("keep", [192, 128, 64])
@pytest.mark.parametrize("depth", [32, 28, 12])
def test_keep_is_the_average(keep: int, depth: int) -> None:
    found = counts(FitPrune(**FitPrune.presets[str(keep)]), 576, depth)
    assert abs((576 + sum(found)) / depth - keep) <= 0.5
    assert all(a >= b for a, b in itertools.pairwise(found))


def test_other_depths_and_sizes_have_the_same_curve() -> None:
    shares = left((1, 2, 3, 4), 20)
    assert shares == pytest.approx((0.95, 0.85, 0.7, 0.5))
    assert stretched(shares, 4) == pytest.approx(shares[:3])
    assert stretched(shares, 2) == pytest.approx([0.85])
    assert stretched(shares, 8) == pytest.approx([0.975, 0.95, 0.9, 0.85, 0.775, 0.7, 0.6])
    assert stretched(shares, 3) == pytest.approx([0.95 - 0.1 / 3, 0.85 - 2 / 3 * 0.15])
    five = counts(FitPrune(), 2880, 32)
    assert five == tuple(math.floor(5 * n + 1e-6) for n in counts(FitPrune(), 576, 32))


def test_a_layer_that_loses_nothing_is_not_looked_at(
    llava: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    from prunus.engine.views import ShownLayer

    looked, mean = [], ShownLayer.mean

    def counted(self: ShownLayer, rows: Any, heads: Any) -> Tensor:
        looked.append((self._number, rows))
        return mean(self, rows, heads)

    monkeypatch.setattr(ShownLayer, "mean", counted)
    with prunus.prune(llava.model, FitPrune(deleted=(0, 6, 0, 2, 0), tokens=16)) as run:
        plain(llava.model, llava.prompts.rows(1))
    assert looked == [(1, "text"), (1, "visual"), (3, "text"), (3, "visual")]
    assert [entry.layer for entry in run.trace] == [2, 4]


# -- what a calibration says -------------------------------------------------------------------


def test_a_table_that_was_made_for_another_depth_is_noted(llava: Case) -> None:
    inputs = llava.prompts.rows(1)
    own = FitPrune(deleted=(1,) * DEPTH, tokens=36)
    for method, noted in ((FitPrune(), True), (own, False)):
        with prunus.prune(llava.model, method) as run:
            plain(llava.model, inputs)
        assert len(run.report()["notes"]) == noted
        assert ("NOTE            fitprune is not calibrated" in str(run.report())) == noted
        assert (
            f"of 32 layers, and is read at the same parts of {DEPTH}" in str(run.report())
        ) == noted
    assert FitPrune().remark(32) is None


def test_a_calibration_is_its_table(tmp_path: Path, llava: Case) -> None:
    params: Any = {"deleted": [1, 5, 0, 2, 0], "tokens": 16}
    Calibration("fitprune", "tiny", DEPTH, params, {}).save(tmp_path / "fit.json")
    inputs = llava.prompts.rows(1)
    with prunus.prune(llava.model, "fitprune", calibration=str(tmp_path / "fit.json")) as run:
        found = plain(llava.model, inputs)
    assert run.report()["tokens"]["per_layer"] == [16, 15, 10, 10, 8]
    with prunus.prune(llava.model, FitPrune(deleted=(1, 5, 0, 2, 0), tokens=16)):
        assert torch.equal(plain(llava.model, inputs), found)
    with prunus.prune(
        llava.model, "fitprune", calibration=str(tmp_path / "fit.json"), keep=0.5
    ) as run:
        plain(llava.model, inputs)
    assert sum(run.report()["tokens"]["per_layer"]) / DEPTH == pytest.approx(8, abs=0.5)
    Calibration("fitprune", "deep", 32, {**params, "deleted": [1] * 32, "tokens": 576}, {}).save(
        tmp_path / "deep.json"
    )
    with pytest.raises(PrunusError, match="deep with 32 .* has 5: calibrate again"):
        prunus.prune(llava.model, "fitprune", calibration=str(tmp_path / "deep.json"))
    for bad, words in (
        ({"tokens": 16}, "lack deleted"),
        ({"deleted": [1, 2.5], "tokens": 16}, r"deleted=\[1, 2.5\] must be a number"),
        ({"deleted": [9, 9], "tokens": 16}, "takes 18 of tokens=16"),
    ):
        Calibration("fitprune", "tiny", DEPTH, bad, {}).save(tmp_path / "bad.json")  # type: ignore[arg-type]
        with pytest.raises(PrunusError, match=words):
            FitPrune(calibration=str(tmp_path / "bad.json"))


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"ratio": 1.0}, r"in \[0, 1\)"),
        ({"ratio": -0.1}, r"in \[0, 1\)"),
        ({"deleted": (1, 2)}, "belong together"),
        ({"tokens": 9}, "belong together"),
        ({"deleted": (1, 2), "tokens": 9, "ratio": 0.7}, "ratio and deleted are two tables"),
        ({"deleted": (1, -2), "tokens": 9}, "from 0 on"),
        ({"deleted": (), "tokens": 9}, "from 0 on"),
        ({"deleted": (5, 4), "tokens": 9}, "takes 9 of tokens=9"),
    ],
)
def test_refused(given: dict[str, Any], words: str) -> None:
    with pytest.raises(PrunusError, match=words):
        FitPrune(**given)


def test_refused_on_a_model(llava: Case) -> None:
    with pytest.raises(PrunusError, match="names 2 layers, the decoder has 5"):
        prunus.prune(llava.model, FitPrune(deleted=(1, 2), tokens=16))
    inputs = llava.prompts.rows(1)
    last = max(llava.prompts.spots(inputs["input_ids"])[0][0]) + 1
    inputs = {**inputs, **{n: inputs[n][:, :last] for n in ("input_ids", "attention_mask")}}
    with prunus.prune(llava.model, FitPrune()):
        with pytest.raises(PrunusError, match="no text stands behind an image"):
            plain(llava.model, inputs)
