"""Every recipe fits its table, its methods exist and take their budgets."""

from __future__ import annotations

import pytest

from prunus.bench.presets import PRESETS
from prunus.cli.models import runs
from prunus.compare.published import published_tables
from prunus.errors import PrunusError
from prunus.families import model_types
from prunus.inference.named import NONE, build_methods, parse
from prunus.inference.params import parse_keep
from prunus.method.budget import Budget, check_keep
from prunus.reproduce.formula import counts, formula_columns
from prunus.reproduce.library import benchmarks, columns, models
from prunus.reproduce.plan import make_plan
from prunus.reproduce.recipe import FRAMES, Arm, Recipe, find_recipe, recipes, with_methods
from prunus.selector.learned import Learned
from prunus.tasks.sets import BUILTIN_SETS

RECIPES = recipes()
PAPERS = ("clse", "evoprune", "visipruner", "stepwise")


@pytest.fixture(params=list(RECIPES))
def recipe(request: pytest.FixtureRequest) -> Recipe:
    return RECIPES[request.param]


def test_every_table_of_the_papers_has_one_recipe() -> None:
    tables = [table["id"] for table in published_tables() if table["id"].startswith(PAPERS)]
    assert sorted(one.table["id"] for one in RECIPES.values()) == sorted(tables)
    assert len(tables) == 35


def test_every_published_row_is_measured_or_said_to_be_absent(recipe: Recipe) -> None:
    rows = {(row["method"], row["budget"]) for row in recipe.table["rows"]}
    arms = {(arm.row, arm.budget) for arm in recipe.arms() if arm.method != NONE}
    absent = {(one.row, one.budget) for one in recipe.absent()}
    assert arms | absent == rows and not arms & absent
    assert all(one.why for one in recipe.absent())
    assert all(recipe.published(arm) is not None for arm in recipe.arms() if arm.method != NONE)


def test_methods_exist_and_take_what_they_are_asked_to_keep(recipe: Recipe) -> None:
    arms = recipe.arms()
    assert arms[0].method == NONE and recipe.published(arms[0]) is None
    assert len({(arm.row, arm.budget, arm.words) for arm in arms}) == len(arms)
    for arm in [*arms, *map(recipe.smaller, arms)]:
        made = build_methods(arm.method, arm.keep, [])
        assert (made is None) == (arm.method == NONE)
        if arm.keep is not None:
            check_keep(parse_keep(arm.keep))


def test_budgets_are_those_of_the_rows(recipe: Recipe) -> None:
    """Counts of tokens as printed; shares to a thousandth; a video's, of all frames together."""
    for arm in recipe.arms():
        if arm.keep is None:
            continue
        keep = parse_keep(arm.keep)
        most = recipe.model.tokens
        if recipe.budget == "share":
            assert isinstance(keep, float) and keep == pytest.approx(arm.budget, abs=0.0011)
        elif recipe.budget == "frame":
            assert keep in (arm.budget, arm.budget * FRAMES) and keep <= (most or 0)
        else:
            assert keep == arm.budget and keep <= (most or 0)


def test_methods_run_on_the_family_of_the_model(recipe: Recipe) -> None:
    known = model_types()
    assert recipe.model.why_not or recipe.model.type in known
    if recipe.model.why_not:
        return
    for arm in recipe.arms()[1:]:
        for named in parse(arm.method):
            assert runs(named, known[recipe.model.type]), arm.words


def test_true_budgets_can_be_reached(recipe: Recipe) -> None:
    depth, tokens = recipe.model.decoder.layers, recipe.model.tokens or 1024
    for arm in recipe.arms():
        methods = build_methods(arm.method, arm.keep, []) or ()
        if arm.meaning != "true":
            continue
        [method] = methods
        left = counts(methods, arm, depth, tokens)
        asked = Budget(methods, depth, "true").asked(method, 1, tokens)
        assert asked is not None and sum(left.run) / depth == pytest.approx(asked, abs=0.5)


def test_released_budgets_of_clse_average_more_than_they_say() -> None:
    found = [
        sum(counts(build_methods(arm.method, arm.keep, []) or (), arm, 32, 576).run) / 32
        for arm in find_recipe("clse-1").arms()
        if arm.method == "clse@released"
    ]
    assert [round(one, 1) for one in found] == [208.1, 144.6, 81.1]


def test_columns_and_models_are_known(recipe: Recipe) -> None:
    columns(recipe.table["benchmarks"])
    assert recipe.small.data in BUILTIN_SETS
    assert recipe.model.name in models()
    assert (recipe.text is None) <= (formula_columns(recipe) == [])


def test_selectors_whose_weights_nobody_has_are_not_asked(recipe: Recipe) -> None:
    for arm in recipe.arms()[1:]:
        learned = any(issubclass(one.kind, Learned) for one in parse(arm.method))
        assert bool(arm.needs) == learned


def test_benchmarks_say_how_they_are_scored() -> None:
    for one in benchmarks().values():
        assert one.note or one.kind == "task"
        if one.kind == "task":
            assert one.task and one.metrics and one.questions > 0 and one.data and one.size
            assert (one.megabytes is None) == (one.size == "not known")
    assert len(benchmarks()["MME"].metrics) == 2 and len(benchmarks()["MME-P"].metrics) == 1
    assert benchmarks()["POPE"].metrics == ("pope_f1_score",)


def test_times_are_taken_by_presets_that_there_are(recipe: Recipe) -> None:
    timed = [one for one in columns(recipe.table["benchmarks"]) if one.kind == "clock"]
    if recipe.bench is not None:
        assert timed and recipe.bench in PRESETS
        assert make_plan(recipe, None, {})["commands"][-1].endswith(f"--preset {recipe.bench}")


def test_a_plan_says_what_it_costs() -> None:
    plan = make_plan(find_recipe("clse-1"), None, {})
    tasks = [one["task"] for one in plan["asked"]]
    assert tasks == [
        "gqa",
        "mmbench_en_dev_static",
        "mme",
        "pope",
        "scienceqa_img",
        "textvqa_val",
        "vizwiz_vqa_val",
        "ocrbench",
    ]
    model, *data = plan["downloads"]
    assert model["what"] == "llava-hf/llava-1.5-7b-hf" and model["gigabytes"] == 14.1
    assert len(data) == len(tasks)
    assert plan["gigabytes"] == pytest.approx(
        sum(one["gigabytes"] or 0 for one in data) + 14.1, abs=0.05
    )
    questions = sum(one["questions"] for one in plan["asked"])
    rows = len([arm for arm in find_recipe("clse-1").arms() if not arm.needs])
    assert plan["hours"] == pytest.approx(questions * rows * 0.069 / 3600, abs=0.05)
    assert "OPENAI_API_KEY" in plan["not_measured"]["MMB-CN"]
    assert any("FiCoCo-V" in line for line in plan["left_out"])
    [command] = [line for line in plan["commands"] if "pyramiddrop@64" in line]
    assert command.endswith("--method pyramiddrop@64 --keep 64 --budget true")
    with_key = make_plan(find_recipe("clse-1"), "weights", {"OPENAI_API_KEY": "x"})
    assert "mmbench_cn_dev" in [one["task"] for one in with_key["asked"]]
    assert [one["kind"] for one in with_key["downloads"]] == ["questions"] * 9
    assert all("--model weights" in line for line in with_key["commands"])


def test_one_task_that_gives_two_columns_is_downloaded_once() -> None:
    plan = make_plan(find_recipe("visipruner-5-7b"), None, {})
    assert len({one["what"] for one in plan["downloads"]}) == len(plan["downloads"])


def test_models_that_cannot_be_loaded_are_said_to_be() -> None:
    plan = make_plan(find_recipe("evoprune-2"), None, {})
    assert not plan["asked"] and not plan["downloads"]
    assert plan["commands"] == ["prunus bench --preset evoprune-video"]
    assert plan["left_out"][0].startswith("LLaVA-Video-7B: ")
    assert make_plan(find_recipe("evoprune-2"), "here", {})["asked"]


def test_other_methods_for_published_rows() -> None:
    recipe = with_methods(find_recipe("stepwise-1"), ["StepPrune=stepwise:selector=mine"])
    ours = [arm for arm in recipe.arms() if arm.row == "StepPrune"]
    assert [(arm.method, arm.keep, arm.needs) for arm in ours] == [
        ("stepwise:selector=mine", keep, "") for keep in ("192", "128", "64")
    ]
    with pytest.raises(PrunusError, match="one of FastV, SparseVLM"):
        with_methods(find_recipe("stepwise-1"), ["Nobody=clse"])
    with pytest.raises(PrunusError, match="unknown method"):
        with_methods(find_recipe("stepwise-1"), ["FastV=nothing-like-it"])


def test_smaller_budgets_are_the_same_share() -> None:
    next_to = find_recipe("clse-3")
    assert next_to.smaller(Arm("CLSE", 320, "clse", "320")).keep == "0.1111"
    alike = find_recipe("clse-1")
    assert alike.smaller(Arm("CLSE", 64, "clse", "64")).keep == "64"
    frames = find_recipe("evoprune-3")
    assert frames.smaller(Arm("EvoPrune", 64, "evoprune", "64")).keep == "0.3787"
