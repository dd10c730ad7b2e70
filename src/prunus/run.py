"""The entry point: prune a model for the time of a ``with`` block."""

from __future__ import annotations

import dataclasses
import warnings
import weakref
from collections.abc import Sequence
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn

from prunus.cost.report import build_report
from prunus.engine.calls import Ends
from prunus.engine.engine import Engine
from prunus.engine.generate import guard, unguard
from prunus.engine.history import History, OnReport
from prunus.engine.hooks import changing, hooked
from prunus.engine.masks import check_backend
from prunus.engine.plan import make_plan
from prunus.engine.record import make_record, make_trace
from prunus.errors import PrunusError, PrunusStateError, PrunusTypeError, shown
from prunus.families import family_of
from prunus.method import Method, make_method
from prunus.method.budget import Meaning
from prunus.method.question import QuestionMarks, marks_known, processor_of
from prunus.results.record import Record
from prunus.results.report import Report
from prunus.results.trace import TraceEntry
from prunus.versions import check_transformers


class Run:
    """Pruning of one model: a context manager, with :meth:`attach` and :meth:`detach` for programs
    that keep a model pruned. Several threads may use the model; trace and report speak of the
    caller's own last prompt, :attr:`history` of all. A run that nobody holds any more lets go of
    its model."""

    def __init__(
        self,
        model: nn.Module,
        methods: Sequence[Method],
        positions: str = "original",
        untested: bool = False,
        budget: Meaning = "nominal",
        processor: Any = None,
        history: int = 0,
        on_report: OnReport | None = None,
    ) -> None:
        self._model = model
        self._family = family_of(model)
        self._family.check_decoder(untested)
        self._plan = make_plan(methods, self._family, positions, budget)
        marks, tokenizer = self._marks(processor), self._tokenizer(processor)
        self._history = History(self._family, self._plan, history, on_report)
        take = self._history.take
        self._engine = Engine(self._family, self._plan, positions, marks, tokenizer, take)
        self._finalizer: weakref.finalize[..., Run] | None = None
        check_backend(self._family.text_config._attn_implementation)

    def attach(self) -> Run:
        """Start pruning: from now on every prompt with an image is pruned.

        Raises:
            PrunusStateError: the model is being pruned already (nesting, or another thread).
        """
        with changing:
            if hooked(self._family.core) is not None:
                raise PrunusStateError(
                    "this model is being pruned already: leave that `with` block or detach() "
                    "first; give several methods as one list"
                )
            try:
                self._finalizer = weakref.finalize(
                    self, _let_go, self._engine, self._family.top, self._model
                )
                self._finalizer.atexit = False
                self._engine.attach(self._model)
                guard(self._family.top, self._engine)
            except BaseException:
                self.detach()
                raise
        return self

    def detach(self) -> None:
        """Stop pruning; the model is what it was. Trace and report stay readable. Calls of the
        model that run in other threads come to their end first."""
        if self._finalizer is not None:
            self._finalizer.detach()
            self._finalizer = None
        with changing:
            if _attached.get(id(self._family.core)) is self:
                del _attached[id(self._family.core)]
        _let_go(self._engine, self._family.top, self._model)

    def __enter__(self) -> Run:
        return self.attach()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.detach()
        engine = self._engine
        if kind is None and engine.calls and not engine.prompts:
            warnings.warn(
                "prunus: the model ran inside the block, but no prompt was seen, and nothing was "
                "pruned: was it compiled before, or called on a cache alone?",
                stacklevel=2,
            )

    def prompt_ends(
        self, last: Tensor | Sequence[int] | int | None = None, *, labels: Tensor | None = None
    ) -> None:
        """Say where the prompts of the next call of the model (in this thread) end, where the call
        itself does not: what stands behind is an answer, which no choice may look at.

        Args:
            last: index of each row's last prompt token, padding included; int64 ``[B]``, or one
                number for all rows; negative counts from the end.
            labels: as for training, ``[B, L]``: -100 everywhere but in the answer. For losses
                that take the labels away from the model (label smoothing, preferences). Without
                either, each row's last token is its prompt's: no answer stands there.

        Raises:
            PrunusError, PrunusTypeError: both, or something else.
        """
        if last is not None and labels is not None:
            raise PrunusError("give either last or labels, not both")
        if labels is not None and (not isinstance(labels, Tensor) or labels.ndim != 2):
            raise PrunusTypeError("labels must be a tensor [batch, length], as for training")
        if last is None:
            self._engine.told(Ends(labels))
            return
        try:
            told = torch.as_tensor(last)
        except (TypeError, ValueError, RuntimeError) as error:
            raise PrunusTypeError(f"last={last!r}: give one index, or one for each row") from error
        if told.ndim > 1 or told.is_floating_point() or told.dtype == torch.bool:
            raise PrunusTypeError(f"last={last!r}: give one index, or one for each row")
        self._engine.told(Ends(last=told))

    def _marks(self, processor: Any) -> QuestionMarks | None:
        """The chat template, where a method asks for the question and the processor is known."""
        if processor is False or not self._plan.words:
            return None
        if processor is not None:
            return marks_known(processor)
        known = processor_of(self._family.top)
        try:
            return None if known is None else marks_known(known)
        except PrunusError as error:
            warnings.warn(
                f"prunus: {error}. All text behind the last image is taken for the question",
                stacklevel=4,
            )
            return None

    def _tokenizer(self, processor: Any) -> Any:
        """The model's, where a method asks for the question and it is known."""
        known = processor or processor_of(self._family.top)
        return getattr(known, "tokenizer", known) if self._plan.words else None

    def asked(self, tokens: int) -> float | None:
        """Visual tokens that are to be left of an image that has so many: nominal; None where the
        method finds its own count."""
        return self._plan.budget.asked(self._plan.budget.last, 1, tokens)

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
        """What was kept of the last prompt: one entry per selection; of one that raised, those that
        were made."""
        latest = self._engine.latest()
        return [] if latest is None else make_trace(latest)

    def report(self) -> Report:
        """Tokens, FLOPs and KV bytes of the last prompt, nominal and true.

        Raises:
            PrunusStateError: no prompt has run yet, or the last one did not come to its end.
        """
        return build_report(self._record(), self._family, self._plan.title)

    def reports(self) -> list[Report]:
        """:meth:`report` of each sample of the last prompt, as if it had been alone (of what
        choosing cost, an equal share).

        Raises:
            PrunusStateError: as of :meth:`report`.
        """
        record = self._record()
        return [
            build_report(record.of(sample), self._family, self._plan.title)
            for sample in range(record.samples)
        ]

    @property
    def history(self) -> tuple[Report, ...]:
        """Reports of the last prompts with an image, in any thread, the oldest first; as many as
        ``prune(..., history=N)`` was told to keep.

        Raises:
            PrunusStateError: it was told to keep none.
        """
        if not self._history.size:
            raise PrunusStateError(
                "no history is kept: say of how many prompts, as in prunus.prune(model, method, "
                "history=100), or give a function as on_report"
            )
        return self._history.reports

    def __repr__(self) -> str:
        """The methods, on what, and whether the model is being pruned: one line."""
        names = " + ".join(map(_short, self.methods))
        what = "pruning" if self._finalizer is not None else "not pruning"
        seen = f"{self.prompts} prompt{'s' * (self.prompts != 1)}"
        return f"<prunus.Run of {names} on {type(self._model).__name__}, {what}, {seen}>"

    def __str__(self) -> str:
        """What it is, and below it the report of the last prompt."""
        latest = self._engine.latest()
        if latest is None or not latest.finished:
            return repr(self)
        return f"{self!r}\n{self.report()}"

    def _record(self) -> Record:
        """The numbers of the last prompt."""
        latest = self._engine.latest()
        if latest is None:
            raise PrunusStateError(
                "nothing has run yet: call the model inside the `with` block first"
            )
        if not latest.finished:
            raise PrunusStateError(
                "the last prompt did not come to its end (an exception, or Ctrl-C), so there is "
                "nothing to report: run one"
            )
        return make_record(latest, self._plan)


def _short(method: Method) -> str:
    """The method with what is not at its default: ``clse(keep=64)``."""
    given = [
        f"{one.name}={shown(value)}"
        for one in dataclasses.fields(method)  # type: ignore[arg-type]
        if one.init and (value := getattr(method, one.name)) != one.default
    ]
    return f"{method.name}({', '.join(given)})"


#: Runs that :func:`attach` keeps, by the id of what they prune.
_attached: dict[int, Run] = {}


def attach(model: nn.Module, method: Method | str | Sequence[Method | str], **options: Any) -> Run:
    """Prune ``model`` from now on, until :func:`detach`: for programs that keep a model pruned. The
    run need not be held; as long as it prunes, it holds the model.

    Args:
        model, method, options: as of :func:`prune`.

    Returns:
        The :class:`Run`, for its trace and reports.

    Raises:
        PrunusError, PrunusTypeError: as of :func:`prune`.
        PrunusStateError: the model is being pruned already.
    """
    run = prune(model, method, **options).attach()
    with changing:
        _attached[id(run._family.core)] = run
    return run


def detach(model: nn.Module) -> None:
    """End what :func:`attach` began: the model is what it was. Nothing happens to a model that is
    not pruned.

    Raises:
        PrunusStateError: it is being pruned by a ``with`` block, or by a run that was attached by
            itself, and these have to end it.
    """
    core = family_of(model).core
    with changing:
        run = _attached.get(id(core))
    if run is not None:
        run.detach()
    elif hooked(core) is not None:
        raise PrunusStateError(
            "this model is pruned by a `with` block, or by run.attach(): leave the block, or call "
            "run.detach()"
        )


def _let_go(engine: Engine, top: nn.Module, model: nn.Module) -> None:
    """Take everything of ``engine`` out of the model: once more from the start if that was
    interrupted (Ctrl-C)."""
    try:
        unguard(top, engine)
        engine.detach(model)
    except BaseException:
        unguard(top, engine)
        engine.detach(model)
        raise


def prune(
    model: nn.Module,
    method: Method | str | Sequence[Method | str],
    *,
    positions: str = "original",
    untested: bool = False,
    budget: Meaning = "nominal",
    processor: Any = None,
    history: int = 0,
    on_report: OnReport | None = None,
    **params: Any,
) -> Run:
    """Prune visual tokens of ``model``.

    Args:
        model: a supported transformers model, or a PEFT wrapper around one.
        method: a name (with ``params``), a preset ``name@preset``, ``path/to/file.py:Class``, an
            instance, or a list of these, applied in the order in which data meets them.
        positions: "original" keeps the position ids of the full prompt, with gaps; "compact"
            closes the gaps and is only for tokens removed before the language model.
        budget: what ``keep`` means. "nominal": the published schedule of the method, and its rule
            between the published points. "true": its stages are scaled until the average of visual
            tokens over all decoder layers is what was asked for, within half a token.
        processor: of the model, by whose chat template methods find the question (what
            :func:`prunus.load` gave is known). Without one, or with False, all text behind the
            last image is the question.
        history: keep the reports of the last so many prompts (:attr:`Run.history`); making one
            waits for the device.
        on_report: called with the :class:`Report` of each prompt with an image, when the model is
            done with it; what it raises comes out of the model's call.
        untested: take a language model, too, that pruning was never tried on (:func:`prunus.check`
            tells whether it is right there).

    Returns:
        A :class:`Run`, to be used as ``with prune(...) as run``.

    Raises:
        PrunusError, PrunusTypeError: bad arguments; the model has not been touched.

    Inside, logits keep the full length of the prompt; rows at removed positions repeat those of the
    nearest survivor before them and mean nothing else.
    """
    check_transformers()
    several = isinstance(method, Sequence) and not isinstance(method, str)
    if several and params:
        raise PrunusTypeError(
            f"parameters {sorted(params)} beside a list: set them on the instances"
        )
    chosen = list(method) if several else [method]  # type: ignore[arg-type]
    methods = [make_method(one, params) for one in chosen]  # type: ignore[arg-type]
    return Run(model, methods, positions, untested, budget, processor, history, on_report)
