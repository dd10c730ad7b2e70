"""Why CLSE finds objects in tiny-llava and not in tiny-qwen: what layer 0 does, taken apart.

    .venv/bin/python benchmarks/why_clse.py --output docs/data/tiny-qwen/why.json \
        --figure docs/img/why-clse.png

Both models see the same 192 x 192 scenes (24 x 24 and 12 x 12 visual tokens). Layer 0 runs once
more by itself with other features, positions or a mask that lets visual tokens see less or more,
and CLSE's intensity between what enters and what leaves it is held against the tokens that show an
object. Then scores that are made of the same parts choose tokens in the whole model, and questions
are asked.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from layer0 import KEEP, Prompt, Row, content, found_by, intensity, interventions, prompts, through
from torch import Tensor

import prunus
from prunus.analyse import Context, spread
from prunus.analyse.ablations import draws
from prunus.analyse.auroc import auroc_rows, masks_of
from prunus.analyse.intervals import mean_over_images
from prunus.analyse.measure import DENSE, Setting, flat, measure, pooled
from prunus.analyse.plots import AT_INPUT, COLOURS, Drawing, band, dots, panel, save, whole_ticks
from prunus.analyse.result import plain
from prunus.analyse.signals import collect
from prunus.evaluate.output import versions
from prunus.grid import Grid
from prunus.io.files import write_text
from prunus.method import View
from prunus.method.signals import States
from prunus.pruners.clse import CLSE
from prunus.results.stats import Estimate, wilson
from prunus.signals.spectral import high_frequency
from prunus.tasks.pictures import picture
from prunus.tasks.sets import EvalSet, load_builtin_set

MODELS = ("tiny-llava", "tiny-qwen")


def readings(model: Any, own: Sequence[Prompt]) -> list[Row]:
    """Other readings of the same layer: a part of it, other channels, cut-offs, quotients."""
    states = []
    for one in own:
        added, after = through(model, one)
        states.append((one.features, added, after))
    spread_of = torch.cat([before for before, _, _ in states]).var(dim=0)
    order = spread_of.argsort(descending=True)
    rms = lambda x: x / x.pow(2).mean(dim=-1, keepdim=True).sqrt()  # noqa: E731
    found: dict[str, Callable[[Tensor, Tensor, Tensor, Grid], Tensor]] = {
        "what attention adds": lambda b, a, x, g: intensity(b, b + a, g),
        "what the MLP adds": lambda b, a, x, g: intensity(b, x - a, g),
        "behind a norm": lambda b, a, x, g: intensity(rms(b), rms(x), g),
        "growth, no quotient": lambda b, a, x, g: (content(x, g) - content(b, g)).abs(),
        "turn: S of the change": lambda b, a, x, g: content(x - b, g),
        "content that enters": lambda b, a, x, g: content(b, g),
        "content that leaves": lambda b, a, x, g: content(x, g),
    }
    for cutoff in (0.0, 0.05, 0.2, 0.3, 0.5):
        found[f"cut-off {cutoff:g}"] = lambda b, a, x, g, r=cutoff: intensity(b, x, g, r)
    for name, channels in {
        "without the 8 channels of most variance": order[8:],
        "without the 32 channels of most variance": order[32:],
        "only the 32 channels of most variance": order[:32],
    }.items():
        found[name] = lambda b, a, x, g, c=channels: intensity(b[:, c], x[:, c], g)
    top = (spread_of[order[:8]].sum() / spread_of.sum()).item()
    rows = [
        {
            "reading": name,
            **found_by(own, [read(*s, one.grid) for s, one in zip(states, own, strict=True)]),
        }
        for name, read in found.items()
    ]
    return [{"reading": "variance in 8 of the channels", "share": top}, *rows]


@torch.inference_mode()
def by_channels(model: Any, own: Sequence[Prompt]) -> list[Row]:
    """Content by layer in four groups of channels, those that vary most where visual tokens enter
    layer 0 first: on objects and on background, and how well intensity since layer 0 finds objects
    in these channels alone."""
    decoder = model.model.language_model
    order = torch.cat([one.features for one in own]).var(dim=0).argsort(descending=True)
    ways = []
    for one in own:
        given = {"inputs_embeds": one.states[None], "position_ids": one.positions}
        found = decoder(**given, use_cache=False, output_hidden_states=True).hidden_states
        ways.append([states[0][one.where] for states in found[:-1]])  # the last is behind a norm
    rows = []
    for number, group in enumerate(order.chunk(4)):
        for layer in range(len(ways[0])):
            row: Row = {"channels": number, "layer": layer}
            maps = [
                content(way[layer][:, group], one.grid) for way, one in zip(ways, own, strict=True)
            ]
            for side, flip in (("objects", False), ("background", True)):
                of = [
                    float(s[torch.from_numpy(one.objects ^ flip)].mean())
                    for s, one in zip(maps, own, strict=True)
                ]
                row[f"content_{side}"] = float(np.mean(of))
            if layer:
                scores = [
                    intensity(way[0][:, group], way[layer][:, group], one.grid)
                    for way, one in zip(ways, own, strict=True)
                ]
                row |= found_by(own, scores)
            rows.append(row)
    return rows


def words(model: Any, own: Sequence[Prompt]) -> Row:
    """Largest cosine of a visual token with a word, norms, and how far layer 0 turns a token."""
    table = model.get_input_embeddings().weight.detach()
    table = table / table.norm(dim=-1, keepdim=True)
    found: dict[str, list[float]] = {}
    for one in own:
        before, after = one.features, through(model, one)[1]
        values = {
            "cosine_word": (before / before.norm(dim=-1, keepdim=True) @ table.T).amax(dim=-1),
            "norm": before.norm(dim=-1),
            "cosine_layer_0": torch.cosine_similarity(before, after, dim=-1),
        }
        for name, of in values.items():
            for side, mask in (("objects", one.objects), ("background", ~one.objects)):
                found.setdefault(f"{name}_{side}", []).append(
                    float(of[torch.from_numpy(mask)].mean())
                )
    return {name: float(np.mean(of)) for name, of in found.items()}


@dataclass(frozen=True)
class Part(CLSE):
    """Keeps by one part of CLSE's intensity."""

    part: str = "content"

    def score(self, stage: int, view: View) -> Tensor:
        now, first = view.states.float(), view[States(self.reference)].float()
        if self.part == "turn":
            return high_frequency(now - first, view.grid, self.cutoff)
        sharp = high_frequency(now, view.grid, self.cutoff)
        if self.part == "content":
            return sharp
        return (sharp - high_frequency(first, view.grid, self.cutoff)).abs()


def answers(model: Any, processor: Any, data: EvalSet, pool: EvalSet) -> list[Row]:
    """Right answers where tokens are kept by each score at layer 1."""
    context = Context(model, processor, data, pool, batch=8)
    settings: dict[str, list[Setting]] = {
        "dense": [],
        "intensity (CLSE)": [(CLSE(KEEP),)],
        "growth, no quotient": [(Part(KEEP, part="growth"),)],
        "turn: S of the change": [(Part(KEEP, part="turn"),)],
        "content: S itself": [(Part(KEEP, part="content"),)],
        "attention": [(CLSE(KEEP, score_type="attn"),)],
        "random (3 draws)": list(draws(KEEP, 0)),
    }
    dense = measure(context, DENSE, lambda _: None)
    rows = []
    for name, several in settings.items():
        every = [measure(context, one, lambda _: None) for one in several]
        found = pooled(every) if every else dense
        share = wilson(float(found.success.sum()), len(data.queries))
        rows.append({"kept_by": name, **flat("accuracy", share)})
    return rows


def by_layer(context: Context) -> list[Row]:
    """Content on objects and on background, and AUROC of content, growth, turn and intensity."""
    notes = collect(context, lambda _: None)
    masks = masks_of(context, notes)
    assert masks is not None
    rows = []
    found = {(r["score"], r["layer"]): r for r in auroc_rows(context, notes)}
    for layer in range(context.depth):
        row: Row = {"layer": layer}
        for side, flip in (("objects", False), ("background", True)):
            values = [
                float(n.spectrum[layer][torch.from_numpy(m ^ flip)].mean())
                for n, m in zip(notes, masks, strict=True)
            ]
            row |= flat(f"content_{side}", mean_over_images(np.array(values), context.groups))
        for name in ("content", "growth", "turn", "intensity, global", "intensity, adjacent"):
            own = found.get((name, layer), {})
            for end in ("", "_low", "_high"):
                row[f"auroc_{name}{end}"] = own.get(f"objects{end}", float("nan"))
        rows.append(row)
    return rows


def draw(parts: Mapping[str, Sequence[Row]]) -> Drawing:
    """Where the content is, what finds objects, where intensity is high, and what changes that."""

    def onto(figure: Any) -> None:
        upper, lower = figure.subfigures(2, 1, height_ratios=(1, 1.15))
        axes = upper.subplots(1, 5)
        for number, name in enumerate(MODELS):
            _draw_layers(axes, number, [row for row in parts["layers"] if row["model"] == name])
        panel(axes[0], "Content S", AT_INPUT, "S")
        _draw_ratios(axes[1], parts)
        _draw_rows(axes[4], {(row["model"], row["changed"]): row for row in parts["layer 0"]})
        left, right = lower.subplots(1, 2, gridspec_kw={"width_ratios": (1.5, 1)})
        for axis, rows, name, value in (
            (left, parts["layer 0"], "changed", "kept"),
            (right, parts["answers"], "kept_by", "accuracy"),
        ):
            labels = [f"{row['model']}: {row[name]}" for row in rows]
            kinds = [MODELS.index(row["model"]) for row in rows]
            dots(axis, labels, [_of(row, value) for row in rows], 100, kinds)
            axis.set_xlim(0, 102)
        left.axvline(100 * KEEP, color="black", lw=0.9, linestyle=(0, (5, 3)))
        panel(left, "Objects' tokens among the best ninth by intensity (dashed: random)", "%", "")
        panel(right, "Right answers, a ninth of the tokens kept at layer 1", "%", "")

    return Drawing(18.0, 9.0, onto)


def _draw_layers(axes: Any, number: int, rows: Sequence[Row]) -> None:
    layers = [row["layer"] for row in rows]
    name = MODELS[number]
    for side, shift in (("objects", 0), ("background", 2)):
        band(axes[0], layers, rows, f"content_{side}", f"{name}, {side}", number + shift)
    axis = axes[2 + number]
    for place, score in enumerate(
        ("content", "growth", "intensity, global", "intensity, adjacent")
    ):
        band(axis, layers[1:], rows[1:], f"auroc_{score}", score, place)
    axis.axhline(0.5, color="black", lw=0.9, linestyle=(0, (5, 3)))
    axis.set_ylim(0, 1.02)
    panel(axis, f"{name}: finds objects", AT_INPUT, "AUROC")
    for one in (axes[0], axis):
        whole_ticks(one, layers)
        one.legend()


def _draw_ratios(axis: Any, parts: Mapping[str, Sequence[Row]]) -> None:
    for number, name in enumerate(MODELS):
        whole, groups = (
            [
                row["content_objects"] / row["content_background"]
                for row in parts[part]
                if row["model"] == name
            ]
            for part in ("layers", "channels")
        )
        layers = range(len(whole))
        of_group = np.reshape(groups, (-1, len(whole)))
        low, high = of_group.min(axis=0), of_group.max(axis=0)
        axis.fill_between(layers, low, high, color=COLOURS[number], alpha=0.25, lw=0)
        axis.plot(layers, whole, "os"[number] + "-", color=COLOURS[number], label=name, ms=3.5)
        whole_ticks(axis, layers)
    panel(axis, "S of objects / S of background", AT_INPUT, "ratio (band: quarters of channels)")
    axis.set_ylim(bottom=0)
    axis.legend()


def _draw_rows(axis: Any, cases: Mapping[tuple[str, str], Row]) -> None:
    lines = (
        ("tiny-llava", "as it is"),
        ("tiny-llava", "features without what a place has in common"),
        ("tiny-qwen", "as it is"),
        ("tiny-qwen", "features with one fixed noise added"),
        ("tiny-qwen", "attention both ways"),
    )
    for number, key in enumerate(lines):
        values = cases[key]["by_row"]
        height = (np.arange(len(values)) + 0.5) / len(values)
        label, style = ": ".join(key), "-" if number % 2 == 0 else "--"
        axis.plot(height, values, style, color=COLOURS[number], label=label, lw=1.4)
    panel(axis, "Intensity of background, 0 → 1", "height in the image (0: top)", "intensity")
    axis.set_ylim(0, 1.25)
    axis.legend(fontsize=6.5)


def _of(row: Row, name: str) -> Estimate:
    return Estimate(row[name], row[f"{name}_low"], row[f"{name}_high"])


def main() -> None:
    """Measure, write and draw."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--figure", type=Path, required=True)
    parser.add_argument("--prompts", type=int, default=70, help="for layer 0")
    parser.add_argument("--questions", type=int, default=280, help="for right answers")
    given = parser.parse_args()
    pool = load_builtin_set("scenes")
    few, many = spread(pool, given.prompts), spread(pool, given.questions)
    large = tuple(_larger(scene) for scene in few.scenes)
    models, own, fine = {}, {}, []
    names = ("layers", "channels", "readings", "words", "answers")
    parts: dict[str, list[Row]] = {name: [] for name in names}
    for name in MODELS:
        model, processor = prunus.load(name)
        models[name], own[name] = model, prompts(model, processor, few)
        measured = {
            "layers": by_layer(Context(model, processor, few, pool, batch=8)),
            "channels": by_channels(model, own[name]),
            "readings": readings(model, own[name]),
            "words": [words(model, own[name])],
            "answers": answers(model, processor, many, pool),
        }
        for part, rows in measured.items():
            parts[part] += [{"model": name, **row} for row in rows]
        if name == "tiny-qwen":
            fine = prompts(model, processor, replace(few, images=large))
    parts["layer 0"] = interventions(models, own, fine)
    settings = {"prompts": given.prompts, "questions": given.questions, "versions": versions()}
    lines = [f' "settings": {json.dumps(settings)}']
    for part, rows in parts.items():
        told = ",\n  ".join(json.dumps(plain(row)) for row in rows)
        lines.append(f' "{part}": [\n  {told}\n ]')
    write_text(given.output, "{\n" + ",\n".join(lines) + "\n}\n")
    save(draw(parts), given.figure)


def _larger(scene: Any) -> Callable[[], Any]:
    return lambda: picture(scene, (384, 384))


if __name__ == "__main__":
    main()
