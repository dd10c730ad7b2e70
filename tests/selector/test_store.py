"""Selectors on disk: what comes back, and what is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from prunus import OneShot, PrunusError, Stepwise
from prunus.families import family_of
from prunus.method.question import QuestionMarks
from prunus.method.view import Facts
from prunus.selector import store
from prunus.selector.selector import Selector
from prunus.selector.store import (
    CARD,
    WEIGHTS,
    Card,
    find_selector,
    load_selector,
    save_selector,
    shipped,
)
from tests.support.kinds.internvl import INTERNVL
from tests.support.llava import llava_clip
from tests.support.qwen import qwen
from tests.support.random_selectors import selector_for


@pytest.fixture(scope="module")
def model() -> Facts:
    return family_of(llava_clip())


def card_of(model: Facts, **more: Any) -> Card:
    marks = QuestionMarks((5, 6), (7,), (100,))
    return Card("tiny", model.fingerprint().tolist(), marks, **more)


def saved(folder: Path, model: Facts, **config: Any) -> Selector:
    selector, _ = selector_for(model, **config)
    save_selector(folder, selector, card_of(model))
    return selector


def edited(folder: Path, **changes: Any) -> None:
    """The card with entries replaced, or removed (None)."""
    card = json.loads((folder / CARD).read_text())
    card = {name: value for name, value in {**card, **changes}.items() if value is not None}
    (folder / CARD).write_text(json.dumps(card))


@pytest.mark.parametrize("kind", ["stepwise", "one-shot"])
def test_round_trip(tmp_path: Path, model: Facts, kind: Any) -> None:
    folder = tmp_path / "new" / "folder"
    selector, _ = selector_for(model, kind=kind, pointer="cross", clip=3.5, max_share=0.25)
    card = card_of(model, training={"steps": 7, "arm": "stable"}, biases={"0.11": -1.5})
    save_selector(folder, selector, card)
    loaded, read = load_selector(str(folder), model)
    assert loaded.config == selector.config and read == card
    state, expected = loaded.state_dict(), selector.state_dict()
    assert list(state) == list(expected)
    assert all(torch.equal(state[name], value) for name, value in expected.items())
    assert not loaded.training and not any(w.requires_grad for w in loaded.parameters())
    assert sorted(path.name for path in folder.iterdir()) == sorted([CARD, WEIGHTS])


def test_saving_again_replaces(tmp_path: Path, model: Facts) -> None:
    saved(tmp_path, model)
    second = saved(tmp_path, model, seed=3)
    loaded, _ = load_selector(tmp_path, model)
    assert torch.equal(loaded.pointer.start, second.pointer.start)  # type: ignore[union-attr]


def test_without_marks(tmp_path: Path, model: Facts) -> None:
    save_selector(tmp_path, *selector_for(model))
    assert load_selector(tmp_path, model)[1].marks is None


def test_weights_in_half_precision_load_as_float32(tmp_path: Path, model: Facts) -> None:
    saved(tmp_path, model)
    halved = {name: value.half() for name, value in load_file(tmp_path / WEIGHTS).items()}
    save_file(halved, tmp_path / WEIGHTS)
    loaded, _ = load_selector(tmp_path, model)
    assert {weight.dtype for weight in loaded.parameters()} == {torch.float32}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_the_model_may_be_in_half_precision(
    tmp_path: Path, model: Facts, dtype: torch.dtype
) -> None:
    saved(tmp_path, model)
    load_selector(tmp_path, family_of(llava_clip().to(dtype)))


@pytest.mark.parametrize("where", ["vision_tower", "language_model"])
def test_a_model_with_other_weights(tmp_path: Path, model: Facts, where: str) -> None:
    saved(tmp_path, model)
    other = llava_clip()
    with torch.no_grad():
        for weight in getattr(other.model, where).parameters():
            weight.add_(0.05 * torch.randn_like(weight))
    with pytest.raises(ValueError, match=r"trained for tiny: this model has other weights"):
        load_selector(tmp_path, family_of(other))


def test_a_model_of_other_widths(tmp_path: Path, model: Facts) -> None:
    saved(tmp_path, model)
    words = r"trained for tiny: it reads features of width 32 and words of 64, .* has 64 and 64"
    with pytest.raises(ValueError, match=words):
        load_selector(tmp_path, family_of(qwen()))


@pytest.mark.parametrize("missing", [None, CARD, WEIGHTS])
def test_nothing_there(tmp_path: Path, model: Facts, missing: str | None) -> None:
    folder = tmp_path / "selector"
    if missing:
        saved(folder, model)
        (folder / missing).unlink()
    with pytest.raises(ValueError, match=r"no selector in .*selector.*prunus train stepwise"):
        load_selector(folder, model)


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "3", '"format"', "null", '{"format": 1}', '{"format": 1, "selector": []}'],
)
def test_a_card_that_is_none(tmp_path: Path, model: Facts, text: str) -> None:
    saved(tmp_path, model)
    (tmp_path / CARD).write_text(text)
    with pytest.raises(ValueError, match="is no selector's card"):
        load_selector(tmp_path, model)


@pytest.mark.parametrize(
    "changes",
    [
        {"format": 2},
        {"format": None},
        {"selector": None},
        {"selector": {"visual_width": 32, "text_width": 64, "wide": 3}},
        {"selector": {"visual_width": 32, "text_width": 64, "width": 7}},
        {"marks": {"opening": [1]}},
        {"marks": [1, 2]},
        {"fingerprint": None},
        {"fingerprint": [[1.0], [2.0, 3.0]]},
        {"fingerprint": "none"},
        {"surprise": 1},
    ],
    ids=str,
)
def test_a_card_with_wrong_entries(tmp_path: Path, model: Facts, changes: dict[str, Any]) -> None:
    saved(tmp_path, model)
    edited(tmp_path, **changes)
    with pytest.raises(ValueError, match="is no selector's card"):
        load_selector(tmp_path, model)


def test_weights_that_are_none(tmp_path: Path, model: Facts) -> None:
    saved(tmp_path, model)
    whole = (tmp_path / WEIGHTS).read_bytes()
    for content in (b"", whole[:-8], b"{}" * 40):
        (tmp_path / WEIGHTS).write_bytes(content)
        with pytest.raises(ValueError, match=r"selector.safetensors.*cannot be read"):
            load_selector(tmp_path, model)


def test_weights_of_another_shape(tmp_path: Path, model: Facts) -> None:
    saved(tmp_path, model)
    saved(tmp_path / "wider", model, width=32)
    (tmp_path / WEIGHTS).write_bytes((tmp_path / "wider" / WEIGHTS).read_bytes())
    with pytest.raises(ValueError, match=r"selector.safetensors.*cannot be read"):
        load_selector(tmp_path, model)


def test_shipped_selectors(tmp_path: Path, model: Facts, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "files", lambda package: tmp_path / package)
    with pytest.raises(
        ValueError, match=r"no selector 'stepwise' .*there is one for no model.*--m"
    ):
        find_selector("stepwise", model)
    other = family_of(qwen())
    folders = {
        "m1/stepwise": (other, {}),
        "m2/one-shot": (model, {"kind": "one-shot"}),
        "m2/small": (model, {"width": 8}),
        "m2/stepwise": (model, {}),
    }
    for name, (facts, config) in folders.items():
        card = Card(name, facts.fingerprint().tolist(), None)
        weights = tmp_path / "prunus.selector" / "weights"
        save_selector(weights / name, selector_for(facts, **config)[0], card)
    assert shipped() == ["one-shot", "small", "stepwise"]
    for name in shipped():
        assert find_selector(name, model)[1].model == f"m2/{name}"
    with pytest.raises(ValueError, match=r"no selector 'one-shot' .*there is one for m2/one-shot"):
        find_selector("one-shot", other)
    for method, expected in (
        (Stepwise(), "m2/stepwise"),
        (Stepwise(selector="small"), "m2/small"),
        (OneShot(), "m2/one-shot"),
    ):
        assert method.bind(model).loaded[1].model == expected  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match="stepwise needs a stepwise selector.*method 'one-shot'"):
        Stepwise(selector="one-shot").bind(model)
    with pytest.raises(ValueError, match="no selector in 'large'"):
        Stepwise(selector="large").bind(model)


def test_none_ships_for_a_random_model(model: Facts) -> None:
    with pytest.raises(ValueError, match="no selector 'stepwise' for this model ships with prunus"):
        Stepwise().bind(model)


def test_biases_by_share() -> None:
    card = Card("m", [], None, biases={"0.3333": -1.0, "0.111": 2.0})
    assert card.bias_for(1 / 3) == -1.0 and card.bias_for(0.1111) == 2.0
    with pytest.raises(ValueError, match=r"mean of 0.25 .*there is 0.3333, 0.111.*--keep 0.25"):
        card.bias_for(0.25)
    with pytest.raises(ValueError, match=r"there is none"):
        Card("m", [], None).bias_for(0.25)


# -- cards and weights that belong to nothing -------------------------------------------------


NUMBERS = [
    *(0, -1, 10**9, 10**30, 10**400, 2.5, float("nan"), float("inf"), -float("inf")),
    *("8", True, None, [], {}),
]


#: What of these numbers is allowed for settings that do not change the weights.
ALLOWED: dict[str, list[Any]] = {
    "encoder_layers": [],
    "min_steps": [0, 10**9],
    "clip": [0, 10**9, 10**30, 2.5],
    "temperature": [10**9, 10**30, 2.5],
    "stop_bias": [0, -1, 10**9, 10**30, 2.5],
    "causal_encoder": [True],
}


@pytest.mark.parametrize(
    "name",
    [
        *("visual_width", "text_width", "width", "heads", "mlp_ratio", "encoder_layers"),
        *("decoder_layers", "min_steps", "clip", "temperature", "stop_bias", "max_share"),
        *("causal_encoder", "kind", "pointer"),
    ],
)
def test_a_card_is_checked_before_anything_is_built(
    tmp_path: Path, model: Facts, name: str
) -> None:
    saved(tmp_path, model)
    before = json.loads((tmp_path / CARD).read_text())["selector"]
    taken, messages = [], []
    for value in NUMBERS:
        edited(tmp_path, selector={**before, name: value})
        try:
            load_selector(tmp_path, model)
            taken.append(value)
        except PrunusError as error:
            messages.append(str(error))
    assert not any("\n" in message for message in messages)
    assert list(map(repr, taken)) == list(map(repr, ALLOWED.get(name, [])))


@pytest.mark.parametrize(
    "changes",
    [
        {"format": True},
        {"format": 1.0},
        {"format": "1"},
        {"model": 3},
        {"training": []},
        {"training": None},
        {"biases": {"0.1": float("nan")}},
        {"biases": {"0.1": True}},
        {"biases": {"0.1": "1"}},
        {"biases": {"nan": 1.0}},
        {"biases": {"tenth": 1.0}},
        {"biases": {"-1": 1.0}},
        {"biases": [1]},
        {"fingerprint": [[float("nan")] * 64]},
        {"fingerprint": [[True] * 64]},
        {"fingerprint": [["1"] * 64]},
        {"fingerprint": [1.0]},
        {"fingerprint": {}},
        {"marks": {"opening": [1.5], "closing": [2], "skip": [3]}},
        {"marks": {"opening": [True], "closing": [2], "skip": [3]}},
        {"marks": {"opening": ["1"], "closing": [2], "skip": [3]}},
        {"marks": {"opening": "123", "closing": [2], "skip": [3]}},
        {"marks": {"opening": [-1], "closing": [2], "skip": [3]}},
        {"marks": {"opening": [10**30], "closing": [2], "skip": [3]}},
        {"weights": 3},
    ],
    ids=str,
)
def test_other_entries_of_a_card(tmp_path: Path, model: Facts, changes: dict[str, Any]) -> None:
    saved(tmp_path, model)
    card = json.loads((tmp_path / CARD).read_text())
    (tmp_path / CARD).write_text(json.dumps({**card, **changes}))
    with pytest.raises(PrunusError, match=r"selector.json' is no selector's card"):
        load_selector(tmp_path, model)


@pytest.mark.parametrize("content", [b"[" * 100_000, b"\xff", b'{"format": "\\ud800"}'])
def test_cards_that_are_no_json(tmp_path: Path, model: Facts, content: bytes) -> None:
    saved(tmp_path, model)
    (tmp_path / CARD).write_bytes(content)
    with pytest.raises(PrunusError, match="is no selector's card"):
        load_selector(tmp_path, model)


def test_no_fingerprint_fits_when_numbers_are_none(tmp_path: Path, model: Facts) -> None:
    saved(tmp_path, model)
    broken = llava_clip()
    with torch.no_grad():
        for weight in broken.parameters():
            weight.fill_(float("nan"))
    with pytest.raises(PrunusError, match="other weights"):
        load_selector(tmp_path, family_of(broken))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers(tmp_path: Path, model: Facts, value: float) -> None:
    selector, card = selector_for(model)
    with torch.no_grad():
        next(selector.parameters()).view(-1)[0] = value
    save_selector(tmp_path, selector, card)
    with pytest.raises(PrunusError, match="NaN or infinity in"):
        load_selector(tmp_path, model)


def test_weights_and_card_belong_together(tmp_path: Path, model: Facts) -> None:
    saved(tmp_path / "a", model)
    saved(tmp_path / "b", model, seed=3)
    for name in (WEIGHTS, CARD):
        mixed = tmp_path / name
        mixed.mkdir()
        for own in (WEIGHTS, CARD):
            source = tmp_path / ("b" if own == name else "a") / own
            (mixed / own).write_bytes(source.read_bytes())
        with pytest.raises(PrunusError, match="not saved together"):
            load_selector(mixed, model)
    edited(tmp_path / "a", weights=None)  # an old card beside new weights
    with pytest.raises(PrunusError, match="not saved together"):
        load_selector(tmp_path / "a", model)


def test_a_bit_that_flipped_in_the_weights(tmp_path: Path, model: Facts) -> None:
    saved(tmp_path, model)
    content = bytearray((tmp_path / WEIGHTS).read_bytes())
    content[-5] ^= 1
    (tmp_path / WEIGHTS).write_bytes(content)
    with pytest.raises(PrunusError, match="not saved together"):
        load_selector(tmp_path, model)


def test_selectors_from_before_there_were_hashes_load(tmp_path: Path, model: Facts) -> None:
    selector = saved(tmp_path, model)
    edited(tmp_path, weights=None)
    save_file(selector.state_dict(), tmp_path / WEIGHTS)
    load_selector(tmp_path, model)


def test_figures_that_are_no_numbers_are_null(tmp_path: Path, model: Facts) -> None:
    selector, card = selector_for(model)
    save_selector(tmp_path, selector, replace(card, training={"loss": float("nan"), "a": [1.5]}))
    assert load_selector(tmp_path, model)[1].training == {"loss": None, "a": [1.5]}


@pytest.mark.parametrize("place", ["~nobody/x", "x" * 5000, "a\0b", "\ud800", ""])
def test_names_that_no_folder_has(model: Facts, place: str) -> None:
    with pytest.raises(PrunusError, match="no selector in"):
        load_selector(place, model)
    with pytest.raises(PrunusError, match="no selector"):
        Stepwise(selector=place).bind(model)


def test_a_fingerprint_passes_over_weights_that_are_too_few() -> None:
    """As InternVL's CLS token, which stands before its patches."""
    model = INTERNVL.build()[0]
    first = next(model.model.vision_tower.parameters())
    assert first.numel() < 64
    assert family_of(model).fingerprint().shape == (2, 64)
