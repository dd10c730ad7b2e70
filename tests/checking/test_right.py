"""Where pruning is right, or refused, the check says so."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest
import torch

import prunus
import prunus.checking
from prunus import CLSE, Random, VisiPruner
from prunus.checking import COLUMNS
from prunus.checking.trials import Trial, trials
from prunus.errors import PrunusError, PrunusStateError
from prunus.families import family_of
from tests.checking.prompts import failed, prompts_of
from tests.support.facts import proportional
from tests.support.models import Case
from tests.support.settings import settings


def test_every_setting_on_every_kind_of_model(case: Case) -> None:
    """Two images in a row and videos among them: the engine's own tests say that all is right."""
    bias = family_of(case.model).tower_adapter().takes_bias
    methods = [one for one in settings().values() if bias or not proportional(one)]
    report = prunus.check(case.model, None, methods, prompts=prompts_of(case, 2, 1))
    assert report.ok, str(report)
    assert {row.status for row in report.rows} == {"ok"}, str(report)
    for row in report.rows:
        assert list(row.cells) == list(COLUMNS)
        for column, cell in row.cells.items():
            if cell.status == "skipped" and "inside the language model" in cell.note:
                assert column in ("prefill", "decode")
                continue
            assert cell.status == "ok", (row.method, column, cell)
            assert cell.error is None or cell.error < 1e-5


@pytest.mark.parametrize("name", ["tiny-llava", "tiny-qwen"])
def test_the_builtin_models_pass(name: str) -> None:
    report = prunus.check(*prunus.load(name))
    assert report.ok, str(report)
    assert {row.method for row in report.rows} == set(prunus.methods())
    refused = {row.method for row in report.rows if row.status == "refused"}
    assert refused == (set() if name == "tiny-llava" else {"one-shot"})  # no selector ships
    assert report.seconds < 180


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_low_precision_and_backends(case: Case, dtype: torch.dtype, attention: str) -> None:
    model = case.model.to(dtype)
    model.set_attn_implementation(attention)
    chosen = ["clse", "random", "evoprune", "knockout", "fixed"]
    report = prunus.check(model, None, chosen, prompts=prompts_of(case))
    assert report.ok, str(report)
    assert report.environment["attention"] == attention
    assert report.environment["dtype"] == str(dtype).removeprefix("torch.")
    assert 8 * torch.finfo(dtype).eps <= report.tolerance <= 32 * torch.finfo(dtype).eps


def test_a_method_that_finds_nothing_is_made_to_act(
    llava: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    quiet = VisiPruner(stages=("middle", "deep"), layer_threshold=-1, late_layer=4)
    report = prunus.check(llava.model, None, [quiet], prompts=prompts_of(llava))
    assert report.ok and "finds nothing to do" in str(report)

    loud = VisiPruner(stages=("middle",), layer_threshold=2, relative=1.0, min_tokens=3)
    trial = Trial("visipruner", "quiet", lambda: quiet, lambda: loud)
    monkeypatch.setattr(prunus.checking, "trials", lambda *_: [trial])
    report = prunus.check(llava.model, prompts=prompts_of(llava))
    assert report.ok and "nothing to do in" not in str(report)
    assert report.rows[0].setting == "quiet (found nothing to do: made to act)"


def test_visipruner_filters_and_exits_whatever_its_thresholds(case: Case) -> None:
    family = family_of(case.model)
    [*_, trial] = trials(["visipruner"], family, 10)
    with prunus.prune(case.model, trial.make()) as run, torch.no_grad():
        case.model(**case.prompts.rows(1, 1))
    places = [entry.place for entry in run.trace]
    assert places.count("decoder") == 2 and "attention" in places
    assert len(run.trace[-1].kept[0][0]) == 0


def test_learned_methods_without_a_selector_are_refused_with_the_reason(llava: Case) -> None:
    report = prunus.check(llava.model, None, ["stepwise", "one-shot"], prompts=prompts_of(llava))
    assert report.ok and [row.status for row in report.rows] == ["refused"] * 2
    assert "prunus train stepwise" in str(report)


def test_the_report_is_plain_json_and_one_block_of_markdown(llava: Case) -> None:
    report = prunus.check(llava.model, None, ["clse"], prompts=prompts_of(llava))
    facts = json.loads(json.dumps(report.facts(), allow_nan=False))
    assert facts["ok"] is True
    assert set(facts["rows"][0]["checks"]) == set(COLUMNS)
    assert facts["rows"][0]["checks"]["prefill"]["error"] < facts["tolerance"]
    text = report.markdown()
    for word in ("torch", "transformers", "attention: sdpa", "float32", "LlamaDecoderLayer"):
        assert word in text
    assert text.count("| clse |") == 2


def test_training_mode_is_given_back_module_by_module(llava: Case) -> None:
    model = llava.model.train()
    model.model.vision_tower.eval()
    before = [module.training for module in model.modules()]
    assert prunus.check(model, None, ["random"], prompts=prompts_of(llava)).ok
    assert [module.training for module in model.modules()] == before


def test_a_peft_model(llava: Case) -> None:
    peft = pytest.importorskip("peft")
    config = peft.LoraConfig(target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    wrapped = peft.get_peft_model(llava.model, config).eval()
    methods = ["clse", "knockout", "visipruner", "fixed"]
    report = prunus.check(wrapped, None, methods, prompts=prompts_of(llava))
    assert report.ok, str(report)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"methods": ["clsee"]}, "unknown method 'clsee'"),
        ({"methods": "clse"}, "a list of methods"),
        ({"steps": 0}, "at least 1 step"),
        ({"prompts": None}, "processor, or prompts"),
    ],
)
def test_bad_arguments(llava: Case, arguments: dict[str, Any], words: str) -> None:
    given = {"prompts": prompts_of(llava), **arguments}
    with pytest.raises(PrunusError, match=words):
        prunus.check(llava.model, None, **given)


def test_prompts_that_cannot_be_checked(llava: Case) -> None:
    padded = llava.prompts.rows(1, 1)
    rows = [llava.prompts.one(padded, row) for row in range(2)]
    with pytest.raises(PrunusError, match="prompt 0 has padding"):
        prunus.check(llava.model, None, prompts=rows)
    with pytest.raises(PrunusError, match="at least two"):
        prunus.check(llava.model, None, prompts=prompts_of(llava)[:1])
    for images in ((1, 0), (0, 0)):
        with pytest.raises(PrunusError, match="has no image"):
            prunus.check(llava.model, None, prompts=prompts_of(llava, *images))


def test_a_method_for_other_families_is_refused(llava: Case) -> None:
    method = CLSE(keep=3)
    assert dataclasses.is_dataclass(method)
    report = prunus.check(llava.model, None, [method, Random(keep=2)], prompts=prompts_of(llava))
    assert [row.setting for row in report.rows] == ["as given"] * 2
    assert not failed(report)


def test_a_model_that_is_being_pruned_is_refused(llava: Case) -> None:
    with prunus.prune(llava.model, CLSE(keep=3)) as run, torch.no_grad():
        with pytest.raises(
            PrunusStateError, match="before the check: this model is being pruned already"
        ):
            prunus.check(llava.model, None, prompts=prompts_of(llava))
        llava.model(**llava.prompts.rows(1))
    assert run.report()["pruned"]
    assert prunus.check(llava.model, None, ["clse"], prompts=prompts_of(llava)).ok
