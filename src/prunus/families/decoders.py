"""Which language models pruning is proved right on, and what makes others impossible.

Dropping a token must be the same as hiding it from attention: every layer may look at other tokens
through its attention only, under masks and positions that the model hands to it. Where a layer has
a state instead, into which it reads one token after the other (linear attention), a dropped token
must be one that was never in the sequence.
"""

from __future__ import annotations

from typing import Any

from torch import nn

from prunus.errors import PrunusError

#: Layer types whose masks and caches are gathered.
LAYER_TYPES = {"full_attention", "sliding_attention", "chunked_attention"}
#: Layer types that have a state instead of keys and values. It reads what is left, as a shorter
#: sequence; what it has read cannot be taken out again.
RECURRENT_TYPES = {"linear_attention"}
#: ``model_type`` of the decoders with such layers in which that is proved.
RECURRENT = frozenset({"qwen3_5_moe_text", "qwen3_5_text", "qwen3_next"})

#: ``model_type`` of the decoders in which it is proved that later layers read keys of earlier ones.
SHARING = frozenset({"gemma4_text"})

#: ``model_type`` of the decoders in tests/support/decoder_list.py (table in docs/engine.md).
PROVED = frozenset(
    {
        "afmoe",
        "apertus",
        "arcee",
        "bitnet",
        "codegen",
        "cohere",
        "cohere2",
        "cwm",
        "deepseek_v2",
        "deepseek_v3",
        "diffllama",
        "doge",
        "ernie4_5",
        "ernie4_5_moe",
        "exaone4",
        "flint",
        "gemma",
        "gemma2",
        "gemma3_text",
        "gemma4_text",
        "gemma4_unified_text",
        "glm",
        "glm4",
        "glm4_moe",
        "glm4v_moe_text",
        "glm4v_text",
        "gpt_neox",
        "gpt_oss",
        "gptj",
        "granite",
        "granite_swa",
        "granitemoe",
        "helium",
        "hunyuan_v1_dense",
        "jetmoe",
        "kolibri1",
        "laguna",
        "llama",
        "llama4_text",
        "mimo_v2_flash",
        "minicpm3",
        "ministral",
        "ministral3",
        "mistral",
        "mistral4",
        "mixtral",
        "molmo2_text",
        "nanochat",
        "nemotron",
        "olmo",
        "olmo2",
        "olmo3",
        "olmoe",
        "persimmon",
        "phi",
        "phi3",
        "phimoe",
        "qwen2",
        "qwen2_5_vl_text",
        "qwen2_moe",
        "qwen2_vl_text",
        "qwen3",
        "qwen3_moe",
        "qwen3_vl_moe_text",
        "qwen3_vl_text",
        "seed_oss",
        "smollm3",
        "stablelm",
        "starcoder2",
        "vaultgemma",
    }
)


def check_decoder(model: nn.Module, config: Any, layers: Any, untested: bool) -> None:
    """Raise PrunusError for a language model that cannot be pruned, or, unless ``untested``, one
    that was never tried.

    Args:
        model: the language model, whose own configuration is ``config``; layers: its decoder
            layers.
    """
    reason = _impossible(config, layers)
    if reason is not None:
        raise PrunusError(
            f"the language model {type(model).__name__} cannot be pruned: {reason}, so that a "
            "token that is dropped there is more than a token that nobody attends to"
        )
    if config.model_type not in PROVED | RECURRENT and not untested:
        raise PrunusError(
            f"the language model {type(model).__name__} ({config.model_type!r}, with "
            f"{_parts(layers)} in its layers) is not among those that pruning is proved right on: "
            "`prunus check --model ...` tries it, and prune(..., untested=True) takes it all the "
            "same"
        )


def recurrent_layers(config: Any, depth: int) -> frozenset[int]:
    """Which of the first ``depth`` decoder layers have a state instead of keys and values."""
    kinds = list(getattr(config, "layer_types", None) or ())[:depth]
    return frozenset(number for number, kind in enumerate(kinds) if kind in RECURRENT_TYPES)


def longest_prompt(config: Any) -> int | None:
    """How many tokens a prompt may have so that its layers do the same with fewer of them; None:
    any number. Layers without rotary embedding may scale their queries by a temperature, which is 1
    up to a position that they count from the tokens that are there, not from position ids."""
    tuned = getattr(config, "attn_temperature_tuning", False)
    if not tuned or all(getattr(config, "no_rope_layers", None) or (1,)):
        return None
    return int(config.floor_scale) - 1


def reading_layers(config: Any, depth: int) -> dict[int, int]:
    """Those of the first ``depth`` decoder layers that have no keys of their own, and for each the
    layer whose keys and values it reads: the last one of its type that has some."""
    count = getattr(config, "num_kv_shared_layers", None) or 0
    if not count:
        return {}
    kinds = list(config.layer_types)
    own = kinds[: len(kinds) - count]
    last = {kind: layer for layer, kind in enumerate(own)}
    return {layer: last[kinds[layer]] for layer in range(len(own), min(depth, len(kinds)))}


def _impossible(config: Any, layers: Any) -> str | None:
    """Why tokens cannot be dropped, by what the configuration says of the layers."""
    known = LAYER_TYPES | RECURRENT_TYPES if config.model_type in RECURRENT else LAYER_TYPES
    kinds = set(getattr(config, "layer_types", None) or ()) - known
    if kinds:
        names = ", ".join(sorted(map(str, kinds)))
        return f"it has layers of type {names} (made of {_parts(layers)})"
    if getattr(config, "num_kv_shared_layers", 0) and config.model_type not in SHARING:
        return "later layers share keys and values of earlier ones"
    if getattr(config, "index_topk", None) is not None:
        return "an index over all tokens chooses the keys of each"
    return None


def _parts(layers: Any) -> str:
    """Names of the modules that make up decoder layers, other than norms and MLPs."""
    names = {
        name
        for layer in layers
        for name, _ in layer.named_children()
        if not any(word in name.lower() for word in ("norm", "mlp", "dropout", "feed_forward"))
    }
    return ", ".join(sorted(names)) or "nothing that has a name"
