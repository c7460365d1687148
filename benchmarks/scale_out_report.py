"""What ``scale_out.py`` measured, as Markdown."""

from __future__ import annotations

import math
import platform
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from itertools import pairwise
from statistics import median

TARGET = 0.9
"""Of the local run's rate, for as many actors as it has cores."""


@dataclass(frozen=True)
class Run:
    """One turn of a contestant."""

    wall: float  # seconds from the first process's start to the last one's end
    rate: float  # images/s while scoring; NaN where that was too short for a rate
    busy: float  # core seconds of the whole machine in that time
    merge: float = 0.0  # seconds of the merge, not part of ``wall``
    differing: int = 0  # rows whose bytes are not the local run's

    def fixed(self, images: int) -> float:
        """Seconds beyond those that its rate takes for the images."""
        return self.wall - images / self.rate


@dataclass(frozen=True)
class Subject:
    """A network and its images; runs of each contestant in the order of the rounds, local first."""

    title: str
    images: int
    part_size: int
    image_bytes: float
    row_bytes: Mapping[str, float]  # by column
    part_bytes: float  # of all else that a part holds
    runs: Mapping[str, Sequence[Run]]


def report(subjects: Sequence[Subject], cpu: str, cores: int, repeats: int) -> str:
    """The tables, and what they say about the targets."""
    names = ("ray", "onnxruntime", "onnxruntime-gpu", "pyarrow")
    versions = ", ".join(f"{name} {found}" for name in names if (found := _version(name)))
    lines = [f"{cpu}, {cores} cores; Python {platform.python_version()}, {versions}; medians of "
             f"{repeats} rounds, ratios to the local run of the same round", ""]  # fmt: skip
    for subject in subjects:
        lines += [*table(subject), "", *verdicts(subject, cores), ""]
    return "\n".join(lines)


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


def table(subject: Subject) -> list[str]:
    images, local = subject.images, next(iter(subject.runs.values()))
    lines = [
        f"#### {subject.title}: {images:,} files of {subject.image_bytes / 1000:.1f} kB, "
        f"parts of {subject.part_size:,}",
        "",
        "| | seconds | images/s | ÷ local | images/s while scoring | ÷ local | fixed seconds "
        "| core seconds per 1,000 images | other bytes |",
        "|---|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for name, runs in subject.runs.items():
        wall = middle(run.wall for run in runs)
        cells = [
            f"{wall:.1f}",
            f"{images / wall:,.0f}",
            f"{middle(one.wall / run.wall for run, one in zip(runs, local)):.2f}",
            f"{middle(run.rate for run in runs):,.0f}",
            f"{ratio(runs, local):.2f}",
            f"{middle(run.fixed(images) for run in runs):.1f}",
            f"{middle(run.busy for run in runs) / images * 1000:.2f}",
            f"{max(run.differing for run in runs)} rows",
        ]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines


def ratio(runs: Sequence[Run], others: Sequence[Run]) -> float:
    """The median, over the rounds, of the ratio of the rates while scoring."""
    return middle(run.rate / other.rate for run, other in zip(runs, others))


def middle(values: Iterable[float]) -> float:
    """The median; NaN where one of them is."""
    found = list(values)
    return math.nan if any(map(math.isnan, found)) else median(found)


def verdicts(subject: Subject, cores: int) -> list[str]:
    names = list(subject.runs)
    local = subject.runs[names[0]]
    lines = (
        ["nan: too few images for a verdict.", ""]
        if any(map(_short, subject.runs.values()))
        else []
    )
    for name, runs in subject.runs.items():
        if name.endswith("--on ray"):
            found = ratio(runs, local)
            reached = "reached" if found >= TARGET else "not reached"
            reached = "too few images for a verdict" if math.isnan(found) else reached
            lines.append(
                f"- {name}: {found:.2f} of the local rate while scoring "
                f"(target {TARGET}: {reached}); {_enough(runs, local, subject.images)}"
            )
        elif "map_batches" in name and (ours := _named(subject, "--on ray")):
            lines.append(f"- {name}: {ratio(runs, ours):.2f} of ours on Ray while scoring")
        elif "decoding in tasks" in name and (other := _named(subject, "map_batches")):
            lines.append(f"- {name}: {ratio(runs, other):.2f} of decoding in the actors")
    shards = [(int(name.split()[0]), name) for name in names if " shard" in name]
    for (few, one), (many, other) in pairwise(shards):
        found = ratio(subject.runs[other], subject.runs[one])
        most = min(many, cores) / min(few, cores)
        lines.append(
            f"- {many} shards: {found:.2f} of {few} (at most {most:g}: of one thread each, more "
            f"shards than the {cores} cores only share them); merge "
            f"{middle(run.merge for run in subject.runs[other]):.1f} s"
        )
    return lines


def _short(runs: Sequence[Run]) -> bool:
    return any(math.isnan(run.rate) for run in runs)


def _named(subject: Subject, part: str) -> Sequence[Run] | None:
    return next((runs for name, runs in subject.runs.items() if part in name), None)


def _enough(runs: Sequence[Run], local: Sequence[Run], images: int) -> str:
    """From how many images on the target is reached by wall clock too, by rates and fixed costs."""
    rate, best = (middle(run.rate for run in each) for each in (runs, local))
    fixed, least = (middle(run.fixed(images) for run in each) for each in (runs, local))
    gained = 1 / (TARGET * best) - 1 / rate  # seconds of leeway that each image adds
    if math.isnan(gained):
        return "and so by wall clock"
    if gained <= 0:
        return "by wall clock never"
    wanted = max(0.0, (fixed - least / TARGET) / gained)
    return f"by wall clock from {wanted:,.0f} images on, {wanted / rate:.0f} s of scoring"
