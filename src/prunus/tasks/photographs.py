"""Three photographs, ``builtin:cat`` and so on: pictures that look like life.

They show where tokens are kept. The built-in models, which know drawn scenes only, cannot say what
is on them; no true answers ship. Where they come from and their licences: NOTICE.
"""

from __future__ import annotations

from importlib.resources import files

from PIL import Image

from prunus.io.images import decode_image

#: What names of built-in images and videos begin with.
BUILTIN = "builtin:"
#: By name what can be asked about each.
PHOTOGRAPHS: dict[str, tuple[str, ...]] = {
    f"{BUILTIN}cat": ("Which animal is this?", "What colour are its eyes?"),
    f"{BUILTIN}coffee": ("What lies beside the cup?", "What is the table made of?"),
    f"{BUILTIN}rocket": ("What stands in the middle?", "How many towers are there?"),
}


def photograph(name: str) -> Image.Image:
    """The photograph with one of these names, in RGB, at most 480 pixels wide and high."""
    content = files("prunus.tasks").joinpath(f"data/photographs/{name.removeprefix(BUILTIN)}.jpg")
    return decode_image(content.read_bytes(), name)
