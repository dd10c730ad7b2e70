"""What training needs to know about a built-in model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from torch import Tensor, nn

from prunus.recipes.optim import Optimisers
from prunus.recipes.schedule import Stage

#: Loss (scalar) and read-outs of one step, by its number in the stage.
Loss = Callable[[int], tuple[Tensor, dict[str, float]]]


class Recipe(Protocol):
    """A model in training: its parts, and what each stage does with them.

    Everything that a step draws depends on the stage's number and the step's alone, so that a run
    that was stopped goes on as if it had not been.
    """

    @property
    def model(self) -> Any:
        """The model, on its device."""
        ...

    @property
    def hints(self) -> nn.Module:
        """Read-outs that training adds and the finished model does not have."""
        ...

    @property
    def shape(self) -> Any:
        """A data class with the model's sizes."""
        ...

    def optimisers(self, stage: Stage) -> Optimisers:
        """Fresh optimisers for a stage; what it does not train is frozen."""
        ...

    def loss(self, stage: Stage, number: int) -> Loss:
        """The loss of stage ``number``."""
        ...
