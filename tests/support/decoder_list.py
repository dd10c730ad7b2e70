"""Which decoder classes are proved right, which are to be refused, and which no LLaVA can hold."""

from __future__ import annotations

from typing import Any

from tests.support.decoders import DEPTH, WINDOW, Decoder

SLIDING = ["sliding_attention", "full_attention"] * (DEPTH // 2)
_MLA = {"num_key_value_heads": 8}
_GEMMA4 = {"layer_types": SLIDING, "global_head_dim": 16, "num_global_key_value_heads": 2}


def _ministral3_rope() -> dict[str, Any]:
    """Queries are scaled by their position from the ninth on."""
    return {
        "rope_type": "yarn",
        "rope_theta": 10000.0,
        "factor": 64.0,
        "original_max_position_embeddings": WINDOW,
        "max_position_embeddings": 512,
        "beta_fast": 32.0,
        "beta_slow": 1.0,
        "mscale_all_dim": 1.0,
        "mscale": 1.0,
        "llama_4_scaling_beta": 0.5,
    }


_LLAMA4 = {
    "no_rope_layers": [1, 0, 1, 0],
    "layer_types": ["chunked_attention", "full_attention"] * (DEPTH // 2),
    "interleave_moe_layer_step": 2,
}
_MISTRAL4 = {**_MLA, "rope_parameters": _ministral3_rope()}

# Of three rows of positions; a LLaVA gives them one, which they repeat.
_MROPE = {
    "tie_word_embeddings": False,
    "rope_parameters": {
        "rope_type": "default",
        "rope_theta": 10000.0,
        "mrope_section": [1, 1, 2],
    },
}

_PARTIAL_MROPE = {
    "tie_word_embeddings": False,
    "rope_parameters": {
        "rope_type": "default",
        "rope_theta": 10000.0,
        "mrope_section": [1, 1],
        "partial_rotary_factor": 0.5,
    },
}

DECODERS = [
    Decoder("llama"),
    Decoder("mistral", "window"),
    Decoder("mistral", "", {"sliding_window": None}, name="mistral-full"),
    Decoder(
        "mistral",
        "window that ends in a long prompt, or behind a short one",
        {"sliding_window": 30},
        name="mistral-30",
    ),
    Decoder("mixtral", "window, experts"),
    Decoder("ministral", "window in every other layer", {"layer_types": SLIDING}),
    Decoder(
        "ministral3",
        "window, queries scaled by position",
        {"rope_parameters": _ministral3_rope()},
    ),
    Decoder("qwen2"),
    Decoder(
        "qwen2",
        "window in every other layer",
        {"use_sliding_window": True, "max_window_layers": 0, "layer_types": SLIDING},
        name="qwen2-window",
    ),
    Decoder("qwen2_moe", "experts"),
    Decoder("qwen2_vl_text", "rotary embedding by time, height and width", _MROPE),
    Decoder("qwen2_5_vl_text", "rotary embedding by time, height and width", _MROPE),
    Decoder("qwen3", "norms on queries and keys"),
    Decoder("qwen3_moe", "norms on queries and keys, experts"),
    Decoder(
        "qwen3_vl_text",
        "interleaved rotary embedding by time, height and width, norms on queries and keys",
        _MROPE,
    ),
    Decoder(
        "qwen3_vl_moe_text",
        "interleaved rotary embedding by time, height and width, norms on queries and keys, "
        "experts",
        _MROPE,
    ),
    Decoder("gemma", "scaled embeddings"),
    Decoder(
        "gemma2",
        "softcap, window in every other layer",
        {"attn_logit_softcapping": 2.0, "layer_types": SLIDING},
        ("eager",),
    ),
    Decoder(
        "gemma3_text",
        "window and rotary base by layer type",
        {"layer_types": SLIDING, "rope_parameters": None},
    ),
    Decoder(
        "vaultgemma",
        "softcap, window in every other layer",
        {"attn_logit_softcapping": 2.0, "layer_types": SLIDING},
        ("eager",),
    ),
    Decoder("phi", "partial rotary embedding", {"partial_rotary_factor": 0.5}),
    Decoder("phi3", "window, joined projections"),
    Decoder("phimoe", "window, experts"),
    Decoder("cohere", "norms on queries and keys", {"use_qk_norm": True}),
    Decoder(
        "cohere2",
        "window; full layers without rotary embedding",
        {"layer_types": SLIDING},
    ),
    Decoder("olmo", "queries, keys and values clipped", {"clip_qkv": 1.0}),
    Decoder("olmo2", "norms across heads, behind the layers"),
    Decoder("olmo3", "window, norms across heads", {"layer_types": SLIDING}),
    Decoder("olmoe", "queries, keys and values clipped, experts", {"clip_qkv": 1.0}),
    Decoder("granite", "its own scaling", {"attention_multiplier": 0.2}),
    Decoder("granitemoe", "its own scaling, experts", {"attention_multiplier": 0.2}),
    Decoder(
        "granite_swa",
        "sinks that its map leaves out, window, layers without rotary embedding",
        {"attention_multiplier": 0.2},
        ("eager",),
    ),
    Decoder("starcoder2", "window, biases"),
    Decoder(
        "stablelm",
        "partial rotary embedding, norms by head",
        {"qk_layernorm": True, "use_qkv_bias": True, "partial_rotary_factor": 0.5},
    ),
    Decoder("gpt_neox", "joined projections, partial rotary embedding"),
    Decoder(
        "smollm3",
        "every other layer without rotary embedding",
        {"no_rope_layer_interval": 2, "use_sliding_window": False},
    ),
    Decoder("gpt_oss", "sinks, window in every other layer", {"layer_types": SLIDING}, ("eager",)),
    Decoder("helium"),
    Decoder(
        "exaone4",
        "window; full layers without rotary embedding",
        {"layer_types": SLIDING, "sliding_window_pattern": 2},
    ),
    Decoder("ernie4_5", "interleaved rotary embedding"),
    Decoder("ernie4_5_moe", "experts"),
    Decoder("seed_oss"),
    Decoder("arcee"),
    Decoder("apertus", "norms on queries and keys"),
    Decoder("nemotron", "partial rotary embedding"),
    Decoder("hunyuan_v1_dense", "norms behind the rotary embedding"),
    Decoder("deepseek_v2", "low-rank keys and values", _MLA),
    Decoder("deepseek_v3", "low-rank keys and values", _MLA),
    Decoder("minicpm3", "low-rank keys and values", _MLA),
    Decoder("glm", "partial rotary embedding"),
    Decoder("glm4", "partial rotary embedding"),
    Decoder("glm4_moe", "partial rotary embedding, experts"),
    Decoder("glm4v_text", "partial rotary embedding by time, height and width", _PARTIAL_MROPE),
    Decoder(
        "glm4v_moe_text",
        "partial rotary embedding by time, height and width, experts",
        _PARTIAL_MROPE,
    ),
    Decoder("mistral4", "low-rank keys and values, queries scaled by position", _MISTRAL4),
    Decoder("diffllama", "differential attention: two calls in each layer", calls=2),
    Decoder(
        "molmo2_text",
        "norms on queries and keys, two rotary tables by layer",
        {
            "additional_vocab_size": 0,
            "rope_scaling_layers": [0, 2],
            "rope_parameters": {"rope_type": "linear", "factor": 4.0, "rope_theta": 10000.0},
        },
    ),
    Decoder("bitnet", "a norm behind the attention"),
    Decoder("gptj", "partial, interleaved rotary embedding", {"rotary_dim": 4}, since="5.24"),
    Decoder("codegen", "partial, interleaved rotary embedding", {"rotary_dim": 4}, since="5.24"),
    Decoder("doge", "a mask from the values", {"keep_window_size": WINDOW}),
    Decoder("afmoe", "window, gated output, layers without rotary embedding"),
    Decoder("cwm", "window in some layers"),
    Decoder(
        "mimo_v2_flash", "sinks, window, partial rotary embedding by layer type", {}, ("eager",)
    ),
    Decoder("nanochat", "norms without weights"),
    Decoder("persimmon", "joined projections, partial rotary embedding"),
    Decoder("jetmoe", "experts that are attention heads"),
    Decoder(
        "llama4_text",
        "chunks; other layers without rotary embedding",
        {**_LLAMA4, "attn_temperature_tuning": False},
    ),
    Decoder(
        "gemma4_text",
        "window; wider heads in full layers",
        {"layer_types": SLIDING, "global_head_dim": 16, "hidden_size_per_layer_input": 0},
    ),
    Decoder(
        "gemma4_unified_text",
        "window; wider heads in full layers, keys that are values",
        {**_GEMMA4, "attention_k_eq_v": True},
    ),
    Decoder("flint", "sinks, window in some layers", {"layer_types": SLIDING}, ("eager",)),
    Decoder("laguna", "window, gated output", {"layer_types": SLIDING}),
    Decoder("kolibri1", "window", {"layer_types": SLIDING}),
]


def _linear(first: str = "full_attention", **more: Any) -> dict[str, Any]:
    """Linear attention in the layers between; in the first one, too, if that is said."""
    return {
        "layer_types": [first, *["linear_attention"] * (DEPTH - 2), "full_attention"],
        "linear_num_key_heads": 2,
        "linear_num_value_heads": 4,
        "linear_key_head_dim": 8,
        "linear_value_head_dim": 8,
        **more,
    }


# Decoders some of whose layers have linear attention; proved in tests/engine/test_linear_layers.py.
LINEAR = [
    Decoder("qwen3_5_text", "linear attention in some layers", _linear()),
    Decoder(
        "qwen3_5_text",
        "linear attention in all layers but the last",
        _linear("linear_attention"),
        name="qwen3_5_text-first",
    ),
    Decoder("qwen3_5_moe_text", "linear attention in some layers, experts", _linear()),
    Decoder("qwen3_next", "linear attention in some layers, experts", _linear()),
]


# Decoders in which dropping a token is more than hiding it from attention, or whose layers are not
# where those of the others are: what the message must name.
_LINEAR = "LinearAttention|linear_attention"
_INDEX = {**_MLA, "index_topk": WINDOW, "index_n_heads": 2, "index_head_dim": 16}
REFUSED = {
    Decoder("olmo_hybrid", "linear attention in three of four layers"): _LINEAR,
    Decoder(
        "minimax", "linear attention in every other layer"
    ): f"{_LINEAR}|Lightning|MiniMaxCache",
    Decoder(
        "bamba",
        "state spaces",
        {
            "attn_layer_indices": [0, 2],
            "mamba_n_heads": 8,
            "mamba_d_head": 16,
            "mamba_n_groups": 1,
            "mamba_d_state": 8,
        },
    ): f"{_LINEAR}|[Mm]amba",
    Decoder(
        "jamba",
        "state spaces",
        {
            "attn_layer_period": 2,
            "attn_layer_offset": 0,
            "expert_layer_period": 2,
            "expert_layer_offset": 1,
            "mamba_d_state": 8,
            "mamba_dt_rank": 4,
        },
    ): f"{_LINEAR}|[Mm]amba",
    Decoder(
        "falcon_h1",
        "state spaces beside attention",
        {"mamba_n_heads": 8, "mamba_d_head": 8, "mamba_d_ssm": 64, "mamba_chunk_size": 8},
    ): f"{_LINEAR}|[Mm]amba",
    Decoder("nemotron_h", "state spaces"): f"{_LINEAR}|[Mm]amba",
    Decoder("lfm2", "convolutions", {"layer_types": ["conv", "full_attention"] * (DEPTH // 2)}): (
        f"{_LINEAR}|[Cc]onv"
    ),
    Decoder("recurrent_gemma", "recurrence", since="5.24"): f"{_LINEAR}|[Rr]ecurren",
    Decoder("deepseek_v32", "keys chosen by an index", _INDEX): "[Ii]ndex",
    Decoder("glm_moe_dsa", "keys chosen by an index", _INDEX): "[Ii]ndex",
    Decoder(
        "minimax_m3_vl_text",
        "blocks of keys chosen by an index",
        {
            "layer_types": ["full_attention", "minimax_m3_sparse"] * (DEPTH // 2),
            "index_head_dim": 8,
            "index_block_size": 4,
            "index_topk_blocks": 2,
            "rotary_dim": 8,
        },
    ): "[Ss]parse|[Ii]ndex",
    Decoder(
        "llama4_text",
        "layers without rotary embedding count tokens to scale their queries",
        {**_LLAMA4, "attn_temperature_tuning": True, "floor_scale": 4, "attn_scale": 0.5},
        name="llama4-tuned",
    ): "position|temperature",
    Decoder("beam", "queries scaled token by token"): "Beam",
    Decoder("biogpt", "learned positions"): "BioGpt",
    Decoder("xglm", "positions from a table, its own attention", {}, ("eager",)): "XGLM",
    Decoder("hrm_text", "layers that run several times"): "Hrm",
    Decoder(
        "longcat_flash", "two attentions in each layer", {**_MLA, "num_layers": DEPTH}
    ): "Longcat|LongCat|attentions",
    Decoder(
        "gemma4_unified_text",
        "later layers take keys of earlier ones",
        {**_GEMMA4, "num_kv_shared_layers": 2},
        name="gemma4-shared",
    ): "[Ss]hare",
}

# Model types that an unmodified LLaVA cannot hold.
NOT_IN_A_LLAVA = (
    "bloom",
    "falcon",
    "mpt",
    "gpt2",
    "opt",
    "ctrl",
    "gpt_bigcode",
    "gpt_neo",
    "inkling_text",
)


def by_name(name: str) -> Decoder:
    """The decoder with this test id."""
    return next(decoder for decoder in (*DECODERS, *REFUSED) if decoder.name == name)
