"""Labels that are kept for measuring: drawn once, and found again in every cycle."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from lloss.annotations import Problems
from lloss.annotations.label_csv import read_labels
from lloss.data.id_matching import Matches
from lloss.data.labeled_set import LabeledSet, class_names
from lloss.errors import LabelError
from lloss.pools import Pool
from lloss.selection.hashing import draw_ids
from lloss.tasks.task import Task


def draw_holdout(task: Task, labeled: LabeledSet, share: float, seed: int) -> dict[str, str]:
    """A share of the labeled images and the stratum of each.

    Labels of one image are held out together: an image that is trained on is not new.

    Args:
        task: of the labels.
        labeled: to draw from.
        share: of them, 0 to 1.
        seed: of the draw.
    """
    strata: dict[str, str] = {}
    together: dict[str, list[str]] = {}
    for item, label in zip(labeled.items, labeled.labels):
        image = task.image_of(item, label)
        strata.setdefault(image, task.stratum(label))
        together.setdefault(image, []).append(item.id)
    drawn = draw_strata(strata, share, seed)
    return {id: name for image, name in drawn.items() for id in together[image]}


def draw_strata(strata: Mapping[str, str], share: float, seed: int) -> dict[str, str]:
    """A share of the ids, spread over the strata, and no stratum lost to the measuring.

    What the shares of the strata leave over goes to those that are rounded down the most. Fewer
    than two images measure nothing: then there are none.
    """
    total = round(len(strata) * share)
    members: dict[str, list[str]] = {name: [] for name in class_names(strata.values())}
    for id, name in strata.items():
        members[name].append(id)
    counts = {name: min(int(len(ids) * share), len(ids) - 1) for name, ids in members.items()}
    for name in sorted(members, key=lambda name: (-(len(members[name]) * share % 1), name)):
        if sum(counts.values()) < total and counts[name] + 1 < len(members[name]):
            counts[name] += 1
    if sum(counts.values()) < 2:
        return {}
    return {id: name for name, ids in members.items() for id in draw_ids(ids, counts[name], seed)}


def held_ids(
    path: Path, labeled: LabeledSet, open_pool: Callable[[], Pool], problems: Problems
) -> set[str]:
    """The images that were set aside, by their ids in the pool as it is now.

    Args:
        path: a CSV of the ids that they had when they were drawn.
        labeled: what is labeled now.
        open_pool: gives the pool; called only if some of them are not labeled under those ids.
        problems: a note of those that are gone goes there.

    Raises:
        LabelError: an id may mean several images.
    """
    names = read_labels(path, needs_label=False)
    held = {item.id for item in labeled.items if item.id in names}
    others = [name for name in names if name not in held]
    matches = Matches(open_pool().ids if others else tuple, others)
    gone = 0
    for name in others:
        ids = matches.of(name)
        if len(ids) > 1:
            raise LabelError(f"{path}: {name!r} {matches.why(name)}")
        held.update(ids)
        gone += not ids
    if gone:
        problems.note(f"{path}: {gone} of {len(names)} images are not in the pool any more")
    return held


def refuse_unknown(task: Task, held: LabeledSet, classes: Sequence[str], hint: str = "") -> None:
    """Refuse images to measure on of which none shows a class of the network.

    Raises:
        LabelError: so it is.
    """
    if any(task.has_loss(label, classes) for label in held.labels):
        return
    some = ", ".join(classes[:8]) + (", …" if len(classes) > 8 else "")
    raise LabelError(
        f"{held.origin}: none of the {len(held)} images shows what the model knows "
        f"(its classes: {some}); relabel them, or train again with those classes"
        + (f"; {hint}" if hint else "")
    )


def uncovered(task: Task, training: LabeledSet, held: LabeledSet) -> list[str]:
    """A line on classes that are trained on and that no image to measure on shows, if any."""
    classes, shown = task.classes(training.labels), set(task.classes(held.labels))
    missing = [name for name in classes if name not in shown]
    if not missing:
        return []
    some = ", ".join(missing[:8]) + (", …" if len(missing) > 8 else "")
    return [
        f"the {len(held)} held-out images show {len(classes) - len(missing)} of the {len(classes)} "
        f"classes; not measured: {some}"
    ]
