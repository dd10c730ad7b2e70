"""The vLLM plug-in: visual tokens are chosen by the same method files, before vLLM's own language
model sees them. See docs/vllm.md.

vLLM finds :func:`register` by the entry point ``vllm.general_plugins`` in each of its processes. It
makes further architectures known; a model is pruned where its configuration names one of them, as
``prunus serve vllm`` has it (``--hf-overrides``), and else is vLLM's own.
"""

from __future__ import annotations

#: What vLLM calls the pruned classes: by prunus' name of the family, (architecture, where it is).
ARCHITECTURES = {
    "llava": ("PrunusLlavaForConditionalGeneration", "prunus.vllm.llava:PrunedLlava"),
    "llava-next": (
        "PrunusLlavaNextForConditionalGeneration",
        "prunus.vllm.llava_next:PrunedLlavaNext",
    ),
    "internvl": (
        "PrunusInternVLForConditionalGeneration",
        "prunus.vllm.internvl:PrunedInternVL",
    ),
    "qwen2-vl": ("PrunusQwen2VLForConditionalGeneration", "prunus.vllm.qwen2_vl:PrunedQwen2VL"),
    "qwen2.5-vl": (
        "PrunusQwen2_5_VLForConditionalGeneration",
        "prunus.vllm.qwen2_5_vl:PrunedQwen25VL",
    ),
    "qwen3-vl": ("PrunusQwen3VLForConditionalGeneration", "prunus.vllm.qwen3_vl:PrunedQwen3VL"),
}


def register() -> None:
    """Make the pruned architectures known to vLLM, in this process; again is harmless."""
    from vllm import ModelRegistry

    known = ModelRegistry.get_supported_archs()
    for architecture, where in ARCHITECTURES.values():
        if architecture not in known:
            ModelRegistry.register_model(architecture, where)
