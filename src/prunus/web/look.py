"""How the page looks: the system's fonts, tight controls, large pictures. In light and in dark all
colours are those of Gradio's theme."""

from __future__ import annotations

from pathlib import Path
from typing import Any

CSS = (Path(__file__).parent / "look.css").read_text("utf-8")


def theme() -> Any:
    """Gradio's default in fewer pixels, with fonts that every system has: none is fetched."""
    import gradio

    return gradio.themes.Default(
        font=["system-ui", "sans-serif"],
        font_mono=["ui-monospace", "monospace"],
        text_size="sm",
        spacing_size="sm",
        primary_hue="blue",
    )
