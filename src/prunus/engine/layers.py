"""The hooks in decoder layers: cuts at their inputs, looks at and edits of their attention."""

from __future__ import annotations

import weakref
from typing import Any

import torch
from torch import Tensor, nn

from prunus.engine.attention import Given, is_causal, is_proved
from prunus.engine.cache import check_cache
from prunus.engine.calls import Here, Peeked, by_name, cache_of
from prunus.engine.decode import Resume
from prunus.engine.hooks import before
from prunus.engine.lent import lend
from prunus.engine.masks import FLASH
from prunus.engine.plan import Plan
from prunus.engine.prefill import Prefill
from prunus.engine.refuse import check_layer_call, hooks_not_seen
from prunus.engine.rotary import check_rotary
from prunus.engine.standby import Standby
from prunus.engine.traffic import is_inside
from prunus.errors import PrunusError, PrunusStateError
from prunus.families import Family
from prunus.families.modules import attention_modules


class Layers:
    """The decoder layers of one model, for what runs in ``here``."""

    def __init__(self, family: Family, plan: Plan, here: Here) -> None:
        self.family, self.plan, self._here = family, plan, here
        self._numbers: dict[int, int] = {}  # decoder layer, by identity of its attention
        self.readers = family.readers
        #: By the first layer of a kind, all that are given the same mask, so that the first one's
        #: tells of them all.
        self._kinds = _kinds_of(family)
        # What was seen of that: of a kind with an attention implementation, a mask that was the
        # same tensor in all layers; and kinds of which layers were given several.
        self._shared: dict[tuple[int, str], weakref.ref[Tensor]] = {}
        self._several: set[int] = set()
        self.standby = Standby(self)

    def attach(self, owner: object, loans: dict[Any, Any]) -> None:
        """Register hooks on all layers, and lend their attention modules what calls us."""
        plan = self.plan
        self.standby = standby = Standby(owner)
        for number, layer in enumerate(self.family.layers):
            modules = attention_modules(layer)
            hook = self._entering(number, next(iter(modules), None))
            if number in self._kinds:  # which sees whether a decode step needs the others
                before(owner, layer, hook)
            else:
                standby.hook(number, layer, hook)
            wanted = number in plan.looked or number in plan.edits or number in plan.peeked
            for attention in modules:
                self._numbers[id(attention)] = number
                idle = lend(owner, attention, None, loans)
                if wanted:
                    standby.loan(attention, lend(owner, attention, self._attend, loans), idle)
                else:
                    attention.config = idle

    def _settle(
        self, running: Resume, number: int, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        """A further call on a pruned cache is at the first layer of a kind: which of these have
        anything to do."""
        members, needed = self._kinds[number], None
        if not self.readers and number not in self._several and len(args) < 2:
            mask = kwargs.get("attention_mask")
            seen = self._shared.get((number, running.backend))
            # One that the model did not make anew for this step is not ours to change.
            shared = seen is not None and seen() is not mask and not self.standby.stays
            needed = running.settle(members, mask, shared)
        if needed is None:
            self.standby.need()
        else:
            self.standby.spare(members - {number}, needed)

    def learn(self, running: Resume) -> None:
        """Note what masks the layers were given in a further call that came to its end."""
        given = running.given
        for first, members in self._kinds.items():
            key = (first, running.backend)
            if key in self._shared:
                continue
            mask = given[first]
            if any(given[number] is not mask for number in members):
                self._several.add(first)
            elif isinstance(mask, Tensor):
                self._shared[key] = weakref.ref(mask)

    def _entering(self, number: int, attention: Any) -> Any:
        steps = self.plan.decoder.get(number, ())
        here = self._here

        def before_layer(
            module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
        ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
            running = here.running
            if running is None:
                return None
            if isinstance(running, Resume):
                if number in self._kinds:
                    self._settle(running, number, args, kwargs)
                if running.passes(number, args, kwargs):
                    return None
            named = by_name(module, args, kwargs)
            name = next(iter(named)) if args else "hidden_states"
            states: Tensor = args[0] if args else kwargs[name]
            causal = is_causal(attention, named)
            if isinstance(running, Resume):
                return _call(args, running.layer(number, named, causal, states), name, states)
            if running.cache is None:  # made inside the language model
                running.cache = cache_of(named)
                check_cache(running.cache)
            if running.ran is not running.layout:
                states = running.catch_up(states)
            if running.side.by_layer:
                states = running.side.add(number, states, running.layout)
            for step in steps:
                if number in self.plan.peeked:
                    self._peek(running, number, module, named, name, states)
                states = running.cut(step.method, step.stage, step.cut, states)
            running.ran = running.layout
            running.start(number, states)
            if running.layout.whole:
                added = number - 1 in running.side.by_layer
                return _call(args, named, name, states) if added else None
            changed = self._gathered(running, named, name, causal, states, number)
            return _call(args, changed, name, states)

        return before_layer

    def _gathered(
        self,
        running: Prefill,
        named: dict[str, Any],
        name: str,
        causal: bool,
        states: Tensor,
        number: int,
    ) -> dict[str, Any]:
        """The arguments of layer ``number``, made for the whole prompt, for the present layout:
        once for all layers that are given the very same."""
        rest = dict(named)
        del rest[name]
        bare = number in self.plan.recurrent
        key = (causal, bare, *rest, *map(id, rest.values()))
        found = running.gathered.call(running.layout, key)
        if found is None:
            found = self._made(running, named, name, causal, bare, states)
            if not self.family.along:  # which each layer has of its own
                running.gathered.keep(running.layout, key, rest, found)
        return found

    def _made(
        self,
        running: Prefill,
        named: dict[str, Any],
        name: str,
        causal: bool,
        bare: bool,
        states: Tensor,
    ) -> dict[str, Any]:
        check_layer_call(named, name, running.entry.size, self.family.along)
        tables, ids = named.get("position_embeddings"), named.get("position_ids")
        if running.layout.closed and not running.turned:
            check_rotary(self.family, states, ids, tables, running.entry.present)
            running.turned = True
        mask = named.get("attention_mask")
        changed = {
            **named,
            "attention_mask": running.padding(mask) if bare else running.mask(mask, causal, states),
            "position_embeddings": running.rope(tables),
        }
        for one in self.family.along:
            if named.get(one) is not None:
                changed[one] = running.along(named[one])
        if ids is not None:  # FlashAttention would read ids with gaps as packed sequences
            changed["position_ids"] = None if running.backend in FLASH else running.positions(ids)
        return changed

    def _peek(
        self,
        running: Prefill,
        number: int,
        layer: nn.Module,
        named: dict[str, Any],
        name: str,
        states: Tensor,
    ) -> None:
        """Look at what the attention of ``layer`` would be given, were it to run on ``states``: it
        runs up to there, without its cache."""
        attention = next(iter(self.family.attention(number)), None)
        given = dict(named)
        if not running.layout.whole:
            causal = is_causal(attention, given)
            given = self._gathered(running, given, name, causal, states, number)
        for cache in ("past_key_values", "past_key_value", "cache"):
            if cache in given:
                given[cache] = None
        given["use_cache"] = False
        here = self._here
        here.running, here.peeking = None, True
        devices = {states.device.index or 0} if states.is_cuda else set()
        # What dropout draws is drawn again when the layer really runs.
        lots = torch.random.fork_rng(devices, enabled=layer.training)
        try:
            # Not the module itself: hooks in front of ours have seen these states already.
            with torch.no_grad(), lots:
                layer.forward(**{**given, name: states.detach()})
        except Peeked as found:
            running.looks.peek(number, states, running.layout, found.given)
            return
        finally:
            here.running, here.peeking = running, False
        raise PrunusError(
            f"the attention of decoder layer {number} cannot be looked at before it runs: the "
            "layer does not go through transformers' attention functions; choose another method"
        )

    def _attend(
        self,
        module: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attention_mask: Any = None,
        **rest: Any,
    ) -> Any:
        """Stands in for the attention function of layers that are looked at or edited."""
        backend = str(module.config._attn_implementation)
        given = Given(module, query, key, value, attention_mask, rest, backend)
        if self._here.peeking:
            raise Peeked(given)
        running, number = self._here.running, self._numbers[id(module)]
        if not isinstance(running, Prefill):
            unseen = query.shape[2] > 1 and not self._here.in_model and hooks_not_seen()
            # A call that came before the hooks, or when they were taken out, is no fault.
            if unseen and not is_inside([self.family.language_model], running=True):
                raise PrunusStateError(
                    "the model runs code that was compiled without prunus' hooks: call "
                    "torch._dynamo.reset() before prunus.prune(...), or compile inside the block"
                )
            return given.run()
        edit = self.plan.edits.get(number)
        if edit is not None:
            running.edited.add(number)
            last = None if is_proved(given) else running.layout.slots_of(running.last)
            job = running.job(edit, backend)
            return job.attend(module, query, key, value, attention_mask, rest, last), None
        output, weights = given.run()
        if number in self.plan.looked:
            with torch.no_grad():  # a layer that backward runs again must save the same tensors
                running.looks.see(number, given, output)
        return output, weights


def _kinds_of(family: Family) -> dict[int, frozenset[int]]:
    """Decoder layers that are given one mask, by the first of them."""
    depth = len(family.layers)
    kinds = getattr(family.text_config, "layer_types", None) or ()
    names = list(kinds[:depth]) if len(kinds) >= depth else [""] * depth
    return {
        names.index(name): frozenset(n for n, own in enumerate(names) if own == name)
        for name in dict.fromkeys(names)
    }


def _call(
    args: tuple[Any, ...], named: dict[str, Any], first: str, states: Tensor
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Arguments of a layer. States stay positional where they were: reentrant checkpointing only
    follows gradients through those."""
    if not args:
        return (), {**named, first: states}
    return (states,), {name: value for name, value in named.items() if name != first}
