"""To and from the Hugging Face hub, through huggingface_hub (which transformers brings along)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from prunus.errors import PrunusError, PrunusFileError, PrunusTypeError, brief, shown
from prunus.selector.store import CARD, WEIGHTS
from prunus.sharing.page import page_of
from prunus.sharing.parcel import CALIBRATION, README, pack


def push_to_hub(
    path: str | Path,
    name: str,
    *,
    private: bool = False,
    token: str | None = None,
    message: str = "A selection of visual tokens, by prunus",
) -> str:
    """Put a selector's folder, or a calibration's file, on the hub, with a page that says what it
    is for and how it was made. Paths of this machine are left out of what is sent.

    Args:
        path: the folder or the file.
        name: where to: "me/my-selector"; it is made if it is not there.
        private: whether it is to be seen by you alone, if it is made now.
        token: of the hub; None for the one of `hf auth login`.
        message: of the commit.

    Returns:
        The address of the page.

    Raises:
        PrunusError: nothing to share there, or the hub refuses or cannot be reached; the message
            says what to do.
    """
    _check(name)
    parcel = pack(path)
    files = {**parcel.files, README: page_of(parcel, name).encode()}
    from huggingface_hub import HfApi

    with TemporaryDirectory() as folder:
        for file, content in files.items():
            (Path(folder) / file).write_bytes(content)
        with _told(f"{name} cannot be written", "log in with `hf auth login`, or give token="):
            api = HfApi(token=token)
            api.create_repo(name, private=private, exist_ok=True)
            api.upload_folder(repo_id=name, folder_path=folder, commit_message=message)
    return f"{api.endpoint}/{name}"


def from_pretrained(name: str, *, revision: str | None = None, token: str | None = None) -> Path:
    """Fetch what :func:`push_to_hub` put there: into the cache of the hub, where it stays.

    Args:
        name: "me/my-selector".
        revision: a branch, a tag or a commit; None for the newest.
        token: of the hub, for what is private.

    Returns:
        The folder of a selector, for ``selector=``; or the file of a calibration, for
        ``calibration=``.

    Raises:
        PrunusError: nothing there, nothing of prunus there, or the hub cannot be reached; the
            message says what to do.
    """
    _check(name)
    from huggingface_hub import snapshot_download

    with _told(f"{name} cannot be fetched", "a copy in a folder works as well as a name"):
        found = snapshot_download(
            name,
            revision=revision,
            token=token,
            allow_patterns=[CARD, WEIGHTS, CALIBRATION, README],
        )
    place = Path(str(found))
    if (place / CARD).is_file():
        return place
    if (place / CALIBRATION).is_file():
        return place / CALIBRATION
    raise PrunusFileError(
        f"{name} is on the hub, but has neither {CARD} nor {CALIBRATION}: it was not put there by "
        "prunus.sharing.push_to_hub"
    )


def _check(name: str) -> None:
    what = f"{shown(name)} is no name on the hub: give one like 'me/my-selector'"
    if not isinstance(name, str):
        raise PrunusTypeError(what)
    owner, _, rest = name.partition("/")
    if not owner or not rest or name.startswith((".", "/", "~")) or "/" in rest:
        raise PrunusError(what)


@contextmanager
def _told(what: str, hint: str) -> Iterator[None]:
    """Turn whatever the hub raises into one line. There is no common class of it (validation, HTTP,
    network, an offline mode, a missing cache), and inside the block nothing else happens."""
    try:
        yield
    except (PrunusError, MemoryError):
        raise
    except Exception as error:
        raise PrunusFileError(
            f"{what}: {type(error).__name__}: {brief(error)} (is there a network, is the name "
            f"right, and may you see it? {hint})"
        ) from error
