"""The table of decoders in docs/engine.md: ``python -m tests.support.decoder_table`` prints it.

Largest errors over the backends and settings of :mod:`tests.support.proof`. ``refused`` is an error
of prunus, which is printed below the table; anything else that goes wrong ends the program.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import torch
import transformers

import prunus
from prunus import Random
from prunus.errors import PrunusError
from tests.support.decoder_list import DECODERS, NOT_IN_A_LLAVA, REFUSED
from tests.support.decoders import Decoder, build
from tests.support.proof.bench import ONE, model_of, plain, prompt
from tests.support.proof.cuts import cuts, given_masks
from tests.support.proof.decoding import decodings
from tests.support.proof.edits import edits
from tests.support.proof.packing import keeps_apart, packing
from tests.support.proof.rows import rows

Proof = Callable[[Decoder, str], Mapping[str, float]]


def _rows(decoder: Decoder, backend: str) -> Mapping[str, float]:
    return rows(decoder, backend, ("row",))


def _decodings(decoder: Decoder, backend: str) -> Mapping[str, float]:
    found = decodings(decoder, backend)
    wrong = [name for name, one in found.items() if one.held != one.bound]
    if wrong:
        raise AssertionError(f"{decoder.name}: cache lengths after {', '.join(wrong)}")
    return {name: max(one.steps, one.turn) for name, one in found.items()}


PROOFS: dict[str, Proof] = {
    "row": _rows,
    "edit": edits,
    "cut": cuts,
    "given masks": given_masks,
    "packed": packing,
    "decode": _decodings,
}


def main() -> None:
    """Print the table, row by row."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    print(f"transformers {transformers.__version__}, torch {torch.__version__}, float32, CPU.\n")
    print("| decoder | class | what is special | backends |", " | ".join(PROOFS), "|")
    print("|---|---|---|---|" + "---|" * len(PROOFS))
    refusals: dict[str, str] = {}
    apart: list[str] = []
    for decoder in DECODERS:
        if not decoder.known:
            print(f"{decoder.name}: not in this transformers", file=sys.stderr)
            continue
        cells = [_cell(decoder, name, refusals) for name in PROOFS]
        kind = type(model_of(decoder).model.language_model).__name__
        said = f"{decoder.name} | `{kind}` | {decoder.trait} | {', '.join(decoder.backends)}"
        print(f"| {said} | {' | '.join(cells)} |", flush=True)
        if not keeps_apart(decoder):
            apart.append(decoder.name)
    print("\nIn the unmodified models of these, samples packed in a row see each other:")
    print(", ".join(apart) + ".\n")
    for what, why in refusals.items():
        print(f"* {what}: {why}")
    _print_refused()
    _print_missing()


def _cell(decoder: Decoder, name: str, refusals: dict[str, str]) -> str:
    worst = 0.0
    for backend in decoder.backends:
        try:
            worst = max(worst, *PROOFS[name](decoder, backend).values())
        except PrunusError as error:
            refusals[f"{decoder.name}, {name}"] = str(error)
            return "refused"
    return f"{worst:.0e}"


def _print_refused() -> None:
    print("\n| decoder | what is special | what `prune` says to a cut |\n|---|---|---|")
    for decoder in REFUSED:
        if not decoder.known:
            continue
        try:
            with prunus.prune(model_of(decoder), Random(keep=5, layer=1)):
                plain(model_of(decoder), prompt(*ONE))
            said = "**nothing**"
        except PrunusError as error:
            said = str(error)
        print(f"| {decoder.name} | {decoder.trait} | {said} |")


def _print_missing() -> None:
    print("\nNot in an unmodified LLaVA:\n")
    for name in NOT_IN_A_LLAVA:
        print(f"* {name}: {_why(name)}")


def _why(name: str) -> str:
    """What transformers says when a LLaVA with this decoder is built and run."""
    model: Any
    try:
        model = build(Decoder(name))
        plain(model, prompt(*ONE))
    except Exception as error:  # whatever it is, it is the answer
        return f"{type(error).__name__}: {str(error).strip().splitlines()[0]}"
    return "it runs: move it to the table"


if __name__ == "__main__":
    main()
