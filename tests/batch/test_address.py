"""Where no cluster is, that is told at once. Needs no Ray."""

from __future__ import annotations

import socket

import pytest

from prunus.batch.pool import check_listening
from prunus.errors import PrunusError


def test_nothing_listens() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and does not listen
        port = taken.getsockname()[1]
        for address in (f"127.0.0.1:{port}", f"ray://127.0.0.1:{port}", "127.0.0.1:70000"):
            with pytest.raises(PrunusError, match=f"--address {address}: no Ray cluster there"):
                check_listening(address)
        taken.listen()
        check_listening(f"127.0.0.1:{port}")
        check_listening(f"ray://127.0.0.1:{port}")
    check_listening("auto")  # Ray looks for that one
