"""What is to be compared: plain values, which are told to worker processes as they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from prunus.errors import PrunusError, shown
from prunus.evaluate.cells import RATIOS
from prunus.method.budget import Keep, Meaning


@dataclass(frozen=True)
class RunSpec:
    """One ``model`` (as of :func:`prunus.load`) on one set: the name of a built-in one, or the path
    of a file."""

    model: str
    data: str

    @property
    def id(self) -> str:
        """What the run is called: model and set."""
        return f"{_short(self.model)}/{_short(self.data)}"


@dataclass(frozen=True)
class Setting:
    """A comparison.

    Attributes:
        runs: models and sets.
        methods: as of :func:`~prunus.evaluate.cells.make_cells`; None: its default.
        keeps, meanings, seeds: budgets, what they count, and seeds of methods that draw lots.
        rival: a method that all others are compared with, None: only with dense and random.
        limit: only the first so many questions of each set.
        batch: questions at a time; ``part``: images whose questions are asked together.
        skip: leave out questions that cannot be asked, and say so; otherwise the first ends all.
        pictures: questions of each run of which it is shown what is kept.
        rounds: of timing; 0: none.
        new_tokens: the longest answer; None: as the true ones of the set say.

    Raises:
        PrunusError: something out of range.
    """

    runs: Sequence[RunSpec]
    methods: Sequence[str] | None = None
    keeps: Sequence[Keep] = RATIOS
    meanings: Sequence[Meaning] = ("true", "nominal")
    seeds: Sequence[int] = (0, 1, 2)
    rival: str | None = None
    limit: int | None = None
    batch: int = 32
    part: int = 125
    skip: bool = False
    pictures: int = 2
    rounds: int = 7
    new_tokens: int | None = None
    dtype: str = "auto"
    device: str = "cpu"

    def __post_init__(self) -> None:
        if not self.runs or len(set(self.runs)) != len(self.runs):
            raise PrunusError("give one or more models, each on different questions")
        names = [run.id for run in self.runs]
        for run in self.runs:
            if names.count(run.id) > 1:
                raise PrunusError(
                    f"several runs would be called {shown(run.id)}, by which they are told apart: "
                    "rename a folder or file, or compare them one by one"
                )
        if not self.meanings or len(set(self.meanings)) != len(self.meanings):
            raise PrunusError(f"meanings={shown(list(self.meanings))}: nominal, true, or both")
        for name in ("batch", "part", "new_tokens"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise PrunusError(f"{name}={value}: give 1 or more")
        if self.pictures < 0 or self.rounds < 0 or self.rounds == 1:
            raise PrunusError("pictures and rounds of timing are 0 or more (two rounds at least)")

    def plain(self) -> dict[str, Any]:
        """As JSON values."""
        found = asdict(self)
        return found | {"keeps": [float(one) for one in self.keeps]}


def _short(name: str) -> str:
    """The last part of a path or a Hugging Face id, without the ending of a file."""
    return name.rstrip("/").rpartition("/")[2].removesuffix(".jsonl") or name
