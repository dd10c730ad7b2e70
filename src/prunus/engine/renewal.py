"""States of tokens that a selection makes new."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from prunus.engine.chosen import Chosen
from prunus.engine.kept import Looks
from prunus.engine.layout import Layout
from prunus.engine.merge import Made, applied
from prunus.engine.prompt import Image
from prunus.engine.tower.seen import Rows
from prunus.errors import PrunusError
from prunus.families import Family
from prunus.signals.topk import places_of


@dataclass(frozen=True)
class New:
    """New tokens of one image: what it keeps (original indices int64 ``[k]``) is ``made`` so that
    the ``rows`` (int64 ``[r]``) among it are new, with ``values [r, D]``."""

    image: Image
    kept: Tensor
    made: Made
    rows: Tensor
    values: Tensor

    @property
    def places(self) -> Tensor:
        """Int64 ``[r]``: their logical positions."""
        return self.image.positions[self.kept[self.rows]]


def new_states(
    family: Family, looks: Looks, layout: Layout, chosen: Chosen, states: Tensor
) -> list[New]:
    """What ``chosen`` makes of the tokens of ``states [B, S, D]``, which lie as ``layout`` says.

    The tower's features, where they are kept, become the same sums: what a later method reads of
    them is what the tokens are now made of.
    """
    found, features = [], {}
    for image, kept, made, slot, rows in _changed(looks.images, chosen):
        tower = looks.tower
        made_there: Tensor | None = None
        if tower is not None and tower.holds(image):
            own = tower.features([image])[0]
            summary = tower.summary([image])
            beside = own if summary is None else torch.cat([own, summary[0].to(own)])
            made_there = applied(beside, made, rows)
            stays = own[slot.to(own.device)].index_copy(0, rows.to(own.device), made_there)
            features[image.kind, image.order] = Rows(kept, stays)
        if chosen.cut.space == "tower" and family.reads_tower:
            if made_there is None:
                raise PrunusError(
                    f"{chosen.method}: new tokens are to be made of the tower's features: name "
                    "Features() in Cut(sees=...)"
                )
            values = family.project(made_there).to(states)
        else:
            at = layout.slot[image.row, image.positions[image.present]].to(states.device)
            values = applied(states[image.row, at], made, rows)
        found.append(New(image, kept, made, rows, values))
    if looks.tower is not None:  # beams share what the tower gave: not before all are made
        looks.tower.projected_from.update(features)
    return found


def _changed(
    images: Sequence[Image], chosen: Chosen
) -> list[tuple[Image, Tensor, Made, Tensor, Tensor]]:
    """Images with new tokens: what they keep, what this is made of, the slots (int64 ``[k]``) that
    it has among what was there, and which of the k are new (int64)."""
    some = [
        (image, kept, made, torch.searchsorted(image.present, kept))
        for image, kept, made in zip(images, chosen.kept, chosen.made, strict=True)
        if made is not None
    ]
    if not some:
        return []
    masks = [made.changed(slot) for _, _, made, slot in some]
    counts: list[int] = torch.stack([mask.sum() for mask in masks]).tolist()  # of all, at once
    return [
        (*one, places_of(mask, count))
        for one, mask, count in zip(some, masks, counts, strict=True)
        if count
    ]
