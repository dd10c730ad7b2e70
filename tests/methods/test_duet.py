"""DUET-VLM against a literal reading: what enters the language model, who stays in it, who goes."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import prunus
from prunus import Fixed
from prunus.errors import PrunusError
from prunus.pruners.duet import Duet
from tests.methods.test_visionzip import looked
from tests.support.entering import entering
from tests.support.facts import counts
from tests.support.literal.clse import best
from tests.support.literal.duet import dueted
from tests.support.literal.inside import behind, drop, number_of, rotated, softmax
from tests.support.literal.visionzip import places
from tests.support.models import Case
from tests.support.oracles.layered import Line, walk
from tests.support.oracles.layered import entering as embedded
from tests.support.oracles.made import made
from tests.support.runs import gap, plain
from tests.support.towers import deep, prompt


@pytest.mark.parametrize("kind", ["clip", "siglip"])
@pytest.mark.parametrize(("keep", "few"), [(3, None), (7, 2), (12, 0), (15, 4), (21, 9), (1, 3)])
@pytest.mark.parametrize("order", ["original", "published"])
def test_what_enters_is_the_literal_reading(
    kind: str, keep: int, few: int | None, order: Any
) -> None:
    case, inputs = deep(kind, depth=3), prompt(2)
    method = Duet(keep=keep, contextual=few, order=order, layers=(1, 2))
    run, states = entering(case, method, inputs)
    count, start = counts(method, 36, 3)[0], 2
    wanted = min(round(35 * count / 205) if few is None else few, count - 1)
    for number, (features, attention, keys, cls) in enumerate(
        looked(case.model, inputs["pixel_values"])
    ):
        summary = cls if count > wanted else None
        names, own = dueted(list(features), attention, list(keys), count, wanted, summary)
        where = places(names, 36) if summary is not None else [token for _, token in names]
        assert run.trace[0].kept[0][number].tolist() == sorted(where) and len(own) == count
        line = list(range(count))
        if order == "original":
            line.sort(key=where.__getitem__)
        with torch.no_grad():
            features = case.model.model.multi_modal_projector(torch.stack(own)[None])[0, line]
        assert gap(states[0, start : start + count], features) < 1e-5
        start += count


def text_rows(line: Line, spots: list[list[int]], own: list[int]) -> list[float]:
    """Mean over heads and over all text behind the image at ``own`` of attention in the layer that
    is about to run."""
    query = rotated(line, line.layer, line.states, "q")
    keys = rotated(line, line.layer, line.states, "k")
    shared, total = query.shape[1] // keys.shape[1], [0.0] * len(line.tokens)
    rows = line.slots(behind(line, line.tokens, own, spots))
    for row in rows:
        for head in range(query.shape[1]):
            one = query[row, head]
            dots = [
                float(one @ keys[slot, head // shared]) / len(one) ** 0.5 for slot in range(row + 1)
            ]
            for slot, weight in enumerate(softmax(dots)):
                total[slot] += weight
    return [value / len(rows) / query.shape[1] for value in total]


@pytest.mark.parametrize("positions", ["compact", "original"])
def test_half_stay_by_the_text_behind_the_image_and_then_none(case: Case, positions: Any) -> None:
    """By unmodified layers that are called one by one on what the first stage left."""
    inputs = case.prompts.rows(2, 1)
    method = Duet(keep=5, layers=(1, 3), positions=positions)
    with prunus.prune(case.model, method) as run:
        logits = plain(case.model, inputs)
    assert [entry.layer for entry in run.trace] == [None, 1, 3]
    spots = case.prompts.spots(inputs["input_ids"])
    compact = positions == "compact" and case.name.startswith("llava")
    with made(case.model, inputs, run.trace, spots):
        embeds = embedded(case.model, inputs)
    for row, own in enumerate(spots):
        chosen: list[list[int]] = []

        def cut(line: Line, row: int = row, own: Any = own, chosen: Any = chosen) -> None:
            if line.layer == 0:
                first = run.trace[0]
                drop(line, own, [kept.tolist() for kept in first.kept[row]])
            elif line.layer == 1:
                for image, at in enumerate(own):
                    there, scores = number_of(line, at), text_rows(line, own, at)
                    count = counts(method, len(at), 5)[1]
                    slots = line.slots([at[number] for number in there])
                    kept = best([scores[slot] for slot in slots], count)
                    chosen.append([there[n] for n in kept])
                    assert run.trace[1].kept[row][image].tolist() == chosen[-1]
                drop(line, own, chosen)
                line.closed = compact
            elif line.layer == 3:
                drop(line, own, [[] for _ in own])

        line, found = walk(case.model, inputs, row, cut, embeds=embeds)
        assert len(chosen) == len(own)
        assert not {place for at in own for place in at} & set(line.tokens)
        assert gap(logits[row, line.tokens], found) < 1e-4


@pytest.mark.parametrize("name", ["192", "128", "64"])
def test_presets_average_what_they_say(name: str) -> None:
    method = Duet(**Duet.presets[name])  # type: ignore[arg-type]
    first, second, last = counts(method, 576, 32)
    assert (first, method.contextual) == {"192": (307, 7), "128": (205, 35), "64": (102, 17)}[name]
    assert second == first // 2 and last == 0
    assert [cut.layer for cut in method.cuts(32)] == [None, 16, 24]
    assert [cut.layer for cut in method.cuts(28)] == [None, 14, 21]
    assert abs((16 * first + 8 * second) / 32 - int(name)) < 0.5


def test_no_layer_behind_holds_vision(llava: Case) -> None:
    inputs = llava.prompts.rows(1)
    with prunus.prune(llava.model, Duet(keep=5, layers=(1, 2))) as run, torch.no_grad():
        out = llava.model(**inputs, use_cache=True)
        more = llava.model.generate(**inputs, max_new_tokens=3, do_sample=False)
    text = int((inputs["input_ids"] != 100).sum())
    cache = out.past_key_values if hasattr(out, "past_key_values") else out.cache
    held = [layer.keys.shape[2] for layer in cache.layers]
    assert held[0] > held[1] > text and set(held[2:]) == {text}
    assert more.shape[1] and run.report()["tokens"]["kept"] == 0


@pytest.mark.parametrize("order", ["original", "published"])
def test_a_replay_is_exact(case: Case, order: Any) -> None:
    inputs = case.prompts.rows(2, 0, 1)
    with prunus.prune(case.model, Duet(keep=6, contextual=2, order=order)) as run:
        expected = plain(case.model, inputs)
    with prunus.prune(case.model, Fixed.replay(run.trace)):
        assert torch.equal(plain(case.model, inputs), expected)


def test_bad_parameters() -> None:
    for params, words in (
        ({"contextual": -1}, "contextual=-1"),
        ({"keep": 0}, "keep=0"),
        ({"layers": (3,)}, "name two"),
    ):
        with pytest.raises(PrunusError, match=words):
            Duet(**params)  # type: ignore[arg-type]
    case, inputs = deep(depth=3), prompt(1)
    inputs["pixel_values"][0, 0, 0, 0] = float("nan")
    with pytest.raises(PrunusError, match="duet: scores hold NaN"):
        entering(case, Duet(keep=4, layers=(1, 2)), inputs)
