"""prunus as a model of lmms-eval, and the benchmarks of lmms-eval as runs of a comparison.

lmms-eval finds :func:`manifest` by the entry point group ``lmms_eval.models``. Only ``model`` and
``counts`` import lmms-eval; everything else can be imported without it.
"""

from __future__ import annotations

from typing import Any


def manifest() -> Any:
    """What lmms-eval is told: ``--model prunus`` is this, for both kinds of its tasks."""
    from lmms_eval.models.registry_v2 import ModelManifest

    return ModelManifest(
        model_id="prunus",
        simple_class_path="prunus.lmms.model.PrunusSimple",
        chat_class_path="prunus.lmms.model.PrunusChat",
    )
