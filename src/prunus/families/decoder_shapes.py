"""The sizes of a language model, read from its Hugging Face configuration."""

from __future__ import annotations

from typing import Any

from prunus.errors import PrunusError
from prunus.families.decoders import reading_layers
from prunus.families.shapes import CacheShape, DecoderShape, MixerShape

#: Decoders whose feed-forward block has two matrices; every other one known to transformers'
#: image-text models (Llama, Mistral, Qwen, Gemma, Phi-3 ...) has three (gate, up, down).
_TWO_MATRIX_DECODERS = frozenset(
    {
        "apertus",
        "arcee",
        "falcon",
        "gpt2",
        "gpt_neox",
        "mpt",
        "nanochat",
        "nemotron",
        "opt",
        "persimmon",
        "phi",
        "starcoder2",
    }
)
#: Decoders whose layers are more, or less, than their usual fields say, and what it is.
_OTHERWISE = {
    "afmoe": "it has a gate on what attention gives, and dense layers by a field of its own",
    "diffllama": "each of its heads attends twice",
    "doge": "its attention makes masks of its own, and its experts are looked up",
    "ernie4_5_moe": "its experts have fields of their own",
    "gemma4_unified_text": "layers of its kinds have heads of different sizes",
    "mimo_v2_flash": "its keys and values differ in width",
}
_CACHED_OTHERWISE = frozenset({"mimo_v2_flash"})


def read_cache(config: Any) -> CacheShape:
    """Sizes of the key/value cache of the language model of ``config`` (of a whole model, or a text
    configuration).

    Of keys and values of low rank (MLA), what is held is what they are made of: the latent, and a
    part of the key with its position, both for all heads.

    Raises:
        PrunusError: a configuration without the usual decoder fields, or a decoder that is known
            to be otherwise: linear attention, which has neither keys nor values, or others.
    """
    text = _text(config, "num_hidden_layers", "hidden_size", "num_attention_heads")
    if "linear_attention" in (getattr(text, "layer_types", None) or ()):
        raise PrunusError(
            f"cannot count the cost of a {text.model_type!r} decoder: some of its layers have a "
            "state of fixed size instead of keys and values (linear attention), and the adapter of "
            "its family says nothing of them (decoder_shape, cache_shape)"
        )
    if text.model_type in _CACHED_OTHERWISE:
        raise _otherwise(text)
    layers = text.num_hidden_layers
    if rank := getattr(text, "kv_lora_rank", None):
        return CacheShape((rank + text.qk_rope_head_dim,) * layers)
    reading = reading_layers(text, layers)
    held = [0 if n in reading else 2 * kv * dim for n, (kv, dim) in enumerate(head_sizes(text))]
    return CacheShape(tuple(held))


def _otherwise(text: Any) -> PrunusError:
    """What says that the usual fields of ``text`` are not all."""
    return PrunusError(
        f"cannot count the cost of a {text.model_type!r} decoder: {_OTHERWISE[text.model_type]}"
    )


def head_sizes(text: Any) -> list[tuple[int, int]]:
    """For each layer of a text configuration its key/value heads, and the channels of a head."""
    heads = text.num_attention_heads
    return [
        (
            getattr(one, "num_key_value_heads", None) or heads,
            getattr(one, "head_dim", None) or text.hidden_size // heads,
        )
        for one in _by_layer(text, text.num_hidden_layers)
    ]


def _by_layer(text: Any, layers: int) -> list[Any]:
    """The configuration of each layer; newer transformers have them apart where they differ."""
    own = getattr(text, "per_layer_config", None)
    return [text] if own is None else [own[layer] for layer in range(layers)]


def read_decoder(config: Any) -> DecoderShape:
    """Sizes of the language model of ``config`` (of a whole model, or a text configuration).

    Raises:
        PrunusError: as :func:`read_cache`, a mixture of experts that does not say how many of them
            a token is sent to, or layers whose attention is not the same in all.
    """
    text = _text(config, "intermediate_size")
    if text.model_type in _OTHERWISE:
        raise _otherwise(text)
    cache = read_cache(text)
    if len(set(cache.held)) > 1:
        raise PrunusError(
            f"cannot count the cost of a {text.model_type!r} decoder: its layers have heads of "
            "different sizes, or some read the keys of others, and the adapter of its family says "
            "nothing of them (decoder_shape)"
        )
    ffn, routers = read_experts(text, cache.layers)
    kv_heads, head_dim = head_sizes(text)[0]
    low = (_low_rank(text),) * cache.layers if getattr(text, "kv_lora_rank", None) else ()
    return DecoderShape(
        layers=cache.layers,
        width=text.hidden_size,
        heads=text.num_attention_heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        ffn=ffn,
        ffn_matrices=2 if getattr(text, "model_type", "") in _TWO_MATRIX_DECODERS else 3,
        routers=routers,
        mixers=low,
    )


def _low_rank(text: Any) -> MixerShape:
    """Attention whose keys and values, and maybe queries, are made of fewer channels (MLA)."""
    width, heads, rank = text.hidden_size, text.num_attention_heads, text.kv_lora_rank
    plain, turned, values = text.qk_nope_head_dim, text.qk_rope_head_dim, text.v_head_dim
    asked, low = heads * (plain + turned), text.q_lora_rank
    queries = width * asked if low is None else low * (width + asked)
    keys = width * (rank + turned) + rank * heads * (plain + values)
    out = heads * values * width
    return MixerShape(queries + keys + out, heads * (plain + turned + values))


def read_experts(text: Any, layers: int) -> tuple[int | tuple[int, ...], tuple[int, ...]]:
    """Inner channels of the feed-forward blocks, and experts that a token is compared with."""
    names = ("num_experts", "num_local_experts", "n_routed_experts")
    experts = next((n for name in names if (n := getattr(text, name, None))), 0)
    if getattr(text, "intermediate_size_mlp", None):  # Llama 4 sends every token to all experts
        sparse = [layer in text.moe_layers for layer in range(layers)]
        inner = (experts + 1) * text.intermediate_size
        return (
            tuple(inner if one else text.intermediate_size_mlp for one in sparse),
            tuple(experts if one else 0 for one in sparse),
        )
    if not experts:
        return text.intermediate_size, ()
    each, sent = (
        getattr(text, "moe_intermediate_size", None),
        getattr(text, "num_experts_per_tok", None),
    )
    if sent is None:
        raise PrunusError(
            f"cannot count the cost of a {text.model_type!r} decoder: it is a mixture of experts "
            "whose configuration has no num_experts_per_tok"
        )
    each = each or text.intermediate_size
    shared = getattr(text, "shared_expert_intermediate_size", None)
    if shared is None:
        shared = each * (getattr(text, "n_shared_experts", None) or 0)
    sparse = [_is_sparse(text, layer) for layer in range(layers)]
    return (
        tuple(sent * each + shared if one else text.intermediate_size for one in sparse),
        tuple(experts if one else 0 for one in sparse),
    )


def _is_sparse(text: Any, layer: int) -> bool:
    """Whether a layer of a mixture of experts has any."""
    kinds = getattr(text, "mlp_layer_types", None)
    if kinds:
        return bool(kinds[layer] == "sparse")
    if layer in (getattr(text, "mlp_only_layers", None) or ()):
        return False
    if layer < (getattr(text, "first_k_dense_replace", None) or 0):
        return False
    return (layer + 1) % (getattr(text, "decoder_sparse_step", None) or 1) == 0


def _text(config: Any, *needed: str) -> Any:
    """The text configuration in ``config``, which has the fields ``needed``."""
    text = getattr(config, "text_config", None) or config
    if missing := [name for name in needed if getattr(text, name, None) is None]:
        raise PrunusError(
            f"cannot count the cost of a {getattr(text, 'model_type', type(text).__name__)!r} "
            f"decoder: its configuration has no {', '.join(missing)}"
        )
    return text
