"""One selection as it was made, by image and in indices of the original tokens."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor

from prunus.engine.answers import Doubts
from prunus.engine.merge import Made, composed
from prunus.engine.prompt import Image
from prunus.engine.tower.groups import Reduced
from prunus.errors import PrunusError
from prunus.grid import AnyGrid
from prunus.method import Cut, Edit, Method, Selection


@dataclass
class Chosen:
    """One selection as it was made; tensors stay on their device until somebody looks. ``reduced``
    is what the vision tower left of each image, where the selection was made in there."""

    cut: Cut
    method: str
    kept: list[Tensor]
    scores: list[Tensor] | None
    reduced: list[Reduced] | None = None
    proportional: bool = False
    labels: list[str] | None = None
    edits: Mapping[int, Edit] = field(default_factory=dict)
    forgets: Sequence[int] = ()
    made: list[Made | None] = field(default_factory=list)
    merged_into: list[Tensor | None] = field(default_factory=list)
    mix: list[Callable[[], tuple[Tensor, Tensor, Tensor]]] | None = None
    order: list[Tensor] | None = None
    closed: bool = False  # positions were closed up inside the language model


def chosen_of(
    images: Sequence[Image],
    order: dict[int, Tensor],
    line: bool,
    cut: Cut,
    method: Method,
    groups: Mapping[tuple[AnyGrid, int], list[int]],
    selections: Sequence[Selection],
) -> Chosen:
    """Selections by group as one by image, in indices of the original tokens.

    Args:
        order: by number of image, in which order tokens are read; what ``method`` says is added.
        line: positions are one number for each token.
        groups: numbers of the images of each group.

    Raises:
        PrunusError: an answer that makes no sense.
    """
    kept = [image.present for image in images]
    made: list[Made | None] = [None] * len(images)
    scores: list[Tensor | None] = [None] * len(images)
    labels: list[str] | None = None
    ordered, doubts = False, Doubts()
    for ((grid, _), members), selection in zip(groups.items(), selections, strict=True):
        makes = any(one is not None for one in (selection.mix, selection.into, selection.weights))
        for place, number in enumerate(members):
            present = images[number].present
            slots = selection.kept[place].to(present.device)
            kept[number] = present[slots]
            if makes:
                sizes = images[number].counted()
                made[number] = Made.of(selection, place, slots, sizes, method.name, doubts)
            closing = cut.layer is not None and cut.compact
            if selection.order is not None and (line or not closing):
                ordered = True
                if cut.layer is not None and not closing:
                    raise PrunusError(
                        f"{method.name} reorders tokens inside the language model, whose "
                        "earlier layers have read them already: only before it"
                    )
                own = selection.order[place].to(present.device)
                order[number] = present[own]
            if selection.scores is not None:
                own = selection.scores[place].float().to(present.device)
                if present.shape[0] == grid.size:  # 0, 1, 2, ...
                    full = own.clone()
                else:
                    full = own.new_full((grid.size,), float("nan"))
                    full[present] = own
                scores[number] = full
            if selection.labels is not None:
                labels = labels or [method.name] * len(images)  # others say no word
                labels[number] = selection.labels[place]
    doubts.settle()
    some = any(values is not None for values in scores)
    return Chosen(
        cut,
        method.name,
        kept,
        filled(images, scores) if some else None,
        labels=labels,
        made=made,
        merged_into=[
            composed(
                image.merged_into,
                image.grid.size,
                image.present,
                own,
                None if new is None else new.into,
            )
            for image, own, new in zip(images, kept, made, strict=True)
        ],
        mix=_mixes(images, kept, made),
        order=[order.get(n, own) for n, own in enumerate(kept)] if ordered else None,
        closed=cut.compact and cut.layer is not None and line,
    )


def _mixes(
    images: Sequence[Image], kept: Sequence[Tensor], made: Sequence[Made | None]
) -> list[Callable[[], tuple[Tensor, Tensor, Tensor]]] | None:
    """For the trace, what the new tokens of each image were made of, once somebody looks."""
    if all(one is None for one in made):
        return None
    return [
        partial(_mix, image.present, image.grid.size, own, new)
        for image, own, new in zip(images, kept, made, strict=True)
    ]


def _mix(
    present: Tensor, size: int, kept: Tensor, made: Made | None
) -> tuple[Tensor, Tensor, Tensor]:
    """See :meth:`~prunus.engine.merge.Made.sparse`; of an image without new tokens, nothing."""
    if made is None:
        none = kept[:0]
        return none, none, none.float()
    return made.sparse(present, torch.searchsorted(present, kept), size)


def filled(images: Sequence[Image], scores: Sequence[Tensor | None]) -> list[Tensor]:
    """``scores`` by image, NaN for those that were within their budget and so have none."""
    return [
        torch.full((image.grid.size,), float("nan"), dtype=torch.float32) if own is None else own
        for image, own in zip(images, scores, strict=True)
    ]
