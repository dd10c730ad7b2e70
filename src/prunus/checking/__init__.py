"""Is pruning right on this model, with these versions and this attention backend?

:func:`check` runs every method on the model at hand and compares with what the unmodified model
gives, without the engine. It is meant for models and versions that the tests have never seen.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from prunus.checking.dense import Dense, run_dense
from prunus.checking.environment import environment
from prunus.checking.footprint import footprint
from prunus.checking.measure import Bench, try_out
from prunus.checking.probe import from_processor, from_rows
from prunus.checking.report import COLUMNS, Cell, CheckReport, Row
from prunus.checking.trials import trials
from prunus.errors import PrunusError, PrunusStateError
from prunus.families import family_of
from prunus.method import Method
from prunus.pruners.fixed import Fixed
from prunus.run import prune
from prunus.versions import check_transformers

__all__ = ["COLUMNS", "Cell", "CheckReport", "Row", "check"]

STEPS = 6


def check(
    model: nn.Module,
    processor: Any = None,
    methods: Sequence[str | Method] | None = None,
    *,
    prompts: Sequence[Mapping[str, Tensor]] | None = None,
    steps: int = STEPS,
    video: bool = False,
    started: Callable[[str, int], None] | None = None,
) -> CheckReport:
    """Check that pruning is right on ``model``: what :data:`COLUMNS` say, for each method.

    Args:
        model: a supported transformers model, or a PEFT wrapper around one, not being pruned. It is
            put into evaluation mode for the time of the check.
        processor: its processor, which makes two prompts about a drawn picture.
        methods: names or instances; None for all.
        prompts: instead of a processor, at least two encoded prompts (the arguments of ``forward``
            with ``input_ids [1, L]``, each with an image, without padding).
        steps: tokens to generate.
        video: prompts about a short video instead of a picture; for models that take videos.
        started: called before each trial with its name and how many trials there are.

    Raises:
        PrunusError: neither processor nor prompts, an unknown method, prompts without images, a
            family that is not supported, or a processor that takes no videos.
        PrunusStateError: the model is being pruned.
    """
    check_transformers()
    if (processor is None) == (prompts is None):
        raise PrunusError("give a processor, or prompts instead of one")
    if isinstance(methods, str) or steps < 1:
        raise PrunusError(f"methods={methods!r}, steps={steps}: a list of methods, at least 1 step")
    family, start = family_of(model), time.monotonic()
    with _evaluating(model):
        probe = (
            from_processor(family, processor, steps, video)
            if prompts is None
            else from_rows(family, prompts, steps)
        )
        dense = run_dense(model, family, probe)
        bench = Bench(model, family, probe, dense)
        todo = trials(methods, family, probe.least)
        rows, before = [], footprint(model)
        _refuse_pruned(model)
        for trial in todo:
            if started is not None:
                started(trial.name, len(todo))
            rows.append(try_out(bench, trial, before))
            before = footprint(model)  # what one leaves is not held against the next
    return CheckReport(
        rows,
        environment(model, family, processor),
        dense.tolerance,
        dense.spread,
        time.monotonic() - start,
        _notes(dense),
    )


def _refuse_pruned(model: nn.Module) -> None:
    """What a model gives while it is being pruned is nothing to compare with."""
    try:
        prune(model, Fixed(), untested=True).attach().detach()
    except RuntimeError as error:
        raise PrunusStateError(f"before the check: {error}") from error
    except ValueError:
        return  # refused for another reason, which every trial will tell


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode for the time of the block; afterwards each module is as it was."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


def _notes(dense: Dense) -> list[str]:
    notes = []
    if not dense.repeatable:
        notes.append("the unmodified model does not give the same bits twice")
    if dense.padded > dense.tolerance:
        notes.append(
            f"the unmodified model differs by {dense.padded:.1e} between a left-padded batch and "
            "its rows alone: what the column `batch` says is not about pruning"
        )
    return notes
