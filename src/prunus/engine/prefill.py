"""The state of one prompt while it runs through the decoder: what is there, and each cut."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from prunus.engine.answers import Doubts
from prunus.engine.choosing import Here, answers
from prunus.engine.chosen import Chosen, chosen_of, filled
from prunus.engine.edit import Job, Places
from prunus.engine.gathered import Gathered
from prunus.engine.kept import Looks
from prunus.engine.layout import Layout
from prunus.engine.merge import Made
from prunus.engine.plan import Plan
from prunus.engine.prompt import Image, Prompt, tokens_in
from prunus.engine.renewal import new_states
from prunus.engine.side import SideInputs
from prunus.engine.tower.groups import Reduced
from prunus.engine.tower.seats import Unpooled, seated
from prunus.errors import PrunusError
from prunus.families import Family
from prunus.method import Cut, Edit, EditsAttention, Method, tower_part
from prunus.signals.topk import places_of

_ELSEWHERE = (
    "the image features of this prompt are not those of the vision tower's last call inside "
    "prunus.prune, so it is unknown where their tokens lie: compute them right before the call, or "
    "pass pixel values"
)


class Prefill:
    """One prompt on its way through the layers.

    Attributes:
        images: every image of every row, in order.
        layout: what is there now; ``ran`` what the layers run on so far (a choice made before the
            language model takes effect at its first layer); ``entry`` the whole prompt.
        last: int64 ``[B]``, logical position of the last prompt token of each row.
        valid: bool ``[B, L]``, no padding; ``padded`` whether there is any; ``fills`` whether every
            row ends with a token.
        layouts, counts: per decoder layer, as it ran: its layout and the visual tokens per row.
        windows: per decoder layer, the sliding window of its cache; empty where none was filled.
    """

    def __init__(
        self,
        family: Family,
        valid: Tensor,
        prompt: Prompt,
        last: Tensor,
        plan: Plan,
        answers: bool = False,
        padded: bool = True,
    ) -> None:
        self.family, self.last, self.plan = family, last, plan
        self.images, self.samples, self.repeats = prompt.images, prompt.samples, prompt.repeats
        present = self.valid = valid
        there, self.fills = [valid.shape[1]] * len(valid), True
        if padded:  # there may be padding
            there, self.fills = tokens_in(valid)
        self.padded = min(there, default=0) < valid.shape[1]
        if self.padded and self.images:  # a visual token that is masked out is there all the same:
            present = valid.clone()  # the model's mask goes on hiding it
            for image in self.images:
                present[image.row, image.positions] = True
            there, self.fills = tokens_in(present)
        self.entry = self.layout = self.ran = Layout.full(present)
        if self.images and 0 in there:
            raise PrunusError(
                f"row {there.index(0)} of the batch is padding from end to end: leave it out while "
                "pruning"
            )
        self.text = [0] * len(there)
        self.original = self.visual()
        self.text = [n - v for n, v in zip(there, self.original, strict=True)]
        self.depth = plan.depth
        self.layouts: list[Layout] = []
        self.counts: list[list[int]] = []
        self.trims: list[tuple[int, Layout, list[int]]] = []
        self.chosen: list[Chosen] = []
        self.order: dict[int, Tensor] = {}  # by number of image: original tokens as they are read
        self.remade = False  # some survivors are not what the model's input has in their places
        self.compact = False  # positions were closed up before the language model
        self.closed = False  # they are inside it, from here on
        self.line = True  # positions are one number for each token
        self.turned = False  # it is proved how rotary tables of closed positions are made
        self.cache: Any = None
        self.windows: list[int | None] = []
        self.backend = ""
        self.macs = 0.0
        self.tower_macs = 0.0  # of all images of the call, before beams repeat them
        self.element_size: int = family.top.dtype.itemsize
        self.looks = Looks(family, last, plan.noted, plan.whole)
        self.looks.images = self.images
        self.side = SideInputs()
        self.edited: set[int] = set()  # layers whose attention was
        self._answers = answers
        self._memos: dict[int, dict[Any, Any]] = {}
        self._text_only: Layout | None = None
        self._places: tuple[Layout, Places] | None = None
        self._jobs: dict[tuple[Layout, Edit, str], Job] = {}
        self.gathered = Gathered(self.entry)

    def visual(self) -> list[int]:
        """Visual tokens present now, per row."""
        counts = [0] * len(self.text)
        for image in self.images:
            counts[image.row] += image.present.shape[0]
        return counts

    def mask(self, given: Any, causal: bool, states: Tensor) -> Any:
        """The mask ``given`` for the whole prompt, for the present tokens."""
        return self.gathered.mask(given, self.layout, self.backend, causal, states)

    def padding(self, given: Any) -> Tensor | None:
        """The mask ``given`` to a layer without keys for the whole prompt, for present tokens."""
        return self.gathered.padding(given, self.layout)

    def rope(self, given: Any) -> Any:
        """Rotary tables of the whole prompt, for the present tokens."""
        # Compacted positions belong to the place, not to the token that was moved there.
        return self.gathered.rope(given, self.layout, self.compact)

    def positions(self, ids: Tensor) -> Tensor:
        """Position ids ``[..., B|1, L]`` of the whole prompt, for the present tokens."""
        return self.gathered.positions(ids, self.layout, self.compact)

    def along(self, given: Tensor) -> Tensor:
        """Inputs ``[B, L, d]`` of one layer, a row for each token of the whole prompt, for the
        present tokens."""
        return self.entry.take(given, self.layout)

    def start(self, layer: int, states: Tensor) -> None:
        """Note that ``layer`` now runs on the present layout."""
        self.looks.note(layer, states, self.layout)
        same = bool(self.layouts) and self.layouts[-1] is self.layout
        self.counts.append(self.counts[-1] if same else self.visual())
        self.layouts.append(self.layout)

    def catch_up(self, states: Tensor) -> Tensor:
        """``states`` of the last layer that ran, for the present layout."""
        before, self.ran = self.ran, self.layout
        return states if before is self.layout else before.take(states, self.layout)

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
        valid = self.layout.valid
        if self.padded:
            here = self.layout.present.gather(1, index)
            valid = here if valid is None else here & valid
        if valid is not None:
            visual, text = visual & valid, text & valid
        return Places(visual, text, valid, self._answers)

    def untouched(self) -> None:
        """Note that every layer runs on the whole prompt (there is no image in it)."""
        self.layouts = [self.layout] * self.depth
        self.counts = [self.visual()] * self.depth

    def cut(self, method: Method, stage: int, cut: Cut, states: Tensor) -> Tensor:
        """Let ``method`` choose among the tokens of ``states``, which are those of the present
        layout, and return them without what it dropped."""
        memo = self._memos.setdefault(id(method), {})
        # Scores are made in the precision that a method asks for, also where the model's is mixed.
        with torch.no_grad(), torch.autocast(states.device.type, enabled=False):
            here = Here(self.looks, self.layout, states, self.samples, memo)
            groups, selections, macs = answers(here, self.plan.budget, method, stage, cut)
            chosen = chosen_of(self.images, self.order, self.line, cut, method, groups, selections)
        self.macs += macs
        # Nothing above changed the pass; from here on nothing can be refused.
        if chosen.labels is not None and not any(chosen.labels):
            return states
        self.chosen.append(chosen)
        return self._go_on(chosen, states)

    def _go_on(self, chosen: Chosen, states: Tensor) -> Tensor:
        """The prompt and its ``states`` after a selection."""
        cut = chosen.cut
        new = new_states(self.family, self.looks, self.layout, chosen, states)
        if new and cut.layer is not None and self.family.along:
            raise PrunusError(
                f"{chosen.method} makes new tokens inside a language model that gives every token "
                f"something of its own in each layer ({', '.join(self.family.along)}): not possible"
            )
        for one in new:
            was = one.image.positions[one.image.present]
            self.side = self.side.mixed(one.image.row, was, one.places, one.made, one.rows)
        for image, made, kept, into in zip(
            self.images, chosen.made, chosen.kept, chosen.merged_into, strict=True
        ):
            image.merged_into = into
            if made is not None:
                image.sizes = _sizes(image.counted(), made)
            elif image.sizes is not None:
                image.sizes = image.sizes[torch.searchsorted(image.present, kept)]
        self.closed = self.closed or chosen.closed
        states = self._drop(chosen.kept, cut, states)
        if chosen.order is not None and cut.layer is not None:
            before = self.layout
            self.reorder()
            states = before.take(states, self.layout)
        for one in new:
            at = self.layout.slot[one.image.row, one.places].to(states.device)
            row = torch.full_like(at, one.image.row)
            states = states.index_put((row, at), one.values)
        self.remade = self.remade or bool(new)
        return states

    def edit(self, methods: Sequence[Method]) -> None:
        """Note what ``methods`` edit in this prompt's attention and cache."""
        for method in methods:
            if not isinstance(method, EditsAttention):
                continue
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
            PrunusError: ``states`` do not hold the features of that call.
        """
        own = [reduced[image.kind][image.order] for image in self.images]
        chosen, doubts = [], Doubts()
        for image, one in zip(self.images, own, strict=True):
            device = image.positions.device
            if one.unpooled is not None:
                _seat(image, one, one.unpooled, states)
            chosen.append(one.kept.to(device))
            image.merged_into, image.sizes = one.merged_into.to(device), one.sizes.to(device)
            if len(one.kept) < image.grid.size and one.unpooled is None:
                doubts.add(_fits(states[image.row, image.positions], one), _ELSEWHERE)
        doubts.settle()
        scores = None
        if any(one.scores is not None for one in own):
            scores = filled(self.images, [one.scores for one in own])
        part = tower_part(method)
        proportional = part is not None and part.proportional
        self.chosen.append(Chosen(Cut(None), method.name, chosen, scores, own, proportional))
        if all(len(one.kept) == len(one.merged_into) for one in own):
            return states  # nothing was merged
        states = self._drop(chosen, Cut(None), states)
        for image, one in zip(self.images, own, strict=True):
            if one.unpooled is not None:
                at = self.layout.slot[image.row, image.positions[image.present]].to(states.device)
                row = torch.full_like(at, image.row)
                states = states.index_put((row, at), one.unpooled.features.to(states))
                self.remade = True
        return states

    def _drop(self, chosen: list[Tensor], cut: Cut, states: Tensor) -> Tensor:
        """Go on with the ``chosen`` original tokens of each image only."""
        before = self.layout
        present = before.present.clone()
        for image, indices in zip(self.images, chosen, strict=True):
            row = present[image.row]
            row.index_fill_(0, image.positions, False)
            row.index_fill_(0, image.positions[indices], True)
            image.present = indices
        visual = self.visual()
        counts = [text + seen for text, seen in zip(self.text, visual, strict=True)]
        self.layout = before.keep(present, counts, self.closed)
        if cut.trim_cache and cut.layer is not None:
            self.trims.append((cut.layer, self.layout, visual))
        return before.take(states, self.layout)

    def reorder(self) -> None:
        """Bring the tokens of each image into the order in which a method wants them read."""
        before = self.layout
        slots = torch.arange(before.size, device=before.index.device).repeat(len(self.text), 1)
        for number, order in self.order.items():
            image = self.images[number]
            # A later method may have taken some.
            read = order[places_of(torch.isin(order, image.present), len(image.present))]
            own = before.slot[image.row, image.positions[image.present]].sort().values
            slots[image.row, own] = before.slot[image.row, image.positions[read]]
        self.layout = before.reordered(slots)

    @property
    def finished(self) -> bool:
        """Whether every layer ran."""
        return len(self.layouts) == self.depth

    def check_finished(self) -> None:
        """Raise PrunusError if a layer did not do what was asked of it."""
        if not self.finished:
            raise PrunusError(
                f"only {len(self.layouts)} of {self.depth} decoder layers ran: layers that are "
                "skipped are not supported while pruning"
            )
        if missed := sorted(set(self.plan.edits) - self.edited):
            raise PrunusError(
                f"the attention of decoder layer {missed[0]} cannot be edited: the layer does not "
                "go through transformers' attention functions"
            )

    def behind(self) -> list[int]:
        """Text tokens of the prompt behind the first visual token, per row."""
        counts = [0] * len(self.text)
        for row in {image.row for image in self.images}:
            own = [image for image in self.images if image.row == row]
            places = torch.cat([image.positions for image in own])
            start, last = int(places.min()), int(self.last[row])
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
        self.gathered.forget()
        self.cache = None
        self.side = SideInputs()
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
        if layer in self.plan.forgets and self.images:
            if self._text_only is None:
                present = self.entry.present.clone()
                for image in self.images:
                    present[image.row, image.positions] = False
                self._text_only = self.entry.keep(present, self.text)
            return self._text_only, [0] * len(counts)
        return layout, counts


def _sizes(before: Tensor, made: Made) -> Tensor:
    """Float32 ``[k]``: original tokens that each survivor stands for."""
    sizes = before.new_zeros(len(made.mix))
    return sizes.index_add(0, made.into.clamp(min=0), before * (made.into >= 0))


def _seat(image: Image, reduced: Reduced, around: Unpooled, states: Tensor) -> None:
    """Give what goes around the pooling of ``image`` its places in the prompt.

    Raises:
        PrunusError: these do not hold what this call of the tower gave to be pooled.
    """
    pooled = states[image.row, image.positions]
    if not bool(((pooled.float() - around.sign).abs() < 0.25).all()):
        raise PrunusError(_ELSEWHERE)
    grid, kept = around.grid, reduced.kept.to(image.positions.device)
    image.positions = seated(image.positions, kept, grid.frames, grid.size // grid.frames)
    image.grid = grid


def _fits(states: Tensor, reduced: Reduced) -> Tensor:
    """Whether exactly the survivors' places hold features: the tower may have run on other images
    since these were made."""
    filled = (states != 0).any(dim=-1)
    expected = torch.zeros_like(filled)
    expected[reduced.kept.to(filled.device)] = True
    return (filled == expected).all()
