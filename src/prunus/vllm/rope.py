"""Models whose positions have three rows (M-RoPE): tokens that are left keep theirs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from prunus.errors import PrunusError
from prunus.vllm.eyes import Left
from prunus.vllm.positions import LARGEST, extent, offsets, taken_apart, with_positions


class ThreeRows:
    """In front of :class:`~prunus.vllm.model.Pruned`. Text is laid out behind what the whole image
    would have taken; visual tokens get their places in the grid when they are seen
    (:mod:`prunus.vllm.positions`)."""

    supports_pp = False  # only the first stage of a pipeline knows where visual tokens are

    config: Any
    _away: tuple[Tensor, Tensor] | None = None

    def shape_of(self, kind: str, item: Any, number: int) -> tuple[int, int, int, float]:
        """Frames, rows and columns of input ``number`` that ``item`` brings, arguments as the model
        takes them, and how far positions go on from frame to frame."""
        merge = self.config.vision_config.spatial_merge_size
        frames, rows, cols = torch.as_tensor(item[f"{kind}_grid_thw"])[number].tolist()
        step = 1.0
        if kind == "video":
            seconds = item.get("second_per_grid_ts")
            speed = getattr(self.config.vision_config, "tokens_per_second", None)
            if seconds is not None and speed is not None:
                step = float(seconds[number]) * speed
        return frames, rows // merge, cols // merge, step

    def places(self, kind: str, call: Any) -> Tensor:
        """Time, row and column of each token."""
        count = len(call[f"{kind}_grid_thw"])
        found = [offsets(*self.shape_of(kind, call, number)).T for number in range(count)]
        return torch.nn.utils.rnn.pad_sequence(found, batch_first=True).permute(2, 0, 1)

    def carried(self, kind: str, call: Any, left: list[Left]) -> list[Tensor]:
        """Features, and how far each token is from where its image begins."""
        found = []
        for number, one in enumerate(left):
            away = offsets(*self.shape_of(kind, call, number))
            if int(away.max()) > LARGEST:
                raise PrunusError(f"a {kind} takes {int(away.max())} positions: give fewer frames")
            own = away.to(one.places.device)[:, one.places]
            features = torch.cat([one.features, *one.beside], 1)
            found.append(with_positions(features, own))
        return found

    def get_mrope_input_positions(
        self, input_tokens: list[int], mm_features: list[Any]
    ) -> tuple[Tensor, int]:
        """Positions int64 ``[3, N]`` of a prompt, visual tokens all at the beginning of their
        image, and by how much positions are ahead of the number of tokens."""
        rows: list[Tensor] = []
        at = position = 0
        for feature in sorted(mm_features, key=lambda one: one.mm_position.offset):
            offset, length = feature.mm_position.offset, feature.mm_position.length
            item = {name: _batched(one.data) for name, one in feature.data.items()}
            shape = self.shape_of(feature.modality, item, 0)
            rows.append(torch.arange(position, position + offset - at))
            position += offset - at
            rows.append(torch.full((length,), position))
            position += extent(*shape)
            at = offset + length
        rows.append(torch.arange(position, position + len(input_tokens) - at))
        position += len(input_tokens) - at
        return torch.cat(rows).expand(3, -1).contiguous(), position - len(input_tokens)

    def embed_input_ids(
        self,
        input_ids: Tensor,
        multimodal_embeddings: Sequence[Tensor] | None = None,
        *,
        is_multimodal: Tensor | None = None,
    ) -> Tensor:
        """vLLM's own, of features without their further channels, which the next :meth:`forward`
        needs."""
        self.__dict__["_away"] = None
        given: Any = super()
        if multimodal_embeddings is not None and len(multimodal_embeddings):
            assert is_multimodal is not None  # vLLM says so
            multimodal_embeddings, away = taken_apart(multimodal_embeddings)
            self.__dict__["_away"] = (is_multimodal.to(away.device).nonzero()[:, 0], away)
        embedded: Tensor = given.embed_input_ids(
            input_ids, multimodal_embeddings, is_multimodal=is_multimodal
        )
        return embedded

    def forward(
        self,
        input_ids: Tensor | None,
        positions: Tensor,
        intermediate_tensors: Any = None,
        inputs_embeds: Tensor | None = None,
        **kwargs: Any,
    ) -> Any:
        """vLLM's own, with visual tokens at their places: written where ``positions`` are, because
        graphs that were captured read them there."""
        away, self.__dict__["_away"] = self._away, None
        if away is not None:
            at, far = away
            positions.index_add_(1, at.to(positions.device), far.to(positions))
        given: Any = super()
        return given.forward(input_ids, positions, intermediate_tensors, inputs_embeds, **kwargs)


def _batched(value: Any) -> Any:
    """One input's data as that of a batch of one."""
    return value[None] if isinstance(value, Tensor) else [value]
