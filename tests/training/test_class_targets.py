"""Which class a number of a dataset is, compared with the model's."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.data import ConcatDataset, DataLoader, Dataset, Subset

import lloss
from lloss.errors import LabelError
from lloss.modeling.attached_model import AttachedModel
from lloss.training.class_targets import refuse_other_classes

from ..outside_networks import DepthLoss, DepthNet, TwoStages

NAMES = ["cat", "dog", "owl"]


class _Named(Dataset[tuple[Tensor, int]]):
    """As torchvision's ImageFolder: ``classes`` of its numbers, and ``target_transform``."""

    def __init__(self, classes: Any, target_transform: Any = None) -> None:
        self.classes, self.target_transform = classes, target_transform

    def __len__(self) -> int:
        return 30

    def __getitem__(self, row: int) -> tuple[Tensor, int]:
        return torch.full((3, 8, 8), row / 20), row % 3


def _model(classes: list[str] | tuple[str, ...] = ()) -> AttachedModel:
    return lloss.attach(TwoStages(3), classes=classes, size=8)


@pytest.mark.parametrize(
    ("theirs", "ours", "message"),
    [
        (NAMES, NAMES, ""),
        (tuple(NAMES), (), ""),  # numbers name nothing
        (
            ["dog", "cat", "owl"],
            NAMES,
            "a _Named whose class 0 is 'dog', the model's is 'cat': att",
        ),
        (["cat", "owl"], NAMES, "class 1 is 'owl', the model's is 'dog'.* a target_transform"),
        (["cat", "dog"], NAMES, ""),
        (["dog", "cat"], (), "of 2 classes for a network of 3 outputs: give it a target_transform"),
        ([], NAMES, ""),
        ([7, 8, 9], NAMES, ""),
        ("cat", NAMES, ""),
    ],
)
def test_the_numbers_of_a_dataset_are_those_of_the_model(
    theirs: Any, ours: list[str], message: str
) -> None:
    dataset, model = _Named(theirs), _model(ours)
    half = Subset(dataset, range(15))
    forms = [dataset, half, ConcatDataset([half, dataset]), DataLoader(half), DataLoader(dataset)]
    for data in forms:
        if not message:
            refuse_other_classes(model, data)
            continue
        with pytest.raises(LabelError, match=message):
            refuse_other_classes(model, data)
    refuse_other_classes(model, _Named(theirs, target_transform=lambda label: label))


def test_everything_that_takes_a_dataset_compares() -> None:
    model, dataset = _model(NAMES), _Named(NAMES[::-1])
    for use in (lloss.fit_head, lloss.evaluate, lloss.fit):
        with pytest.raises(LabelError, match="a _Named whose class 0 is 'owl'"):
            use(model, DataLoader(dataset, 5))  # type: ignore[operator]
    with pytest.raises(LabelError, match="whose class 0"):
        lloss.fit(model, _Named(NAMES), validation=dataset, epochs=1)


def test_other_tasks_have_classes_of_their_own() -> None:
    model = lloss.attach(DepthNet(), task=DepthLoss(), size=8)
    refuse_other_classes(model, _Named(NAMES))
