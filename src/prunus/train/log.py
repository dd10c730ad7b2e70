"""The run's diary: one JSON object per line, and TensorBoard's files where they are wanted."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prunus.errors import PrunusError
from prunus.io.files import append_line, make_folder, write_bytes

NAME = "log.jsonl"


class Log:
    """Appends to ``log.jsonl`` in a folder.

    Args:
        folder: where; made if need be.
        step: where the run goes on: what an earlier attempt wrote of later steps is taken out.
        tensorboard: write TensorBoard's event files beside it, too.

    Raises:
        PrunusError: TensorBoard is wanted and not installed.
    """

    def __init__(self, folder: Path, step: int = 0, tensorboard: bool = False) -> None:
        make_folder(folder)
        self._path = folder / NAME
        lines = self._path.read_bytes().splitlines() if self._path.exists() else []
        kept = [line for line in lines if _step_of(line) <= step]
        write_bytes(self._path, b"".join(line + b"\n" for line in kept))
        self._board: Any = _board(folder, step) if tensorboard else None

    def write(self, step: int, figures: Mapping[str, float | None], group: str = "") -> None:
        """Append ``figures`` (six significant digits) after ``step`` steps; those of a ``group`` in
        an object of their own. What is no number becomes null."""
        short = {
            name: None if value is None or not math.isfinite(value) else float(f"{value:.6g}")
            for name, value in figures.items()
        }
        append_line(self._path, json.dumps({"step": step, **({group: short} if group else short)}))
        if self._board is not None:
            for name, value in short.items():
                if value is not None:
                    self._board.add_scalar(f"{group or 'training'}/{name}", value, step)
            self._board.flush()

    def close(self) -> None:
        """Close TensorBoard's files."""
        if self._board is not None:
            self._board.close()


def _step_of(line: bytes) -> float:
    """The step of a line; endless for one that a crash has cut off or that is none of ours."""
    try:
        step = json.loads(line)["step"]
    except (ValueError, TypeError, KeyError, RecursionError):
        return math.inf
    return step if type(step) is int else math.inf


def check_tensorboard() -> None:
    """Raise PrunusError if TensorBoard's files cannot be written."""
    try:
        import torch.utils.tensorboard  # noqa: F401
    except ImportError as error:
        raise PrunusError(
            "TensorBoard is not installed: pip install 'prunus[tensorboard]', or leave it out "
            f"({NAME} holds the same numbers)"
        ) from error


def _board(folder: Path, step: int) -> Any:
    check_tensorboard()
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1)
