"""Which cells there are, and the tokens of the ground truth."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

import prunus
from prunus import CLSE, EvoPrune, PrunusError, Stepwise, VisiPruner, methods
from prunus.evaluate import EvalSet, load_file, make_cells
from prunus.evaluate.cells import Cell, default_names, ground_truth
from prunus.families import family_of
from prunus.grid import Grid
from prunus.inference.named import parse_one, presets_of
from prunus.method.base import KNOWN
from prunus.pruners.tome import ToMe
from prunus.tasks.scenes import object_coverage
from tests.support.facts import in_tower as tower_part_of
from tests.support.facts import nominal

GRID = Grid(1, 24, 24, (8, 8))


def in_tower(cell: Cell) -> bool:
    return any(tower_part_of(method) for method in cell.methods)


@pytest.mark.parametrize("keep", [1, 20, 1 / 9, 1 / 3, 576, 1.0])
def test_ground_truth_has_exactly_the_budget(questions: EvalSet, keep: float) -> None:
    wanted = keep if isinstance(keep, int) else int(keep * 576 + 1e-6)
    for query in questions.queries[:40]:
        scene = questions.scenes[query.image]
        tokens = ground_truth(scene, query.asked, keep, GRID)
        assert len(tokens) == wanted
        assert tokens == sorted(set(tokens)) and tokens[0] >= 0 and tokens[-1] < 576
        assert tokens == ground_truth(scene, query.asked, keep, GRID)


def test_ground_truth_takes_the_asked_objects_first(questions: EvalSet) -> None:
    for query in questions.queries[:200]:
        scene = questions.scenes[query.image]
        assert scene is not None
        cover = object_coverage(scene, 24, 24).reshape(len(scene.objects), -1)
        asked = _inked(cover[list(query.asked)])
        few = set(ground_truth(scene, query.asked, 20, GRID))
        assert len(few & asked) == min(20, len(asked))
        if len(_inked(cover)) <= 128:
            assert _inked(cover) <= set(ground_truth(scene, query.asked, 128, GRID))


def _inked(cover: NDArray[np.float32]) -> set[int]:
    """Patches with any ink of the objects ``[objects, patches]``."""
    return {int(n) for n in np.flatnonzero(cover.max(axis=0, initial=0.0) > 0)}


def test_ground_truth_needs_a_scene() -> None:
    with pytest.raises(ValueError, match="needs scenes"):
        ground_truth(None, (), 64, GRID)


def test_default_cells_are_comparable() -> None:
    cells = make_cells()
    assert cells[0].name == "dense" and len({cell.key for cell in cells}) == len(cells)
    # Dense, two controls, one that finds its own count; then for each budget the ground truth,
    # random with three seeds, and the others.
    others = set(default_names()) - {"visipruner", "random", "ground-truth", "blind", "other-image"}
    assert {"clse@released", "evoprune", "mmr", "uniform", "fastv", "pooling"} <= others
    assert "pyramiddrop" not in others  # an average of 11.1 % is beyond its published layers
    assert len(cells) == 4 + 3 * (1 + 3 + len(others))
    assert {cell.name for cell in cells if not cell.prunes} == {"dense", "blind", "other-image"}
    trained = {"stepwise", "one-shot"}
    assert not trained & {method.name for cell in cells for method in cell.methods}
    for cell in cells:
        if cell.method is not None and cell.keep is not None:
            last = cell.method[-1] if isinstance(cell.method, tuple) else cell.method
            assert nominal(last, 576) in (192, 128, 64)
            cuts = last.cuts(12)
            assert bool(cuts) != tower_part_of(last)
            if last.name in ("clse", "random", "uniform"):
                assert cuts[0].layer == 1
                assert len(cuts) == (3 if cell.name.endswith("released") else 1)


def test_cells_that_act_in_the_tower() -> None:
    names = ["evoprune", "evoprune-noattn", "evoprune-nodiv", "tome", "evoprune+clse", "clse"]
    cells = dict(zip(names, make_cells(names, [1 / 9])[1:], strict=True))
    assert [name for name in names if not in_tower(cells[name])] == ["clse"]
    assert cells["tome"].method == ToMe(keep=1 / 9)
    assert cells["evoprune-nodiv"].name == "evoprune@nodiv"
    assert cells["evoprune-nodiv"].method == EvoPrune(keep=1 / 9, diversity=0.0)
    assert cells["evoprune+clse"].method == (EvoPrune(keep=0.5), CLSE(keep=1 / 9))
    with pytest.raises(ValueError, match="leaves 50%, 0.6 cannot be kept"):
        make_cells(["evoprune+clse"], [0.6])


def test_methods_with_a_count_of_their_own_are_asked_once() -> None:
    cells = make_cells(["visipruner", "clse", "evoprune+visipruner"], [64, 128])
    keys = ["dense", "visipruner", "evoprune+visipruner", "clse@64", "clse@128"]
    assert [cell.key for cell in cells] == keys
    assert [cell.prunes for cell in cells] == [False, True, True, True, True]
    assert in_tower(cells[2]) and not in_tower(cells[1])


def test_names_of_methods_and_of_configurations() -> None:
    cells = make_cells(["clse-hybrid", "random"], [64], [5, 7])
    assert [cell.key for cell in cells] == ["dense", "clse@hybrid@64", "random@64#5", "random@64#7"]
    assert cells[1].method == CLSE(keep=64, variant="hybrid")
    assert make_cells(["clse@hybrid"], [64])[1] == cells[1]


def test_names_with_settings() -> None:
    names = ["evoprune:keep=0.3+clse@hybrid:cutoff=0.2", "evoprune:keep=0.3+visipruner@deep"]
    once, both = make_cells(names, [64])[1:]
    assert both.key == "evoprune:keep=0.3+clse@hybrid:cutoff=0.2@64"
    assert both.method == (EvoPrune(keep=0.3), CLSE(keep=64, variant="hybrid", cutoff=0.2))
    assert once.method == (EvoPrune(keep=0.3), VisiPruner(stages=("deep",))) and once.keep is None
    adaptive, mean = make_cells(["stepwise-adaptive", "stepwise@mean"], [0.25])[1:]
    assert adaptive == Cell("stepwise@adaptive", method=Stepwise())
    assert mean == Cell("stepwise@mean", 0.25, method=Stepwise(keep=0.25, mode="mean"))


def test_every_preset_is_one() -> None:
    for name, kind in methods().items():
        for preset in presets_of(kind):
            params = {"keep": 0.5} if parse_one(f"{name}@{preset}").takes("keep") else {}
            assert parse_one(f"{name}@{preset}").make(**params).name == name
        assert set(getattr(kind, "compared", ())) <= set(presets_of(kind))


@pytest.mark.parametrize(
    ("names", "keeps", "seeds", "message"),
    [
        (["clsse"], [64], [0], "did you mean 'clse'"),
        (["clse@hybird"], [64], [0], "there are clse@hybrid, clse@released"),
        (["clse", "clse+clse"], [64], [0], "different methods"),
        (["clse-hybrid", "clse@hybrid"], [64], [0], "given twice"),
        (["clse:cutof=1"], [64], [0], "did you mean 'cutoff'"),
        (["fixed"], [64], [0], "takes no budget"),
        (["clse"], [0], [0], "keeps nothing"),
        (["clse"], [64, 64], [0], "given twice"),
        (["clse"], [0.11111, 0.11112], [0], "0.11111 and another one are 0.1111 to four"),
        (["clse"], [12341, 12342], [0], "four digits"),
        (["clse", "clse"], [64], [0], "given twice"),
        (["random"], [64], [], "seeds"),
    ],
)
def test_bad_cells(names: list[str], keeps: list[int], seeds: list[int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_cells(names, keeps, seeds)


@pytest.mark.parametrize("name", ["dense", "none", "ground-truth", "a|b", "x#1", "a@b", ""])
def test_a_file_gives_no_method_the_name_of_something_else(tmp_path: Path, name: str) -> None:
    path = tmp_path / "mine.py"
    path.write_text(
        "from dataclasses import dataclass\n"
        "from prunus.pruners.uniform import Uniform\n\n\n"
        f"@dataclass(frozen=True)\nclass Mine(Uniform):\n    name = {name!r}\n"
    )
    try:
        with pytest.raises(PrunusError, match="cannot be compared"):
            make_cells([f"{path}:Mine"], [0.2])
    finally:
        KNOWN.pop(name)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no questions"),
        ("{", "line 1 is no JSON"),
        ('\n{"image": "x.png", "question": "q"}', "line 2: expected an object.*answer is missing"),
        ('{"image": "x.png", "question": "q", "answer": "a"}', "no such image file: 'x.png'"),
    ],
)
def test_bad_question_files(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "questions.jsonl"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        load_file(path)


def test_missing_question_file(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="cannot read the questions"):
        load_file(tmp_path / "none.jsonl")


def test_what_was_learned_is_loaded_once() -> None:
    family = family_of(prunus.load("tiny-llava")[0])
    cell = make_cells(["stepwise"], [4])[1]
    fitted = cell.fitted(family)
    assert isinstance(cell.method, Stepwise) and isinstance(fitted.method, Stepwise)
    assert cell.method.loaded is None and fitted.method.loaded is not None
    again = fitted.method.bind(family)
    assert isinstance(again, Stepwise) and again.loaded is not None
    assert again.loaded[0] is fitted.method.loaded[0]
    assert fitted.key == cell.key
    assert replace(fitted.method, selector=None) == cell.method
    dense, both = Cell("dense"), Cell("both", method=(EvoPrune(keep=0.5), Stepwise(keep=4)))
    assert dense.fitted(family) is dense
    assert len(both.fitted(family).methods) == 2
