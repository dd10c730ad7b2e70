"""The report of one prompt: a plain dictionary, and how it reads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


class Report(dict[str, Any]):
    """A plain dictionary with a readable ``str``.

    Keys: ``method`` (str), ``pruned`` (bool), ``samples`` (int), ``idle`` (samples in which a
    method that decides by itself found nothing to do), and, each the mean over the samples of the
    last prompt, ``stages`` (list, in running order: ``method``, ``place``, ``layer``, visual tokens
    ``before`` and ``after``; where a method decides by itself ``labels``, what happened to how many
    samples; where attention was edited ``edits`` and ``forgets``);
    ``tokens``: ``original``, ``nominal`` (what was asked for; None where the method finds its own
    count), ``kept`` (visual tokens left at the last layer), ``average`` (visual tokens per decoder
    layer: the true budget), ``resident`` (visual tokens per layer left in the KV cache) and
    ``per_layer`` (list); ``flops`` (of the prefill): ``dense`` and ``pruned``, each with
    ``encoder``, ``projector``, ``method``, ``llm``, ``total``, and ``ratio``, ``encoder_ratio``,
    ``llm_ratio``, ``formula``;
    ``kv_bytes`` (after the prefill, text included): ``dense``, ``pruned``, ``ratio``;
    ``visual_attention``: pairs of any query and a visual key that were computed, over all layers:
    ``dense``, ``pruned``, ``ratio``; ``published``: by method, cost figures as its paper defines
    them, which are nominal; ``uncounted``: by key, why ``flops`` or ``kv_bytes`` are None (a
    mixture of experts, a tower of an unknown kind): token counts are there all the same;
    ``notes``: what methods say of a run that numbers do not tell.
    """

    def __str__(self) -> str:
        tokens, flops, kv = self["tokens"], self["flops"], self["kv_bytes"]
        in_tower = any(stage["place"] == "encoder" for stage in self["stages"])
        nominal = (
            "its own count" if tokens["nominal"] is None else f"{round(tokens['nominal'], 1):g}"
        )
        stages = [f"  {_stage(stage, self['samples'])}" for stage in self["stages"]]
        lines = [
            f"method          {self['method']}" + ("" if self["pruned"] else "  (nothing pruned)"),
            f"visual tokens   {tokens['original']:g} -> {tokens['kept']:g} at the last layer "
            f"(asked for {nominal})",
            *(stages if len(stages) > 1 or in_tower or self["published"] else []),
            f"  true average  {tokens['average']:.1f} per layer; "
            f"{tokens['resident']:.1f} per layer in the KV cache",
            "prefill FLOPs   not counted"
            if flops is None
            else f"prefill FLOPs   {flops['dense']['total']:.3e} -> {flops['pruned']['total']:.3e} "
            f"({flops['ratio']:.1%}); language model alone {flops['llm_ratio']:.1%}"
            + (
                f", vision tower {flops['encoder_ratio']:.1%}" if flops["encoder_ratio"] < 1 else ""
            ),
            "KV cache        not counted"
            if kv is None
            else f"KV cache        {kv['dense']:,.0f} -> {kv['pruned']:,.0f} bytes "
            f"({kv['ratio']:.1%})",
        ]
        if any("edits" in stage for stage in self["stages"]):
            lines.append(
                f"attention       {self['visual_attention']['ratio']:.1%} of all pairs with "
                "a visual key were computed"
            )
        for method, figures in self["published"].items():
            words = ", ".join(f"{name} {value:.4g}" for name, value in figures.items())
            lines.append(f"as published    {method}: {words} (nominal)")
        if self["idle"]:
            lines.append(
                f"NOTE            in {self['idle']} of {self['samples']} samples "
                f"{self['method']} found nothing to do: their tokens all stayed"
            )
        notes = (*self["uncounted"].values(), *self["notes"])
        lines += [f"NOTE            {why}" for why in dict.fromkeys(notes)]
        return "\n".join(lines)


_TEXT = {
    "cut": "text does not see the image",
    "half": "text sees the last half of the image",
    "merge": "text sees one visual token with the weight of all",
}


def _stage(stage: dict[str, Any], samples: int) -> str:
    if "edits" in stage:
        parts = []
        for edit in stage["edits"]:
            words = [_TEXT[edit["text"]]] if edit["text"] != "keep" else []
            words += ["visual tokens do not see each other"] if edit["visual"] == "cut" else []
            parts.append(f"{spans(edit['layers'])}: {', '.join(words)}")
        if stage["forgets"]:
            parts.append(f"no visual tokens in the cache of {spans(stage['forgets'])}")
        return f"{stage['method']}, {'; '.join(parts)}"
    places = {"encoder": "in the vision tower", "features": "before the language model"}
    where = places.get(stage["place"], f"at decoder layer {stage['layer']}")
    labels = stage.get("labels", {}).items()
    why = ", ".join(label if samples == 1 else f"{label}: {n} of {samples}" for label, n in labels)
    counts = f"{stage['before']:g} -> {stage['after']:g}"
    return f"{stage['method']} {where}: {counts}" + (f" ({why})" if why else "")


def spans(layers: Sequence[int]) -> str:
    """``[0, 1, 2, 5]`` as ``layers 0-2, 5``."""
    parts: list[list[int]] = []
    for layer in sorted(layers):
        if parts and layer == parts[-1][-1] + 1:
            parts[-1].append(layer)
        else:
            parts.append([layer])
    words = ", ".join(str(p[0]) if len(p) == 1 else f"{p[0]}-{p[-1]}" for p in parts)
    return f"layers {words}" if len(layers) > 1 else f"layer {words}"
