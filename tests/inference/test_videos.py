"""Video files, animations, folders, built-in videos: the frames that are read are those meant."""

from __future__ import annotations

import builtins
import re
import struct
import wave
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from prunus.errors import PrunusError
from prunus.inference.sampling import Sampling
from prunus.inference.videos import Excerpt, open_videos, plan_videos
from prunus.io.videos import Animation, VideoFile, file
from prunus.tasks.sets import load_builtin_set
from tests.support.clips import HEIGHT, WIDTH, number_of, numbered, write_video


def read(path: Path, **options: Any) -> Excerpt:
    [video] = open_videos([path], Sampling(**options))
    return video


def numbers(video: Excerpt) -> list[int]:
    return [number_of(frame) for frame in video.frames]


FILES: dict[str, dict[str, Any]] = {
    "plain.mp4": {},
    "reordered.mp4": {"codec": "libx264", "betweens": 3},
    "reordered.mkv": {"codec": "libx264", "betweens": 3, "group": 30},
    "old.avi": {"betweens": 2},
    "web.webm": {"codec": "libvpx-vp9"},
    "guessed.mpg": {"codec": "mpeg2video", "betweens": 2, "rate": 25},
    "stream.ts": {"codec": "mpeg2video", "betweens": 2, "rate": 25},
}


@pytest.mark.parametrize("name", FILES)
def test_frames_of_a_file_are_found_by_their_times(name: str, tmp_path: Path) -> None:
    """Whatever the order in which they are stored, and wherever there are key frames."""
    rate = FILES[name].get("rate", 10)
    path = write_video(tmp_path / name, 100, **{"rate": rate, **FILES[name]})
    everything = read(path, frames=100)
    assert numbers(everything) == list(range(100)) == list(everything.numbers)
    assert everything.length == pytest.approx(100 / rate) and everything.fps == rate
    few = read(path, frames=4)
    assert numbers(few) == [0, 25, 50, 75] == list(few.numbers)
    part = read(path, start=30 / rate, end=50 / rate, fps=rate / 4)
    assert numbers(part) == [30, 34, 38, 42, 46]
    assert part.times == pytest.approx([number / rate for number in part.numbers])
    assert all(frame.size == (WIDTH, HEIGHT) for frame in part.frames)


def test_times_that_are_not_even(tmp_path: Path) -> None:
    times = [0, 100, 200, 300, 3000, 3100, 3200, 6000]
    path = write_video(tmp_path / "screen.mkv", len(times), times=times)
    video = read(path, fps=1.0)
    assert numbers(video) == [0, 3, 3, 4, 6, 6, 7]  # what is on the screen at each second
    assert video.times == (0, 1, 2, 3, 4, 5, 6)


def test_a_file_that_says_nothing_of_times(tmp_path: Path) -> None:
    path = write_video(tmp_path / "raw.h264", 40, codec="libx264", betweens=2)
    with pytest.raises(PrunusError, match=r"when the 40 frames of .* are shown: give --source-fps"):
        read(path)
    video = read(path, source_fps=20.0, fps=5.0)
    assert numbers(video) == list(range(0, 40, 4)) and video.length == 2.0
    with pytest.raises(PrunusError, match="says itself when its frames are shown"):
        read(write_video(tmp_path / "a.mp4", 10), source_fps=20.0)


@pytest.mark.parametrize("name", ["half.mkv", "half.mp4", "half.avi"])
def test_a_file_that_was_cut_off(name: str, tmp_path: Path) -> None:
    """Found out by the length that a header promises, or by a frame of which a part is missing."""
    whole = write_video(tmp_path / f"whole-{name}", 200, options={"movflags": "faststart"})
    assert len(read(whole).frames) == 40
    half = tmp_path / name
    half.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    length = float(VideoFile(half).length)
    assert 7 < length < 14
    for end in (None, length, 100.0):
        with pytest.raises(PrunusError, match=rf"was cut off after {length:.1f} s: .* --end"):
            read(half, end=end)
    video = read(half, end=length - 1)
    assert numbers(video) == list(video.numbers) and len(video.frames) == len(video.times) > 10


def test_a_file_that_shrinks_while_it_is_read(tmp_path: Path) -> None:
    path = write_video(tmp_path / "whole.mkv", 200)
    source = VideoFile(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(PrunusError, match=r"ends before .* at 19\.90 s: .* cut off"):
        list(source.read([0, 199]))


@pytest.mark.parametrize("codec", ["libx264", "mpeg2video"])
def test_a_recording_begins_at_its_first_key_frame(codec: str, tmp_path: Path) -> None:
    """What is cut out of a broadcast: frames before that are there, but nobody can decode them."""
    path = write_video(tmp_path / "a.ts", 100, 25, codec=codec, betweens=2, group=30)
    stream = path.read_bytes()
    start = len(stream) // 3 // 188 * 188
    path.write_bytes(stream[: 3 * 188] + stream[start:])  # the tables stay
    video = read(path, fps=25.0, most=100)
    assert numbers(video) == list(range(number_of(video.frames[0]), 100))
    assert 2 <= len(video.frames) < 70 and video.length == pytest.approx(len(video.frames) / 25)


def noisy(number: int) -> np.ndarray:
    """:func:`numbered` with noise, so that each frame takes many bytes."""
    noise = np.random.default_rng(number).integers(-60, 60, (HEIGHT, WIDTH, 3))
    return np.clip(numbered(number) + noise, 0, 255).astype(np.uint8)


def test_a_damaged_file(tmp_path: Path) -> None:
    """What decoders patch up is not shown; frames behind it are, from the next key frame on."""
    path = write_video(tmp_path / "a.mp4", 60, draw=noisy)
    stream = bytearray(path.read_bytes())
    for at in range(len(stream) // 2, len(stream) // 2 + 60, 3):
        stream[at] ^= 0xFF
    path.write_bytes(stream)
    with pytest.raises(PrunusError, match=r"is damaged at (\d\.\d+) s: .* --end") as said:
        read(path, frames=60)
    found = re.search(r"at ([\d.]+) s", str(said.value))
    assert found is not None
    first = round(float(found[1]) * 10)
    assert numbers(read(path, frames=first, end=first / 10)) == list(range(first))
    behind = (first // 12 + 1) * 12
    if first + 1 < min(behind, 60):  # made of what is damaged
        with pytest.raises(PrunusError, match="is damaged"):
            read(path, frames=1, start=(first + 1) / 10)
    rest = read(path, frames=60 - behind, start=behind / 10)
    assert numbers(rest) == list(range(behind, 60))


@pytest.mark.parametrize("turn", [90, 180, 270])
def test_frames_are_turned_as_the_file_says(turn: int, tmp_path: Path) -> None:
    """As telephones record: the picture lies, and its container says so (ISO 14496-12, the matrix
    of a track; degrees clockwise)."""
    path = write_video(tmp_path / "a.mp4", 4)
    cos, sin = {90: (0, 1), 180: (-1, 0), 270: (0, -1)}[turn]
    matrix = [cos << 16, sin << 16, 0, -sin << 16, cos << 16, 0, 0, 0, 1 << 30]
    stream = bytearray(path.read_bytes())
    at = stream.index(b"tkhd") + 44
    stream[at : at + 36] = struct.pack(">9i", *matrix)
    path.write_bytes(stream)
    video = read(path, frames=4)
    assert video.frames[0].size == ((WIDTH, HEIGHT) if turn == 180 else (HEIGHT, WIDTH))
    upright = [frame.rotate(turn, expand=True) for frame in video.frames]  # counter-clockwise
    assert [number_of(frame) for frame in upright] == [0, 1, 2, 3]


def test_a_long_video_is_neither_decoded_nor_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    count, group = 3000, 12
    path = write_video(tmp_path / "long.mp4", count, 30, group=group)
    references: list[weakref.ref[Image.Image]] = []
    decoded, made = 0, 0
    stamped, upright = file._stamped, file._upright

    def next_frame(frames: Any) -> Any:
        nonlocal decoded
        decoded += 1
        return stamped(frames)

    def picture(frame: Any) -> Image.Image:
        nonlocal made
        made += 1
        found = upright(frame)
        references.append(weakref.ref(found))
        return found

    def alive() -> int:
        return sum(reference() is not None for reference in references)

    monkeypatch.setattr(file, "_stamped", next_frame)
    monkeypatch.setattr(file, "_upright", picture)
    [planned] = plan_videos([path], Sampling(frames=8))
    assert decoded == 0  # finding out what there is decodes nothing
    steps: list[int] = []
    video = planned.read(lambda: steps.append(alive()))
    assert numbers(video) == [number % 256 for number in range(0, count, count // 8)]
    assert steps == list(range(1, 9)) and made == 8
    assert decoded <= 8 * (group + 1)
    del video
    most = 0
    for _ in planned.source.read(range(0, count, 3)):
        most = max(most, alive())
    assert made == 8 + count // 3 and most <= 2


@pytest.mark.parametrize("name", ["a.gif", "a.webp", "a.png", "a.avif"])
def test_animations(name: str, tmp_path: Path) -> None:
    frames = [Image.fromarray(numbered(number)) for number in range(12)]
    options = {"lossless": True} if name.endswith("webp") else {}
    frames[0].save(
        tmp_path / name, save_all=True, append_images=frames[1:], duration=200, loop=0, **options
    )
    video = read(tmp_path / name, frames=12)
    assert numbers(video) == list(range(12))
    assert (video.fps, video.length) == (5.0, 2.4)
    assert numbers(read(tmp_path / name, fps=2.5, start=0.4)) == [2, 4, 6, 8, 10]
    with pytest.raises(PrunusError, match="says itself"):
        read(tmp_path / name, source_fps=4.0)


def test_an_animation_whose_frames_last_differently(tmp_path: Path) -> None:
    frames = [Image.fromarray(numbered(number)) for number in range(4)]
    path = tmp_path / "a.gif"
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=[500, 1000, 0, 250])
    source = Animation(path)
    assert source.times.tolist() == pytest.approx([0.0, 0.5, 1.5, 1.6])  # 0: as browsers show it
    assert source.length == pytest.approx(1.85)
    assert numbers(read(path, fps=2.0)) == [0, 1, 1, 3]


def test_a_picture_for_those_who_play_no_animation_is_no_frame(tmp_path: Path) -> None:
    frames = [Image.fromarray(numbered(number)) for number in range(4)]
    path = tmp_path / "a.png"
    frames[3].save(path, save_all=True, append_images=frames[:3], duration=100, default_image=True)
    assert numbers(read(path, frames=3)) == [0, 1, 2]


def test_a_broken_animation(tmp_path: Path) -> None:
    frames = [Image.fromarray(numbered(number)) for number in range(12)]
    path = tmp_path / "a.png"
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=100)
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(PrunusError, match="cannot read the image"):
        read(path)


def test_a_folder_in_natural_order(tmp_path: Path) -> None:
    for number in range(12):
        Image.fromarray(numbered(number)).save(tmp_path / f"frame{number + 1}.png")
    (tmp_path / ".hidden.png").write_text("no picture")
    (tmp_path / "notes.txt").write_text("no picture")
    (tmp_path / "more").mkdir()
    video = read(tmp_path, source_fps=4.0, fps=4.0)
    assert numbers(video) == list(range(12)) and video.length == 3.0
    assert video.name == str(tmp_path)
    assert numbers(read(tmp_path, source_fps=4.0)) == [0, 2, 4, 6, 8, 10]  # 2 per second
    assert numbers(read(tmp_path, source_fps=4.0, start=1.0, frames=2)) == [4, 8]
    with pytest.raises(PrunusError, match=r"when the 12 frames .* give --source-fps"):
        read(tmp_path)
    Image.new("RGB", (9, 7)).save(tmp_path / "frame5.png")
    with pytest.raises(PrunusError, match="one size, .* have 64x48, 9x7"):
        read(tmp_path, source_fps=4.0)
    assert len(read(tmp_path, source_fps=4.0, end=1.0, fps=4.0).frames) == 4  # it is not looked at


def test_a_folder_without_frames(tmp_path: Path) -> None:
    with pytest.raises(PrunusError, match="holds no image files"):
        read(tmp_path, source_fps=4.0)


def test_one_picture_needs_no_rate(tmp_path: Path) -> None:
    Image.fromarray(numbered(5)).save(tmp_path / "one.png")
    assert numbers(read(tmp_path / "one.png")) == [5] == numbers(read(tmp_path))


def test_built_in_videos() -> None:
    video = read(Path("builtin:7"))
    clip = load_builtin_set("videos").clips[7]()
    assert len(video.frames) == len(clip.frames) == 8
    for one, other in zip(video.frames, clip.frames, strict=True):
        np.testing.assert_array_equal(np.asarray(one), np.asarray(other))
    assert (video.fps, video.length, video.start) == (clip.fps, 4.0, 0.0)
    for wrong in ("builtin:120", "builtin:", "builtin:-1", "builtin:x", "builtin:007"):
        with pytest.raises(PrunusError, match="there are builtin:0 to builtin:119"):
            read(Path(wrong))


def test_several_videos(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", 20)
    first, second = open_videos([path, Path("builtin:1")], Sampling(frames=4))
    assert numbers(first) == [0, 5, 10, 15] and first.fps == 2.0
    assert len(second.frames) == 4 and second.fps == 1.0
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    with pytest.raises(PrunusError, match="not both"):
        open_videos([path, tmp_path / "a.png"], Sampling())


def test_sound_alone_is_no_video(tmp_path: Path) -> None:
    path = tmp_path / "sound.wav"
    with wave.open(str(path), "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(8000)
        sound.writeframes(bytes(16000))
    with pytest.raises(PrunusError, match="has no video in it"):
        read(path)


def test_what_is_no_video(tmp_path: Path) -> None:
    with pytest.raises(PrunusError, match="no such video file"):
        read(tmp_path / "gone.mp4")
    (tmp_path / "empty.mp4").touch()
    with pytest.raises(PrunusError, match=r"is empty \(0 bytes\)"):
        read(tmp_path / "empty.mp4")
    (tmp_path / "text.mp4").write_text("not a video")
    with pytest.raises(PrunusError, match="cannot read the video .*: it is cut off, damaged or no"):
        read(tmp_path / "text.mp4")
    (tmp_path / "text.gif").write_text("not a video")
    with pytest.raises(PrunusError, match="no image that Pillow can read"):
        read(tmp_path / "text.gif")


def test_without_pyav(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_video(tmp_path / "a.mp4", 4)
    frames = [Image.fromarray(numbered(number)) for number in range(4)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:], duration=100)
    real = builtins.__import__

    def without(name: str, *args: Any, **kwargs: Any) -> Any:
        if name == "av":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(PrunusError, match="PyAV: pip install av, or give its frames"):
        read(path)
    assert numbers(read(tmp_path / "a.gif", frames=4)) == [0, 1, 2, 3]  # Pillow reads it
