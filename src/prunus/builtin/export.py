"""Turns a training checkpoint into the folder that :func:`prunus.builtin.load_builtin` reads."""

from __future__ import annotations

import argparse
import copy
import tempfile
from pathlib import Path

import torch
from transformers import LlavaForConditionalGeneration

from prunus.builtin import checkpoint
from prunus.builtin.model import Shape, build_model, build_processor

WEIGHTS = Path(__file__).parent / "weights"


def export(model: LlavaForConditionalGeneration, folder: Path, shape: Shape | None = None) -> None:
    """Write model (bfloat16) and processor files; ``folder`` is replaced in one step."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".export-") as scratch:
        fresh = Path(scratch) / "new"
        copy.deepcopy(model).to(torch.bfloat16).save_pretrained(fresh)
        build_processor(shape).save_pretrained(fresh)
        for path in fresh.iterdir():  # safetensors files are born readable by their owner only
            path.chmod(0o644)
        if folder.exists():
            folder.rename(Path(scratch) / "old")
        fresh.rename(folder)


def export_checkpoint(path: Path, folder: Path) -> None:
    """Export the model of a training checkpoint."""
    state = checkpoint.load(path)
    shape = Shape(**state["shape"])
    model = build_model(shape)
    model.load_state_dict(state["model"])
    export(model, folder, shape)


def main() -> None:
    """Command line: ``python -m prunus.builtin.export CHECKPOINT``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--folder", type=Path, default=WEIGHTS / "tiny-llava")
    args = parser.parse_args()
    export_checkpoint(args.checkpoint, args.folder)


if __name__ == "__main__":
    main()
