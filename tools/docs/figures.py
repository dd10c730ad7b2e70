"""A picture for each method: what it keeps of the sample image, by the command on its page."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout, suppress
from hashlib import sha256
from io import StringIO
from pathlib import Path

from prunus.cli import main
from prunus.inference.params import field_names
from prunus.method.base import Method
from prunus.method.derived import derived
from prunus.method.registry import methods, required
from prunus.tasks.sample import load_sample

ROOT = Path(__file__).resolve().parents[2]
SOURCES = ROOT / "src" / "prunus"
#: Of 576 tokens: the first that a method does not refuse (an average of 64 may be out of reach).
KEEPS = (64, 128, 192, 320)


def takes_away(cls: type[Method]) -> bool:
    """Whether there are tokens that go, which a picture can show."""
    return bool(derived(cls())["count"] != "all")


def command(cls: type[Method], keep: int | None) -> str:
    """What draws the picture of a method, from the sample image in a file."""
    _, questions = load_sample()
    asked = "" if keep is None else f" --keep {keep}"
    return (
        f'prunus run sample.png --prompt "{questions[0].text}" --method {cls.name}{asked} '
        f"--save-overlay {cls.name}.png"
    )


def of_methods(folder: Path, names: list[str]) -> dict[str, tuple[str, bytes]]:
    """By method its command and the picture, of those that can be run without more being told and
    that take tokens away. They are drawn anew where a file of prunus has changed since."""
    found = {}
    place = folder / _fingerprint()
    place.mkdir(parents=True, exist_ok=True)
    sample = place / "sample.png"
    load_sample()[0].save(sample)
    for name in names:
        cls = methods()[name]
        if required(cls) or not takes_away(cls):
            continue
        keeps = KEEPS if "keep" in field_names(cls) else (None,)
        if drawn := _drawn(cls, keeps, sample, place):
            found[name] = drawn
    return found


def _drawn(
    cls: type[Method], keeps: Sequence[int | None], sample: Path, place: Path
) -> tuple[str, bytes] | None:
    """With the first of ``keeps`` that is not refused; None if all are."""
    for keep in keeps:
        target = place / f"{cls.name}-{keep}.png"
        line = command(cls, keep)
        if not target.exists():
            _run(line, sample, target)
        if target.exists():
            return line, target.read_bytes()
    return None


def _run(line: str, sample: Path, target: Path) -> None:
    words = [str(sample) if one == "sample.png" else one for one in shlex.split(line)[1:]]
    with redirect_stdout(StringIO()), redirect_stderr(StringIO()), suppress(SystemExit):
        main([*words[:-1], str(target)])  # refusals end in SystemExit, faults do not


def _fingerprint() -> str:
    """Of everything that a picture could depend on."""
    digest = sha256()
    for file in sorted(SOURCES.rglob("*")):
        if file.is_file() and file.suffix in (".py", ".json", ".safetensors"):
            digest.update(file.relative_to(SOURCES).as_posix().encode() + b"\0")
            digest.update(file.read_bytes())
    return digest.hexdigest()[:16]
