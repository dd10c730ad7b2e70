"""What a server loads: one model, pruned, whenever it is loaded."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Any

import torch
from transformers.cli.serving.model_manager import ModelManager
from transformers.cli.serving.utils import Modality, split_revision

from prunus.errors import PrunusError
from prunus.loading import load
from prunus.method import Method
from prunus.method.budget import Meaning
from prunus.run import Run, prune
from prunus.serving.films import read_videos
from prunus.serving.pictures import read_images
from prunus.serving.texts import find_answers


@dataclass(frozen=True)
class Served:
    """What is served: the model called ``name`` (built-in, a folder, a Hugging Face id) under
    ``methods`` (None: as it is), whose ``keep`` counts as ``budget`` says."""

    name: str
    methods: tuple[Method, ...] | None
    budget: Meaning = "nominal"
    dtype: str = "auto"
    device: str = "auto"
    attention: str | None = None

    def load(self) -> tuple[Any, Any, Run | None]:
        """The model, its processor, and the run that prunes it from now on.

        Raises:
            PrunusError: it cannot be loaded, or not be pruned so.
        """
        place = self.device
        if place == "auto":
            place = "cuda" if torch.cuda.is_available() else "cpu"
        more = {} if self.attention is None else {"attn_implementation": self.attention}
        model, processor = load(self.name, dtype=self.dtype, device=place, **more)
        run = None
        if self.methods is not None:
            run = prune(model, list(self.methods), budget=self.budget, processor=processor)
            run.attach()
        read_images(processor)
        read_videos(processor)
        find_answers(processor, model)
        return model, processor, run


class Models(ModelManager):  # type: ignore[misc]
    """The models of a transformers server: one, which is loaded by prunus and pruned, again where
    the server let go of it (``/reset``)."""

    def __init__(self, served: Served, **options: Any) -> None:
        self._served = served
        self.run: Run | None = None
        self._parts: dict[str, Any] = {}
        self._loading = threading.RLock()
        super().__init__(**options)

    def _load_processor(self, model_id_and_revision: str, gguf_file: str | None = None) -> Any:
        return self._part("processor", model_id_and_revision, gguf_file)

    def _load_model(
        self,
        model_id_and_revision: str,
        tqdm_class: type | None = None,
        progress_callback: Any = None,
        gguf_file: str | None = None,
    ) -> Any:
        return self._part("model", model_id_and_revision, gguf_file)

    @staticmethod
    def get_model_modality(model: Any, processor: Any = None) -> Any:
        """What the server takes ``model`` for. It would look for sound in the videos of models that
        hear none, and fail."""
        found = ModelManager.get_model_modality(model, processor=processor)
        hears = getattr(processor, "feature_extractor", None) is not None
        return Modality.VLM if found is Modality.MULTIMODAL and not hears else found

    def shutdown(self) -> None:
        """Let go of the model; requests that run come to their end first."""
        if self.run is not None:
            self.run.detach()
            self.run = None
        super().shutdown()

    def _part(self, part: str, asked: str, gguf_file: str | None) -> Any:
        """Model and processor are loaded together, whichever the server wants first."""
        name, _ = split_revision(asked)
        if name != self._served.name or gguf_file is not None:
            raise PrunusError(
                f"this server has {self._served.name} only, and was asked for {asked}: start "
                "another `prunus serve transformers` for it"
            )
        with self._loading:
            if part not in self._parts:
                model, processor, self.run = self._served.load()
                self._parts = {"model": model, "processor": processor}
            return self._parts.pop(part)
