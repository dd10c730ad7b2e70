"""The pointer decoder against a literal one that starts from scratch at every step."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import layer_norm, linear
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from prunus.selector.pointer import Memory, Picks, Pointer
from tests.support.oracles.selector import Walk, walk
from tests.support.random_selectors import random_selector

SIZE = 9

CONFIGS: dict[str, dict[str, Any]] = {
    "plain": {},
    "one layer": {"decoder_layers": 1},
    "cross": {"pointer": "cross"},
    "cross, one layer": {"pointer": "cross", "decoder_layers": 1, "heads": 4},
    "clip": {"clip": 1.5},
    "temperature": {"temperature": 0.3},
    "least steps": {"min_steps": 3, "stop_bias": 4.0},
    "all at once": {"clip": 2.0, "temperature": 0.7, "min_steps": 2, "stop_bias": -0.5},
}
RUNS: dict[str, dict[str, Any]] = {
    "until STOP": {"most": 6},
    "gladly": {"most": 6, "bias": 3.0},
    "hardly": {"most": 9, "bias": -3.0},
    "keep": {"most": 4, "keep": 6},
    "keep all": {"most": 4, "keep": SIZE},
    "keep one": {"most": 4, "keep": 1},
}


def made(seed: int = 0, **config: Any) -> Pointer:
    pointer = random_selector(seed, **config).pointer
    assert pointer is not None
    return pointer.double()


def tokens(size: int = SIZE, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(size, 8, generator=generator, dtype=torch.float64)


def memory_of(pointer: Pointer, *samples: Tensor) -> Memory:
    """Samples of any sizes, what is padding filled with large numbers."""
    longest = max(map(len, samples))
    padded = torch.full((len(samples), longest, 8), 1e3, dtype=torch.float64)
    valid = torch.zeros(len(samples), longest, dtype=torch.bool)
    for row, sample in enumerate(samples):
        padded[row, : len(sample)], valid[row, : len(sample)] = sample, True
    return pointer.memory(padded, valid)


def picked(pointer: Pointer, sample: Tensor, most: int, keep: int | None, bias: float) -> Picks:
    with torch.no_grad():
        memory = memory_of(pointer, sample)
        return pointer.pick(memory, [most], None if keep is None else [keep], bias)


def literal_scores(found: Walk, beta: float) -> list[float]:
    scores, alive = [0.0] * (len(found.probs[0]) - 1), 1.0
    for step, p in enumerate(found.probs):
        for token in range(len(scores)):
            scores[token] += alive * float(p[token]) * beta ** (step + 1)
        alive *= 1 - float(p[-1])
    return scores


@pytest.mark.parametrize("run", RUNS.values(), ids=RUNS)
@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_picks_as_the_literal_decoder(config: dict[str, Any], run: dict[str, Any]) -> None:
    run = {"keep": None, "bias": 0.0, **run}
    for seed in range(2):
        pointer, sample = made(seed, **config), tokens(seed=seed)
        found = picked(pointer, sample, **run)
        with torch.no_grad():
            expected = walk(pointer, sample, **run)
        count = int(found.counts)
        assert found.order[0, :count].tolist() == expected.order
        assert found.scores[0].tolist() == pytest.approx(literal_scores(expected, 0.9), abs=1e-9)


def test_the_walks_above_are_of_different_kinds() -> None:
    """Some stop by themselves, at once and later, some at the limit; preferences are clear."""
    ends, orders = Counter[str](), set()
    for config in CONFIGS.values():
        for seed in range(2):
            for run in ("until STOP", "gladly", "hardly"):
                with torch.no_grad():
                    found = walk(made(seed, **config), tokens(seed=seed), **RUNS[run])
                stopped = found.picks[-1] == SIZE
                ends["at once" if len(found.picks) == 1 and stopped else str(stopped)] += 1
                orders.add(tuple(found.order))
    assert min(ends[kind] for kind in ("at once", "True", "False")) >= 4
    assert len(orders) > 20


@pytest.mark.parametrize("keep", [None, 5])
@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_unrolls_as_the_literal_decoder(config: dict[str, Any], keep: int | None) -> None:
    for seed in range(2):
        pointer, sample = made(seed, **config), tokens(seed=seed)
        with torch.no_grad():
            steps = pointer.unroll(memory_of(pointer, sample), [6], keep and [keep])
            expected = walk(pointer, sample, 6, keep)
        ran = int(steps.ran.sum())
        assert steps.ran[0].tolist() == [n < ran for n in range(steps.ran.shape[1])]
        assert steps.picks[0, :ran].tolist() == expected.picks
        assert int(steps.counts) == len(expected.order)
        for ours, p in zip(steps.log_probs[0, :ran].exp(), expected.probs, strict=True):
            assert float((ours - p).abs().max()) < 1e-9
        picks = picked(pointer, sample, 6, keep, 0.0)
        assert picks.order[0, : int(picks.counts)].tolist() == expected.order


def test_no_token_twice() -> None:
    for seed in range(10):
        pointer = made(seed, temperature=0.05)
        order = picked(pointer, tokens(seed=seed), 9, SIZE, 0.0).order[0].tolist()
        assert sorted(order) == list(range(SIZE))


@pytest.mark.parametrize("keep", [None, (5, 2, 7)])
@pytest.mark.parametrize("config", [{}, {"pointer": "cross"}, {"min_steps": 2}], ids=str)
def test_a_ragged_batch_is_its_samples(
    config: dict[str, Any], keep: tuple[int, ...] | None
) -> None:
    stopped: set[int] = set()
    for seed in range(2):
        pointer, most = made(seed, **config), (6, 3, 7)
        samples = [tokens(size, seed + size) for size in (9, 6, 7)]
        with torch.no_grad():
            memory = memory_of(pointer, *samples)
            together, steps = pointer.pick(memory, most, keep), pointer.unroll(memory, most, keep)
        for row, sample in enumerate(samples):
            own = None if keep is None else keep[row]
            with torch.no_grad():
                alone = walk(pointer, sample, most[row], own)
            count = int(together.counts[row])
            assert together.order[row, :count].tolist() == alone.order
            assert int(steps.counts[row]) == count
            ran = int(steps.ran[row].sum())
            assert steps.picks[row, : len(alone.order)].tolist() == alone.order
            assert ran == len(alone.picks)
            size = len(sample)
            for ours, p in zip(steps.log_probs[row].exp(), alone.probs, strict=False):
                assert torch.allclose(ours[[*range(size), -1]], p, atol=1e-9)
                assert float(ours[size:-1].sum()) == 0  # padding
            scores = together.scores[row, :size].tolist()
            assert scores == pytest.approx(literal_scores(alone, 0.9), abs=1e-9)
            stopped.add(count)
    assert keep is not None or len(stopped) > 2


def weights_for(steps: int, slots: int) -> Tensor:
    generator = torch.Generator().manual_seed(9)
    return torch.randn(steps, slots, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("config", [{}, {"pointer": "cross"}, {"min_steps": 2}], ids=str)
def test_straight_through_gradients(config: dict[str, Any]) -> None:
    """Gradients through all steps are those of the literal decoder, whose feedback is
    ``M^T (onehot - sg(p) + p)``, and finite differences of the smooth function that it stands
    for; the value fed back is the row that was picked."""
    pointer, sample, keep = made(3, **config), tokens(seed=3), 4
    weights = weights_for(keep, SIZE + 1)

    def value(p: list[Tensor]) -> Tensor:
        return sum((w * own).sum() for w, own in zip(weights, p, strict=True))  # type: ignore

    given = sample.clone().requires_grad_()
    memory = pointer.memory(given[None], torch.ones(1, SIZE, dtype=torch.bool))
    steps = pointer.unroll(memory, [6], [keep])
    wanted = [given, pointer.start, pointer.blocks[0].own.query.weight]
    ours = torch.autograd.grad(value(list(steps.log_probs[0].exp())), wanted)

    given_too = sample.clone().requires_grad_()
    literal = walk(pointer, given_too, 6, keep)
    theirs = torch.autograd.grad(value(literal.probs), [given_too, *wanted[1:]])
    for a, b in zip(ours, theirs, strict=True):
        assert torch.allclose(a, b, atol=1e-9) and float(b.abs().max()) > 1e-4

    generator = torch.Generator().manual_seed(1)
    for _ in range(3):
        along = torch.randn(sample.shape, generator=generator, dtype=torch.float64)
        moved = []
        for size in (1e-5, -1e-5):
            with torch.no_grad():
                other = walk(pointer, sample + size * along, 6, keep, frozen=literal)
                moved.append(float(value(other.probs)))
        slope = (moved[0] - moved[1]) / 2e-5
        assert float((ours[0] * along).sum()) == pytest.approx(slope, rel=1e-4, abs=1e-7)


def test_a_later_step_reaches_earlier_probabilities() -> None:
    """Without the feedback a probability of step 1 would have no gradient from step 3."""
    pointer, sample = made(3), tokens(seed=3)
    memory = memory_of(pointer, sample)
    seen: list[Tensor] = []

    def note(module: Any, args: Any, output: Tensor) -> None:
        output.retain_grad()
        seen.append(output)

    assert pointer.query is not None
    handle = pointer.query.register_forward_hook(note)
    steps = pointer.unroll(memory, [6], [3])
    handle.remove()
    steps.log_probs[0, 2, int(steps.picks[0, 2])].backward()
    assert len(seen) == 3  # the pointer's query of each step
    assert all(float(one.grad.abs().max()) > 1e-6 for one in seen)


class Products(TorchFunctionMode):
    """How often each weight is used in a linear layer or a norm, by its name in ``pointer``."""

    def __init__(self, pointer: Pointer) -> None:
        super().__init__()
        self.found = Counter[str]()
        self._names = {id(weight): name for name, weight in pointer.named_parameters()}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is linear:
            self.found[self._names[id(args[1])].removesuffix(".weight")] += 1
        elif func is layer_norm:
            weight = args[2] if len(args) > 2 else kwargs["weight"]
            self.found[self._names[id(weight)].removesuffix(".weight")] += 1
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("keep", [2, 8])
def test_the_memory_is_projected_once(keep: int) -> None:
    pointer = made()
    for go in (pointer.pick, pointer.unroll):
        with Products(pointer) as products:
            go(memory_of(pointer, tokens()), [9], [keep])
        found = products.found
        for block in (0, 1):
            for name in ("cross.key", "cross.value"):
                assert found[f"blocks.{block}.{name}"] == 1
            for name in ("own.key", "own.value", "own.query", "cross.query", "mlp.3"):
                assert found[f"blocks.{block}.{name}"] == keep
        assert found["key"] == 1 and found["query"] == keep and found["norm_memory"] == 1


class Asked(TorchDispatchMode):
    """Counts what makes the host wait for a value of the device."""

    waits = ("_local_scalar_dense", "nonzero", "masked_select", "equal", "unique", "index.Tensor")

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += any(name in str(func) for name in self.waits)
        return func(*args, **(kwargs or {}))


def test_the_count_above_can_count() -> None:
    with Asked() as asked:
        bool(torch.ones(1).any())
        torch.ones(2)[torch.tensor([True, False])]
        float(torch.ones(1))
    assert asked.count >= 3


@pytest.mark.parametrize("keep", [None, 40])
def test_the_host_waits_for_no_step(keep: int | None) -> None:
    pointer, size, most = made(stop_bias=-40.0), 80, 40
    memory = memory_of(pointer, tokens(size))
    with Asked() as asked:
        found = pointer.pick(memory, [most], None if keep is None else [keep])
    assert int(found.counts) == most
    assert asked.count <= (0 if keep else most // 16 + 1)


def test_steps_on_a_device_without_values() -> None:
    """With ``keep`` no step needs a value: the meta device has none."""
    pointer = made().to("meta")
    rows = torch.empty(2, SIZE + 1, 8, dtype=torch.float64, device="meta")
    layers = [block.cross.keys_values(rows) for block in pointer.blocks]
    assert pointer.key is not None
    found = pointer.pick(Memory(rows, None, layers, pointer.key(rows)), [4, 4], [4, 4])
    assert found.order.shape == (2, 4)


def test_all_have_stopped_ends_the_loop() -> None:
    pointer = made(stop_bias=40.0)
    with Products(pointer) as products:
        picks = pointer.pick(memory_of(pointer, tokens(80), tokens(80)), [40, 40])
    assert picks.counts.tolist() == [0, 0]
    assert products.found["query"] == 16
