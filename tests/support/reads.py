"""Where code reads values from the device: on a GPU, the CPU waits there until all is computed that
was asked for before. Counted without a GPU, from the operations that cannot do without it."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

import prunus

ROOT = str(Path(prunus.__file__).parent)
_TORCH = str(Path(torch.__file__).parent)
_HERE = __file__

#: Their results have sizes that values decide, or are values themselves.
_ALWAYS = (
    "_local_scalar_dense",
    "nonzero",
    "equal",
    "masked_select",
    "_unique2",
    "unique_dim",
    "unique_consecutive",
    "bincount",
)
#: These go around the dispatcher where values are on the CPU.
_METHODS = (Tensor.tolist, Tensor.numpy, Tensor.cpu)
#: What stands in Python goes to the device: the CPU waits for that as well.
_UPLOADS = (torch.tensor, torch.as_tensor)


#: Tables of a family, which are on the CPU wherever the model is.
_TABLES = {("families/base.py", "places"), ("engine/tower/tap.py", "_cells")}


def _place() -> str:
    """The line of prunus that asked, as ``engine/prompt.py:66``; empty if others did, or values
    are on the CPU anyway."""
    frame = sys._getframe(2)
    while frame is not None:
        name = frame.f_code.co_filename
        if name.startswith(ROOT):
            name = name[len(ROOT) + 1 :]
            host = (name, frame.f_code.co_name) in _TABLES
            return "" if host else f"{name}:{frame.f_lineno}"
        if not name.startswith(_TORCH) and name != _HERE:
            return ""
        frame = frame.f_back  # type: ignore[assignment]
    return ""


class _Dispatched(TorchDispatchMode):
    def __init__(self, reads: Reads) -> None:
        super().__init__()
        self._reads = reads

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self._reads.calls += 1
        if _reads(func, args, kwargs or {}):
            self._reads.note(_place())
        return func(*args, **(kwargs or {}))


def _reads(func: Any, args: Any, kwargs: dict[str, Any]) -> bool:
    name = func.overloadpacket.__name__
    if name in ("index", "index_put", "index_put_"):
        masks = [one for one in args[1] if isinstance(one, Tensor) and one.dtype == torch.bool]
        filled = name != "index" and len(args[1]) == 1 and args[2].numel() == 1
        return bool(masks) and not filled
    if name == "repeat_interleave":
        return func._overloadname == "Tensor" and kwargs.get("output_size") is None
    return name in _ALWAYS


class Reads(TorchFunctionMode):
    """Counts within a ``with`` block: reads by ``lines`` of prunus, ``uploads`` likewise, and all
    ``calls`` of operations, the model's included."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: Counter[str] = Counter()
        self.uploads: Counter[str] = Counter()
        self.calls = 0
        self._dispatched = _Dispatched(self)

    def note(self, place: str) -> None:
        """A read that ``place`` asked for."""
        if place:
            self.lines[place] += 1

    @property
    def total(self) -> int:
        """All reads of prunus."""
        return self.lines.total()

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        if func in _METHODS:
            self.note(_place())
        elif func in _UPLOADS and not isinstance(args[0], Tensor) and (place := _place()):
            self.uploads[place] += 1
        return func(*args, **(kwargs or {}))

    def __enter__(self) -> Reads:
        super().__enter__()
        self._dispatched.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._dispatched.__exit__(*error)
        super().__exit__(*error)
