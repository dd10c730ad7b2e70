"""Draws up the report of a run from what the engine recorded."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any, Protocol, TypeVar

from prunus.cost.edits import EditWork, edit_work
from prunus.cost.flops import FORMULA, prefill_flops
from prunus.cost.kv import kv_bytes
from prunus.cost.tower import by_pass
from prunus.errors import PrunusError
from prunus.families.shapes import CacheShape, DecoderShape, ModelShape, ProjectorShape, TowerShape
from prunus.grid import Grid
from prunus.method import Edit, Published, Remarking, Seen
from prunus.results.events import in_order
from prunus.results.record import Record
from prunus.results.report import Report


class Costed(Protocol):
    """What is asked of a model family's adapter."""

    config: Any

    def decoder_shape(self, config: Any) -> DecoderShape:
        """What the language model costs."""

    def cache_shape(self, config: Any) -> CacheShape:
        """What its cache holds."""

    def tower_shapes(self, config: Any) -> tuple[TowerShape, ProjectorShape]:
        """What tower and projector cost."""

    def cost_note(self, config: Any) -> str:
        """What numbers of FLOPs do not tell; "" where they tell all."""

    def tower_grids(self, grid: Any) -> Sequence[Grid]:
        """What the vision tower works on for one input, pass by pass."""


T = TypeVar("T")


def build_report(record: Record, family: Costed, method_name: str) -> Report:
    """The :class:`~prunus.results.report.Report` of the last prompt: means over samples.

    What cannot be counted for this architecture is None, and ``uncounted`` says why.

    Args:
        record: what the engine wrote down during the prefill.
        family: the adapter of the model.
        method_name: what to call the method in the report.

    Raises:
        PrunusError: nothing has run yet, or the record does not fit the model's number of layers.
    """
    samples = record.samples
    if samples == 0:
        raise PrunusError("there is nothing to report yet: run the model on a prompt first")
    uncounted: dict[str, str] = {}
    shape = _readable(
        lambda config: ModelShape(family.decoder_shape(config), *family.tower_shapes(config)),
        family.config,
        "flops",
        uncounted,
    )
    cache = _readable(family.cache_shape, family.config, "kv_bytes", uncounted)
    depth = len(record.per_layer) if cache is None else cache.layers
    if len(record.per_layer) != depth or len(record.cached) != depth:
        raise PrunusError(
            f"the record has {len(record.per_layer)} layers run and {len(record.cached)} in the "
            f"cache, the model has {depth}"
        )

    decoder = None if shape is None else shape.decoder
    edits = {layer: edit for entry in record.entries for layer, edit in entry.edits.items()}
    works, pairs = [], []  # pairs of query and visual key: dense, computed
    for sample, (text, original) in enumerate(zip(record.text, record.original, strict=True)):
        visual = [layer[sample] for layer in record.per_layer]
        behind = record.behind[sample] if edits else 0
        work = edit_work(decoder, edits, visual, text, behind)
        works.append(work)
        ran = sum(n * (n + text) - cut for n, cut in zip(visual, work.pairs, strict=True))
        pairs.append((depth * original * (original + text), ran))

    flops = None
    if shape is not None:
        counted: ModelShape = shape
        flops = _readable(
            lambda _: _flops(record, family, counted, works), None, "flops", uncounted
        )
    per_layer = [_mean(layer) for layer in record.per_layer]
    resident_mean = [_mean(layer) for layer in record.resident]
    mean_original = _mean(record.original)
    fewer = [(layer, record.original) for layer in record.per_layer]
    fewer += zip(record.cached, record.cached_dense, strict=True)
    changed = any(entry.edits for entry in record.entries) or any(
        now < before for ours, dense in fewer for now, before in zip(ours, dense, strict=True)
    )
    return Report(
        method=method_name,
        pruned=changed,
        samples=samples,
        idle=len(record.idle),
        stages=_stages(record, mean_original),
        tokens={
            "original": mean_original,
            "nominal": None if record.nominal is None else _mean(record.nominal),
            "kept": per_layer[-1],
            "average": _mean(per_layer),
            "resident": _mean(resident_mean),
            "per_layer": per_layer,
        },
        flops=flops,
        visual_attention={
            "dense": _mean([whole for whole, _ in pairs]),
            "pruned": _mean([ran for _, ran in pairs]),
            "ratio": _ratio(sum(ran for _, ran in pairs), sum(whole for whole, _ in pairs)),
        },
        published={} if decoder is None else _published(record, decoder),
        kv_bytes=None if cache is None else _kv_bytes(record, cache),
        uncounted=uncounted,
        notes=_notes(record, depth) + ([why] if (why := family.cost_note(family.config)) else []),
    )


def _readable(
    read: Callable[[Any], T], config: Any, name: str, uncounted: dict[str, str]
) -> T | None:
    """What ``read`` finds in ``config``; where that is nothing, ``uncounted[name]`` says why."""
    try:
        return read(config)
    except PrunusError as error:
        uncounted[name] = str(error)
        return None


def _flops(
    record: Record, family: Costed, shape: ModelShape, works: Sequence[EditWork]
) -> dict[str, Any]:
    """FLOPs of the prefill, without and with pruning."""
    inside = [entry for entry in record.entries if entry.place == "encoder"]
    merges = inside[0].steps if inside else None
    dense: list[dict[str, float]] = []
    pruned: list[dict[str, float]] = []
    for sample, work in enumerate(works):
        text = record.text[sample]
        passes = [family.tower_grids(grid) for grid in record.images[sample]]
        seen = [own for parts in passes for own in parts]
        steps = None
        if merges is not None:
            inputs = zip(merges[sample], record.images[sample], passes, strict=True)
            steps = [own for one, grid, parts in inputs for own in by_pass(one, grid, parts)]
        dense.append(
            prefill_flops(shape, [text + record.original[sample]] * shape.decoder.layers, seen)
        )
        pruned.append(
            prefill_flops(
                shape,
                [text + layer[sample] for layer in record.per_layer],
                seen,
                merges=steps,
                method_macs=record.method_macs / record.samples + work.spent,
                saved_macs=work.saved,
                entering=text + record.original[sample],
            )
        )
    before, after = _mean_of_parts(dense), _mean_of_parts(pruned)
    return {
        "dense": before,
        "pruned": after,
        "ratio": after["total"] / before["total"],
        "encoder_ratio": _ratio(after["encoder"], before["encoder"]),
        "llm_ratio": after["llm"] / before["llm"],
        "formula": FORMULA,
    }


def _kv_bytes(record: Record, shape: CacheShape) -> dict[str, float]:
    """Bytes of the cache behind the prefill, without and with pruning."""
    dense: list[float] = []
    pruned: list[float] = []
    for sample in range(record.samples):
        for found, layers in ((dense, record.cached_dense), (pruned, record.cached)):
            held = [layer[sample] for layer in layers]
            found.append(kv_bytes(shape, held, record.element_size))
    before, after = _mean(dense), _mean(pruned)
    return {"dense": before, "pruned": after, "ratio": after / before}


def _published(record: Record, shape: DecoderShape) -> dict[str, dict[str, float]]:
    """The figures of each method's own paper, as means over samples with images."""
    found: dict[str, dict[str, float]] = {}
    for method in record.methods:
        if not isinstance(method, Published):
            continue
        figures = [method.published(shape, seen) for seen in _seen(record) if seen.original]
        if figures and figures[0]:
            found[method.name] = _mean_of_parts(figures)
    return found


def _notes(record: Record, depth: int) -> list[str]:
    """What methods say that numbers do not tell, each once."""
    told = (m.remark(depth) for m in record.methods if isinstance(m, Remarking))
    return [note for note in dict.fromkeys(told) if note]


def _seen(record: Record) -> list[Seen]:
    """What each sample had in it."""
    return [
        Seen(record.original[one], record.text[one], [layer[one] for layer in record.per_layer])
        for one in range(record.samples)
    ]


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
