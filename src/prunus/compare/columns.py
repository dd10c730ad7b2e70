"""The columns of answers of a run: every method, control, budget, meaning and seed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from prunus.errors import PrunusError, one_line
from prunus.evaluate.cells import Cell, make_cells
from prunus.method import Method
from prunus.method.budget import Budget, Keep, Meaning
from prunus.method.view import Facts

#: What stands in place of a meaning where a method finds its own count, or nothing is removed.
OWN = "own"
DENSE = "dense"

#: Sizes of inputs at which two meanings of a budget are compared.
_SIZES = (16, 36, 64, 100, 144, 196, 256, 400, 576, 1024, 2880)


@dataclass(frozen=True)
class Column:
    """One ``cell`` whose budget counts what ``budget`` says. Where the nominal budget is the true
    one as well (nothing is removed inside the language model), one column stands in the rows of
    both ``meanings``. ``refused``: why it cannot be asked of this model, None where it can.
    """

    cell: Cell
    budget: Meaning
    meanings: tuple[str, ...]
    refused: str | None = None

    @property
    def keys(self) -> tuple[str, ...]:
        """The keys of the rows that it is part of."""
        return tuple(row_key(self.cell, meaning) for meaning in self.meanings)

    @property
    def words(self) -> str:
        """What it is called in messages."""
        seed = "" if self.cell.seed is None else f" (seed {self.cell.seed})"
        asked = "" if self.cell.keep is None else f" at {self.cell.keep:.4g}, {self.budget}"
        return f"{self.cell.name}{asked}{seed}"


def row_key(cell: Cell, meaning: str) -> str:
    """``divprune|true|0.1111``; ``dense`` of the dense model."""
    if cell.name == DENSE:
        return DENSE
    return f"{cell.name}|{meaning}|" + ("" if cell.keep is None else f"{cell.keep:.4g}")


def make_columns(
    names: Sequence[str] | None,
    keeps: Sequence[Keep],
    meanings: Sequence[Meaning],
    seeds: Sequence[int],
    model: Facts,
) -> list[Column]:
    """All columns for ``model``, the dense one first; arguments and errors as of
    :func:`~prunus.evaluate.cells.make_cells`. A method that does not fit the model is refused in
    its own columns alone."""
    found = []
    for cell in make_cells(names, keeps, seeds):
        refused = None
        try:
            cell = cell.fitted(model)
        except PrunusError as error:
            refused = one_line(error)
        if cell.keep is None:
            found.append(Column(cell, "nominal", (OWN,), refused))
        elif len(meanings) > 1 and (refused or alike(cell.methods, model.depth)):
            found.append(Column(cell, "nominal", tuple(meanings), refused))
        else:
            found += [_with(cell, meaning, refused, model.depth) for meaning in meanings]
    return found


def _with(cell: Cell, meaning: Meaning, refused: str | None, depth: int) -> Column:
    """The column of one ``meaning``, told to the engine as the nominal one where that is it."""
    same = refused is None and alike(cell.methods, depth)
    return Column(cell, "nominal" if same else meaning, (meaning,), refused)


def alike(methods: Sequence[Method], depth: int) -> bool:
    """Whether a nominal and a true budget come to the same tokens on a decoder of ``depth`` layers:
    nothing goes inside the language model, or ``keep`` is an average by definition."""
    if not methods:  # the ground truth, which is cut elsewhere for a true budget
        return False
    nominal = Budget(methods, depth, "nominal")
    try:
        true = Budget(methods, depth, "true")
        same = all(
            nominal.counts(one.last, 1, size) == true.counts(one.last, 1, size)
            for one in (true,)
            for size in _SIZES
        )
    except PrunusError:  # no true budget, or one that cannot be reached
        return False
    inside = any(cut.layer is not None for one in methods for cut in one.cuts(depth))
    return same and (not inside or all(getattr(one, "averages", False) for one in methods))


def without_methods(column: Column) -> Column:
    """The same with no more than its name, to be told to others."""
    return replace(column, cell=replace(column.cell, method=None))
