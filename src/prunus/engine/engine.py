"""The hooks that prune a running model. Nothing of the model is replaced."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from prunus.engine.cache import Lease, check_cache, is_pruned, length_of, take_back, windows_of
from prunus.engine.calls import Generation, Here, Outer, by_name, cache_of
from prunus.engine.decode import Resume
from prunus.engine.hooks import after, before, changing, in_graphs, sweep
from prunus.engine.kept import Sight
from prunus.engine.layers import Layers
from prunus.engine.lent import give_back
from prunus.engine.output import resident_cache, spread_output
from prunus.engine.plan import Plan
from prunus.engine.prefill import Prefill
from prunus.engine.prompt import check_last, check_seen, find_images, find_valid, last_prompt_token
from prunus.engine.refuse import (
    check_call,
    check_candidates,
    check_end,
    check_layers,
    check_length,
    check_packing,
    check_replay,
    check_windows,
)
from prunus.engine.side import SideInputs
from prunus.engine.tower.vision import Vision
from prunus.engine.traffic import Traffic
from prunus.errors import PrunusError, PrunusStateError
from prunus.families import Family
from prunus.method.question import QuestionMarks


class Engine:
    """Hooks for one model and one :class:`~prunus.engine.plan.Plan`.

    What a call knows is kept by thread (:class:`~prunus.engine.calls.Here`); the engine itself has
    nothing that changes while the model runs but ``prefill``, the prompt that ran last in any
    thread, and the counts ``prompts`` and ``calls`` (of the model).
    """

    def __init__(
        self,
        family: Family,
        plan: Plan,
        positions: str = "original",
        marks: QuestionMarks | None = None,
        tokenizer: Any = None,
        finished: Callable[[Prefill], None] | None = None,
    ) -> None:
        self.family, self.plan, self._marks, self._tokenizer = family, plan, marks, tokenizer
        self.prefill: Prefill | None = None
        self.prompts = self.calls = 0
        self._positions, self._finished = positions, finished
        self._text_config = family.text_config
        self._here = Here()
        self._lease = Lease()
        self._told = False  # that nobody said where the prompt ends
        self._traffic = Traffic()
        self._counting = threading.Lock()
        self._layers = Layers(family, plan, self._here)
        self._vision = Vision(family, plan)

    @property
    def _backend(self) -> str:
        """The attention implementation in use (it may be switched between calls)."""
        return str(self._text_config._attn_implementation)

    def latest(self) -> Prefill | None:
        """The prompt that ran last in this thread, or else in any."""
        return self._here.prefill or self.prefill

    # -- coming and going ----------------------------------------------------------------------

    def attach(self, model: nn.Module) -> None:
        """Register all hooks; ``model`` is what the user calls (maybe a PEFT wrapper).

        From the inside out: a call whose beginning was seen finds all the others in their places.
        """
        family = self.family
        whole, towers = (model, family.top, family.core), family.towers.values()
        self._lease, self._traffic = Lease(), Traffic(whole, tuple(towers))
        loans: dict[Any, Any] = {}
        after(self, family.language_model, self._after)
        self._layers.attach(self, loans)
        before(self, family.language_model, self._before)
        self._vision.attach(self, loans, self._traffic)
        after(self, family.core, self._off_core, always=True)
        before(self, family.core, self._on_core)
        for outer in {id(module): module for module in (model, family.top)}.values():
            after(self, outer, self._off_top, always=True)
            before(self, outer, self._on_top)

    def detach(self, model: nn.Module) -> None:
        """Let calls in other threads come to their end, and remove everything."""
        try:
            self._traffic.close()
        finally:
            self._lease.runs = False
            self._layers.standby.end()
            with changing:
                give_back(model, self)
                sweep(model, self)
            if isinstance(self._here.running, Prefill):  # Ctrl-C inside a layer
                self._here.running.release()
            self._here.outer, self._here.running, self._here.ends = Outer(), None, None
            self._vision.leave()

    # -- around the language model -------------------------------------------------------------

    @contextmanager
    def generating(self, call: Mapping[str, Any]) -> Iterator[None]:
        """For the time of one ``generate`` with the arguments ``call``: it runs the tower before
        the prompt is expanded for beams, and ``forward`` then sees features without grids."""
        here, outer = self._here, self._here.generation
        here.generation = Generation(self.family.grids_of(call))
        self._vision.generating(call)
        self._traffic.enter()
        try:
            yield
        finally:
            here.generation = outer
            if outer is None:
                self._traffic.leave()

    def told(self, ends: Any) -> None:
        """Where this thread's next prompt ends."""
        self._here.ends = ends

    def _on_top(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if self._traffic.closing:
            self._refuse_late()
        self._traffic.called(module)
        self.calls += 1
        bound = by_name(module, args, kwargs)
        labels, kept = bound.get("labels"), bound.get("logits_to_keep", 0)
        core = self._here.outer.core if module is self.family.core else {}
        self._here.outer = Outer(labels, kept, core=core)

    def _off_top(self, module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        self._traffic.returned(module)
        self._here.outer = Outer()  # also of a call that raised before its labels were needed

    def _refuse_late(self) -> None:
        if self._here.generation is not None:
            raise PrunusStateError(
                "pruning was ended while generate() was running in another thread: let streams "
                "finish before you leave the `with` block"
            )

    def _on_core(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        here = self._here
        if not (self._traffic.begins(module) and self._traffic.enter()):
            here.outer = Outer()
            return
        core = by_name(module, args, kwargs)
        cache = cache_of(core)
        check_cache(cache)  # before the tower runs
        here.outer = Outer(here.outer.labels, here.outer.logits_to_keep, cache, core)
        self._vision.called(core)

    def _off_core(self, module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        here = self._here
        self._layers.standby.done()
        if isinstance(here.running, Prefill):  # it raised
            here.running.release()
        elif here.running is not None:
            take_back(here.running.cache)
        here.outer, here.running, here.in_model = Outer(), None, False
        self._vision.ended()
        if here.generation is None:
            self._traffic.leave()

    def _before(
        self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        here = self._here
        outer, here.outer, here.running, here.in_model = here.outer, Outer(), None, True
        standby = self._layers.standby
        if in_graphs(self):
            standby.need()
        self._vision.passed()
        given = by_name(module, args, kwargs)
        if outer.core.get("input_ids") is None and outer.core.get("inputs_embeds") is None:
            self._vision.check_unused()
            return None  # the language model by itself, not through the multimodal core
        call = self.family.whole_call(given)
        cache, backend = outer.cache, self._backend
        if cache is None:
            cache = cache_of(call)
            check_cache(cache)
        check_call(self._text_config, call, backend)
        past = length_of(cache)
        if past:
            # A decode step reads no value from the device. Placeholders without what fills them
            # are text, as they are to the model.
            if self.family.brings_features(outer.core):
                raise PrunusError(
                    f"new images on a KV cache are not supported: it holds {past} tokens already "
                    "(an earlier turn, or a prefix of PEFT); start a new prompt with all images (a "
                    "further turn on the cache is text only)"
                )
            if is_pruned(cache):
                return self._resume(call, cache, backend, outer.core.get("attention_mask"))
            standby.spare()
            return None
        running = self._start(outer, call)
        self._remember(running)
        if not running.images:
            running.untouched()
            if here.generation is None or not here.generation.saw_images:
                warnings.warn("prunus: no image in the prompt, nothing was pruned", stacklevel=2)
            return None
        standby.need()
        here.running = running
        running.cache, running.backend = cache, backend
        if self.plan.edits or self.plan.forgets:
            running.edit(self.plan.methods)
        running.side, rest = SideInputs.taken(self.family, call)
        if self.plan.features or self._vision.works:
            return (), self._choose_before(running, rest)
        return None if rest is given else ((), rest)

    def _start(self, outer: Outer, call: Mapping[str, Any]) -> Prefill:
        """The prompt of a call that has no cache yet."""
        family, plan, here, core = self.family, self.plan, self._here, outer.core
        check_layers(family, plan, self._backend)
        embeds: Tensor = call["inputs_embeds"]
        ends, here.ends = here.ends, None
        holders = family.placeholders(core.get("input_ids"), core.get("inputs_embeds"))
        grids = {}
        if here.generation is not None and not family.brings_pixels(core):
            grids = here.generation.grids  # what else the call has is repeated for beams
        grids = grids or family.grids_of(core)
        if not family.brings_features(core):
            holders = {kind: places & False for kind, places in holders.items()}  # text, all of it
        prompt = find_images(family, holders, grids)
        valid, padded = find_valid(core, call, embeds)
        labels = outer.labels if ends is None or ends.labels is None else ends.labels
        if plan.asks and prompt.images:
            check_packing(core, call, holders, valid)
            if ends is None and labels is None:
                check_candidates(outer.logits_to_keep)
                kept = outer.logits_to_keep
                only_next = isinstance(kept, int) and kept == 1  # nobody scores an answer
                if here.generation is None and not only_next:
                    self._told = check_end(family.top, plan, self._told)
        told = None if ends is None else ends.last
        if told is None:
            last = last_prompt_token(valid, labels, padded)
        else:
            last = check_last(told, valid)
        if plan.asks and (labels is not None or told is not None):
            check_seen(prompt.images, last)
        running = Prefill(family, valid, prompt, last, plan, labels is not None, padded)
        if prompt.images:
            check_length(family, plan, embeds.shape[1])
            check_replay(family, bool(plan.edits))
            ids = core.get("input_ids")
            every = list(holders.values())
            visual = every[0] if len(every) == 1 else torch.stack(every).any(0)
            running.looks.sight = Sight(ids, valid, visual, self._marks, self._tokenizer)
            ids = running.looks.ids = call.get("position_ids")
            running.line = ids is None or ids.ndim == 2
            if running.line and plan.compacts:
                check_windows(family, plan)
        return running

    def _remember(self, running: Prefill) -> None:
        """This prompt is the one that trace and report speak of; a prompt without images beside
        one with images in the same ``generate`` (guidance) is not."""
        generation = self._here.generation
        with self._counting:
            self.prompts += 1
        if generation is not None and generation.saw_images and not running.images:
            return
        if generation is not None:
            generation.saw_images = generation.saw_images or bool(running.images)
        self._here.prefill = self.prefill = running

    def _choose_before(self, running: Prefill, call: dict[str, Any]) -> dict[str, Any]:
        """What is chosen before the language model takes effect at its first layer, whose masks
        and positions the model makes for the whole prompt."""
        states = self._vision.hand_over(running, call["inputs_embeds"])
        for step in self.plan.features:
            states = running.cut(step.method, step.stage, step.cut, states)
        if running.layout.whole and not running.remade:  # the tower's method merged nothing
            return call
        if running.remade:  # before anything is moved: layers read the whole prompt's embeddings
            call = {**call, "inputs_embeds": running.layout.put(states, call["inputs_embeds"])}
        if running.order:
            running.reorder()
        if self._positions != "compact":
            return call
        ids, mask = call.get("position_ids"), call.get("attention_mask")
        if ids is not None and ids.ndim != 2:
            raise PrunusError("positions='compact' needs 1-D rotary positions: use 'original'")
        if ids is None:
            ids = torch.arange(running.entry.size, device=running.valid.device)[None]
        elif mask is None and bool((ids.diff() != 1).any()):
            raise PrunusError(
                "without a mask, position_ids with jumps mean several prompts in one row, which "
                "positions='compact' cannot tell apart any more: give a 4-D mask, or use 'original'"
            )
        running.compact = True
        if mask is None:  # without one, equal ids would be read as packed sequences
            mask = running.valid.long()
        gone = running.entry.present & ~running.layout.present
        ids = ids - gone.long().cumsum(1).to(ids.device)
        return {**call, "position_ids": ids, "attention_mask": mask}

    def _resume(
        self, call: dict[str, Any], cache: Any, backend: str, theirs: Any
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        mask = call.get("attention_mask")
        embeds = call["inputs_embeds"]
        readers = self._layers.readers
        resume = Resume(self.family, cache, embeds, mask, backend, self._lease, readers, theirs)
        self._here.running = resume
        ids = call.get("position_ids")
        moved = resume.shifted(ids)
        return (), call if moved is ids else {**call, "position_ids": moved}

    def _after(
        self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any
    ) -> Any:
        here = self._here
        running, here.running, here.in_model = here.running, None, False
        if not isinstance(running, Prefill):
            if running is not None and len(running.given) == self.plan.depth:
                self._layers.learn(running)  # every hook was asked
            return None
        running.check_finished()
        if running.cache is not None:
            running.windows = windows_of(running.cache, running.depth)
            resident_cache(running, running.cache)
        running.release()
        _announce_idle(running, self.plan)
        whole = spread_output(running, output)
        if self._finished is not None:
            self._finished(running)
        return whole


def _announce_idle(running: Prefill, plan: Plan) -> None:
    for method in plan.methods:
        if method.adaptive and (idle := running.idle(method.name)):
            warnings.warn(
                f"prunus: {method.name} found nothing to do in {len(idle)} of {running.samples} "
                f"samples (sample {', '.join(map(str, idle[:8]))}): their tokens all stayed",
                stacklevel=2,
            )
