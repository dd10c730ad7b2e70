"""The state of one prompt while it runs through the decoder: what is there, and each cut."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from transformers.cache_utils import Cache

from prunus.engine.groups import Reduced
from prunus.engine.layout import Layout
from prunus.engine.masks import causal_mask
from prunus.engine.prompt import Prompt
from prunus.engine.spread import per_survivor, spread_view
from prunus.families import Family
from prunus.grid import Grid
from prunus.method import Cut, Method, Selection, View
from prunus.signals.attention import last_row

Rope = tuple[Tensor, Tensor]


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


class Prefill:
    """One prompt on its way through the layers.

    Attributes:
        images: every image of every row, in order.
        layout: what is physically there now; ``entry`` is what entered the first layer.
        last: int64 ``[B]``, logical position of the last prompt token of each row.
        layouts, counts: per decoder layer, as it ran: its layout and the visual tokens per row.
    """

    def __init__(
        self, family: Family, layout: Layout, prompt: Prompt, last: Tensor, noted: set[int]
    ) -> None:
        self.family, self.layout, self.entry, self.last = family, layout, layout, last
        self.images, self.samples, self.repeats = prompt.images, prompt.samples, prompt.repeats
        present = layout.present.sum(1).tolist()
        self.text = [0] * len(present)
        self.original = self.visual()
        self.text = [n - v for n, v in zip(present, self.original, strict=True)]
        self.depth = len(family.layers)
        self.layouts: list[Layout] = []
        self.counts: list[list[int]] = []
        self.trims: list[tuple[int, Layout, list[int]]] = []
        self.chosen: list[Chosen] = []
        self.cache: Cache | None = None
        self.compact = False  # positions were closed up before the language model
        self.macs = 0.0
        self.tower_macs = 0.0  # of all images of the call, before beams repeat them
        self.element_size: int = family.top.dtype.itemsize
        self._noting = noted
        self._states: dict[int, tuple[Tensor, Layout, Rope]] = {}
        self._rope: tuple[Layout, Rope] | None = None
        self._mask: tuple[Layout, Tensor | None] | None = None

    def visual(self) -> list[int]:
        """Visual tokens present now, per row."""
        counts = [0] * len(self.text)
        for image in self.images:
            counts[image.row] += image.present.shape[0]
        return counts

    def rope(self, given: Rope) -> Rope:
        """Rotary tables of the present tokens from those of the entry layout."""
        if self.layout is self.entry:
            return given
        if self._rope is None or self._rope[0] is not self.layout:
            cos, sin = (self.entry.rows(table, self.layout, -2) for table in given)
            self._rope = (self.layout, (cos, sin))
        return self._rope[1]

    def mask(self, states: Tensor, kind: str) -> Tensor | None:
        """Mask for a layer that runs on the present layout with attention backend ``kind``."""
        if self._mask is None or self._mask[0] is not self.layout:
            size = self.layout.size
            made = causal_mask(self.layout.valid, size, size, states.dtype, states.device, kind)
            self._mask = (self.layout, made)
        return self._mask[1]

    def start(self, layer: int, states: Tensor, rope: Rope) -> None:
        """Note that ``layer`` now runs on the present layout, with ``rope`` given to it; and the
        states that enter it, if a method asked for them."""
        if layer in self._noting:
            self._states[layer] = (states, self.layout, self.rope(rope))
        self.layouts.append(self.layout)
        self.counts.append(self.visual())

    def untouched(self) -> None:
        """Note that every layer runs on the whole prompt (there is no image in it)."""
        self.layouts = [self.layout] * self.depth
        self.counts = [self.visual()] * self.depth

    def cut(self, method: Method, stage: int, cut: Cut, states: Tensor) -> Tensor:
        """Let ``method`` choose, and return ``states`` without what it dropped."""
        kept: list[Tensor | None] = [None] * len(self.images)
        scores: list[Tensor | None] = [None] * len(self.images)
        groups: dict[tuple[Grid, int], list[int]] = {}
        for number, image in enumerate(self.images):
            groups.setdefault((image.grid, image.present.shape[0]), []).append(number)
        with torch.no_grad():
            for (grid, count), members in groups.items():
                selection = self._select(method, stage, self._view(members, grid, states), members)
                self.macs += len(members) * method.macs(stage, grid, count, states.shape[-1])
                for place, number in enumerate(members):
                    present = self.images[number].present
                    kept[number] = present[selection.kept[place].to(present.device)]
                    if selection.scores is not None:
                        full = torch.full((grid.size,), float("nan"), device=present.device)
                        full[present] = selection.scores[place].float().to(present.device)
                        scores[number] = full
        # Nothing above changed the pass; from here on nothing can be refused.
        chosen = [indices for indices in kept if indices is not None]
        scored = [values for values in scores if values is not None]
        self.chosen.append(Chosen(cut, method.name, chosen, scored or None))
        return self._drop(chosen, cut, states)

    def adopt(self, method: Method, reduced: dict[str, list[Reduced]], states: Tensor) -> Tensor:
        """Take over what ``method`` left of each image inside the vision tower (``reduced``, by
        kind and in the order of its calls), and return ``states`` without the empty places.

        Raises:
            ValueError: ``states`` do not hold the features of that call.
        """
        own = [reduced[image.kind][image.order] for image in self.images]
        chosen = []
        for image, one in zip(self.images, own, strict=True):
            device = image.positions.device
            chosen.append(one.kept.to(device))
            image.merged_into = one.merged_into.to(device)
            if len(one.kept) < image.grid.size:
                _check_places(states[image.row, image.positions], one)
        scores = None
        if any(one.scores is not None for one in own):  # an image within its budget has none
            scores = [
                torch.full((len(one.merged_into),), float("nan"))
                if one.scores is None
                else one.scores
                for one in own
            ]
        self.chosen.append(
            Chosen(Cut(None), method.name, chosen, scores, own, method.attention_by_size)
        )
        if all(len(one.kept) == len(one.merged_into) for one in own):
            return states  # nothing was merged
        return self._drop(chosen, Cut(None), states)

    def _select(self, method: Method, stage: int, view: View, members: list[int]) -> Selection:
        """What ``method`` keeps. Where it needs the whole grid and tokens were merged, survivors
        are spread over the cells that they stand for, and the scores of these are averaged."""
        owners = [self.images[number].merged_into for number in members]
        merged = [owner for owner in owners if owner is not None]
        if stage or view.intact or not method.needs_intact_grid or not merged:
            return method.select(stage, view)
        slots = torch.searchsorted(view.present, torch.stack(merged))
        scores = method.score(stage, spread_view(view, slots))
        return method.rank(stage, view, per_survivor(scores, slots, view.present.shape[1]))

    def _drop(self, chosen: list[Tensor], cut: Cut, states: Tensor) -> Tensor:
        """Go on with the ``chosen`` original tokens of each image only."""
        before = self.layout
        present = before.present.clone()
        for image, indices in zip(self.images, chosen, strict=True):
            present[image.row, image.positions] = False
            present[image.row, image.positions[indices]] = True
            image.present = indices
        visual = self.visual()
        counts = [text + seen for text, seen in zip(self.text, visual, strict=True)]
        self.layout = before.keep(present, counts)
        if cut.trim_cache and cut.layer is not None:
            self.trims.append((cut.layer, self.layout, visual))
        return before.take(states, self.layout)

    def release(self) -> None:
        """Let go of everything that only the running forward pass needed."""
        self.cache, self._rope, self._mask = None, None, None
        self._states.clear()

    def resident(self, layer: int) -> tuple[Layout, list[int]]:
        """Layout and visual tokens per row that the cache of ``layer`` is to hold afterwards."""
        layout, counts = self.layouts[layer], self.counts[layer]
        for cut_layer, after, visual in self.trims:
            if cut_layer > layer:
                layout, counts = after, visual
        return layout, counts

    def _view(self, members: list[int], grid: Grid, states: Tensor) -> View:
        images = [self.images[number] for number in members]
        present = torch.stack([image.present for image in images])
        positions = torch.stack([image.positions for image in images]).gather(1, present)
        rows = torch.tensor([image.row for image in images], device=positions.device)[:, None]

        def pick(values: Tensor, layout: Layout) -> Tensor:
            slots = layout.slot[rows, positions].to(values.device)
            return values[rows.to(values.device), slots]

        def snapshot(layer: int) -> Tensor:
            values, layout, _ = self._noted(layer)
            return pick(values, layout)

        def attention(layer: int) -> Tensor:
            values, layout = self._attention(layer)
            return pick(values, layout)

        return View(
            grid=grid,
            present=present,
            states=pick(states, self.layout),
            owners=[(image.sample, image.image) for image in images],
            samples=self.samples,
            depth=self.depth,
            _snapshot=snapshot,
            _attention=attention,
        )

    def _noted(self, layer: int) -> tuple[Tensor, Layout, Rope]:
        if layer not in self._states:
            raise ValueError(
                f"states entering layer {layer} were not kept: name the layer in the Cut "
                "(snapshots or attention) of the method"
            )
        return self._states[layer]

    def _attention(self, layer: int) -> tuple[Tensor, Layout]:
        """Attention ``[B, S]`` of the last prompt token in ``layer``, over that layer's slots."""
        states, layout, rope = self._noted(layer)
        batch, device = states.shape[0], states.device
        rows = torch.arange(batch, device=self.last.device)
        slots = layout.slot[rows, self.last].to(device)
        one = states[rows.to(device), slots][:, None]
        cos, sin = (table.expand(batch, -1, -1) for table in rope)
        at = slots.to(cos.device)[:, None, None].expand(-1, 1, cos.shape[-1])
        query = self.family.query(layer, one, (cos.gather(1, at), sin.gather(1, at)))
        key = None
        if self.cache is not None and layer < len(self.cache.layers):
            key = self.cache.layers[layer].keys
        if key is None:  # no cache (training): the keys are computed once more for this layer
            key = self.family.key(layer, states, rope)
        visible = layout.index.to(device) <= self.last.to(device)[:, None]
        if layout.valid is not None:
            visible = visible & layout.valid.to(device)
        return last_row(query, key, visible, self.family.scaling(layer)), layout


def _check_places(states: Tensor, reduced: Reduced) -> None:
    """Raise ValueError unless exactly the survivors' places hold features: the tower may have run
    on other images since these were made."""
    filled = (states != 0).any(dim=-1)
    expected = torch.zeros_like(filled)
    expected[reduced.kept.to(filled.device)] = True
    if not torch.equal(filled, expected):
        raise ValueError(
            "the image features of this prompt are not those of the vision tower's last call "
            "inside prunus.prune, so it is unknown where their tokens lie: compute them right "
            "before the call, or pass pixel values"
        )
