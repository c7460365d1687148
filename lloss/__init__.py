"""Learning Loss for Active Learning, in production: train, export, score, select.

``import lloss`` loads neither torch nor onnxruntime; each public name loads its own module when it
is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from lloss.errors import LlossError as LlossError

if TYPE_CHECKING:
    from lloss.export.export_model import to_onnx as to_onnx
    from lloss.images.decode import ImageSpec as ImageSpec
    from lloss.manifest import Manifest as Manifest
    from lloss.manifest import read_manifest as read_manifest
    from lloss.modeling import head_losses as losses  # noqa: F401  a module
    from lloss.modeling.attached_model import AttachedModel as AttachedModel
    from lloss.modeling.head import LossPredictionHead as LossPredictionHead
    from lloss.pools import open_pool as open_pool
    from lloss.project.labeling_tasks import write_tasks as write_tasks
    from lloss.scores.scores_folder import ScoresFolder as ScoresFolder
    from lloss.selection import Selection as Selection
    from lloss.selection import SelectionSettings as SelectionSettings
    from lloss.selection.any_scores import select as select
    from lloss.serve.scoring.result import Scores as Scores
    from lloss.serve.scoring.scorer import Scorer as Scorer
    from lloss.tasks.attach import attach as attach
    from lloss.tasks.labeled_data import open_labeled as open_labeled
    from lloss.training.attached_evaluation import ModelEvaluation as ModelEvaluation
    from lloss.training.attached_evaluation import evaluate as evaluate
    from lloss.training.fit import fit as fit
    from lloss.training.fit_head import HeadFit as HeadFit
    from lloss.training.fit_head import fit_head as fit_head

__version__ = "0.1.0"

_MODULES = {
    "AttachedModel": "lloss.modeling.attached_model",
    "HeadFit": "lloss.training.fit_head",
    "ImageSpec": "lloss.images.decode",
    "LossPredictionHead": "lloss.modeling.head",
    "Manifest": "lloss.manifest",
    "ModelEvaluation": "lloss.training.attached_evaluation",
    "Scorer": "lloss.serve.scoring.scorer",
    "Scores": "lloss.serve.scoring.result",
    "ScoresFolder": "lloss.scores.scores_folder",
    "Selection": "lloss.selection",
    "SelectionSettings": "lloss.selection",
    "attach": "lloss.tasks.attach",
    "evaluate": "lloss.training.attached_evaluation",
    "fit": "lloss.training.fit",
    "fit_head": "lloss.training.fit_head",
    "losses": "lloss.modeling.head_losses",
    "open_labeled": "lloss.tasks.labeled_data",
    "open_pool": "lloss.pools",
    "read_manifest": "lloss.manifest",
    "select": "lloss.selection.any_scores",
    "to_onnx": "lloss.export.export_model",
    "write_tasks": "lloss.project.labeling_tasks",
}

__all__ = ["LlossError", *_MODULES]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'lloss' has no attribute {name!r}")
    module = importlib.import_module(_MODULES[name])
    return module if name == "losses" else getattr(module, name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
