"""Labeled images to train on."""

from __future__ import annotations

from pathlib import Path

import pytest

import lloss
from lloss.data.labeled_set import LabeledSet


@pytest.fixture
def labeled(photos: Path) -> LabeledSet:
    """The images of ``photos``, of which the run ``trained`` was trained on all."""
    return lloss.open_labeled(photos)
