"""Parameters of a method measured on a model: what its paper gives for other models only.

Each method that can be calibrated names its own calibrator, see :mod:`prunus.calibrate.setup`.
"""

from prunus.calibrate.setup import Opt, Outcome, Setup, calibrated, calibrator_of

__all__ = ["Opt", "Outcome", "Setup", "calibrated", "calibrator_of"]
