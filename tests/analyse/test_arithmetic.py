"""Every number in the tables against a slow, literal computation."""

import itertools
import json
import math
import statistics

import numpy as np
import pytest
import torch

from prunus.analyse.ablations import layers_of
from prunus.analyse.auroc import pairs_fact
from prunus.analyse.fusion import can_leave
from prunus.analyse.intervals import mean_over_images
from prunus.analyse.knockout import DEEP, SHALLOW, cells, plateau, visited
from prunus.analyse.measure import Measured, divergence, pooled
from prunus.analyse.objects import known, shown
from prunus.analyse.overlap import by_chance, mean_pairwise
from prunus.analyse.positions import binned, kept
from prunus.analyse.result import Picture, Result, Table, plain
from prunus.analyse.signals import Notes
from prunus.analyse.sinks import attended, low_norm
from prunus.analyse.spectral import high_share
from prunus.evaluate.evidence import shows_object
from prunus.grid import Grid, Tiles
from prunus.results.stats import auroc
from prunus.tasks.evalset import load_evalset
from prunus.tasks.evalset.videos import load_video_evalset
from prunus.tasks.scenes import CANVAS, object_coverage
from prunus.tasks.videos import actor_coverage


def test_auroc_counts_pairs() -> None:
    rng = np.random.default_rng(0)
    scores = np.round(rng.random(40), 1)  # with ties
    positive = rng.random(40) < 0.3
    wins = [
        1.0 if high > low else 0.5 if high == low else 0.0
        for high in scores[positive]
        for low in scores[~positive]
    ]
    assert auroc(scores, positive) == pytest.approx(sum(wins) / len(wins))


def test_sinks_are_small_and_looked_at() -> None:
    generator = torch.Generator().manual_seed(0)
    norms = torch.rand(64, generator=generator) + 0.2
    weights = torch.rand(64, generator=generator) ** 12
    median = statistics.median(norms.tolist())
    assert low_norm(norms).tolist() == [norm < 0.6 * median for norm in norms.tolist()]
    mean, spread = statistics.fmean(weights.tolist()), statistics.pstdev(weights.tolist())
    assert attended(weights).tolist() == [weight > mean + 3 * spread for weight in weights.tolist()]
    assert low_norm(norms).any() and attended(weights).any()


def test_overlap_of_the_best_tokens() -> None:
    generator = torch.Generator().manual_seed(1)
    scores = [torch.rand(30, generator=generator) for _ in range(4)]
    values = []
    for one, other in itertools.combinations(scores, 2):
        first = set(sorted(range(30), key=lambda n: -one[n])[:10])
        second = set(sorted(range(30), key=lambda n: -other[n])[:10])
        values.append(len(first & second) / len(first | second))
    assert mean_pairwise(scores) == pytest.approx(statistics.fmean(values))
    assert mean_pairwise([scores[0], scores[0]]) == 1.0


def test_overlap_by_chance_is_that_of_all_pairs_of_sets() -> None:
    sets = [set(chosen) for chosen in itertools.combinations(range(6), 3)]
    values = [len(a & b) / len(a | b) for a in sets for b in sets]
    assert by_chance(6, 3) == pytest.approx(statistics.fmean(values))
    assert by_chance(4, 10) == 1.0  # there are no more than four


def test_divergence_is_torchs() -> None:
    generator = torch.Generator().manual_seed(2)
    first, second = (torch.randn(5, 9, generator=generator).log_softmax(-1) for _ in range(2))
    wanted = torch.nn.functional.kl_div(second, first, reduction="none", log_target=True).sum(-1)
    found = divergence(first.numpy(), second.numpy())
    assert found == pytest.approx(wanted.numpy(), rel=1e-5)
    assert divergence(first.numpy(), first.numpy()).tolist() == [0.0] * 5
    never = np.array([[0.0, -np.inf]], dtype=np.float32)  # a token that cannot come
    assert divergence(never, np.log(np.array([[0.5, 0.5]]))) == pytest.approx(math.log(2))


def test_interval_over_images() -> None:
    rng = np.random.default_rng(3)
    luck = rng.random(60)
    images = np.repeat(np.arange(60), 3)
    values = luck[images] + 0.1 * rng.random(180)
    found = mean_over_images(values, images)
    assert found.value == pytest.approx(values.mean())
    # means of images are the independent values: their normal interval is close
    half = 1.96 * luck.std(ddof=1) / math.sqrt(60)
    assert found.high - found.value == pytest.approx(half, rel=0.2)
    assert found.value - found.low == pytest.approx(half, rel=0.2)
    assert mean_over_images(values, images) == found, "the same numbers every time"
    rare = np.where(np.arange(180) % 60 == 0, 1.0, 0.0)
    assert mean_over_images(rare, images).low >= 0


def test_interval_of_what_is_missing() -> None:
    one = mean_over_images(np.array([1.0, 2.0]), np.array([7, 7]))
    assert one.value == 1.5 and math.isnan(one.low) and math.isnan(one.high)
    nothing = mean_over_images(np.array([np.nan]), np.array([0]))
    assert math.isnan(nothing.value)
    left = mean_over_images(np.array([1.0, np.nan, 3.0]), np.array([0, 1, 2]))
    assert left.value == 2.0
    with pytest.raises(ValueError, match="one each"):
        mean_over_images(np.zeros(2), np.zeros(3, dtype=np.int64))


def test_objects_on_a_grid() -> None:
    scenes = [item.scene for item in load_evalset()[:5]]
    for scene in scenes:
        grid = Grid(1, 24, 24, (8, 8))
        assert shown(scene, grid).tolist() == shows_object(scene, 24, 24).tolist()
        each = [shown(scene, grid, [number]) for number in range(len(scene.objects))]
        assert np.logical_or.reduce(each).tolist() == shown(scene, grid).tolist()
        assert not shown(scene, grid, []).any()
    rough = Grid(1, 7, 7, (28, 28))  # 7 does not divide 192, and no object fills its cells
    for number, item in enumerate(scenes[0].objects):
        left, top = (int(place * 7 / CANVAS) for place in item.center)
        cells = [divmod(cell, 7) for cell in np.flatnonzero(shown(scenes[0], rough, [number]))]
        assert cells and all(abs(row - top) <= 1 and abs(col - left) <= 1 for row, col in cells)
    with pytest.raises(ValueError, match="2 frames"):
        shown(scenes[0], Grid(2, 4, 4, (8, 8)))


def test_objects_in_slices_and_tiles() -> None:
    video, scene = load_video_evalset()[0].scene, load_evalset()[0].scene
    slices = Grid(4, 6, 6, (16, 16))
    cover = actor_coverage(video, 6, 6)
    wanted = (cover >= np.minimum(0.3, cover.max(axis=(1, 2, 3), keepdims=True))) & (cover > 0)
    assert shown(video, slices).tolist() == wanted.any(axis=0).flatten().tolist()
    tiles = Tiles((Grid(1, 4, 4, (8, 8)), Grid(1, 6, 6, (8, 8))))
    cover = np.concatenate([object_coverage(scene, n, n).reshape(-1, n * n) for n in (4, 6)], 1)
    wanted = cover >= np.minimum(0.3, cover.max(axis=1, keepdims=True))
    assert shown(scene, tiles).tolist() == wanted.any(axis=0).tolist()
    assert known(video, slices) and known(scene, tiles) and known(scene, tiles.parts[0])
    assert not known(video, Grid(8, 6, 6, (16, 16))) and not known(scene, slices)
    assert not known(None, slices)


def test_layers_where_intensity_finds_objects() -> None:
    rows = [
        {
            "score": f"intensity, {name}",
            "layer": layer,
            **{"objects": value, "objects_low": value - 0.05, "objects_high": value + 0.05},
        }
        for name, values in (
            ("global", (0.9, 0.8, 0.52, 0.7, 0.3)),
            ("adjacent", (0.5, 0.5, 0.5, 0.5, 0.51)),
        )
        for layer, value in enumerate(values, 1)
    ]
    told = pairs_fact(rows)
    assert (
        "layer 0 better than chance at layers 1-2, 4 and worse at layer 5 (best at layer 1," in told
    )
    assert "the layer before better than chance at no layer and worse at no layer" in told


def made_up(tokens: int = 12) -> Notes:
    generator = torch.Generator().manual_seed(4)

    def rows(count: int) -> list[torch.Tensor]:
        return [torch.rand(tokens, generator=generator) for _ in range(count)]

    moved = {"global": rows(2), "adjacent": rows(2)}
    grid = Grid(1, 3, tokens // 3, (8, 8))
    looked = [rows(2) for _ in range(4)]
    return Notes(grid, rows(3), rows(3), rows(3), moved, *looked, turned=rows(2))


def test_scores_of_a_layer() -> None:
    note = made_up()
    scores = note.scores(2)
    for name, reference in (("global", note.spectrum[0]), ("adjacent", note.spectrum[1])):
        mean = reference.mean()
        for n in range(12):
            change = abs(note.spectrum[2][n] - reference[n]) / (reference[n] + mean + 1e-6)
            assert scores[f"intensity, {name}"][n] == pytest.approx(min(1.0, float(change)))
    assert torch.equal(scores["residual, adjacent"], note.moved["adjacent"][1])
    assert torch.equal(scores["mean, global"], (note.level[2] - note.level[0]).abs())
    assert torch.equal(scores["attention"], note.attention[1])
    assert torch.equal(scores["influence"], note.change[1])
    assert torch.equal(scores["content"], note.spectrum[2])
    assert torch.equal(scores["growth"], (note.spectrum[2] - note.spectrum[0]).abs())
    assert torch.equal(scores["turn"], note.turned[1])
    intensity = scores["intensity, global"]
    z = (intensity - intensity.mean()) / (intensity.std() + 1e-6)
    assert torch.allclose(scores["hybrid"], torch.sigmoid(z / 0.1) * note.attention[1])


def test_high_frequency_share() -> None:
    note = made_up()
    assert high_share(note, 1) == pytest.approx(
        float(note.spectrum[1].sum() / note.amplitude[1].sum())
    )
    some = np.arange(12) < 5
    assert high_share(note, 1, some) == pytest.approx(
        float(note.spectrum[1][:5].sum() / note.amplitude[1][:5].sum())
    )
    assert math.isnan(high_share(note, 1, np.zeros(12, dtype=bool)))


def test_kept_positions() -> None:
    note = made_up()
    mask = kept(note, "attention", keep=0.25)
    best = sorted(range(12), key=lambda n: -note.attention[0][n])[:3]
    assert sorted(np.flatnonzero(mask)) == sorted(best)
    among = np.array([True] * 6 + [False] * 3 + [True] * 3)
    shares = binned(mask, among, 4)
    for part in range(4):
        own = [n for n in range(12) if n * 4 // 12 == part and among[n]]
        wanted = statistics.fmean(mask[own]) if own else math.nan
        assert shares[part] == pytest.approx(wanted, nan_ok=True)


def test_plateaus() -> None:
    growing = [{"accuracy": share, "last": n} for n, share in enumerate([0.9, 0.89, 0.8, 0.9])]
    assert plateau(growing, 0.9, "accuracy") == growing[1]
    assert plateau(growing[2:], 0.9, "accuracy") is None
    leaving = [{"accuracy": s, "layer": n} for n, s in enumerate([0.2, 0.9, 0.5, 0.88, 0.9])]
    assert can_leave(leaving, 0.9, "accuracy") == 3
    assert can_leave([{"accuracy": 0.1, "layer": 0}], 0.9, "accuracy") is None


def test_layers_that_are_visited() -> None:
    assert visited(0, 12) == list(range(12))
    deep = visited(1, 80)
    assert deep[0] == 1 and deep[-1] == 79 and len(deep) == 16 == len(set(deep))
    assert layers_of(12) == [1, 2, 3, 5, 7, 9]
    assert layers_of(32) == [1, 2, 3, 13, 19, 24] and layers_of(2) == [1]
    with pytest.raises(ValueError, match="no layers to visit"):
        visited(5, 5)


def test_ranges_of_the_knockout() -> None:
    depth = 4
    for cell in cells(depth):
        edited = sorted(layer for method in cell.setting for layer in method.edits(depth))
        assert edited == list(range(cell.first, cell.last + 1))
        assert cell.first == 0 if cell.direction == SHALLOW else cell.last == depth - 1
    sink = next(c for c in cells(depth) if "sink" in c.curve and c.last == 2).setting
    edits = {layer: edit for method in sink for layer, edit in method.edits(depth).items()}
    assert [edits[layer].text == "cut" for layer in range(3)] == [False, True, True]
    merged = [c for c in cells(depth) if c.direction == DEEP and "merged" in c.curve]
    assert all(m.edits(depth)[3].text == edits[0].text for c in merged for m in c.setting)


def test_repetitions_are_averaged() -> None:
    def one(share: float) -> Measured:
        values = np.full(3, share)
        return Measured(values, values / 2, values * 2, {"average": 10 * share})

    mean = pooled([one(0.0), one(1.0)])
    assert mean.success.tolist() == [0.5] * 3 and mean.divergence.tolist() == [1.0] * 3
    assert mean.figures == {"average": 5.0}


def test_results_are_plain_json() -> None:
    assert plain({"a": math.nan, "b": [math.inf, 1 / 3], "c": "x", "d": 7}) == {
        "a": None,
        "b": [None, 0.333333],
        "c": "x",
        "d": 7,
    }
    result = Result("r", "title", ["fact"], [Table("r", "c", [{"x": math.nan}])], [])
    assert json.loads(json.dumps(result.as_dict()))["tables"]["r"]["rows"] == [{"x": None}]
    assert Picture("s", "c", None).stem == "s"
