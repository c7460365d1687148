"""Does a graph of reduced precision still rank a pool as the fp32 graph does?

What an artifact is used for is its order: the K images with the highest predicted loss are
labeled. So fidelity is measured in ranks, on images that the graph was not calibrated on.
"""

from __future__ import annotations

import dataclasses
import heapq
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from lloss.export.check_session import open_session
from numpy.typing import NDArray

from lloss.errors import SettingsError
from lloss.manifest import INPUT
from lloss.statistics.ranking_metrics import spearman

PROVIDER = "cpu"
"""What computes both graphs: :func:`predict`."""

TOP = 0.1
"""The share of the pool whose overlap is measured."""

DRAWS = 100
"""Of a bootstrap: they give a standard error to within 7 %."""

ROOM = 1.0
"""Standard errors by which a recipe should clear the gate on the images that it is chosen on. The
gate's own images are as many, so at this edge three of four pass there: the difference between the
two has √2 of that error, and Φ(1/√2) = .76."""


@dataclass(frozen=True, slots=True)
class Predicted:
    """What a graph says of some images.

    Attributes:
        ids: of the N images.
        loss: float32 [N].
        broken: images for which some output is NaN or infinite.
    """

    ids: Sequence[str]
    loss: NDArray[np.float32]
    broken: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Fidelity:
    """A graph held against the fp32 graph on N images.

    Attributes:
        spearman: rank correlation of the predicted losses, ties by their mean rank; NaN where
            one side is constant or not finite.
        top_decile_overlap: share of the fp32 graph's tenth with the highest predicted loss, in
            the order (-loss, id), that is in the other's tenth too.
        max_abs_difference: largest difference of a predicted loss, in its own scale.
        images: N.
        broken: images for which some output is NaN or infinite.
    """

    spearman: float
    top_decile_overlap: float
    max_abs_difference: float
    images: int
    broken: int = 0

    def as_dict(self) -> dict[str, Any]:
        """The fields as JSON can hold them: no NaN."""
        fields = dataclasses.asdict(self)
        return {k: None if v != v else v for k, v in fields.items()}

    def __str__(self) -> str:
        broken = f", {self.broken} images with NaN or infinite outputs" if self.broken else ""
        return (
            f"Spearman {self.spearman:.5f}, top-10% overlap {self.top_decile_overlap:.3f}, "
            f"largest difference {self.max_abs_difference:.2g}{broken}"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """Standard errors of the two figures of a :class:`Fidelity`; NaN where those are."""

    spearman: float
    top_decile_overlap: float

    def __str__(self) -> str:
        return f"standard errors {self.spearman:.5f} and {self.top_decile_overlap:.3f}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate:
    """What a reduced precision must reach.

    Attributes:
        min_spearman: at most 1.
        min_overlap: of the top tenth, 0 to 1.

    Raises:
        SettingsError: a threshold that nothing or everything would pass.
    """

    min_spearman: float = 0.999
    min_overlap: float = 0.97

    def __post_init__(self) -> None:
        for name in ("min_spearman", "min_overlap"):
            value = getattr(self, name)
            if not 0 <= value <= 1:
                flag = "--" + name.replace("_", "-")
                raise SettingsError(f"{flag} {value}: give a threshold from 0 to 1")

    def passes(self, fidelity: Fidelity) -> bool:
        """Whether it reaches both thresholds, with no broken image; a NaN reaches nothing."""
        return (
            not fidelity.broken
            and fidelity.spearman >= self.min_spearman
            and fidelity.top_decile_overlap >= self.min_overlap
        )

    def room(self, fidelity: Fidelity, spread: Spread) -> float:
        """Standard errors that the nearer of the two figures lies above its threshold."""
        tiny = 1e-9  # a figure that no draw of images moves
        return min(
            (fidelity.spearman - self.min_spearman) / max(spread.spearman, tiny),
            (fidelity.top_decile_overlap - self.min_overlap) / max(spread.top_decile_overlap, tiny),
        )

    def __str__(self) -> str:
        return f"Spearman {self.min_spearman:g}, top-10% overlap {self.min_overlap:g}"


def predict(
    path: Path, batches: Iterable[tuple[Sequence[str], NDArray[np.uint8]]], threads: int = 0
) -> Predicted:
    """Run an artifact's graph on the CPU.

    Args:
        path: the ONNX file.
        batches: ids of B images, and they: uint8 [B, H, W, 3].
        threads: 0 for one a core.
    """
    session = open_session(path, threads)
    names = [output.name for output in session.get_outputs()]
    at = names.index("loss")
    ids: list[str] = []
    losses = [np.empty(0, np.float32)]
    broken = 0
    for chunk, images in batches:
        values = session.run(names, {INPUT: images})
        sound = [np.isfinite(v).reshape(len(images), -1).all(1) for v in values]
        broken += int((~np.logical_and.reduce(sound)).sum())
        ids += chunk
        losses.append(values[at])
    return Predicted(ids, np.concatenate(losses), broken)


def fidelity(reference: Predicted, other: Predicted) -> Fidelity:
    """Hold ``other`` against the fp32 graph's predictions on the same images."""
    nan = float("nan")
    sound = bool(np.isfinite(reference.loss).all() and np.isfinite(other.loss).all())
    difference = np.abs(reference.loss - other.loss).max(initial=0.0) if sound else nan
    return Fidelity(
        spearman=spearman(reference.loss, other.loss) if sound else nan,
        top_decile_overlap=top_overlap(reference.loss, other.loss, reference.ids) if sound else nan,
        max_abs_difference=float(difference),
        images=len(reference.loss),
        broken=max(reference.broken, other.broken),
    )


def spread(reference: Predicted, other: Predicted, draws: int = DRAWS, seed: int = 0) -> Spread:
    """Standard errors of :func:`fidelity` by the bootstrap: images drawn with replacement.

    From B. Efron, "Bootstrap methods: another look at the jackknife", Annals of Statistics 7, 1979.
    """
    if not (np.isfinite(reference.loss).all() and np.isfinite(other.loss).all()):
        return Spread(spearman=math.nan, top_decile_overlap=math.nan)
    by_id = sorted(range(len(reference.ids)), key=reference.ids.__getitem__)
    a, b = reference.loss[by_id], other.loss[by_id]
    k = max(1, round(len(a) * TOP))
    random = np.random.default_rng(seed)
    figures = np.empty((draws, 2))
    for row in figures:
        drawn = np.sort(random.integers(0, len(a), len(a)))  # ties go by id, as they stand
        x, y = a[drawn], b[drawn]
        first, second = (np.argsort(-z, kind="stable")[:k] for z in (x, y))
        row[:] = spearman(x, y), len(np.intersect1d(first, second)) / k
    errors = figures.std(axis=0, ddof=1)
    return Spread(spearman=float(errors[0]), top_decile_overlap=float(errors[1]))


def top_overlap(
    reference: NDArray[Any], other: NDArray[Any], ids: Sequence[str], share: float = TOP
) -> float:
    """Share of the highest of ``reference`` [N] that are among the highest of ``other`` [N] too.

    Both take the first ``round(share * N)``, at least one, of the order (-score, id).
    """
    k = max(1, round(len(ids) * share))
    return len(_first(reference, ids, k) & _first(other, ids, k)) / k


def _first(scores: NDArray[Any], ids: Sequence[str], k: int) -> set[int]:
    return set(heapq.nsmallest(k, range(len(ids)), key=lambda row: (-scores[row], ids[row])))
