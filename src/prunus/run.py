"""The entry point: prune a model for the time of a ``with`` block."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from types import TracebackType
from typing import Any

from torch import nn

from prunus.cost.report import build_report
from prunus.engine.engine import Engine
from prunus.engine.guard import guarded
from prunus.engine.masks import check_backend
from prunus.engine.plan import make_plan
from prunus.engine.record import make_record, make_trace
from prunus.families import family_of
from prunus.method import Method, make_method
from prunus.trace import Report, TraceEntry

_active: weakref.WeakSet[nn.Module] = weakref.WeakSet()


class Run:
    """Pruning of one model: a context manager, with :meth:`attach` and :meth:`detach` for programs
    that keep a model pruned."""

    def __init__(self, model: nn.Module, methods: Sequence[Method], positions: str) -> None:
        self._model = model
        self._family = family_of(model)
        self._plan = make_plan(methods, self._family, positions)
        self._engine = Engine(self._family, self._plan, positions)
        check_backend(self._family.text_config._attn_implementation)
        if "sliding_attention" in (getattr(self._family.text_config, "layer_types", None) or ()):
            raise ValueError("language models with sliding-window attention are not supported")

    def attach(self) -> Run:
        """Start pruning: from now on every prompt with an image is pruned.

        Raises:
            RuntimeError: the model is being pruned already (nesting, or another thread).
        """
        if self._family.core in _active:
            raise RuntimeError(
                "this model is being pruned already: leave that `with` block or detach() first; "
                "give several methods as one list"
            )
        _active.add(self._family.core)
        try:
            self._engine.attach(self._model)
            top = self._family.top
            config = getattr(top, "generation_config", None)
            top.__dict__["generate"] = guarded(  # type: ignore[arg-type]
                top.generate, config, self._plan, self._engine.announced
            )
        except BaseException:
            self.detach()
            raise
        return self

    def detach(self) -> None:
        """Stop pruning; the model is what it was. Trace and report stay readable."""
        self._family.top.__dict__.pop("generate", None)
        self._engine.detach()
        _active.discard(self._family.core)

    def __enter__(self) -> Run:
        return self.attach()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.detach()

    @property
    def methods(self) -> tuple[Method, ...]:
        """The methods, in the order given."""
        return self._plan.methods

    @property
    def prompts(self) -> int:
        """Prompts seen so far; trace and report speak of the last one."""
        return self._engine.prompts

    @property
    def trace(self) -> list[TraceEntry]:
        """What was kept of the last prompt: one entry per selection."""
        return [] if self._engine.prefill is None else make_trace(self._engine.prefill)

    def report(self) -> Report:
        """Tokens, FLOPs and KV bytes of the last prompt, nominal and true.

        Raises:
            RuntimeError: no prompt has run yet.
        """
        if self._engine.prefill is None:
            raise RuntimeError("nothing has run yet: call the model inside the `with` block first")
        record = make_record(self._engine.prefill, self._plan)
        return build_report(record, self._family, self._plan.name)


def prune(
    model: nn.Module,
    method: Method | str | Sequence[Method | str],
    *,
    positions: str = "original",
    **params: Any,
) -> Run:
    """Prune visual tokens of ``model``.

    Args:
        model: a supported transformers model, or a PEFT wrapper around one.
        method: a name (with ``params``), an instance, or a list of them, applied in the order in
            which data meets them.
        positions: "original" keeps the position ids of the full prompt, with gaps; "compact"
            closes the gaps and is only for tokens removed before the language model.

    Returns:
        A :class:`Run`, to be used as ``with prune(...) as run``.

    Raises:
        ValueError, TypeError: bad arguments; the model has not been touched.

    Inside, logits keep the full length of the prompt; rows at removed positions repeat those of the
    nearest survivor before them and mean nothing else.
    """
    several = isinstance(method, Sequence) and not isinstance(method, str)
    if several and params:
        raise TypeError(f"parameters {sorted(params)} beside a list: set them on the instances")
    chosen = list(method) if several else [method]  # type: ignore[arg-type]
    return Run(model, [make_method(one, params) for one in chosen], positions)  # type: ignore[arg-type]
