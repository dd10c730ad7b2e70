"""What the engine must know about a model family, and nothing else may know."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from prunus.errors import PrunusError
from prunus.families.decoder_shapes import read_cache, read_decoder
from prunus.families.modules import Modules
from prunus.families.shapes import CacheShape, DecoderShape, ProjectorShape, TowerShape
from prunus.families.towers.base import Tower
from prunus.grid import AnyGrid, Grid

_KNOWN: dict[str, type[Family]] = {}  # by model type
_PIXELS = "pixel_values"
_GRIDS = 64  # whose placeholders are remembered
_FEATURES = ("mm_encoder_outputs",)


@dataclass(frozen=True)
class Beside:
    """What a language model adds to hidden states behind one of its decoder layers.

    Attributes:
        layer: behind which.
        places: bool ``[B, L]``, to which positions of the whole prompt.
        values: ``[n, D]``, for each of these, row by row.
    """

    layer: int
    places: Tensor
    values: Tensor


class Family(Modules):
    """Adapter of one family: where its modules are and how its image tokens are laid out.

    A subclass that names its ``model_types`` (``config.model_type`` in transformers) is registered
    by them. Those in prunus.families are found by themselves, those of other packages by an entry
    point of the group "prunus.families". It must say where :attr:`tower` and :attr:`projector` are,
    :meth:`placeholders` and :meth:`grids_of`; everything else has a default.

    Raises:
        PrunusError: when it is defined, a name or model type that another family has.
    """

    name: ClassVar[str]
    model_types: ClassVar[tuple[str, ...]]
    summary: ClassVar[str] = ""
    no_merging: ClassVar[str] = "its adapter says nothing of the tower's blocks"
    """Why methods that merge inside the vision tower are not supported; "" where
    :meth:`tower_adapter` gives them its blocks. It may give them all the same, to be looked at."""
    takes_sizes: ClassVar[bool] = False
    """Whether calls may say in ``image_sizes``, rows (height, width), how large the original
    pictures are, which the processor keeps to itself."""

    one_way: ClassVar[bool] = True
    """Whether a visual token sees, in the language model, only what stands before it in the
    prompt."""

    mixes_repeats: ClassVar[bool] = False
    """Whether the model's ``generate`` gives beams of a sample that has several images (or videos)
    the wrong ones, so that they are refused."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "model_types" not in cls.__dict__:  # a base of families, or a variant made by hand
            return
        for model_type, known in _KNOWN.items():
            same = (known.__module__, known.__qualname__) == (cls.__module__, cls.__qualname__)
            if not same and (known.name == cls.name or model_type in cls.model_types):
                raise PrunusError(
                    f"the family {cls.name!r} of {cls.__module__} is for {model_type!r} or has the "
                    f"name of {known.name!r}, which {known.__module__} describes already: give it "
                    "a name and model types of its own"
                )
        for model_type in cls.model_types:
            _KNOWN[model_type] = cls

    @classmethod
    def of(cls, top: Any) -> Family:
        """The adapter for the model ``top``, whose model type is one of this family's: of another
        class where models of one type are built in several ways."""
        return cls(top)

    # -- the vision tower ----------------------------------------------------------------------

    @property
    def tower_takes_bias(self) -> bool:
        """Whether a bias can be added to the logits of the vision tower's attention."""
        backend = self.config.vision_config._attn_implementation
        return self.tower_adapter().takes_bias and backend in ("eager", "sdpa")

    @property
    def tower_has_summary(self) -> bool:
        """Whether the vision tower has a CLS token."""
        return self.tower_adapter().has_summary

    def tower_adapter(self) -> Tower:
        """The blocks of the vision tower, for methods that look at them, and, unless there is
        something in the way (:attr:`no_merging`), for those that merge inside it.

        Raises:
            PrunusError: not supported for this family or configuration.
        """
        self.check_merging()
        raise PrunusError(f"{self.name}: its adapter says nothing of the tower's blocks")

    def check_merging(self) -> None:
        """Raise PrunusError where methods inside the vision tower are not supported."""
        if self.no_merging:
            raise PrunusError(
                f"methods inside the vision tower are not supported for {self.name}: "
                f"{self.no_merging}"
            )

    def tower_adapters(self) -> Mapping[str | None, Tower]:
        """:meth:`tower_adapter` for each of :attr:`towers`."""
        return {None: self.tower_adapter()}

    # -- costs ---------------------------------------------------------------------------------

    @classmethod
    def tower_shapes(cls, config: Any) -> tuple[TowerShape, ProjectorShape]:
        """What tower and projector cost, from the configuration of a whole model; reports count
        FLOPs with it.

        Raises:
            PrunusError: it is not known; reports then say so, and count tokens all the same.
        """
        raise PrunusError(
            f"cannot count the cost of {cls.name}: its adapter says nothing of the sizes of its "
            "vision tower and projector (tower_shapes)"
        )

    @classmethod
    def decoder_shape(cls, config: Any) -> DecoderShape:
        """What the language model costs, from the configuration of a whole model. The default reads
        the fields that most decoders have.

        Raises:
            PrunusError: it is not known, as in :meth:`tower_shapes`.
        """
        return read_decoder(config)

    @classmethod
    def cache_shape(cls, config: Any) -> CacheShape:
        """What a token takes in the cache of each decoder layer; as :meth:`decoder_shape`.

        Raises:
            PrunusError: it is not known; reports then count no bytes of the cache.
        """
        return read_cache(config)

    @classmethod
    def cost_note(cls, config: Any) -> str:
        """What numbers of FLOPs do not tell of models of ``config``; "" where they tell all."""
        return ""

    # -- image tokens --------------------------------------------------------------------------

    @abstractmethod
    def placeholders(self, input_ids: Tensor | None, embeds: Tensor | None) -> dict[str, Tensor]:
        """For each kind of visual input the family knows ("image", "video"), bool ``[B, L]``: the
        positions that features of that kind will fill. :meth:`holds` finds one token's."""

    @abstractmethod
    def grids_of(self, call: Mapping[str, Any]) -> dict[str, list[AnyGrid]]:
        """Grids of the visual inputs that one call brings, by kind and in order.

        ``call`` are the arguments of the model's ``forward`` or ``generate`` by name. What it does
        not bring is left out: a decode step or a text turn gives ``{}``.

        Raises:
            PrunusError: arguments from which no grid can be read.
        """

    def brings_features(self, call: Mapping[str, Any]) -> bool:
        """Whether ``call`` has something that visual placeholders are filled with: pixels, or
        features that were computed before."""
        if self.brings_pixels(call):
            return True
        return any(map(bool, map(call.get, _FEATURES)))

    def brings_pixels(self, call: Mapping[str, Any]) -> bool:
        """Whether the tower has something to do in ``call``."""
        return any(name.startswith(_PIXELS) and call[name] is not None for name in call)

    def default_grid(self) -> Grid | None:
        """The grid of every image where the family has only one; None where sizes differ. A video
        has none: without its grid, nothing tells how many frames it has."""
        return None

    def cells(self, grid: AnyGrid) -> Tensor:
        """Int64 ``[placeholders]``: for each placeholder of an input with this ``grid``, in the
        order of the prompt, the index of its cell, or -1 for a mark: a token that belongs to no
        cell (CLS, the end of a row of tiles). Marks are treated like text: always kept. What stands
        between placeholders (timestamps, separators with ids of their own) is text already.

        The default is one placeholder for each cell, in order.
        """
        return torch.arange(grid.size)

    def places(self, grid: AnyGrid) -> Tensor:
        """Int64 ``[N]``: where among the placeholders of an input the N cells of its ``grid`` are.

        Raises:
            PrunusError: :meth:`cells` does not name every cell once.
        """
        cells = self.cells(grid)
        places = (cells >= 0).nonzero()[:, 0]
        order = cells[places]
        if not torch.equal(order.sort().values, torch.arange(grid.size)):
            raise PrunusError(
                f"the family {self.name} says that the placeholders of a grid of {grid.size} cells "
                f"are cells {order.tolist()[:8]}...: it must name each of them once"
            )
        return places[order.argsort()]

    def known_places(self, grid: AnyGrid) -> Tensor:
        """:meth:`places`, found out once for each of the latest grids."""
        return self._known(grid)[1]

    def placeholders_of(self, grid: AnyGrid) -> int:
        """How many placeholders an input with this ``grid`` has."""
        return self._known(grid)[0]

    def _known(self, grid: AnyGrid) -> tuple[int, Tensor]:
        known: dict[AnyGrid, tuple[int, Tensor]] = self.__dict__.setdefault("_by_grid", {})
        found = known.get(grid)
        if found is None:
            if len(known) >= _GRIDS:
                known.clear()
            found = known[grid] = len(self.cells(grid)), self.places(grid)
        return found

    def tower_grids(self, grid: AnyGrid) -> Sequence[Grid]:
        """What the vision tower works on for an input with this ``grid``, pass by pass, for the
        count of its cost: where a family cuts images into tiles, one grid for each of them; where
        the tower is given frames one by one, one for each frame."""
        return grid.parts

    def seen_whole(self, kind: str, grids: Sequence[AnyGrid]) -> list[Any]:
        """``grids`` of inputs of one ``kind``, if what merges in the tower, or is looked at there,
        is what stands in their cells; for families whose inputs are not all so.

        Raises:
            PrunusError: tokens do not reach the prompt as the tower gives them.
        """
        whole = [grid for grid in grids if isinstance(grid, Grid)]
        if len(whole) < len(grids):
            raise PrunusError(
                f"methods inside the vision tower are not supported for {self.name} where an "
                f"{kind} is cut into tiles: {self.no_merging}"
            )
        return whole

    def stays(self, grid: AnyGrid) -> Tensor | None:
        """Where the model leaves some of the tower's tokens of an input away (padding): int64
        ``[N]``, for each cell of its ``grid`` the number of the token in there, on the grid that
        :meth:`seen_whole` gives. None: that has the same cells."""
        return None

    def behind(
        self, inputs: Mapping[str, Tensor], before: Sequence[Mapping[str, Tensor]]
    ) -> dict[str, Tensor]:
        """What the processor made of one prompt (``inputs``), to be put into a batch behind those
        of other prompts (``before``): numbers that count through all pictures of a call go on. The
        default is that there are none."""
        return dict(inputs)

    @property
    def counts_through(self) -> bool:
        """Whether such numbers are there, so that inputs cannot be put behind each other as they
        are."""
        return type(self).behind is not Family.behind

    # -- beside the hidden states --------------------------------------------------------------

    @property
    def has_side_inputs(self) -> bool:
        """Whether the language model is given more of an image than its projected features, so that
        these alone, computed once, do not stand for it."""
        return type(self).beside is not Family.beside

    def beside(self, call: dict[str, Any]) -> tuple[dict[str, Any], list[Beside]]:
        """Take from the arguments ``call`` of the language model what it would add to hidden states
        on their way (DeepStack), by positions of the whole prompt.

        Returns:
            the arguments without it, which the engine adds where the model would have, to those
            tokens that are still there. The default is that there is nothing.
        """
        return call, []

    @property
    def along(self) -> tuple[str, ...]:
        """Names of arguments of the decoder layers that have a row ``[B, L, d]`` for each token of
        the prompt, beside its hidden state; they go with the tokens. None by default."""
        return ()

    def whole_call(self, call: dict[str, Any]) -> dict[str, Any]:
        """The arguments ``call`` of the language model so that it runs every layer on all tokens
        that it is given, where it would leave some out by their places.

        Raises:
            PrunusError: it is to return what would not fit a shorter prompt.
        """
        return call

    def holds(self, token: int, input_ids: Tensor | None, embeds: Tensor | None) -> Tensor:
        """Bool ``[B, L]``: where ``token`` stands in ``input_ids [B, L]``, or its embedding in
        ``embeds [B, L, D]`` if there are no ids.

        Raises:
            PrunusError: neither is given.
        """
        if input_ids is not None:
            return input_ids == token
        if embeds is None:
            raise PrunusError("the model was called with neither input_ids nor inputs_embeds")
        vector: Tensor = self.top.get_input_embeddings()(torch.tensor(token, device=embeds.device))
        return (embeds == vector.to(embeds)).all(-1)


def registered() -> dict[str, type[Family]]:
    """Families that are imported so far, by model type."""
    return dict(_KNOWN)
