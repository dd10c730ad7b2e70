import pytest
import torch

from prunus.signals.influence import leave_one_out


def literal(query, key, value, visible, scaling):
    """Zero one weight after the other in every head, and compare outputs (float64)."""
    batch, heads, _, _ = query.shape
    groups = heads // key.shape[1]
    cosine, change = torch.zeros(batch, key.shape[2]), torch.zeros(batch, key.shape[2])
    norms = torch.zeros(batch)
    for b in range(batch):
        maps = []
        for head in range(heads):
            k = key[b, head // groups].double()
            logits = (k @ query[b, head, 0].double()) * scaling
            logits[~visible[b]] = float("-inf")
            maps.append(logits.softmax(0))

        def output(maps, b=b):
            parts = [maps[h] @ value[b, h // groups].double() for h in range(heads)]
            return torch.cat(parts)

        whole = output(maps)
        norms[b] = whole.norm()
        for token in range(key.shape[2]):
            without = [weights.clone() for weights in maps]
            for weights in without:
                weights[token] = 0
            rest = output(without)
            cosine[b, token] = torch.dot(rest, whole) / (rest.norm() * whole.norm())
            change[b, token] = (rest - whole).norm()
    return cosine, change, norms


@pytest.mark.parametrize("kv_heads", [1, 2, 4])
def test_equals_explicit_zeroing(kv_heads: int) -> None:
    torch.manual_seed(3)
    query = torch.randn(2, 4, 1, 8)
    key, value = torch.randn(2, kv_heads, 9, 8) * 2, torch.randn(2, kv_heads, 9, 8)
    visible = torch.ones(2, 9, dtype=torch.bool)
    visible[1, :3] = visible[0, -1] = False
    found = leave_one_out(query, key, value, visible, 0.4)
    for ours, theirs in zip(found, literal(query, key, value, visible, 0.4), strict=True):
        assert torch.allclose(ours, theirs, atol=1e-5)
    assert float(found[1][1, 0]) == 0 and float(found[0][1, 0]) == pytest.approx(1, abs=1e-6)


def test_half_precision_inputs_are_compared_in_single() -> None:
    """Half precision has steps of 5e-4 below one: thresholds of 0.995 and 0.999 need more."""
    torch.manual_seed(0)
    query, key, value = (torch.randn(1, 2, n, 8).half() for n in (1, 40, 40))
    visible = torch.ones(1, 40, dtype=torch.bool)
    cosine, change, _ = leave_one_out(query, key, value, visible, 0.3)
    assert cosine.dtype == change.dtype == torch.float32
    exact, _, _ = literal(query, key, value, visible, 0.3)
    assert torch.allclose(cosine, exact, atol=1e-6)
    assert len(cosine.unique()) > len(cosine.half().unique())


def test_one_token_that_is_everything() -> None:
    query = key = value = torch.ones(1, 1, 1, 4)
    cosine, change, norm = leave_one_out(query, key, value, torch.ones(1, 1, dtype=torch.bool), 1.0)
    assert float(cosine) == 0 and float(change) == float(norm) == 2
