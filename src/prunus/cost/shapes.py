"""The sizes that decide what a model costs, read from its Hugging Face configuration."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from prunus.errors import PrunusError

#: Decoders whose feed-forward block has two matrices; every other one known to transformers'
#: image-text models (Llama, Mistral, Qwen, Gemma, Phi-3 ...) has three (gate, up, down).
_TWO_MATRIX_DECODERS = frozenset({"opt", "gpt2", "gpt_neox", "phi", "falcon", "starcoder2", "mpt"})


@dataclass(frozen=True)
class DecoderShape:
    """The language model: ``layers`` decoder layers of ``width`` channels.

    ``heads`` query heads and ``kv_heads`` key/value heads have ``head_dim`` channels each;
    ``ffn_matrices`` is 3 for a gated feed-forward block (SwiGLU) and 2 for a plain one.
    """

    layers: int
    width: int
    heads: int
    kv_heads: int
    head_dim: int
    ffn: int
    ffn_matrices: int = 3


@dataclass(frozen=True)
class CacheShape:
    """What a token takes in the key/value cache of each of ``layers`` layers: ``kv_heads`` keys and
    as many values of ``head_dim`` channels."""

    layers: int
    kv_heads: int
    head_dim: int


@dataclass(frozen=True)
class EncoderShape:
    """The vision tower, with the layers that the unmodified model *executes*.

    LLaVA reads ``hidden_states[-2]``, but transformers runs the last block all the same, so it
    counts. ``patches`` and ``extra`` (1 for a CLS token) make up the sequence of one image;
    ``patch_inputs`` is channels x patch height x patch width. ``pooling_head`` says whether an
    attention pooling head runs behind the blocks (SigLIP; its result is not used by LLaVA).
    """

    layers: int
    width: int
    ffn: int
    patches: int
    extra: int
    patch_inputs: int
    pooling_head: bool = False

    @property
    def tokens(self) -> int:
        """Sequence length of one image in the tower."""
        return self.patches + self.extra


@dataclass(frozen=True)
class ProjectorShape:
    """Two linear layers ``inputs -> width -> width``, applied to ``tokens`` tokens per image."""

    inputs: int
    width: int
    tokens: int


@dataclass(frozen=True)
class WindowedShape:
    """A tower over images of any size, whose blocks see whole frames or windows only (Qwen-VL).

    A frame of ``rows x cols`` visual tokens has ``merge ** 2`` patches for each; ``window`` is the
    side of a window in visual tokens. The blocks in ``full`` see whole frames instead, and never
    more than one: frames do not meet in the tower. ``ffn_matrices`` as in :class:`DecoderShape`.
    """

    layers: int
    width: int
    ffn: int
    patch_inputs: int
    merge: int
    window: int
    full: frozenset[int]
    ffn_matrices: int = 3


@dataclass(frozen=True)
class MergerShape:
    """``count`` times two linear layers ``inputs -> inputs -> width``, for each visual token;
    ``inputs`` are the channels of all patches that are merged into it."""

    inputs: int
    width: int
    count: int = 1


@dataclass(frozen=True)
class ModelShape:
    """Everything that :func:`prunus.cost.flops.prefill_flops` needs to know of a model."""

    decoder: DecoderShape
    encoder: EncoderShape | WindowedShape
    projector: ProjectorShape | MergerShape


def read_cache(config: Any) -> CacheShape:
    """Sizes of the key/value cache of the language model of ``config`` (of a whole model, or a text
    configuration).

    Raises:
        PrunusError: a configuration without the usual decoder fields, or low-rank (MLA) attention,
            whose keys and values differ in width.
    """
    text = _text(config, "num_hidden_layers", "hidden_size", "num_attention_heads")
    if getattr(text, "kv_lora_rank", None):
        raise PrunusError(
            f"cannot count the cost of a {text.model_type!r} decoder: its keys and values are of "
            "low rank (MLA)"
        )
    heads = text.num_attention_heads
    return CacheShape(
        layers=text.num_hidden_layers,
        kv_heads=getattr(text, "num_key_value_heads", None) or heads,
        head_dim=getattr(text, "head_dim", None) or text.hidden_size // heads,
    )


def read_decoder(config: Any) -> DecoderShape:
    """Sizes of the language model of ``config`` (of a whole model, or a text configuration).

    Raises:
        PrunusError: as :func:`read_cache`, or a mixture of experts (whose cost depends on the
            routing and is not counted here).
    """
    text = _text(config, "intermediate_size")
    if getattr(text, "num_experts", None) or getattr(text, "num_local_experts", None):
        raise PrunusError(
            f"cannot count the cost of a {text.model_type!r} decoder: it is a mixture of experts"
        )
    cache = read_cache(text)
    return DecoderShape(
        layers=cache.layers,
        width=text.hidden_size,
        heads=text.num_attention_heads,
        kv_heads=cache.kv_heads,
        head_dim=cache.head_dim,
        ffn=text.intermediate_size,
        ffn_matrices=2 if getattr(text, "model_type", "") in _TWO_MATRIX_DECODERS else 3,
    )


def _text(config: Any, *needed: str) -> Any:
    """The text configuration in ``config``, which has the fields ``needed``."""
    text = getattr(config, "text_config", None) or config
    if missing := [name for name in needed if getattr(text, name, None) is None]:
        raise PrunusError(
            f"cannot count the cost of a {getattr(text, 'model_type', type(text).__name__)!r} "
            f"decoder: its configuration has no {', '.join(missing)}"
        )
    return text


def read_shape(config: Any) -> ModelShape:
    """Sizes of a model: its tower, projector and decoder.

    Raises:
        PrunusError: a tower of an unknown kind (``vision_config.model_type``), or a decoder as in
            :func:`read_decoder`.
    """
    decoder = read_decoder(config)
    vision = getattr(config, "vision_config", None)
    kind = getattr(vision, "model_type", None)
    if kind not in _TOWERS:
        raise PrunusError(
            f"cannot count the cost of a {kind!r} vision tower: known are {', '.join(_TOWERS)}"
        )
    return _TOWERS[kind](config, decoder)


def _plain(config: Any, decoder: DecoderShape) -> ModelShape:
    vision, kind = config.vision_config, config.vision_config.model_type
    height, width = _pair(vision.image_size)
    patch_height, patch_width = _pair(vision.patch_size)
    patches = (height // patch_height) * (width // patch_width)
    extra = 1 if kind == "clip_vision_model" else 0
    encoder = EncoderShape(
        layers=vision.num_hidden_layers,
        width=vision.hidden_size,
        ffn=vision.intermediate_size,
        patches=patches,
        extra=extra,
        patch_inputs=vision.num_channels * patch_height * patch_width,
        pooling_head=kind == "siglip_vision_model" and getattr(vision, "vision_use_head", True),
    )
    layers = getattr(config, "vision_feature_layer", -1)
    # "default" cuts off the first token, whether or not the tower has a CLS token
    dropped = 1 if getattr(config, "vision_feature_select_strategy", "full") == "default" else 0
    projector = ProjectorShape(
        inputs=vision.hidden_size * (len(layers) if isinstance(layers, Sequence) else 1),
        width=decoder.width,
        tokens=encoder.tokens - dropped,
    )
    return ModelShape(decoder, encoder, projector)


def _windowed(config: Any, decoder: DecoderShape) -> ModelShape:
    vision = config.vision_config
    merge, patch = vision.spatial_merge_size, vision.patch_size
    encoder = WindowedShape(
        layers=vision.depth,
        width=vision.hidden_size,
        ffn=vision.intermediate_size,
        patch_inputs=vision.in_channels * vision.temporal_patch_size * patch * patch,
        merge=merge,
        window=vision.window_size // merge // patch,
        full=frozenset(vision.fullatt_block_indexes),
    )
    projector = MergerShape(vision.hidden_size * merge * merge, vision.out_hidden_size)
    return ModelShape(decoder, encoder, projector)


def _by_frame(config: Any, decoder: DecoderShape) -> ModelShape:
    """Qwen2-VL, whose tower has ``embed_dim`` channels and gives ``hidden_size``."""
    vision = config.vision_config
    width, merge = vision.embed_dim, vision.spatial_merge_size
    encoder = _in_frames(vision, width, int(width * vision.mlp_ratio))
    return ModelShape(decoder, encoder, MergerShape(width * merge * merge, vision.hidden_size))


def _deepstack(config: Any, decoder: DecoderShape) -> ModelShape:
    """Qwen3-VL, which has a merger for each depth at which features leave its tower."""
    vision, merge = config.vision_config, config.vision_config.spatial_merge_size
    encoder = _in_frames(vision, vision.hidden_size, vision.intermediate_size)
    inputs, mergers = vision.hidden_size * merge * merge, 1 + len(vision.deepstack_visual_indexes)
    return ModelShape(decoder, encoder, MergerShape(inputs, vision.out_hidden_size, mergers))


def _in_frames(vision: Any, width: int, ffn: int) -> WindowedShape:
    """A tower all of whose blocks see whole frames, with a plain feed-forward block."""
    return WindowedShape(
        layers=vision.depth,
        width=width,
        ffn=ffn,
        patch_inputs=vision.in_channels * vision.temporal_patch_size * vision.patch_size**2,
        merge=vision.spatial_merge_size,
        window=1,
        full=frozenset(range(vision.depth)),
        ffn_matrices=2,
    )


_TOWERS: dict[str, Callable[[Any, DecoderShape], ModelShape]] = {
    "clip_vision_model": _plain,
    "siglip_vision_model": _plain,
    "qwen2_vl_vision": _by_frame,
    "qwen2_5_vl_vision": _windowed,
    "qwen3_vl_vision": _deepstack,
    "qwen3_vl_moe_vision": _deepstack,
}


def _pair(size: int | Sequence[int]) -> tuple[int, int]:
    """``(height, width)`` of a size that configurations give as one number or two."""
    if isinstance(size, int):
        return size, size
    height, width = size
    return int(height), int(width)
