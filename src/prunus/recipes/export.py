"""Turns a training checkpoint into the folder that :func:`prunus.builtin.load_builtin` reads."""

from __future__ import annotations

import argparse
import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor
from transformers import PreTrainedModel, ProcessorMixin

from prunus.errors import PrunusError, PrunusFileError, brief
from prunus.io import checkpoint
from prunus.io.claim import BRIEFLY, claim
from prunus.io.files import replace_folder
from prunus.recipes.model import Shape, build_model, build_processor

WEIGHTS = Path(__file__).parent / "weights"


def export(model: PreTrainedModel, processor: ProcessorMixin, folder: Path) -> None:
    """Write model (weights in bfloat16) and processor files; ``folder`` is replaced as a whole.

    Raises:
        PrunusFileError: it cannot be written; what was there before is unchanged.
        PrunusStateError: another run writes beside it.
    """

    def write(fresh: Path) -> None:
        small = copy.deepcopy(model)
        for weight in small.parameters():  # not its buffers: rotary frequencies need float32
            weight.data = weight.data.to(torch.bfloat16)
        small.config.dtype = torch.bfloat16
        try:
            small.save_pretrained(fresh)
        except SafetensorError as error:
            raise PrunusFileError(f"cannot write {str(folder)!r}: {brief(error)}") from error
        processor.save_pretrained(fresh)
        for path in fresh.iterdir():  # safetensors files are born readable by their owner only
            path.chmod(0o644)

    with claim(folder.parent, BRIEFLY):
        replace_folder(folder, write)


def export_checkpoint(path: Path, folder: Path, *others: Path) -> None:
    """Export the model of a training checkpoint, or the mean of several of one run.

    Raises:
        PrunusError: the checkpoints hold models of different shapes.
    """
    states = [checkpoint.load(one) for one in (path, *others)]
    if any(state["shape"] != states[0]["shape"] for state in states):
        raise PrunusError("only checkpoints of one run can be averaged: their shapes differ")
    model, processor = _build(states[0]["shape"])
    model.load_state_dict(mean_weights([state["model"] for state in states]))
    export(model, processor, folder)


def _build(sizes: Mapping[str, Any]) -> tuple[PreTrainedModel, ProcessorMixin]:
    """The untrained model that a checkpoint's ``shape`` describes, and its processor."""
    if "depth" in sizes:
        from prunus.recipes import qwen

        own = qwen.QwenShape(**sizes)
        return qwen.build_model(own), qwen.build_processor(own)
    shape = Shape(**sizes)
    return build_model(shape), build_processor(shape)


def mean_weights(parts: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Mean of state dictionaries with the same keys; what is not floating point is taken from the
    first."""
    return {
        name: torch.stack([part[name] for part in parts]).mean(0)
        if first.is_floating_point()
        else first
        for name, first in parts[0].items()
    }


def main() -> None:
    """Command line: ``python -m prunus.recipes.export CHECKPOINT...``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint", type=Path, nargs="+", help="several are averaged")
    parser.add_argument("--name", default="tiny-llava", help="of the model, decides the folder")
    parser.add_argument("--folder", type=Path, help="default: the weights in the package")
    args = parser.parse_args()
    first, *others = args.checkpoint
    export_checkpoint(first, args.folder or WEIGHTS / args.name, *others)


if __name__ == "__main__":
    main()
