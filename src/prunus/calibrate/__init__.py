"""Parameters of a method measured on a model: what its paper gives for other models only."""

from prunus.calibrate.filtering import find_filtering
from prunus.calibrate.probe import Filtering
from prunus.calibrate.shallow import Tried, find_shallow
from prunus.calibrate.threshold import threshold_for
from prunus.calibrate.visipruner import calibrate_visipruner

__all__ = [
    "Filtering",
    "Tried",
    "calibrate_visipruner",
    "find_filtering",
    "find_shallow",
    "threshold_for",
]
