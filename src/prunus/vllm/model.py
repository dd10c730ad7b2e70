"""A multimodal model of vLLM whose visual tokens are chosen by prunus."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor
from vllm.logger import init_logger

from prunus.errors import PrunusError
from prunus.method.base import runs_ahead
from prunus.vllm.core import Loader, vision_core
from prunus.vllm.eyes import Eyes, Left
from prunus.vllm.setting import Setting
from prunus.vllm.versions import check_vllm

logger = init_logger("vllm.plugins.prunus")


class Pruned:
    """In front of a multimodal class of vLLM. Its tower and projector give way to those of
    transformers, in which prunus' engine is at home; the language model stays vLLM's."""

    supports_encoder_cudagraph = False
    supports_encoder_tp_data = False
    supports_mm_device_do_normalize = False
    supports_tower_connector_lora = False
    supports_multimodal_pruning = False

    config: Any
    eyes: Eyes | None = None

    def __init__(self, *, vllm_config: Any, prefix: str = "") -> None:
        version = check_vllm()
        check_deployment(vllm_config)
        model = vllm_config.model_config
        setting = Setting.of(model.hf_config)
        depth = int(model.hf_text_config.num_hidden_layers)
        methods = setting.methods(depth)
        given: Any = super()  # of vLLM
        given.__init__(vllm_config=vllm_config, prefix=prefix)
        device = torch.device(vllm_config.device_config.device_type)
        core = vision_core(model.hf_config, model.dtype, device, runs_ahead(methods, depth))
        self.__dict__["_core"] = core  # whose parts are this module's own
        for name, part in core.named_children():
            if name != "language_model":
                setattr(self, name, part)
        for name, parameter in core.named_parameters(recurse=False):
            setattr(self, name, parameter)
        logger.info(
            "prunus: %s prunes %s, budget %s (vLLM %s)",
            " + ".join(map(repr, methods)),
            model.served_model_name or model.model,
            setting.budget,
            version,
        )

    def load_weights(self, weights: Iterable[tuple[str, Tensor]]) -> set[str]:
        """vLLM's own, but for the vision side."""
        loader = Loader(_without_language(self.__dict__["_core"]))
        given: Any = super()
        loaded: set[str] = given.load_weights(loader.rest(weights))
        return loaded | loader.loaded()

    def calls(self, kwargs: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
        """What vLLM asks to be seen, by kind of input, as transformers' model takes it."""
        raise NotImplementedError

    def beside(self, kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """What else the model would be given with them, from which grids are known."""
        return {}

    def places(self, kind: str, call: Mapping[str, Any]) -> Tensor | None:
        """Int64 ``[A, inputs, n]``: where in its input each token of those that ``call`` brings is,
        by the model's A axes of positions; None: in the order of the prompt."""
        return None

    def carried(self, kind: str, call: Mapping[str, Any], left: list[Left]) -> list[Tensor]:
        """What goes on of each input, as :meth:`embed_input_ids` will be given it."""
        return [torch.cat([one.features, *one.beside], 1) for one in left]

    def embed_multimodal(self, **kwargs: Any) -> list[Tensor]:
        """Features of all inputs, one tensor ``[k, D]`` for each."""
        found: list[Tensor] = []
        for kind, call in self.calls(kwargs):
            places = self.places(kind, call)
            left = self._eyes().see(kind, call, self.beside(kwargs), places)
            found += self.carried(kind, call, left)
        return found

    def _eyes(self) -> Eyes:
        """The engine, once weights are there: learned selectors are found by them."""
        if self.eyes is None:
            words: Any = self
            table = words.get_language_model().model.embed_tokens.weight
            size = int(self.config.get_text_config().vocab_size)
            core = self.__dict__["_core"]
            dtype = next(core.parameters()).dtype
            self.__dict__["eyes"] = Eyes(self.config, core, table[:size], dtype)
        found = self.eyes
        assert found is not None  # for mypy
        return found


def _without_language(core: Any) -> Any:
    """The stub has no parameters, so that ``core`` is its own vision side."""
    return core


def check_deployment(vllm_config: Any) -> None:
    """Raise PrunusError for options of vLLM under which pruned models were never right, or never
    tried."""
    multimodal = vllm_config.model_config.multimodal_config
    parallel = vllm_config.parallel_config
    wrong = {
        "--pipeline-parallel-size above 1": parallel.pipeline_parallel_size > 1,
        "--enable-dbo": getattr(parallel, "enable_dbo", False),
        "--speculative-config": vllm_config.speculative_config is not None,
        "--enable-mm-embeds": multimodal.enable_mm_embeds,
        "--video-pruning-rate": bool(multimodal.video_pruning_rate),
        "--mm-encoder-tp-mode data": multimodal.mm_encoder_tp_mode == "data",
    }
    if found := [name for name, on in wrong.items() if on]:
        raise PrunusError(f"{found[0]} is not supported while prunus prunes: leave it off")
