"""Every signal against a literal reading of the unmodified model."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import pytest
import torch
from torch import Tensor

import prunus
from prunus import Cut, Fixed, Method, Selection
from prunus.engine import views
from prunus.engine.attention import Given
from prunus.engine.kept import Looks
from prunus.errors import PrunusError
from prunus.inference.inputs import process
from prunus.inference.prompts import render
from prunus.method.question import processor_of
from prunus.method.signals import (
    Attention,
    Features,
    Keys,
    Queries,
    Question,
    Signal,
    Source,
    States,
    Summary,
    TextMask,
    TowerAttention,
    TowerKeys,
    ValueNorm,
    Values,
)
from prunus.tasks.sample import load_sample
from tests.support.llava import IMAGE
from tests.support.models import Case, case_of

CLOSE = 2e-6


@dataclass(frozen=True)
class Looker(Method):
    """Keeps everything, and what it saw."""

    layer: Any = 2
    signals: Any = ()
    seen: Any = field(default_factory=list)

    def cuts(self, depth: int) -> list[Cut]:
        return [Cut(self.layer, tuple(self.signals))]

    def select(self, stage: int, view: prunus.View) -> Selection:
        self.seen.append((view, {signal: view[signal] for signal in self.signals}))
        return Selection(Selection.everything(view).kept)


Looker.name = "looker"  # not in its body: it is nothing to be listed


def look(case: Any, inputs: Any, layer: int | None, *signals: Any, **options: Any) -> Any:
    """The view of a prompt and what it holds, images in the order of ``owners``."""
    looker = Looker(layer, signals)
    with torch.no_grad(), prunus.prune(case.model, looker, **options):
        case.model(**inputs)
    [(view, values)] = looker.seen
    return view, values


@dataclass
class Plain:
    """What the unmodified model computes, with eager attention."""

    case: Case
    inputs: dict[str, Tensor]
    maps: Any
    states: Any
    given: list[Any]

    @property
    def images(self) -> list[tuple[int, list[int]]]:
        """Row and positions of each image."""
        spots = self.case.prompts.spots(self.inputs["input_ids"])
        return [(row, own) for row, images in enumerate(spots) for own in images]

    def text(self, row: int, places: list[int]) -> list[int]:
        """Positions of the text behind an image."""
        ids, valid = self.inputs["input_ids"][row], self.inputs["attention_mask"][row]
        visual = {p for own, spot in self.images if own == row for p in spot}
        behind = range(max(places) + 1, len(ids))
        return [p for p in behind if valid[p] and p not in visual]


@pytest.fixture
def plain(monkeypatch: pytest.MonkeyPatch) -> Plain:
    """A batch with padding: one image in its first row, two in the second."""
    from transformers.models.llama import modeling_llama

    case = case_of("llava-clip")
    case.model.set_attn_implementation("eager")
    inputs = case.prompts.rows(1, 2)
    assert not bool(inputs["attention_mask"].all())
    given: list[Any] = []
    eager = modeling_llama.eager_attention_forward

    def noted(
        module: Any, query: Tensor, key: Tensor, value: Tensor, *rest: Any, **more: Any
    ) -> Any:
        given.append((query, key, value))
        return eager(module, query, key, value, *rest, **more)

    with monkeypatch.context() as patch, torch.no_grad():
        patch.setattr(modeling_llama, "eager_attention_forward", noted)
        out = case.model(**inputs, output_attentions=True, output_hidden_states=True)
    return Plain(case, inputs, out.attentions, out.hidden_states, given)


def close(found: Tensor, wanted: Tensor) -> None:
    assert found.shape == wanted.shape
    assert float((found.float() - wanted.float()).abs().max()) <= CLOSE


def test_states(plain: Plain) -> None:
    sees = (States(1), States(1, "text"), States(normed=True), States(of="text"), TextMask())
    view, seen = look(plain.case, plain.inputs, 3, *sees)
    assert view.owners == [(0, 0), (1, 0), (1, 1)] and view.states.shape[0] == 3
    norm = plain.case.model.model.language_model.norm
    for number, (row, places) in enumerate(plain.images):
        close(view.states[number], plain.states[3][row, places])
        close(seen[States(1)][number], plain.states[1][row, places])
        with torch.no_grad():
            normed = norm(plain.states[3])
        close(seen[States(normed=True)][number], normed[row, places])
        text, there = plain.text(row, places), seen[TextMask()][number]
        assert int(there.sum()) == len(text)
        close(seen[States(1, "text")][number][there], plain.states[1][row, text])
        close(seen[States(of="text")][number][there], plain.states[3][row, text])
    assert view.states.dtype == plain.case.model.dtype


@pytest.mark.parametrize("ahead", [False, True], ids=["before", "about to run"])
@pytest.mark.parametrize("heads", ["mean", "max", "each"])
@pytest.mark.parametrize("rows", ["last", "text", "question", "visual", "next"])
def test_attention(
    plain: Plain, rows: Literal["last"], heads: Literal["mean"], ahead: bool
) -> None:
    """Without a chat template all text behind the image is the question."""
    own, each = Attention(2, rows, heads), Attention(2, rows, heads, each=True)
    _, seen = look(plain.case, plain.inputs, 2 if ahead else 3, own, each, TextMask())
    last = plain.inputs["input_ids"].shape[1] - 1
    for number, (row, places) in enumerate(plain.images):
        text = plain.text(row, places)
        if rows == "question":  # all behind the *last* image of the prompt
            text = plain.text(row, [spot for r, spot in plain.images if r == row][-1])
        lines = {"last": [last], "visual": places, "next": text[:1]}.get(rows, text)
        weights = plain.maps[2][row][:, lines][:, :, places]
        if heads != "each":
            weights = weights.mean(0) if heads == "mean" else weights.amax(0)
        wanted = weights.mean(-2)
        close(seen[own][number], wanted)
        found = seen[each][number]
        if rows in ("text", "question"):
            there = seen[TextMask()][number]
            if rows == "question":
                there = there.clone()
                there[: int(there.sum()) - len(lines)] = False
            found = found[..., there, :]
        close(found, weights)


@pytest.mark.parametrize("heads", ["mean", "max", "each"])
@pytest.mark.parametrize("rows", ["text", "visual"])
def test_a_mean_of_many_rows_is_taken_in_pieces(
    plain: Plain, rows: Literal["text"], heads: Literal["max"], monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that there never is a whole map, which of 2880 tokens would fill gigabytes."""
    signal, pieces = Attention(2, rows, heads), []
    _, whole = look(plain.case, plain.inputs, 3, signal)
    weights = Given.weights

    def counted(self: Given, index: Tensor) -> Tensor:
        found = weights(self, index)
        pieces.append(found.numel())
        return found

    heads_of = plain.case.model.config.text_config.num_attention_heads
    budget = 3 * heads_of * 2 * plain.inputs["input_ids"].shape[1]  # two rows of three images
    monkeypatch.setattr(views, "_CPU", budget)
    monkeypatch.setattr(Given, "weights", counted)
    _, seen = look(plain.case, plain.inputs, 3, signal)
    assert len(pieces) > 3 and max(pieces) <= budget
    close(seen[signal], whole[signal])


def test_a_mean_of_rows_that_are_not_there_is_refused(llava: Case) -> None:
    inputs = llava.prompts.rows(1)
    last = max(llava.prompts.spots(inputs["input_ids"])[0][0]) + 1
    inputs = {**inputs, **{n: inputs[n][:, :last] for n in ("input_ids", "attention_mask")}}
    for rows in ("text", "next"):
        with pytest.raises(PrunusError, match=f"no text stands behind .* '{rows}'"):
            look(llava, inputs, 3, Attention(2, rows))
    look(llava, inputs, 3, Attention(2, "visual"))


def test_attention_of_the_layer_that_then_runs_on_what_is_left() -> None:
    case = case_of("llava-clip")
    case.model.set_attn_implementation("eager")
    inputs = case.prompts.rows(1)
    kept, maps = [1, 2, 5, 9, 14], []
    attention = case.model.model.language_model.layers[3].self_attn
    looker = Looker(3, (Attention(3), Attention(3, "visual", each=True)))
    handle = attention.register_forward_hook(lambda *call: maps.append(call[-1][1]))
    with torch.no_grad(), prunus.prune(case.model, [Fixed(kept, layer=1), looker]):
        case.model(**inputs)
    handle.remove()
    [(_, seen)] = looker.seen
    start = case.prompts.spots(inputs["input_ids"])[0][0][0]
    places = list(range(start, start + len(kept)))
    ran = maps[-1][0].mean(0)
    close(seen[Attention(3)][0], ran[-1, places])
    close(seen[Attention(3, "visual", each=True)][0], ran[places][:, places])


def test_keys_queries_and_values(plain: Plain) -> None:
    sees = [kind(1, of) for kind in (Queries, Keys, Values) for of in ("visual", "text")]
    _, seen = look(plain.case, plain.inputs, 2, *sees, TextMask(), ValueNorm(1))
    for number, (row, places) in enumerate(plain.images):
        text, there = plain.text(row, places), seen[TextMask()][number]
        for which, kind in enumerate((Queries, Keys, Values)):
            given = plain.given[1][which][row].transpose(0, 1)
            close(seen[kind(1)][number], given[places])
            close(seen[kind(1, "text")][number][there], given[text])
        value = plain.given[1][2][row]
        repeat = plain.given[1][0].shape[1] // value.shape[0]
        close(seen[ValueNorm(1)][number] / 100, repeat * value[:, places].abs().sum((0, 2)) / 100)


def test_the_question_is_the_users_words_alone() -> None:
    model, processor = prunus.load("tiny-llava")
    assert processor_of(model) is processor
    image, questions = load_sample()
    words = questions[0].text
    inputs = process(processor, render(processor, words, ["image"]), [image])
    case = type("Loaded", (), {"model": model})()
    _, seen = look(case, inputs, 1, TextMask(), TextMask(question=True), Question())
    ids = inputs["input_ids"][0]
    image_token = model.config.image_token_id
    behind = ids[int((ids == image_token).nonzero().max()) + 1 :]
    assert int(seen[TextMask()].sum()) == len(behind)
    asked = behind[seen[TextMask(question=True)][0]]
    assert processor.tokenizer.decode(asked).strip() == words
    assert torch.equal(seen[Question()].ids[seen[Question()].question()], asked)
    _, seen = look(case, inputs, 1, TextMask(), TextMask(question=True), processor=False)
    assert torch.equal(seen[TextMask()], seen[TextMask(question=True)])


@pytest.mark.parametrize("name", ["llava-clip", "llava-siglip"])
def test_what_enters_the_projector(name: str) -> None:
    case, entered = case_of(name), []
    inputs = case.prompts.rows(1, 2)
    projector = case.model.model.multi_modal_projector
    handle = projector.register_forward_pre_hook(lambda _, args: entered.append(args[0]))
    with torch.no_grad():
        case.model(**inputs)
        handle.remove()
        tower = case.model.model.vision_tower
        out = tower(inputs["pixel_values"], output_hidden_states=True)
    _, seen = look(case, inputs, None, Features(), Summary())
    close(seen[Features()], torch.cat(entered).reshape(seen[Features()].shape))
    if name == "llava-siglip":
        assert seen[Summary()] is None
    else:
        close(seen[Summary()], out.hidden_states[-2][:, :1])


@pytest.mark.parametrize("block", [0, 1, None, "next", 0.5])
@pytest.mark.parametrize("name", ["llava-clip", "llava-siglip"])
def test_a_block_of_the_tower(name: str, block: Any) -> None:
    case = case_of(name)
    case.model.set_attn_implementation("eager")
    inputs = case.prompts.rows(1, 2)
    tower, keys, queries = case.model.model.vision_tower, [], []
    at = {None: 1, "next": 2, 0.5: 1}.get(block, block)  # two blocks are read, of three
    inner = getattr(tower, "vision_model", tower)
    attention = inner.encoder.layers[at].self_attn
    handles = [
        attention.k_proj.register_forward_hook(lambda *call: keys.append(call[-1])),
        attention.q_proj.register_forward_hook(lambda *call: queries.append(call[-1])),
    ]
    with torch.no_grad():
        maps = tower(inputs["pixel_values"], output_attentions=True).attentions[at]
    for handle in handles:
        handle.remove()
    summary, every, key = TowerAttention(block), TowerAttention(block, "all"), TowerKeys(block)
    joined, keys_joined = TowerAttention(block, heads="joined"), TowerKeys(block, heads="joined")
    _, seen = look(case, inputs, None, summary, every, key, joined, keys_joined)
    first = 1 if name == "llava-clip" else 0
    close(seen[every], maps.mean((1, 2))[:, first:])
    close(seen[summary], maps.mean(1)[:, 0, 1:] if first else maps.mean((1, 2)))
    heads = keys[0].unflatten(-1, (attention.num_heads, -1)).mean(2)
    close(seen[key], heads[:, first:])
    close(seen[keys_joined], keys[0][:, first:])
    dots = torch.einsum("gc,gnc->gn", queries[0][:, 0], keys[0]) / keys[0].shape[-1] ** 0.5
    close(seen[joined], dots.softmax(1)[:, 1:] if first else maps.mean((1, 2)))


def test_the_block_behind_those_that_are_read_is_another_for_each_model(llava: Case) -> None:
    inputs = llava.prompts.rows(1)
    _, seen = look(llava, inputs, None, TowerAttention(), TowerAttention("next"))
    assert float((seen[TowerAttention()] - seen[TowerAttention("next")]).abs().max()) > 1e-4
    for signal in (TowerAttention(2), TowerAttention(1.0), TowerAttention(-1)):
        with pytest.raises(PrunusError, match="blocks 0 to 1 that reach the projector"):
            look(llava, inputs, None, signal)
    with pytest.raises(PrunusError, match="heads='joined'"):
        TowerAttention(rows="all", heads="joined")
    llava.model.config.vision_feature_layer = -1  # the last is read: there is none behind it
    _, seen = look(llava, inputs, None, TowerAttention(), TowerAttention("next"))
    assert torch.equal(seen[TowerAttention()], seen[TowerAttention("next")])


def test_keys_of_a_tower_with_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of Qwen2.5-VL: four patches make a token; behind rotary embedding, as attention has them."""
    from transformers.models.qwen2_5_vl import modeling_qwen2_5_vl as qwen
    from transformers.vision_utils import get_vision_window_index

    case, rotated, bare = case_of("qwen2.5-vl"), [], []
    inputs = case.prompts.rows(1)
    tower = case.model.model.visual
    original = qwen.apply_rotary_pos_emb_vision

    def noted(query: Tensor, key: Tensor, *rest: Any) -> Any:
        found = original(query, key, *rest)
        bare.append(key)
        rotated.append(found[1])
        return found

    with monkeypatch.context() as patch, torch.no_grad():
        patch.setattr(qwen, "apply_rotary_pos_emb_vision", noted)
        tower(inputs["pixel_values"], grid_thw=inputs["image_grid_thw"])
    order, _ = get_vision_window_index(
        inputs["image_grid_thw"], tower.spatial_merge_size, tower.window_size, tower.patch_size
    )
    back = torch.as_tensor(order).argsort()
    block = len(tower.blocks) - 1
    signals = [
        TowerKeys("next", rotary, heads) for rotary in (False, True) for heads in ("mean", "joined")
    ]
    _, seen = look(case, inputs, None, TowerKeys(block), *signals)
    unit = tower.spatial_merge_unit
    for signal in signals:
        own = (rotated if signal.rotary else bare)[block]
        tokens = own.unflatten(0, (-1, unit)).mean(1)[back]
        close(seen[signal][0], tokens.mean(1) if signal.heads == "mean" else tokens.flatten(1))
    assert torch.equal(seen[TowerKeys(block)], seen[signals[0]])


# -- asking ------------------------------------------------------------------------------------


def test_what_was_not_asked_for_is_refused_by_name(llava: Case) -> None:
    looker = Looker(2, (Keys(1), Attention(1)))
    refused = []

    def select(self: Looker, stage: int, view: prunus.View) -> Selection:
        for signal in (Attention(0), Keys(1, "text"), Features(), TextMask()):
            with pytest.raises(PrunusError) as told:
                view[signal]
            refused.append(str(told.value))
        return Selection.everything(view)

    with pytest.MonkeyPatch.context() as patch, torch.no_grad():
        patch.setattr(Looker, "select", select)
        with prunus.prune(llava.model, looker):
            llava.model(**llava.prompts.rows(1))
    assert refused[0].startswith(
        "Attention(layer=0, rows='last', heads='mean', each=False) was not"
    )
    assert all(
        "name it in Cut(sees=...), which has Keys(layer=1, of='visual')" in r for r in refused
    )


def test_nothing_is_kept_or_computed_that_nobody_asks_for(
    llava: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    kept: list[int] = []
    see, note = Looks.see, Looks.note

    def seeing(self: Looks, layer: int, *rest: Any) -> None:
        seen.append(layer)
        see(self, layer, *rest)

    def noting(self: Looks, layer: int, *rest: Any) -> None:
        note(self, layer, *rest)
        kept.append(len(self._kept))

    monkeypatch.setattr(Looks, "see", seeing)
    monkeypatch.setattr(Looks, "note", noting)
    inputs = llava.prompts.rows(1)
    look(llava, inputs, 3)
    assert not seen and not any(kept)
    look(llava, inputs, 3, States(1))
    assert not seen and max(kept) == 1
    look(llava, inputs, 3, Keys(2))
    assert seen == [2]


@dataclass(frozen=True)
class Loudest(Signal[Tensor]):
    """A signal that prunus does not know: the largest key of each token in ``layer``."""

    layer: int
    keeps: ClassVar[Literal["states", "row", "all"]] = "row"

    def read(self, source: Source) -> Tensor:
        there = source.layer(self.layer)
        return there.pick(there.given.key.float().abs().amax((1, 3)))


def test_a_new_signal_is_one_small_class(plain: Plain) -> None:
    calls: list[int] = []
    read = Loudest.read

    def counted(self: Loudest, source: Source) -> Tensor:
        calls.append(self.layer)
        return read(self, source)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Loudest, "read", counted)
        view, seen = look(plain.case, plain.inputs, 3, Loudest(1))
        assert view[Loudest(1)] is seen[Loudest(1)] and calls == [1]  # read once
    for number, (row, places) in enumerate(plain.images):
        close(seen[Loudest(1)][number], plain.given[1][1][row][:, places].abs().amax((0, 2)))


def test_placeholders_that_are_no_cells_are_no_text() -> None:
    """The CLS place of a second image, and what the first one's text is."""
    case = case_of("llava-clip-full")
    inputs = case.prompts.rows(2)
    _, seen = look(case, inputs, 2, TextMask(), States(1, "text"))
    there, states = seen[TextMask()], seen[States(1, "text")]
    with torch.no_grad():
        plain = case.model(**inputs, output_hidden_states=True).hidden_states[1]
    ids = inputs["input_ids"][0]
    for number, places in enumerate(case.prompts.spots(inputs["input_ids"])[0]):
        text = [at for at in range(places[-1] + 1, len(ids)) if ids[at] != IMAGE]
        assert int(there[number].sum()) == len(text)
        close(states[number][there[number]], plain[0, text])
