"""Prompts are laid out with as many placeholders as there will be tokens left."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any

from vllm.multimodal.parse import EmbeddingItems
from vllm.multimodal.processing import PromptReplacement, PromptUpdate, PromptUpdateDetails

from prunus.errors import PrunusError
from prunus.grid import AnyGrid
from prunus.vllm.counts import Counts


class Shorter:
    """In front of a multimodal processor of vLLM: what it puts in the place of an image is cut
    to the tokens that are left."""

    info: Any

    @cached_property
    def counts(self) -> Counts:
        """Who knows how many these are."""
        return Counts(self.info.get_hf_config())

    def grid_of(self, kind: str, item: Mapping[str, Any]) -> AnyGrid:
        """The grid of one input, whose ``item`` is what the processor made of it."""
        raise NotImplementedError

    def token_of(self, kind: str) -> int:
        """The id of its placeholders."""
        config = self.info.get_hf_config()
        return int(getattr(config, f"{kind}_token_id"))

    def _get_prompt_updates(
        self, mm_items: Any, hf_processor_mm_kwargs: Mapping[str, Any], out_mm_kwargs: Any
    ) -> Sequence[PromptUpdate]:
        given: Any = super()  # of vLLM
        updates = given._get_prompt_updates(
            mm_items=mm_items,
            hf_processor_mm_kwargs=hf_processor_mm_kwargs,
            out_mm_kwargs=out_mm_kwargs,
        )
        return [self._cut(update, mm_items, out_mm_kwargs) for update in updates]

    def _cut(self, update: Any, mm_items: Any, out_mm_kwargs: Any) -> PromptUpdate:
        kind = update.modality
        inner: Callable[[int], Any] = update.replacement

        def replacement(number: int) -> Any:
            if isinstance(mm_items[kind], EmbeddingItems):
                raise PrunusError(
                    f"features of an {kind} that were computed before cannot be pruned: pass pixels"
                )
            whole = inner(number)
            ids = whole.full if isinstance(whole, PromptUpdateDetails) else whole
            grid = self.grid_of(kind, out_mm_kwargs[kind][number])
            cut = _cut(ids, self.token_of(kind), self._expected(grid), self.counts.left(grid))
            if not isinstance(whole, PromptUpdateDetails):
                return cut
            return PromptUpdateDetails(full=cut, is_embed=whole.is_embed)

        return PromptReplacement(modality=kind, target=update.target, replacement=replacement)

    def _expected(self, grid: AnyGrid) -> int:
        return len(self.counts.family.cells(grid))


def _cut(ids: Sequence[int], token: int, expected: int, left: int) -> list[int]:
    """``ids`` with the first ``left`` of the ``expected`` placeholders ``token``.

    Raises:
        PrunusError: there are others than expected.
    """
    found = sum(one == token for one in ids)
    if found != expected:
        raise PrunusError(
            f"vLLM gives an input {found} placeholders, and prunus knows it with {expected}: this "
            "model or its processor is not what was tried"
        )
    kept, seen = [], 0
    for one in ids:
        seen += one == token
        if one != token or seen <= left:
            kept.append(one)
    return kept
