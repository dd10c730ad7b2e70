"""Gemma 4: images of any aspect ratio, inputs of its own for each token in each decoder layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from prunus.errors import PrunusError
from prunus.families.base import Family
from prunus.families.decoder_shapes import head_sizes
from prunus.families.decoders import reading_layers
from prunus.families.shapes import (
    DecoderShape,
    MixerShape,
    Pass,
    ProjectorShape,
    TowerShape,
    WindowedShape,
)
from prunus.grid import AnyGrid, Grid


@dataclass(frozen=True)
class Padded(Grid):
    """Of each frame the tower sees so many ``patches``, those among them that are padding as well;
    equal to a grid without them in everything else."""

    patches: int = 0


class Gemma4(Family):
    """``Gemma4ForConditionalGeneration``. A visual token is the average of a square of patches; an
    image has as many as fit its aspect ratio, row by row. A video is one run of placeholders for
    each frame, with timestamps as text between: its one grid has a frame for each.

    Every decoder layer is given something of each token's own (``per_layer_input``), which goes
    with the token. The last layers may read keys of earlier ones: there tokens can be dropped up to
    the first layer whose keys are read, and not behind it. In large models tokens of an image see
    each other in both directions in layers with windows, by the model's own masks.
    """

    name = "gemma4"
    model_types = ("gemma4",)
    summary = "Gemma 4: images of any aspect ratio, videos, inputs by layer, shared keys"
    one_way = False
    no_merging = (
        "behind its tower the model averages squares of patches by their places, for which all of "
        "them have to be there"
    )

    def __init__(self, top: Any) -> None:
        super().__init__(top)
        if self.text_config.use_bidirectional_attention == "all":
            raise PrunusError(
                "Gemma 4 with use_bidirectional_attention='all' is not supported: every token sees "
                "all others, and there is no order in which an answer could be read"
            )

    @property
    def tower(self) -> nn.Module:
        tower: nn.Module = self.core.vision_tower
        return tower

    @property
    def projector(self) -> nn.Module:
        projector: nn.Module = self.core.embed_vision
        return projector

    @property
    def reads_tower(self) -> bool:
        return False  # all images of a call are one row in front of the projector

    @property
    def along(self) -> tuple[str, ...]:
        return ("per_layer_input",) if self.text_config.hidden_size_per_layer_input else ()

    @classmethod
    def tower_shapes(cls, config: Any) -> tuple[TowerShape, ProjectorShape]:
        """Behind the tower patches become tokens by a product with a matrix of shares."""
        vision, side = config.vision_config, config.vision_config.pooling_kernel_size
        width, heads = vision.hidden_size, vision.num_attention_heads
        if not heads * vision.head_dim == width == vision.num_key_value_heads * vision.head_dim:
            raise PrunusError(
                f"cannot count the cost of {cls.name}: the heads of its vision tower have "
                f"{heads * vision.head_dim} channels (of keys "
                f"{vision.num_key_value_heads * vision.head_dim}), and not {width} as its states do"
            )
        depth = vision.num_hidden_layers
        tower = WindowedShape(
            layers=depth,
            width=width,
            ffn=vision.intermediate_size,
            patch_inputs=3 * vision.patch_size**2,
            merge=1,
            window=1,
            full=frozenset(range(depth)),
        )

        def made(one: Grid) -> int:
            return one.made if isinstance(one, Pass) else one.size

        def pooled(one: Grid) -> int:
            return int(one.size // side**2 * one.size * width)

        return tower, ProjectorShape(
            width * config.get_text_config().hidden_size, made, beside=pooled
        )

    @classmethod
    def decoder_shape(cls, config: Any) -> DecoderShape:
        text = config.get_text_config()
        depth, width, heads = text.num_hidden_layers, text.hidden_size, text.num_attention_heads
        reading, sizes = reading_layers(text, depth), head_sizes(text)
        mixers, inside = [], []
        experts = text.top_k_experts * text.moe_intermediate_size if text.enable_moe_block else 0
        for layer, (kv_heads, dim) in enumerate(sizes):
            made = 0 if layer in reading else 2  # keys and values
            if made and text.attention_k_eq_v and text.layer_types[layer] == "full_attention":
                made = 1
            mixers.append(MixerShape(width * dim * (2 * heads + made * kv_heads), 2 * heads * dim))
            wide = 2 if text.use_double_wide_mlp and layer in reading else 1
            inside.append(wide * text.intermediate_size + experts)
        own = text.hidden_size_per_layer_input or 0
        return DecoderShape(
            layers=depth,
            width=width,
            heads=heads,
            kv_heads=sizes[0][0],
            head_dim=sizes[0][1],
            ffn=tuple(inside),
            routers=(text.num_experts,) * depth if text.enable_moe_block else (),
            mixers=tuple(mixers),
            along=2 * width * own,
            entering=width * depth * own,
        )

    @classmethod
    def cost_note(cls, config: Any) -> str:
        """The unmodified model may skip most of the layers that read keys of others."""
        text = config.get_text_config()
        reading = reading_layers(text, text.num_hidden_layers)
        if not reading:
            return ""
        return (
            f"FLOPs are of all tokens in all layers, but layers {min(reading)}-{max(reading)} read "
            "keys of earlier ones: generate() of the unmodified model runs them on the last token "
            "of the prompt alone (with sdpa or eager attention), pruning on all that are left, and "
            "saves a smaller share than these numbers say"
        )

    def placeholders(self, input_ids: Tensor | None, embeds: Tensor | None) -> dict[str, Tensor]:
        return {
            "image": self.holds(self.config.image_token_id, input_ids, embeds),
            "video": self.holds(self.config.video_token_id, input_ids, embeds),
        }

    def grids_of(self, call: Mapping[str, Any]) -> dict[str, list[AnyGrid]]:
        found: dict[str, list[AnyGrid]] = {}
        images, frames = call.get("image_position_ids"), call.get("video_position_ids")
        if images is not None:
            found["image"] = [self._grid(own, 1) for own in _table("image_position_ids", images)]
        if frames is not None:
            of_video = call.get("num_frames_per_video")
            if of_video is None:
                raise PrunusError("video_position_ids come without num_frames_per_video")
            own = _table("video_position_ids", frames)
            counts = torch.as_tensor(of_video).flatten().tolist()
            starts = [sum(counts[:number]) for number in range(len(counts))]
            found["video"] = [
                self._grid(own[start], count) for start, count in zip(starts, counts, strict=True)
            ]
        return found

    def _grid(self, places: Tensor, frames: int) -> Grid:
        """Where tokens lie whose patches are at ``places`` (int64 ``[n, 2]``: column and row, -1
        where there is none)."""
        vision = self.config.vision_config
        side = vision.pooling_kernel_size
        cols, rows = ((int(places[:, axis].max()) + 1) // side for axis in (0, 1))
        cell = (side * vision.patch_size, side * vision.patch_size)
        return Padded(frames, rows, cols, cell, patches=len(places))

    def tower_grids(self, grid: AnyGrid) -> Sequence[Grid]:
        (one,) = grid.parts
        side = self.config.vision_config.pooling_kernel_size
        made = one.rows * one.cols
        patches = one.patches if isinstance(one, Padded) else made * side**2
        return [Pass(1, 1, patches, one.cell, made=made)] * one.frames

    def whole_call(self, call: dict[str, Any]) -> dict[str, Any]:
        if call.get("return_shared_kv_states"):
            raise PrunusError(
                "return_shared_kv_states is not supported while pruning: an assistant that reads "
                "these keys would take them for those of the whole prompt"
            )
        # Labels are handed to every layer, which has no use for them. With logits_to_keep, layers
        # that read keys of earlier ones run on the last tokens only.
        rest = {name: value for name, value in call.items() if name != "labels"}
        return {**rest, "logits_to_keep": 0}


def _table(name: str, given: Any) -> Tensor:
    """``given`` as int64 ``[images, patches, 2]``."""
    table = torch.as_tensor(given)
    if table.ndim != 3 or table.shape[2] != 2:
        raise PrunusError(
            f"{name} has shape {tuple(table.shape)}: give column and row of each patch, "
            "[images, patches, 2], as the processor does"
        )
    return table
