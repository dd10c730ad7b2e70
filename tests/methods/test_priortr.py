"""PriorTR against a slow, literal reading of its formula, and against a real second pass."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import prunus
from prunus.errors import PrunusError
from prunus.method.budget import Budget
from prunus.method.signals import Attention
from prunus.pruners.priortr import PriorTR
from prunus.signals.contrast import contrast
from prunus.signals.topk import stable_topk
from tests.methods.test_signals import look
from tests.support.facts import counts
from tests.support.families import Kind
from tests.support.family_invariants import case_of, load
from tests.support.kinds import kinds
from tests.support.kinds.gemma3 import GEMMA3
from tests.support.kinds.paligemma import PALIGEMMA
from tests.support.literal.clse import best
from tests.support.literal.inside import Literal, behind, check, drop
from tests.support.models import Case
from tests.support.oracles.layered import Line
from tests.support.runs import decoded, plain

PER_TOKEN = ("input_ids", "attention_mask", "mm_token_type_ids", "token_type_ids")


def shares(weights: list[float]) -> list[float]:
    return [one / sum(weights) for one in weights]


def divergence(posterior: list[float], prior: list[float], eps: float) -> list[float]:
    return [p * math.log((p + eps) / (q + eps)) for p, q in zip(posterior, prior, strict=True)]


def literal_prior(keep: Any, layer: int, rows: str, eps: float = 1e-10) -> Literal:
    def cut(line: Line, spots: list[list[int]]) -> list[list[int]] | None:
        if line.layer != layer:
            return None
        maps, tokens = line.maps[layer - 1]
        kept = []
        for places in spots:
            text = behind(line, tokens, places, spots)
            asked = {"text": text, "but-last": text[:-1], "last": tokens[-1:]}[rows]

            def of(queries: list[int], places: list[int] = places) -> list[float]:
                found = []
                for place in places:
                    total = 0.0
                    for query in queries:
                        for head in range(len(maps)):
                            total += float(maps[head, tokens.index(query), tokens.index(place)])
                    found.append(total / len(maps) / len(queries))
                return shares(found)

            scores = divergence(of(asked), of(text[:1]), eps)
            count = keep if isinstance(keep, int) else int(keep * len(places))
            kept.append(best(scores, count))
        drop(line, spots, kept)
        return kept

    return cut


@pytest.mark.parametrize(
    ("keep", "layer", "rows"),
    [(5, 3, "text"), (0.3, 2, "but-last"), (7, 1, "last"), (1, 4, "text")],
)
def test_equals_the_formula(case: Case, keep: Any, layer: int, rows: Any) -> None:
    method = PriorTR(keep=keep, layer=layer, rows=rows)
    [entry] = check(case, method, lambda: literal_prior(keep, layer, rows))
    assert entry.trim_cache


def test_numbers_of_the_specification() -> None:
    posterior, prior = torch.tensor([0.5, 0.3, 0.2]), torch.tensor([0.25, 0.5, 0.25])
    scores = contrast(posterior, prior, 1e-10)
    assert scores.tolist() == pytest.approx([0.3466, -0.1532, -0.0446], abs=1e-4)
    assert stable_topk(scores, 2).tolist() == [0, 2]  # raw P gives 0 and 1
    assert stable_topk(posterior, 2).tolist() == [0, 1]
    assert contrast(3 * posterior, 7 * prior, 1e-10).tolist() == pytest.approx(scores.tolist())
    assert contrast(posterior, prior, 1e-10).sum() > 0  # a divergence
    half = contrast(posterior.half(), prior.half(), 1e-10)
    assert half.dtype == torch.float32 and half.tolist() == pytest.approx(scores.tolist(), abs=1e-3)
    assert torch.isfinite(contrast(torch.zeros(2, 4), prior.new_zeros(2, 4), 1e-10)).all()


def test_what_is_computed_and_what_is_cached() -> None:
    for keep, average in ((192, 228), (128, 170), (64, 112)):
        method = PriorTR(**PriorTR.presets[str(keep)])  # type: ignore[arg-type]
        assert counts(method, 576, 32) == (keep,)
        assert (3 * 576 + 29 * keep) / 32 == average
        (left,) = Budget([method], 32, "true").counts(method, 1, 576) or ()
        assert abs((3 * 576 + 29 * left) / 32 - keep) <= 0.5
    video = PriorTR(**PriorTR.presets["video-llava"])  # type: ignore[arg-type]
    (left,) = Budget([video], 32).counts(video, 8, 2048) or ()
    assert (3 * 2048 + 29 * left) / 32 == pytest.approx(367.8, abs=0.05)


@pytest.mark.parametrize("trim", [True, False])
def test_caches_hold_what_is_kept_in_all_layers(llava: Case, trim: bool) -> None:
    inputs = llava.prompts.rows(1)
    text = inputs["input_ids"].shape[1] - 16
    with prunus.prune(llava.model, PriorTR(keep=5, trim_cache=trim)), torch.no_grad():
        cache = llava.model(**inputs, use_cache=True).past_key_values
    lengths = [layer.keys.shape[2] for layer in cache.layers]
    assert lengths == ([text + 5] * 5 if trim else [text + 16] * 3 + [text + 5] * 2)


def test_positions_go_on_behind_the_whole_prompt(case: Case) -> None:
    _, difference = decoded(case, PriorTR(keep=4), case.prompts.rows(2, 1), 8)
    assert difference < 1e-4


def test_the_prior_sees_no_question(case: Case) -> None:
    """A row that is made without a mask would look ahead."""
    inputs = case.prompts.rows(1)
    other = {**inputs, "input_ids": inputs["input_ids"].clone()}
    other["input_ids"][0, -4:] = torch.tensor([11, 7, 5, 3])
    prior, question = Attention(2, "next"), Attention(2, "text")
    (_, one), (_, two) = (look(case, own, 3, prior, question) for own in (inputs, other))
    assert float((one[prior] - two[prior]).abs().max()) < 1e-7
    assert float((one[question] - two[question]).abs().max()) > 1e-4


# -- a second pass -----------------------------------------------------------------------------


def last_row(model: Any, inputs: dict[str, Tensor], layer: int, at: int) -> Tensor:
    """``[L]``, mean over heads, of the unmodified model."""
    before = model.config._attn_implementation
    model.set_attn_implementation("eager")
    with torch.no_grad():
        maps = model(**inputs, output_attentions=True, use_cache=False).attentions[layer]
    model.set_attn_implementation(before)
    found: Tensor = maps[0].float().mean(0)[at]
    return found


def cut_behind(inputs: dict[str, Tensor], end: int) -> dict[str, Tensor]:
    """The prompt up to and with the token at ``end``."""
    return {n: v[:, : end + 1] if n in PER_TOKEN else v for n, v in inputs.items()}


def assert_second_pass_chooses_alike(case: Case) -> None:
    inputs = case.prompts.rows(1)
    [places] = case.prompts.spots(inputs["input_ids"])[0]
    ids, config = inputs["input_ids"][0].tolist(), case.model.config
    holders = [getattr(config, f"{kind}_token_id", None) for kind in ("image", "video")]
    # Newlines behind the rows of a picture are placeholders, too, and no text.
    behind_it = [at for at, own in enumerate(ids) if at > max(places) and own not in holders]
    end = behind_it[0]
    assert len(behind_it) > 2
    own = last_row(case.model, cut_behind(inputs, end), 2, end)[places]
    assert float((own - last_row(case.model, inputs, 2, end)[places]).abs().max()) < 1e-6
    text = [
        last_row(case.model, inputs, 2, at)[places].tolist()
        for at in behind_it
        if bool(inputs["attention_mask"][0, at])
    ]
    posterior = shares([sum(column) for column in zip(*text, strict=True)])
    scores = divergence(posterior, shares(own.tolist()), 1e-10)
    with prunus.prune(case.model, "priortr@2f", keep=5) as run:
        plain(case.model, inputs)
    assert run.trace[0].kept[0][0].tolist() == best(scores, 5)


def test_the_two_pass_form_makes_the_same_choice(case: Case) -> None:
    assert_second_pass_chooses_alike(case)


def test_so_it_does_where_an_image_sees_itself_in_both_directions(tmp_path: Path) -> None:
    assert_second_pass_chooses_alike(case_of(GEMMA3, load(GEMMA3, tmp_path), "I"))


@pytest.mark.full
@pytest.mark.parametrize("kind", kinds(), ids=lambda kind: kind.name)
def test_so_it_does_on_every_family_that_is_not_refused(kind: Kind, tmp_path: Path) -> None:
    case = case_of(kind, load(kind, tmp_path), "I")
    try:
        with prunus.prune(case.model, "priortr@2f", keep=5):
            plain(case.model, case.prompts.rows(1))
    except PrunusError as error:
        pytest.skip(f"refused: {error}")
    assert_second_pass_chooses_alike(case)


def test_refused_where_an_image_sees_the_question(tmp_path: Path) -> None:
    case = case_of(PALIGEMMA, load(PALIGEMMA, tmp_path), "I")
    inputs = case.prompts.rows(1)
    [places] = case.prompts.spots(inputs["input_ids"])[0]
    end = max(places) + 1
    own = last_row(case.model, cut_behind(inputs, end), 2, end)[places]
    assert float((own - last_row(case.model, inputs, 2, end)[places]).abs().max()) > 1e-4
    before = plain(case.model, inputs)
    with prunus.prune(case.model, PriorTR(keep=5)):
        with pytest.raises(PrunusError, match="no row of attention is free of the question"):
            plain(case.model, inputs)
    assert torch.equal(plain(case.model, inputs), before)


def test_refused(llava: Case) -> None:
    with pytest.raises(ValueError, match="some layer must have run before"):
        PriorTR(layer=0)
    with pytest.raises(ValueError, match="give a number above 0"):
        PriorTR(eps=0.0)
    inputs = llava.prompts.rows(1, text=1)
    with prunus.prune(llava.model, PriorTR(keep=5, rows="but-last")):
        with pytest.raises(ValueError, match="a single token of text"):
            plain(llava.model, inputs)
    with prunus.prune(llava.model, PriorTR(keep=5)) as run:
        plain(llava.model, inputs)
    assert run.trace[0].kept[0][0].tolist() == [0, 1, 2, 3, 4]  # P is Q: all alike
