"""The hooks that prune a running model. Nothing of the model is replaced."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle
from transformers.modeling_layers import GradientCheckpointingLayer

from prunus.engine.cache import check_cache, is_pruned, length_of
from prunus.engine.calls import by_name, cache_of
from prunus.engine.edit import Switch
from prunus.engine.encoder import EncoderStage
from prunus.engine.finish import resident_cache, spread_output
from prunus.engine.layout import Layout
from prunus.engine.looks import Sight
from prunus.engine.plan import Plan
from prunus.engine.prefill import Prefill
from prunus.engine.prompt import Prompt, find_images, last_prompt_token
from prunus.engine.resume import Resume
from prunus.engine.tap import Tap
from prunus.families import Family
from prunus.grid import Grid


@dataclass
class _Call:
    """What outer modules were called with, until the language model needs it."""

    labels: Tensor | None = None
    logits_to_keep: Any = 0
    core: Mapping[str, Any] = field(default_factory=dict)


@dataclass
class Engine:
    """Hooks for one model and one :class:`~prunus.engine.plan.Plan`.

    ``prefill`` is the prompt that ran last (or runs now); ``prompts`` counts them.
    """

    family: Family
    plan: Plan
    positions: str = "original"
    prefill: Prefill | None = None
    prompts: int = 0
    _call: _Call = field(default_factory=_Call)
    _announced: dict[str, list[Grid]] = field(default_factory=dict)
    _running: Prefill | Resume | None = None
    _encoder: EncoderStage | None = None
    _tap: Tap | None = None
    _handles: list[RemovableHandle] = field(default_factory=list)
    _switches: list[Switch] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.plan.encoder is not None:
            self._encoder = EncoderStage(self.family, self.plan.encoder)
        if self.plan.reads_features and self.family.reads_tower:
            self._tap = Tap(self.family)

    @property
    def _backend(self) -> str:
        """The attention implementation in use (it may be switched between calls)."""
        name: str = self.family.text_config._attn_implementation
        return name

    # -- hooks ---------------------------------------------------------------------------------

    def attach(self, model: nn.Module) -> None:
        """Register all hooks; ``model`` is what the user calls (maybe a PEFT wrapper)."""
        family = self.family
        for outer in {id(module): module for module in (model, family.top)}.values():
            self._add(outer.register_forward_pre_hook(self._on_top, with_kwargs=True))
        self._add(family.core.register_forward_pre_hook(self._on_core, with_kwargs=True))
        if self._encoder is not None:
            self._encoder.attach(self._add)
        if self._tap is not None:
            self._tap.attach(self._add)
        lm = family.language_model
        self._add(lm.register_forward_pre_hook(self._before, with_kwargs=True))
        for number, layer in enumerate(family.layers):
            self._add(layer.register_forward_pre_hook(self._layer_hook(number), with_kwargs=True))
        for number in self.plan.edits:
            self._add_switch(number)
        self._add(lm.register_forward_hook(self._after, with_kwargs=True))

    def detach(self) -> None:
        """Remove every hook."""
        while self._handles:
            self._handles.pop().remove()
        while self._switches:
            self._switches.pop().off()
        self._running, self._call, self._announced = None, _Call(), {}
        if self._encoder is not None:
            self._encoder.detach()
        if self._tap is not None:
            self._tap.forget()

    @contextmanager
    def announced(self, call: Mapping[str, Any]) -> Iterator[None]:
        """For the time of one ``generate`` with the arguments ``call``: it runs the tower before
        the prompt is expanded for beams, and ``forward`` then sees features without grids."""
        self._announced = self.family.grids_of(call)
        if self._encoder is not None:
            self._encoder.expect(call)
        if self._tap is not None:
            self._tap.forget()
        try:
            yield
        finally:
            self._announced = {}

    def _add(self, handle: RemovableHandle) -> None:
        self._handles.append(handle)

    def _add_switch(self, number: int) -> None:
        attention, edit = self.family.layers[number].self_attn, self.plan.edits[number]
        switch = Switch(attention)
        self._switches.append(switch)

        def on(module: nn.Module, args: tuple[Any, ...]) -> None:
            if isinstance(self._running, Prefill):
                switch.on(self._running.job(edit, self._backend))
            else:  # an interrupt may have left it on
                switch.off()

        def off(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            switch.off()

        self._add(attention.register_forward_pre_hook(on))
        self._add(attention.register_forward_hook(off, always_call=True))

    def _on_top(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        bound = by_name(module, args, kwargs)
        self._call = _Call(bound.get("labels"), bound.get("logits_to_keep", 0))

    def _on_core(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        outer, core = self._call, by_name(module, args, kwargs)
        self._call = _Call(outer.labels, outer.logits_to_keep, core)
        if self._encoder is not None:
            self._encoder.expect(core)
        if self._tap is not None and core.get("pixel_values") is not None:
            self._tap.forget()

    def _before(
        self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        call, self._call = self._call, _Call()
        self._running = None
        if self._encoder is not None:
            self._encoder.expect({})  # the tower had its turn; nothing of the call is held on to
        ids, given = call.core.get("input_ids"), call.core.get("inputs_embeds")
        if ids is None and given is None:
            return None  # the language model by itself, not through the multimodal core
        cache = cache_of(kwargs)
        check_cache(cache)
        _refuse_maps(module, kwargs)
        embeds: Tensor = kwargs["inputs_embeds"]
        past = length_of(cache)
        if past and embeds.shape[1] == 1:  # a decode step: no value is read from the device
            return self._resume(kwargs) if is_pruned(cache) else None
        holders = self.family.placeholders(ids, given)
        if past:
            if any(bool(places.any()) for places in holders.values()):
                raise ValueError(
                    "new images on a KV cache are not supported: start a new prompt with all "
                    "images (a further turn on the cache is text only)"
                )
            return self._resume(kwargs) if is_pruned(cache) else None
        grids = self.family.grids_of(call.core) or self._announced
        prompt = find_images(self.family, holders, grids)
        self.prompts += 1
        return self._start(prompt, call, kwargs)

    def _start(
        self, prompt: Prompt, call: _Call, kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        embeds: Tensor = kwargs["inputs_embeds"]
        mask = kwargs.get("attention_mask")
        batch, length, _ = embeds.shape
        if mask is not None and mask.ndim != 2:
            raise ValueError(
                f"attention_mask of shape {tuple(mask.shape)} is not supported: give a 2-D mask"
            )
        _refuse_replay(self.family.layers[0], bool(self.plan.edits))
        if self.plan.query_dependent and call.labels is None:
            _refuse_candidates(call.logits_to_keep)
        valid = None if mask is None or bool(mask.all()) else mask.bool().to(embeds.device)
        layout = Layout.full(batch, length, valid, embeds.device)
        last = last_prompt_token(layout.present, call.labels)
        answers = call.labels is not None
        self.prefill = running = Prefill(self.family, layout, prompt, last, self.plan, answers)
        if not prompt.images:
            running.untouched()
            warnings.warn("prunus: no image in the prompt, nothing was pruned", stacklevel=2)
            return None
        self._running = running
        running.looks.cache = cache_of(kwargs)
        features = None if self._tap is None else self._tap.take(prompt.images)
        running.looks.sight = Sight(call.core.get("input_ids"), layout.present, features)
        running.edit(self.plan.methods)
        if self.plan.features or self._encoder is not None:
            kwargs = self._cut_features(running, kwargs)
        return (), kwargs

    def _cut_features(self, running: Prefill, kwargs: dict[str, Any]) -> dict[str, Any]:
        full, states = running.layout, kwargs["inputs_embeds"]
        if self._encoder is not None:
            states = self._encoder.hand_over(running, states)
        for step in self.plan.features:
            states = running.cut(step.method, step.stage, step.cut, states)
        running.entry = layout = running.layout
        if layout.whole:  # a method in the tower that merged nothing
            return kwargs
        ids = kwargs.get("position_ids")
        if ids is None:
            ids = full.index[:1]
        if self.positions == "compact":
            running.compact = True
            if ids.ndim != 2:
                raise ValueError("positions='compact' needs 1-D rotary positions: use 'original'")
            ids = (layout.present.long().cumsum(1) - 1).gather(1, layout.index)
        if running.order:
            states = running.reorder(states)
            running.entry = layout = running.layout
        if self.positions == "original":
            ids = full.rows(ids, layout, -1)
        valid = layout.valid
        ones = torch.ones(layout.index.shape, dtype=torch.long, device=states.device)
        # Always a 2-D mask: without one, ids with gaps would be read as packed sequences.
        mask = ones if valid is None else valid.long()
        return {**kwargs, "inputs_embeds": states, "position_ids": ids, "attention_mask": mask}

    def _resume(self, kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        self._running = resume = Resume(kwargs, self._backend)
        return (), resume.shifted(kwargs)

    def _layer_hook(self, number: int) -> Any:
        steps = self.plan.decoder.get(number, ())

        def before_layer(
            module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
        ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
            running = self._running
            if running is None:
                return None
            if isinstance(running, Resume):
                return args, running.layer(number, kwargs)
            states: Tensor = args[0] if args else kwargs["hidden_states"]
            if running.looks.cache is None:  # made inside the language model
                running.looks.cache = cache_of(kwargs)
            rope = kwargs["position_embeddings"]
            for step in steps:
                states = running.cut(step.method, step.stage, step.cut, states)
            running.start(number, states, rope)
            if running.layout.whole:
                return None
            kwargs = {
                **kwargs,
                "attention_mask": running.mask(states, self._backend),
                "position_embeddings": running.rope(rope),
                # FlashAttention would read ids with gaps as packed sequences.
                "position_ids": None,
            }
            if args:
                return (states, *args[1:]), kwargs
            return args, {**kwargs, "hidden_states": states}

        return before_layer

    def _after(
        self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any
    ) -> Any:
        running, self._running = self._running, None
        if not isinstance(running, Prefill):
            return None
        resident_cache(running, output.past_key_values)
        running.release()
        _announce_idle(running, self.plan)
        return spread_output(running, output)


def _refuse_maps(module: nn.Module, kwargs: dict[str, Any]) -> None:
    wanted = kwargs.get("output_attentions")
    if wanted or (wanted is None and getattr(module.config, "output_attentions", False)):
        raise ValueError(
            "output_attentions is not supported while pruning: maps of pruned layers have other "
            "shapes; run.trace holds the attention rows that scores were made of"
        )


def _announce_idle(running: Prefill, plan: Plan) -> None:
    for method in plan.methods:
        if method.adaptive and (idle := running.idle(method.name)):
            warnings.warn(
                f"prunus: {method.name} found nothing to do in {len(idle)} of {running.samples} "
                f"samples (sample {', '.join(map(str, idle[:8]))}): their tokens all stayed",
                stacklevel=2,
            )


def _refuse_replay(layer: nn.Module, edits: bool) -> None:
    """Before 5.23, transformers checkpointed a layer's ``__call__``: its hooks would run a second
    time during backward, when the prompt they belong to is over. Its attention's hooks still do."""
    checkpointing = getattr(layer, "gradient_checkpointing", False) and layer.training
    if checkpointing and edits:
        raise ValueError(
            "gradient checkpointing is not supported while attention is edited, which its second "
            "pass would not repeat: call model.gradient_checkpointing_disable()"
        )
    if checkpointing and "__call__" in GradientCheckpointingLayer.__dict__:
        raise ValueError(
            "gradient checkpointing while pruning needs transformers 5.23 or newer: upgrade, or "
            "call model.gradient_checkpointing_disable()"
        )


def _refuse_candidates(logits_to_keep: Any) -> None:
    """Assisted decoding appends its guesses to the prompt and asks for several logits."""
    if isinstance(logits_to_keep, int) and logits_to_keep > 1:
        raise ValueError(
            f"logits_to_keep={logits_to_keep} on a new prompt means candidate tokens stand behind "
            "it (assisted decoding): a method that looks at the last prompt token refuses that; "
            "use logits_to_keep=0 or 1, give labels, or choose a query-independent method"
        )
