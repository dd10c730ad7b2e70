"""VisiPruner against a literal walk through the decoder, and its acceptance tests."""

from __future__ import annotations

import dataclasses
import warnings
from typing import Any

import pytest
import torch
from torch import Tensor

import prunus
from prunus import Edit, EvoPrune, Knockout, VisiPruner
from prunus.engine.edit import Job, Places
from prunus.signals.critical import Progress, Rule
from prunus.signals.influence import Influence
from tests.support.llava import DEPTH, Prompts, llava_clip
from tests.support.models import Case
from tests.support.oracles.edited import edited
from tests.support.oracles.masked import positions, visibility
from tests.support.runs import gap, masked_logits, plain, survivors


def walk(
    case: Case, inputs: dict[str, Tensor], method: VisiPruner, trace: list[Any], shallow: int
) -> list[tuple[str, int, list[int]]]:
    """Events ``(what, layer that runs without them first, visual tokens kept)`` of one unpadded
    prompt: every decoder layer is called by hand, and every weight is zeroed by itself."""
    model = case.model.model
    ids = inputs["input_ids"]
    spots = [p for image in case.prompts.spots(ids)[0] for p in image]
    entered: list[Any] = []

    def first(module: Any, args: Any, kwargs: Any) -> None:
        entered.append((args[0] if args else kwargs["hidden_states"], kwargs))

    handle = model.language_model.layers[0].register_forward_pre_hook(first, with_kwargs=True)
    with torch.no_grad():
        case.model(**inputs, position_ids=positions(case.model, inputs))
    handle.remove()
    states, kwargs = entered[0]
    rope = kwargs["position_embeddings"]
    present, visual = list(range(ids.shape[1])), list(spots)
    events: list[tuple[str, int, list[int]]] = []
    filtered, passes, gone = False, 0, False
    bound = method.tokens_threshold
    for number, layer in enumerate(model.language_model.layers):
        seen: dict[str, Tensor] = {}

        def keep(module: Any, args: Any, output: Any, seen: dict[str, Tensor] = seen) -> None:
            seen["value"] = output

        def before(module: Any, args: Any, seen: dict[str, Tensor] = seen) -> None:
            seen["output"] = args[0]

        handles = [
            layer.self_attn.v_proj.register_forward_hook(keep),
            layer.self_attn.o_proj.register_forward_pre_hook(before),
        ]
        size = len(present)
        causal = torch.ones(size, size).tril().bool()[None, None]
        own = (rope[0][..., present, :], rope[1][..., present, :])
        with torch.no_grad(), edited(case.model, trace, [[spots]], ids.shape[1] - 1):
            cached = states
            states = layer(states, attention_mask=causal, position_embeddings=own)
            states = states[0] if isinstance(states, tuple) else states
        for handle in handles:
            handle.remove()
        if number <= shallow or gone or number == DEPTH - 1:
            continue
        whole = seen["output"][0, -1]
        parts = contributions(layer, cached, own, seen["value"], size)
        change, cosine = {}, {}
        for position in visual:
            rest = whole - parts[present.index(position)]
            change[position] = float((rest - whole).norm())
            cosine[position] = float(torch.dot(rest, whole) / rest.norm() / whole.norm())
        if not filtered:
            if any(value < method.layer_threshold for value in cosine.values()):
                filtered = True
                visual = [p for p in visual if change[p] > bound]
                events.append(("filter", number + 1, visual))
        else:
            calm = all(value >= method.exit_threshold for value in cosine.values())
            passes = passes + 1 if calm else (0 if method.exit_mode == "consecutive" else passes)
            if passes == method.exit_count:
                visual, gone = [], True
                events.append(("exit", number + 1, []))
        left = [p for p in present if p in visual or p not in spots]
        states = states[:, [present.index(p) for p in left]]
        present = left
    return events


def contributions(layer: Any, states: Tensor, rope: Any, value: Tensor, size: int) -> Tensor:
    """``[S, H*d]``: each token's share of the last token's attention output."""
    attention = layer.self_attn
    normed = layer.input_layernorm(states)
    heads, dim = attention.config.num_attention_heads, attention.head_dim
    query = attention.q_proj(normed).view(size, heads, dim)
    key = attention.k_proj(normed).view(size, -1, dim)
    value = value.view(size, -1, dim)

    def turned(x: Tensor, at: int) -> Tensor:
        cos, sin = rope[0][0, at], rope[1][0, at]
        half = torch.cat([-x[..., dim // 2 :], x[..., : dim // 2]], dim=-1)
        return x * cos + half * sin

    groups = heads // key.shape[1]
    parts = torch.zeros(size, heads, dim)
    for head in range(heads):
        logits = torch.stack(
            [turned(query[-1, head], -1) @ turned(key[n, head // groups], n) for n in range(size)]
        )
        weights = (logits * dim**-0.5).softmax(0)
        for n in range(size):
            parts[n, head] = weights[n] * value[n, head // groups]
    return parts.flatten(1).detach()


def events_of(trace: list[Any], sample: int, spots: list[list[int]]) -> list[Any]:
    found = []
    for entry in trace:
        if entry.labels is not None and any(entry.labels[sample]):
            kept = [
                places[n]
                for places, own in zip(spots, entry.kept[sample], strict=True)
                for n in own.tolist()
            ]
            found.append((entry.labels[sample][0], entry.layer, kept))
    return found


MIDDLE_AND_DEEP = VisiPruner(
    stages=("middle", "deep"),
    shallow_layers=0,
    layer_threshold=0.95,
    tokens_threshold=0.5,
    exit_threshold=0.95,
    exit_count=1,
)


@pytest.mark.parametrize("threshold", [0.99, 0.97, 0.94])
@pytest.mark.parametrize("exit_mode", ["consecutive", "cumulative"])
@pytest.mark.parametrize("seed", [0, 2, 4])
def test_equals_the_literal_walk(case: Case, seed: int, threshold: float, exit_mode: str) -> None:
    inputs = case.prompts.rows(1, seed=seed)
    spots = case.prompts.spots(inputs["input_ids"])[0]
    method = dataclasses.replace(
        MIDDLE_AND_DEEP, layer_threshold=threshold, exit_threshold=0.96, exit_mode=exit_mode
    )
    with warnings.catch_warnings(), prunus.prune(case.model, method) as run:
        warnings.simplefilter("ignore")  # a strict threshold may find nothing
        plain(case.model, inputs)
    assert events_of(run.trace, 0, spots) == walk(case, inputs, method, [], 0)


def test_equals_the_literal_walk_behind_the_shallow_stage(case: Case) -> None:
    inputs = case.prompts.rows(2)
    spots = case.prompts.spots(inputs["input_ids"])[0]
    method = dataclasses.replace(
        MIDDLE_AND_DEEP,
        stages=("shallow", "middle", "deep"),
        shallow_layers=1,
        layer_threshold=2,
        exit_threshold=-1,
    )
    with prunus.prune(case.model, method) as run:
        plain(case.model, inputs)
    # The walk takes all tokens of the prompt as one image, as the formula does.
    joined = [dataclasses.replace(run.trace[0], kept=[[torch.arange(sum(map(len, spots)))]])]
    found = events_of(run.trace, 0, spots)
    assert found == walk(case, inputs, method, joined, 1)
    assert [event[0] for event in found] == ["filter", "exit"]


def test_some_walks_filter_in_different_layers_and_leave(llava: Case) -> None:
    """So that the comparison above is one of different cases."""
    layers = set()
    for seed in range(6):
        inputs = llava.prompts.rows(1, seed=seed)
        with warnings.catch_warnings(), prunus.prune(llava.model, MIDDLE_AND_DEEP) as run:
            warnings.simplefilter("ignore")
            plain(llava.model, inputs)
        layers |= {(e.layer, e.labels[0][0]) for e in run.trace}
    assert len({layer for layer, label in layers if label == "filter"}) > 1


def test_no_stage_is_bit_identical(case: Case) -> None:
    inputs = case.prompts.rows(1, 2)
    expected = plain(case.model, inputs)
    with prunus.prune(case.model, VisiPruner(stages=())) as run:
        assert torch.equal(plain(case.model, inputs), expected)
    assert run.trace == []


def test_shallow_alone_changes_no_length(case: Case) -> None:
    inputs = case.prompts.rows(2)
    with prunus.prune(case.model, VisiPruner(stages=("shallow",))) as run, torch.no_grad():
        cache = case.model(**inputs, use_cache=True).past_key_values
    length = inputs["input_ids"].shape[1]
    assert all(layer.keys.shape[-2] == length for layer in cache.layers)
    assert run.report()["tokens"]["kept"] == run.report()["tokens"]["original"]
    assert run.report()["pruned"] and run.report()["idle"] == 0


def job(edit: Edit, answers: bool = False) -> tuple[Job, Places]:
    visual = torch.tensor([[0, 0, 1, 1, 1, 1, 0, 0, 0], [0, 0, 0, 0, 0, 1, 1, 0, 0]]).bool()
    text = torch.tensor([[0, 0, 0, 0, 0, 0, 1, 1, 1], [0, 0, 0, 0, 0, 0, 0, 1, 1]]).bool()
    valid = torch.ones(2, 9, dtype=torch.bool)
    valid[1, :2] = False
    places = Places(visual, text, valid, answers)
    return Job(edit, places, "sdpa"), places


@pytest.mark.parametrize("answers", [False, True])
@pytest.mark.parametrize(
    ("edit", "text", "visual"),
    [
        (Edit("merge"), "one", "one"),
        (Edit("merge", "cut"), "one", "less"),
        (Edit("cut"), "less", "one"),
        (Edit("half"), "less", "one"),
        (Edit("cut", "cut"), "less", "less"),
        (Edit("cut", "cut", renormalise=True), "one", "one"),
        (Edit("half", "cut", renormalise=True), "one", "one"),
        (Edit("merge", "cut", renormalise=True), "one", "one"),
    ],
)
def test_weights_sum_to_one_where_mass_is_kept(
    llava: Case, edit: Edit, text: str, visual: str, answers: bool
) -> None:
    """With values of one, attention output is the sum of the weights."""
    torch.manual_seed(0)
    made, places = job(edit, answers)
    module = llava.model.model.language_model.layers[0].self_attn
    query, key = torch.randn(2, 8, 9, 8), torch.randn(2, 4, 9, 8)
    causal = torch.ones(9, 9).tril().bool() & places.valid[:, None, None] | torch.eye(9).bool()
    kwargs = {"scaling": 0.4, "dropout": 0.0}
    out = made.attend(module, query, key, torch.ones(2, 4, 9, 8), causal, kwargs)
    for places_, expected in ((places.text, text), (places.visual, visual)):
        sums = out[places_]
        if expected == "one":
            assert torch.allclose(sums, torch.ones_like(sums), atol=1e-5)
        else:
            assert bool((sums < 0.999).all())


@pytest.mark.parametrize("sink", [0, 2, -1])
def test_the_sink_takes_all_weight(llava: Case, sink: int) -> None:
    torch.manual_seed(0)
    made, places = job(Edit("merge", sink=sink if sink != 2 else 1))
    module = llava.model.model.language_model.layers[0].self_attn
    causal = torch.ones(9, 9).tril().bool() & places.valid[:, None, None] | torch.eye(9).bool()
    value = torch.eye(9).expand(2, 4, 9, 9)  # the output is the weights
    query, key = torch.randn(2, 8, 9, 8), torch.randn(2, 4, 9, 8)
    out = made.attend(module, query, key, value, causal, {"scaling": 0.4})
    key = key.repeat_interleave(2, 1)
    plain_weights = (query @ key.transpose(2, 3) * 0.4).masked_fill(~causal, -1e9).softmax(-1)
    for row, spot in ((0, {0: 2, 2: 3, -1: 5}[sink]), (1, {0: 5, 2: 6, -1: 6}[sink])):
        visual = places.visual[row]
        mass = plain_weights[row, :, -1, visual].sum(-1)
        assert torch.allclose(out[row, -1, :, spot], mass, atol=1e-5)
        others = visual.clone()
        others[spot] = False
        assert float(out[row, -1][:, others].abs().max()) == 0
        assert torch.allclose(
            out[row, -1][:, ~visual], plain_weights[row, :, -1, ~visual], atol=1e-5
        )


def test_a_sink_that_is_not_there(llava: Case) -> None:
    inputs = llava.prompts.rows(1)
    before = plain(llava.model, inputs)
    with prunus.prune(llava.model, Knockout(collapse=True, sink=16)):
        with pytest.raises(ValueError, match="only 16 visual tokens"):
            plain(llava.model, inputs)
    assert torch.equal(plain(llava.model, inputs), before)


@pytest.mark.parametrize("renormalise", [False, True])
def test_a_prompt_that_ends_with_its_image(llava: Case, renormalise: bool) -> None:
    """There is no text behind it to be cut off; visual tokens still lose each other."""
    inputs = llava.prompts.rows(1, text=0)
    expected = plain(llava.model, inputs)
    with prunus.prune(llava.model, Knockout(renormalise=renormalise)):
        assert torch.equal(plain(llava.model, inputs), expected)
    method = Knockout(mask="both", renormalise=renormalise)
    with prunus.prune(llava.model, method) as run:
        found = plain(llava.model, inputs)
    spots = llava.prompts.spots(inputs["input_ids"])
    visible = visibility(run.trace, spots, inputs["attention_mask"], DEPTH, found.shape[1])
    assert gap(found, masked_logits(llava.model, inputs, visible, run.trace)) < 1e-4


def scripted(monkeypatch: pytest.MonkeyPatch, cosines: dict[int, float], kept: int) -> None:
    """Influence from a script: the cosine in each layer, and ``kept`` tokens with a change of 1."""
    from prunus.engine import views

    def influence(self: Any) -> Influence:
        states = self._kept.states
        cosine = torch.ones(states.shape[:2]).fill_(cosines.get(self._number, 1.0))
        change = torch.zeros(states.shape[:2])
        change[:, 5 : 5 + kept] = 1.0
        cosine, change = self.pick(cosine), self.pick(change)
        return Influence(cosine, change, torch.ones(len(cosine)))

    monkeypatch.setattr(views.ShownLayer, "influence", influence)


def test_lengths_of_the_published_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    """Third-party trace of the released code on LLaVA-1.5-7B: filter at layer 18, second exit pass
    at 27; 32 layers, 10 tokens kept."""
    model = llava_clip(32)
    case = Case("llava-clip", model, Prompts(0))

    inputs = case.prompts.rows(1)
    length = inputs["input_ids"].shape[1]
    text = length - 16
    # From layer 19 on every layer is disturbed but 22 and 27: two in all, not in a row.
    cosines = dict.fromkeys(range(7, 32), 0.9985) | {18: 0.994, 22: 0.9995, 27: 0.9995}
    scripted(monkeypatch, cosines, 10)
    with prunus.prune(model, VisiPruner(shallow_layers=6)) as run, torch.no_grad():
        out = model(**inputs, use_cache=True)
        cache = out.past_key_values
        lengths = [layer.keys.shape[-2] for layer in cache.layers]
        assert lengths == [length] * 19 + [text + 10] * 9 + [text] * 4
        model(
            input_ids=torch.tensor([[7]]),
            past_key_values=cache,
            attention_mask=torch.ones(1, length + 1, dtype=torch.long),
        )
        lengths = [layer.keys.shape[-2] for layer in cache.layers]
    assert lengths == [length + 1] * 19 + [text + 11] * 9 + [text + 1] * 4
    assert cache.get_seq_length() == length + 1
    assert run.report()["tokens"]["per_layer"] == [16] * 19 + [10] * 9 + [0] * 4
    consecutive = VisiPruner(shallow_layers=6, exit_mode="consecutive")
    with prunus.prune(model, consecutive) as run, torch.no_grad():
        model(**inputs)
    assert run.report()["tokens"]["per_layer"] == [16] * 19 + [10] * 13


def test_kv_of_shallow_layers_and_positions_behind_it(case: Case) -> None:
    """Dropping it changes lengths, not the position at which generation goes on."""
    inputs = case.prompts.rows(1)
    length = inputs["input_ids"].shape[1]
    visual = len(case.prompts.spots(inputs["input_ids"])[0][0])
    method = VisiPruner(stages=("shallow",), shallow_layers=2, drop_shallow_visual_kv=True)
    with prunus.prune(case.model, method), torch.no_grad():
        cache = case.model(**inputs, use_cache=True).past_key_values
    assert [layer.keys.shape[-2] for layer in cache.layers[:3]] == [
        length - visual,
        length - visual,
        length,
    ]
    assert cache.get_seq_length() == length


def test_keeping_all_and_never_leaving_is_dense(case: Case) -> None:
    inputs = case.prompts.rows(1, 2)
    expected = plain(case.model, inputs)
    method = VisiPruner(
        stages=("middle", "deep"), layer_threshold=2, tokens_threshold=0, exit_threshold=2
    )
    with prunus.prune(case.model, method) as run:
        logits = plain(case.model, inputs)
    assert gap(logits, expected, inputs["attention_mask"]) < 1e-5
    assert [entry.labels for entry in run.trace] == [[["filter"], ["filter"] * 2]]
    assert run.report()["idle"] == 0


def test_progress_counts_exit_layers_both_ways() -> None:
    series = [0.99, 0.9999, 0.99, 0.9999, 0.9999]

    def run(consecutive: bool) -> list[str]:
        rule = Rule(0.995, 0.999, 2, consecutive)
        progress = Progress(filtered=False)
        return [progress.step(lowest, rule, False) for lowest in series]

    assert run(False) == ["filter", "", "", "exit", ""]
    assert run(True) == ["filter", "", "", "", "exit"]
    assert Progress(True).step(0.999, Rule(0.995, 0.999, 1, True), False) == "exit"  # not below
    assert Progress(False).step(0.995, Rule(0.995, 0.999, 1, True), False) == ""


def test_prompts_without_a_filtering_layer_are_told(case: Case) -> None:
    inputs = case.prompts.rows(1, 0, 1)
    method = VisiPruner(stages=("middle", "deep"), layer_threshold=-1)
    with prunus.prune(case.model, method) as run:
        with pytest.warns(UserWarning, match=r"found nothing to do in 2 of 3 samples .*0, 2"):
            plain(case.model, inputs)
    report = run.report()
    assert report["idle"] == 2 and not report["pruned"] and "NOTE" in str(report)


def test_a_forced_filter_says_so(llava: Case) -> None:
    inputs = llava.prompts.rows(1)
    method = VisiPruner(
        stages=("middle",), layer_threshold=-1, force=True, late_layer=3, tokens_threshold=0.3
    )
    with prunus.prune(llava.model, method) as run:
        plain(llava.model, inputs)
    assert [(entry.layer, entry.labels) for entry in run.trace] == [(4, [["forced"]])]
    assert run.report()["idle"] == 0


def test_least_number_of_tokens_and_none_at_all(case: Case) -> None:
    inputs = case.prompts.rows(2)
    strict = VisiPruner(stages=("middle", "deep"), layer_threshold=2, tokens_threshold=1e6)
    with prunus.prune(case.model, strict) as run:
        plain(case.model, inputs)
    assert [len(kept) for kept in run.trace[0].kept[0]] == [0, 0] and len(run.trace) == 1
    with prunus.prune(case.model, dataclasses.replace(strict, min_tokens=3)) as run:
        plain(case.model, inputs)
    entry = run.trace[0]
    assert sum(len(kept) for kept in entry.kept[0]) == 3
    scores = torch.cat(entry.scores[0])
    best = set(scores.sort(descending=True, stable=True).indices[:3].tolist())
    step = len(entry.scores[0][0])
    assert {int(n) + step * image for image, kept in enumerate(entry.kept[0]) for n in kept} == best


def test_all_images_of_a_sample_share_the_layer(case: Case) -> None:
    """One image's token turns the output: the tokens of both are judged there."""
    for seed in range(20):
        inputs = case.prompts.rows(2, seed=seed)
        with warnings.catch_warnings(), prunus.prune(case.model, MIDDLE_AND_DEEP) as run:
            warnings.simplefilter("ignore")
            plain(case.model, inputs)
        for entry in run.trace:
            assert len(set(entry.labels[0])) == 1


def test_samples_of_a_batch_have_layers_and_counts_of_their_own(llava: Case) -> None:
    inputs = llava.prompts.rows(*([1] * 8))
    with warnings.catch_warnings(), prunus.prune(llava.model, MIDDLE_AND_DEEP) as run:
        warnings.simplefilter("ignore")
        plain(llava.model, inputs)
    filters = {
        sample: (entry.layer, len(entry.kept[sample][0]))
        for entry in run.trace
        for sample in range(8)
        if entry.labels[sample] == ["filter"]
    }
    assert len({layer for layer, _ in filters.values()}) > 1
    assert len({count for _, count in filters.values()}) > 2


def test_composition_with_evoprune(case: Case) -> None:
    inputs = case.prompts.rows(2, 1)
    middle = VisiPruner(layer_threshold=2, relative=0.2, shallow_layers=1)
    with prunus.prune(case.model, [EvoPrune(keep=0.5), middle]) as run:
        found = plain(case.model, inputs)
    assert [entry.place for entry in run.trace] == ["attention", "encoder", "decoder"]
    spots = case.prompts.spots(inputs["input_ids"])
    mask = inputs["attention_mask"]
    visible = visibility(run.trace, spots, mask, DEPTH, mask.shape[1])
    expected = masked_logits(case.model, inputs, visible, run.trace)
    assert gap(found, expected, survivors(case, inputs, run.trace)) < 1e-4


@pytest.mark.parametrize("renormalise", [False, True])
def test_known_answers_see_what_decoded_ones_do(case: Case, renormalise: bool) -> None:
    """The edit is for the prompt: a labelled answer gets the logits that generation gives it."""
    inputs = case.prompts.rows(1)
    method = VisiPruner(
        layer_threshold=0.9999, tokens_threshold=0.5, shallow_layers=1, renormalise=renormalise
    )
    with prunus.prune(case.model, method) as run:
        out = case.model.generate(
            **inputs,
            max_new_tokens=4,
            min_new_tokens=4,
            do_sample=False,
            output_logits=True,
            return_dict_in_generate=True,
        )
        from tests.support.oracles.masked import continued

        full = continued(inputs, out.sequences)
        length = inputs["input_ids"].shape[1]
        labels = full["input_ids"].clone()
        labels[:, :length] = -100
        logits = plain(case.model, {**full, "labels": labels})
    assert run.prompts == 2
    assert gap(logits[:, length - 1 : -1], torch.stack(out.logits, dim=1)) < 1e-4


def test_renormalised_shallow_layers_run_the_kernel_on_less(
    llava: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    from prunus.engine import edit as module

    inputs = llava.prompts.rows(1)
    length, last = inputs["input_ids"].shape[1], llava.prompts.spots(inputs["input_ids"])[0][0][-1]
    sizes: list[int] = []
    own = module._backend

    def counting(name: str, attention: Any) -> Any:
        function = own(name, attention)

        def run(m: Any, q: Tensor, *args: Any, **kwargs: Any) -> Any:
            sizes.append(q.shape[2])
            return function(m, q, *args, **kwargs)

        return run

    monkeypatch.setattr(module, "_backend", counting)
    reports = {}
    for renormalise in (False, True):
        method = Knockout(layers=(1, 2), renormalise=renormalise)
        with prunus.prune(llava.model, method) as run:
            plain(llava.model, inputs)
        reports[renormalise] = run.report()
    assert sizes == [length, length, last + 1, last + 1]
    assert reports[True]["flops"]["llm_ratio"] < 1 == reports[False]["flops"]["llm_ratio"]
    assert reports[False]["flops"]["pruned"]["method"] > 0
    pairs = reports[True]["visual_attention"]
    behind = length - 1 - last
    assert pairs["dense"] - pairs["pruned"] == 2 * 16 * behind
    assert reports[False]["visual_attention"]["ratio"] == 1


def test_presets() -> None:
    code, paper = VisiPruner(), VisiPruner(preset="paper")
    assert (code.exit_mode, paper.exit_mode) == ("cumulative", "consecutive")
    assert code.edits(32) == {
        0: Edit("merge", "cut"),
        **{layer: Edit("cut", "keep") for layer in range(1, 6)},
    }
    assert paper.edits(32)[3] == Edit("cut", "cut") and paper.forgets(32) == [0, 1, 2, 3, 4, 5]
    assert code.forgets(32) == []
    assert code.edits(40)[0] == Edit("half", "cut") and len(code.edits(40)) == 8  # the 13B
    assert [cut.layer for cut in code.cuts(32)] == list(range(8, 32))  # layer 6 is left alone
    kept = VisiPruner(preset="paper", visual="keep", exit_mode="cumulative")
    assert kept.edits(32)[3] == Edit("cut", "keep") and kept.exit_mode == "cumulative"
    assert VisiPruner(decode_without=(30, 31)).forgets(32) == [30, 31]


def test_published_figures_of_a_run(llava: Case) -> None:
    inputs = llava.prompts.rows(1)
    method = VisiPruner(layer_threshold=2, tokens_threshold=0.3, shallow_layers=1)
    with prunus.prune(llava.model, method) as run:
        plain(llava.model, inputs)
    own = run.report()["published"]["visipruner"]
    kept = run.trace[-1].kept[0][0].shape[0]
    width, ffn = 64, 96

    def cost(n: int, attention: bool) -> int:
        return 4 * n * width**2 + attention * 2 * n * n * width + 3 * n * width * ffn

    assert own["of"] == DEPTH * cost(16, True)
    assert own["visual MACs"] == 3 * cost(16, False) + 2 * cost(kept, True)
    text = inputs["input_ids"].shape[1] - 16
    spent = 2 * 16 * text + 2 * (2 * kept**2 + kept * text)
    saved = 1 - spent / (DEPTH * 2 * (16**2 + 16 * text))
    assert own["visual attention saved"] == pytest.approx(saved)


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ({"stages": ("early",)}, "choose some of shallow, middle, deep"),
        ({"preset": "mine"}, "code or paper"),
        ({"exit_mode": "both"}, "consecutive or cumulative"),
        ({"first_layer": "none"}, "merge or half or cut"),
        ({"shallow_layers": -1}, "at least 0"),
        ({"exit_count": 0}, "at least 1"),
        ({"relative": 0.1, "tokens_threshold": 0.2}, "give one"),
        ({"layer_threshold": 5}, "between -1 and 1"),
        ({"keep": 64}, "no parameter keep"),
    ],
)
def test_bad_parameters(llava: Case, params: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        prunus.prune(llava.model, "visipruner", **params)


@pytest.mark.parametrize(
    "method",
    [
        VisiPruner(shallow_layers=4),
        VisiPruner(stages=("middle",), force=True, late_layer=1),
        VisiPruner(stages=("shallow", "deep"), shallow_layers=3, late_layer=2),
        VisiPruner(stages=(), decode_without=(9,)),
        Knockout(layers=(7,)),
        [Knockout(layers=(1,)), Knockout(layers=(1,), mask="visual")],
        [Knockout(layers=(0,)), prunus.CLSE(keep=4, variant="hybrid")],
    ],
)
def test_impossible_on_this_model(llava: Case, method: Any) -> None:
    with pytest.raises(ValueError, match="impossible|layers 0 to 4|both edit|which knockout edits"):
        prunus.prune(llava.model, method)
