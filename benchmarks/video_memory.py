"""Peak memory of reading a video, by how long it is: videos of noise that moves, made here.

    .venv/bin/python benchmarks/video_memory.py --seconds 60 600

Each is read in a process of its own, as ``prunus run --video FILE --frames 32`` does it.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import av
import numpy as np

_RATE, _HEIGHT, _WIDTH = 15, 480, 640
_READ = """
import resource, sys
from pathlib import Path
from prunus.inference.sampling import Sampling
from prunus.inference.videos import plan_videos
import av

def peak():
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most / (1 << 20 if sys.platform == "darwin" else 1 << 10)

before = peak()
[planned] = plan_videos([Path(sys.argv[1])], Sampling(frames=32))
known = peak()
video = planned.read()
assert len(video.frames) == 32
print(f"imports {before:.0f} MiB, frames found {known:.0f} MiB, frames read {peak():.0f} MiB")
"""


def write(path: Path, seconds: int) -> None:
    """A video of ``seconds`` with a key frame every four of them."""
    noise = np.random.default_rng(0).integers(0, 256, (_HEIGHT, _WIDTH, 3)).astype(np.uint8)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=_RATE)
        stream.width, stream.height, stream.pix_fmt = _WIDTH, _HEIGHT, "yuv420p"
        stream.codec_context.gop_size, stream.bit_rate = 4 * _RATE, 4_000_000
        for number in range(seconds * _RATE):
            pixels = np.roll(noise, 3 * number, axis=1)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())


def main() -> None:
    """Write, read and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=int, nargs="+", default=[60, 600])
    with tempfile.TemporaryDirectory() as folder:
        for seconds in parser.parse_args().seconds:
            path = Path(folder) / f"{seconds}.mp4"
            write(path, seconds)
            size, start = path.stat().st_size / 1e6, time.perf_counter()
            done = subprocess.run(
                [sys.executable, "-c", _READ, str(path)], check=True, capture_output=True, text=True
            )
            took = time.perf_counter() - start
            print(f"{seconds} s, {size:.0f} MB: {done.stdout.strip()}; {took:.1f} s")


if __name__ == "__main__":
    main()
