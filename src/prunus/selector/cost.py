"""What a selector costs, in multiply-accumulates."""

from __future__ import annotations

from prunus.selector.config import SelectorConfig


def encoder_macs(config: SelectorConfig, tokens: int, words: int) -> float:
    """Encoder over ``tokens`` visual tokens and a question of ``words``."""
    width, length = config.width, tokens + words
    block = length * width * width * (4 + 2 * config.mlp_ratio) + 2 * length * length * width
    adapt = 0 if config.visual_width == width else tokens * config.visual_width * width
    return float(config.encoder_layers * block + words * config.text_width * width + adapt)


def decoder_macs(config: SelectorConfig, tokens: int, steps: int) -> float:
    """Pointer decoder: keys and values of the memory once, then ``steps`` cached steps."""
    width, slots = config.width, tokens + 1
    memory = config.decoder_layers * 2 * slots * width * width
    layer = width * width * (6 + 2 * config.mlp_ratio) + 2 * slots * width
    own = config.decoder_layers * width * steps * (steps + 1)  # attention over steps so far
    separate = config.pointer == "separate"
    pointer = slots * width * width + steps * (width * width + slots * width) if separate else 0
    return float(memory + steps * config.decoder_layers * layer + own + pointer)


def selector_macs(config: SelectorConfig, tokens: int, words: int, steps: int) -> float:
    """A selection of one image in ``steps`` steps (those of STOP included)."""
    total = encoder_macs(config, tokens, words)
    if config.kind == "one-shot":
        return total + tokens * config.width
    return total + decoder_macs(config, tokens, steps)
