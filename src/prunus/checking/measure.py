"""The checks of one trial, in the order of the table's columns."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from prunus.checking.answer import generate
from prunus.checking.choices import acted, alike, compare, parting
from prunus.checking.dense import Dense, cache_of, largest, lengths, run
from prunus.checking.features import Features
from prunus.checking.footprint import Footprint, difference, footprint
from prunus.checking.hidden import Hidden, NoOracle
from prunus.checking.oracle import captured, masked
from prunus.checking.probe import Probe
from prunus.checking.report import COLUMNS, Cell, Row
from prunus.checking.trials import Trial
from prunus.errors import PrunusError, one_line
from prunus.families import Family
from prunus.pruners.fixed import Fixed
from prunus.results.trace import TraceEntry
from prunus.run import prune

#: How often, and by which share of them, pixels are moved to see whether a choice is a tie.
_SHAKES, _SHAKE = 8, 1e-5


@dataclass(frozen=True)
class Bench:
    """What all trials share: the model, its prompts, and what it gives without pruning."""

    model: Any
    family: Family
    probe: Probe
    dense: Dense

    @property
    def depth(self) -> int:
        """Number of decoder layers."""
        return len(self.family.layers)

    def verdict(self, error: float, note: str = "") -> Cell:
        """``error``, an absolute difference of logits, as a cell."""
        share = error / self.dense.scale
        return Cell("ok" if share <= self.dense.tolerance else "failed", share, note)


def try_out(bench: Bench, trial: Trial, before: Footprint) -> Row:
    """All checks of one trial. What is left on the model, which was as ``before`` tells, is looked
    at last, whatever happened."""
    cells: dict[str, Cell] = {}
    setting = trial.setting
    with warnings.catch_warnings():  # the table says what prunus would warn about
        warnings.filterwarnings("ignore", "prunus: ")
        try:
            session = _Session(bench, trial)
        except Exception as error:
            cells = dict.fromkeys(COLUMNS, _raised(error))
        else:
            setting += " (found nothing to do: made to act)" * session.forced
            for column in COLUMNS:
                if column != "exit":
                    cells[column] = _guarded(getattr(session, column))
    if any(cell.status != "refused" for cell in cells.values()):
        cells["exit"] = _guarded(lambda: _left(bench, before))
    elif found := difference(before, footprint(bench.model)):
        cells["exit"] = Cell("failed", note=f"a refusal left {'; '.join(found[:3])}")
    return Row(trial.name, setting, cells)


class Wrong(Exception):
    """Something is not as it has to be; the message says what."""


def _guarded(check: Callable[[], Cell]) -> Cell:
    try:
        return check()
    except Exception as error:
        return _raised(error)


def _raised(error: Exception) -> Cell:
    """A refusal by prunus, a missing oracle, or anything else: a failure."""
    if isinstance(error, NoOracle):
        return Cell("skipped", note=str(error))
    if isinstance(error, Wrong):
        return Cell("failed", note=str(error))
    if isinstance(error, PrunusError):
        return Cell("refused", note=one_line(error))
    return Cell("failed", note=f"raised {type(error).__name__}: {one_line(error)[:200]}")


def _left(bench: Bench, before: Footprint) -> Cell:
    found = difference(before, footprint(bench.model))
    if found:
        more = f" and {len(found) - 3} more" * (len(found) > 3)
        return Cell("failed", note=f"left on the model: {'; '.join(found[:3])}{more}")
    logits = run(bench.model, bench.probe.batch).logits
    if torch.equal(logits, bench.dense.logits):
        return Cell("ok", 0.0)
    error = largest(logits[bench.probe.valid], bench.dense.logits[bench.probe.valid])
    if bench.dense.repeatable:
        share = error / bench.dense.scale
        return Cell("failed", share, "the unmodified model gives other logits than before")
    return bench.verdict(error, "the unmodified model itself differs from run to run")


@dataclass(frozen=True)
class _Alone:
    """One row of the batch by itself: ``logits [L, V]``, what the method did, and what the cache
    holds."""

    logits: Tensor
    trace: Sequence[TraceEntry]
    held: Sequence[tuple[int, int] | None]


class _Session:
    """One method on one bench. A refusal while it starts is raised from here."""

    def __init__(self, bench: Bench, trial: Trial) -> None:
        self._bench, self._probe = bench, bench.probe
        self.forced = False
        self._method = trial.make()
        self._logits, self._trace, idle = self._together()
        if idle and trial.forced is not None:
            self.forced, self._method = True, trial.forced()
            self._logits, self._trace, idle = self._together()
        self._idle = "finds nothing to do in these prompts" * idle

    def _together(self) -> tuple[Tensor, Sequence[TraceEntry], bool]:
        """Logits and trace of the batch, and whether the method had nothing to do."""
        with prune(self._bench.model, self._method, untested=True) as pruned:
            logits = run(self._bench.model, self._probe.batch).logits
        if not pruned.prompts:
            raise Wrong("the model ran unpruned: none of its prompts was seen")
        report, asked = pruned.report(), pruned.asked(self._probe.least)
        if not report["pruned"] and asked is not None and asked < self._probe.least:
            raise Wrong(f"nothing was pruned, and {asked:g} tokens were asked for")
        return logits, pruned.trace, bool(report["idle"]) or not report["pruned"]

    def _hidden(self, trace: Sequence[TraceEntry]) -> Hidden:
        return Hidden.of(trace, self._probe.spots, self._probe.valid, self._bench.depth)

    @cached_property
    def _alive(self) -> Tensor:
        return self._hidden(self._trace).alive

    @cached_property
    def _alone(self) -> list[_Alone]:
        found = []
        for inputs in self._probe.rows:
            with prune(self._bench.model, self._method, untested=True) as pruned:
                output = run(self._bench.model, inputs, use_cache=True)
            held = lengths(cache_of(output), self._bench.depth)
            found.append(_Alone(output.logits[0], pruned.trace, held))
        return found

    # -- columns -------------------------------------------------------------------------------

    def neutral(self) -> Cell:
        """The setting that changes nothing, against the unmodified model."""
        with prune(self._bench.model, self._method.neutral(), untested=True):
            logits = run(self._bench.model, self._probe.batch).logits
        valid = self._probe.valid
        return self._bench.verdict(largest(logits[valid], self._bench.dense.logits[valid]))

    def batch(self) -> Cell:
        """Every row alone, under the selection that it had in the batch."""
        bench, worst, notes, right = self._bench, 0.0, [], True
        exact = bench.dense.logits.dtype in (torch.float32, torch.float64)
        for row, (own, inputs) in enumerate(zip(self._alone, self._probe.rows, strict=True)):
            logits, alive = own.logits, self._alive[row]
            trace = [entry.of(row) for entry in self._trace if acted(entry, row)]
            alone = [entry for entry in own.trace if acted(entry, 0)]
            fits, note = compare(trace, alone, bench.dense.tolerance, exact)
            if not fits and self._by_rounding(trace, alone, inputs):
                fits, note = True, f"{note}, where rounding decides"
            right = right and fits
            if note:
                notes.append(note)
                logits = self._replayed(trace, inputs)
            alone_alive = alive[self._probe.valid[row]]
            worst = max(worst, largest(logits[alone_alive], self._logits[row, alive]))
        if bench.dense.padded > bench.dense.tolerance:
            notes.append(f"without pruning, rows differ by {bench.dense.padded:.1e} already")
        cell = bench.verdict(worst, "; ".join(dict.fromkeys([*notes, self._idle])).strip("; "))
        return cell if right else Cell("failed", cell.error, cell.note)

    def _by_rounding(
        self, trace: Sequence[TraceEntry], alone: Sequence[TraceEntry], inputs: dict[str, Tensor]
    ) -> bool:
        """Whether a row ``alone`` chooses as in the batch, where both first part, if its pixels are
        off by about as much as rounding is: then what it compares there is a tie."""
        place = parting(trace, alone)
        names = [
            name
            for name, value in inputs.items()
            if name.startswith("pixel_values") and value.is_floating_point()
        ]
        if place is None or not names:
            return False
        noise = torch.Generator().manual_seed(0)
        for _ in range(_SHAKES):
            moved = dict(inputs)
            for name in names:
                off = torch.randn(inputs[name].shape, generator=noise).to(inputs[name])
                moved[name] = inputs[name] * (1 + _SHAKE * off)
            with prune(self._bench.model, self._method, untested=True) as pruned:
                run(self._bench.model, moved)
            if alike(trace, [entry for entry in pruned.trace if acted(entry, 0)], place):
                return True
        return False

    def _replayed(self, trace: Sequence[TraceEntry], inputs: dict[str, Tensor]) -> Tensor:
        """``[L, V]`` of one row alone under a selection that was made elsewhere."""
        with (
            prune(self._bench.model, Fixed.replay(trace), untested=True) if trace else nullcontext()
        ):
            logits: Tensor = run(self._bench.model, inputs).logits[0]
        return logits

    def prefill(self) -> Cell:
        """The prompt, against the unmodified model that does not see what went."""
        bench, features = self._bench, None
        _check_comparable(self._trace)
        if self._merges:
            with prune(bench.model, self._method, untested=True), captured(bench.family) as seen:
                run(bench.model, self._probe.batch)
            features = Features(seen[0], self._probe.visual)
        with masked(bench.family, self._hidden(self._trace), features):
            expected = run(bench.model, self._probe.batch).logits
        error = largest(self._logits[self._alive], expected[self._alive])
        return bench.verdict(error, self._given)

    def decode(self) -> Cell:
        """The tokens of an answer, against the same."""
        bench = self._bench
        _check_comparable(self._trace)
        with prune(bench.model, self._method, untested=True) as pruned:
            with captured(bench.family) as seen:
                got = generate(bench.model, self._probe)
        features = Features(seen[0], self._probe.visual) if self._merges else None
        with masked(bench.family, self._hidden(pruned.trace), features):
            expected = generate(bench.model, self._probe)
        return bench.verdict(largest(got.logits, expected.logits), self._given)

    @property
    def _merges(self) -> bool:
        made = [entry for entry in self._trace if entry.place == "features" and entry.mix]
        return bool(made) or any(entry.place == "encoder" for entry in self._trace)

    @property
    def _given(self) -> str:
        """What the comparison leaves out."""
        return "the language model alone, given the merged features" * self._merges

    def cache(self) -> Cell:
        """Tokens in each layer's cache, of each row alone."""
        bench = self._bench
        for row, alone in enumerate(self._alone):
            valid = self._probe.valid[row : row + 1]
            start = int((~valid).sum())
            spots = [[spot - start for spot in self._probe.spots[row]]]
            hidden = Hidden.of(alone.trace, spots, valid[:, start:], bench.depth)
            pairs = zip(bench.dense.held[row], alone.held, strict=True)
            for layer, (plain, own) in enumerate(pairs):
                if plain is None:
                    continue
                wanted = (int(hidden.resident(layer, plain[0])[0]), plain[1])
                if own != wanted:
                    return Cell("failed", note=_lengths(layer, own, wanted))
        return Cell("ok")


def _check_comparable(trace: Sequence[TraceEntry]) -> None:
    """Raise NoOracle where layers do more to tokens than not to see them."""
    for entry in trace:
        if entry.place == "decoder" and (entry.compact or entry.mix):
            what = "makes new tokens" if entry.mix else "closes positions up"
            raise NoOracle(
                f"{entry.method} {what} inside the language model, which is not repeated here"
            )


def _lengths(layer: int, own: tuple[int, int] | None, wanted: tuple[int, int]) -> str:
    if own is None:
        return f"the cache of layer {layer} holds nothing"
    if own[0] != wanted[0]:
        return f"the cache of layer {layer} holds {own[0]} tokens instead of {wanted[0]}"
    return f"the cache of layer {layer} says {own[1]} tokens instead of {wanted[1]}"
