"""Where in the model a score finds the objects: its AUROC at every layer."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from prunus.errors import PrunusError
from prunus.evaluate.evidence import evidence
from prunus.inference.batches import Vision, encode, in_batches, left_padded
from prunus.pruners.clse import CLSE
from prunus.run import prune
from prunus.tasks.sets import EvalSet


@torch.inference_mode()
def ranking_by_layer(
    model: Any, processor: Any, data: EvalSet, batch: int = 32
) -> dict[str, list[tuple[float, float]]]:
    """For CLSE's intensity (reference: layer 0) and the attention of the last prompt token, and for
    every decoder layer from 1 on at which it might be taken: mean AUROC against the patches that
    clearly show an object, and mean share of the asked-about objects among the best ninth.

    Every layer before the cut is dense, so that scores are those of the unpruned model.

    Raises:
        PrunusError: a set without scenes.
    """
    if not data.has_scenes:
        raise PrunusError("objects are unknown: this is for the built-in evaluation set")
    vision = Vision(model)
    encoded, features = [], {}
    for number, query in enumerate(data.queries):
        one, pixels = encode(processor, number, query.text, data.images[query.image]())
        encoded.append(one)
        if query.image not in features:
            features[query.image] = vision.prepare([pixels])[0]
    found: dict[str, list[tuple[float, float]]] = {"intensity": [], "attention": []}
    for layer in range(1, len(vision.family.layers)):
        methods = {
            "intensity": CLSE(keep=1 / 9, layers=(layer,)),
            "attention": CLSE(keep=1 / 9, layers=(layer,), score_type="attn"),
        }
        for name, method in methods.items():
            seen = []
            for group in in_batches(encoded, batch):
                queries = [data.queries[one.query] for one in group]
                inputs = left_padded(
                    [one.ids for one in group], 0, [one.per_token for one in group]
                )
                inputs = {key: value.to(model.device) for key, value in inputs.items()}
                inputs |= vision.inputs([features[query.image] for query in queries])
                with prune(model, method) as run:
                    model(**inputs, logits_to_keep=1)
                    trace = run.trace
                for at, query in enumerate(queries):
                    scene = data.scenes[query.image]
                    assert scene is not None
                    seen.append(evidence(trace, at, scene, query.asked))
            found[name].append(
                (
                    float(np.nanmean([one.ranking for one in seen])),
                    float(np.nanmean([one.asked for one in seen])),
                )
            )
    return found
