"""Which images a cycle chooses, and by what."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from lloss.data.decode_ahead import decoded
from lloss.errors import ImageError, SelectionError
from lloss.images.decode import ImageSpec
from lloss.pools import Pool
from lloss.project.pick_payoff import Payoff
from lloss.project.picks_file import with_random
from lloss.project.project import FILE, Project
from lloss.project.summary import Summary
from lloss.scores.score_source import ScoreSource
from lloss.selection import Selection, SelectionSettings, select
from lloss.selection.automatic import Choice, Evidence, Round, choose, recent_lift
from lloss.selection.metadata import joined
from lloss.selection.strategies import get_strategy

SMALL = ImageSpec(32, 32, "stretch")
"""Images are decoded to it to see whether they can be read."""


@dataclass(frozen=True)
class CyclePicks:
    """The images to label next."""

    selection: Selection
    choice: Choice
    random: int  # of the picks, the last ones: drawn to monitor


def refuse_too_few(project: Project, left: Pool, at_most: bool) -> None:
    """Raise ``SelectionError`` if a pool of the images left to label has too few to select K.

    Before training: so images are read until K of them turn out to be whole.
    """
    count = sum(1 for _ in itertools.islice(left.ids(), project.k))
    if not count:
        raise SelectionError(
            f"{left.uri}: every image is labeled or to measure on, none is left to select; add "
            "images to the pool; a model of all labels is made by lloss train"
        )
    if count < project.k and not at_most:
        raise SelectionError(
            f"k = {project.k}: only {count} left to label in {left.uri}; lower k in "
            f"{project.root / FILE}, or pass --at-most to take what is left"
        )
    _refuse_unreadable(project, left, 1 if at_most else project.k)


def _refuse_unreadable(project: Project, left: Pool, wanted: int) -> None:
    readable, broken, first = 0, 0, ""
    for id, image in decoded(left, SMALL):
        if isinstance(image, ImageError):
            broken, first = broken + 1, first or f"{id!r}: {image}"
        elif (readable := readable + 1) == wanted:
            return
    raise SelectionError(
        f"k = {project.k}: {readable:,} of {readable + broken:,} images left to label in "
        f"{left.uri} can be read ({first}); mend or add images"
        + (", or pass --at-most to take what is left" if readable else "")
    )


def pick_images(
    project: Project,
    cycle: int,
    scores: ScoreSource,
    exclude: Collection[str],
    evidence: Evidence,
    at_most: bool = False,
    distance: float = 0.0,
) -> CyclePicks:
    """Choose K images by the project's settings, some of them at random if it monitors.

    Args:
        project: with its settings of now.
        cycle: its number.
        scores: of the pool, labeled images included.
        exclude: ids of labeled images.
        evidence: what is known of loss and entropy.
        at_most: choose fewer where fewer than K are left.
        distance: of near-duplicates, where the settings leave it to be measured.

    Raises:
        SelectionError: fewer than K are left and ``at_most`` is off.
    """
    choice = choose(project.strategy, project.by, evidence)
    settings = project.selection(cycle, at_most, distance)
    if not get_strategy(choice.strategy).class_weighted:
        settings = replace(settings, class_weight="")
    settings = replace(settings, strategy=choice.strategy, by=choice.by or "loss")
    selection, random = select_images(project, settings, scores, exclude)
    return CyclePicks(selection, choice, random)


def select_images(
    project: Project,
    settings: SelectionSettings,
    scores: ScoreSource,
    exclude: Collection[str] = (),
) -> tuple[Selection, int]:
    """Select by some settings, and how many of K the project monitors at random.

    Returns all picks, and how many of them, the last ones, are drawn at random. Where an automatic
    distance leaves too few, near-duplicates are not passed over; see :func:`distance_note`.
    """
    try:
        return _selected(project, settings, scores, exclude)
    except SelectionError:
        if not (project.measures_distance and settings.min_distance):
            raise
        return _selected(project, replace(settings, min_distance=0), scores, exclude)


def distance_note(distance: float, selection: Selection) -> str:
    """Say that an automatic distance was not applied; "" where it was."""
    if not distance or selection.settings.min_distance:
        return ""
    return (
        f"near-duplicates are not passed over: too few images are at least {distance:.2g} from "
        "labeled ones and each other"
    )


def _selected(
    project: Project,
    settings: SelectionSettings,
    scores: ScoreSource,
    exclude: Collection[str],
) -> tuple[Selection, int]:
    if not project.monitored:
        return select(_with_groups(project, settings, scores), settings, exclude), 0
    # First: they are a random sample of what is unlabeled, not of what the strategy leaves. K are
    # drawn, so that too few images are refused by the user's K.
    order = select(scores, project.monitoring(settings), exclude)
    first = slice(project.monitored)
    random = replace(order, ids=order.ids[first], scores=order.scores[first])
    chosen = None
    if not settings.at_most or random.eligible > len(random):
        rest = replace(settings, k=settings.k - len(random))
        scores = _with_groups(project, settings, scores)
        try:
            chosen = select(scores, rest, {*exclude, *random.ids})
        except SelectionError as error:
            raise SelectionError(
                f"{error} (of the {settings.k} wanted, {len(random)} are drawn at random: monitor)"
            ) from error
    return with_random(chosen, random), len(random)


def _with_groups(project: Project, settings: SelectionSettings, scores: ScoreSource) -> ScoreSource:
    """Add the column to balance by, which may be in a table of the user's."""
    table = project.path(project.metadata) if project.metadata else None
    return joined(scores, settings, table if settings.balance else None)


def lift_of_rounds(done: Sequence[Summary], payoff: Payoff | None) -> dict[str, float | int]:
    """Return ``lift`` and ``picks`` of :class:`.Evidence`: of the last picks that had weights.

    ``payoff`` is of the picks of the last of the cycles ``done``, measured now.
    """
    measured: list[Round | None] = [(payoff.lift, payoff.picks)] if payoff else [None]
    for each in reversed(done[1:]):  # each summary has the payoff of the cycle before it
        found = each.trust.get("payoff")
        measured.append((found["lift"], found["picks"]) if found else None)
    return recent_lift(
        found if cycle.choice is None or cycle.choice["by"] else None
        for found, cycle in zip(measured, reversed(done), strict=False)
    )
