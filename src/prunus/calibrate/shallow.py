"""How many of a model's first layers can do without vision."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile

from prunus.analyse.context import Context, Step
from prunus.analyse.measure import DENSE, measure
from prunus.errors import PrunusError
from prunus.pruners.visipruner import VisiPruner
from prunus.results.stats import Estimate, paired_difference


@dataclass(frozen=True)
class Tried:
    """One number of shallow layers; ``success``: share of right answers or, where no true ones are
    known, of the dense model's (in 0..1); ``difference`` to the dense model, with its interval."""

    layers: int
    success: float
    difference: Estimate


def candidates(depth: int) -> list[int]:
    """Numbers of shallow layers that are tried on a decoder of ``depth`` layers: up to half of it
    (the models of the paper have a fifth to a third), and leaving VisiPruner a layer to look at."""
    return list(range(1, min(depth // 2, depth - 3) + 1))


def find_shallow(
    context: Context, max_loss: float = 0.005, step: Step = lambda count: None
) -> tuple[int, list[Tried]]:
    """The end of the plateau on which VisiPruner's shallow stage costs nothing (arXiv 2510.17205,
    figure 3): the largest S such that it and all smaller ones, without the other stages, lose less
    than ``max_loss`` of all answers.

    Args:
        context: model and prompts.
        max_loss: share of answers, above 0: right ones, or the dense model's where true ones are
            not known. With n prompts nothing finer than 1 / n can be seen.
        step: called with numbers of prompts that add up to ``(1 + len(candidates)) * prompts``.

    Returns:
        S, 0 where even one layer loses more, and everything that was tried: 0 (the dense model)
        and all :func:`candidates`.

    Raises:
        PrunusError: ``max_loss`` out of range, a model too shallow, or one that answers nothing
            right, which cannot lose anything.
    """
    if not 0 < max_loss <= 1:
        raise PrunusError(f"max_loss={max_loss:g}: give a share above 0, up to 1")
    numbers = candidates(context.depth)
    if not numbers:
        raise PrunusError(f"a decoder of {context.depth} layers is too shallow for VisiPruner")
    dense = measure(context, DENSE, step).success
    if not dense.any():
        raise PrunusError(
            f"the unpruned model answers none of {len(dense)} questions right, so no loss can be "
            "seen: ask others, or prompts without answers"
        )
    tried = [Tried(0, float(dense.mean()), Estimate(0.0, 0.0, 0.0))]
    for layers in numbers:
        method = VisiPruner(stages=("shallow",), shallow_layers=layers)
        success = measure(context, (method,), step).success
        difference = paired_difference(success, dense, context.groups)
        tried.append(Tried(layers, float(success.mean()), difference))
    return _plateau(tried, max_loss), tried


def _plateau(tried: Sequence[Tried], max_loss: float) -> int:
    """The last of the first ``tried`` numbers that all lose less than ``max_loss``."""
    return [*takewhile(lambda one: -one.difference.value < max_loss, tried)][-1].layers
