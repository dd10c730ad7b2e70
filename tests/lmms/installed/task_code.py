"""Functions of the local tasks: copied beside their YAML files, where lmms-eval imports them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from PIL import Image

HERE = Path(__file__).parent


def pictures(doc: dict[str, Any]) -> list[Image.Image]:
    return [Image.open(HERE / name) for name in doc["images"]]


def videos(doc: dict[str, Any]) -> list[str]:
    name = doc["video"]
    return [name if name.startswith("builtin:") else str(HERE / name)]


def question(doc: dict[str, Any], lmms_eval_specific_kwargs: Any = None) -> str:
    return str(doc["question"])


def between(doc: dict[str, Any], lmms_eval_specific_kwargs: Any = None) -> list[dict[str, Any]]:
    """A message with its text between its pictures."""
    first, *others = ({"type": "image", "url": one} for one in pictures(doc))
    text = {"type": "text", "text": doc["question"]}
    return [{"role": "user", "content": [first, text, *others]}]


def right(doc: dict[str, Any], results: list[str]) -> dict[str, float]:
    return {"accuracy": float(results[0].strip().lower() == doc["answer"].lower())}


def choices(doc: dict[str, Any]) -> list[str]:
    return list(doc["choices"])


def number(doc: dict[str, Any]) -> int:
    return int(doc["choices"].index(doc["answer"]))
