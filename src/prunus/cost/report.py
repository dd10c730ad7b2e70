"""Draws up the report of a run from what the engine recorded."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from prunus.cost.flops import FORMULA, prefill_flops
from prunus.cost.kv import kv_bytes
from prunus.cost.shapes import read_shape
from prunus.trace import Record, Report


class HasConfig(Protocol):
    """A model family's adapter, of which only the Hugging Face configuration is read."""

    config: Any


def build_report(record: Record, family: HasConfig, method_name: str) -> Report:
    """The :class:`~prunus.trace.Report` of the last prompt; every figure is a mean over samples.

    Args:
        record: what the engine wrote down during the prefill.
        family: the adapter of the model.
        method_name: what to call the method in the report.

    Raises:
        ValueError: nothing has run yet, the record does not fit the model's number of layers, or
            the architecture's cost is unknown.
    """
    samples = record.samples
    if samples == 0:
        raise ValueError("there is nothing to report yet: run the model on a prompt first")
    shape = read_shape(family.config)
    depth = shape.decoder.layers
    if len(record.per_layer) != depth or len(record.resident) != depth:
        raise ValueError(
            f"the record has {len(record.per_layer)} layers run and {len(record.resident)} in the "
            f"cache, the model has {depth}"
        )

    inside = [entry for entry in record.entries if entry.place == "encoder"]
    merges = inside[0].steps if inside else None
    dense: list[dict[str, float]] = []
    pruned: list[dict[str, float]] = []
    dense_bytes: list[float] = []
    pruned_bytes: list[float] = []
    for sample in range(samples):
        text, images = record.text[sample], record.images[sample]
        full = [text + record.original[sample]] * depth
        dense.append(prefill_flops(shape, full, images))
        pruned.append(
            prefill_flops(
                shape,
                [text + layer[sample] for layer in record.per_layer],
                images,
                merges=None if merges is None else merges[sample],
                method_macs=record.method_macs / samples,
            )
        )
        dense_bytes.append(kv_bytes(shape.decoder, full, record.element_size))
        resident = [text + layer[sample] for layer in record.resident]
        pruned_bytes.append(kv_bytes(shape.decoder, resident, record.element_size))

    per_layer = [_mean(layer) for layer in record.per_layer]
    resident_mean = [_mean(layer) for layer in record.resident]
    original = _mean(record.original)
    flops_dense, flops_pruned = _mean_of_parts(dense), _mean_of_parts(pruned)
    changed = any(
        layer[sample] < record.original[sample]
        for layer in (*record.per_layer, *record.resident)
        for sample in range(samples)
    )
    return Report(
        method=method_name,
        pruned=changed,
        samples=samples,
        stages=_stages(record, original),
        tokens={
            "original": original,
            "nominal": None if record.nominal is None else _mean(record.nominal),
            "kept": per_layer[-1],
            "average": _mean(per_layer),
            "resident": _mean(resident_mean),
            "per_layer": per_layer,
        },
        flops={
            "dense": flops_dense,
            "pruned": flops_pruned,
            "ratio": flops_pruned["total"] / flops_dense["total"],
            "encoder_ratio": _ratio(flops_pruned["encoder"], flops_dense["encoder"]),
            "llm_ratio": flops_pruned["llm"] / flops_dense["llm"],
            "formula": FORMULA,
        },
        kv_bytes={
            "dense": _mean(dense_bytes),
            "pruned": _mean(pruned_bytes),
            "ratio": _mean(pruned_bytes) / _mean(dense_bytes),
        },
    )


def _stages(record: Record, original: float) -> list[dict[str, Any]]:
    """What each selection left, as means over samples."""
    stages, before = [], original
    for entry in record.entries:
        after = _mean([sum(len(kept) for kept in images) for images in entry.kept])
        stages.append(
            {
                "method": entry.method,
                "place": entry.place,
                "layer": entry.layer,
                "before": before,
                "after": after,
            }
        )
        before = after
    return stages


def _mean(values: Sequence[float]) -> float:
    return float(sum(values)) / len(values)


def _ratio(part: float, whole: float) -> float:
    """1 where there is nothing, as in a prompt without images."""
    return part / whole if whole else 1.0


def _mean_of_parts(parts: Sequence[dict[str, float]]) -> dict[str, float]:
    return {key: _mean([part[key] for part in parts]) for key in parts[0]}
