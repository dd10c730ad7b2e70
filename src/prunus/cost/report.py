"""Draws up the report of a run from what the engine recorded."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, Protocol

from prunus.cost.edits import edit_work
from prunus.cost.flops import FORMULA, prefill_flops
from prunus.cost.kv import kv_bytes
from prunus.cost.shapes import DecoderShape, read_shape
from prunus.errors import PrunusError
from prunus.method.base import Edit, Seen
from prunus.results.events import in_order
from prunus.results.record import Record
from prunus.results.report import Report


class HasConfig(Protocol):
    """A model family's adapter, of which only the Hugging Face configuration is read."""

    config: Any


def build_report(record: Record, family: HasConfig, method_name: str) -> Report:
    """The :class:`~prunus.results.report.Report` of the last prompt: means over samples.

    Args:
        record: what the engine wrote down during the prefill.
        family: the adapter of the model.
        method_name: what to call the method in the report.

    Raises:
        PrunusError: nothing has run yet, the record does not fit the model's number of layers, or
            the architecture's cost is unknown.
    """
    samples = record.samples
    if samples == 0:
        raise PrunusError("there is nothing to report yet: run the model on a prompt first")
    shape = read_shape(family.config)
    depth = shape.decoder.layers
    if len(record.per_layer) != depth or len(record.resident) != depth:
        raise PrunusError(
            f"the record has {len(record.per_layer)} layers run and {len(record.resident)} in the "
            f"cache, the model has {depth}"
        )

    inside = [entry for entry in record.entries if entry.place == "encoder"]
    merges = inside[0].steps if inside else None
    dense: list[dict[str, float]] = []
    pruned: list[dict[str, float]] = []
    edits = {layer: edit for entry in record.entries for layer, edit in entry.edits.items()}
    pairs: list[tuple[float, float]] = []  # query and visual key: dense, computed
    dense_bytes: list[float] = []
    pruned_bytes: list[float] = []
    for sample in range(samples):
        text, images = record.text[sample], record.images[sample]
        full = [text + record.original[sample]] * depth
        dense.append(prefill_flops(shape, full, images))
        visual = [layer[sample] for layer in record.per_layer]
        behind = record.behind[sample] if edits else 0
        work = edit_work(shape.decoder, edits, visual, text, behind)
        original = record.original[sample]
        ran = sum(n * (n + text) - cut for n, cut in zip(visual, work.pairs, strict=True))
        pairs.append((depth * original * (original + text), ran))
        pruned.append(
            prefill_flops(
                shape,
                [text + n for n in visual],
                images,
                merges=None if merges is None else merges[sample],
                method_macs=record.method_macs / samples + work.spent,
                saved_macs=work.saved,
            )
        )
        dense_bytes.append(kv_bytes(shape.decoder, full, record.element_size))
        resident = [text + layer[sample] for layer in record.resident]
        pruned_bytes.append(kv_bytes(shape.decoder, resident, record.element_size))

    per_layer = [_mean(layer) for layer in record.per_layer]
    resident_mean = [_mean(layer) for layer in record.resident]
    mean_original = _mean(record.original)
    flops_dense, flops_pruned = _mean_of_parts(dense), _mean_of_parts(pruned)
    changed = any(entry.edits for entry in record.entries) or any(
        layer[sample] < record.original[sample]
        for layer in (*record.per_layer, *record.resident)
        for sample in range(samples)
    )
    return Report(
        method=method_name,
        pruned=changed,
        samples=samples,
        idle=record.idle,
        stages=_stages(record, mean_original),
        tokens={
            "original": mean_original,
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
        visual_attention={
            "dense": _mean([whole for whole, _ in pairs]),
            "pruned": _mean([ran for _, ran in pairs]),
            "ratio": _ratio(sum(ran for _, ran in pairs), sum(whole for whole, _ in pairs)),
        },
        published=_published(record, shape.decoder),
        kv_bytes={
            "dense": _mean(dense_bytes),
            "pruned": _mean(pruned_bytes),
            "ratio": _mean(pruned_bytes) / _mean(dense_bytes),
        },
    )


def _published(record: Record, shape: DecoderShape) -> dict[str, dict[str, float]]:
    """The figures of each method's own paper, as means over samples with images."""
    found: dict[str, dict[str, float]] = {}
    for method in record.methods:
        figures = [
            method.published(
                shape,
                Seen(
                    record.original[sample],
                    record.text[sample],
                    [layer[sample] for layer in record.per_layer],
                ),
            )
            for sample in range(record.samples)
            if record.original[sample]
        ]
        if figures and figures[0]:
            found[method.name] = _mean_of_parts(figures)
    return found


def _stages(record: Record, original: float) -> list[dict[str, Any]]:
    """What each selection left, as means over samples."""
    stages, before = [], original
    for entry in in_order(record.entries):
        after = before
        if entry.place != "attention":
            after = _mean([sum(len(kept) for kept in images) for images in entry.kept])
        stage: dict[str, Any] = {
            "method": entry.method,
            "place": entry.place,
            "layer": entry.layer,
            "before": before,
            "after": after,
        }
        if entry.edits or entry.forgets:
            stage |= {"edits": _by_edit(entry.edits), "forgets": list(entry.forgets)}
        if entry.labels is not None:
            stage["labels"] = dict(Counter(_one(labels) for labels in entry.labels if any(labels)))
        stages.append(stage)
        before = after
    return stages


def _by_edit(edits: Mapping[int, Edit]) -> list[dict[str, Any]]:
    """Layers that are edited alike, together."""
    groups: dict[Edit, list[int]] = {}
    for layer, edit in sorted(edits.items()):
        groups.setdefault(edit, []).append(layer)
    return [{"layers": layers, **asdict(edit)} for edit, layers in groups.items()]


def _one(labels: Sequence[str]) -> str:
    """What happened to a sample, whose images share their fate."""
    return next(label for label in labels if label)


def _mean(values: Sequence[float]) -> float:
    return float(sum(values)) / len(values)


def _ratio(part: float, whole: float) -> float:
    """1 where there is nothing, as in a prompt without images."""
    return part / whole if whole else 1.0


def _mean_of_parts(parts: Sequence[dict[str, float]]) -> dict[str, float]:
    return {key: _mean([part[key] for part in parts]) for key in parts[0]}
