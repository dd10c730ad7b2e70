"""What a language model adds to hidden states on their way, gathered with the tokens it belongs to.

DeepStack puts features of early tower blocks onto the image tokens behind the first decoder layers,
by a mask over the whole prompt. On a shorter sequence the model's own code would not fit: so the
engine takes these side inputs away from it, and adds them at the entrance of the next layer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor

from prunus.engine.layout import Layout
from prunus.engine.merge import Made, applied
from prunus.errors import PrunusError
from prunus.families import Beside, Family


@dataclass(frozen=True)
class SideInputs:
    """Side inputs of one prompt, by the decoder layer behind which each is added."""

    by_layer: Mapping[int, Beside] = field(default_factory=dict)

    @classmethod
    def taken(cls, family: Family, call: dict[str, Any]) -> tuple[SideInputs, dict[str, Any]]:
        """Those of a ``call`` of the language model, and the call without them.

        Raises:
            PrunusError: something is added behind the last layer, where no further one starts.
        """
        rest, found = family.beside(call)
        if not found:
            return cls(), call
        last = len(family.layers) - 1
        if late := [one.layer for one in found if one.layer >= last]:
            raise PrunusError(
                f"the language model adds features behind decoder layer {late[0]}, and its last "
                f"layer is {last}: side inputs can be added in front of a layer only"
            )
        return cls({one.layer: one for one in found}), rest

    def mixed(self, row: int, was: Tensor, now: Tensor, made: Made, changed: Tensor) -> SideInputs:
        """The same for a prompt in whose ``row`` tokens were joined: what is beside new ones is
        made as they are.

        Args:
            was: int64 ``[n]``, logical positions of the tokens that were there; now: int64 ``[r]``,
                of the survivors that are new, by their places ``changed`` among the kept ones.
        """
        found = {}
        for layer, one in self.by_layer.items():
            number = (one.places.flatten().long().cumsum(0) - 1).view_as(one.places)[row]
            own, at = (number[places.to(number.device)] for places in (was, now))
            new = applied(one.values[own.to(one.values.device)], made, changed)
            values = one.values.index_put((at.to(one.values.device),), new)
            found[layer] = replace(one, values=values)
        return SideInputs(found)

    def add(self, layer: int, states: Tensor, layout: Layout) -> Tensor:
        """``states [B, S, D]`` of ``layout`` as they enter decoder ``layer``."""
        one = self.by_layer.get(layer - 1)
        if one is None:
            return states
        places = one.places.to(layout.index.device)
        number = (places.flatten().long().cumsum(0) - 1).view_as(places)
        here = places.gather(1, layout.index)
        if layout.valid is not None:
            here = here & layout.valid
        values = one.values.to(states)
        at = number.gather(1, layout.index).clamp(min=0).to(states.device)
        return states + values[at].masked_fill(~here.to(states.device)[..., None], 0)
