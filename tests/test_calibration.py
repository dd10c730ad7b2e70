"""The file of measured parameters: what goes in comes out, and what is wrong is refused."""

from __future__ import annotations

import json
import warnings
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

import prunus
from prunus import VisiPruner
from prunus.families import family_of
from prunus.method.calibration import Calibration, made_on
from tests.support.llava import DEPTH
from tests.support.models import Case

PARAMS: dict[str, Any] = {"tokens_threshold": 0.25, "layer_threshold": 0.995, "shallow_layers": 1}
GOOD = Calibration("visipruner", "größer/model", DEPTH, PARAMS, {"prompts": 7, "kept": {"max": 3}})


def written(path: Path, **changes: Any) -> Path:
    """A good file with other values; None leaves a field out."""
    facts = {**asdict(GOOD), **changes}
    path.write_text(json.dumps({name: v for name, v in facts.items() if v is not None}))
    return path


def test_round_trip(tmp_path: Path) -> None:
    GOOD.save(tmp_path / "c.json")
    assert Calibration.load(tmp_path / "c.json") == GOOD
    assert Calibration.load(str(tmp_path / "c.json")) == GOOD


def test_what_is_no_number_is_not_written(tmp_path: Path) -> None:
    bad = Calibration("visipruner", "m", DEPTH, PARAMS, {"mean": float("nan")})
    with pytest.raises(ValueError, match="JSON compliant"):
        bad.save(tmp_path / "c.json")
    assert not (tmp_path / "c.json").exists()


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe\x00", b"[1]", b"3", b"{}", b"null"])
def test_files_that_are_something_else(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "c.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"c\.json' is no"):
        Calibration.load(tmp_path / "c.json")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"depth": None}, "must be an object with method, model, depth"),
        ({"more": 1}, "must be an object with method, model, depth"),
        ({"method": 3}, "method must be a text"),
        ({"model": ["m"]}, "model must be a text"),
        ({"depth": "12"}, "depth must be a whole number"),
        ({"depth": True}, "depth must be a whole number"),
        ({"params": [0.2]}, "params must be an object"),
        ({"measured": 1}, "measured must be an object"),
        ({"made_on": 1}, "made_on must be an object"),
        ({"made_on": {}}, "made_on.architecture"),
        ({"made_on": {"architecture": {}, "weights": [[1.0], [1.0, 2.0]]}}, "made_on.weights"),
        ({"made_on": {"architecture": {}, "weights": []}}, "made_on.weights"),
        ({"params": {"tokens_threshold": "0.2"}}, "tokens_threshold='0.2' must be a number"),
        ({"params": {"tokens_threshold": True}}, "tokens_threshold=True must be a number"),
        ({"params": {"tokens_threshold": float("inf")}}, "tokens_threshold=inf must be a number"),
        ({"params": {"tokens_threshold": -1}}, "tokens_threshold=-1"),
        ({"params": {"tokens_threshold": 1, "shallow_layers": -2}}, "shallow_layers=-2"),
        ({"params": {"tokens_threshold": 1, "cutoff": 2}}, "no parameter cutoff"),
        ({"params": {"shallow_layers": 2}}, "lack tokens_threshold"),
        ({"params": {}}, "lack tokens_threshold"),
        ({"method": "visipruned"}, "unknown method 'visipruned'"),
        ({"depth": 0}, "depth=0: a model has at least one layer"),
        ({"depth": -3}, "depth=-3"),
        ({"depth": 12.0}, "depth must be a whole number"),
        ({"params": {"tokens_threshold": float("nan")}}, "tokens_threshold=nan must be a number"),
        ({"params": {"tokens_threshold": 10**400}}, "tokens_threshold=inf"),
        ({"params": {"tokens_threshold": None}}, "tokens_threshold=None must be a number"),
        ({"params": {"tokens_threshold": 1, "shallow_layers": 2.0}}, "shallow_layers=2.0 is no"),
        ({"params": {"tokens_threshold": 1, "shallow_layers": 10**30}}, "64 bits"),
        ({"params": {"tokens_threshold": 1, "force": 1}}, "force=1 is no boolean"),
        ({"params": {"tokens_threshold": 1, "layer_threshold": 3}}, "layer_threshold=3"),
    ],
)
def test_bad_fields(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    path = written(tmp_path / "c.json", **changes)
    with pytest.raises(ValueError, match=words) as error:
        Calibration.load(path)
    assert "c.json" in str(error.value)


def test_a_file_nested_too_deeply(tmp_path: Path) -> None:
    (tmp_path / "c.json").write_bytes(b"[" * 100_000)
    with pytest.raises(prunus.PrunusError, match=r"c\.json' is nested too deeply"):
        Calibration.load(tmp_path / "c.json")


@pytest.mark.parametrize("name", ["", "a\0b", "x" * 5000, "\ud800", "."])
def test_names_that_no_file_has(name: str) -> None:
    with pytest.raises(prunus.PrunusError, match="cannot read the calibration"):
        Calibration.load(name)


def test_a_path_is_as_good_as_a_text(tmp_path: Path) -> None:
    assert VisiPruner(calibration=written(tmp_path / "c.json")).shallow(DEPTH) == 1


def test_no_such_file(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"cannot read .*gone\.json"):
        VisiPruner(calibration=str(tmp_path / "gone.json"))


def test_another_model_or_method_is_refused_before_anything_runs(
    tmp_path: Path, llava: Case
) -> None:
    deep = written(tmp_path / "deep.json", depth=32)
    with pytest.raises(ValueError, match=r"größer/model with 32 .* has 5: calibrate again"):
        prunus.prune(llava.model, "visipruner", calibration=str(deep))
    other = written(tmp_path / "other.json", method="random", params={"seed": 3})
    assert Calibration.load(other).params == {"seed": 3}
    with pytest.raises(ValueError, match="for random, not for visipruner"):
        prunus.prune(llava.model, "visipruner", calibration=str(other))


def made_for(llava: Case, path: Path, **changes: Any) -> Path:
    facts = made_on(family_of(llava.model))
    for name, value in changes.items():
        part, field = name.split("__")
        if field == "all":
            facts[part] = value
        else:
            facts[part][field.replace("_of_", ".", 1)] = value
    return written(path, made_on=facts)


def test_a_model_of_the_same_depth_built_otherwise_is_refused(tmp_path: Path, llava: Case) -> None:
    path = made_for(llava, tmp_path / "c.json", architecture__decoder_of_hidden_size=4096)
    with pytest.raises(ValueError, match="größer/model, whose decoder.hidden_size is 4096"):
        prunus.prune(llava.model, "visipruner", calibration=str(path))


@pytest.mark.parametrize("scale", [1.0, 1.001])
def test_the_same_model_is_taken_in_silence(tmp_path: Path, llava: Case, scale: float) -> None:
    """Rounding to half precision changes nothing."""
    weights = (scale * family_of(llava.model).fingerprint()).tolist()
    path = made_for(llava, tmp_path / "c.json", weights__all=weights)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        prunus.prune(llava.model, "visipruner", calibration=str(path))


def test_other_weights_are_warned_about(tmp_path: Path, llava: Case) -> None:
    weights = (1.1 * family_of(llava.model).fingerprint()).tolist()
    path = made_for(llava, tmp_path / "c.json", weights__all=weights)
    with pytest.warns(UserWarning, match="größer/model, and the model has other weights"):
        prunus.prune(llava.model, "visipruner", calibration=str(path))


def test_files_of_earlier_versions_are_taken_with_a_warning(tmp_path: Path, llava: Case) -> None:
    path = written(tmp_path / "c.json")
    assert "made_on" not in json.loads(path.read_text())
    with pytest.warns(UserWarning, match="does not say what model that is"):
        prunus.prune(llava.model, "visipruner", calibration=str(path))


def test_visipruner_takes_it_and_what_is_given_beside_it_counts_more(tmp_path: Path) -> None:
    path = str(written(tmp_path / "c.json"))
    assert VisiPruner(calibration=path).shallow(DEPTH) == 1
    assert VisiPruner(calibration=path, shallow_layers=2).shallow(DEPTH) == 2
