"""Knockout: cut attention to visual tokens in chosen layers, to see what they need it for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from prunus.errors import PrunusError
from prunus.method import Cut, Edit, Method


@dataclass(frozen=True)
class Knockout(Method):
    """Attention knock-out (VisiPruner, arXiv 2510.17205, section 3 and appendices): nothing is
    dropped, only weights are taken away while the prompt is read.

    ``mask="cross"``: text behind the image does not see it ("C" in the paper); ``"visual"``: visual
    tokens do not see visual tokens ("V"); ``"both"``. With ``collapse`` the weight that text gives
    to visual tokens goes to one of them, the ``sink``, instead of being lost (Eq. 1).
    ``renormalise`` takes keys out before the softmax. With ``forget`` the layers' cache loses its
    visual tokens as well, so that answers do not see them there either.
    """

    name = "knockout"
    paper = "arXiv 2510.17205 (analysis)"
    summary = "no attention to visual tokens in chosen layers (analysis)"
    kind = "edit"

    layers: tuple[int, ...] | int = field(default=(0,), metadata={"help": "decoder layers"})
    mask: Literal["cross", "visual", "both", "none"] = field(
        default="cross", metadata={"help": "cross | visual | both | none"}
    )
    collapse: bool = field(
        default=False, metadata={"help": "put text's weight on one visual token"}
    )
    sink: int = field(default=0, metadata={"help": "which one; negative: from the end"})
    renormalise: bool = field(default=False, metadata={"help": "cut before the softmax"})
    forget: bool = field(default=False, metadata={"help": "drop visual tokens from the cache too"})

    def __post_init__(self) -> None:
        layers = (self.layers,) if isinstance(self.layers, int) else tuple(self.layers)
        if len(set(layers)) != len(layers):
            raise PrunusError(f"layers={layers}: a layer is named twice")
        object.__setattr__(self, "layers", layers)
        if self.mask not in ("cross", "visual", "both", "none"):
            raise PrunusError(f"mask={self.mask!r}: choose cross, visual, both or none")
        if self.collapse and self.mask not in ("cross", "both"):
            raise PrunusError(
                f"collapse is for text that looks at images, which mask={self.mask} keeps"
            )
        if self.collapse and self.renormalise and self.mask == "cross":
            raise PrunusError(
                "collapse keeps the sum of the weights: renormalise means nothing there"
            )

    def cuts(self, depth: int) -> Sequence[Cut]:
        return []

    def edits(self, depth: int) -> Mapping[int, Edit]:
        """As of :class:`~prunus.method.capabilities.EditsAttention`."""
        if self.mask == "none":
            return {}
        text: Literal["keep", "cut", "merge"] = "merge" if self.collapse else "cut"
        if self.mask == "visual":
            text = "keep"
        visual: Literal["keep", "cut"] = "keep" if self.mask == "cross" else "cut"
        edit = Edit(text, visual, self.renormalise, self.sink)
        return dict.fromkeys(self._layers, edit)

    def forgets(self, depth: int) -> Sequence[int]:
        """As of :class:`~prunus.method.capabilities.EditsAttention`."""
        return self._layers if self.forget else ()

    @property
    def _layers(self) -> tuple[int, ...]:
        return self.layers if isinstance(self.layers, tuple) else (self.layers,)

    def neutral(self) -> Knockout:
        return replace(self, layers=())
