"""Tower and projector, and where a method wants it the first decoder layer, as transformers builds
them, and their weights out of a checkpoint."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from prunus.errors import PrunusError
from prunus.vllm.eyes import Stub
from prunus.vllm.first import first_alone, own_name

#: What stands in front of names in checkpoints: of transformers since 4.52, and before.
_FRONT = ("model.", "")
#: Classes that were folded into others, so that checkpoints have one name more.
_FOLDED = ("vision_model.",)


def vision_core(config: Any, dtype: torch.dtype, device: torch.device, ahead: bool = False) -> Any:
    """A transformers model with ``config`` and a :class:`~prunus.vllm.eyes.Stub` for a language
    model, or with ``ahead`` one that has its first layer, in evaluation mode; its weights are not
    there yet."""
    from transformers import AutoModel

    with torch.device("meta"):
        core: Any = AutoModel.from_config(config, dtype=dtype)
    stub = Stub(config.get_text_config())
    core.language_model = first_alone(core.language_model, dtype, device) if ahead else stub
    for name, part in list(core.named_children()):
        if name != "language_model":
            setattr(core, name, _real(part, config, dtype, device))
    for name, parameter in list(core.named_parameters(recurse=False)):
        made = nn.Parameter(torch.empty_like(parameter, device=device), requires_grad=False)
        setattr(core, name, made)
    return core.eval().requires_grad_(False)


def _real(part: Any, config: Any, dtype: torch.dtype, device: torch.device) -> nn.Module:
    """``part`` of a model, of which nothing but the shapes is there, made for real."""
    made: nn.Module
    with torch.device(device):
        if hasattr(part, "_from_config"):  # a model of its own, with buffers of its own
            made = part._from_config(part.config, dtype=dtype)
        elif next(part.buffers(), None) is not None:
            made = type(part)(config).to(dtype)
        else:
            made = part.to_empty(device=device)
    return made


class Loader:
    """Puts weights of a checkpoint into the ``core``, and says what is still missing."""

    def __init__(self, core: nn.Module) -> None:
        self._own = dict(core.named_parameters())
        self._parts = {name.partition(".")[0] for name in self._own} - {"language_model"}
        self._loaded: set[str] = set()

    def rest(self, weights: Iterable[tuple[str, Tensor]]) -> Iterator[tuple[str, Tensor]]:
        """Load those of ``weights`` that are ours, and give the others, and what the language model
        has a part of as well."""
        for name, value in weights:
            shared = own_name(name)
            if shared in self._own:
                self._load(shared, value)
            own = self._name(name)
            if own is None:
                yield name, value
            else:
                self._load(own, value)

    def loaded(self) -> set[str]:
        """Names of all that was loaded.

        Raises:
            PrunusError: something was not.
        """
        missing = sorted(set(self._own) - self._loaded)
        if missing:
            raise PrunusError(
                f"the checkpoint has no weights for {len(missing)} parameters of what prunus runs "
                f"itself, {missing[0]} first: {_AS_IT_IS}"
            )
        return self._loaded

    def _name(self, name: str) -> str | None:
        """What a weight of the checkpoint is called here; None where it is none of ours."""
        for front in _FRONT:
            if not name.startswith(front):
                continue
            rest = name[len(front) :]
            if rest.partition(".")[0] not in self._parts:
                continue
            for found in (rest, *(rest.replace(fold, "", 1) for fold in _FOLDED)):
                if found in self._own:
                    return found
            part, _, behind = rest.partition(".")
            for fold in _FOLDED:
                if f"{part}.{fold}{behind}" in self._own:
                    return f"{part}.{fold}{behind}"
            return _UNUSED
        return None

    def _load(self, name: str, value: Tensor) -> None:
        if name == _UNUSED:  # a head that nothing runs; what is missing is told by loaded()
            return
        own = self._own[name]
        if own.shape != value.shape:
            raise PrunusError(
                f"the checkpoint has {name} of shape {tuple(value.shape)}, the model of "
                f"{tuple(own.shape)}: it is quantised, or of another model. {_AS_IT_IS}"
            )
        own.data.copy_(value)
        self._loaded.add(name)


_UNUSED = ""
_AS_IT_IS = (
    "with prunus the vision side (and the first decoder layer, for methods that run it ahead) is "
    "run as transformers has it, whole and not quantised: take a checkpoint in which it is so"
)
