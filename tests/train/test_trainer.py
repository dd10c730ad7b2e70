"""Training stops anywhere and goes on bit by bit, and trains nothing but the selector."""

from __future__ import annotations

import json
import os
import signal
import sys
import types
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate.state import AcceleratorState
from PIL import Image

from prunus import OneShot, Stepwise, prune
from prunus.selector.config import TrainSettings
from prunus.tasks.sets import EvalSet, Query
from prunus.train.interrupt import Interrupt
from prunus.train.loader import Part, batches
from prunus.train.log import Log
from prunus.train.objective import Objective
from prunus.train.options import Options, Result
from prunus.train.run import Training
from prunus.train.schedule import Schedule
from prunus.train.sources import Questions, Split
from prunus.train.state import State
from prunus.train.trainer import train
from prunus.train.watch import Display, Watch
from tests.support.chat_models import tiny_llava, tiny_qwen

SMALL: dict[str, Any] = {"width": 16, "heads": 2, "encoder_layers": 1, "decoder_layers": 1}
SETTINGS = TrainSettings(
    steps=6, batch=4, rate=1e-2, sharpen=0.5, max_steps=5, selector={**SMALL, "min_steps": 2}
)


@pytest.fixture(autouse=True)
def fresh_accelerate() -> Iterator[None]:
    """accelerate remembers the precision of the first run of a process."""
    yield
    AcceleratorState._reset_state(True)


@pytest.fixture(scope="module")
def llava() -> tuple[Any, Any]:
    return tiny_llava()


def questions(count: int = 10, images: int = 3) -> EvalSet:
    def drawer(number: int) -> Callable[[], Image.Image]:
        return lambda: (
            Image.linear_gradient("L").rotate(90 * number).resize((32, 32)).convert("RGB")
        )

    queries = [
        Query(at % images, f"what color is box {at}?", ("red", "two")[at % 2], "all")
        for at in range(count)
    ]
    drawn = tuple(drawer(number) for number in range(images))
    return EvalSet("boxes", tuple(queries), drawn, (None,) * images, {})


def split(held_out: int = 3) -> Split:
    data = questions()
    return Split("boxes", Questions(data), data.first(held_out) if held_out else None)


class Stop(Watch):
    """Sends a signal once some step is over, so that the next one is the last."""

    def __init__(self, after: int, number: signal.Signals = signal.SIGINT) -> None:
        self.after, self.number = after, number
        self.notes: list[str] = []
        self.started: tuple[int, int] | None = None

    def start(self, step: int, steps: int) -> None:
        self.started = (step, steps)

    def step(self, step: int, figures: Mapping[str, float]) -> None:
        if step == self.after:
            os.kill(os.getpid(), self.number)

    def note(self, text: str) -> None:
        self.notes.append(text)


def go(
    llava: tuple[Any, Any],
    folder: Path,
    settings: TrainSettings = SETTINGS,
    options: Options | None = None,
    data: Split | None = None,
    **others: Any,
) -> Result:
    options = options or Options(every=2)
    return train(*llava, "tiny", data or split(), settings, folder, options, **others)


def same(first: Any, second: Any) -> bool:
    """Whether two states are equal to the last bit."""
    if isinstance(first, torch.Tensor):
        return torch.equal(first, second)
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(same(first[key], second[key]) for key in first)
    if isinstance(first, (list, tuple)):
        return len(first) == len(second) and all(map(same, first, second))
    return bool(first == second)


ARMS = {
    "stable": SETTINGS,
    "literal": SETTINGS.changed(arm="literal", scores=None, count="mean", noise="unit"),
    "no-stop": SETTINGS.changed(keep=4),
    "one-shot": SETTINGS.changed(keep=0.25, selector={**SMALL, "kind": "one-shot"}),
}


# -- stopping and going on ---------------------------------------------------------------------


@pytest.mark.parametrize("arm", ARMS)
def test_going_on_is_the_same_as_never_stopping(
    llava: tuple[Any, Any], tmp_path: Path, arm: str
) -> None:
    settings = ARMS[arm]
    whole = go(llava, tmp_path / "whole", settings)
    parts = tmp_path / "parts"
    stopped = go(llava, parts, settings, Options(every=4), watch=Stop(2))
    assert (stopped.step, stopped.stopped) == (3, "interrupt") and stopped.figures
    watch = Stop(-1)
    resumed = go(llava, parts, settings, Options(every=5, workers=0), resume=True, watch=watch)
    assert watch.started == (3, 6)
    assert (resumed.step, resumed.stopped) == (whole.step, whole.stopped) == (6, None)
    one, other = State.load(tmp_path / "whole"), State.load(parts)
    assert same(one.objective, other.objective) and same(one.optimizer, other.optimizer)
    files = [tmp_path / name / "selector.safetensors" for name in ("whole", "parts")]
    assert files[0].read_bytes() == files[1].read_bytes()
    assert whole.held_out == resumed.held_out
    assert resumed.seconds > stopped.seconds > 0


def test_seeds_and_steps_matter(llava: tuple[Any, Any], tmp_path: Path) -> None:
    """What the test above compares does differ where something differs."""
    states = []
    for number, settings in enumerate([SETTINGS, SETTINGS.changed(seed=1)]):
        go(llava, tmp_path / str(number), settings.changed(steps=2), data=split(0))
        states.append(State.load(tmp_path / str(number)))
    assert not same(states[0].objective, states[1].objective)
    before = {name: value.clone() for name, value in states[0].objective.items()}
    assert same(before, states[0].objective)
    training = Training(*llava, "tiny", split(0), SETTINGS, tmp_path, Options(), None)
    assert not same(before, training.objective.state_dict())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_after_the_step_with_everything_written(
    llava: tuple[Any, Any], tmp_path: Path, number: signal.Signals
) -> None:
    handler = signal.getsignal(number)
    result = go(llava, tmp_path, watch=Stop(1, number))
    assert (result.step, result.stopped) == (2, "interrupt")
    assert signal.getsignal(number) is handler
    assert State.load(tmp_path).step == 2
    with prune(llava[0], Stepwise(selector=tmp_path)):
        pass  # it fits
    names = {path.name for path in tmp_path.iterdir()}
    assert {"checkpoint.pt", "log.jsonl", "selector.json", "selector.safetensors"} <= names
    page = (tmp_path / "README.md").read_text("utf-8")  # if it is shared
    assert "library_name: prunus" in page and "inside" in page


def test_a_second_signal_is_as_ever() -> None:
    # What starts the tests in the background may have them ignore Ctrl-C.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with Interrupt() as interrupt:
            os.kill(os.getpid(), signal.SIGINT)
            assert interrupt.hit
            with pytest.raises(KeyboardInterrupt):
                os.kill(os.getpid(), signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_signal_while_measuring_stops_too(
    llava: tuple[Any, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = llava[0]
    generate = type(model).generate

    def interrupted(self: Any, *args: Any, **kwargs: Any) -> Any:
        os.kill(os.getpid(), signal.SIGTERM)
        return generate(self, *args, **kwargs)

    monkeypatch.setattr(type(model), "generate", interrupted)
    result = go(llava, tmp_path, options=Options(every=2))
    assert (result.step, result.stopped, result.held_out) == (2, "interrupt", {})
    monkeypatch.undo()
    assert go(llava, tmp_path, resume=True).held_out["questions"] == 3


def test_time_is_limited(llava: tuple[Any, Any], tmp_path: Path) -> None:
    result = go(llava, tmp_path, options=Options(minutes=1e-6))
    assert (result.step, result.stopped) == (1, "minutes")
    assert State.load(tmp_path).step == 1


def test_a_complete_run_only_measures_again(llava: tuple[Any, Any], tmp_path: Path) -> None:
    settings = SETTINGS.changed(steps=2)
    first = go(llava, tmp_path, settings)
    again = go(llava, tmp_path, settings, resume=True)
    assert again.step == 2 and again.held_out == first.held_out != {}


def test_checkpoints_in_between(
    llava: tuple[Any, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved: list[int] = []
    save = Training._save
    monkeypatch.setattr(Training, "_save", lambda self: (saved.append(self.step), save(self)))
    go(llava, tmp_path / "often", SETTINGS.changed(steps=3), Options(save_every=0), split(0))
    assert saved == [1, 2, 3, 3]
    saved.clear()
    go(llava, tmp_path / "seldom", SETTINGS.changed(steps=3), Options(save_every=1e6), split(0))
    assert saved == [3, 3]


# -- what is trained ---------------------------------------------------------------------------


@pytest.mark.parametrize("make", [tiny_llava, tiny_qwen])
def test_only_the_selector_is_trained(make: Callable[[], Any], tmp_path: Path) -> None:
    model, processor = make()
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    settings = SETTINGS.changed(steps=2)
    training = Training(model, processor, "tiny", split(2), settings, tmp_path, Options(), None)
    started = {name: w.clone() for name, w in training.objective.named_parameters()}
    result = training.run(resume=False)
    assert same(before, model.state_dict())
    assert all(weight.grad is None for weight in model.parameters())
    moved = [
        name
        for name, weight in training.objective.named_parameters()
        if not torch.equal(weight, started[name])
    ]
    assert {name.split(".")[0] for name in moved} == {"selector", "denoiser"}
    assert len(moved) > len(started) / 2
    assert result.parameters == sum(w.numel() for w in training.selector.parameters())
    names = ("feature_width", "text_width")
    family = training.objective._family
    assert (result.config.visual_width, result.config.text_width) == tuple(
        getattr(family, name) for name in names
    )


def test_pieces_add_up_to_the_batch(
    llava: tuple[Any, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "randn_like", torch.zeros_like)  # noise differs with the shape
    settings = SETTINGS.changed(steps=1, noise="unit", keep=4)
    results = [
        go(llava, tmp_path / str(pieces), settings, Options(accumulate=pieces), split(0)).figures
        for pieces in (1, 2, 4)
    ]
    assert results[0]["norm"] > 0.1
    for figures in results[1:]:
        assert figures == pytest.approx(results[0], rel=1e-3)


def test_half_precision_is_the_models_alone(llava: tuple[Any, Any], tmp_path: Path) -> None:
    result = go(llava, tmp_path / "half", options=Options(precision="bf16"), data=split(0))
    assert result.step == 6
    state = State.load(tmp_path / "half").objective
    assert {value.dtype for value in state.values() if value.is_floating_point()} == {torch.float32}
    AcceleratorState._reset_state(True)
    go(llava, tmp_path / "full", data=split(0))
    full = State.load(tmp_path / "full").objective
    assert not same(state, full), "autocast changed nothing"


def test_a_loss_that_is_no_number(
    llava: tuple[Any, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forward = Objective.forward

    def broken(self: Objective, batch: Any, state: Schedule) -> Any:
        loss, figures = forward(self, batch, state)
        return loss * (float("nan") if state.text_gate == 1 else 1.0), figures

    monkeypatch.setattr(Objective, "forward", broken)
    with pytest.raises(ValueError, match="no number any more at step 2: choose a smaller rate"):
        go(llava, tmp_path, options=Options(save_every=0), data=split(0))
    state = State.load(tmp_path)
    assert state.step == 2 and all(bool(one.isfinite().all()) for one in state.objective.values())


# -- measuring and telling ---------------------------------------------------------------------


@pytest.mark.parametrize(("arm", "kept"), [("no-stop", 4.0), ("one-shot", 4.0)])
def test_held_out_questions_are_asked_with_the_selector(
    llava: tuple[Any, Any], tmp_path: Path, arm: str, kept: float
) -> None:
    watch = Stop(-1)
    result = go(llava, tmp_path, ARMS[arm], Options(every=4), watch=watch)
    assert result.held_out.keys() == {"questions", "kept", "accuracy", "dense"}
    assert result.held_out["questions"] == 3 and result.held_out["kept"] == kept
    assert len(watch.notes) == 2 and watch.notes[0].startswith("step 4: ")
    assert "(unpruned: " in watch.notes[1] and "4.0 visual tokens kept" in watch.notes[1]
    model, processor = llava
    method = OneShot if arm == "one-shot" else Stepwise
    text = "USER: <image>\nwhat color is box 1? ASSISTANT:"
    inputs = processor(text=text, images=questions().images[0](), return_tensors="pt")
    with prune(model, method(selector=tmp_path, keep=4)) as run:
        model(**inputs)
    assert run.report()["tokens"]["kept"] == 4


def test_the_diary(llava: tuple[Any, Any], tmp_path: Path) -> None:
    go(llava, tmp_path, SETTINGS.changed(steps=12), Options(every=6))
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [(line["step"], "held_out" in line) for line in lines] == [
        (6, True),
        (10, False),
        (12, False),
        (12, True),
    ]
    wanted = {"loss", "lm", "kept", "share", "accuracy", "norm", "rate", "text_gate", "temperature"}
    assert wanted <= lines[1].keys()
    card = json.loads((tmp_path / "selector.json").read_text())
    assert card["model"] == "tiny" and card["training"]["settings"]["steps"] == 12
    assert card["training"]["step"] == 12 and card["training"]["held_out"]["questions"] == 3


def test_going_on_forgets_what_came_after_the_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text('{"step": 10, "a": 1}\n{"step": 20, "a": 2}\n{"step": 20, "a": 3}\n{"st')
    log = Log(tmp_path, step=20)
    log.write(30, {"a": 1 / 3, "none": float("nan")}, "held_out")
    lines = path.read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [10, 20, 20, 30]
    assert json.loads(lines[-1])["held_out"] == {"a": 0.333333, "none": None}
    Log(tmp_path, step=10)
    assert path.read_text() == '{"step": 10, "a": 1}\n'


def test_tensorboard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[tuple[str, float, int]] = []

    class Writer:
        def __init__(self, folder: str, purge_step: int) -> None:
            assert folder == str(tmp_path / "tensorboard") and purge_step == 6

        def add_scalar(self, name: str, value: float, step: int) -> None:
            written.append((name, value, step))

        def flush(self) -> None: ...

        def close(self) -> None: ...

    board = types.ModuleType("torch.utils.tensorboard")
    board.SummaryWriter = Writer  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", board)
    log = Log(tmp_path, 5, tensorboard=True)
    log.write(6, {"loss": 0.5, "nothing": float("inf")})
    log.write(6, {"accuracy": 0.25}, "held_out")
    log.close()
    assert written == [("training/loss", 0.5, 6), ("held_out/accuracy", 0.25, 6)]


def test_without_tensorboard(
    llava: tuple[Any, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(ValueError, match="TensorBoard is not installed: pip install"):
        go(llava, tmp_path / "new", options=Options(tensorboard=True))
    assert not (tmp_path / "new").exists()


def test_without_accelerate(
    llava: tuple[Any, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "accelerate", None)
    with pytest.raises(ValueError, match="needs accelerate: pip install 'prunus"):
        go(llava, tmp_path)


def test_the_display(capsys: pytest.CaptureFixture[str]) -> None:
    from rich.console import Console

    figures = {"loss": 1.25, "lm": 1.0, "kept": 33.3, "accuracy": 0.5}
    with Display(Console(force_terminal=True, width=140, highlight=False)) as display:
        display.start(2, 10)
        display.step(3, figures)
        display.note("a [note]")
        display._bars.refresh()
    shown = capsys.readouterr().out
    assert "a [note]" in shown and "loss 1.250  LM 1.000  K 33.3  right 50%" in shown
    with Display(Console(width=140)) as display:
        display.step(3, figures)
        display.note("only this")
    assert capsys.readouterr().out.strip() == "only this"


# -- refusals ----------------------------------------------------------------------------------


def test_runs_are_not_mixed_up(llava: tuple[Any, Any], tmp_path: Path) -> None:
    settings = SETTINGS.changed(steps=1)
    with pytest.raises(ValueError, match="no run in .* to go on with"):
        go(llava, tmp_path / "a", settings, resume=True)
    go(llava, tmp_path / "a", settings, data=split(0))
    with pytest.raises(ValueError, match="holds a run already"):
        go(llava, tmp_path / "a", settings)
    other = settings.changed(steps=2, selector={**SMALL, "clip": 5.0})
    words = r"settings.steps was 1 and is 2.*settings.selector.clip was None and is 5.0"
    with pytest.raises(ValueError, match=words):
        go(llava, tmp_path / "a", other, data=split(0), resume=True)
    data = Split("circles", Questions(questions(4)), None)
    with pytest.raises(ValueError, match=r"data was 'boxes .10 examples.' and is 'circles .4 exam"):
        go(llava, tmp_path / "a", settings, data=data, resume=True)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"minutes": 0}, "minutes=0: give"),
        ({"minutes": float("nan")}, "minutes=nan"),
        ({"accumulate": 0}, "accumulate=0"),
        ({"every": 0}, "every=0"),
        ({"save_every": -1}, "save_every=-1"),
        ({"workers": -1}, "workers=-1"),
    ],
)
def test_options_out_of_range(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Options(**options)


def test_a_batch_that_cannot_be_split(llava: tuple[Any, Any], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="batch=4 cannot be split evenly over 1 process times 3"):
        go(llava, tmp_path, options=Options(accumulate=3))
    with pytest.raises(ValueError, match="over 2 processes times 4"):
        Part(4, 4, 2)


# -- who gets which examples -------------------------------------------------------------------


def test_processes_and_pieces_share_a_batch() -> None:
    def step(number: int, pieces: int, processes: int) -> list[int]:
        parts = [Part(12, pieces, processes, own) for own in range(processes)]
        every = [
            place for part in parts for p in range(pieces) for place in part.positions(number, p)
        ]
        return sorted(every)

    for pieces, processes in ((1, 1), (3, 1), (1, 4), (2, 3)):
        assert step(5, pieces, processes) == list(range(60, 72))


def test_batches_start_anywhere_whoever_prepares_them(llava: tuple[Any, Any]) -> None:
    part = Part(4, 2)
    state = torch.random.get_rng_state()

    def first(start: int, count: int, workers: int = 0) -> list[Any]:
        pieces = batches(Questions(questions()), llava[1], part, 3, start, workers)
        return [next(pieces) for _ in range(count)]

    whole, later, helped = first(0, 8), first(2, 4), first(2, 4, workers=1)
    assert torch.equal(state, torch.random.get_rng_state())
    for one, other, third in zip(whole[4:], later, helped, strict=True):
        assert same(one.inputs, other.inputs) and same(one.inputs, third.inputs)
        assert torch.equal(one.labels, other.labels) and torch.equal(one.labels, third.labels)
    assert not torch.equal(whole[0].labels, whole[1].labels) or not same(
        whole[0].inputs, whole[1].inputs
    )
