"""Image files of every kind: converted rightly, or refused with one line."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from prunus import PrunusFileError
from prunus.io.images import open_image, to_rgb
from tests.support.files import png

GREY = np.array([[0, 64, 128, 255]], dtype=np.uint8)


def opened(path: Path, image: Image.Image, **options: Any) -> np.ndarray:
    image.save(path, **options)
    read = open_image(path)
    assert read.mode == "RGB"
    return np.asarray(read)


def grey(values: Any) -> np.ndarray:
    return np.repeat(np.asarray(values, dtype=np.uint8)[..., None], 3, 2)


@pytest.mark.parametrize("kind", ["png", "tiff"])
def test_sixteen_bits(tmp_path: Path, kind: str) -> None:
    image = Image.fromarray(GREY.astype(np.uint16) * 257)
    assert image.mode == "I;16"
    assert (opened(tmp_path / f"a.{kind}", image) == grey(GREY)).all()
    dark = Image.fromarray(np.array([[0, 100, 255, 400]], dtype=np.uint16))
    assert (opened(tmp_path / f"b.{kind}", dark) == grey([[0, 0, 1, 2]])).all()


def test_sixteen_bits_of_big_endian(tmp_path: Path) -> None:
    values = (GREY.astype(">u2") * 257).tobytes()
    image = Image.frombytes("I;16B", (4, 1), values)
    assert (np.asarray(to_rgb(image)) == grey(GREY)).all()


def test_a_png_that_pillow_reads_as_whole_numbers() -> None:
    image = Image.fromarray(GREY.astype(np.int32) * 257)
    assert image.mode == "I"
    assert (np.asarray(to_rgb(image, "PNG")) == grey(GREY)).all()


@pytest.mark.parametrize("dtype", [np.int32, np.float32])
def test_values_up_to_255_are_as_they_are(tmp_path: Path, dtype: Any) -> None:
    image = Image.fromarray(GREY.astype(dtype))
    assert (opened(tmp_path / "a.tiff", image) == grey(GREY)).all()


@pytest.mark.parametrize(
    "values",
    [
        np.array([[0, 70000]], dtype=np.int32),
        np.array([[-1, 5]], dtype=np.int32),
        np.array([[0.0, 1.0]], dtype=np.float32),
        np.array([[0.0, np.nan]], dtype=np.float32),
        np.array([[0.0, np.inf]], dtype=np.float32),
        np.array([[-3.0, 3e9]], dtype=np.float32),
    ],
    ids=str,
)
def test_values_without_a_white_are_refused(tmp_path: Path, values: Any) -> None:
    Image.fromarray(values).save(tmp_path / "a.tiff")
    with pytest.raises(PrunusFileError, match=r"cannot use the image .*8 bits"):
        open_image(tmp_path / "a.tiff")


def clear(mode: str) -> Image.Image:
    """Two pixels: a colour that hides in full transparency, and black that shows."""
    image = Image.new("RGBA", (2, 1), (200, 10, 10, 0))
    image.putpixel((1, 0), (0, 0, 0, 255))
    return image.convert(mode)


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_what_is_transparent_is_white(tmp_path: Path, mode: str) -> None:
    assert opened(tmp_path / "a.png", clear(mode)).tolist() == [[[255] * 3, [0] * 3]]


def test_half_transparent_is_a_mixture(tmp_path: Path) -> None:
    image = Image.new("RGBA", (1, 1), (0, 0, 0, 128))
    assert opened(tmp_path / "a.png", image).tolist() == [[[127] * 3]]


def test_opaque_pictures_are_as_pillow_has_them(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (9, 7, 3), dtype=np.uint8)
    image = Image.fromarray(pixels)
    assert (opened(tmp_path / "a.png", image) == pixels).all()
    opaque = image.copy()
    opaque.putalpha(255)
    assert (opened(tmp_path / "b.png", opaque) == pixels).all()


@pytest.mark.parametrize("mode", ["La", "RGBa"])
def test_premultiplied(mode: str) -> None:
    image = clear("LA" if mode == "La" else "RGBA").convert(mode)
    assert np.asarray(to_rgb(image)).tolist() == [[[255] * 3, [0] * 3]]


@pytest.mark.parametrize("kind", ["png", "gif"])
def test_a_palette_with_a_transparent_colour(tmp_path: Path, kind: str) -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([9, 9, 9, 0, 0, 255] + [0] * 762)
    image.putpixel((1, 0), 1)
    path = tmp_path / f"a.{kind}"
    assert opened(path, image, transparency=0).tolist() == [[[255] * 3, [0, 0, 255]]]
    assert opened(tmp_path / "b.png", image).tolist() == [[[9, 9, 9], [0, 0, 255]]]


@pytest.mark.parametrize(("mode", "colour"), [("L", 7), ("RGB", (7, 8, 9))])
def test_a_transparent_colour_of_a_mode_without_alpha(
    tmp_path: Path, mode: str, colour: Any
) -> None:
    image = Image.new(mode, (2, 1), colour)
    image.putpixel((1, 0), 0 if mode == "L" else (0, 0, 0))
    assert opened(tmp_path / "a.png", image, transparency=colour).tolist() == [[[255] * 3, [0] * 3]]


def test_cmyk_and_black_and_white(tmp_path: Path) -> None:
    red = Image.new("CMYK", (8, 8), (0, 255, 255, 0))
    assert np.abs(opened(tmp_path / "a.jpg", red).astype(int) - [255, 0, 0]).max() <= 3
    bits = Image.new("1", (2, 1))
    bits.putpixel((1, 0), 1)
    assert opened(tmp_path / "a.png", bits).tolist() == [[[0] * 3, [255] * 3]]


@pytest.mark.parametrize("mode", ["RGB", "I;16", "LA"])
def test_the_camera_was_held_upright(tmp_path: Path, mode: str) -> None:
    image = Image.new(mode, (4, 2))
    exif = Image.Exif()
    exif[0x0112] = 6
    assert opened(tmp_path / "a.png", image, exif=exif).shape == (4, 2, 3)


def broken() -> dict[str, bytes]:
    """Contents of files that are no usable image, by what their message has to say."""
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    files = {}
    for kind in ("png", "jpeg", "gif", "tiff", "webp", "bmp"):
        written = BytesIO()
        Image.fromarray(noise).save(written, kind)
        files[kind] = written.getvalue()
    return {
        "0 bytes": b"",
        "no image": b"hello",
        "no image ": b"\x89PNG\r\n\x1a\n",
        "too large": png(40000, 40000),
        **{f"read {'!' * n}": files[k][: len(files[k]) // 2] for n, k in enumerate(files)},
    }


@pytest.mark.parametrize(("words", "content"), list(broken().items()))
def test_broken_files(tmp_path: Path, words: str, content: bytes) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(content)
    with pytest.raises(PrunusFileError, match=words.rstrip("! ")) as caught:
        open_image(path, "q.jsonl, line 3")
    message = str(caught.value)
    assert message.startswith("q.jsonl, line 3: ") and "a.png" in message and "\n" not in message


def test_flipped_bytes_end_in_no_other_error(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    path = tmp_path / "a"
    for content in broken().values():
        for _ in range(25):
            damaged = np.frombuffer(content, dtype=np.uint8).copy()
            if len(damaged):
                places = rng.integers(0, len(damaged), 6)
                damaged[places] = rng.integers(0, 256, 6)
            path.write_bytes(damaged.tobytes())
            try:
                open_image(path)
            except PrunusFileError:
                continue


def test_names_that_are_no_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # long names are shortened, and tmp_path may be long
    for name, words in (
        (tmp_path, "is a folder"),
        (Path("gone.png"), "no such image file: .*gone.png"),
        ("a\0b", "no such image file"),
        ("x" * 5000, "no such image file"),
    ):
        with pytest.raises(PrunusFileError, match=words):
            open_image(name)
