"""Tasks of lmms-eval on the built-in questions: YAML files and data in a folder, no network."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import av
import numpy as np

from prunus.tasks.sets import EvalSet, load_builtin_set

GENERATE = """
output_type: generate_until
doc_to_text: !function task_code.question
doc_to_target: answer
process_results: !function task_code.right
generation_kwargs:
  max_new_tokens: {new}
  temperature: 0
  do_sample: false
metric_list:
  - metric: accuracy
    aggregation: mean
    higher_is_better: true
"""
CHOOSE = """
output_type: multiple_choice
doc_to_text: !function task_code.question
doc_to_target: !function task_code.number
doc_to_choice: !function task_code.choices
metric_list:
  - metric: acc
    aggregation: mean
    higher_is_better: true
"""


def write_task(
    folder: Path, name: str, rows: Sequence[dict[str, Any]], body: str, *lines: str
) -> None:
    """One task with its data."""
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(Path(__file__).with_name("task_code.py"), folder / "task_code.py")
    data = folder / f"{name}.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    head = (
        f"task: {name}\ndataset_path: json\ndataset_kwargs:\n  data_files:\n    test: {data}\n"
        "test_split: test"
    )
    (folder / f"{name}.yaml").write_text("\n".join([head, *lines, body.strip()]) + "\n")


def scene_rows(folder: Path, data: EvalSet, count: int) -> list[dict[str, Any]]:
    """The first ``count`` questions of a set, with their pictures in ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for query in data.queries[:count]:
        name = f"{data.name.replace(' ', '-')}-{query.image}.png"
        if not (folder / name).exists():
            data.seen(query.image).save(folder / name)  # type: ignore[union-attr]
        rows.append({"images": [name], "question": query.text, "answer": query.answer})
    return rows


def write_tasks(folder: Path, count: int = 12, new: int = 6) -> None:
    """All tasks: pictures (square, and of several sizes), two pictures with text between them,
    videos (built-in ones, and a file), choices."""
    body = GENERATE.format(new=new)
    seen = "doc_to_visual: !function task_code.pictures"
    rows = scene_rows(folder, load_builtin_set("scenes"), count)
    write_task(folder, "prunus_scenes", rows, body, seen)
    sizes = scene_rows(folder, load_builtin_set("sizes"), count)
    write_task(folder, "prunus_sizes", sizes, body, seen)
    two = [
        {**one, "images": [*one["images"], *other["images"]]}
        for one, other in zip(rows[:3], sizes[3:], strict=False)
    ]
    write_task(
        folder, "prunus_two", two, body, seen, "doc_to_messages: !function task_code.between"
    )
    films = load_builtin_set("videos").queries[:count]
    asked = [{"video": f"builtin:{q.image}", "question": q.text, "answer": q.answer} for q in films]
    filmed = "doc_to_visual: !function task_code.videos"
    write_task(folder, "prunus_videos", asked, body, filmed)
    write_film(folder / "film.mp4")
    write_task(folder, "prunus_film", [{**asked[0], "video": "film.mp4"}], body, filmed)
    words = sorted({row["answer"] for row in rows})
    chosen = [{**row, "choices": [row["answer"], *_others(words, row["answer"])]} for row in rows]
    write_task(folder, "prunus_choices", chosen, CHOOSE, seen)


def _others(words: Sequence[str], answer: str) -> list[str]:
    return [word for word in words if word != answer][:2]


def write_film(path: Path) -> None:
    """Two seconds of a video file."""
    clip = load_builtin_set("videos").seen(0)
    with av.open(str(path), "w") as film:
        stream = film.add_stream("mpeg4", rate=4)
        stream.width, stream.height, stream.pix_fmt = 96, 96, "yuv420p"
        for frame in clip.frames[:8]:  # type: ignore[union-attr]
            picture = av.VideoFrame.from_ndarray(np.asarray(frame.resize((96, 96))), "rgb24")
            film.mux(stream.encode(picture))
        film.mux(stream.encode())
