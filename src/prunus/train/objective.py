"""What a selector is trained for: right answers of the frozen model, through the noise gate."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from prunus.engine.prompt import Image, find_images
from prunus.errors import PrunusError
from prunus.families import Family
from prunus.method.budget import resolve_keep
from prunus.method.words import compact_text
from prunus.selector.config import TrainSettings
from prunus.selector.selector import Selector
from prunus.train.data import Batch
from prunus.train.gate import Denoiser, NoiseGate
from prunus.train.relax import aggregated_log_scores, soft_length, standardised
from prunus.train.schedule import Schedule
from prunus.train.softtopk import soft_topk

_MOMENTUM = 0.1  # of the running mean of hard counts, in the literal arm


@dataclass
class Chosen:
    """What the selector made of a batch of images: weights ``alpha [I, N]``, hard counts ``[I]``,
    counts with a gradient ``[I]``, and bool ``[I, N]``, tokens that inference would keep."""

    alpha: Tensor
    counts: Tensor
    length: Tensor
    kept: Tensor


class Objective(nn.Module):
    """Loss of a batch. The model is frozen and no part of this module's state.

    ``L = L_LM + length * K / N`` (arXiv 2606.16067, "Losses"): cross-entropy of the answers of the
    unmodified model, whose visual features pass selector, soft top-k, noise gate and denoiser;
    all N tokens stay, in their order.

    Args:
        model: the frozen model; family: its adapter.
        selector: what is trained, together with the denoiser.
        settings: see :class:`TrainSettings`.
    """

    running: Tensor

    def __init__(
        self, model: nn.Module, family: Family, selector: Selector, settings: TrainSettings
    ) -> None:
        super().__init__()
        model.requires_grad_(False).eval()
        self._model = [model]  # in a list, so that torch does not take it for a part of this module
        self._family, self.settings = family, settings
        self.selector = selector
        self.gate = NoiseGate(family.feature_width, settings.noise or "matched")
        self.denoiser = Denoiser(family.feature_width) if settings.denoise else None
        self.register_buffer("running", torch.tensor(-1.0))

    def forward(self, batch: Batch, state: Schedule) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss (scalar) and what to report, all detached scalars: ``loss``, ``lm``, ``kept`` (mean
        hard K), ``share`` (mean K/N), ``accuracy`` (answers right through the gate), ``inside`` and
        ``outside`` (mean weight of the tokens that would be kept, and of the others)."""
        model, family = self._model[0], self._family
        ids = batch.inputs["input_ids"]
        prompt = find_images(family, family.placeholders(ids, None), family.grids_of(batch.inputs))
        if not prompt.images:
            raise PrunusError("no example of this batch has an image: there is nothing to select")
        embeds = model.get_input_embeddings()(ids).detach()  # type: ignore[operator]
        text, text_valid = compact_text(embeds, batch.question)
        rows = torch.tensor([image.row for image in prompt.images], device=ids.device)
        found: list[Chosen] = []

        def gated(features: Tensor, valid: Tensor) -> Tensor:
            encoded = self.selector.encode(
                features, valid, text[rows], text_valid[rows], state.text_gate
            )
            chosen = self._choose(encoded, valid, prompt.images, state.temperature)
            found.append(chosen)
            self.gate.observe(features, valid)
            with torch.autocast(features.device.type, enabled=False):
                out: Tensor = self.gate(features, chosen.alpha)
                if self.denoiser is not None:
                    out = self.denoiser(out)
            return out.to(features.dtype)

        # Padding stands on the right, where causal attention never looks: without a mask the
        # fastest kernel runs.
        inputs = {name: one for name, one in batch.inputs.items() if name != "attention_mask"}
        with _rewritten(family, prompt.images, gated):
            output = model(**inputs, labels=batch.labels, use_cache=False)
        (chosen,) = found
        sizes = torch.tensor([float(image.grid.size) for image in prompt.images], device=ids.device)
        share = (chosen.length / sizes).mean()
        loss = output.loss + self.settings.length * state.length * share
        weight, kept = chosen.alpha.detach(), chosen.kept
        others = (sizes.sum() - kept.sum()).clamp_min(1)
        return loss, {
            "loss": loss.detach(),
            "lm": output.loss.detach(),
            "kept": chosen.counts.float().mean(),
            "share": share.detach(),
            "accuracy": _right(output.logits, batch.labels),
            "inside": weight[kept].sum() / kept.sum().clamp_min(1),
            "outside": weight[~kept].sum() / others,
        }

    def _choose(
        self, encoded: Tensor, valid: Tensor, images: list[Image], temperature: float
    ) -> Chosen:
        settings, config = self.settings, self.selector.config
        sizes = [image.grid.size for image in images]
        keep = None
        if settings.keep is not None:
            keep = [min(resolve_keep(settings.keep, size), size - 1) for size in sizes]
        if config.kind == "one-shot":
            assert keep is not None  # TrainSettings refuses anything else
            with torch.autocast(encoded.device.type, enabled=False):
                scores = standardised(self.selector.scores(encoded), valid)
            counts = torch.tensor(keep, device=encoded.device)
            ranks = scores.detach().sort(dim=1, descending=True, stable=True).indices.argsort(1)
            kept = ranks < counts[:, None]
            alpha = soft_topk(scores, counts.float(), temperature)
            return Chosen(alpha, counts, counts.float(), kept)
        most = [config.most(size) for size in sizes]
        if settings.max_steps is not None:
            most = [min(own, settings.max_steps) for own in most]
        steps = self.selector.unroll(encoded, valid, most, keep)
        stop = steps.log_probs[..., -1].exp()
        log_scores = aggregated_log_scores(
            steps.log_probs, steps.ran, settings.aggregate, settings.beta
        )
        if settings.scores == "log":
            scores = standardised(log_scores, valid)
        else:
            scores = log_scores.exp().masked_fill(~valid, -torch.inf)
        hard = steps.counts.float()
        soft = soft_length(stop, steps.ran)
        length = soft + (hard - soft).detach()
        if keep is not None:
            count = length = hard
        elif settings.count == "sample":
            count = length
        else:
            count = self._running_mean(hard).expand(len(images))
        limit = torch.tensor(sizes, device=encoded.device).float() - 1
        # min/max and not clamp: the gradient shall pass where the bound is not met.
        alpha = soft_topk(scores, torch.minimum(count, limit).clamp_min(0.5), temperature)
        kept = torch.zeros_like(valid)
        image_steps = steps.ran & (steps.picks < valid.shape[1])
        where = image_steps.nonzero()
        kept[where[:, 0], steps.picks[image_steps]] = True
        return Chosen(alpha, steps.counts, length, kept)

    @torch.no_grad()
    def _running_mean(self, hard: Tensor) -> Tensor:
        """Running mean of the batches' mean hard count."""
        mean = hard.mean()
        first = self.running < 0
        if self.training:
            self.running.copy_(torch.where(first, mean, self.running.lerp(mean, _MOMENTUM)))
            return self.running.clone()
        return torch.where(first, mean, self.running)


class _rewritten:
    """For the time of a ``with`` block the model's visual features pass ``change``, which is given
    ``[I, N, D]`` (padded) and bool ``[I, N]`` and returns the same shape."""

    def __init__(
        self,
        family: Family,
        images: list[Image],
        change: Callable[[Tensor, Tensor], Tensor],
    ) -> None:
        self._family, self._images, self._change = family, images, change

    def __enter__(self) -> None:
        if self._family.reads_tower:
            self._handle = self._family.projector.register_forward_pre_hook(self._tower)
        else:
            self._handle = self._family.language_model.register_forward_pre_hook(
                self._prompt, with_kwargs=True
            )

    def __exit__(self, *error: object) -> None:
        self._handle.remove()

    def _tower(self, module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        states: Tensor = args[0]
        places = self._family.places(self._images[0].grid).to(states.device)
        inner = states[:, places]
        if inner.shape[:2] != (len(self._images), self._images[0].grid.size):
            raise PrunusError(
                f"the projector was given {tuple(states.shape[:-1])} features for "
                f"{len(self._images)} images of {self._images[0].grid.size} tokens"
            )
        changed = self._change(inner, torch.ones_like(inner[..., 0], dtype=torch.bool))
        return (states.index_copy(1, places, changed), *args[1:])

    def _prompt(
        self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        states: Tensor = kwargs["inputs_embeds"]
        sizes = [image.grid.size for image in self._images]
        valid = torch.arange(max(sizes), device=states.device) < torch.tensor(
            sizes, device=states.device
        ).unsqueeze(1)
        rows = torch.cat([torch.full_like(i.positions, i.row) for i in self._images])
        places = torch.cat([image.positions for image in self._images])
        padded = states.new_zeros(*valid.shape, states.shape[-1])
        padded[valid] = states[rows, places]
        changed = self._change(padded, valid)
        states = states.index_put((rows, places), changed[valid])
        return args, {**kwargs, "inputs_embeds": states}


def _right(logits: Tensor, labels: Tensor) -> Tensor:
    """Share of rows whose answer tokens are all the most likely ones."""
    asked = labels[:, 1:] != -100
    hit = (logits[:, :-1].argmax(-1) == labels[:, 1:]) | ~asked
    return hit.all(1)[asked.any(1)].float().mean()
