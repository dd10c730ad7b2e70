"""What methods share that choose from visual features, before the language model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from prunus.method.base import Cut, Method


@dataclass(frozen=True)
class OnFeatures(Method):
    """Base of the methods that choose once, among all tokens of an image, from
    :attr:`prunus.method.view.View.features` and the question."""

    def cuts(self, depth: int) -> Sequence[Cut]:
        return [Cut(None)]

    @property
    def reads_features(self) -> bool:
        return True

    @property
    def needs_intact_grid(self) -> bool:
        return True

    @property
    def query_dependent(self) -> bool:
        return True
