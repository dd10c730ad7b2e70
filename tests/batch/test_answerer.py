"""What one worker answers: in batches as one by one, and with the reason where it does not."""

from __future__ import annotations

import json
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from prunus.batch.answerer import Answerer, Job
from prunus.batch.rows import Reader, scan
from prunus.tasks.sets import load_builtin_set


def write_rows(folder: Path, name: str, count: int) -> list[dict[str, Any]]:
    """Questions of the built-in set ``name`` with their pictures beside ``data.jsonl``."""
    data = load_builtin_set(name)
    rows = []
    for number in range(count):
        query = data.queries[number * len(data.queries) // count]
        picture = folder / f"{query.image}.png"
        if not picture.exists():
            data.images[query.image]().save(picture)
        rows.append({"id": f"r{number}", "image": picture.name, "prompt": query.text})
    return rows


def data_of(folder: Path, rows: list[Any]) -> Path:
    path = folder / "data.jsonl"
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


def one_by_one(job: Job, path: Path) -> dict[str, Any]:
    """Answers of every row by its id, each asked alone."""
    answerer = Answerer(job, Reader(path))
    found = [one for ref in scan(path).refs for one in answerer.answer([ref])]
    return {one["id"]: one for one in found}


@pytest.mark.parametrize(
    ("model", "method", "keep", "data"),
    [
        ("tiny-llava", "fastv", "0.3", "scenes"),
        ("tiny-qwen", "stepwise", None, "sizes"),
        ("tiny-qwen", "none", None, "sizes"),
    ],
)
def test_a_batch_is_answered_as_one_by_one(
    tmp_path: Path, model: str, method: str, keep: str | None, data: str
) -> None:
    rows = write_rows(tmp_path, data, 5)
    rows[1] = {**rows[1], "images": [rows[1]["image"], rows[0]["image"]]}
    del rows[1]["image"]
    if model == "tiny-qwen":
        rows.append({"id": "film", "video": "builtin:2", "prompt": "does it move ?"})
    path = data_of(tmp_path, rows)
    job = Job(model, method, keep, max_new_tokens=4)
    alone = one_by_one(job, path)
    together = {one["id"]: one for one in Answerer(job, Reader(path)).answer(scan(path).refs)}
    assert together == alone and len({one["answer"] for one in alone.values()}) > 2
    assert all(1 <= one["new_tokens"] <= 4 for one in alone.values())
    kept = {one["kept"] / one["visual_tokens"] for one in alone.values()}
    assert kept == {1.0} if method == "none" else max(kept) < 1
    if data == "scenes":
        assert [one["visual_tokens"] for one in alone.values()] == [576, 1152, 576, 576, 576]


def test_rows_that_cannot_be_asked_do_not_take_others_along(tmp_path: Path) -> None:
    rows = write_rows(tmp_path, "scenes", 3)
    (tmp_path / "broken.png").write_bytes(b"PNG?")
    rows[1:1] = [
        {"id": "missing", "image": "no.png", "prompt": "?"},
        {"id": "broken", "image": "broken.png", "prompt": "?"},
        {"id": "placed", "image": rows[0]["image"], "prompt": "<image> in <image> ?"},
        {"id": "film", "video": "builtin:2", "prompt": "what ?"},
        {"id": "two", "images": [rows[0]["image"]] * 2, "prompt": "is it there ?"},
    ]
    path = data_of(tmp_path, rows)
    indices = [[list(range(0, 576, 9))]]  # of one image: a prompt of two is refused by the method
    job = Job("tiny-llava", "fixed", params=(f"indices={json.dumps(indices)}",), max_new_tokens=2)
    found = {one["id"]: one for one in Answerer(job, Reader(path)).answer(scan(path).refs)}
    assert [name for name, one in found.items() if "answer" in one] == ["r0", "r1", "r2"]
    for name, reason in (
        ("missing", "row 2: no such image file"),
        ("broken", "no image that Pillow can read"),
        ("placed", "2 <image> placeholders but 1 image is given"),
        ("film", "takes images only"),
        ("two", "image"),
    ):
        assert reason in found[name]["reason"], name


def test_a_batch_too_large_for_the_memory_runs_row_by_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = data_of(tmp_path, write_rows(tmp_path, "scenes", 2))
    job = Job("tiny-llava", "uniform", "64", max_new_tokens=2)
    answerer = Answerer(job, Reader(path))
    real, sizes = answerer._model.generate, []

    def generate(**inputs: Any) -> Any:
        sizes.append(len(inputs["input_ids"]))
        if sizes[-1] > 1:
            raise torch.OutOfMemoryError("too much")
        return real(**inputs)

    monkeypatch.setattr(answerer._model, "generate", generate)
    found = answerer.answer(scan(path).refs)
    assert sizes == [2, 1, 1] and all("answer" in one for one in found)


def test_images_in_the_rows_themselves(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    rows = write_rows(tmp_path, "scenes", 2)
    contents = [(tmp_path / row["image"]).read_bytes() for row in rows]
    table = {
        "id": [row["id"] for row in rows] + ["bad"],
        "prompt": [row["prompt"] for row in rows] + ["?"],
        "image": [{"bytes": one} for one in contents] + [{"bytes": b"none"}],
    }
    parquet.write_table(pyarrow.table(table), tmp_path / "data.parquet")
    job = Job("tiny-llava", "uniform", "64", max_new_tokens=3)
    found = one_by_one(job, tmp_path / "data.parquet")
    assert "row 3: bytes is no image" in found.pop("bad")["reason"]
    assert found == one_by_one(job, data_of(tmp_path, rows))
    with Image.open(BytesIO(contents[0])) as image:
        assert image.format == "PNG"
