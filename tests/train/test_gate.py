"""The noise gate and the diagonal denoiser."""

from __future__ import annotations

import math

import pytest
import torch

from prunus.train.gate import Denoiser, NoiseGate
from prunus.train.relax import aggregated_log_scores, soft_length, standardised
from prunus.train.softtopk import soft_topk


def features(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def observed(noise: str) -> NoiseGate:
    gate = NoiseGate(5, noise)  # type: ignore[arg-type]
    gate.observe(features(3, 8, 5, seed=1) * 3 + 1, torch.ones(3, 8, dtype=torch.bool))
    return gate


@pytest.mark.parametrize("noise", ["matched", "unit"])
def test_the_formula_with_the_same_noise(noise: str) -> None:
    gate = observed(noise)
    x = features(2, 4, 5)
    alpha = torch.tensor([[0.0, 0.25, 0.5, 1.0], [0.9, 0.1, 1e-3, 0.7]])
    torch.manual_seed(7)
    found = gate(x, alpha)
    torch.manual_seed(7)
    e = torch.randn(2, 4, 5)
    for b in range(2):
        for i in range(4):
            for c in range(5):
                a = min(max(float(alpha[b, i]), 1e-6), 1 - 1e-6)
                mean, deviation = float(gate.mean[c]), float(gate.deviation[c])
                if noise == "unit":
                    mean, deviation = 0.0, 1.0
                kept = math.sqrt(a) * (float(x[b, i, c]) - mean) + mean
                lost = math.sqrt(1 - a) * deviation * float(e[b, i, c])
                assert float(found[b, i, c]) == pytest.approx(kept + lost, abs=2e-4)
    torch.manual_seed(8)
    assert not torch.equal(gate(x, alpha), found)  # fresh noise each time


@pytest.mark.parametrize("alpha", [0.0, 0.3, 0.9])
def test_variance_is_preserved(alpha: float) -> None:
    torch.manual_seed(0)
    scale = torch.tensor([0.1, 1.0, 5.0])
    x = torch.randn(1, 20_000, 3) * scale + torch.tensor([3.0, -1.0, 0.0])
    weight = torch.full((1, 20_000), alpha)
    gates = {name: NoiseGate(3, name) for name in ("matched", "unit")}
    for gate in gates.values():
        gate.observe(x, torch.ones(1, 20_000, dtype=torch.bool))
    kept = gates["matched"](x, weight)[0]
    assert kept.mean(0).tolist() == pytest.approx(x[0].mean(0).tolist(), abs=0.15)
    assert (kept.std(0) / scale).tolist() == pytest.approx([1.0] * 3, abs=0.03)
    # What is printed does so for standardised features only.
    literal = gates["unit"](x, weight)[0].std(0)
    assert float(literal[1]) == pytest.approx(1, abs=0.03)
    assert float(literal[0]) > 0.3 and float(literal[2]) < 4.9


def test_running_statistics() -> None:
    gate = NoiseGate(2, "matched")
    mean, deviation = None, None
    for number in range(4):
        batch = features(2, 6, 2, seed=number) * (number + 1) + number
        valid = torch.arange(6) < torch.tensor([6, 4])[:, None]
        batch[~valid] = 1e6  # padding
        gate.observe(batch, valid)
        rows = [batch[b, i].double() for b in range(2) for i in range(6) if valid[b, i]]
        own = sum(rows) / len(rows)
        spread = (sum((row - own) ** 2 for row in rows) / len(rows)).sqrt()
        if mean is None or deviation is None:
            mean, deviation = own, spread
        else:
            mean, deviation = 0.98 * mean + 0.02 * own, 0.98 * deviation + 0.02 * spread
        assert gate.mean.tolist() == pytest.approx(mean.tolist(), rel=1e-5)
        assert gate.deviation.tolist() == pytest.approx(deviation.tolist(), rel=1e-5)
    state = gate.state_dict()
    assert set(state) == {"mean", "deviation", "batches"}  # a run that goes on needs them


def test_unit_noise_observes_nothing() -> None:
    gate = observed("unit")
    assert gate.mean.tolist() == [0.0] * 5 and gate.deviation.tolist() == [1.0] * 5


def test_gradients_at_the_edges() -> None:
    gate = observed("matched")
    alpha = torch.tensor([[0.0, 1.0, 1e-7, 1 - 1e-7, 1e-6, 1e-4, 0.5, 1 - 1e-4]]).requires_grad_()
    gate(features(1, 8, 5), alpha).square().sum().backward()
    assert bool(alpha.grad.isfinite().all())
    assert bool((alpha.grad[0, 5:] != 0).all())


@pytest.mark.parametrize("temperature", [2.0, 0.5])
def test_backward_through_the_whole_gate(temperature: float) -> None:
    """From the pointer's logits to gated features: aggregated log scores, soft length as count,
    soft top-k and noise gate, against finite differences in double precision."""
    gate = observed("matched").double()
    x = features(2, 6, 5, seed=2).double()
    generator = torch.Generator().manual_seed(5)
    logits = torch.randn(2, 4, 7, generator=generator, dtype=torch.float64, requires_grad=True)
    ran = torch.tensor([[True, True, True, True], [True, True, True, False]])
    valid = torch.tensor([[True] * 6, [True] * 4 + [False] * 2])
    gone = torch.cat([~valid, torch.zeros(2, 1, dtype=torch.bool)], 1)[:, None]

    def gated(logits: torch.Tensor) -> torch.Tensor:
        log_probs = logits.masked_fill(gone, -torch.inf).log_softmax(-1)
        scores = standardised(aggregated_log_scores(log_probs, ran, "full", 0.9), valid)
        count = soft_length(log_probs[..., -1].exp(), ran)
        torch.manual_seed(9)  # the same noise at every call
        out: torch.Tensor = gate(x, soft_topk(scores, count, temperature))
        return out

    assert gated(logits).dtype == torch.float64
    assert torch.autograd.gradcheck(gated, logits)


def test_the_output_is_float32_of_half_features() -> None:
    gate = observed("matched")
    assert gate(features(1, 4, 5).bfloat16(), torch.rand(1, 4)).dtype == torch.float32


def test_a_constant_channel_gets_no_noise_of_zero_deviation() -> None:
    gate = NoiseGate(1, "matched")
    gate.observe(torch.full((1, 4, 1), 2.0), torch.ones(1, 4, dtype=torch.bool))
    assert float(gate.deviation) > 0
    assert gate(torch.full((1, 4, 1), 2.0), torch.zeros(1, 4)).flatten().tolist() == pytest.approx(
        [2.0] * 4, abs=1e-4
    )


def scrambled() -> Denoiser:
    torch.manual_seed(3)
    denoiser = Denoiser(6)
    with torch.no_grad():
        for weight in denoiser.parameters():
            weight.normal_()
    return denoiser


def test_the_denoiser_starts_as_the_identity() -> None:
    x = features(2, 4, 6)
    assert torch.equal(Denoiser(6)(x), x)


def test_the_denoiser_is_diagonal() -> None:
    denoiser, x = scrambled(), features(2, 4, 6)
    other = x.clone()
    other[0, 2] += 5
    before, after = denoiser(x), denoiser(other)
    changed = (before != after).any(-1)
    assert changed.tolist() == [[False, False, True, False], [False] * 4]


def test_the_denoiser_is_a_block_of_attention_to_oneself() -> None:
    """Softmax over the one key that is seen is 1, whatever query and key are."""
    denoiser, x = scrambled().double(), features(1, 3, 6).double()
    norm, gelu = torch.nn.functional.layer_norm, torch.nn.functional.gelu
    for token in range(3):
        one = x[0, token]
        normed = norm(one, (6,), denoiser.norm1.weight, denoiser.norm1.bias)
        value = denoiser.value.weight @ normed + denoiser.value.bias
        one = one + denoiser.output.weight @ value + denoiser.output.bias
        normed = norm(one, (6,), denoiser.norm2.weight, denoiser.norm2.bias)
        inner = gelu(denoiser.up.weight @ normed + denoiser.up.bias)
        one = one + denoiser.down.weight @ inner + denoiser.down.bias
        assert torch.allclose(denoiser(x)[0, token], one, atol=1e-10)


def test_the_denoiser_learns_from_its_first_step() -> None:
    denoiser = Denoiser(6)
    denoiser(features(1, 3, 6)).square().sum().backward()
    for last in (denoiser.output, denoiser.down):
        assert float(last.weight.grad.abs().max()) > 0
