"""The constant on STOP's logit at which a stepwise selector keeps a wanted share on average."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from prunus.errors import PrunusError
from prunus.pruners.stepwise import Stepwise
from prunus.run import prune
from prunus.selector.pointer import Picks
from prunus.selector.selector import Selector
from prunus.selector.store import Card

_WIDEST = 1024.0  # beyond this no logit is left that a constant has not overruled
_HALVINGS = 16
_CLOSE = 2e-3  # of the share, relative: near enough


@dataclass(frozen=True)
class Encoded:
    """Images as the selector has encoded them: float32 ``[B, N, D]`` on the CPU, and T_max of
    each."""

    rows: Tensor
    most: Sequence[int]


@dataclass(frozen=True)
class MeanBudget:
    """With ``bias`` on STOP's logit the mean share of the tokens kept is ``share``, where
    ``wanted`` was asked for; ``kept`` is the mean count per image, of ``least`` to ``largest``."""

    wanted: float
    bias: float
    share: float
    kept: float
    least: int
    largest: int


class _Onlooker(Selector):
    """Encodes as ``selector`` does, remembers it in ``seen``, and picks one token of each image."""

    def __init__(self, selector: Selector) -> None:
        super().__init__(selector.config)
        self.load_state_dict(selector.state_dict())
        self.seen: list[Encoded] = []

    def pick(
        self,
        encoded: Tensor,
        valid: Tensor,
        most: Sequence[int],
        keep: Sequence[int] | None = None,
        bias: float = 0.0,
    ) -> Picks:
        self.seen.append(Encoded(encoded.cpu(), most))
        first = torch.zeros(len(encoded), 1, dtype=torch.long, device=encoded.device)
        return Picks(first, torch.ones_like(first[:, 0]), torch.zeros_like(encoded[..., 0]))


@torch.inference_mode()
def encode_prompts(
    model: Any,
    batches: Iterable[Mapping[str, Any]],
    selector: Selector,
    card: Card,
    step: Callable[[int], None] | None = None,
) -> list[Encoded]:
    """What ``selector`` makes of the images of many prompts.

    Args:
        model: a supported model in evaluation mode.
        batches: arguments of its ``forward``, pixels and ``input_ids`` among them.
        selector, card: from :func:`prunus.selector.store.load_selector`.
        step: called with the number of prompts after each batch.

    Raises:
        PrunusError: a one-shot selector, which cannot stop.
    """
    if selector.config.kind != "stepwise":
        raise PrunusError(
            "a one-shot selector cannot stop by itself: there is nothing to calibrate"
        )
    onlooker = _Onlooker(selector)
    with prune(model, Stepwise().with_selector(onlooker, card)):
        for inputs in batches:
            model(**inputs, logits_to_keep=1)
            if step is not None:
                step(len(inputs["input_ids"]))
    return onlooker.seen


def mean_budget(
    selector: Selector,
    encoded: Sequence[Encoded],
    wanted: float,
    step: Callable[[], None] | None = None,
) -> MeanBudget:
    """Find the constant by bisection: the larger it is, the sooner every selection stops.

    Which tokens are picked before STOP does not depend on the constant, so that the count of each
    image, and their mean, can only fall as it grows.

    Args:
        selector: a stepwise one, on the device that is to work.
        encoded: from :func:`encode_prompts`.
        wanted: mean over images of the share of their tokens to keep, in (0, 1).
        step: called after every trial.

    Returns:
        The best that was tried: within 0.2 % of ``wanted`` unless counts are too few to be finer.

    Raises:
        PrunusError: nothing to calibrate with, or a share that no constant gives.
    """
    if not 0 < wanted < 1:
        raise PrunusError(f"a mean of {wanted:g} of the tokens: give a share between 0 and 1")
    if not encoded:
        raise PrunusError("there are no prompts with images to calibrate with")
    steps = [_margins(selector, one) for one in encoded]
    tried: list[MeanBudget] = []

    def share(bias: float) -> float:
        tried.append(_trial(steps, wanted, bias))
        if step is not None:
            step()
        return tried[-1].share

    near, far = 0.0, 1.0 if share(0.0) > wanted else -1.0
    while (share(far) - wanted) * far > 0:  # not far enough yet
        if abs(far) >= _WIDEST:
            raise PrunusError(
                f"a mean of {wanted:.4g} of the tokens cannot be met: whatever is added to STOP's "
                f"logit, this selector keeps {'at least' if far > 0 else 'at most'} "
                f"{tried[-1].share:.4g}"
            )
        near, far = far, 2 * far
    for _ in range(_HALVINGS):
        best = min(tried, key=lambda one: abs(one.share - wanted))
        if abs(best.share - wanted) <= _CLOSE * wanted:
            break
        middle = (near + far) / 2
        if (share(middle) - wanted) * far > 0:
            near = middle
        else:
            far = middle
    return min(tried, key=lambda one: abs(one.share - wanted))


@torch.inference_mode()
def _margins(selector: Selector, one: Encoded) -> tuple[Tensor, Tensor, int]:
    """STOP's lead at every step of a selection that never stops, with no lead before it may stop:
    ``[B, T]``; T_max of each image; tokens of an image."""
    device = next(selector.parameters()).device
    rows = one.rows.to(device)
    there = torch.ones(rows.shape[:2], dtype=torch.bool, device=device)
    margins = selector.pick(rows, there, one.most, keep=one.most).margins
    assert margins is not None  # a stepwise selector has steps
    margins = margins.clone()
    margins[:, : selector.config.min_steps] = -torch.inf
    return margins, torch.tensor(one.most, device=device), rows.shape[1]


def _trial(steps: Sequence[tuple[Tensor, Tensor, int]], wanted: float, bias: float) -> MeanBudget:
    counts: list[int] = []
    shares: list[float] = []
    for margins, most, size in steps:
        going = (margins + bias <= 0).long().cumprod(1).sum(1)  # steps before the first STOP
        own = torch.minimum(going, most).tolist()
        counts += own
        shares += [count / size for count in own]
    mean = sum(counts) / len(counts)
    return MeanBudget(wanted, bias, sum(shares) / len(shares), mean, min(counts), max(counts))
