"""Small pictures of what was asked, so that answers that changed are seen with their images."""

from __future__ import annotations

import base64
import io
from collections import Counter
from collections.abc import Callable

from PIL import Image

from prunus.compare.contract import Comparison, Run
from prunus.tasks.sets import BUILTIN_SETS, Clip, EvalSet, load_builtin_set

#: Pixels of the longer side: twice what a page shows, for dense screens.
SIDE = 152
#: Most pictures of a run, and most of their bytes.
MOST, MOST_BYTES = 160, 600_000
_QUALITY = 80

Seen = Callable[[int], Image.Image | Clip]


def thumbnails(run: Run, seen: Seen) -> dict[str, str]:
    """``data:`` addresses by the numbers of images: those whose answers changed most often, in any
    cell of ``run``, until there are enough. Of a video, its middle frame. ``seen`` gives an image.
    """
    dense = run["right"][run["dense"]["key"]]
    changed: Counter[int] = Counter()
    for marks in run["right"].values():
        for question, one, other in zip(run["questions_list"], marks, dense, strict=True):
            changed[question["image"]] += one != other
    found: dict[str, str] = {}
    left = MOST_BYTES
    for image, times in sorted(changed.items(), key=lambda item: (-item[1], item[0]))[:MOST]:
        address = small(seen(image)) if times else ""
        left -= len(address)
        if not times or left < 0:
            break
        found[str(image)] = address
    return dict(sorted(found.items(), key=lambda item: int(item[0])))


def small(seen: Image.Image | Clip) -> str:
    """The ``data:`` address of a picture, small."""
    whole = seen.frames[len(seen.frames) // 2] if isinstance(seen, Clip) else seen
    image = whole.convert("RGB")
    image.thumbnail((SIDE, SIDE))
    file = io.BytesIO()
    image.save(file, "WEBP", quality=_QUALITY, method=6)
    return "data:image/webp;base64," + base64.b64encode(file.getvalue()).decode("ascii")


def illustrated(comparison: Comparison) -> Comparison:
    """``comparison`` with thumbnails for the runs on built-in questions that have none: those can
    be drawn anew."""
    sets: dict[str, EvalSet] = {}
    runs = []
    for run in comparison["runs"]:
        data = None if run.get("thumbnails") else _builtin(run, sets)
        more = {} if data is None else {"thumbnails": thumbnails(run, data.seen)}
        runs.append(Run(**{**run, **more}))  # type: ignore[typeddict-item]
    return Comparison(**{**comparison, "runs": runs})


def _builtin(run: Run, sets: dict[str, EvalSet]) -> EvalSet | None:
    """The built-in set that ``run`` asked; None where it is none, or asks other questions now."""
    if not sets:
        sets.update({one.name: one for one in map(load_builtin_set, BUILTIN_SETS)})
    data = sets.get(run["set"])
    if data is None:
        return None
    asked = [(one["image"], one["text"]) for one in run["questions_list"]]
    there = {(query.image, query.text) for query in data.queries}
    return data if there.issuperset(asked) else None
