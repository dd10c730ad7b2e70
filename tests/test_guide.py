"""The page on methods: its examples are right as they are printed, and so are its commands."""

from __future__ import annotations

import inspect
import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
import torch

import prunus
from prunus import Method, Selection
from prunus.families import family_of
from prunus.method.base import KNOWN
from prunus.method.places import Cut
from prunus.method.registry import find_method
from prunus.method.signals import Signal
from prunus.method.view import View
from tests.support.command_line import Cli
from tests.support.family_invariants import hold
from tests.support.models import Case, case_of
from tests.support.pages import ROOT, blocks

PAGE = "docs/adding-a-method.md"
FILES = {
    found[1]: code
    for code in blocks(PAGE)
    if (found := re.match(r"# (\w+\.py)\n", code)) is not None
}
EXAMPLES = {name: code for name, code in FILES.items() if not name.startswith("test_")}
INVARIANTS = (
    "identity_at_the_neutral_setting",
    "prefill_equals_the_masked_full_length_run",
    "rows_of_a_batch_equal_the_rows_alone",
    "the_count_is_exactly_the_budget",
)
#: Those that make new tokens at a cut.
MADE = ("nearest.py", "blend.py")
COMMANDS = [
    line.partition("   #")[0]
    for block in re.findall(r"```bash\n(.*?)```", (ROOT / PAGE).read_text(), flags=re.DOTALL)
    for line in block.splitlines()
    if line.startswith("prunus ")
]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with the examples in it; afterwards nobody knows them any more."""
    for name, code in EXAMPLES.items():
        (tmp_path / name).write_text(code)
    monkeypatch.chdir(tmp_path)
    before = dict(KNOWN)
    yield tmp_path
    KNOWN.clear()
    KNOWN.update(before)


def example(folder: Path, file: str) -> type[Method]:
    (name,) = re.findall(r"^class (\w+)\(Method\)", EXAMPLES[file], flags=re.MULTILINE)
    return find_method(f"{folder / file}:{name}")[0]


def small(cls: type[Method]) -> Method:
    return cls(keep=5) if "keep" in inspect.signature(cls).parameters else cls()  # type: ignore[call-arg]


def test_the_page_has_an_example_of_everything() -> None:
    text = "".join(EXAMPLES.values())
    for word in (
        "into=",
        "mix=",
        "Selection.merge(",
        "grid.parts",
        "def counts",
        "def macs",
        "presets",
    ):
        assert word in text, word


@pytest.mark.parametrize("kind", ["llava-clip", "qwen2.5-vl-video"])
@pytest.mark.parametrize("name", INVARIANTS)
@pytest.mark.parametrize("file", EXAMPLES)
def test_examples_hold_what_every_method_has_to(
    file: str, name: str, kind: str, folder: Path
) -> None:
    if file in MADE and name.startswith("prefill"):
        pytest.skip("the oracle only hides tokens; see the test of new states below")
    hold(name, case_of(kind), small(example(folder, file)))


@pytest.mark.parametrize("kind", ["llava-clip", "qwen2.5-vl-video"])
def test_what_merges_is_the_mean_by_size(kind: str, folder: Path) -> None:
    """The layer behind the cut is given, for each survivor, the mean of what went into it."""
    case = case_of(kind)
    inputs = case.prompts.rows(2)
    with torch.no_grad():
        before = case.model(**inputs, output_hidden_states=True).hidden_states[2][0]
    given: list[torch.Tensor] = []
    norm = family_of(case.model).layers[2].input_layernorm  # inside the layer, behind the cut
    handle = norm.register_forward_pre_hook(lambda _, args: given.append(args[0][0]))
    with prunus.prune(case.model, small(example(folder, "nearest.py"))) as run, torch.no_grad():
        case.model(**inputs)
    handle.remove()
    (entry,), images = run.trace, case.prompts.spots(inputs["input_ids"])[0]
    assert entry.merged_into is not None
    there = set(range(len(before)))
    for places, kept in zip(images, entry.kept[0], strict=True):
        there -= {place for n, place in enumerate(places) if n not in kept.tolist()}
    slots = {place: slot for slot, place in enumerate(sorted(there))}
    assert len(given[0]) == len(slots) < len(before)
    joined = 0
    for places, kept, into in zip(images, entry.kept[0], entry.merged_into[0], strict=True):
        assert int(into.min()) >= 0
        for survivor in kept.tolist():
            members = [places[n] for n in (into == survivor).nonzero()[:, 0].tolist()]
            joined += len(members) - 1
            expected = before[members].mean(0)
            assert torch.allclose(given[0][slots[places[survivor]]], expected, atol=1e-5)
    assert joined == len(before) - len(slots)


def test_the_literal_reference_is_one(case: Case, folder: Path) -> None:
    example(folder, "large_values.py")
    names: dict[str, Any] = {"__name__": __name__}
    exec(compile(FILES["test_large_values.py"], PAGE, "exec"), names)
    names["test_the_largest_values_stay"](case)


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_run(command: str, folder: Path, cli: Cli, picture: Path) -> None:
    shutil.copy(picture, "photo.jpg")
    program, *arguments = shlex.split(command)
    assert program == "prunus"
    result = cli(*arguments)
    assert result.code == 0, result.err
    if "--save-overlay" in arguments:
        assert Path("kept.png").stat().st_size


def test_check_takes_instances(folder: Path) -> None:
    cls = cast(Any, example(folder, "large_values.py"))
    model, processor = prunus.load("tiny-llava")
    report = prunus.check(model, processor, [cls(keep=0.3), cls(keep=0.3, layer=0)])
    assert report.ok and len(report.rows) == 2


def test_a_method_behind_another_that_dropped_sees_what_is_left(folder: Path) -> None:
    case = case_of("qwen2.5-vl")
    inputs = case.prompts.rows(2, 1)
    both = [prunus.Random(keep=9, layer=1), small(example(folder, "nearest.py"))]
    with prunus.prune(case.model, both) as run, torch.no_grad():
        case.model(**inputs)
    first, second = run.trace
    for sample, own in zip(first.kept, second.kept, strict=True):
        for there, left in zip(sample, own, strict=True):
            assert len(left) == 5 and set(left.tolist()) <= set(there.tolist())


@pytest.mark.parametrize("owner", [Selection, View, Cut])
def test_tables_have_every_field(owner: type) -> None:
    text = (ROOT / PAGE).read_text()
    fields = set(inspect.signature(owner).parameters) - {"source", "sees", "_read", "pairs"}
    missing = [name for name in fields if not re.search(rf"`[^`]*\b{name}\b", text)]
    assert not missing


def test_the_table_has_every_signal() -> None:
    text = (ROOT / PAGE).read_text()
    own = [cls for cls in Signal.__subclasses__() if cls.__module__.startswith("prunus.")]
    assert not [cls.__name__ for cls in own if f"`{cls.__name__}(" not in text]
