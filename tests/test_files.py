"""Files are written whole or not at all, and two writers of one folder do not mix."""

from __future__ import annotations

import errno
import os
import resource
import stat
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import prunus
from prunus import PrunusError, PrunusFileError
from prunus.analyse.plots import Drawing
from prunus.analyse.result import Picture, Result, Table, write, write_index
from prunus.evaluate import Cell, Outcome, load_builtin_set, write_results
from prunus.evaluate.evidence import NOTHING
from prunus.families import family_of
from prunus.io import checkpoint
from prunus.io.claim import claim
from prunus.io.files import (
    append_line,
    check_place,
    replace_folder,
    replacing,
    replacing_all,
    write_text,
)
from prunus.method.calibration import Calibration
from prunus.recipes.export import export
from prunus.recipes.report import write_report
from prunus.selector.store import Card, load_selector, save_selector
from prunus.train.log import Log
from prunus.viz import Panel, draw_panels
from tests.support.files import another_process
from tests.support.llava import llava_clip
from tests.support.random_selectors import selector_for

MODEL = llava_clip()
FACTS = family_of(MODEL)


def content(folder: Path) -> dict[str, bytes]:
    """Every file below ``folder``."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


# -- what is written, twice with other content -------------------------------------------------


SELECTORS = {turn: selector_for(FACTS, seed=turn)[0] for turn in (1, 2)}


def selector(folder: Path, turn: int) -> None:
    card = Card(f"model {turn}", FACTS.fingerprint().tolist(), None, {"words": "x" * 9000})
    save_selector(folder, SELECTORS[turn], card)


def calibration(folder: Path, turn: int) -> None:
    found = Calibration("visipruner", "m", 5, {"tokens_threshold": 0.1 + turn}, {"a": "x" * 9000})
    found.save(folder / "found.json")


def evaluation(folder: Path, turn: int) -> None:
    data = load_builtin_set().first(60 + turn)
    count = len(data.queries)
    outcome = Outcome(Cell("dense"), ["a"] * count, np.zeros(count, bool), [NOTHING] * count)
    write_results(folder, data, [outcome], {"turn": turn})


def picture(folder: Path, turn: int) -> None:
    noise = np.random.default_rng(turn).random((200, 200, 3), dtype=np.float32)
    draw_panels([[Panel(noise, str(turn))]], folder / "p.png")


def analysis(folder: Path, turn: int) -> None:
    rows = [{"turn": turn, "row": row} for row in range(900)]
    drawing = Drawing(2, 2, lambda figure: figure.text(0, 0, str(turn)))
    result = Result("a", "A", [], [Table("t", "c", rows)], [Picture("p", "c", drawing)])
    write(folder, result, {"turn": turn})


def index(folder: Path, turn: int) -> None:
    write_index(folder, [], f"turn {turn} {'x' * 9000}")


def training_state(folder: Path, turn: int) -> None:
    checkpoint.save(folder / "checkpoint.pt", {"turn": turn, "weights": torch.ones(9000)})


def training_log(folder: Path, turn: int) -> None:
    Log(folder, step=0)
    log = Log(folder, step=10**6)
    for step in range(120):
        log.write(step, {"turn": turn, "loss": 0.5, "more": 1 / 3})


def report(folder: Path, turn: int) -> None:
    write_report(folder, "m", {"turn": turn, "text": "x" * 9000}, f"turn {turn}")


class Processor:
    def save_pretrained(self, folder: Path) -> None:
        (folder / "processor.json").write_text("{}")


def exported(folder: Path, turn: int) -> None:
    with torch.no_grad():
        MODEL.lm_head.weight.fill_(turn)
    export(MODEL, Processor(), folder / "model")  # type: ignore[arg-type]


WRITERS = [
    selector, calibration, evaluation, picture, analysis, index, training_state, report, exported,
]  # fmt: skip


@contextmanager
def full_disk(size: int = 5000) -> Iterator[None]:
    """No file may grow beyond ``size`` bytes: writing fails as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("writer", WRITERS)
def test_a_full_disk_leaves_the_old_files(tmp_path: Path, writer: Callable[..., None]) -> None:
    folder = tmp_path / "out"
    with full_disk(), pytest.raises(PrunusFileError, match="cannot write") as caught:
        writer(folder, 1)
    assert caught.value.errno in (errno.EFBIG, None)
    assert content(tmp_path) == {}
    writer(folder, 1)
    before = content(tmp_path)
    assert before
    with full_disk(), pytest.raises(PrunusFileError):
        writer(folder, 2)
    assert content(tmp_path) == before
    writer(folder, 2)
    assert content(tmp_path) != before and set(content(tmp_path)) == set(before)


@pytest.mark.parametrize("step", ["fsync", "replace"])
@pytest.mark.parametrize("kind", [KeyboardInterrupt, OSError])
@pytest.mark.parametrize("writer", WRITERS)
def test_whatever_happens_at_any_file_the_old_ones_stay(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    writer: Callable[..., None],
    step: str,
    kind: type[BaseException],
) -> None:
    owner, name = (os, "fsync") if step == "fsync" else (Path, "replace")
    original = getattr(owner, name)
    writer(tmp_path / "out", 1)
    before = content(tmp_path)
    for fatal in range(20):
        calls = iter(range(10**6))

        def failing(*given: Any, fatal: int = fatal, calls: Any = calls) -> Any:
            if next(calls) == fatal:
                raise kind(errno.ENOSPC, "No space left on device")
            return original(*given)

        monkeypatch.setattr(owner, name, failing)
        try:
            writer(tmp_path / "out", 2)
        except (KeyboardInterrupt, PrunusFileError):
            assert content(tmp_path) == before
        else:
            break
        finally:
            monkeypatch.setattr(owner, name, original)
    assert fatal > 0 or writer is exported  # a folder is renamed, not replaced
    assert content(tmp_path) != before


def test_ctrl_c_while_a_folder_is_swapped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    exported(tmp_path, 1)
    before = content(tmp_path)
    rename = Path.rename
    for fatal in range(2):
        calls = iter(range(10))

        def failing(self: Path, target: Path, calls: Any = calls, fatal: int = fatal) -> Path:
            if next(calls) == fatal:
                raise KeyboardInterrupt
            return rename(self, target)

        monkeypatch.setattr(Path, "rename", failing)
        with pytest.raises(KeyboardInterrupt):
            exported(tmp_path, 2)
        assert content(tmp_path) == before


def test_an_exported_model_keeps_what_was_not_cast(tmp_path: Path) -> None:
    export(MODEL, Processor(), tmp_path / "m")  # type: ignore[arg-type]
    assert MODEL.dtype == torch.float32
    frequencies = MODEL.model.language_model.rotary_emb.inv_freq
    assert frequencies.dtype == torch.float32


# -- single files ------------------------------------------------------------------------------


def test_text_permissions_links_and_long_names(tmp_path: Path) -> None:
    write_text(tmp_path / "new" / "a", "ä\n")
    path = tmp_path / "new" / "a"
    assert path.read_bytes() == "ä\n".encode()
    mask = os.umask(0)
    os.umask(mask)
    assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~mask
    path.chmod(0o640)
    (tmp_path / "link").symlink_to(path)
    write_text(tmp_path / "link", "b")
    assert (tmp_path / "link").is_symlink() and path.read_text() == "b"
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    write_text(tmp_path / ("n" * 250), "c")
    assert (tmp_path / ("n" * 250)).read_text() == "c"


def test_devices_are_written_to(tmp_path: Path) -> None:
    write_text("/dev/null", "x")
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)


def test_places_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("old")
    for place, words in ((tmp_path, "is a folder"), (tmp_path / "file" / "a", "cannot write")):
        with pytest.raises(PrunusFileError, match=words):
            write_text(place, "new")
    assert content(tmp_path) == {"file": b"old"}


def test_places_are_looked_at_beforehand(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("old")
    for path in (tmp_path / "file", tmp_path / "new" / "one", Path("one"), Path("/dev/null")):
        check_place(path)
    for path, words in (
        (tmp_path, "it is a folder"),
        (tmp_path / "file" / "new" / "one", "is no folder"),
        (tmp_path / ("long" * 100), "too long"),
    ):
        with pytest.raises(PrunusFileError, match=f"(?i)cannot write the plot .*{words}"):
            check_place(path, "the plot")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_several_files_are_one(tmp_path: Path) -> None:
    paths = [tmp_path / "a", tmp_path / "b"]
    with replacing_all(paths) as partials:
        for partial in partials:
            partial.write_text("1")
    with pytest.raises(ZeroDivisionError), replacing_all(paths) as partials:
        partials[0].write_text(str(partials[1].write_text("2") // 0))
    with pytest.raises(PrunusFileError), replacing_all(paths) as partials:
        partials[0].write_text("2")  # and nothing into the other
    assert content(tmp_path) == {"a": b"1", "b": b"1"}


def test_without_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(*given: Any) -> None:
        raise OSError(errno.EPERM, "no links here")

    monkeypatch.setattr(os, "link", none)
    analysis(tmp_path, 1)
    analysis(tmp_path, 2)
    assert "2" in (tmp_path / "a.json").read_text()
    assert not [name for name in content(tmp_path) if "prunus" in name]


def test_a_line_is_added_whole_or_not(tmp_path: Path) -> None:
    path = tmp_path / "log"
    append_line(path, "first")
    with full_disk(10), pytest.raises(PrunusFileError, match="cannot write"):
        append_line(path, "second line")
    assert path.read_text() == "first\n"
    append_line(path, "third")
    assert path.read_text() == "first\nthird\n"
    path.write_text("first\ncut o")  # by an editor, or a process that was killed
    append_line(path, "fourth")
    assert path.read_text() == "first\ncut o\nfourth\n"
    with full_disk(23), pytest.raises(PrunusFileError, match="cannot write"):
        append_line(path, "fifth")
    assert path.read_text() == "first\ncut o\nfourth\n"


def test_a_log_of_training_on_a_full_disk(tmp_path: Path) -> None:
    training_log(tmp_path, 1)
    before = (tmp_path / "log.jsonl").read_bytes()
    with full_disk(len(before) + 5), pytest.raises(PrunusFileError):
        Log(tmp_path, 10**6).write(1, {"loss": 1.0})
    assert content(tmp_path) == {"log.jsonl": before}
    with full_disk(100), pytest.raises(PrunusFileError):
        Log(tmp_path, 10**6)
    assert content(tmp_path) == {"log.jsonl": before}


@pytest.mark.parametrize("junk", [b"{", b"3", b"[]", b'{"step": "x"}', b"\xff", b"[" * 10**5])
def test_lines_of_a_log_that_are_none(tmp_path: Path, junk: bytes) -> None:
    (tmp_path / "log.jsonl").write_bytes(b'{"step": 1}\n' + junk + b'\n{"step": 9}')
    Log(tmp_path, step=5)
    assert (tmp_path / "log.jsonl").read_bytes() == b'{"step": 1}\n'


@pytest.mark.parametrize("junk", [b"", b"no checkpoint", b"PK\x03\x04" + b"x" * 100])
def test_broken_checkpoints(tmp_path: Path, junk: bytes) -> None:
    (tmp_path / "checkpoint.pt").write_bytes(junk)
    with pytest.raises(PrunusFileError, match=r"checkpoint.pt.*cannot be read"):
        checkpoint.load(tmp_path / "checkpoint.pt")
    with pytest.raises(PrunusFileError, match="cannot be read"):
        checkpoint.load(tmp_path / "none.pt")
    torch.save([1], tmp_path / "list.pt")
    with pytest.raises(PrunusFileError, match="is no checkpoint"):
        checkpoint.load(tmp_path / "list.pt")


# -- two writers -------------------------------------------------------------------------------


def together(first: Callable[[], None], second: Callable[[], None]) -> list[BaseException]:
    """Run both at once, many times; what was raised."""
    raised: list[BaseException] = []

    def run(action: Callable[[], None]) -> None:
        for _ in range(12):
            try:
                action()
            except PrunusError as error:
                raised.append(error)

    threads = [threading.Thread(target=run, args=(one,)) for one in (first, second)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    return raised


def test_two_threads_that_save_a_selector(tmp_path: Path) -> None:
    folder = tmp_path / "s"
    expected = {turn: one.state_dict() for turn, one in SELECTORS.items()}
    selector(folder, 1)
    reading = threading.Event()
    seen: list[str] = []

    def read() -> None:
        while not reading.is_set():
            chosen, card = load_selector(folder, FACTS)
            seen.append(card.model)
            turn = int(card.model[-1])
            state = chosen.state_dict()
            assert all(torch.equal(state[name], value) for name, value in expected[turn].items())

    failures: list[BaseException] = []

    def reader() -> None:
        try:
            read()
        except BaseException as error:
            failures.append(error)

    watching = threading.Thread(target=reader)
    watching.start()
    raised = together(lambda: selector(folder, 1), lambda: selector(folder, 2))
    reading.set()
    watching.join()
    assert not failures and not raised and len(seen) > 1
    assert set(content(folder)) == {"selector.json", "selector.safetensors"}


def test_two_threads_that_write_an_evaluation(tmp_path: Path) -> None:
    for turn in (1, 2):
        evaluation(tmp_path / str(turn), turn)
    wanted = [content(tmp_path / str(turn)) for turn in (1, 2)]
    raised = together(
        lambda: evaluation(tmp_path / "both", 1), lambda: evaluation(tmp_path / "both", 2)
    )
    assert not raised
    assert content(tmp_path / "both") in wanted


def test_another_process_is_refused_and_a_killed_one_is_no_obstacle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("prunus.evaluate.output.BRIEFLY", 0.2)
    monkeypatch.setattr("prunus.selector.store.BRIEFLY", 0.2)
    with another_process(tmp_path) as holder:
        began = time.monotonic()
        said = rf"another run is writing into .* \(process {holder.pid}\)"
        with pytest.raises(prunus.PrunusStateError, match=said):
            with claim(tmp_path):
                pass
        assert time.monotonic() - began < 1
        for writer in (evaluation, selector):
            with pytest.raises(prunus.PrunusStateError, match="another run is writing into"):
                writer(tmp_path, 1)
        assert set(content(tmp_path)) == {".prunus.lock"}
        holder.kill()
        holder.wait()
        with claim(tmp_path):
            evaluation(tmp_path, 1)  # the same thread may
    assert ".prunus.lock" not in content(tmp_path)


def test_a_folder_is_held_whatever_the_lock_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".prunus.lock").write_text("123456789\n")  # of one that was killed
    with claim(tmp_path):
        assert (tmp_path / ".prunus.lock").read_text() == f"{os.getpid()}\n"

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    (tmp_path / ".prunus.lock").write_text("123456789\n")
    with claim(tmp_path):
        assert (tmp_path / ".prunus.lock").read_text() == ""  # nobody wrong is named


def test_another_thread_is_refused_and_waits_if_it_may(tmp_path: Path) -> None:
    results: list[str] = []

    def other(wait: float) -> None:
        try:
            with claim(tmp_path, wait):
                results.append("had it")
        except prunus.PrunusStateError:
            results.append("refused")

    with claim(tmp_path):
        for wait in (0.0, 0.1):
            thread = threading.Thread(target=other, args=(wait,))
            thread.start()
            thread.join()
        waiting = threading.Thread(target=other, args=(20.0,))
        waiting.start()
        time.sleep(0.2)
    waiting.join()
    assert results == ["refused", "refused", "had it"]
    assert content(tmp_path) == {}


def test_many_take_turns(tmp_path: Path) -> None:
    inside, most, turns = 0, 0, 0

    def work() -> None:
        nonlocal inside, most, turns
        for _ in range(20):
            with claim(tmp_path, 60):
                inside += 1
                most = max(most, inside)
                turns += 1
                time.sleep(0.0005)
                inside -= 1

    threads = [threading.Thread(target=work) for _ in range(4)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert (most, turns) == (1, 80)


def test_a_folder_that_cannot_be_claimed(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(PrunusFileError, match="cannot be made"), claim(tmp_path / "file" / "x"):
        pass


def test_replace_folder_removes_what_is_not_there_any_more(tmp_path: Path) -> None:
    replace_folder(tmp_path / "f", lambda folder: (folder / "a").write_text("1") and None)
    replace_folder(tmp_path / "f", lambda folder: (folder / "b").write_text("2") and None)
    assert content(tmp_path) == {"f/b": b"2"}


def test_a_block_that_fails_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), replacing(tmp_path / "a") as partial:
        _ = partial.write_text("half") // 0
    assert content(tmp_path) == {}
