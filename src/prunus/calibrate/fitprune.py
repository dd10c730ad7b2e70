"""How many tokens FitPrune takes out of each layer: as many as change attention equally little."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from prunus.analyse.probe import Onlooker, Unlisted
from prunus.cost.published import fitted_flops
from prunus.errors import PrunusError
from prunus.families import family_of
from prunus.families.shapes import DecoderShape
from prunus.method import Cut, Method, Selection, View
from prunus.method.calibration import Calibration, made_on
from prunus.method.signals import Attention
from prunus.pruners.fitprune import FitPrune
from prunus.run import prune

#: How near alpha is found, and how many values of it are tried for that.
WIDTH = 0.01
TRIED = math.ceil(math.log2(1 / WIDTH))

Owner = tuple[int, int]
#: By image: for each layer but the last, the sums over its tokens of cross and self.
Sums = Mapping[Owner, list[tuple[float, float]]]


def _signals(layer: int) -> tuple[Attention, Attention]:
    return Attention(layer, "text", "max"), Attention(layer, "visual", "max")


def _cuts(depth: int) -> list[Cut]:
    return [Cut(layer + 1, _signals(layer)) for layer in range(depth - 1)]


@dataclass(frozen=True)
class DenseSums(Onlooker):
    """Looks at the dense model, and notes :data:`Sums` in ``found``."""

    found: dict[Owner, list[tuple[float, float]]] = field(default_factory=dict, compare=False)

    def cuts(self, depth: int) -> Sequence[Cut]:
        return _cuts(depth)

    def select(self, stage: int, view: View) -> Selection:
        cross, own = (view[signal].double().sum(1).tolist() for signal in _signals(stage))
        for row, owner in enumerate(view.owners):
            self.found.setdefault(owner, []).append((cross[row], own[row]))
        return Selection.everything(view)


@dataclass(frozen=True)
class Deleting(Unlisted, Method):
    """Takes out of each layer what is among the least of cross *and* of self: of either, as many as
    leave ``1 - alpha`` of the ``dense`` sum. Notes in ``gone`` how many that are."""

    alpha: float
    dense: Sums = field(compare=False)
    gone: dict[Owner, list[int]] = field(default_factory=dict, compare=False)
    sizes: dict[Owner, int] = field(default_factory=dict, compare=False)

    def cuts(self, depth: int) -> Sequence[Cut]:
        return _cuts(depth)

    def counts(self, keep: float | None, original: int, depth: int) -> None:
        return None

    def select(self, stage: int, view: View) -> Selection:
        goes = torch.ones_like(view.present, dtype=torch.bool)
        for which, signal in enumerate(_signals(stage)):
            sums = [self.dense[owner][stage][which] for owner in view.owners]
            values = view[signal].double()
            bound = (1 - self.alpha) * torch.tensor(sums, dtype=values.dtype, device=values.device)
            goes &= least(values, bound).to(goes.device)
        for owner, count in zip(view.owners, goes.sum(1).tolist(), strict=True):
            self.gone.setdefault(owner, []).append(count)
            self.sizes[owner] = view.grid.size
        return Selection([row.nonzero()[:, 0] for row in ~goes])


def least(values: Tensor, bound: Tensor) -> Tensor:
    """Bool ``[G, n]``: the most of the least ``values [G, n]`` whose absence leaves a sum of at
    least ``bound [G]``; of equals those behind go first, and one always stays."""
    order = values.flip(1).argsort(dim=1, stable=True)  # ascending
    order = values.shape[1] - 1 - order
    rest = values.sum(1, keepdim=True) - values.gather(1, order).cumsum(1)
    free = rest >= bound[:, None]
    free[:, -1] = False
    return torch.zeros_like(free).scatter(1, order, free.cumprod(1).bool())


@dataclass(frozen=True)
class Fit:
    """One ``alpha``: how many of ``tokens`` are ``deleted`` in each layer, and the share of the
    dense model's visual FLOPs that is left, as the paper counts them."""

    alpha: float
    deleted: tuple[int, ...]
    tokens: int
    flops: float


def best_fit(fit: Callable[[float], Fit], most: float) -> tuple[Fit, list[Fit]]:
    """The least alpha, to within :data:`WIDTH`, that leaves at most the share ``most`` of the
    visual FLOPs, and all that were tried: which is last need not reach it.

    Raises:
        PrunusError: none reaches it.
    """
    low, high, found = 0.0, 1.0, None
    tried: list[Fit] = []
    for _ in range(TRIED):
        middle = (low + high) / 2
        tried.append(fit(middle))
        if tried[-1].flops <= most:
            found, high = tried[-1], middle
        else:
            low = middle
    if found is None:
        raise PrunusError(
            f"ratio={1 - most:g} cannot be reached: with almost all tokens gone there are still "
            f"{tried[-1].flops:.1%} of the visual FLOPs, because the first layer sees all of them: "
            "ask for less"
        )
    return found, tried


@torch.inference_mode()
def calibrate_fitprune(
    model: Any,
    name: str,
    batches: Sequence[Callable[[], Mapping[str, Any]]],
    ratio: float,
    step: Callable[[int], None] | None = None,
) -> Calibration:
    """The table of FitPrune (arXiv 2409.10197) that saves ``ratio`` of the visual FLOPs.

    For each prompt the dense model gives, in each layer, the sums of cross and self (see
    :class:`~prunus.pruners.fitprune.FitPrune`) over the image's tokens. With a share alpha that may
    be lost of both, prompts run through the layers, and each drops what is among the least of both
    before what the next one sees is measured. The table has the mean counts, rounded down; alpha is
    bisected. The least one counts whose *table* reaches ``ratio``; the released code prints the
    last that was tried, and stops dropping where the budget is met.

    Args:
        model: a supported model in evaluation mode.
        name: what to call it in the file.
        batches: each gives arguments of its ``forward``, ``input_ids`` among them, with an image in
            each prompt; called ``1 + TRIED`` times.
        ratio: in (0, 1); FLOPs as in :func:`~prunus.cost.published.fitted_flops`.
        step: called with a number of prompts after each call of the model.

    Returns:
        ``params``: ``deleted`` and ``tokens`` (where images differ in size the rounded mean, and
        counts in proportion); ``measured``: ``ratio``, ``alpha``, ``flops`` (share that is left),
        ``average`` (tokens per layer, as prunus runs it), ``left`` at the last layer, ``prompts``,
        ``images``, and of all alphas ``tried`` the first three.

    Raises:
        PrunusError: a prompt without an image, no prompts, a ratio that cannot be reached.
    """
    step = step or (lambda count: None)
    family = family_of(model)
    depth, shape = len(family.layers), family.decoder_shape(family.config)
    dense: list[Sums] = []
    prompts = 0
    for batch in batches:
        onlooker, inputs = DenseSums(), batch()
        with prune(model, onlooker):
            model(**inputs, logits_to_keep=1)
        count = len(inputs["input_ids"])
        if blind := set(range(count)) - {sample for sample, _ in onlooker.found}:
            raise PrunusError(
                f"prompt {prompts + min(blind)} has no image: calibrate with images in all prompts"
            )
        dense.append(onlooker.found)
        prompts += count
        step(count)
    if not prompts:
        raise PrunusError("there are no prompts to calibrate with")

    def fit(alpha: float) -> Fit:
        gone: list[tuple[int, list[int]]] = []
        for batch, sums in zip(batches, dense, strict=True):
            deleting, inputs = Deleting(alpha, sums), batch()
            with prune(model, deleting):
                model(**inputs, logits_to_keep=1)
            gone += [(deleting.sizes[owner], own) for owner, own in deleting.gone.items()]
            step(len(inputs["input_ids"]))
        return _table(alpha, gone, depth, shape)

    found, tried = best_fit(fit, 1 - ratio)
    there = _entering(found.deleted, found.tokens)
    return Calibration(
        method=FitPrune.name,
        model=name,
        depth=depth,
        params={"deleted": list(found.deleted), "tokens": found.tokens},
        measured={
            "ratio": ratio,
            "alpha": found.alpha,
            "flops": found.flops,
            "average": sum(there) / depth,
            "left": there[-1],
            "prompts": prompts,
            "images": sum(map(len, dense)),
            "tried": [{"alpha": one.alpha, "flops": one.flops} for one in tried],
        },
        made_on=made_on(family),
    )


def _table(
    alpha: float, gone: Sequence[tuple[int, Sequence[int]]], depth: int, shape: DecoderShape
) -> Fit:
    """Of images, their tokens and how many went in each layer but the last."""
    tokens = round(sum(size for size, _ in gone) / len(gone))
    shares = [
        sum(own[layer] / size for size, own in gone) / len(gone) for layer in range(depth - 1)
    ]
    deleted = (*(math.floor(tokens * share + 1e-6) for share in shares), 0)
    dense = fitted_flops(shape, [tokens] * depth)
    return Fit(alpha, deleted, tokens, fitted_flops(shape, _entering(deleted, tokens)) / dense)


def _entering(deleted: Iterable[int], tokens: int) -> list[int]:
    """Tokens that enter each layer."""
    found = [tokens]
    for gone in deleted:
        found.append(found[-1] - gone)
    return found[:-1]
