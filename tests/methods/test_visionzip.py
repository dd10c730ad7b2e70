"""VisionZip against a literal reading, from the unmodified tower's own attention and keys."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import prunus
from prunus import Cut, EvoPrune, Fixed, Random, Selection, View
from prunus.families import family_of
from prunus.grid import Grid
from prunus.method.signals import Features, Summary, TowerAttention, TowerKeys
from prunus.pruners.visionzip import VisionZip
from tests.support.entering import entering, text_and_images, view_by_hand
from tests.support.families import encoded
from tests.support.family_invariants import load
from tests.support.kinds.internvl import INTERNVL
from tests.support.literal.visionzip import places, zipped
from tests.support.llava import IMAGE
from tests.support.models import Case, case_of
from tests.support.oracles.merged import merged_tower
from tests.support.oracles.merged_windows import frames_of, merged_frame
from tests.support.runs import gap, plain
from tests.support.towers import deep, prompt

KEEPS = (1, 2, 5, 12, 20, 35)
SEES = (Features(), Summary(), TowerAttention(), TowerKeys(rotary=True))


def fewer(keep: int) -> int:
    return min(round(10 * keep / 64), keep - 1)


@torch.no_grad()
def looked(model: Any, pixels: Tensor) -> list[tuple[Tensor, list[float], Tensor, Tensor | None]]:
    """Of each image by the unmodified tower: features ``[N, D]`` that the projector reads, the
    attention that ranks them, keys, and the CLS feature."""
    tower, seen = model.model.vision_tower, []
    has_cls = model.config.vision_config.model_type == "clip_vision_model"
    block = tower.encoder.layers[-2]
    handle = block.self_attn.k_proj.register_forward_hook(lambda m, a, o: seen.append(o))
    before = model.config.vision_config._attn_implementation
    tower.set_attn_implementation("eager")
    out = tower(pixels, output_hidden_states=True, output_attentions=True)
    tower.set_attn_implementation(before)
    handle.remove()
    found = []
    for states, maps, keys in zip(out.hidden_states[-2], out.attentions[-2], seen[0], strict=True):
        heads = maps.shape[0]
        rows = maps[:, 0] if has_cls else maps.mean(1)  # [H, S]: of CLS, or the mean over queries
        attention = [float(sum(rows[h, n] for h in range(heads)) / heads) for n in range(len(keys))]
        split = keys.view(len(keys), heads, -1)
        mean = sum(split[:, h] for h in range(1, heads)) + split[:, 0]
        summary = states[0] if has_cls else None
        found.append((states[has_cls:], attention[has_cls:], mean[has_cls:], summary))
    return found


def by_hand(
    case: Case, inputs: dict[str, Tensor], keep: int, few: int | None = None, cls: bool = True
) -> list[tuple[list[tuple[str, int]], Tensor]]:
    """Names and projected features ``[K, D]`` of each image, in the published order."""
    found = []
    for features, attention, keys, summary in looked(case.model, inputs["pixel_values"]):
        names, own = zipped(
            list(features),
            attention,
            list(keys),
            keep,
            fewer(keep) if few is None else few,
            summary if cls else None,
        )
        with torch.no_grad():
            found.append((names, case.model.model.multi_modal_projector(torch.stack(own)[None])[0]))
    return found


@pytest.mark.parametrize("kind", ["clip", "siglip"])
@pytest.mark.parametrize("keep", KEEPS)
@pytest.mark.parametrize("order", ["original", "published"])
def test_reads_what_the_literal_reading_made(kind: str, keep: int, order: Any) -> None:
    case, inputs = deep(kind), prompt(2)
    run, states = entering(case, VisionZip(keep=keep, order=order), inputs)
    start = 2
    for number, (names, features) in enumerate(by_hand(case, inputs, keep)):
        where = places(names, 36)
        assert run.trace[0].kept[0][number].tolist() == sorted(where)
        line = range(keep) if order == "published" else sorted(range(keep), key=where.__getitem__)
        assert gap(states[0, start : start + keep], features[list(line)]) < 1e-5
        start += keep
    # What the test would miss if all tokens were alike:
    assert keep == 1 or float(states[0, 2:start].std(0).max()) > 1e-2


@pytest.mark.parametrize(("few", "cls"), [(0, True), (0, False), (4, True), (4, False), (11, True)])
def test_other_numbers_of_contextual_tokens_and_no_cls(few: int, cls: bool) -> None:
    case, inputs = deep(), prompt(1)
    method = VisionZip(keep=12, contextual=few, cls=cls, order="published")
    _, states = entering(case, method, inputs)
    ((names, features),) = by_hand(case, inputs, 12, few, cls)
    assert [kind for kind, _ in names].count("contextual") == few
    assert gap(states[0, 2:14], features) < 1e-5


def test_published_numbers() -> None:
    for keep, few, stride in ((192, 30, 13), (128, 20, 23), (64, 10, 52)):
        generator = torch.Generator().manual_seed(keep)
        values = torch.rand(576, generator=generator)
        view = view_by_hand(
            keep,
            Grid(1, 24, 24, (14, 14)),
            states=torch.zeros(576, 4),
            attention=values,
            keys=torch.randn(576, 8, generator=generator),
            summary=torch.zeros(1, 4),
            sees=SEES,
        )
        for method in (VisionZip(keep=keep), VisionZip(**VisionZip.presets[str(keep)])):
            answer = method.select(0, view)
            rank = values.argsort(descending=True)
            dominant = set(rank[: keep - few - 1].tolist())  # CLS is one of the dominant
            rest = [token for token in range(576) if token not in dominant]
            targets = rest[: few * stride : stride]
            assert len(targets) == few and len(rest) // few == stride
            kept = set(answer.kept[0].tolist())  # type: ignore[index]
            assert len(kept) == keep and dominant | set(targets) < kept
            assert kept - dominant - set(targets) == {1 if rest[0] == 0 == targets[0] else rest[1]}


def test_the_published_example() -> None:
    """Rows 0..6, CLS first; attention 6..1; keys of the four that are left."""
    keys = torch.tensor([[1.0, 0], [1, 0], [1, 0], [0, 1], [1, 0.1], [0.1, 1]])
    states = torch.arange(1.0, 7.0)[:, None]
    view = view_by_hand(
        5,
        Grid(1, 2, 3, (8, 8)),
        states=states,
        attention=torch.arange(6.0, 0, -1),
        keys=keys,
        summary=torch.zeros(1, 1),
        sees=SEES,
    )
    answer = VisionZip(keep=5, contextual=2).select(0, view)
    assert answer.mix is not None
    made = (answer.mix[0] @ torch.cat([states, torch.zeros(1, 1)])).flatten()
    kept = answer.kept[0].tolist()
    order = VisionZip(keep=5, contextual=2, order="published").select(0, view).order
    assert order is not None
    read = [float(made[kept.index(token)]) for token in order[0].tolist()]
    assert read == pytest.approx([0, 1, 2, 3, 10])


@pytest.mark.parametrize("kind", ["clip", "siglip"])
def test_published_order_and_positions_are_a_prompt_made_by_hand(kind: str) -> None:
    case, inputs = deep(kind), prompt(1)
    ids = torch.tensor([[1, 5, *[IMAGE] * 36, 7, 8, *[IMAGE] * 36, 9, 10, 11]])
    pixels = prompt(2, seed=8)["pixel_values"]
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "pixel_values": pixels}
    words, images = case.model.get_input_embeddings(), iter(by_hand(case, inputs, 12))
    parts = [
        next(images)[1] if visual else words(ids[0, start:end]).detach()
        for visual, start, end in text_and_images(inputs, IMAGE)
    ]
    embeds = torch.cat(parts)[None]
    options = {
        "max_new_tokens": 5,
        "min_new_tokens": 5,
        "do_sample": False,
        "output_logits": True,
        "return_dict_in_generate": True,
    }
    mask = torch.ones(embeds.shape[:2], dtype=torch.long)
    expected = case.model.generate(inputs_embeds=embeds, attention_mask=mask, **options)
    method = VisionZip(keep=12, order="published")
    with prunus.prune(case.model, method, positions="compact"):
        found = case.model.generate(**inputs, **options)
        beams = case.model.generate(**inputs, **{**options, "num_beams": 3, "max_new_tokens": 5})
    assert gap(torch.stack(found.logits), torch.stack(expected.logits)) < 1e-4
    assert beams.sequences.shape[1] == found.sequences.shape[1]
    with prunus.prune(case.model, VisionZip(keep=12), positions="compact"):
        other = case.model.generate(**inputs, **options)
    assert gap(other.logits[0], expected.logits[0]) > 1e-3  # the order counts


def test_on_qwen_by_attention_received_and_rotated_keys() -> None:
    for name in ("qwen2.5-vl", "qwen2.5-vl-video"):
        case = case_of(name)
        inputs = case.prompts.rows(2)
        tower, parts = case.model.model.visual, {}
        for kind, number, grid, pixels in frames_of(inputs, 2):
            seen: list[Any] = []
            with torch.no_grad():
                features, _ = merged_frame(tower, pixels, grid, seen.append)
            own = parts.setdefault((kind, number), ([], [], []))
            own[0].extend(features[n] for n in range(grid.size))
            own[1].extend(seen[-1].received.tolist())
            own[2].extend(seen[-1].turned)
        run, states = entering(case, VisionZip(keep=7, contextual=3, order="published"), inputs)
        spots = case.prompts.spots(inputs["input_ids"])[0]
        for number, kind in enumerate(run.trace[0].kind[0]):
            index = run.trace[0].kind[0][:number].count(kind)
            names, own = zipped(*parts[kind, index], 7, 3, None)
            assert run.trace[0].kept[0][number].tolist() == sorted(token for _, token in names)
            begin = spots[number][0] - sum(len(spots[n]) - 7 for n in range(number))
            assert gap(states[0, begin : begin + 7], torch.stack(own)) < 1e-4


def test_behind_a_merge_in_the_tower_it_sees_the_survivors() -> None:
    case, inputs = deep("siglip"), prompt(1)
    first = EvoPrune(keep=20, schedule="mean", start=0)
    run, states = entering(case, [first, VisionZip(keep=8, contextual=3)], inputs)
    steps = {block: (a.tolist(), b.tolist()) for block, a, b in run.trace[0].steps[0][0]}
    assert 5 in steps  # the last block that is read merges as well
    seen: list[Any] = []

    def choose(here: Any) -> Any:
        seen.append(here)
        return steps.get(here.block)

    with torch.no_grad():
        tokens, _ = merged_tower(case.model, inputs["pixel_values"], choose)
    left = sorted(tokens)
    assert left == run.trace[0].kept[0][0].tolist()
    at = [seen[-1].order.index(token) for token in left]
    names, own = zipped(
        [tokens[token] for token in left],
        [float(seen[-1].received[n]) for n in at],
        [seen[-1].keys[n] for n in at],
        8,
        3,
        None,
    )
    assert run.trace[1].kept[0][0].tolist() == sorted(left[n] for _, n in names)
    line = sorted(range(8), key=lambda n: names[n][1])
    with torch.no_grad():
        wanted = case.model.model.multi_modal_projector(torch.stack(own)[None])[0, line]
    assert gap(states[0, 2:10], wanted) < 1e-4


@dataclasses.dataclass(frozen=True)
class Watched(Random):
    """What a stage behind another is shown of the tower."""

    seen: list[Any] = dataclasses.field(default_factory=list)

    def cuts(self, depth: int) -> Sequence[Cut]:
        return [Cut(None, (Features(),))]

    def select(self, stage: int, view: View) -> Selection:
        self.seen.extend(view[Features()])
        return super().select(stage, view)


@pytest.mark.parametrize("beams", [1, 2])
def test_who_comes_behind_it_sees_the_new_features(beams: int) -> None:
    case, inputs, watched = deep(), prompt(2), Watched(keep=5)
    with prunus.prune(case.model, [VisionZip(keep=12), watched]):
        case.model.generate(**inputs, max_new_tokens=1, num_beams=beams, do_sample=False)
    assert len(watched.seen) == 2 * beams
    for number, own in enumerate(watched.seen):
        names, features = by_hand(case, inputs, 12)[number % 2]
        line = sorted(range(12), key=places(names, 36).__getitem__)
        with torch.no_grad():
            found = case.model.model.multi_modal_projector(own[None])[0]
        assert gap(found, features[line]) < 1e-5


def test_looking_leaves_the_tower_as_it_was(case: Case) -> None:
    inputs = case.prompts.rows(2, 1)
    with torch.no_grad():
        expected = case.model(**inputs)
    with prunus.prune(case.model, VisionZip(keep=1.0)) as run, torch.no_grad():
        found = case.model(**inputs)
    assert gap(found.logits, expected.logits, inputs["attention_mask"]) < 1e-5
    assert not run.report()["pruned"]
    seen: list[Tensor] = []
    handle = family_of(case.model).projector.register_forward_hook(lambda m, a, o: seen.append(o))
    plain(case.model, inputs)
    for method in (VisionZip(keep=5), VisionZip(keep=5, contextual=0, cls=False)):
        with prunus.prune(case.model, method), torch.no_grad():
            found = case.model(**inputs)
    handle.remove()
    # Features, then new tokens of each image: what the model itself computes is bit-identical.
    whole = [own for own in seen if own.shape == seen[0].shape]
    assert all(torch.equal(own, whole[0]) for own in whole) and len(whole) >= 3
    assert gap(found.logits[:, -1], expected.logits[:, -1]) > 1e-3
    assert torch.equal(plain(case.model, inputs), expected.logits)


@pytest.mark.parametrize("order", ["original", "published"])
def test_a_replay_is_exact(case: Case, order: Any) -> None:
    inputs = case.prompts.rows(2, 0, 1)
    with prunus.prune(case.model, VisionZip(keep=6, contextual=2, order=order)) as run:
        expected = plain(case.model, inputs)
    with prunus.prune(case.model, Fixed.replay(run.trace)) as again:
        assert torch.equal(plain(case.model, inputs), expected)
    assert again.trace[0].merged_into[0][0].equal(run.trace[0].merged_into[0][0])


def test_a_cls_token_beside_projected_tokens_is_none(tmp_path: Path) -> None:
    """InternVL's tower has one, but what is merged are tokens behind the projector."""
    model, processor = load(INTERNVL, tmp_path)
    inputs = encoded(INTERNVL, processor, "V?")
    with prunus.prune(model, VisionZip(keep=4, contextual=1)) as run, torch.no_grad():
        model(**inputs)
    assert {len(kept) for kept in run.trace[0].kept[0]} == {4}
    assert run.trace[0].mix is not None
    for grid, (_, of, _) in zip(run.trace[0].grid[0], run.trace[0].mix[0], strict=True):
        assert int(of.max()) < grid.size


def test_features_computed_before_are_refused(llava: Case) -> None:
    inputs = llava.prompts.rows(1)
    with torch.no_grad():
        outside = llava.model.model.get_image_features(inputs["pixel_values"])
    ids = {"input_ids": inputs["input_ids"]}
    with prunus.prune(llava.model, VisionZip(keep=5)), torch.no_grad():
        with pytest.raises(ValueError, match="visionzip looks at the vision tower.*pass pixel"):
            llava.model(**ids, mm_encoder_outputs={"image": outside})


@pytest.mark.parametrize(
    ("params", "words"),
    [({"contextual": -1}, "contextual=-1"), ({"keep": 0}, "keep=0"), ({"order": "odd"}, "order")],
)
def test_bad_parameters(params: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        VisionZip(**params)
