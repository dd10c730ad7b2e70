"""Tokens per layer as an image that stands in the text of the page."""

from __future__ import annotations

import base64
from io import BytesIO

from prunus.inference.answer import Answer
from prunus.viz.strip import Strip, draw_strip

_WIDE, _HIGH = 5.6, 1.25  # inches
_INK = "#7d8590"  # readable on white and on black


def chart(answer: Answer) -> str:
    """An ``<img>`` with bars of the visual tokens that each decoder layer ran on, drawn as ``prunus
    run --save-overlay`` does, on no background, with room for all tokens that there were."""
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    tokens = answer.report["tokens"]
    counts = tokens["per_layer"]
    strip = Strip.of(answer.trace, counts) or Strip(counts)
    figure = Figure(figsize=(_WIDE, _HIGH))
    figure.patch.set_alpha(0)
    axis = figure.add_axes((0.01, 0.27, 0.98, 0.6))
    axis.patch.set_alpha(0)
    draw_strip(axis, strip, _WIDE, most=tokens["original"], ink=_INK)
    drawn = BytesIO()
    FigureCanvasSVG(figure).print_svg(drawn)
    code = base64.b64encode(drawn.getvalue()).decode()
    said = ", ".join(f"{count:g}" for count in counts)
    name = f"visual tokens per layer: {said}"
    return f'<img class="chart" alt="{name}" src="data:image/svg+xml;base64,{code}">'
