"""Learning Loss for Active Learning, in production: train, export, score, select.

``import lloss`` loads neither torch nor onnxruntime; each public name loads its own module when it
is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from lloss.errors import LlossError as LlossError

if TYPE_CHECKING:
    from lloss.images.decode import ImageSpec as ImageSpec
    from lloss.manifest import Manifest as Manifest
    from lloss.manifest import read_manifest as read_manifest
    from lloss.modeling.head import LossPredictionHead as LossPredictionHead
    from lloss.pools import open_pool as open_pool
    from lloss.scores.scores_folder import ScoresFolder as ScoresFolder
    from lloss.selection import Selection as Selection
    from lloss.selection import SelectionSettings as SelectionSettings
    from lloss.selection import select as select
    from lloss.serve.scoring.result import Scores as Scores
    from lloss.serve.scoring.scorer import Scorer as Scorer

__version__ = "0.1.0"

_MODULES = {
    "ImageSpec": "lloss.images.decode",
    "LossPredictionHead": "lloss.modeling.head",
    "Manifest": "lloss.manifest",
    "Scorer": "lloss.serve.scoring.scorer",
    "Scores": "lloss.serve.scoring.result",
    "ScoresFolder": "lloss.scores.scores_folder",
    "Selection": "lloss.selection",
    "SelectionSettings": "lloss.selection",
    "open_pool": "lloss.pools",
    "read_manifest": "lloss.manifest",
    "select": "lloss.selection",
}

__all__ = ["LlossError", *_MODULES]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'lloss' has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
