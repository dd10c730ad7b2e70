"""Random selectors, and methods that bring one for whatever model they are attached to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from prunus import OneShot, Stepwise
from prunus.method import Method
from prunus.method.view import Facts
from prunus.selector.config import SelectorConfig
from prunus.selector.selector import Selector
from prunus.selector.store import Card


def random_selector(seed: int = 0, **config: Any) -> Selector:
    """A small selector with weights so wide that it has preferences."""
    given: dict[str, Any] = {"visual_width": 12, "text_width": 10, "width": 8, "heads": 2}
    given |= {"min_steps": 0, "stop_bias": 0.0}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        made = Selector(SelectorConfig(**given | config))
        with torch.no_grad():
            for name, weight in made.named_parameters():
                if weight.ndim > 1:
                    weight *= 3
                elif not name.endswith("stop_bias"):
                    weight += 0.3 * torch.randn_like(weight)
    return made.eval()


def selector_for(model: Facts, **config: Any) -> tuple[Selector, Card]:
    """A random selector that fits ``model``, and its card."""
    widths = {"visual_width": model.feature_width, "text_width": model.text_width}
    made = random_selector(**{"width": 16, "min_steps": 2, **widths, **config})
    return made, Card("a random model", model.fingerprint().tolist(), None)


@dataclass(frozen=True)
class RandomStepwise(Stepwise):
    """Stepwise with a random selector for the model at hand."""

    def bind(self, model: Facts) -> Method:
        return self.with_selector(*selector_for(model))


@dataclass(frozen=True)
class RandomOneShot(OneShot):
    """OneShot with a random selector for the model at hand."""

    def bind(self, model: Facts) -> Method:
        return self.with_selector(*selector_for(model, kind="one-shot"))
