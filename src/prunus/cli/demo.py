"""``prunus demo``: the built-in model on its sample image, several budgets side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from prunus.cli.console import out, print_result, progress, quiet_transformers
from prunus.cli.errors import BadInput
from prunus.cli.options import AsJson, BudgetOption, meaning_of

if TYPE_CHECKING:
    from rich.table import Table

    from prunus.bench.quick import Quick
    from prunus.inference.answer import Answer
    from prunus.viz import Panel
    from prunus.viz.seen import Picture

#: Questions with their true answers.
Asked = Sequence[tuple[str, str]]

MODEL = "tiny-llava"
#: Shares of the visual tokens; None is the unmodified model. On 576 tokens: 192, 128, 64.
BUDGETS: tuple[float | None, ...] = (None, 1 / 3, 2 / 9, 1 / 9)
_ANSWER_TOKENS = 12
#: Rounds in which all budgets take turns, tokens of what is timed, and seconds after which there
#: are fewer rounds.
_ROUNDS, _TIMED_TOKENS, _SECONDS = 5, 4, 20.0


@dataclass(frozen=True)
class Column:
    """All answers at one budget."""

    budget: float | None
    answers: list[Answer]
    spent: Quick | None = None

    @property
    def title(self) -> str:
        """The budget in percent."""
        return f"{100 * (self.budget or 1):.3g} %"

    def mean(self, *keys: str) -> float:
        """Mean over the questions of the report's figure at ``keys``."""
        total = 0.0
        for answer in self.answers:
            value: Any = answer.report
            for key in keys:
                value = value[key]
            total += float(value)
        return total / len(self.answers)


def demo(
    output: Annotated[Path, typer.Option(metavar="FILE.png", help="The picture.")] = Path(
        "out/demo.png"
    ),
    method: Annotated[str, typer.Option(help="Any method that takes `keep`.")] = "clse",
    budget: BudgetOption = "nominal",
    as_json: AsJson = False,
) -> None:
    """Answer three questions about a sample image at 100, 33.3, 22.2 and 11.1 % of the tokens."""
    from prunus.bench.quick import WARM_UP, quick
    from prunus.cli.loading import load_model
    from prunus.inference.answer import answer
    from prunus.inference.inputs import placed, process
    from prunus.inference.named import NONE, build_methods, parse
    from prunus.inference.prompts import render
    from prunus.tasks.sample import load_sample
    from prunus.viz.as_seen import pictures_as_seen

    if output.suffix.lower() != ".png":
        raise BadInput(f"--output {str(output)!r}: give a file name in .png")
    if method != NONE and not all(one.takes("keep") for one in parse(method)):
        raise BadInput(
            f"the demo compares budgets, and method {method!r} takes none: name one with `keep`, "
            f"or ask one question with `prunus run --method {method}`"
        )
    meaning = meaning_of(budget)
    chosen = [None if b is None else build_methods(method, repr(b), []) for b in BUDGETS]
    quiet_transformers()
    image, questions = load_sample()
    asked = [(question.text, question.answer) for question in questions]
    model, processor = load_model(MODEL)
    prompts = [render(processor, question, ["image"]) for question, _ in asked]
    encoded = [
        placed(process(processor, prompt, [image]), model.device, model.dtype) for prompt in prompts
    ]
    columns: list[Column] = []
    with progress("answering", len(BUDGETS) * len(encoded)) as step:
        for share, instance in zip(BUDGETS, chosen, strict=True):
            answers = []
            for inputs in encoded:
                answers.append(
                    answer(model, processor, inputs, instance, _ANSWER_TOKENS, budget=meaning)
                )
                step()
            columns.append(Column(share, answers))
    shares = {repr(share): own or () for share, own in zip(BUDGETS, chosen, strict=True)}
    with progress("timing", len(shares) * (_ROUNDS + WARM_UP)) as step:
        spent = quick(model, encoded[0], shares, _TIMED_TOKENS, meaning, _ROUNDS, step, _SECONDS)
    columns = [replace(one, spent=own) for one, own in zip(columns, spent.values(), strict=True)]
    [picture] = pictures_as_seen(processor, encoded[0], [[image]], [])[0]
    _draw(output, picture, asked, columns, method)
    if as_json:
        print_result({**_as_dict(asked, columns, method, output), "budget": meaning})
        return
    console = out()
    console.print(_table(asked, columns, method))
    known = [column.spent for column in columns if column.spent is not None]
    if any(one.noisy or one.rounds < _ROUNDS for one in known):
        rounds = known[0].rounds
        console.print(f"times are noisy: {rounds} rounds on a busy machine", markup=False)
    console.print(f"picture: {output}", markup=False, soft_wrap=True)


def _table(asked: Asked, columns: Sequence[Column], method: str) -> Table:
    from rich.markup import escape
    from rich.table import Table

    table = Table(title=f"{MODEL}, {method}, visual tokens kept", title_justify="left")
    table.add_column("", max_width=34)
    table.add_column("truth")
    for column in columns:
        table.add_column(column.title, justify="right", max_width=10)
    for number, (question, truth) in enumerate(asked):
        cells = []
        for column in columns:
            said = column.answers[number].text
            colour = "green" if said == truth else "red"
            cells.append(f"[{colour}]{escape(said) or '(nothing)'}[/{colour}]")
        table.add_row(escape(question), escape(truth), *cells)
    table.add_section()
    rows: list[tuple[str, list[str]]] = [
        ("visual tokens asked for", [f"{c.mean('tokens', 'nominal'):.0f}" for c in columns]),
        ("  true, mean of all layers", [f"{c.mean('tokens', 'average'):.1f}" for c in columns]),
        ("  left at the last layer", [f"{c.mean('tokens', 'kept'):.0f}" for c in columns]),
        ("prefill MFLOPs", [f"{c.mean('flops', 'pruned', 'total') / 1e6:,.0f}" for c in columns]),
        ("  of dense", [f"{c.mean('flops', 'ratio'):.1%}" for c in columns]),
        ("  language model alone", [f"{c.mean('flops', 'llm_ratio'):.1%}" for c in columns]),
        ("KV cache, KiB", [f"{c.mean('kv_bytes', 'pruned') / 1024:,.0f}" for c in columns]),
        ("  of dense", [f"{c.mean('kv_bytes', 'ratio'):.1%}" for c in columns]),
    ]
    for name, cells in [*rows, *_times([c.spent for c in columns if c.spent is not None])]:
        table.add_row(name, "", *cells)
    return table


def _times(spent: Sequence[Quick]) -> list[tuple[str, list[str]]]:
    """Medians, and the middle half of the ratios of each round; the first column is dense."""
    if not spent:
        return []

    def of_dense(
        ratios: Sequence[tuple[float, float, float] | None],
    ) -> list[tuple[str, list[str]]]:
        found = [one for one in ratios if one is not None]
        return [
            ("  of dense, median of rounds", [f"{middle:.1%}" for _, middle, _ in found]),
            ("  its quartiles", [f"{low:.2f}-{high:.2f}" for low, _, high in found]),
        ]

    return [
        ("first token, ms", [f"{1e3 * one.first:.1f}" for one in spent]),
        *of_dense([one.first_ratio for one in spent]),
        ("later tokens, ms", [f"{1e3 * (one.token or 0):.1f}" for one in spent]),
        *of_dense([one.token_ratio for one in spent]),
    ]


def _draw(
    path: Path, picture: Picture, asked: Asked, columns: Sequence[Column], method: str
) -> None:
    from prunus.viz import Key, draw_panels

    panels = _panels(picture, asked, columns)
    trace = [entry for column in columns for entry in column.answers[0].trace]
    tokens = columns[0].mean("tokens", "original")
    title = f"{MODEL}: what {method} keeps of {tokens:g} visual tokens, and what is answered"
    draw_panels([panels], path, title=title, key=Key.of(trace) if trace else None)


def _panels(picture: Picture, asked: Asked, columns: Sequence[Column]) -> list[Panel]:
    """The image with the questions, the importance map, and what each budget keeps."""
    from prunus.viz import Panel, heat_map
    from prunus.viz.entry import Spot, draw_entry, last_removal

    spoken = [
        f"{number}. {question} {said.text or '(nothing)'}"
        for number, ((question, _), said) in enumerate(
            zip(asked, columns[0].answers, strict=True), 1
        )
    ]
    first = "100 %: as the model saw it"
    panels = [Panel(picture, first, "\n".join(spoken), _right(asked, columns[0]))]
    entries = [entry for column in columns for entry in column.answers[0].trace]
    seen = next((entry for entry in entries if entry.scores is not None), None)
    if seen is not None and seen.scores is not None:
        drawn = heat_map(picture, seen.scores[0][0], seen.grid[0][0])
        where = seen.place if seen.layer is None else f"layer {seen.layer}"
        panels.append(Panel(drawn, f"importance (rank), {where}"))
    for column in columns:
        if column.budget is None:
            continue
        drawn, title = picture, f"{column.title}: nothing removed"
        removal = last_removal(column.answers[0].trace)
        if removal is not None:
            last, before = removal
            drawn, done = draw_entry(last, Spot(picture), before)
            title = f"{column.title}: {len(last.kept[0][0])} of {last.grid[0][0].size} {done}"
        panels.append(Panel(drawn, title, "\n".join(_said(column)), _right(asked, column)))
    return panels


def _right(asked: Asked, column: Column) -> list[bool]:
    """Of each question whether its answer is the true one."""
    return [said.text == truth for (_, truth), said in zip(asked, column.answers, strict=True)]


def _said(column: Column) -> list[str]:
    return [f"{n}. {answer.text or '(nothing)'}" for n, answer in enumerate(column.answers, 1)]


def _as_dict(asked: Asked, columns: Sequence[Column], method: str, output: Path) -> dict[str, Any]:
    return {
        "model": MODEL,
        "method": method,
        "picture": str(output),
        "questions": [{"question": q, "truth": truth} for q, truth in asked],
        "budgets": [
            {
                "keep": column.budget or 1.0,
                "method": "none" if column.budget is None else method,
                "answers": [answer.text for answer in column.answers],
                "tokens": column.answers[0].report["tokens"],
                "flops": column.answers[0].report["flops"],
                "kv_bytes": column.answers[0].report["kv_bytes"],
                "time": None if column.spent is None else column.spent.facts(),
            }
            for column in columns
        ],
    }
