"""The stages that train ``tiny-qwen``, in order. Resuming may change what is still to come."""

from __future__ import annotations

from prunus.recipes.schedule import Stage

TINY_QWEN = (
    # the tower alone: crowded images of all sizes, crowded videos
    Stage("naming", "naming", steps=500, rate=2e-3, objects=(16, 26), decay=0.35, videos=0.35),
    # the language model meets objects among few background tokens, at their true places ...
    Stage(
        "answers-few", "answers", steps=500, rate=1.2e-3, tokens=72, reuse=4, decay=0.1, videos=0.5
    ),
    # ... then few or many, so that the share of background tells nothing about a count ...
    Stage(
        "answers-varied",
        "answers",
        steps=200,
        rate=1e-3,
        tokens=64,
        most=324,
        reuse=5,
        decay=0.05,
        warmup=20,
        videos=0.5,
    ),
    # ... and at last mostly whole images and videos, as the finished model works
    Stage(
        "answers-most",
        "answers",
        steps=480,
        rate=9e-4,
        tokens=52,
        most=420,
        reuse=5,
        decay=0.75,
        warmup=10,
        videos=0.5,
    ),
    # a short end with down to 40 tokens, at a low rate
    Stage(
        "answers-last",
        "answers",
        steps=160,
        rate=4e-4,
        tokens=40,
        most=420,
        reuse=5,
        decay=0.9,
        warmup=10,
        videos=0.5,
    ),
)
