"""What a complete cycle was, as ``summary.json`` holds it."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import Any

from lloss.errors import ProjectError
from lloss.project.project import Project
from lloss.project.report import CyclePoint
from lloss.training.reliability import interval_of

SUMMARY = "summary.json"


@dataclass(frozen=True)
class Summary:
    """A complete cycle, as ``summary.json`` holds it.

    ``left_out`` counts broken annotations and labeled images that were not used, ``held_back`` the
    labels kept for measuring. ``warnings`` say why not to rely on figures or picks; ``notes`` are
    these and all else that the user should know. ``ranked``: whether the predicted loss is shown to
    order images better than chance; None where nothing was measured.
    """

    cycle: int
    labeled: int
    selected: int
    scored: int
    skipped: int
    classes: dict[str, int]
    labels_sha256: str
    evaluation: dict[str, Any] | None
    metric_name: str
    left_out: int = 0
    held_back: int = 0
    ranked: bool | None = None
    warnings: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def point(self) -> CyclePoint:
        """Its place on the learning curve."""
        found = self.evaluation or {}
        return CyclePoint(
            self.cycle,
            self.labeled,
            found.get(self.metric_name),
            (found.get("head") or {}).get("ranking_accuracy"),
            (found.get("entropy") or {}).get("ranking_accuracy"),
            interval_of(found, self.metric_name),
            interval_of(found, "head", "ranking_accuracy"),
            interval_of(found, "entropy", "ranking_accuracy"),
        )


def history(project: Project) -> list[Summary]:
    """The complete cycles, in order.

    Raises:
        ProjectError: a summary is damaged.
    """
    found: list[Summary] = []
    while (path := project.cycles / f"{len(found) + 1:03d}" / SUMMARY).exists():
        try:
            found.append(Summary(**json.loads(path.read_text(encoding="utf-8"))))
        except (OSError, ValueError, TypeError) as error:
            raise ProjectError(f"{path}: is damaged; remove the cycle to run it again") from error
    later = sorted(p.name for p in project.cycles.glob("*") if re.fullmatch(r"\d{3,}", p.name))
    if later and int(later[-1]) > len(found) + 1:
        raise ProjectError(
            f"{project.cycles}: cycle {len(found) + 1:03d} is not complete, "
            f"but cycle {later[-1]} is there; restore it, or remove the later ones"
        )
    return found
