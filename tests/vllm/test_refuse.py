"""What vLLM cannot serve is refused with the reason, and by whoever is asked first."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from prunus import CLSE, methods
from prunus.cli import main
from prunus.errors import PrunusError
from prunus.inference.named import build_methods
from prunus.pruners.divprune import DivPrune
from prunus.pruners.prumerge import PruMerge
from prunus.pruners.uniform import Uniform
from prunus.vllm.refuse import check_servable
from prunus.vllm.serving import arguments
from prunus.vllm.setting import Setting
from prunus.vllm.versions import check_vllm
from tests.vllm.asked import SERVED

DEPTH = 12


def served(name: str) -> bool:
    try:
        check_servable(build_methods(name, None, ()) or (), DEPTH)
    except PrunusError:
        return False
    return True


def test_what_is_served() -> None:
    names = {one.partition(":")[0].partition("@")[0] for one in SERVED}
    settings = ("clse", "mmr", "one-shot", "prumerge", "random", "stepwise", "uniform")
    found = {name for name in methods() if name not in settings}
    assert {name for name in found if served(name)} == names & found
    kept = {"prumerge": "0.25", "stepwise:question=false": "0.25"}
    for one in SERVED:
        check_servable(build_methods(one, kept.get(one), ()) or (), DEPTH)


@pytest.mark.parametrize(
    ("method", "reason"),
    [
        (CLSE(keep=64), "decoder layer 1, inside the language model.*set ahead=true, or choose"),
        (CLSE(keep=64, variant="hybrid"), "shares; choose a method"),
        (Uniform(keep=64), "layer=none"),
        (PruMerge(), "finds its own count"),
    ],
)
def test_what_is_not(method: Any, reason: str) -> None:
    with pytest.raises(PrunusError, match=reason):
        check_servable([method], DEPTH)


@pytest.mark.parametrize("name", ["cdpruner", "mmr", "mmtok", "stepwise", "one-shot"])
def test_what_looks_at_the_question(name: str) -> None:
    with pytest.raises(PrunusError, match="looks at the question"):
        check_servable(build_methods(name, None, ()) or (), DEPTH)


def test_learned_selectors_are_told_how() -> None:
    with pytest.raises(PrunusError, match="set question=false, or choose"):
        check_servable(build_methods("stepwise", "64", ()) or (), DEPTH)
    check_servable(build_methods("stepwise", "64", ["question=false"]) or (), DEPTH)
    for keep, params in ((None, []), ("64", ["mode=mean"])):
        method = build_methods("stepwise", keep, ["question=false", *params]) or ()
        with pytest.raises(PrunusError, match="finds its own count"):
            check_servable(method, DEPTH)


def test_what_edits_or_takes_nothing() -> None:
    with pytest.raises(PrunusError, match="changes attention or caches"):
        check_servable(build_methods("knockout", None, ()) or (), DEPTH)


def test_a_true_budget_before_the_language_model_is_a_nominal_one() -> None:
    check_servable([DivPrune(keep=0.25)], DEPTH, "true")


@pytest.mark.parametrize(
    "given",
    [
        None,
        {"keep": 0.25},
        {"method": "divprune", "kep": 1},
        {"method": "divprune", "keep": True},
        {"method": "divprune", "params": "threshold=1"},
        {"method": 5},
    ],
)
def test_configurations_that_say_nothing_sensible(given: Any) -> None:
    with pytest.raises(PrunusError, match="divprune"):
        Setting.of(SimpleNamespace(prunus=given))


def test_a_number_is_as_good_as_its_text() -> None:
    config = SimpleNamespace(prunus={"method": "divprune", "keep": 0.25})
    assert Setting.of(config) == Setting("divprune", "0.25")
    assert Setting.of(config).methods(DEPTH) == (DivPrune(keep=0.25),)


def test_arguments_of_vllm() -> None:
    setting = Setting("divprune", "0.25")
    argv = arguments(
        "some/folder", "llava", setting, ["--port", "80", "--hf-overrides", '{"a": 1}']
    )
    assert argv[:3] == ["serve", "some/folder", "--hf-overrides"]
    assert argv[4:] == ["--enable-prompt-tokens-details", "--port", "80"]
    assert argv[3] == (
        '{"a": 1, "architectures": ["PrunusLlavaForConditionalGeneration"], '
        '"prunus": {"method": "divprune", "budget": "nominal", "keep": "0.25"}}'
    )
    with pytest.raises(PrunusError, match="must not say architectures"):
        arguments("m", "llava", setting, ['--hf-overrides={"architectures": []}'])
    with pytest.raises(PrunusError, match="not served pruned"):
        arguments("m", "gemma3", setting, [])
    for wrong in (["--hf-overrides"], ["--hf-overrides", "{"], ["--hf-overrides", "[]"]):
        with pytest.raises(PrunusError, match="JSON"):
            arguments("m", "llava", setting, wrong)


@pytest.mark.parametrize("version", [None, "0.31.2", "0.33.0", "0.320.0", "1.0"])
def test_other_versions(monkeypatch: pytest.MonkeyPatch, version: str | None) -> None:
    monkeypatch.setattr("prunus.vllm.versions.installed", lambda: version)
    with pytest.raises(PrunusError, match=r"0\.32|not installed"):
        check_vllm()
    monkeypatch.setattr("prunus.vllm.versions.installed", lambda: "0.32.4")
    assert check_vllm() == "0.32.4"


def test_the_command_refuses_before_it_loads(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("prunus.vllm.versions.installed", lambda: "0.32.0")
    for argv, reason in (
        (["tiny-llava", "--method", "clse"], "inside the language model"),
        (["no/such", "--method", "divprune"], "no model"),
        (["tiny-llava", "--method", "none"], "start vLLM without prunus"),
        (["tiny-llava", "--method", "divprun"], "divprune"),
    ):
        with pytest.raises(SystemExit) as ended:
            main(["serve", "vllm", *argv])
        assert ended.value.code == 2
        assert reason in capsys.readouterr().err
