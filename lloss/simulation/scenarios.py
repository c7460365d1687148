"""Scenarios: the pool that a trial draws of fully labeled data, as real pools are.

Each is drawn by the trial's seed. The test set stays as it is.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from lloss.errors import SettingsError
from lloss.simulation.image_variants import JUNK, ORIGINAL
from lloss.text.similar_names import nearest

MACRO = "macro accuracy"

SPARE = 2
"""Images that jitters and junk are made of, as a multiple of what a trial needs: trials draw of
these, so that their features are computed once."""

Rows = NDArray[np.int64]


@dataclass(frozen=True)
class Source:
    """Fully labeled data that pools are drawn of.

    Attributes:
        ids: of its images.
        labels: of each.
        classes: the class of each image, int64 [N]; None where an image has no single class.
        names: of the classes.
        metric: the task's.
        tested: the classes that the test set shows; None where it is not known.
    """

    ids: Sequence[str]
    labels: Sequence[Any]
    classes: Rows | None
    names: tuple[str, ...]
    metric: str
    tested: Sequence[str] | None = None

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True)
class TrialPool:
    """The pool of one trial.

    Attributes:
        ids: of its images.
        rows: of the source, int64 [P].
        variants: of each image, int64 [P], see :mod:`lloss.simulation.image_variants`.
        labels: what the oracle answers for each image.
        watched: a class whose images are counted; "" for none.
    """

    ids: list[str]
    rows: Rows
    variants: Rows
    labels: list[Any]
    watched: str = ""

    @property
    def junk(self) -> NDArray[np.bool_]:
        """Which images the oracle refuses, bool [P]."""
        junk: NDArray[np.bool_] = self.variants == JUNK
        return junk


@dataclass(frozen=True)
class Scenario(ABC):
    """How pools are drawn; ``name`` is as ``--scenario`` takes it."""

    name: str
    of_classes: ClassVar[bool] = False  # whether each image needs one class

    def metric(self, source: Source) -> str:
        """Name the figure to compare methods by."""
        return source.metric

    def check(self, source: Source, task: str) -> None:
        """Refuse data that the scenario does not fit, with a ``SettingsError``."""
        if self.of_classes and source.classes is None:
            raise SettingsError(
                f"scenario {self.name!r}: needs one class an image, which {task} has not; choose "
                "balanced, redundant:N or junk:SHARE"
            )

    @abstractmethod
    def draw(self, source: Source, size: int, seed: int, shared: int) -> TrialPool:
        """Draw a pool of ``size`` images, 0 for as many as there are, by the seed of a trial.

        ``shared`` is the seed that all trials share. Raises ``SettingsError`` for too few images.
        """


@dataclass(frozen=True)
class Balanced(Scenario):
    """The data as it is."""

    def draw(self, source: Source, size: int, seed: int, shared: int) -> TrialPool:
        return _pool(source, _some(np.arange(len(source)), size or len(source), seed, self.name))


@dataclass(frozen=True)
class LongTail(Scenario):
    """Class c of C, in an order that the trial draws, has ratio^(-c / (C - 1)) of the largest."""

    ratio: float
    of_classes = True

    def metric(self, source: Source) -> str:
        return MACRO

    def draw(self, source: Source, size: int, seed: int, shared: int) -> TrialPool:
        assert source.classes is not None, "check() was called"
        random = np.random.default_rng([seed, 1])
        order = random.permutation(len(source.names))
        shares = np.empty(len(order))
        shares[order] = self.ratio ** (-np.arange(len(order)) / max(len(order) - 1, 1))
        there = np.bincount(source.classes, minlength=len(order))
        most = int(((there + 1e-9) / shares).min() * shares.sum())
        counts = _apportioned(shares, size or most)
        if size and (counts > there).any():
            scarce = int((counts - there).argmax())
            raise SettingsError(
                f"scenario {self.name!r}: a pool of {size} takes {counts[scarce]} images of "
                f"{source.names[scarce]!r}, and there are {there[scarce]}; lower --pool-size "
                f"({most} suits this trial)"
            )
        if counts.min() < 1:
            raise SettingsError(
                f"scenario {self.name!r}: a pool of {size or most} has no image of the rarest "
                "class; raise --pool-size, or lower the ratio"
            )
        rows = [
            random.permutation(np.flatnonzero(source.classes == number))[:count]
            for number, count in enumerate(counts)
        ]
        return _pool(source, np.sort(np.concatenate(rows)))


@dataclass(frozen=True)
class Rare(Scenario):
    """One class has a small share of the pool."""

    watched: str
    share: float
    of_classes = True

    def metric(self, source: Source) -> str:
        return MACRO

    def check(self, source: Source, task: str) -> None:
        super().check(source, task)
        if self.watched not in source.names:
            near = nearest(self.watched, source.names)
            raise SettingsError(
                f"scenario {self.name!r}: no image is of the class {self.watched!r}"
                + (f"; did you mean {near!r}?" if near else "")
            )
        if source.tested is not None and self.watched not in source.tested:
            raise SettingsError(
                f"scenario {self.name!r}: the test set has no image of {self.watched!r}, so that "
                "nothing would measure the class; give another --test, or watch another class"
            )

    def draw(self, source: Source, size: int, seed: int, shared: int) -> TrialPool:
        of_class = source.classes == source.names.index(self.watched)
        rare, others = np.flatnonzero(of_class), np.flatnonzero(~of_class)
        size = size or int(len(others) / (1 - self.share))
        count = round(size * self.share)
        if count < 1:
            raise SettingsError(
                f"scenario {self.name!r}: {self.share:.3%} of a pool of {size} is less than an "
                "image; raise the share or --pool-size"
            )
        rows = [_some(rare, count, seed, self.name), _some(others, size - count, seed, self.name)]
        return _pool(source, np.sort(np.concatenate(rows)), watched=self.watched)


@dataclass(frozen=True)
class Redundant(Scenario):
    """Fewer images, several jitters of each, as the frames of videos."""

    jitters: int

    def check(self, source: Source, task: str) -> None:
        super().check(source, task)
        if task == "pose":
            raise SettingsError(
                f"scenario {self.name!r}: persons are cut out of images, and their jitters are not "
                "made; choose balanced or junk:SHARE"
            )

    def draw(self, source: Source, size: int, seed: int, shared: int) -> TrialPool:
        size = size or len(source)
        count = -(-size // self.jitters)
        rows = _some(_spare(source, count, shared), count, seed, self.name)
        every = np.repeat(np.sort(rows), self.jitters)[:size]
        variants = np.tile(np.arange(1, self.jitters + 1), count)[:size]
        return _pool(source, every, variants)


@dataclass(frozen=True)
class Junk(Scenario):
    """A share of the images shows nothing: the oracle refuses them, and the label is spent."""

    share: float

    def draw(self, source: Source, size: int, seed: int, shared: int) -> TrialPool:
        size = size or len(source)
        count = round(size * self.share)
        junk = _some(_spare(source, count, shared), count, seed, self.name)
        others = np.setdiff1d(np.arange(len(source)), junk)
        rows = np.concatenate([_some(others, size - count, seed, self.name), junk])
        variants = np.repeat([ORIGINAL, JUNK], [size - count, count])
        return _pool(source, rows, variants)


@dataclass(frozen=True)
class Noise(Scenario):
    """A share of the labels is wrong at random."""

    share: float
    of_classes = True

    def draw(self, source: Source, size: int, seed: int, shared: int) -> TrialPool:
        pool = _pool(source, _some(np.arange(len(source)), size or len(source), seed, self.name))
        random = np.random.default_rng([seed, 3])
        wrong = random.permutation(len(pool.rows))[: round(len(pool.rows) * self.share)]
        for place in wrong:
            others = [name for name in source.names if name != pool.labels[place]]
            pool.labels[place] = others[random.integers(len(others))]
        return pool


def _pool(source: Source, rows: Rows, variants: Rows | None = None, watched: str = "") -> TrialPool:
    variants = np.full(len(rows), ORIGINAL) if variants is None else variants
    ids = [
        source.ids[row] if variant == ORIGINAL else f"{source.ids[row]}#{variant}"
        for row, variant in zip(rows, variants)
    ]
    return TrialPool(ids, rows, variants, [source.labels[row] for row in rows], watched)


def _some(rows: Rows, count: int, seed: int, scenario: str) -> Rows:
    """Draw some rows, in their order."""
    if count > len(rows):
        raise SettingsError(
            f"scenario {scenario!r}: needs {count} images to draw of, and there are {len(rows)}; "
            "lower --pool-size"
        )
    return np.sort(np.random.default_rng([seed, 0]).permutation(rows)[:count])


def _spare(source: Source, count: int, shared: int) -> Rows:
    """Draw the rows that all trials make variants of."""
    every: Rows = np.random.default_rng([shared, 2]).permutation(len(source))
    return every[: SPARE * count]


def _apportioned(shares: NDArray[np.float64], total: int) -> Rows:
    """Split a total by shares into whole numbers: largest remainders get what is left over."""
    exact: NDArray[np.float64] = shares / shares.sum() * total
    counts: Rows = exact.astype(np.int64)
    left = total - int(counts.sum())
    counts[np.argsort(counts - exact, kind="stable")[:left]] += 1
    return counts


_SHARE = re.compile(r"(\d+(?:\.\d+)?)%")


def read_share(text: str, where: str) -> float | None:
    """Read a share such as ``10%``; None for other text, SettingsError for 0% and from 100% on."""
    match = _SHARE.fullmatch(text)
    if match is None:
        return None
    share = float(match[1]) / 100
    if not 0 < share < 1:
        raise SettingsError(f"{where}: a share is between 0% and 100%, such as 10%")
    return share


def _share(text: str, scenario: str) -> float:
    where = f"scenario {scenario!r}"
    share = read_share(text, where)
    if share is None:
        raise SettingsError(f"{where}: write a share between 0% and 100%, such as 10%")
    return share


def _number(text: str, scenario: str, least: int) -> int:
    if not (text.isascii() and text.isdecimal() and least <= int(text[:9]) and len(text) < 9):
        raise SettingsError(f"scenario {scenario!r}: write a number from {least} on behind ':'")
    return int(text)


def _rare(name: str, text: str) -> Scenario:
    watched, colon, share = text.rpartition(":")
    if not colon:
        raise SettingsError(f"scenario {name!r}: write rare:CLASS:SHARE, such as rare:cat:0.5%")
    return Rare(name, watched, _share(share, name))


KINDS: dict[str, tuple[str, Callable[[str, str], Scenario]]] = {
    "balanced": ("", lambda name, _: Balanced(name)),
    "long-tail": ("50", lambda name, text: LongTail(name, _number(text, name, 2))),
    "rare": ("CLASS:0.5%", _rare),
    "redundant": ("8", lambda name, text: Redundant(name, _number(text, name, 2))),
    "junk": ("30%", lambda name, text: Junk(name, _share(text, name))),
    "noise": ("10%", lambda name, text: Noise(name, _share(text, name))),
}
"""An example of what stands behind the colon, and what makes the scenario, by kind."""

EXAMPLES = tuple(f"{kind}:{example}" if example else kind for kind, (example, _) in KINDS.items())


def parse_scenario(text: str) -> Scenario:
    """Read a scenario, such as ``long-tail:50``; SettingsError for another text."""
    kind, colon, rest = text.partition(":")
    if kind not in KINDS or bool(colon) != bool(KINDS[kind][0]):
        raise SettingsError(f"scenario {text!r}: write one of {', '.join(EXAMPLES)}")
    return KINDS[kind][1](text, rest)


def parse_scenarios(text: str) -> list[Scenario]:
    """Read scenarios separated by commas, each once."""
    found = [parse_scenario(word.strip()) for word in text.split(",") if word.strip()]
    if not found or len({each.name for each in found}) < len(found):
        raise SettingsError(f"scenario {text!r}: name one or several, each once")
    return found
