"""Pictures of what was kept."""

from prunus.viz.figure import Panel, draw_panels
from prunus.viz.key import Key
from prunus.viz.overlay import dim_dropped, heat_map, outlined
from prunus.viz.panels import fold, trace_panels
from prunus.viz.seen import as_picture, resized_image, seen_images
from prunus.viz.strip import Strip

__all__ = [
    "Key",
    "Panel",
    "Strip",
    "as_picture",
    "dim_dropped",
    "draw_panels",
    "fold",
    "heat_map",
    "outlined",
    "resized_image",
    "seen_images",
    "trace_panels",
]
