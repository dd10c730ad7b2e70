"""What a time depends on beyond what is timed."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from typing import Any

import torch
import transformers

_ASKED = ("clocks.sm", "clocks.max.sm", "clocks.mem", "power.limit", "temperature.gpu")


def machine(device: torch.device) -> dict[str, Any]:
    """The device, its threads or clocks, and the versions of what runs on it."""
    found: dict[str, Any] = {
        "device": str(device),
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
        "platform": f"{platform.system()} {platform.machine()}",
        "versions": {
            "python": ".".join(map(str, sys.version_info[:3])),
            "torch": str(torch.__version__),
            "transformers": str(transformers.__version__),
        },
    }
    if device.type == "cuda":
        found["gpu"] = torch.cuda.get_device_name(device)
        found["cuda"] = torch.version.cuda
    else:
        found["cpu"] = _processor()
    return found


def state(device: torch.device) -> dict[str, Any]:
    """How busy the machine is, and, of a GPU, its clocks, as the driver says; a value is None where
    nobody can tell."""
    found: dict[str, Any] = {"load": _load()}
    if device.type == "cuda":
        found["clocks"] = clocks(device.index or 0)
    return found


def clocks(number: int) -> dict[str, str] | None:
    """What ``nvidia-smi`` says of a GPU's clocks (MHz), power limit (W) and temperature; None
    without it."""
    if shutil.which("nvidia-smi") is None:
        return None
    query = ["nvidia-smi", f"--id={number}", f"--query-gpu={','.join(_ASKED)}"]
    query.append("--format=csv,noheader,nounits")
    done = subprocess.run(query, capture_output=True, text=True, check=False, timeout=20)
    values = [part.strip() for part in done.stdout.strip().split(",")]
    if done.returncode or len(values) != len(_ASKED):
        return None
    return dict(zip(_ASKED, values, strict=True))


def _load() -> float | None:
    """Processes that wanted a core in the last minute."""
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None


def _processor() -> str:
    """The processor's name, where the system tells it."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            names = [line.partition(":")[2].strip() for line in file if "model name" in line]
    except OSError:  # not Linux
        names = []
    return names[0] if names else platform.processor()
