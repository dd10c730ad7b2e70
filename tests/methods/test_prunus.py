"""Compositions under a name: data that becomes methods, and an average that they keep to."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
import torch

import prunus
from prunus import CLSE, EvoPrune, PrunusError, Random
from prunus.compare.columns import make_columns
from prunus.compare.facts import facts_of
from prunus.compare.identity import cell_identity
from prunus.errors import PrunusTypeError
from prunus.evaluate.cells import Cell, make_cells
from prunus.families import family_of
from prunus.method.budget import Budget, Curve, left_of
from prunus.method.composition import Stage
from prunus.method.derived import derived
from prunus.pruners.divprune import DivPrune
from prunus.pruners.prunus import Prunus
from tests.support.command_line import Cli
from tests.support.literal.stepwise import fitted
from tests.support.llava import DEPTH
from tests.support.models import Case
from tests.support.runs import gap, plain, survivors

EVO = {"method": "evoprune", "leaves": [[0.25, 0.5], [0.5, 0.75]], "params": {"per": "video"}}
DIV = {"method": "divprune", "leaves": [[0.25, 0.4]]}
LATE = {"method": "fastv", "params": {"layer": 2}}
BUDGETS = (1 / 3, 2 / 9, 1 / 9)


def literal_share(points: list[tuple[float, float]], share: float) -> float:
    """A line from (0, 0) over the points to (1, 1), step by step."""
    line = [(0.0, 0.0), *points, (1.0, 1.0)]
    for (x0, y0), (x1, y1) in itertools.pairwise(line):
        if x1 > x0 and x0 <= share <= x1:
            return y0 + (share - x0) * (y1 - y0) / (x1 - x0)
    raise AssertionError(share)


@pytest.mark.parametrize("points", [[(0.2, 0.5)], [(0.0, 0.3), (0.5, 0.6)], [(0.1, 0.1), (0.9, 1)]])
def test_what_a_stage_leaves_is_a_line_between_its_points(points: Any) -> None:
    for step in range(1, 101):
        assert left_of(points, step / 100) == pytest.approx(literal_share(points, step / 100))
        assert Curve(step, tuple(points)).of(100) == pytest.approx(
            literal_share(points, step / 100)
        )


def test_a_number_and_a_share_of_tokens_mean_the_same(case: Case) -> None:
    """A number is a share that depends on the size of each image."""
    inputs = case.prompts.rows(1)
    count = len(case.prompts.spots(inputs["input_ids"])[0][0])
    found = []
    for keep in (count // 2, (count // 2) / count):
        with prunus.prune(
            case.model, Prunus(keep=keep, stages=[EVO, {"method": "divprune"}])
        ) as run:
            found.append((plain(case.model, inputs), run.report()["tokens"]))
    assert torch.equal(found[0][0], found[1][0]) and found[0][1] == found[1][1]
    assert found[0][1]["average"] == count // 2


def test_it_is_what_its_methods_are_behind_each_other(case: Case) -> None:
    inputs = case.prompts.rows(2, 1)
    by_hand = [EvoPrune(keep=0.75, per="video"), DivPrune(keep=0.5)]
    with prunus.prune(case.model, by_hand) as run:
        expected, kept = plain(case.model, inputs), run.trace
    with prunus.prune(case.model, Prunus(keep=0.5, stages=[EVO, {"method": "divprune"}])) as again:
        found = plain(case.model, inputs)
    assert gap(found, expected, survivors(case, inputs, kept)) == 0.0
    assert run.report()["method"] == "evoprune + divprune"
    assert again.report()["method"] == "prunus: evoprune + divprune"
    assert [stage["method"] for stage in again.report()["stages"]] == ["evoprune", "divprune"]
    assert again.methods == tuple(by_hand)


@pytest.mark.parametrize("budget", ["nominal", "true"])
@pytest.mark.parametrize("stages", [[LATE], [DIV, LATE], [EVO, DIV, LATE], [EVO, LATE]], ids=len)
@pytest.mark.parametrize("keep", [0.3, 0.45, 0.6, 7])
def test_the_last_stage_makes_up_the_average(
    keep: float, stages: list[Any], budget: Any, case: Case
) -> None:
    inputs = case.prompts.rows(1)
    size = len(case.prompts.spots(inputs["input_ids"])[0][0])
    asked = keep if isinstance(keep, int) else int(keep * size + 1e-6)
    method = Prunus(keep=keep, stages=stages)
    before = literal_before(stages, asked / size, size)
    least = (2 * before + DEPTH - 2) / DEPTH  # two layers see what stands before the cut
    with prunus.prune(case.model, method, budget=budget) as run:
        if least > asked + 0.5:
            with pytest.raises(PrunusError, match=f"cannot average .* the least is {least:.1f}"):
                plain(case.model, inputs)
            return
        plain(case.model, inputs)
    tokens = run.report()["tokens"]
    assert abs(tokens["average"] - asked) <= 0.5 and tokens["nominal"] == asked


def literal_before(stages: list[Any], share: float, size: int) -> int:
    """What the stages before the last leave; of a video each frame an equal part."""
    if len(stages) == 1:
        return size
    left = int(literal_share(stages[-2]["leaves"], share) * size + 1e-6)
    return left if stages[-2]["method"] == "divprune" else left // 2 * 2 if size == 18 else left


def test_the_average_is_one_of_the_published_size_as_well() -> None:
    """On 32 layers and 2,880 tokens, with what stands before in the tower and in front of it."""
    for keep, size in itertools.product((*BUDGETS, 64), (576, 2880)):
        method = Prunus(keep=keep, stages=[EVO, DIV, LATE])
        budget = Budget([method], 32)
        tower, before, late = (budget.counts(part, 1, size)[-1] for part in method.parts())
        share = keep / size if isinstance(keep, int) else keep
        assert tower == int(literal_share([(0.25, 0.5), (0.5, 0.75)], share) * size + 1e-6)
        assert before == int(literal_share([(0.25, 0.4)], share) * size + 1e-6)
        average = (2 * before + 30 * late) / 32
        assert abs(average - share * size) <= 0.5 + 1


def test_videos_share_and_images_of_several_sizes_have_their_own(case: Case) -> None:
    inputs = case.prompts.rows(2, 1)
    with prunus.prune(case.model, Prunus(keep=6, stages=[EVO, {"method": "divprune"}])) as run:
        plain(case.model, inputs)
    for images, before in zip(run.trace[1].kept, run.trace[0].kept, strict=True):
        for kept, merged in zip(images, before, strict=True):
            assert len(kept) == 6 <= len(merged)


def test_everything_is_kept_where_everything_is_asked_for(case: Case) -> None:
    inputs = case.prompts.rows(1, 2)
    expected = plain(case.model, inputs)
    for method in (Prunus().neutral(), Prunus(keep=1.0, stages=[EVO, DIV, LATE])):
        with prunus.prune(case.model, method) as run:
            found = plain(case.model, inputs)
        assert gap(found, expected, inputs["attention_mask"]) < 1e-5
        assert not run.report()["pruned"]


@pytest.mark.parametrize("preset", [None, *Prunus.presets])
def test_presets_are_training_free_unless_they_say_so(preset: str | None) -> None:
    name = "prunus" if preset is None else f"prunus@{preset}"
    for keep in BUDGETS:
        cells = make_cells([name], [keep])
        assert cells[1].key == f"{name}@{keep:.4g}"
        [method] = cells[1].methods
        needs = derived(method)["needs"]
        assert needs == ("selector" if (preset or "").endswith("trained") else "")
        counts = [Budget([method], 32).counts(part, 1, 576)[-1] for part in method.parts()]
        assert counts == sorted(counts, reverse=True)


def test_others_may_stand_before_and_behind(llava: Case) -> None:
    inputs = llava.prompts.rows(1)
    own = Prunus(keep=0.5, stages=[EVO, {"method": "divprune"}])
    with prunus.prune(llava.model, [own, CLSE(keep=4, layers=(3,), score_type="residual")]) as run:
        plain(llava.model, inputs)
    assert run.report()["tokens"]["per_layer"] == [8, 8, 8, 4, 4]
    late = Prunus(keep=0.5, stages=[DIV, LATE])
    with prunus.prune(llava.model, [Random(keep=12, layer=None), late]) as run:
        plain(llava.model, inputs)
    assert abs(run.report()["tokens"]["average"] - 8) <= 0.5


def test_parts_are_fitted_once(llava: Case) -> None:
    """What a cell was fitted with is what runs: a selector is not loaded for every batch."""
    own = fitted(llava, prunus.OneShot(keep=4))
    method = Prunus(
        keep=0.5, stages=[EVO, {"method": "one-shot", "params": {"selector": own.loaded}}]
    )
    bound = method.bind(family_of(llava.model))
    assert bound == method and bound is not method
    assert bound.parts()[1].loaded.selector is own.loaded.selector
    assert bound.parts()[1] is bound.parts()[1]
    with prunus.prune(llava.model, bound) as run:
        plain(llava.model, llava.prompts.rows(1))
    assert [len(kept[0][0]) for kept in (entry.kept for entry in run.trace)] == [12, 8]


def test_stored_answers_are_of_the_parts_as_well(llava: Case) -> None:
    """Another selector behind the same name is another composition; so is other code of a part."""
    found = []
    for seed in (0, 1, 0):
        own = fitted(llava, prunus.OneShot(keep=4), seed=seed)
        stage = {"method": "one-shot", "params": {"selector": own.loaded}}
        cell = Cell("own", 0.5, None, Prunus(keep=0.5, stages=[EVO, stage]))
        found.append(cell_identity(cell.fitted(family_of(llava.model)), "true"))
    assert found[0] == found[2] != found[1]
    assert [part["method"] for part in found[0]["methods"][0]["parts"]] == ["evoprune", "one-shot"]
    assert (
        "parts" not in cell_identity(Cell("one", 4, None, DivPrune(keep=4)), "true")["methods"][0]
    )


def test_a_comparison_knows_that_it_is_composed(llava: Case) -> None:
    columns = make_columns(
        ["prunus@lean", "divprune"], [0.5], ["nominal", "true"], [0], family_of(llava.model)
    )
    facts = facts_of(columns, DEPTH)
    assert facts["prunus@lean"]["composition"] and not facts["divprune"]["composition"]
    assert facts["prunus@lean"]["ours"]
    assert facts["prunus@lean"]["place"].startswith("vision tower")
    assert [column.cell.name for column in columns] == ["dense", "prunus@lean", "divprune"]


def test_layers_may_be_shares_of_the_depth(llava: Case) -> None:
    late = {"method": "fastv", "depth": {"layer": 1 / 3}}
    method = Prunus(keep=0.5, stages=[DIV, late])
    for depth, layer in ((5, 2), (12, 4), (28, 9), (32, 11), (1, 1)):
        assert [part.layer for part in method.parts(depth)[1:]] == [layer]
        assert [cut.layer for cut in method.cuts(depth)] == [None, layer]
    with prunus.prune(llava.model, method) as run:  # of 5 layers
        plain(llava.model, llava.prompts.rows(1))
    assert [entry.layer for entry in run.trace] == [None, 2]
    assert abs(run.report()["tokens"]["average"] - 8) <= 0.5
    for share in (1.0, -0.1, "2"):
        with pytest.raises(PrunusError, match="give a share of the decoder layers"):
            Stage("fastv", depth={"layer": share})  # type: ignore[dict-item]


MINE = """
from dataclasses import dataclass
from prunus.method.composition import Composition

@dataclass(frozen=True)
class Mine(Composition):
    name = "mine"
    summary = "an own composition"
    default = ({"method": "tome", "leaves": [[0.25, 0.5]]}, {"method": "divprune"})
    presets = {"thinner": {"keep": 0.1}}
"""


def test_own_compositions_have_a_name(llava: Case, tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(MINE, "utf-8")
    for name in (f"{path}:Mine", f"{path}:Mine@thinner", "mine"):  # which is known by now
        with prunus.prune(llava.model, name, keep=0.25) as run:
            plain(llava.model, llava.prompts.rows(1))
        assert [len(entry.kept[0][0]) for entry in run.trace] == [8, 4]


@pytest.mark.parametrize(
    ("stages", "words"),
    [
        ([], "give a list of stages"),
        ("divprune", "give a list of stages"),
        ([5], "give an object with method"),
        ([{"name": "divprune"}], "give an object with method"),
        ([{"method": "divprun"}], "did you mean 'divprune'"),
        ([{"method": "divprune", "params": {"kep": 3}}], "no parameter kep"),
        ([{"method": "divprune", "leaves": [[0.1, 0.2]]}], "is the last, which makes up"),
        ([{"method": "divprune", "params": {"keep": 3}}], "is the last, which makes up"),
        (
            [EVO, {"method": "visipruner"}],
            "visipruner takes no keep: let one that does be the last",
        ),
        ([{"method": "evoprune"}, {"method": "divprune"}], "say what it leaves"),
        ([{**EVO, "params": {"keep": 5}}, LATE], "give what it leaves, or its keep, not both"),
        ([{"method": "visipruner", "leaves": [[0.1, 0.2]]}, LATE], "leave out what it leaves"),
        ([{"method": "prunus", "leaves": [[0.1, 0.2]]}, LATE], "is a composition"),
        ([{"method": "tome", "leaves": [[0.3, 0.2]]}, LATE], "as much left as is asked for"),
        ([{"method": "tome", "leaves": [[0.3, 0.6], [0.2, 0.7]]}, LATE], "both rising"),
        ([{"method": "tome", "leaves": [[0.1, 0.6], [0.2, 0.5]]}, LATE], "both rising"),
        ([{"method": "tome", "leaves": [[1.5, 2]]}, LATE], "both rising"),
        ([{"method": "tome", "leaves": [[0.1, float("nan")]]}, LATE], "both rising"),
        ([{"method": "tome", "leaves": 0.5}, LATE], "are no pairs of shares"),
        ([{"method": "tome", "leaves": [0.5]}, LATE], "are no pairs of shares"),
    ],
    ids=str,
)
def test_what_makes_no_sense_is_refused_when_it_is_made(stages: Any, words: str) -> None:
    with pytest.raises(PrunusError, match=words):
        Prunus(stages=stages)


def test_stages_are_of_the_right_types() -> None:
    with pytest.raises(PrunusTypeError, match="give a name and objects"):
        Stage(5)  # type: ignore[arg-type]
    with pytest.raises(PrunusTypeError, match="give a name and objects"):
        Stage("divprune", (), [1])  # type: ignore[arg-type]


def test_what_this_model_cannot_do_is_refused_before_anything_runs(llava: Case) -> None:
    turned = [{"method": "fastv", "leaves": [[0.2, 0.5]]}, {"method": "divprune"}]
    with pytest.raises(PrunusError, match="fastv comes before divprune.*the other way round"):
        prunus.prune(llava.model, Prunus(stages=turned))
    adaptive = [{"method": "stepwise", "params": {"keep": None}}, {"method": "divprune"}]
    own = fitted(llava, prunus.Stepwise()).loaded
    adaptive[0]["params"]["selector"] = own
    with pytest.raises(PrunusError, match="stepwise finds its own count"):
        prunus.prune(llava.model, Prunus(stages=adaptive))
    with pytest.raises(PrunusError, match="both merge inside the vision tower"):
        prunus.prune(llava.model, [EvoPrune(keep=0.5), Prunus(keep=0.5)])
    with pytest.raises(PrunusError, match="no selector 'one-shot' for this model ships"):
        prunus.prune(llava.model, Prunus(keep=0.5, stages=[EVO, {"method": "one-shot"}]))


def test_on_the_command_line(cli: Cli) -> None:
    listed = cli("methods", "prunus@lean").out
    assert "stages, and tokens left of 576 for an average of 192, 128, 64" in listed
    assert "prunus@careful: stages=" in listed and "layer=11" in listed
    assert listed.startswith("prunus@lean: ") and "prunus methods prunus@NAME" in listed
    facts = cli("methods", "prunus@lean", "--json").json["prunus"]
    assert facts["derived"]["count"] == "asked"
    tower, before, late = (stage["left"] for stage in facts["stages"])
    for merged, first, last, asked in zip(tower, before, late, (192, 128, 64), strict=True):
        assert merged > first > asked > last
        assert abs((11 * first + 21 * last) / 32 - asked) <= 0.5
    assert cli("methods", "divprune", "--json").json["divprune"]["stages"] == []


def test_it_runs_on_the_built_in_model_by_name() -> None:
    """One line of Python, at the three budgets."""
    from prunus.tasks.sample import load_sample

    model, processor = prunus.load("tiny-llava")
    image, questions = load_sample()
    inputs = processor(
        images=image, text=f"USER: <image>\n{questions[0].text} ASSISTANT:", return_tensors="pt"
    )
    costs = []
    for preset in Prunus.presets:
        for keep, count in zip((*BUDGETS, 64), (192, 128, 64, 64), strict=True):
            with prunus.prune(model, f"prunus@{preset}", keep=keep) as run, torch.no_grad():
                model(**inputs, logits_to_keep=1)
            assert abs(run.report()["tokens"]["average"] - count) <= 0.5
            name = "prunus" if preset == "balanced" else f"prunus@{preset}"  # that is its default
            parts = " + ".join(part.name for part in run.methods)
            assert str(run.report()).startswith(f"method          {name}: {parts}\n")
            costs.append(run.report()["flops"]["ratio"])
    assert max(costs) < 1
