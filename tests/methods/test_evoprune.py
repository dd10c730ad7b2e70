"""EvoPrune against a literal reading of its formulas, and what it promises of a tower."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

import prunus
from prunus import EvoPrune, Selection, View
from prunus.method.removals import least
from prunus.method.signals import TowerAttention
from tests.support.facts import counts as budget
from tests.support.literal.evoprune import literal
from tests.support.literal.tome import bipartite_soft_matching, tome
from tests.support.llava import TOKENS
from tests.support.models import MODELS, Case, case_of
from tests.support.oracles.merged import Pairs, Seen, merged_features, merged_tower
from tests.support.towers import deep, prompt

RECEIVED = TowerAttention(rows="all")


@pytest.fixture(params=[name for name in sorted(MODELS) if name.startswith("llava")])
def case(request: pytest.FixtureRequest) -> Case:
    """The LLaVAs; test_evoprune_windows.py is about Qwen2.5-VL."""
    return case_of(request.param)


def run_on(case: Case, method: Any, inputs: dict[str, Tensor]) -> tuple[Any, Tensor]:
    """The run, and the projected features as the language model's side is handed them."""
    with prunus.prune(case.model, method) as run, torch.no_grad():
        case.model(**inputs)
        features = case.model.model.get_image_features(inputs["pixel_values"]).pooler_output
    return run, torch.stack(list(features))


# -- sanity 1: plain ToMe, and every other part of the score, by a reading with loops --------------


VARIANTS = {
    "default": EvoPrune(keep=9),
    "tome": EvoPrune(keep=9, diversity=0.0, protect=0.0),
    "no-attention": EvoPrune(keep=9, protect=0.0),
    "no-diversity": EvoPrune(keep=9, diversity=0.0),
    "hidden": EvoPrune(keep=9, metric="hidden", tau=0.6, neighbours=3, diversity=2.0),
    "appended": EvoPrune(keep=5, order="append", schedule="mean"),
    "appended-cls": EvoPrune(keep=5, order="append", parity="cls", schedule="mean", start=0),
    "slot-cls": EvoPrune(keep=7, parity="cls", diversity=0.5),
    "proportional": EvoPrune(keep=7, proportional=True, by_size=False, start=0),
    "protected": EvoPrune(keep=10, protect=1.0, start=2),
    "infeasible-equal-steps": EvoPrune(keep=5),
    "increasing": EvoPrune(keep=6, schedule="increasing", start=0),
}


@pytest.mark.parametrize("kind", ["clip", "siglip"])
@pytest.mark.parametrize("name", sorted(VARIANTS))
def test_chooses_and_merges_as_the_literal_reading_does(kind: str, name: str) -> None:
    case, inputs, method = deep(kind), prompt(), VARIANTS[name]
    run, features = run_on(case, method, inputs)
    (entry,) = run.trace
    assert entry.place == "encoder" and entry.layer is None
    counts = list(method.merges(6, 36, budget(method, 36)[0]))
    for image in range(2):
        with torch.no_grad():
            tokens, history = merged_tower(
                case.model,
                inputs["pixel_values"][image : image + 1],
                literal(method, counts),
                method.by_size,
                method.proportional,
            )
            expected = {
                index: case.model.model.multi_modal_projector(token)
                for index, token in tokens.items()
                if index >= 0
            }
        kept = entry.kept[0][image].tolist()
        assert kept == sorted(expected) and len(kept) == method.keep
        for index in range(36):
            wanted = expected.get(index, torch.zeros(64))
            assert float((features[image, index] - wanted).abs().max()) < 1e-5
        into = entry.merged_into[0][image].tolist()
        assert {index: into.count(index) for index in kept} == history[-1]


@pytest.mark.parametrize("kind", ["clip", "siglip"])
@pytest.mark.parametrize("class_token", [False, True])
@pytest.mark.parametrize(("keep", "schedule"), [(9, "skip"), (3, "mean"), (13, "decreasing")])
def test_without_diversity_and_protection_it_is_tome(
    kind: str, class_token: bool, keep: int, schedule: Any
) -> None:
    """The pairs of a reference ToMe at every block (sanity 1). A CLS token changes who is paired in
    the first block already, and the order of the unmerged in the next."""
    case, inputs = deep(kind), prompt(1)
    method = EvoPrune(
        keep=keep,
        schedule=schedule,
        start=0,
        diversity=0.0,
        protect=0.0,
        order="append",
        parity="cls" if class_token else "tokens",
    )
    run, features = run_on(case, method, inputs)
    counts = list(method.merges(6, 36, budget(method, 36)[0]))
    chosen: list[tuple[int, list[int], list[int]]] = []
    reference = tome(counts, class_token)

    def choose(seen: Seen) -> Pairs | None:
        pairs = reference(seen)
        if pairs is not None:
            chosen.append((seen.block, *pairs))
        return pairs

    with torch.no_grad():
        tokens, _ = merged_tower(case.model, inputs["pixel_values"], choose)
    assert len(chosen) == len(run.trace[0].steps[0][0]) >= 3
    for (block, source, destination), step in zip(chosen, run.trace[0].steps[0][0], strict=True):
        ours = dict(zip(step[1].tolist(), step[2].tolist(), strict=True))
        assert block == step[0] and ours == dict(zip(source, destination, strict=True))
    for index in run.trace[0].kept[0][0].tolist():
        wanted = case.model.model.multi_modal_projector(tokens[index])
        assert float((features[0, index] - wanted).detach().abs().max()) < 1e-5


def test_the_reference_gives_the_published_example() -> None:
    """CLS, (1,0), (1,.1), (0,1), (.9,.2): one merge leaves CLS, row 4, then rows 1 and 3."""
    rows = torch.tensor([[1.0, 1.0], [1.0, 0.0], [1.0, 0.1], [0.0, 1.0], [0.9, 0.2]])
    assert bipartite_soft_matching(rows, 1, True) == ([(2, 1)], [0, 4, 1, 3])


def test_orders_and_parities_differ() -> None:
    """Four lines of tokens, four choices: none of the options is without effect."""
    case, inputs = deep(), prompt(1)
    found = set()
    for order in ("slot", "append"):
        for parity in ("tokens", "cls"):
            method = EvoPrune(keep=5, schedule="mean", order=order, parity=parity)  # type: ignore[arg-type]
            run, _ = run_on(case, method, inputs)
            found.add(tuple(run.trace[0].merged_into[0][0].tolist()))
    assert len(found) == 4


def test_with_cls_the_smaller_half_can_go() -> None:
    """Of 9 tokens and CLS, rows 2, 4, 6 and 8 give: four, where five of nine tokens alone give."""
    for keep, lowest in ((4, "tokens"), (5, "cls")):
        assert sum(EvoPrune(keep=keep, parity=lowest).merges(2, 9, keep)) == 9 - keep  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="4 of 9 visual tokens cannot be reached.*least is 5 "):
        EvoPrune(keep=4, parity="cls").merges(2, 9, 4)
    case, inputs = deep(), prompt(1)
    for keep in (1, 2, 3):  # 36, 18, 9, 5, 3, 2, 1 if every block takes all it can
        run, _ = run_on(case, EvoPrune(keep=keep, schedule="mean", start=0, parity="cls"), inputs)
        assert len(run.trace[0].kept[0][0]) == keep


# -- sanity 2 to 6 ---------------------------------------------------------------------------------


@pytest.mark.parametrize("schedule", ["skip", "mean", "last"])
def test_every_budget_is_met_exactly(schedule: Any) -> None:
    case, inputs = deep("siglip"), prompt(1)
    merging = {"skip": 3, "mean": 5, "last": 3}[schedule]
    for keep in range(least(36, merging), 37):
        run, features = run_on(case, EvoPrune(keep=keep, schedule=schedule), inputs)
        entry = run.trace[0]
        assert len(entry.kept[0][0]) == keep == run.report()["tokens"]["kept"]
        assert int((features[0] != 0).any(-1).sum()) == keep
        assert set(entry.merged_into[0][0].tolist()) == set(entry.kept[0][0].tolist())


def test_an_unreachable_budget_is_refused_before_anything_runs(case: Case) -> None:
    with pytest.raises(ValueError, match="7 of 16 visual tokens cannot be reached.* least is 8 "):
        prunus.prune(case.model, EvoPrune(keep=7))
    prunus.prune(case.model, EvoPrune(keep=8))
    prunus.prune(case.model, EvoPrune(keep=4, schedule="mean", start=0))


@dataclasses.dataclass(frozen=True)
class Watched(EvoPrune):
    """EvoPrune that notes what it is given and what it answers."""

    views: list[Any] = dataclasses.field(default_factory=list)

    def merge(self, view: View) -> Selection:
        answer = super().merge(view)
        self.views.append((view, view[RECEIVED].clone(), answer))
        return answer


def test_protected_and_unpaired_tokens_pass_the_merge_bit_for_bit() -> None:
    case, inputs = deep(), prompt(2)
    before: dict[int, Tensor] = {}
    after: dict[int, Tensor] = {}
    handles = []
    for number, block in enumerate(case.model.model.vision_tower.encoder.layers):

        def note(module: Any, args: Any, number: int = number) -> None:
            before[number] = args[0].clone()

        def see(module: Any, args: Any, output: Any, number: int = number) -> None:
            after[number] = args[0].clone()

        handles += [  # added first, so it sees what enters before the engine merges
            block.layer_norm2.register_forward_pre_hook(note),
            block.layer_norm2.register_forward_hook(see),
        ]
    method = Watched(keep=15)
    with prunus.prune(case.model, method), torch.no_grad():
        case.model(**inputs)
    assert [view.block for view, _, _ in method.views] == [1, 3, 5]
    for view, received, answer in method.views:
        old, new = before[view.block][:, 1:], after[view.block][:, 1:]
        assert torch.equal(before[view.block][:, 0], after[view.block][:, 0])  # CLS
        total, removed = old.shape[1], view.count
        assert new.shape[1] == total - removed
        spared = min(int(0.25 * total), total - 2 * removed)
        for image in range(2):
            gone = set(answer.pairs[0][image].tolist())
            into = set(answer.pairs[1][image].tolist())
            best = received[image].argsort(descending=True, stable=True)[:spared].tolist()
            assert spared and not set(best) & (gone | into)
            left = [place for place in range(total) if place not in gone]
            for place, index in enumerate(left):
                same = torch.equal(new[image, place], old[image, index])
                assert same == (index not in into)


def test_sizes_add_up_and_attention_received_is_not_constant(case: Case) -> None:
    inputs = case.prompts.rows(2, 1)
    method = Watched(keep=5, schedule="mean", start=0)
    with prunus.prune(case.model, method), torch.no_grad():
        case.model(**inputs)
    assert [view.block for view, _, _ in method.views] == [0, 1]
    for view, received, _ in method.views:
        assert view.sizes.sum(1).tolist() == [TOKENS] * 3
        assert (received.std(1) > 1e-5).all()
    assert method.views[1][0].sizes.max() > 1


def test_attention_received_is_the_column_mean_of_the_eager_map(case: Case) -> None:
    inputs = case.prompts.rows(1)
    method = Watched(keep=9, start=0)
    with prunus.prune(case.model, method), torch.no_grad():
        case.model(**inputs)
    case.model.set_attn_implementation("eager")
    with torch.no_grad():
        tower = case.model.model.vision_tower(inputs["pixel_values"], output_attentions=True)
    expected = tower.attentions[0].mean((1, 2))  # over heads and queries, CLS among them
    lead = expected.shape[1] - TOKENS
    view, received, _ = method.views[0]
    assert (received - expected[:, lead:]).abs().max() < 1e-6
    assert torch.equal(received, view[RECEIVED])
    if lead:
        assert float(received.sum()) < 1.0  # CLS has a share as well


def test_keeping_everything_is_the_native_tower(case: Case) -> None:
    inputs = case.prompts.rows(1)
    with torch.no_grad():
        expected = case.model(**inputs)
    with prunus.prune(case.model, EvoPrune(keep=1.0)) as run, torch.no_grad():
        found = case.model(**inputs)
    assert torch.equal(found.logits, expected.logits)
    for ours, theirs in zip(found.image_hidden_states, expected.image_hidden_states, strict=True):
        assert torch.equal(ours, theirs)
    assert run.trace[0].merged_into[0][0].tolist() == list(range(TOKENS))
    assert run.trace[0].steps == [[[]]] and not run.report()["pruned"]


# -- what really runs ------------------------------------------------------------------------------


def test_later_blocks_and_the_projector_run_on_fewer_tokens(case: Case) -> None:
    inputs = case.prompts.rows(2)
    seen: dict[str, list[int]] = {"block": [], "mlp": [], "projector": []}

    def note(name: str) -> Any:
        return lambda module, args, output: seen[name].append(args[0].shape[-2])

    model, handles = case.model.model, []
    with prunus.prune(case.model, EvoPrune(keep=5, schedule="mean", start=0)), torch.no_grad():
        for block in model.vision_tower.encoder.layers:
            handles.append(block.register_forward_hook(note("block")))
            handles.append(block.mlp.register_forward_hook(note("mlp")))
        handles.append(model.multi_modal_projector.register_forward_hook(note("projector")))
        case.model(**inputs)
    for handle in handles:
        handle.remove()
    lead = int("clip" in case.name)
    assert seen["block"] == [16 + lead, 10 + lead, 5 + lead]
    assert seen["mlp"] == [10 + lead, 5 + lead, 5 + lead]
    assert seen["projector"] == [5 + int(case.name == "llava-clip-full")]


@pytest.mark.parametrize("kind", ["clip", "siglip"])
@pytest.mark.parametrize("protect", [0.0, 0.25])
def test_the_report_counts_the_work_that_torch_counts(kind: str, protect: float) -> None:
    case, inputs = deep(kind), prompt(2)
    case.model.set_attn_implementation("eager")
    with prunus.prune(case.model, EvoPrune(keep=7, protect=protect)) as run:
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            case.model(**inputs)
    counted = counter.get_flop_counts()
    mine = run.report()["flops"]["pruned"]
    tower = sum(counted["LlavaForConditionalGeneration.model.vision_tower"].values())
    projector = sum(counted["LlavaForConditionalGeneration.model.multi_modal_projector"].values())
    assert mine["method"] > 0
    assert tower == pytest.approx(mine["encoder"] + mine["method"], rel=2e-3)
    assert projector == mine["projector"]


# -- ways of use -----------------------------------------------------------------------------------


@pytest.mark.parametrize("layer", [-1, -2, -3, 4, 0])
def test_only_blocks_that_are_read_count(layer: int) -> None:
    case, inputs = deep(vision_feature_layer=layer), prompt(1)
    read = layer if layer >= 0 else 8 + layer
    method = EvoPrune(keep=20, schedule="mean", start=0)
    if read == 0:
        with pytest.raises(ValueError, match="in 0 blocks of the vision tower"):
            prunus.prune(case.model, method)
        return
    run, features = run_on(case, method, inputs)
    assert [block for block, _, _ in run.trace[0].steps[0][0]] == list(range(read))
    case.model.config.vision_feature_layer = -2
    del case.model.model.vision_tower.encoder.layers[read + 1 :]
    while len(case.model.model.vision_tower.encoder.layers) < read + 1:  # the oracle leaves one out
        case.model.model.vision_tower.encoder.layers.append(torch.nn.Identity())
    with torch.no_grad():
        expected = merged_features(case.model, inputs["pixel_values"], run.trace)
    assert (features - expected).abs().max() < 1e-5


def test_cold_and_warm_models_agree(case: Case) -> None:
    """Fact 3: transformers adds its capturing hooks at the first forward, before or behind ours."""
    inputs = case.prompts.rows(2, 1)
    cold, warm = MODELS[case.name](), case.model
    with torch.no_grad():
        plain = warm(**inputs).logits
    for method in (EvoPrune(keep=9), EvoPrune(keep=5, schedule="mean", start=0)):
        logits = []
        for model in (cold, warm):
            with prunus.prune(model, method), torch.no_grad():
                logits.append(model(**inputs).logits)
                logits.append(model(**inputs).logits)
        assert all(torch.equal(one, logits[0]) for one in logits)
        with torch.no_grad():  # in turn with the plain model, which is bit-identical each time
            assert torch.equal(cold(**inputs).logits, plain)
            assert torch.equal(warm(**inputs).logits, plain)


def test_features_must_come_from_the_towers_last_call(llava: Case) -> None:
    first, second = llava.prompts.rows(1), llava.prompts.rows(1, seed=9)
    model = llava.model
    with torch.no_grad():
        outside = model.model.get_image_features(first["pixel_values"])
    ids = {"input_ids": first["input_ids"]}
    with prunus.prune(model, EvoPrune(keep=9)) as run, torch.no_grad():
        with pytest.raises(ValueError, match="pass pixel values"):
            model(**ids, mm_encoder_outputs={"image": outside})
        expected = model(**first).logits
        one = model.model.get_image_features(first["pixel_values"])
        found = model(**ids, mm_encoder_outputs={"image": one}).logits
        assert torch.equal(found, expected)
        model.model.get_image_features(second["pixel_values"])
        with pytest.raises(ValueError, match="not those of the vision tower's last call"):
            model(**ids, mm_encoder_outputs={"image": one})
        assert torch.equal(model(**first).logits, expected)
    assert run.report()["tokens"]["kept"] == 9


def test_peft_adapters_in_the_tower(case: Case) -> None:
    from peft import LoraConfig, get_peft_model

    inputs = case.prompts.rows(1)
    with prunus.prune(case.model, EvoPrune(keep=9)) as plain, torch.no_grad():
        before = case.model(**inputs).logits
    torch.manual_seed(1)
    config = LoraConfig(r=4, target_modules=["q_proj", "k_proj"], init_lora_weights=False)
    model = get_peft_model(case.model, config)
    with prunus.prune(model, EvoPrune(keep=9)) as run, torch.no_grad():
        logits = model(**inputs).logits
        merged = model.merge_and_unload()
    with prunus.prune(merged, EvoPrune(keep=9)) as again, torch.no_grad():
        expected = merged(**inputs).logits
    assert (logits - expected).abs().max() < 1e-4 < (logits - before).abs().max()
    assert run.trace[0].merged_into[0][0].equal(again.trace[0].merged_into[0][0])
    assert not run.trace[0].scores[0][0].equal(plain.trace[0].scores[0][0])


def test_compact_positions(llava: Case) -> None:
    inputs = llava.prompts.rows(2, 1)
    with prunus.prune(llava.model, EvoPrune(keep=9), positions="compact") as run:
        out = llava.model.generate(**inputs, max_new_tokens=4, do_sample=False)
    with prunus.prune(llava.model, EvoPrune(keep=9)) as other:
        llava.model.generate(**inputs, max_new_tokens=4, do_sample=False)
    assert out.shape[0] == 2 and run.report()["tokens"] == other.report()["tokens"]


def test_gradients_reach_pixels_through_merged_tokens(llava: Case) -> None:
    inputs = llava.prompts.rows(1)
    pixels = inputs["pixel_values"].requires_grad_()
    with prunus.prune(llava.model, EvoPrune(keep=9)) as run:
        llava.model(**inputs).logits[:, -1].sum().backward()
    assert len(run.trace[0].kept[0][0]) == 9
    patches = pixels.grad.unfold(2, 8, 8).unfold(3, 8, 8).abs().sum((0, 1, 4, 5))
    assert (patches > 0).all()  # those of merged tokens as well


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ({"schedule": "linear"}, "schedule='linear': choose skip or mean"),
        ({"metric": "value"}, "choose key or hidden"),
        ({"order": "random"}, "choose slot or append"),
        ({"parity": "odd"}, "choose tokens or cls"),
        ({"start": -1}, "start=-1"),
        ({"neighbours": 0}, "neighbours=0"),
        ({"some": 0}, "some=0"),
        ({"protect": 1.2}, r"protect=1.2.*\[0, 1\]"),
        ({"diversity": float("nan")}, "diversity=nan"),
        ({"growth": -1.0}, "growth=-1.0"),
        ({"tau": 0.0}, "tau=0.0"),
        ({"tau": "wide"}, "tau='wide'"),
        ({"keep": 0}, "keep=0"),
    ],
)
def test_bad_parameters(params: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        EvoPrune(**params)


def test_bad_types() -> None:
    with pytest.raises(TypeError, match="start=True is no integer"):
        EvoPrune(start=True)


def test_towers_that_cannot_be_merged_in_are_refused(llava: Case) -> None:
    from prunus import CLSE

    with pytest.raises(ValueError, match="evoprune and evoprune both merge"):
        prunus.prune(llava.model, [EvoPrune(keep=12), EvoPrune(keep=9)])
    llava.model.config.vision_feature_layer = [-1, -2]
    with pytest.raises(ValueError, match="joins features of several blocks"):
        prunus.prune(llava.model, EvoPrune(keep=9))
    prunus.prune(llava.model, CLSE(keep=9))  # which does not care
    siglip = deep("siglip")
    siglip.model.config.vision_feature_select_strategy = "default"
    with pytest.raises(ValueError, match="no CLS token"):
        prunus.prune(siglip.model, EvoPrune(keep=9))


def test_proportional_attention_needs_a_backend_with_a_bias(llava: Case) -> None:
    llava.model.config.vision_config._attn_implementation = "flash_attention_2"
    with pytest.raises(ValueError, match="needs eager or sdpa"):
        prunus.prune(llava.model, EvoPrune(keep=9, proportional=True))


def test_another_feature_layer_in_a_call_is_refused(llava: Case) -> None:
    inputs = llava.prompts.rows(1)
    with prunus.prune(llava.model, EvoPrune(keep=9)), torch.no_grad():
        with pytest.raises(ValueError, match="features, but the vision tower left"):
            llava.model(**inputs, vision_feature_layer=-1)
        llava.model(**inputs)


def test_an_answer_that_is_no_merge_is_refused(llava: Case) -> None:
    inputs = llava.prompts.rows(1)
    with torch.no_grad():
        plain = llava.model(**inputs).logits

    class Wrong(EvoPrune):
        def __init__(self, source: list[int], destination: list[int]) -> None:
            super().__init__(keep=14)
            object.__setattr__(self, "pairs", (source, destination))

        def merge(self, view: View) -> Selection:
            return Selection.merge(view, *(torch.tensor([half]) for half in self.pairs))  # type: ignore[attr-defined]

    for pairs, words in (
        (([2, 2], [1, 3]), "source twice"),
        (([2, 4], [4, 3]), "destination that is a source"),
        (([2], [3]), "a merge of shape"),
    ):
        with pytest.raises(ValueError, match=words):
            with prunus.prune(llava.model, Wrong(*pairs)), torch.no_grad():
                llava.model(**inputs)
    with torch.no_grad():
        assert torch.equal(llava.model(**inputs).logits, plain)
