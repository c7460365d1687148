"""Measure in ranks how near a graph of reduced precision is to the fp32 graph.

An exported model is used for its order: people label the K images with the highest predicted loss.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lloss.errors import SettingsError
from lloss.manifest import INPUT
from lloss.runtime.int8_support import open_cpu_session
from lloss.statistics.ranking_metrics import spearman
from lloss.text.counts import counted

PROVIDER = "cpu"
"""The provider that computes both graphs."""

TOP = 0.1
"""The share of the pool whose overlap is measured."""


@dataclass(frozen=True, slots=True)
class Predicted:
    """Predictions of a graph: ``loss`` is float32 [N], ``broken`` counts images with NaN or inf."""

    ids: Sequence[str]
    loss: NDArray[np.float32]
    broken: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Fidelity:
    """A graph compared with the fp32 graph; NaN where one side is constant or not finite."""

    spearman: float  # of the predicted losses, ties by their mean rank
    top_decile_overlap: float  # see top_overlap
    max_abs_difference: float  # of a predicted loss
    images: int
    mean_loss: float = np.nan  # predicted by the fp32 graph: what a difference is of
    broken: int = 0  # images for which an output is NaN or infinite

    def as_dict(self) -> dict[str, Any]:
        """The fields for JSON, with None for NaN."""
        fields = dataclasses.asdict(self)
        return {name: None if value != value else value for name, value in fields.items()}

    def __str__(self) -> str:
        broken = (
            f", {counted(self.broken, 'image')} with NaN or infinite outputs" if self.broken else ""
        )
        return (
            f"Spearman {self.spearman:.5f}, top-10% overlap {self.top_decile_overlap:.3f}, "
            f"largest difference {self.max_abs_difference:.2g} (mean loss {self.mean_loss:.2g})"
            f"{broken}"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class FidelityLimits:
    """What a reduced precision must reach: two thresholds from 0 to 1."""

    min_spearman: float = 0.999
    min_overlap: float = 0.97

    def __post_init__(self) -> None:
        for name in ("min_spearman", "min_overlap"):
            value = getattr(self, name)
            if not 0 <= value <= 1:
                flag = "--" + name.replace("_", "-")
                raise SettingsError(f"{flag} {value}: give a threshold from 0 to 1")

    def passes(self, fidelity: Fidelity, margin: float = 0.0) -> bool:
        """Whether it reaches both thresholds without a broken image; NaN reaches none.

        ``margin`` is the share of the way from a threshold to 1 that it must go beyond it.
        """
        return (
            not fidelity.broken
            and fidelity.spearman >= self.min_spearman + margin * (1 - self.min_spearman)
            and fidelity.top_decile_overlap >= self.min_overlap + margin * (1 - self.min_overlap)
        )

    def __str__(self) -> str:
        return f"Spearman {self.min_spearman:g}, top-10% overlap {self.min_overlap:g}"


def predict(path: Path, batches: Iterable[tuple[Sequence[str], NDArray[np.uint8]]]) -> Predicted:
    """Run a graph on the CPU, on batches of ids and images, uint8 [B, H, W, 3]."""
    session = open_cpu_session(str(path))
    names = [output.name for output in session.get_outputs()]
    ids: list[str] = []
    losses = [np.empty(0, np.float32)]
    broken = 0
    for batch_ids, images in batches:
        values = session.run(names, {INPUT: images})
        finite = [np.isfinite(value).reshape(len(images), -1).all(1) for value in values]
        broken += int((~np.logical_and.reduce(finite)).sum())
        ids += batch_ids
        losses.append(values[names.index("loss")])
    return Predicted(ids, np.concatenate(losses), broken)


def compare(reference: Predicted, other: Predicted) -> Fidelity:
    """Compare predictions with those of the fp32 graph on the same images."""
    a, b = reference.loss, other.loss
    finite = bool(np.isfinite(a).all() and np.isfinite(b).all())
    return Fidelity(
        spearman=spearman(a, b) if finite else np.nan,
        top_decile_overlap=top_overlap(a, b, reference.ids) if finite else np.nan,
        max_abs_difference=float(np.abs(a - b).max(initial=0.0)) if finite else np.nan,
        images=len(a),
        mean_loss=float(a.mean(dtype=np.float64)) if finite else np.nan,
        broken=max(reference.broken, other.broken),
    )


def top_overlap(reference: NDArray[Any], other: NDArray[Any], ids: Sequence[str]) -> float:
    """Share of the highest of ``reference`` [N] that are among the highest of ``other`` [N] too.

    The highest are the first ``round(TOP * N)``, at least one, in the order (-score, id).
    """
    k = max(1, round(len(ids) * TOP))

    def highest(scores: NDArray[Any]) -> set[int]:
        return set(np.lexsort((np.asarray(ids), -scores))[:k].tolist())

    return len(highest(reference) & highest(other)) / k
