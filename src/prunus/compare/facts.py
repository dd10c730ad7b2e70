"""What the methods of a comparison are, from what they say of themselves."""

from __future__ import annotations

from collections.abc import Iterable

from prunus.compare.columns import DENSE, Column
from prunus.compare.contract import Facts
from prunus.compare.verdicts import CONTROLS
from prunus.evaluate.cells import BLIND, GROUND_TRUTH, OTHER
from prunus.inference.named import parse
from prunus.method import acting
from prunus.method.composition import Composition
from prunus.method.derived import derived

#: The systems that prunus was written for, and its compositions, which a page shows first; all
#: others are baselines.
SYSTEMS = frozenset({"clse", "clse-m", "evoprune", "visipruner", "stepwise", "prunus"})

_CONTROLS = {
    GROUND_TRUTH: "the tokens on the objects asked about, then those on others",
    BLIND: "the question without the image",
    OTHER: "the question with another image",
}


def facts_of(columns: Iterable[Column], depth: int) -> dict[str, Facts]:
    """By name, for a decoder of ``depth`` layers; the dense model is none of them."""
    found: dict[str, Facts] = {}
    for column in columns:
        name = column.cell.name
        if name == DENSE or name in found:
            continue
        if name in CONTROLS:
            found[name] = _control(name)
        elif column.cell.methods and column.refused is None:
            found[name] = _method(column, depth)
        else:
            found[name] = _unfitted(name)
    return found


def _control(name: str) -> Facts:
    return Facts(
        summary=_CONTROLS[name],
        paper="",
        place="before the language model" if name == GROUND_TRUTH else "",
        question=name == GROUND_TRUTH,
        count="asked" if name == GROUND_TRUTH else "all",
        merges=False,
        ours=False,
        control=True,
        composition=False,
    )


def _method(column: Column, depth: int) -> Facts:
    methods = column.cell.methods
    own = [derived(one, depth) for one in methods]
    papers = [one.paper for one in methods if one.paper]
    return Facts(
        summary=" + ".join(one.summary for one in methods),
        paper="; ".join(papers),
        place="; ".join(place for facts in own for place in facts["places"]),
        question=any(facts["question"] for facts in own),
        count=own[-1]["count"],
        merges=any(facts["merges"] for facts in own),
        ours=_ours(one.name for one in methods),
        control=any(paper.startswith("control") for paper in papers),
        composition=len(acting(methods, depth)) > 1,
    )


def _unfitted(name: str) -> Facts:
    """Of one that was refused: what its class says."""
    kinds = [one.kind for one in parse(name)]
    papers = [kind.paper for kind in kinds if kind.paper]
    return Facts(
        summary=" + ".join(kind.summary for kind in kinds),
        paper="; ".join(papers),
        place="",
        question=False,
        count="",
        merges=any(kind.kind == "merge" for kind in kinds),
        ours=_ours(kind.name for kind in kinds),
        control=any(paper.startswith("control") for paper in papers),
        composition=len(kinds) > 1 or issubclass(kinds[0], Composition),
    )


def _ours(names: Iterable[str]) -> bool:
    """Whether all that is named is of :data:`SYSTEMS`."""
    return set(names) <= SYSTEMS
