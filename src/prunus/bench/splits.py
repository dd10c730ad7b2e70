"""Where the time of one call goes: every moment belongs to the innermost part that has begun."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from itertools import pairwise
from typing import Any

import torch
from torch import nn

from prunus.bench.clock import wait
from prunus.engine.watch import watched
from prunus.families import Family

#: The parts of a prompt's time, in the order of a chart. ``choosing``: methods look and choose;
#: ``prefill``: decoder layers, with what the engine does between them; ``model``: what else the
#: multimodal model does (embedding, features into their places, masks); ``generate``: everything
#: outside of it (preparing the call, head, picking the token).
PARTS = ("tower", "projector", "choosing", "prefill", "model", "generate")


class Splits:
    """A stopwatch for nested parts. On a GPU its marks are CUDA events, which do not hold up what
    runs there; on a CPU, readings of a clock. From the first mark to the last no moment is left out
    and none counts twice, so that parts add up to the whole."""

    def __init__(self, device: torch.device, outermost: str = "generate") -> None:
        self._device = device
        self._open, self._stack = True, [outermost]
        self._marks: list[tuple[Any, str]] = []
        self._stamps: list[Any] = []

    def start(self) -> None:
        """Begin with an idle device."""
        wait(self._device)
        self._marks = [(self._mark(), self._stack[-1])]

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """The block is ``name``, but for the parts that begin in it."""
        self.enter(name)
        try:
            yield
        finally:
            self.leave()

    def enter(self, name: str) -> None:
        """From here on it is ``name``."""
        self._stack.append(name)
        self._note()

    def leave(self) -> None:
        """From here on it is what it was before the last :meth:`enter`."""
        self._stack.pop()
        self._note()

    def stamp(self) -> None:
        """A token is there. With the first, parts end."""
        self._note()
        self._open = False
        self._stamps.append(self._mark())

    def parts(self) -> dict[str, float]:
        """Seconds of each part up to the first token, or up to the last mark."""
        found = dict.fromkeys(PARTS, 0.0)
        for (before, name), (after, _) in pairwise(self._marks):
            found[name] = found.get(name, 0.0) + self._between(before, after)
        return found

    def stamps(self) -> list[float]:
        """Seconds from the start to each token."""
        wait(self._device)
        return [self._between(self._marks[0][0], one) for one in self._stamps]

    def _note(self) -> None:
        if self._open:
            self._marks.append((self._mark(), self._stack[-1]))

    def _mark(self) -> Any:
        if self._device.type != "cuda":
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record(torch.cuda.current_stream(self._device))
        return event

    def _between(self, before: Any, after: Any) -> float:
        if self._device.type != "cuda":
            return float(after - before)
        return float(before.elapsed_time(after)) / 1e3


@contextmanager
def watching(family: Family, current: Callable[[], Splits | None]) -> Iterator[None]:
    """While the block runs, calls of ``family``'s model tell the stopwatch that ``current`` gives
    which part begins; None: nobody is timing.

    Hooks that are there before the model is pruned run before the engine's own, so that what these
    do counts as a part of the module that they belong to.
    """
    modules: Mapping[str, list[nn.Module]] = {
        "tower": list(dict.fromkeys(family.towers.values())),
        "projector": [family.projector],
        "model": [family.core],
        "prefill": [family.language_model],
    }

    @contextmanager
    def around() -> Iterator[None]:
        splits = current()
        if splits is None:
            yield
            return
        with splits.part("choosing"):
            yield

    def entering(name: str) -> Callable[..., None]:
        def enter(*_: Any) -> None:
            if (splits := current()) is not None:
                splits.enter(name)

        return enter

    def leaving(*_: Any) -> None:
        if (splits := current()) is not None:
            splits.leave()

    with ExitStack() as held:
        held.enter_context(watched(around))
        for name, own in modules.items():
            for module in own:
                held.callback(module.register_forward_pre_hook(entering(name)).remove)
                held.callback(module.register_forward_hook(leaving, always_call=True).remove)
        yield
