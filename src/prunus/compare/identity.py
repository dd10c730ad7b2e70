"""What an answer depends on, as plain values and digests: answers of equal ones may be shared."""

from __future__ import annotations

import dataclasses
import hashlib
import inspect
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from prunus.errors import PrunusError, shown
from prunus.evaluate.cells import Cell
from prunus.evaluate.output import versions
from prunus.method import Method
from prunus.method.budget import Meaning
from prunus.tasks.sets import Clip, EvalSet

#: What differs from place to place and changes no answer.
_NAMES_OF_PLACES = ("_name_or_path", "name_or_path", "transformers_version", "_commit_hash")


def digest(value: Any) -> str:
    """SHA-256 of a plain JSON value, whatever the order of its keys."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def plain(value: Any) -> Any:
    """``value`` as JSON: parameters as they are, and what is long (weights, arrays, the content of
    files) as its digest.

    Raises:
        PrunusError: something of which nobody can say whether two are alike.
    """
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else repr(value)
    if isinstance(value, Method):
        found = {"method": value.name, "code": _code(type(value)), "is": _fields(value)}
        parts = [plain(part) for part in value.parts() if part is not value]  # of a composition
        return {**found, "parts": parts} if parts else found
    if isinstance(value, (Tensor, np.ndarray)):
        return _array(value)
    if isinstance(value, nn.Module):
        return {"module": type(value).__qualname__, "weights": _weights(value)}
    if isinstance(value, Path):
        return {"file": _content(value)}
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        return {type(value).__qualname__: plain(value._asdict())}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {type(value).__qualname__: _fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(one) for key, one in value.items()}
    if isinstance(value, (Sequence, set, frozenset)) and not isinstance(value, bytes):
        inner = [plain(one) for one in value]
        return sorted(inner, key=digest) if isinstance(value, (set, frozenset)) else inner
    raise PrunusError(
        f"a parameter {shown(value)} of a method is no plain value, so nobody can say whether "
        "stored answers are still its own: use numbers, texts, lists, files or tensors"
    )


def _fields(value: Any) -> dict[str, Any]:
    return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}


def _code(cls: type[Method]) -> str:
    """Digest of the files that ``cls`` and the methods that it builds on are written in."""
    files = [
        inspect.getsourcefile(one)
        for one in cls.__mro__
        if issubclass(one, Method) and one is not Method
    ]
    return digest([_content(Path(file)) for file in files if file is not None])


def _content(path: Path) -> str:
    """Digest of a file, or of all files in a folder."""
    if path.is_dir():
        inner = [one for one in sorted(path.rglob("*")) if one.is_file()]
        return digest([[str(one.relative_to(path)), _content(one)] for one in inner])
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise PrunusError(f"cannot read {str(path)!r}: {error.strerror}") from error


def _array(value: Tensor | NDArray[Any]) -> dict[str, Any]:
    if isinstance(value, Tensor):
        flat = value.detach().cpu().contiguous().reshape(-1)
        content, dtype = flat.view(torch.uint8).numpy().tobytes(), str(value.dtype)
    else:
        content, dtype = np.ascontiguousarray(value).tobytes(), str(value.dtype)
    return {"array": hashlib.sha256(content).hexdigest(), "shape": [*value.shape], "dtype": dtype}


def _weights(module: nn.Module) -> str:
    return digest([[name, _array(one)] for name, one in sorted(module.state_dict().items())])


def model_identity(model: Any, processor: Any) -> dict[str, Any]:
    """Weights, configuration, processor, and where and how the model runs; not its name."""
    config = json.loads(model.config.to_json_string(use_diff=False))
    generation = getattr(model, "generation_config", None)
    return {
        "weights": _weights(model),
        "config": digest(_placeless(config)),
        "generation": digest(
            None if generation is None else _placeless(json.loads(generation.to_json_string()))
        ),
        "processor": _processor(processor),
        "attention": str(model.config._attn_implementation),
        "dtype": str(model.dtype).removeprefix("torch."),
        "device": model.device.type,
    }


def _processor(processor: Any) -> str:
    """Digest of all that a processor saves: its templates, vocabulary, sizes."""
    found = []
    with TemporaryDirectory() as folder:
        processor.save_pretrained(folder)
        for path in sorted(Path(folder).rglob("*")):
            if path.suffix == ".json":
                found.append([path.name, digest(_placeless(json.loads(path.read_text("utf-8"))))])
            elif path.is_file():
                found.append([path.name, _content(path)])
    return digest(found)


def _placeless(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _placeless(one) for key, one in value.items() if key not in _NAMES_OF_PLACES}
    return [_placeless(one) for one in value] if isinstance(value, list) else value


def cell_identity(cell: Cell, budget: Meaning) -> dict[str, Any]:
    """The methods with all of their parameters, or which control it is, and what ``keep`` counts.
    ``cell`` is fitted to its model, so that what was learned is part of it."""
    found: dict[str, Any] = {"shown": cell.shown, "methods": [plain(one) for one in cell.methods]}
    if not cell.methods:
        found |= {"control": cell.name, "keep": cell.keep}
    return found | {"budget": budget}


def column_identity(
    model: Mapping[str, Any], data: EvalSet, new_tokens: int, cell: Cell, budget: Meaning
) -> dict[str, Any]:
    """All that an answer depends on but the question itself."""
    made = versions()
    return {
        "model": dict(model),
        "set": data.name,
        "new_tokens": new_tokens,
        "cell": cell_identity(cell, budget),
        "versions": {name: made[name] for name in ("prunus", "torch", "transformers")},
    }


def seen_digest(seen: Image.Image | Clip) -> str:
    """Digest of the pixels of an image, or of all frames of a video and when they are shown."""
    if isinstance(seen, Clip):
        return digest([seen.fps, seen.start, [seen_digest(frame) for frame in seen.frames]])
    pixels = hashlib.sha256(seen.tobytes()).hexdigest()
    return digest([seen.mode, list(seen.size), pixels])


def question_digest(data: EvalSet, number: int, image: str, cell: Cell, beside: str) -> str:
    """What question ``number`` about the image of digest ``image`` is in ``cell``: the ground truth
    knows the scene, and another image is one of those ``beside`` it."""
    query = data.queries[number]
    more: list[Any] = []
    if cell.shown == "other":
        more = [beside]
    elif cell.prunes and not cell.methods:
        more = [plain(data.drawn(query.image)), list(query.asked)]
    return digest([image, query.text, *more])[:32]
