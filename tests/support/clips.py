"""Videos on disk whose every frame says which one it is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from PIL import Image

WIDTH, HEIGHT = 64, 48


def numbered(number: int) -> np.ndarray:
    """RGB ``[HEIGHT, WIDTH, 3]``: the number's 8 lowest bits as black and white columns."""
    bits = np.array([255 * (number >> bit & 1) for bit in range(8)], dtype=np.uint8)
    return np.broadcast_to(bits.repeat(WIDTH // 8)[None, :, None], (HEIGHT, WIDTH, 3)).copy()


def number_of(frame: Image.Image) -> int:
    """Which frame of :func:`numbered` it is, modulo 256."""
    row = np.asarray(frame.convert("L").resize((WIDTH, HEIGHT)))[
        HEIGHT // 2, WIDTH // 16 :: WIDTH // 8
    ]
    return sum(int(value > 127) << bit for bit, value in enumerate(row))


def write_video(
    path: Path,
    count: int,
    rate: int = 10,
    *,
    codec: str = "mpeg4",
    group: int = 12,
    betweens: int = 0,
    times: Sequence[int] | None = None,
    draw: Callable[[int], np.ndarray] = numbered,
    options: dict[str, str] | None = None,
) -> Path:
    """``count`` frames, ``rate`` per second (or at ``times`` in milliseconds), with a key frame at
    least every ``group`` of them and at most ``betweens`` B-frames in a row; ``options`` are those
    of the container."""
    with av.open(str(path), "w", options=options or {}) as container:
        stream = container.add_stream(codec, rate=rate)
        stream.height, stream.width = draw(0).shape[:2]
        stream.pix_fmt = "yuv420p"
        stream.codec_context.gop_size = group
        stream.codec_context.max_b_frames = betweens
        stream.bit_rate = 4_000_000
        if times is not None:
            stream.codec_context.time_base = Fraction(1, 1000)
        for number in range(count):
            frame = av.VideoFrame.from_ndarray(draw(number), format="rgb24")
            if times is not None:
                frame.pts, frame.time_base = times[number], Fraction(1, 1000)
            for packet in stream.encode(frame):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
    return path
