"""Stored answers are used where everything that they depend on is the same, and nowhere else."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

import prunus
from prunus.compare.columns import make_columns
from prunus.compare.identity import cell_identity, digest, model_identity, plain, seen_digest
from prunus.errors import PrunusError
from prunus.evaluate.cells import Cell
from prunus.families import family_of
from prunus.method import find_method
from tests.support.models import case_of


@dataclass(frozen=True)
class Odd:
    what: Any


def test_every_parameter_counts() -> None:
    base = digest(plain(prunus.methods()["clse"](keep=64)))
    assert base == digest(plain(prunus.methods()["clse"](keep=64)))
    for other in ({"keep": 65}, {"keep": 64.0 / 576}, {"keep": 64, "cutoff": 0.2}):
        assert digest(plain(prunus.methods()["clse"](**other))) != base
    cell = Cell("random", 0.2, 0, prunus.methods()["random"](keep=0.2, seed=0))
    seeded = Cell("random", 0.2, 1, prunus.methods()["random"](keep=0.2, seed=1))
    found = {digest(cell_identity(one, "nominal")) for one in (cell, seeded)}
    assert len({*found, digest(cell_identity(cell, "true"))}) == 3


def test_the_code_of_a_method_in_a_file_counts(tmp_path: Path) -> None:
    text = (
        "from dataclasses import dataclass\nfrom prunus.pruners.uniform import Uniform\n\n\n"
        "@dataclass(frozen=True)\nclass Own(Uniform):\n    name = 'own-{0}'\n"
    )
    found = []
    for at, more in enumerate(("", "    # changed\n")):
        path = tmp_path / f"own{at}.py"
        path.write_text(text.format(f"identity-{at}") + more)
        method = find_method(f"{path}:Own")[0](keep=64)
        found.append(plain(method)["code"])
    assert found[0] != found[1]


def test_what_cannot_be_compared_is_refused() -> None:
    with pytest.raises(PrunusError, match="plain value"):
        plain(Odd(lambda: 1))
    assert plain(Odd(float("nan"))) == {"Odd": {"what": "nan"}}
    one, other = torch.arange(3), torch.arange(3).int()
    assert plain(Odd(one)) != plain(Odd(other))
    assert plain({2, 1}) == plain({1, 2})


def test_a_model_is_its_weights_and_settings() -> None:
    model, processor = prunus.load("tiny-llava")
    before = model_identity(model, processor)
    assert before == model_identity(*prunus.load("tiny-llava"))
    model.config._name_or_path = "elsewhere"
    assert model_identity(model, processor) == before
    with torch.no_grad():
        next(model.parameters()).view(-1)[0] += 1e-3
    processor.image_processor.image_mean = [0.5, 0.5, 0.4]
    after = model_identity(model, processor)
    assert {name for name in before if before[name] != after[name]} == {"weights", "processor"}
    model.config._attn_implementation = "eager"
    assert model_identity(model, processor)["attention"] == "eager"


def test_pixels_and_not_names_of_images_count() -> None:
    image = Image.new("RGB", (4, 3), "red")
    assert seen_digest(image) == seen_digest(image.copy())
    assert seen_digest(image) != seen_digest(image.resize((3, 4)))
    assert seen_digest(image) != seen_digest(Image.new("RGB", (4, 3), "blue"))
    assert seen_digest(image) != seen_digest(image.convert("L"))


def test_one_column_stands_for_both_meanings_where_they_are_one() -> None:
    family = family_of(case_of("llava-clip").model)
    names = ["divprune", "fastv", "random", "ground-truth", "blind", "visipruner", "evoprune+clse"]
    columns = make_columns(names, [0.5], ["true", "nominal"], [0], family)
    found = {one.cell.name: [] for one in columns}
    for one in columns:
        found[one.cell.name].append((one.budget, one.meanings))
    both = [("nominal", ("true", "nominal"))]
    apart = [("true", ("true",)), ("nominal", ("nominal",))]
    assert found["divprune"] == both
    assert found["fastv"] == found["random"] == found["ground-truth"] == apart
    assert found["evoprune+clse"] == apart
    own = [("nominal", ("own",))]
    assert found["dense"] == found["blind"] == found["visipruner"] == own


def test_a_true_budget_alone_shares_what_was_asked_as_a_nominal_one() -> None:
    family = family_of(case_of("llava-clip").model)
    [_, true] = make_columns(["divprune"], [0.5], ["true"], [0], family)
    [_, nominal] = make_columns(["divprune"], [0.5], ["nominal"], [0], family)
    assert (true.budget, true.meanings, true.keys) == (
        "nominal", ("true",), ("divprune|true|0.5",),
    )  # fmt: skip
    same = (cell_identity(one.cell, one.budget) for one in (true, nominal))
    assert len({digest(one) for one in same}) == 1


def test_a_method_that_does_not_fit_is_refused_alone() -> None:
    family = family_of(case_of("llava-clip").model)
    columns = make_columns(["stepwise", "uniform"], [0.5], ["true", "nominal"], [0], family)
    refused = {one.cell.name: one.refused for one in columns}
    assert refused["stepwise"] is not None and "selector" in refused["stepwise"]
    assert refused["uniform"] is None and refused["dense"] is None
