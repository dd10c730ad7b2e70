"""Files and processes for tests of reading and writing."""

from __future__ import annotations

import struct
import subprocess
import sys
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def png(width: int, height: int) -> bytes:
    """A PNG of one bit per pixel that says it is so large, and holds next to nothing."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


HOLDER = """
import sys, time
from prunus.io import claim
with getattr(claim, sys.argv[2])(sys.argv[1]):
    print("held", flush=True)
    time.sleep(60)
"""


@contextmanager
def another_process(place: Path, claim: str = "claim") -> Iterator[subprocess.Popen[str]]:
    """A process that holds its claim on a folder, or ("claim_file") on a file."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(place), claim], stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == "held\n"
        try:
            yield holder
        finally:
            holder.kill()
