"""Desks of the built-in models, which tests of the page share."""

from __future__ import annotations

import pytest

import prunus
from prunus.web.desk import Desk
from prunus.web.samples import samples
from prunus.web.source import Source

#: A drawn scene and a drawn video, with a question about each.
SCENE, CLIP = Source("image", ("builtin:0",)), Source("video", ("builtin:0",))
QUESTION = samples(False)[0].questions[0][0]
ABOUT_CLIP = samples(True)[-4].questions[0][0]


@pytest.fixture(scope="session")
def llava_desk() -> Desk:
    return Desk("tiny-llava", *prunus.load("tiny-llava"))


@pytest.fixture(scope="session")
def qwen_desk() -> Desk:
    return Desk("tiny-qwen", *prunus.load("tiny-qwen"))
