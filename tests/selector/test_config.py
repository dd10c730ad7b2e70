"""Settings of selectors and of their training: what an arm presets, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from prunus.selector.config import SelectorConfig, TrainSettings

WIDTHS = {"visual_width": 12, "text_width": 10, "width": 8, "heads": 2}


@pytest.mark.parametrize(
    "wrong",
    [
        {"kind": "two-shot"},
        {"pointer": "self"},
        {"width": 9},
        {"heads": 3},
        {"temperature": 0.0},
        {"max_share": 0.0},
        {"max_share": 1.1},
        {"min_steps": -1},
        {"clip": -1.0},
        {"encoder_layers": -1},
        {"decoder_layers": 0},
    ],
    ids=str,
)
def test_selectors_that_cannot_be(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        SelectorConfig(**{**WIDTHS, **wrong})


def test_most_steps() -> None:
    config = SelectorConfig(**WIDTHS)
    assert [config.most(tokens) for tokens in (1, 3, 576)] == [1, 1, 288]  # T_max = N / 2
    assert SelectorConfig(**WIDTHS, max_share=0.1).most(576) == 57
    assert SelectorConfig(**WIDTHS, kind="one-shot", decoder_layers=0).kind == "one-shot"


def test_arms() -> None:
    stable, literal = TrainSettings(), TrainSettings(arm="literal")
    assert (stable.scores, stable.count, stable.noise) == ("log", "sample", "matched")
    assert (literal.scores, literal.count, literal.noise) == ("raw", "mean", "unit")
    assert literal.selector == {"min_steps": 0, "stop_bias": 0.0}
    mixed = TrainSettings(arm="literal", count="sample", selector={"min_steps": 4})
    assert (mixed.scores, mixed.count) == ("raw", "sample")
    assert mixed.selector == {"min_steps": 4, "stop_bias": 0.0}


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"arm": "bold"}, "arm='bold': choose stable or literal"),
        ({"aggregate": "mean"}, "aggregate='mean': choose one of full, alive"),
        ({"scores": "log2"}, "scores='log2'"),
        ({"count": "batch"}, "count='batch'"),
        ({"noise": "none"}, "noise='none'"),
        ({"beta": 0.0}, "beta=0.0"),
        ({"beta": 1.01}, "beta=1.01"),
        ({"steps": 0}, "steps=0"),
        ({"batch": 0}, "batch=0"),
        ({"keep": 0}, "keep=0"),
        ({"keep": 1.5}, "keep=1.5"),
        ({"max_steps": 0}, "max_steps=0"),
        ({"selector": {"kind": "one-shot"}}, "cannot stop by itself: give keep"),
        ({"selector": {"wide": 3}}, "no setting wide: it has causal_encoder, clip"),
        ({"selector": {"text_width": 3}}, "no setting text_width"),
    ],
    ids=str,
)
def test_trainings_that_cannot_be(wrong: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        TrainSettings(**wrong)


def test_booleans_are_no_counts() -> None:
    with pytest.raises(TypeError, match="keep=True"):
        TrainSettings(keep=True)
