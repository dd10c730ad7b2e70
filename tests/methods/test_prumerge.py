"""PruMerge and PruMerge+ against a literal reading, from the unmodified tower's own projections."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import prunus
from prunus import EvoPrune, Fixed
from prunus.errors import PrunusError
from prunus.grid import Grid, Tiles
from prunus.method.signals import Features, TowerAttention, TowerKeys
from prunus.pruners.prumerge import PruMerge
from prunus.signals.outliers import outliers
from tests.support.entering import entering, view_by_hand
from tests.support.facts import counts
from tests.support.literal.prumerge import merged
from tests.support.models import Case, case_of
from tests.support.oracles.merged_windows import frames_of, merged_frame
from tests.support.runs import gap, plain
from tests.support.towers import deep, prompt

SEEN = TowerAttention("next", heads="joined")
KEYS = TowerKeys("next", heads="joined")
SEES = (Features(), SEEN, KEYS)
Looked = tuple[Tensor, list[float], Tensor]


@torch.no_grad()
def looked(model: Any, pixels: Tensor, block: int = -1) -> list[Looked]:
    """Of each image by the unmodified tower: features that the projector reads, and of a ``block``
    weights and keys, all heads side by side; without CLS what tokens receive there."""
    tower, config, seen = model.model.vision_tower, model.config, {}
    has_cls = config.vision_config.model_type == "clip_vision_model"
    attention = tower.encoder.layers[block].self_attn
    handles = [
        getattr(attention, name).register_forward_hook(
            lambda module, args, output, name=name: seen.update({name: output})
        )
        for name in ("q_proj", "k_proj")
    ]
    tower.set_attn_implementation("eager")
    out = tower(pixels, output_hidden_states=True, output_attentions=True)
    tower.set_attn_implementation("sdpa")
    for handle in handles:
        handle.remove()
    found = []
    for image, states in enumerate(out.hidden_states[config.vision_feature_layer]):
        keys, maps = seen["k_proj"][image], out.attentions[block][image]
        if has_cls:
            query = seen["q_proj"][image, 0]
            logits = [float(query @ key) / len(query) ** 0.5 for key in keys]
            total = sum(np.exp(logits))
            weights = [float(np.exp(one) / total) for one in logits]
        else:
            weights = [
                float(sum(head[:, n].sum() for head in maps)) / len(maps) / len(keys)
                for n in range(len(keys))
            ]
        found.append((states[has_cls:], weights[has_cls:], keys[has_cls:]))
    return found


def places(names: Sequence[int], size: int) -> list[int]:
    """Where they stand: their own places, the sum in that of the first token that went."""
    free = min(n for n in range(size) if n not in names)
    return [free if name < 0 else name for name in names]


SETTINGS = {
    "adaptive": PruMerge(neighbours=5),
    "adaptive-plus": PruMerge(plus=True, neighbours=5),
    "one": PruMerge(keep=1),
    "few": PruMerge(keep=7, neighbours=3),
    "most": PruMerge(keep=35),
    "plus-one": PruMerge(keep=1, plus=True),
    "plus-two": PruMerge(keep=2, plus=True),
    "plus": PruMerge(keep=12, plus=True, neighbours=0),
    "plus-most": PruMerge(keep=35, plus=True),
}


@pytest.mark.parametrize("kind", ["clip", "siglip"])
@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize("order", ["original", "published"])
def test_reads_what_the_literal_reading_made(kind: str, name: str, order: Any) -> None:
    case, inputs, given = deep(kind), prompt(2), SETTINGS[name]
    method = PruMerge(given.keep, given.plus, given.neighbours, order)  # type: ignore[misc]
    run, states = entering(case, method, inputs)
    keep, start = given.keep, 2
    assert keep is None or isinstance(keep, int)
    for number, own in enumerate(looked(case.model, inputs["pixel_values"])):
        names, features = merged(*own, keep, given.plus, given.neighbours)  # type: ignore[arg-type]
        where, count = places(names, 36), len(names)
        assert keep is None or count == keep
        assert run.trace[0].kept[0][number].tolist() == sorted(where)
        line = range(count)
        read = line if order == "published" else sorted(line, key=where.__getitem__)
        with torch.no_grad():
            wanted = case.model.model.multi_modal_projector(torch.stack(features)[None])[0]
        assert gap(states[0, start : start + count], wanted[list(read)]) < 1e-5
        start += count
    assert states.shape[1] == start + 3


def test_the_published_example() -> None:
    """Of three patches 1, 2, 3 with the two nearest: 1 + .3 * 2 + .2 * 3, and the rest."""
    states = torch.tensor([[1.0], [2.0], [3.0]])
    view = view_by_hand(
        2,
        Grid(1, 1, 3, (8, 8)),
        states=states,
        attention=torch.tensor([0.5, 0.3, 0.2]),
        keys=torch.tensor([[1.0, 0], [1, 1], [0, 1]]),
        sees=SEES,
    )
    answer = PruMerge(keep=2, neighbours=2).select(0, view)
    assert answer.mix is not None and answer.kept[0].tolist() == [0, 1]
    assert (answer.mix[0] @ states).flatten().tolist() == pytest.approx([2.2, 1.2])


def view_of(values: Tensor, count: int | None, grid: Any = None) -> prunus.View:
    size = len(values)
    keys = torch.randn(size, 4, generator=torch.Generator().manual_seed(size))
    grid = Grid(1, 1, size, (8, 8)) if grid is None else grid
    return view_by_hand(count, grid, attention=values, keys=keys, sees=SEES)


def test_outliers_are_those_of_numpy() -> None:
    generator = torch.Generator().manual_seed(0)
    for size in (1, 2, 7, 36, 576):
        for _ in range(5):
            values = torch.randn(size, generator=generator).exp()
            low, high = np.percentile(values.double().numpy(), [25, 75])
            wanted = sum(float(one) > high + 1.5 * (high - low) for one in values)
            assert outliers(values) == wanted
    assert outliers(torch.full((20,), 0.05)) == 0


def test_counts_of_the_adaptive_forms() -> None:
    """72 outliers of 576: a stride of 8, thirds of which are 2; and what published code cannot."""
    values = torch.linspace(1e-4, 2e-4, 576)
    peaks = torch.arange(3, 576, 8)
    values[peaks] = 0.01
    plain_kept = PruMerge().select(0, view_of(values, None)).kept[0].tolist()
    assert len(plain_kept) == 73 and set(peaks.tolist()) < set(plain_kept)
    plus_kept = PruMerge(plus=True).select(0, view_of(values, None)).kept[0].tolist()
    strided = set(range(0, 575, 2)) | set(peaks.tolist())
    assert set(plus_kept) == strided | {1}
    even = torch.full((36,), 1 / 40)
    assert PruMerge().select(0, view_of(even, None)).kept[0].tolist() == [0]  # the sum of all
    assert PruMerge(plus=True).select(0, view_of(even, None)).kept[0].tolist() == [0, 1, 12, 24]
    many = even.clone()
    many[::4] = 1.0  # a quarter are none: the third quartile lies among them
    assert outliers(many) in (0, 9)
    most = torch.full((36,), 0.01)
    most[:8] = 0.1  # a stride of 4, of which thirds are 1: all but the last
    assert len(PruMerge(plus=True).select(0, view_of(most, None)).kept[0]) == 36


def test_presets_keep_what_they_say() -> None:
    for name, own in PruMerge.presets.items():
        method = PruMerge(**own)  # type: ignore[arg-type]
        if method.keep is None:
            assert method.counts(None, 576, 32) is None
            continue
        assert counts(method, 576) == (int(name.removeprefix("plus-")),)
        values = torch.rand(576, generator=torch.Generator().manual_seed(1))
        count = int(name.removeprefix("plus-"))
        kept = set(method.select(0, view_of(values, count)).kept[0].tolist())
        best = values.argsort(descending=True).tolist()
        assert len(kept) == count
        assert set(best[: (count - 1) // 2 if method.plus else count - 1]) < kept


def test_each_tile_is_an_image_of_its_own() -> None:
    tiles = Tiles((Grid(1, 2, 3, (8, 8)), Grid(1, 3, 4, (8, 8))))
    values = torch.rand(18, generator=torch.Generator().manual_seed(3))
    both = view_of(values, 9, tiles)
    answer = PruMerge(keep=9, neighbours=3).select(0, both)
    kept, start = answer.kept[0].tolist(), 0
    assert answer.mix is not None
    for part, count in zip(tiles.parts, (3, 6), strict=True):
        own = slice(start, start + part.size)
        names, sums = merged(
            list(torch.eye(part.size)),
            (values[own] / values[own].sum().clamp_min(1)).tolist(),
            list(both[KEYS][0, own]),
            count,
            neighbours=3,
        )
        where = [place + start for place in places(names, part.size)]
        rows = [kept.index(place) for place in where]
        assert gap(answer.mix[0][rows, own], torch.stack(sums)) < 1e-6
        others = answer.mix[0][rows].clone()
        others[:, own] = 0
        assert not bool(others.any())
        start += part.size
    assert len(kept) == 9
    few = PruMerge(keep=1).select(0, view_of(values, 1, tiles))  # only the larger one has a share
    assert few.kept[0].tolist() == [6]


def test_on_qwen_by_shares_of_attention_received() -> None:
    case = case_of("qwen2.5-vl-video")
    inputs = case.prompts.rows(2)
    tower, parts = case.model.model.visual, {}
    for kind, number, grid, pixels in frames_of(inputs, 2):
        seen: list[Any] = []
        with torch.no_grad():
            features, _ = merged_frame(tower, pixels, grid, seen.append)
        received = seen[-1].received.double()
        weights = (received / received.sum()).tolist()
        own = [features[n] for n in range(grid.size)]
        parts.setdefault((kind, number), []).append((own, weights))
    run, states = entering(case, PruMerge(keep=1, order="published"), inputs)
    spots = case.prompts.spots(inputs["input_ids"])[0]
    shift = 0
    for number, kind in enumerate(run.trace[0].kind[0]):
        frames = parts[kind, run.trace[0].kind[0][:number].count(kind)]
        features, weights = frames[0]  # one token: of the first frame, the sum of all
        wanted = sum(w * f for w, f in zip(weights, features, strict=True))
        assert run.trace[0].kept[0][number].tolist() == [0]
        assert gap(states[0, spots[number][0] - shift], wanted) < 1e-4
        shift += len(spots[number]) - 1


def test_the_last_block_where_it_is_the_one_that_is_read() -> None:
    case, inputs = deep(vision_feature_layer=-1), prompt(1)
    run, states = entering(case, PruMerge(keep=6, order="published"), inputs)
    (own,) = looked(case.model, inputs["pixel_values"])
    names, features = merged(*own, 6)  # type: ignore[arg-type]
    with torch.no_grad():
        wanted = case.model.model.multi_modal_projector(torch.stack(features)[None])[0]
    assert run.trace[0].kept[0][0].tolist() == sorted(places(names, 36))
    assert gap(states[0, 2:8], wanted) < 1e-5


def test_behind_a_merge_in_the_tower_the_block_behind_sees_the_survivors() -> None:
    case, inputs = deep(), prompt(1)
    first = EvoPrune(keep=20, schedule="mean", start=0)
    seen: list[Tensor] = []
    attention = case.model.model.vision_tower.encoder.layers[-1].self_attn
    handle = attention.k_proj.register_forward_hook(lambda m, a, o: seen.append(o))
    run, _ = entering(case, [first, PruMerge(keep=6)], inputs)
    handle.remove()
    assert seen[-1].shape[1] == 21  # with CLS
    left = set(run.trace[0].kept[0][0].tolist())
    assert len(run.trace[1].kept[0][0]) == 6 and set(run.trace[1].kept[0][0].tolist()) < left


@pytest.mark.parametrize("order", ["original", "published"])
@pytest.mark.parametrize("keep", [None, 6])
def test_a_replay_is_exact(case: Case, order: Any, keep: int | None) -> None:
    inputs = case.prompts.rows(2, 0, 1)
    with prunus.prune(case.model, PruMerge(keep=keep, plus=True, order=order)) as run:
        expected = plain(case.model, inputs)
    with prunus.prune(case.model, Fixed.replay(run.trace)):
        assert torch.equal(plain(case.model, inputs), expected)


def test_bad_parameters() -> None:
    for params, words in (({"neighbours": -1}, "neighbours=-1"), ({"keep": 0}, "keep=0")):
        with pytest.raises(PrunusError, match=words):
            PruMerge(**params)


@pytest.mark.parametrize("keep", [None, 6])
def test_nan_is_refused(keep: int | None) -> None:
    case, inputs = deep(), prompt(1)
    inputs["pixel_values"][0, 0, 0, 0] = float("nan")
    with pytest.raises(PrunusError, match="prumerge: scores hold NaN"):
        entering(case, PruMerge(keep=keep), inputs)
