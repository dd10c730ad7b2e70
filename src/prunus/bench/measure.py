"""One model, one batch size: the dense model, each method, and each method's oracles, in turn."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor

from prunus.bench.bare import Bare, NoBare
from prunus.bench.clock import in_turn, quartiles, ratios, seconds
from prunus.bench.generation import Timed, timer
from prunus.bench.memory import cache_bytes, peak
from prunus.bench.report import Case, Length, Ratios, Row
from prunus.bench.settings import oracle, pruned, untrained
from prunus.bench.steps import Steps
from prunus.bench.workload import Workload
from prunus.errors import PrunusError, one_line
from prunus.families import Family, family_of
from prunus.inference.answer import dense_report
from prunus.inference.named import NONE, build_methods, parse
from prunus.method import Method
from prunus.method.budget import Meaning

DENSE = "dense"
#: Parts of a prompt that the plain loop has as well.
_INSIDE = ("choosing", "prefill", "model")


@dataclass(frozen=True)
class Asked:
    """What is timed.

    Attributes:
        methods: names, as on the command line; the dense model is always there.
        keep: for those that take one; None: each its own.
        budget: what it counts.
        tokens: lengths of answers; the longest is generated, the others are its beginnings.
        rounds, warm_up: how often, and how often before that.
    """

    methods: Sequence[str]
    keep: str | None = None
    budget: Meaning = "nominal"
    tokens: Sequence[int] = (1, 32)
    rounds: int = 10
    warm_up: int = 2


@dataclass
class _Setting:
    """A method with all that is timed of it."""

    name: str
    methods: Sequence[Method]
    told: Sequence[Method] = ()
    bare: Bare | None = None
    steps: Steps | None = None
    row: Row = field(default_factory=lambda: Row())


@torch.inference_mode()
def measure(
    work: Workload, asked: Asked, batch: int, step: Callable[[int, int], None] = lambda *_: None
) -> Case:
    """All numbers of ``work`` for ``batch`` prompts; ``step`` is told how many of how many rounds
    are done. A method that cannot run on this model has a row that says so."""
    model, family = work.model, family_of(work.model)
    inputs = work.inputs(batch)
    with _quietly():
        settings = [
            _prepared(work, family, inputs, name, asked) for name in (DENSE, *asked.methods)
        ]
        running = [one for one in settings if not one.row["refused"]]
        for one in running:
            one.row.update(_facts(family, inputs, one, batch, asked.budget))
        found = _timed(family, work, inputs, running, asked, step)
    _fill(running, found, batch, asked)
    decode = [one.first for one in found.get("decode", ())]
    dense = settings[0].row
    return Case(
        model=work.name,
        about=work.about,
        parameters=sum(one.numel() for one in model.parameters()),
        batch=batch,
        attention=str(family.text_config._attn_implementation),
        prompt_tokens=int(inputs["input_ids"].shape[1]),
        visual_tokens=dense["tokens"]["original"],
        decode=list(quartiles(decode)) if decode else None,
        noise=(dense["first"][2] - dense["first"][0]) / dense["first"][1],
        rows=[one.row for one in settings],
    )


def methods_named(name: str, keep: str | None) -> tuple[Method, ...]:
    """The methods that ``name`` means; ``keep`` for one that takes it and does not say it itself.

    Raises:
        PrunusError: there are none of that name.
    """
    if name.strip().lower() == NONE:
        raise PrunusError("the dense model is always timed: leave out none")
    parts = parse(name)
    takes = len(parts) == 1 and parts[0].takes("keep")
    return build_methods(name, keep if takes else None, ()) or ()


def _prepared(
    work: Workload, family: Family, inputs: Mapping[str, Tensor], name: str, asked: Asked
) -> _Setting:
    """A setting whose methods ran once on this prompt, so that it is known what they keep."""
    setting = _Setting(name, ())
    setting.row = Row(name=name, refused=None, no_bare=None)
    try:
        if name != DENSE:
            methods = methods_named(name, asked.keep)
            if work.scale is not None:
                methods = tuple(untrained(work.model, one, work.scale) for one in methods)
            setting.methods = methods
            setting.told = oracle(work.model, list(methods), dict(inputs), asked.budget)
    except PrunusError as error:
        setting.row["refused"] = one_line(error)
        return setting
    try:
        setting.bare = Bare(family, inputs, setting.methods, asked.budget)
        if max(asked.tokens) > 1:
            setting.steps = Steps(family, inputs, setting.methods, asked.budget, setting.bare)
    except NoBare as error:
        setting.row["no_bare"] = one_line(error)
    return setting


def _facts(
    family: Family, inputs: Mapping[str, Tensor], one: _Setting, batch: int, budget: Meaning
) -> Row:
    """What one prompt leaves behind, and what it needs."""

    def prompt() -> Any:
        return family.top.generate(
            **inputs, max_new_tokens=1, do_sample=False, return_dict_in_generate=True
        )

    model: Any = family.top
    with pruned(model, list(one.methods), budget) as run:
        held = cache_bytes(prompt().past_key_values)
        report = dense_report(model, inputs) if run is None else run.report()
        most = peak(prompt, model.device)
    counted = report["kv_bytes"]
    tokens = {key: report["tokens"][key] for key in ("original", "kept", "average")}

    def block() -> None:
        with pruned(model, list(one.methods), budget):
            pass

    return Row(
        tokens=tokens,
        flops_ratio=None if report["flops"] is None else report["flops"]["ratio"],
        kv_bytes={
            "measured": held,
            "counted": None if counted is None else batch * counted["pruned"],
        },
        peak_bytes=most,
        block_seconds=seconds(block, model.device),
    )


def _timed(
    family: Family,
    work: Workload,
    inputs: Mapping[str, Tensor],
    settings: Sequence[_Setting],
    asked: Asked,
    step: Callable[[int, int], None],
) -> dict[str, list[Timed]]:
    """Each action's times, by its name."""
    longest, device = max(asked.tokens), family.top.device

    def clocked(action: Callable[[], object]) -> Timed:
        return Timed([seconds(action, device)])

    def given(action: Callable[[], float]) -> Timed:
        return Timed([action()])

    actions: dict[str, Callable[[], Timed]] = {}
    around: dict[str, Any] = {}
    with ExitStack() as held:
        timed = held.enter_context(timer(family))
        if work.decode is not None:
            actions["decode"] = partial(clocked, work.decode)
        for one in settings:
            actions[one.name] = partial(timed, inputs, longest)
            around[one.name] = partial(pruned, family.top, list(one.methods), asked.budget)
            if one.told:
                told = f"{one.name} told"
                actions[told] = actions[one.name]
                around[told] = partial(pruned, family.top, list(one.told))
            if one.bare is not None:
                actions[f"{one.name} bare"] = partial(clocked, one.bare)
            if one.steps is not None:
                actions[f"{one.name} step"] = partial(given, one.steps.ours)
                actions[f"{one.name} plain step"] = partial(given, one.steps.plain)
        done = iter(range(1, asked.warm_up + asked.rounds + 1))
        return in_turn(
            actions,
            asked.rounds,
            asked.warm_up,
            around,
            lambda: step(next(done), asked.warm_up + asked.rounds),
        )


def _fill(
    settings: Sequence[_Setting],
    found: Mapping[str, Sequence[Timed]],
    batch: int,
    asked: Asked,
) -> None:
    """Write into the rows what was timed."""
    dense = found[DENSE]
    for one in settings:
        own, row = found[one.name], one.row
        firsts = {
            kind: None if times is None else [time.first for time in times]
            for kind, times in {
                name: found.get(f"{one.name} {name}")
                for name in ("told", "bare", "step", "plain step")
            }.items()
        }
        told = found.get(f"{one.name} told")
        first = [time.first for time in own]
        inside = [sum(time.parts[part] for part in _INSIDE) for time in own]
        steps, theirs = _later(own), _later(dense)
        row["parts"] = {
            part: list(quartiles([time.parts[part] for time in own])) for part in own[0].parts
        }
        row["first"] = list(quartiles(first))
        row["first_ratio"] = Ratios(
            dense=_against(first, [time.first for time in dense]),
            told=_against(first, firsts["told"]),
            bare=_against(inside, firsts["bare"]),
        )
        row["token"] = list(quartiles(steps)) if steps else None
        row["token_ratio"] = Ratios(
            dense=_against(steps, theirs),
            told=_against(steps, None if told is None else _later(told)),
            bare=_against(firsts["step"], firsts["plain step"]),
        )
        row["lengths"] = [_length(own, dense, count, batch) for count in sorted(set(asked.tokens))]
        row["rounds"] = {
            "stamps": [time.stamps for time in own],
            "parts": [time.parts for time in own],
            "told": None if told is None else [time.stamps for time in told],
            **{name.replace(" ", "_"): firsts[name] for name in ("bare", "step", "plain step")},
        }


def _later(times: Sequence[Timed]) -> list[float]:
    """Seconds of each further token; nothing where there is one alone."""
    return [time.each for time in times if time.each is not None]


def _length(own: Sequence[Timed], dense: Sequence[Timed], count: int, batch: int) -> Length:
    spent = [time.stamps[count - 1] for time in own]
    theirs = [time.stamps[count - 1] for time in dense]
    middle = quartiles(spent)
    return Length(
        tokens=count,
        seconds=list(middle),
        per_second=batch * count / middle[1],
        ratio=list(ratios(spent, theirs)),
    )


def _against(ours: Sequence[float] | None, theirs: Sequence[float] | None) -> list[float] | None:
    """Quartiles of the ratios; None where either was not timed."""
    return list(ratios(ours, theirs)) if ours and theirs else None


@contextmanager
def _quietly() -> Iterator[None]:
    """What methods warn of ("found nothing to do") is not about times."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
