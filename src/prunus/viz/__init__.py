"""Pictures of what was kept; drawing a figure needs the extra ``prunus[viz]``."""

from prunus.viz.overlay import Panel, dim_dropped, draw_panels, heat_map, trace_panels
from prunus.viz.seen import as_picture, resized_image, seen_images

__all__ = [
    "Panel",
    "as_picture",
    "dim_dropped",
    "draw_panels",
    "heat_map",
    "resized_image",
    "seen_images",
    "trace_panels",
]
