"""From the probabilities of a pointer's steps to one score per token, differentiably."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from prunus.selector.config import Aggregate

_FLOOR = math.log(1e-14)


def log_alive(stop: Tensor) -> Tensor:
    """Log probability of not having stopped before each step.

    Args:
        stop: float ``[B, T]``, probability of STOP at each step.

    Returns:
        ``[B, T]``; 0 at the first step: ``A_t = prod_{u<t} (1 - p_u(STOP))``.
    """
    survived = torch.log1p(-stop.clamp_max(1 - 1e-7)).cumsum(1)
    return torch.cat([torch.zeros_like(survived[:, :1]), survived[:, :-1]], 1)


def aggregated_log_scores(log_probs: Tensor, ran: Tensor, mode: Aggregate, beta: float) -> Tensor:
    """Logarithm of ``s_i = sum_t A_t p_t(i) beta^t`` (arXiv 2606.16067, "Aggregated score").

    Computed as a log-sum, which does not underflow where the sum would (0.9^192 = 1.6e-9).

    Args:
        log_probs: ``[B, T, N + 1]``, the last slot is STOP; -inf where a slot was masked.
        ran: bool ``[B, T]``, steps that ran before (and with) the hard STOP; others count nothing,
            because a hard stop may come while p(STOP) is far below 1.
        mode: "full"; "alive" leaves out beta, "uniform" also A; "last" is the last step alone.
        beta: decay per step.

    Returns:
        ``[B, N]``, at least log 1e-14.
    """
    steps = torch.arange(1, log_probs.shape[1] + 1, device=log_probs.device)
    weight = torch.zeros_like(log_probs[..., 0])
    if mode in ("full", "alive"):
        weight = weight + log_alive(log_probs[..., -1].exp())
    if mode == "full":
        weight = weight + steps * math.log(beta)
    if mode == "last":
        ran = steps == (ran * steps).amax(1, keepdim=True)
    # A large negative number instead of -inf: a row of -inf has no gradient but NaN.
    terms = (log_probs[..., :-1] + weight[..., None]).clamp_min(-1e4)
    terms = terms.masked_fill(~ran[..., None], -1e4)
    return terms.logsumexp(1).clamp_min(_FLOOR)


def standardised(values: Tensor, valid: Tensor) -> Tensor:
    """``values [B, N]`` with mean 0 and deviation 1 over the ``valid`` ones of each row; -inf at
    the others."""
    count = valid.sum(1, keepdim=True)
    inside = values.masked_fill(~valid, 0.0)
    centred = (inside - inside.sum(1, keepdim=True) / count).masked_fill(~valid, 0.0)
    deviation = (centred.square().sum(1, keepdim=True) / count + 1e-12).sqrt()
    return (centred / deviation).masked_fill(~valid, -torch.inf)


def soft_length(stop: Tensor, ran: Tensor) -> Tensor:
    """Expected number of tokens picked, ``[B]``: ``sum_t prod_{u<=t} (1 - p_u(STOP))`` over the
    steps that ran. Its gradient is that of the length penalty."""
    survived = torch.log1p(-stop.clamp_max(1 - 1e-7)).cumsum(1)
    return (survived.exp() * ran).sum(1)
