"""What prunes in a vLLM: named in the model's configuration, which reaches each of its processes.

``--hf-overrides '{"architectures": [...], "prunus": {"method": "divprune", "keep": 0.25}}'``
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from prunus.errors import PrunusError, PrunusTypeError, shown
from prunus.inference.named import build_methods
from prunus.method import Method
from prunus.method.budget import Budget, Meaning
from prunus.vllm import ARCHITECTURES
from prunus.vllm.refuse import check_servable

KEY = "prunus"


@dataclass(frozen=True)
class Setting:
    """What is asked for, as on the command line.

    Args:
        method: name, as ``prunus run --method`` takes it.
        keep: tokens of an image, or their share; text for several methods ("0.5,64").
        params: ``NAME=VALUE`` each; budget: "nominal" or "true".
    """

    method: str
    keep: str | None = None
    params: tuple[str, ...] = ()
    budget: Meaning = "nominal"

    @classmethod
    def of(cls, config: Any) -> Setting:
        """What stands under "prunus" in the configuration of a model.

        Raises:
            PrunusError: nothing, or something else.
        """
        given = getattr(config, KEY, None)
        hint = 'give {"method": "divprune", "keep": 0.25}, and "params" and "budget" if need be'
        if not isinstance(given, Mapping):
            raise PrunusError(
                f"the configuration of a pruned architecture must say what prunes, under {KEY!r}, "
                f"not {shown(given)}: {hint}"
            )
        strange = sorted(set(given) - {"method", "keep", "params", "budget"})
        method, keep, params = given.get("method"), given.get("keep"), given.get("params", [])
        if strange or not isinstance(method, str):
            raise PrunusError(f"{KEY!r} in the configuration is {shown(dict(given))}: {hint}")
        if not isinstance(keep, str | int | float | None) or isinstance(keep, bool):
            raise PrunusTypeError(f"keep={shown(keep)} in the configuration is no number: {hint}")
        if isinstance(params, str) or not all(isinstance(one, str) for one in params):
            raise PrunusTypeError(f'params={shown(params)}: a list of "NAME=VALUE"; {hint}')
        text = None if keep is None else str(keep)
        return cls(method, text, tuple(params), given.get("budget", "nominal"))

    def overrides(self, family: str) -> dict[str, Any]:
        """``--hf-overrides`` for a model of the ``family``.

        Raises:
            PrunusError: there is no pruned architecture for it.
        """
        if family not in ARCHITECTURES:
            raise PrunusError(
                f"models of the family {family!r} are not served pruned by vLLM: supported are "
                f"{', '.join(ARCHITECTURES)}"
            )
        own: dict[str, Any] = {"method": self.method, "budget": self.budget}
        if self.keep is not None:
            own["keep"] = self.keep
        if self.params:
            own["params"] = list(self.params)
        return {"architectures": [ARCHITECTURES[family][0]], KEY: own}

    def methods(self, depth: int) -> tuple[Method, ...]:
        """The methods, for a decoder of ``depth`` layers.

        Raises:
            PrunusError: an unknown one, or one that vLLM cannot serve.
        """
        found = build_methods(self.method, self.keep, self.params)
        if found is None:
            raise PrunusError("method none prunes nothing: start vLLM without prunus")
        check_servable(found, depth, self.budget)
        return found

    def counting(self, depth: int) -> tuple[Sequence[Method], Budget]:
        """The methods, and who knows their counts."""
        methods = self.methods(depth)
        return methods, Budget(methods, depth, self.budget)
