"""``prunus run FOLDER``: the same question about each image of a folder, one by one."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prunus.cli.asking import Question, quietly
from prunus.cli.console import err, out, print_result, progress
from prunus.cli.errors import BadInput
from prunus.cli.targets import check_target
from prunus.errors import PrunusError, one_line

if TYPE_CHECKING:
    from collections.abc import Mapping


def folder_of(
    images: Sequence[Path], output: Path | None, others: Mapping[str, object]
) -> Path | None:
    """The folder that is asked about, if one is named.

    Raises:
        BadInput: something stands beside it, one of the ``others`` is given that is for one
            prompt, or pictures cannot be written to ``output``.
    """
    folders = [one for one in images if os.path.isdir(one)]
    if not folders:
        if output is not None:
            raise BadInput("--output is for the pictures of a folder: give --save-overlay FILE.png")
        return None
    folder = folders[0]
    if len(images) > 1:
        raise BadInput(
            f"{str(folder)!r} is a folder, each image of which is asked about by itself: name "
            "nothing beside it, or the files that belong into one prompt"
        )
    for name, value in others.items():
        if value:
            hint = ": give --output DIR for a picture of each" if "overlay" in name else ""
            raise BadInput(f"{name} is for one prompt, and {str(folder)!r} is a folder{hint}")
    if output is not None:
        if os.path.realpath(output) == os.path.realpath(folder):
            raise BadInput(f"--output {str(output)!r} is the folder that is looked at: another one")
        check_target("--output", output / "kept.png", "the pictures", [folder])
    return folder


def ask_about(
    question: Question, paths: Sequence[Path], output: Path | None, as_json: bool, note: str
) -> None:
    """Ask about each of the files, tell it line by line, and draw it into ``output``. Of an answer
    only its facts are kept, whatever the size of the folder.

    Raises:
        BadInput: some of them could not be asked about, which is said when all others were.
        PrunusError: the first two could not, for the same reason: it is not in the pictures.
    """
    from prunus.io.images import open_image

    facts: list[dict[str, Any]] = []
    refused: dict[str, str] = {}
    console = out()
    with progress("images", len(paths)) as step:
        for path in paths:
            step()
            picture = None
            try:
                picture = open_image(path)
                with quietly(as_json):
                    one = question.ask([picture])
            except PrunusError as error:
                why = one_line(error) if picture is None else f"{path}: {one_line(error)}"
                again = picture is not None and not facts and one_line(error) in refused.values()
                if again:
                    raise
                refused[str(path)] = one_line(error)
                err().print(f"refused: {why}", markup=False, soft_wrap=True)
                continue
            if not as_json:
                console.print(f"{path.name}: {one.said.text}", markup=False, soft_wrap=True)
            drawn = None if output is None else output / f"{path.name}.png"
            if drawn is not None:
                one.draw(drawn)
            overlay = None if drawn is None else str(drawn)
            facts.append({**one.facts([str(path)]), "overlay": overlay})
    if as_json:
        print_result(
            {
                "model": question.model,
                "method": question.spelled,
                "prompt": question.prompt,
                "budget": question.meaning,
                "answers": facts,
                "refused": [{"image": name, "why": why} for name, why in refused.items()],
                "notes": [note] if note else [],
            }
        )
    else:
        for line in _summary(facts, output):
            console.print(line, markup=False, soft_wrap=True)
    if refused:
        raise BadInput(f"{len(refused)} of {len(paths)} images could not be asked about, see above")


def _summary(facts: Sequence[dict[str, Any]], output: Path | None) -> list[str]:
    """Means over all that was asked."""
    if not facts:
        return []

    def mean(name: str) -> float:
        return sum(float(one["tokens"][name]) for one in facts) / len(facts)

    lines = [
        "",
        f"{len(facts)} images; on average {mean('original'):.1f} -> {mean('kept'):.1f} visual "
        f"tokens at the last layer, {mean('average'):.1f} per layer",
    ]
    return [*lines, f"pictures: {output}"] if output is not None else lines
