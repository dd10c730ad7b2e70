"""What entered the language model of a pruned run, to be put into the unpruned one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from prunus.checking.hidden import Hidden


@dataclass(frozen=True)
class Features:
    """What tokens that were merged became.

    Attributes:
        states: ``[B, S, D]`` that entered the first decoder layer of the pruned run, as
            :func:`captured` takes them: what is left of each row, padded on the left.
        places: bool ``[B, L]``, where the images are in the unpruned prompt.
    """

    states: Tensor
    places: Tensor

    def put_into(self, states: Tensor, hidden: Hidden) -> Tensor:
        """``states [B, L, D]`` in which images are what is left of them."""
        there, full = hidden.valid & ~hidden.prompt[0], self.states.shape[1] == states.shape[1]
        states = states.clone()
        for row, own in enumerate(there.to(states.device)):
            left = own.nonzero().flatten()
            given = self.states[row, left] if full else self.states[row, -len(left) :]
            visual = self.places[row].to(states.device)[left]
            states[row, left[visual]] = given[visual].to(states)
        return states


def with_states(
    args: tuple[Any, ...], kwargs: dict[str, Any], states: Tensor
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Arguments of a decoder layer with other ``states``."""
    if args:
        return (states, *args[1:]), kwargs
    return args, {**kwargs, "hidden_states": states}
