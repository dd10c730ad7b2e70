"""One model that many tabs ask: one question after the other, and none of them twice."""

from __future__ import annotations

import threading
import warnings
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any, Generic, TypeVar

from prunus.bench.quick import Quick, quick
from prunus.errors import PrunusError
from prunus.families import family_of
from prunus.families.proved import proved
from prunus.inference.answer import Answer, answer
from prunus.inference.prompts import token_of
from prunus.web.offer import offered
from prunus.web.setting import Setting, hint, takes_keep
from prunus.web.source import Kind, Prompt, Source, prepare

T = TypeVar("T")


class Recent(Generic[T]):
    """The last ``size`` values that were made, by key."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._known: OrderedDict[Hashable, T] = OrderedDict()

    def get(self, key: Hashable, make: Callable[[], T]) -> T:
        """The value of ``key``, made where it is not known; what ``make`` raises is not kept."""
        if key not in self._known:
            self._known[key] = make()
            while len(self._known) > self._size:
                self._known.popitem(last=False)
        self._known.move_to_end(key)
        return self._known[key]

    def peek(self, key: Hashable) -> T | None:
        """The value of ``key`` if it is known."""
        return self._known.get(key)


class Desk:
    """A model with its processor, and what it was asked lately.

    A model is pruned by one run at a time, and hooks of one tab must not meet the prompt of
    another: whatever touches the model holds the lock.

    Args:
        name: as it was loaded.
        options: of the command line that loads it so again (``--dtype float16``), if any.
        files: methods that are in files (``path/to/file.py:Class``) and may be asked for: whoever
            opens the page cannot have others run.
    """

    def __init__(
        self,
        name: str,
        model: Any,
        processor: Any,
        options: tuple[tuple[str, str], ...] = (),
        files: tuple[str, ...] = (),
    ) -> None:
        self.name, self.model, self.processor, self.options = name, model, processor, options
        self.files = files
        self._lock = threading.RLock()
        self._prompts: Recent[Prompt] = Recent(8)
        self._answers: Recent[Answer] = Recent(64)
        self._times: Recent[dict[str, Quick]] = Recent(64)
        self._offers: Recent[list[str]] = Recent(2)

    @property
    def takes_videos(self) -> bool:
        """Whether it can be asked about videos."""
        table = proved().get(family_of(self.model).name)
        known = token_of(self.processor, "video") is not None
        return known and (table is None or "video" in table)

    def offered(self, kind: Kind) -> list[str]:
        """See :func:`prunus.web.offer.offered`."""
        with self._lock:
            return [*self.files, *self._offers.get(kind, lambda: offered(self.model, kind))]

    def setting(self, method: str, percent: float, params: str, exact: bool) -> Setting:
        """See :meth:`Setting.of`.

        Raises:
            PrunusError: as there; a file of methods that was not named at the start.
        """
        self._check_files(method, params)
        return Setting.of(method, percent, params, exact)

    def about(self, method: str) -> tuple[bool, str]:
        """Whether ``method`` takes a share, and what can be typed as its parameters.

        Raises:
            PrunusError: there is no such method, or it is in a file that was not named.
        """
        self._check_files(method)
        return takes_keep(method), hint(method)

    def _check_files(self, method: str, params: str = "") -> None:
        """Raise PrunusError where a file would be run that was not named at the start: to find a
        method in it is to run it. Parameters may name methods, too."""
        if (".py" in method and method.strip() not in self.files) or ".py" in params:
            raise PrunusError(
                "the page runs no files: name the method of a file when you start it, as in prunus "
                "web --method my_file.py:MyMethod"
            )

    def prompt(self, source: Source, question: str) -> Prompt:
        """See :func:`prunus.web.source.prepare`."""
        with self._lock:
            return self._prompts.get(
                (source, question), lambda: prepare(self.model, self.processor, source, question)
            )

    def ask(self, prompt: Prompt, setting: Setting | None, tokens: int) -> Answer:
        """The answer of at most ``tokens`` tokens; ``setting`` None is the unmodified model.

        Raises:
            PrunusError: the setting is refused.
        """
        key = (prompt.source, prompt.question, setting, tokens)
        with self._lock:
            return self._answers.get(key, lambda: self._ask(prompt, setting, tokens))

    def _ask(self, prompt: Prompt, setting: Setting | None, tokens: int) -> Answer:
        methods = None if setting is None else setting.methods()
        budget = "nominal" if setting is None or methods is None else setting.budget
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "prunus: .* found nothing to do")  # the report says
            return answer(self.model, self.processor, prompt.inputs, methods, tokens, budget=budget)

    def times(self, prompt: Prompt, setting: Setting, tokens: int) -> tuple[Quick, Quick] | None:
        """What :meth:`measure` found of ``setting``, and of the unmodified model in turn with it;
        None where it was not asked to."""
        found = self._times.peek((prompt.source, prompt.question, setting, tokens))
        return None if found is None else (found["pruned"], found["dense"])

    def measure(
        self, prompt: Prompt, setting: Setting, tokens: int, step: Callable[[], None]
    ) -> None:
        """Time answers under ``setting`` in turn with those of the unmodified model, as ``prunus
        run --time`` does; ``step`` is called behind each.

        Raises:
            PrunusError: the setting is refused.
        """
        key = (prompt.source, prompt.question, setting, tokens)
        with self._lock:
            made = self.ask(prompt, setting, tokens)
            methods = setting.methods() or ()
            many = max(2, min(made.new_tokens, 16))
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # the answer said it all
                found = quick(
                    self.model,
                    prompt.inputs,
                    {"dense": (), "pruned": tuple(methods)},
                    many,
                    setting.budget if methods else "nominal",
                    step=step,
                )
            self._times.get(key, lambda: found)
