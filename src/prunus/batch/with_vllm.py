"""Rows through vLLM's engine: one engine on this machine, without Ray; batching is vLLM's own.

The engine is a process of its own. Rows that were with it when it ended are asked again one by one
by a new one, so that a row which ends it is found and left out.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from prunus.batch.answerer import Job, Outcome, opened, refused
from prunus.batch.rows import Asked, Reader, Ref
from prunus.builtin import BUILTIN
from prunus.errors import PrunusError, brief, one_line, shown
from prunus.inference.answer import decode
from prunus.inference.inputs import check_frames, metadata_of
from prunus.inference.processor import load_processor
from prunus.inference.prompts import build_prompt
from prunus.vllm.folder import config_of, depth_of, family_named, write_builtin
from prunus.vllm.setting import Setting
from prunus.vllm.versions import check_vllm

#: Engines that end without an answer in between.
_STARTS = 4
#: Features that the engine has already would come without what says their grid.
_OWN = {"mm_processor_cache_gb": 0}
_TAKEN = ("model", "tokenizer", "dtype", "hf_overrides", *_OWN)
_PROCESSING = (ValueError, TypeError, LookupError, ArithmeticError, RuntimeError, OSError)


@dataclass(frozen=True)
class Engine:
    """Rows that the engine has ``at`` a time, and further arguments of ``vllm.LLM``, each as
    ``NAME=VALUE``."""

    at: int = 64
    arguments: tuple[str, ...] = ()
    count: int = 1

    def options(self) -> dict[str, Any]:
        """The arguments by name, values as JSON has them.

        Raises:
            PrunusError: no name, or one that prunus gives.
        """
        found: dict[str, Any] = {}
        for one in self.arguments:
            name, equals, value = one.partition("=")
            name = name.strip().lstrip("-").replace("-", "_")
            if not equals or not name.isidentifier():
                raise PrunusError(
                    f"--vllm {shown(one)}: expected NAME=VALUE, an argument of vllm.LLM such as "
                    "max_model_len=4096"
                )
            if name in _TAKEN:
                raise PrunusError(f"--vllm {shown(one)}: prunus gives {name} by its own options")
            try:
                found[name] = json.loads(value)
            except ValueError:
                found[name] = value
        return found


def check(job: Job, engine: Engine) -> None:
    """Raise PrunusError where vLLM is not there, or cannot serve ``job``; loads nothing."""
    check_vllm()
    engine.options()
    with _place(job.model) as place:
        config = config_of(place)
        setting = _setting(job)
        setting.methods(depth_of(config))
        setting.overrides(family_named(job.model, config))


def outcomes(job: Job, data: Path, refs: Sequence[Ref], engine: Engine) -> Iterator[list[Outcome]]:
    """What becomes of each of the rows ``refs`` of the file ``data``, in any order.

    Raises:
        PrunusError: vLLM is not there, does not start, or ends again and again.
    """
    check(job, engine)
    _quiet()
    from vllm.v1.engine.exceptions import EngineDeadError

    todo, alone, ended = deque(refs), deque[Ref](), 0
    reader = Reader(data)
    with _place(job.model) as place:
        while todo or alone:
            asker = Asker(job, reader, place, engine)
            try:
                for queue, most in ((alone, 1), (todo, engine.at)):
                    for found in asker.answers(queue, most):
                        ended = 0
                        yield found
            except EngineDeadError as error:
                ended += 1
                lost = asker.waiting
                if ended > _STARTS:
                    raise PrunusError(
                        f"vLLM's engine ended {ended} times without an answer; row "
                        f"{lost[0].number if lost else '?'} was with it: what it said is above"
                    ) from error
                if asker.one_by_one and lost:
                    reason = f"row {lost[0].number}: vLLM's engine ended when it was asked alone"
                    yield [refused(lost[0], reason)]
                else:
                    alone.extend(lost)
            finally:
                asker.close()


class Asker:
    """One engine of vLLM with the model in the folder ``place``, pruned.

    Attributes:
        waiting: rows that are with the engine.
        one_by_one: whether it is asked so.

    Raises:
        PrunusError: it does not start.
    """

    def __init__(self, job: Job, reader: Reader, place: str, engine: Engine) -> None:
        from vllm import LLM, SamplingParams

        self._job, self._reader = job, reader
        self._by_name: dict[str, tuple[Ref, dict[str, Any]]] = {}
        self._asked = 0
        self.one_by_one = False
        config = config_of(place)
        self._processor = load_processor(place, config)
        overrides = _setting(job).overrides(family_named(job.model, config))
        try:
            self._llm: Any = LLM(
                place,
                dtype=_dtype(job.dtype, config),
                hf_overrides=overrides,
                **_OWN,
                **engine.options(),
            )
        except (*_PROCESSING, AssertionError) as error:
            raise PrunusError(
                f"vLLM does not start: {brief(error)} (--vllm NAME=VALUE gives it what it takes)"
            ) from error
        usual = self._llm.get_default_sampling_params()
        self._sampling = SamplingParams(
            temperature=0,
            repetition_penalty=usual.repetition_penalty,  # generate() has it, too
            max_tokens=job.max_new_tokens,
        )

    @property
    def waiting(self) -> list[Ref]:
        return [ref for ref, _ in self._by_name.values()]

    def close(self) -> None:
        """End the engine."""
        self._llm.llm_engine.engine_core.shutdown()

    def answers(self, queue: deque[Ref], most: int) -> Iterator[list[Outcome]]:
        """Ask the rows in ``queue``, which are taken out of it, with ``most`` at a time in the
        engine: what became of them, as they are done.

        Raises:
            EngineDeadError: by vLLM.
        """
        self.one_by_one = most == 1
        while queue or self._by_name:
            found: list[Outcome] = []
            while queue and len(self._by_name) < most and not found:
                found += self._ask(queue.popleft())
            if self._by_name and not found:
                found = [self._outcome(one) for one in self._llm.llm_engine.step() if one.finished]
            if found:
                yield found

    def _ask(self, ref: Ref) -> list[Outcome]:
        """Give a row to the engine; or why that cannot be."""
        name = str(self._asked)
        self._asked += 1
        try:
            prompt = self._prompt(self._reader.read(ref), ref)
            with _vllms():
                (ready,) = self._llm.renderer.render_cmpl([prompt])
            self._by_name[name] = ref, self._counts(ready)
            with _vllms():
                self._llm.llm_engine.add_request(name, ready, self._sampling)
        except PrunusError as error:
            self._by_name.pop(name, None)
            return [refused(ref, one_line(error))]
        return []

    def _prompt(self, row: Asked, ref: Ref) -> dict[str, Any]:
        """As vLLM takes it."""
        pictures, videos = opened(row, f"row {ref.number}", self._job.sampling)
        text = build_prompt(self._processor, row.prompt, len(pictures), len(videos))
        data: dict[str, Any] = {"image": pictures} if pictures else {}
        for video in videos:
            check_frames(self._processor, len(video.frames))
            told = {**metadata_of(video), "do_sample_frames": False, "video_backend": "opencv"}
            frames = np.stack([np.asarray(frame.convert("RGB")) for frame in video.frames])
            data.setdefault("video", []).append((frames, told))
        return {"prompt": text, "multi_modal_data": data}

    def _counts(self, ready: Any) -> dict[str, Any]:
        """Visual tokens of a prompt, and those that are in it."""
        processor = self._llm.renderer.get_mm_processor()
        total = left = 0
        ids = ready["prompt_token_ids"]
        for kind, spots in ready["mm_placeholders"].items():
            token = processor.token_of(kind)
            for spot, item in zip(spots, ready["mm_kwargs"][kind], strict=True):
                grid = processor.grid_of(kind, item)
                marks = len(processor.counts.family.cells(grid)) - grid.size
                own = ids[spot.offset : spot.offset + spot.length]
                total += grid.size
                left += sum(one == token for one in own) - marks
        return {"visual_tokens": total, "kept": left, "average": float(left)}

    def _outcome(self, done: Any) -> Outcome:
        ref, counts = self._by_name.pop(done.request_id)
        (said,) = done.outputs
        new = [*said.token_ids]
        if said.finish_reason not in ("stop", "length"):
            return refused(ref, f"row {ref.number}: vLLM ended it: {said.finish_reason}")
        if said.finish_reason == "length" and len(new) < self._job.max_new_tokens:
            return refused(ref, f"row {ref.number}: {self._too_long(done.prompt_token_ids)}")
        (text,) = decode(self._processor, torch.tensor([new], dtype=torch.long), 0)
        own = {"id": ref.id, "number": ref.number, "answer": text, "new_tokens": len(new)}
        return {**own, **counts}

    def _too_long(self, ids: Sequence[int]) -> str:
        most = self._llm.model_config.max_model_len
        return (
            f"the prompt, {len(ids)} tokens after pruning, and an answer of "
            f"{self._job.max_new_tokens} do not fit the {most} that vLLM was started for "
            "(--vllm max_model_len=...)"
        )


@contextmanager
def _vllms() -> Iterator[None]:
    """Turn what vLLM raises about one prompt into a PrunusError: inside the block nothing else
    runs."""
    from vllm.exceptions import VLLMClientError

    try:
        yield
    except PrunusError:
        raise
    except (*_PROCESSING, VLLMClientError) as error:
        raise PrunusError(f"vLLM cannot take this question and image: {brief(error)}") from error


def _setting(job: Job) -> Setting:
    return Setting(job.method, job.keep, job.params, job.budget)


@contextmanager
def _place(model: str) -> Iterator[str]:
    """The ``model`` as vLLM reads it: built-in ones are written into a folder."""
    if model not in BUILTIN:
        yield model
        return
    with tempfile.TemporaryDirectory(prefix="prunus-") as folder:
        yield str(write_builtin(model, Path(folder) / model))


def _dtype(asked: str, config: Any) -> str:
    """What transformers makes of "auto", that of the weights: vLLM's own halves float32."""
    stored = config.dtype if asked == "auto" else None
    return asked if stored is None else str(stored).removeprefix("torch.")


def _quiet() -> None:
    """vLLM says what goes wrong, on standard error, and tells nobody that it is used; its engine is
    a process of its own."""
    os.environ["VLLM_NO_USAGE_STATS"] = "1"
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "1"
    os.environ["VLLM_LOGGING_STREAM"] = "ext://sys.stderr"
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
