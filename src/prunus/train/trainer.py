"""Training of a selector: one run, from an empty or a begun folder."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any

from prunus.errors import PrunusError
from prunus.inference.prompts import check_text
from prunus.io.claim import claim
from prunus.selector.config import TrainSettings
from prunus.tasks.faults import at
from prunus.train.log import check_tensorboard
from prunus.train.options import Options, Result
from prunus.train.sources import Questions, Split
from prunus.train.state import check_folder
from prunus.train.watch import Watch


def train(
    model: Any,
    processor: Any,
    name: str,
    split: Split,
    settings: TrainSettings,
    output: Path,
    options: Options | None = None,
    resume: bool = False,
    watch: Watch | None = None,
) -> Result:
    """Train a selector for ``model`` (arXiv 2606.16067) into the folder ``output``.

    ``output`` becomes the selector's folder, with ``checkpoint.pt`` and ``log.jsonl`` beside it.
    The first SIGINT or SIGTERM, or the end of ``options.minutes``, stops after the current step,
    with everything written; with ``resume`` the run then goes on bit by bit as if it had never
    stopped (with as many processes and pieces as before). Under ``accelerate launch`` all
    processes share the work.

    Args:
        model: it is frozen, put where accelerate wants it, and otherwise left as it is.
        processor: its processor.
        name: what the selector's folder is to call it.
        split: examples and held-out questions, from :func:`.sources.open_source`.
        settings: what is learned; options: how the run goes.
        watch: is told of progress, in the main process.

    Raises:
        PrunusError: accelerate (or TensorBoard) is missing, ``output`` holds a run (or, to resume,
            none or another one), a batch that cannot be split, an unsupported kind of parallel
            training, a loss that is no number.
        PrunusStateError: another run trains into ``output``.
    """
    options = options or Options()
    check_accelerate()
    if options.tensorboard:
        check_tensorboard()
    from accelerate import PartialState

    if isinstance(split.train, Questions) and options.on_error == "stop":
        _check_texts(processor, split.train)  # now, not after hours

    # One process speaks for all that share the work.
    with claim(output) if PartialState().is_main_process else nullcontext():
        check_folder(output, resume)
        from prunus.train.run import Training

        training = Training(model, processor, name, split, settings, output, options, watch)
        return training.run(resume)


def _check_texts(processor: Any, questions: Questions) -> None:
    for query in questions.data.queries:
        with at(query.place):
            check_text(processor, query.text)
            check_text(processor, query.answer)


def check_accelerate() -> None:
    """Raise PrunusError if accelerate, which is an extra, is not installed."""
    try:
        import accelerate  # noqa: F401
    except ImportError as error:
        raise PrunusError("training needs accelerate: pip install 'prunus[train]'") from error
