"""The state of one prompt while it runs through the decoder: what is there, and each cut."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from prunus.engine.edit import Job, Places
from prunus.engine.groups import Reduced
from prunus.engine.layout import Layout
from prunus.engine.looks import Looks, Rope
from prunus.engine.masks import causal_mask
from prunus.engine.plan import Plan
from prunus.engine.prompt import Prompt
from prunus.engine.spread import per_survivor, spread_view
from prunus.families import Family
from prunus.grid import Grid
from prunus.method import Cut, Edit, Method, Selection
from prunus.view import View


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


class Prefill:
    """One prompt on its way through the layers.

    Attributes:
        images: every image of every row, in order.
        layout: what is physically there now; ``entry`` is what entered the first layer.
        last: int64 ``[B]``, logical position of the last prompt token of each row.
        layouts, counts: per decoder layer, as it ran: its layout and the visual tokens per row.
    """

    def __init__(
        self,
        family: Family,
        layout: Layout,
        prompt: Prompt,
        last: Tensor,
        plan: Plan,
        answers: bool = False,
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
        self.order: dict[int, Tensor] = {}  # by number of image: original tokens as they are read
        self.compact = False  # positions were closed up before the language model
        self.macs = 0.0
        self.tower_macs = 0.0  # of all images of the call, before beams repeat them
        self.element_size: int = family.top.dtype.itemsize
        self.looks = Looks(family, last, plan.noted)
        self._forgets, self._answers = plan.forgets, answers
        self._memos: dict[int, dict[Any, Any]] = {}
        self._text_only: Layout | None = None
        self._places: tuple[Layout, Places] | None = None
        self._jobs: dict[tuple[Layout, Edit, str], Job] = {}
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
        """Note that ``layer`` now runs on the present layout, with ``rope`` given to it."""
        self.looks.note(layer, states, self.layout, self.rope(rope))
        self.layouts.append(self.layout)
        self.counts.append(self.visual())

    def job(self, edit: Edit, backend: str) -> Job:
        """``edit`` on the present layout, where attention is computed by ``backend``."""
        layout = self.layout
        if self._places is None or self._places[0] is not layout:
            self._places = (layout, self._find())
        key = (layout, edit, backend)
        if key not in self._jobs:
            self._jobs[key] = Job(edit, self._places[1], backend)
        return self._jobs[key]

    def _find(self) -> Places:
        """Where visual tokens and the text behind them lie in the present layout."""
        full = torch.zeros_like(self.layout.present)
        for image in self.images:
            full[image.row, image.positions[image.present]] = True
        index, last = self.layout.index, self.last.to(self.layout.index.device)[:, None]
        visual = full.gather(1, index)
        text = ~visual & (full.long().cumsum(1).gather(1, index) > 0) & (index <= last)
        if self.layout.valid is not None:
            visual, text = visual & self.layout.valid, text & self.layout.valid
        return Places(visual, text, self.layout.valid, self._answers)

    def untouched(self) -> None:
        """Note that every layer runs on the whole prompt (there is no image in it)."""
        self.layouts = [self.layout] * self.depth
        self.counts = [self.visual()] * self.depth

    def cut(self, method: Method, stage: int, cut: Cut, states: Tensor) -> Tensor:
        """Let ``method`` choose, and return ``states`` without what it dropped."""
        groups: dict[tuple[Grid, int], list[int]] = {}
        for number, image in enumerate(self.images):
            groups.setdefault((image.grid, image.present.shape[0]), []).append(number)
        memo = self._memos.setdefault(id(method), {})
        with torch.no_grad():
            views = [
                self.looks.view(
                    [self.images[n] for n in members], grid, states, self.layout, self.samples, memo
                )
                for (grid, _), members in groups.items()
            ]
            selections = self._select(method, stage, views, list(groups.values()))
            for ((grid, count), members), one in zip(groups.items(), selections, strict=True):
                each = method.macs(stage, grid, count, states.shape[-1])
                self.macs += len(members) * each if one.macs is None else one.macs
            chosen = self._chosen(cut, method, groups, selections)
        # Nothing above changed the pass; from here on nothing can be refused.
        if chosen.labels is not None and not any(chosen.labels):
            return states
        self.chosen.append(chosen)
        return self._drop(chosen.kept, cut, states)

    def _chosen(
        self,
        cut: Cut,
        method: Method,
        groups: Mapping[tuple[Grid, int], list[int]],
        selections: Sequence[Selection],
    ) -> Chosen:
        """Selections by group as one by image, in indices of the original tokens."""
        kept = [image.present for image in self.images]
        scores: list[Tensor | None] = [None] * len(self.images)
        labels: list[str] | None = None
        for ((grid, _), members), selection in zip(groups.items(), selections, strict=True):
            for place, number in enumerate(members):
                present = self.images[number].present
                kept[number] = present[selection.kept[place].to(present.device)]
                if selection.order is not None:
                    if cut.layer is not None:
                        raise ValueError(
                            f"{method.name} reorders tokens inside the language model, whose "
                            "earlier layers have read them already: only before it"
                        )
                    own = selection.order[place].to(present.device)
                    if not torch.equal(present[own.sort().values], kept[number]):
                        raise ValueError(f"{method.name}: order and kept are not the same tokens")
                    self.order[number] = present[own]
                if selection.scores is not None:
                    full = torch.full((grid.size,), float("nan"), device=present.device)
                    full[present] = selection.scores[place].float().to(present.device)
                    scores[number] = full
                if selection.labels is not None:
                    labels = labels or [""] * len(self.images)
                    labels[number] = selection.labels[place]
        scored = [values for values in scores if values is not None]
        return Chosen(cut, method.name, kept, scored or None, labels=labels)

    def edit(self, methods: Sequence[Method]) -> None:
        """Note what ``methods`` edit in this prompt's attention and cache."""
        for method in methods:
            edits, forgets = method.edits(self.depth), tuple(method.forgets(self.depth))
            if edits or forgets:
                present = [image.present for image in self.images]
                first = min((*edits, *forgets))
                self.chosen.append(
                    Chosen(Cut(first), method.name, present, None, edits=edits, forgets=forgets)
                )

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

    def _select(
        self, method: Method, stage: int, views: list[View], groups: list[list[int]]
    ) -> Sequence[Selection]:
        """What ``method`` keeps. Where it needs the whole grid and tokens were merged, survivors
        are spread over the cells that they stand for, and the scores of these are averaged."""
        owners = [[self.images[number].merged_into for number in members] for members in groups]
        spread = stage == 0 and method.needs_intact_grid
        if not spread or all(owner is None for own in owners for owner in own):
            return method.choose(stage, views)
        selections = []
        for view, own in zip(views, owners, strict=True):
            merged = [owner for owner in own if owner is not None]
            if view.intact or not merged:
                selections.append(method.select(stage, view))
                continue
            slots = torch.searchsorted(view.present, torch.stack(merged))
            scores = per_survivor(
                method.score(stage, spread_view(view, slots)), slots, view.present.shape[1]
            )
            selections.append(method.rank(stage, view, scores))
        return selections

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

    def reorder(self, states: Tensor) -> Tensor:
        """Bring the tokens of each image into the order in which a method wants them read."""
        before = self.layout
        slots = torch.arange(before.size, device=before.index.device).repeat(len(self.text), 1)
        for number, order in self.order.items():
            image = self.images[number]
            read = order[torch.isin(order, image.present)]  # a later method may have taken some
            own = before.slot[image.row, image.positions[image.present]]
            slots[image.row, own] = before.slot[image.row, image.positions[read]]
        self.layout = before.reordered(slots)
        return before.take(states, self.layout)

    def behind(self) -> list[int]:
        """Text tokens of the prompt behind the first visual token, per row."""
        counts = [0] * len(self.text)
        for row in {image.row for image in self.images}:
            own = [image for image in self.images if image.row == row]
            start, last = int(own[0].positions[0]), int(self.last[row])
            places = torch.cat([image.positions for image in own])
            counts[row] = last + 1 - start - int((places <= last).sum())
        return counts

    def idle(self, method: str) -> list[int]:
        """Samples with images in which an adaptive ``method`` chose nothing."""
        found, busy = {image.sample for image in self.images}, set()
        for chosen in self.chosen:
            if chosen.method == method:
                labels = chosen.labels or [""] * len(self.images)
                pairs = zip(self.images, labels, strict=True)
                busy |= {image.sample for image, label in pairs if label}
        return sorted(found - busy)

    def release(self) -> None:
        """Let go of everything that only the running forward pass needed."""
        self._rope, self._mask = None, None
        self.looks.release()
        self._memos.clear()
        self._jobs.clear()
        self._places = None

    def resident(self, layer: int) -> tuple[Layout, list[int]]:
        """Layout and visual tokens per row that the cache of ``layer`` is to hold afterwards."""
        layout, counts = self.layouts[layer], self.counts[layer]
        for cut_layer, after, visual in self.trims:
            if cut_layer > layer:
                layout, counts = after, visual
        if layer in self._forgets and self.images:
            if self._text_only is None:
                present = self.entry.present.clone()
                for image in self.images:
                    present[image.row, image.positions] = False
                self._text_only = self.entry.keep(present, self.text)
            return self._text_only, [0] * len(counts)
        return layout, counts


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
