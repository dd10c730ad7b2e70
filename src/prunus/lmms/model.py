"""The model that lmms-eval runs: any model that prunus loads, under any method.

A refusal ends the run (:mod:`prunus.lmms.ended`); with ``on_error=record`` it is recorded as the
answer of that question. No answer is ever empty because something went wrong.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from lmms_eval.api.instance import GenerationResult, Instance
from lmms_eval.api.model import lmms
from tqdm import tqdm  # type: ignore[import-untyped]

from prunus.errors import PrunusError
from prunus.inference.turns import Turn
from prunus.lmms.asking import Prompt, Reply, Respondent, refused
from prunus.lmms.counts import Spent, results_of
from prunus.lmms.ended import ending
from prunus.lmms.generation import Generation
from prunus.lmms.likelihood import Scored, score
from prunus.lmms.media import question_of, turn_of
from prunus.lmms.settings import Settings
from prunus.loading import load


class _Prunus(lmms):  # type: ignore[misc]
    """What both kinds of tasks share.

    Args:
        respondent: a model that is loaded already, with the ``settings`` that it was loaded by.
        arguments: ``--model_args``, see :class:`~prunus.lmms.settings.Settings`.
    """

    def __init__(
        self,
        *,
        respondent: Respondent | None = None,
        settings: Settings | None = None,
        **arguments: Any,
    ) -> None:
        super().__init__()
        with ending():
            self.settings = settings or Settings.of(arguments)
            self._respondent = respondent or loaded(self.settings)

    @property
    def batch_size(self) -> int:
        """Questions at a time."""
        return self.settings.batch_size

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        found: torch.device = self._respondent.model.device
        return found

    def clean(self) -> None:
        """lmms-eval asks for memory behind the last question; the model goes with this object."""

    def generate_until(self, requests: Sequence[Instance]) -> list[GenerationResult]:
        """Answer all requests, in their order."""
        with ending():
            return results_of(self._replies(requests))

    def _replies(self, requests: Sequence[Instance]) -> list[Reply]:
        record, most = self.settings.on_error == "record", self.settings.max_new_tokens
        found: dict[int, Reply] = {}
        bar = tqdm(total=len(requests), disable=self.rank != 0, desc="prunus")
        for numbers in self._batches(requests):
            prompts: dict[int, Prompt] = {}
            for number in numbers:
                turns, options = self._asked(requests[number])
                generation = Generation.of(options, most)
                try:
                    prompts[number] = self._respondent.encode(turns())
                except PrunusError as error:
                    if not record:
                        raise
                    found[number] = refused(error)
            if prompts:
                ask = self._respondent.refusals if record else self._respondent.answer
                found |= zip(prompts, ask(list(prompts.values()), generation), strict=True)
            bar.update(len(numbers))
        bar.close()
        return [found[number] for number in range(len(requests))]

    def _batches(self, requests: Sequence[Instance]) -> Iterator[list[int]]:
        """Numbers of requests that are generated alike, at most as many as a batch takes."""
        kinds: dict[str, list[int]] = {}
        for number, request in enumerate(requests):
            _, options = self._asked(request)
            key = Generation.of(options, self.settings.max_new_tokens).key
            kinds.setdefault(key, []).append(number)
        size = self.settings.batch_size
        for numbers in kinds.values():
            yield from (numbers[at : at + size] for at in range(0, len(numbers), size))

    def _asked(self, request: Instance) -> tuple[Any, dict[str, Any]]:
        """A function that opens what is asked, and the task's words about generation."""
        raise NotImplementedError

    def _doc(self, task: str, split: str, number: int) -> Any:
        return self.task_dict[task][split][number]

    def _led(self, turns: list[Turn]) -> list[Turn]:
        """``turns`` behind the system prompt, unless they have one."""
        prompt = self.settings.system_prompt
        if not prompt or any(turn.role == "system" for turn in turns):
            return turns
        return [Turn("system", [prompt]), *turns]

    def loglikelihood(self, requests: Sequence[Instance]) -> list[GenerationResult]:
        """The loss of each answer, and whether it is what greedy decoding says: see
        :class:`~prunus.lmms.likelihood.Scored`. A refusal always ends the run: a choice between
        answers has no value for it.

        They come as a ``GenerationResult``: of plain pairs lmms-eval 0.7.3 makes texts.
        """
        with ending():
            found = [self._score(one) for one in tqdm(requests, disable=self.rank != 0)]
        return [GenerationResult((one.loss, one.greedy), Spent.of(one.reply)) for one in found]

    def _score(self, request: Instance) -> Scored:
        if len(request.args) != 6:
            raise PrunusError(
                "this task wants the likelihood of answers without their question "
                "(acc_mutual_info), which lmms-eval does not tell from their loss: choose another "
                "metric"
            )
        text, answer, doc_to_visual, number, task, split = request.args
        doc = self._doc(task, split, number)
        if callable(answer):
            answer = answer(doc)
        turn = question_of(text, doc_to_visual(doc), self.settings.sampling)
        prompt = self._respondent.encode(self._led([turn]))
        return score(self._respondent, prompt, str(answer))

    def generate_until_multi_round(self, requests: Sequence[Instance]) -> list[str]:
        """Not done: says so."""
        with ending():
            raise PrunusError(
                "tasks of several rounds (generate_until_multi_round) cannot be asked: choose "
                "tasks of one question"
            )


class PrunusChat(_Prunus):
    """For tasks as messages: texts, images and videos in the order in which the task has them."""

    is_simple = False

    def _asked(self, request: Instance) -> tuple[Any, dict[str, Any]]:
        _, doc_to_messages, options, number, task, split = request.args

        def turns() -> list[Turn]:
            sampling = self.settings.sampling
            messages = doc_to_messages(self._doc(task, split, number))
            return self._led([turn_of(one["role"], one["content"], sampling) for one in messages])

        return turns, options or {}


class PrunusSimple(_Prunus):
    """For tasks as a text with what it is about: that stands in front, or where the text says."""

    is_simple = True

    def _asked(self, request: Instance) -> tuple[Any, dict[str, Any]]:
        text, options, doc_to_visual, number, task, split = request.args

        def turns() -> list[Turn]:
            visuals = doc_to_visual(self._doc(task, split, number))
            return self._led([question_of(text, visuals, self.settings.sampling)])

        return turns, options or {}


def loaded(settings: Settings) -> Respondent:
    """The model of ``settings`` under their method; in one of several processes on its own GPU.

    Raises:
        PrunusError: it cannot be loaded, or the method does not fit it.
    """
    methods = settings.methods()
    more = {"attn_implementation": settings.attn_implementation, "revision": settings.revision}
    given = {name: value for name, value in more.items() if value is not None}
    device = None if settings.device_map else _device(settings.device)
    model, processor = load(
        settings.pretrained,
        dtype=settings.dtype,
        device=device,
        device_map=settings.device_map,
        **given,
    )
    if methods is None and settings.budget == "true":
        warnings.warn("prunus: budget=true without a method: nothing is pruned", stacklevel=2)
    return Respondent(model, processor, methods, settings.meaning)


def _device(name: str) -> str:
    if name in ("auto", "cuda") and torch.cuda.is_available():
        return f"cuda:{os.environ.get('LOCAL_RANK', 0)}"
    return "cpu" if name == "auto" else name
