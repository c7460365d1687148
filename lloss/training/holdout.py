"""Labels that are kept for measuring: drawn once, and looked up again in every cycle."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from lloss.annotations import Problems
from lloss.annotations.label_csv import read_labels
from lloss.data.id_matching import Matches
from lloss.data.labeled_set import LabeledSet, class_names
from lloss.data.near_copies import Groups
from lloss.errors import LabelError
from lloss.pools import Item, Pool
from lloss.selection.hashing import draw_ids
from lloss.statistics.clusters import clusters_of
from lloss.statistics.confidence_intervals import Clusters
from lloss.tasks.task import Task
from lloss.text.counts import part
from lloss.text.first_names import first_names

AUTOMATIC_SHARE = -1.0
"""Stands for a share that depends on how many labels there are, see :func:`automatic_share`."""

MEASURABLE = 50  # Held-out images that place a share within about 0.14 of the truth

LABELS = 3 * MEASURABLE
"""From so many labels on some are held out: two thirds at least are trained on."""


def automatic_share(images: int) -> float:
    """Return a tenth, or the share of :data:`MEASURABLE` images; 0 below :data:`LABELS`."""
    return max(0.1, MEASURABLE / images) if images >= LABELS else 0.0


def too_few_note(images: int) -> str:
    """Say why none of so many labels are held out."""
    if images >= LABELS:
        return (
            f"none of {images} labels are held out: too many of them show one image, or "
            "near-duplicates, or are the only ones of a class; a test set measures"
        )
    return (
        f"{images} labels are too few to hold some out: from {LABELS} labeled images on "
        f"{MEASURABLE} or more are; a test set measures at once"
    )


def draw_holdout(
    task: Task,
    labeled: LabeledSet,
    share: float,
    seed: int,
    groups: Callable[[Sequence[Item]], Groups] | None = None,
) -> dict[str, str]:
    """Draw a share of the labeled images, 0 to 1, spread over the strata: each one's by its id.

    A share of :data:`AUTOMATIC_SHARE` is that of :func:`automatic_share`. Items of one image are
    held out together: the model has seen an image that it is trained on. So are near-duplicates,
    where ``groups`` looks for them; the share is one of images all the same, as far as groups can
    fill it. Each stratum keeps one to train on; what rounding leaves over goes to those that lose
    the most by it. Fewer than two measure nothing: then the answer is empty.
    """
    images = [task.image_of(*each) for each in zip(labeled.items, labeled.labels)]
    if share == AUTOMATIC_SHARE:
        share = automatic_share(len(set(images)))
    if round(len(set(images)) * share) < 2:
        return {}
    whole = images
    if groups:
        images = of_groups(images, labeled.items, groups)
    sizes = Counter(dict(zip(whole, images)).values())  # in images
    strata: dict[str, str] = {}
    together: dict[str, list[str]] = {}
    for image, item, label in zip(images, labeled.items, labeled.labels):
        strata.setdefault(image, task.stratum(label))
        together.setdefault(image, []).append(item.id)
    total = round(len(set(whole)) * share)
    members: dict[str, list[str]] = {name: [] for name in class_names(strata.values())}
    for image, name in strata.items():
        members[name].append(image)
    of = {name: sum(sizes[image] for image in ids) for name, ids in members.items()}
    counts = {name: min(int(count * share), count - 1) for name, count in of.items()}
    for name in sorted(members, key=lambda name: (-(of[name] * share % 1), name)):
        if sum(counts.values()) < total and counts[name] + 1 < of[name]:
            counts[name] += 1
    drawn = _filled(members, counts, sizes, seed)
    if sum(sizes[image] for images in drawn.values() for image in images) < 2:
        return {}
    own = {item.id: task.stratum(label) for item, label in zip(labeled.items, labeled.labels)}
    return {id: own[id] for images in drawn.values() for image in images for id in together[image]}


def _filled(
    members: Mapping[str, Sequence[str]],
    counts: Mapping[str, int],
    sizes: Mapping[str, int],
    seed: int,
) -> dict[str, list[str]]:
    """Draw groups of each stratum, up to its count of images, and never all of them.

    What is then missing in all is filled by groups of any stratum that fit, and at last by the
    smallest ones, unless that exceeds the sum of all counts by more than half.
    """
    taken: dict[str, list[str]] = {name: [] for name in members}
    total = left = sum(counts.values())
    for name, groups in members.items():
        missing = counts[name]
        for group in draw_ids(groups, len(groups), seed):
            if sizes[group] <= missing and len(taken[name]) + 1 < len(groups):
                taken[name].append(group)
                missing -= sizes[group]
                left -= sizes[group]
    stratum = {group: name for name, groups in members.items() for group in groups}
    order = draw_ids(stratum, len(stratum), seed)
    for most, groups in ((0, order), (total // 2, sorted(order, key=sizes.__getitem__))):
        for group in groups:
            of = taken[stratum[group]]
            fits = left > 0 and sizes[group] - left <= most
            if fits and group not in of and len(of) + 1 < len(members[stratum[group]]):
                of.append(group)
                left -= sizes[group]
    return taken


def of_groups(
    images: Sequence[str], items: Sequence[Item], groups: Callable[[Sequence[Item]], Groups]
) -> list[str]:
    """Name each item's image by the first, in the order of their names, of its near-duplicates."""
    names = sorted(set(images))
    first = groups(first_items(images, items)).first
    group = {name: names[row] for name, row in zip(names, first)}
    return [group[image] for image in images]


def first_items(images: Sequence[str], items: Sequence[Item]) -> list[Item]:
    """Return the first item of each image, in the order of the images' names."""
    shown = dict(zip(reversed(images), reversed(items)))
    return [shown[name] for name in sorted(shown)]


def scenes_of(images: Sequence[str], groups: Groups) -> Clusters:
    """Number the scenes of images, given each item's; None without near-duplicates.

    ``groups`` are those of :func:`first_items`. Items of one image are of one scene, then.
    """
    if not groups.copies:
        return None
    first = dict(zip(sorted(set(images)), groups.first.tolist()))
    return clusters_of([first[image] for image in images])


def holdout_ids(
    path: Path, labeled: LabeledSet, open_pool: Callable[[], Pool], problems: Problems
) -> set[str]:
    """Return the held-out images, of the CSV ``path``, by their ids in the pool as it is now.

    The pool is opened only if some of them are not labeled under the ids that they were drawn by.
    Raises ``LabelError`` where an id matches several images; ``problems`` notes those gone.
    """
    names = read_labels(path, needs_label=False)
    ids = {item.id for item in labeled.items if item.id in names}
    others = [name for name in names if name not in ids]
    matches = Matches(open_pool().ids if others else tuple, others)
    gone = 0
    for name in others:
        matching = matches.of(name)
        if len(matching) > 1:
            raise LabelError(f"{path}: {name!r} {matches.why(name)}")
        ids.update(matching)
        gone += not matching
    if gone:
        are = part(gone, len(names), "images", "are")
        problems.note(f"{path}: {are} not in the pool any more")
    return ids


def refuse_unknown(task: Task, holdout: LabeledSet, classes: Sequence[str], hint: str = "") -> None:
    """Refuse images to measure on of which none shows a class of the network."""
    if not any(task.has_loss(label, classes) for label in holdout.labels):
        raise LabelError(
            f"{holdout.origin}: none of the {len(holdout)} images shows what the model knows "
            f"(its classes: {first_names(classes)}); relabel them, or train again with those "
            "classes" + (f"; {hint}" if hint else "")
        )


def uncovered(task: Task, training: LabeledSet, holdout: LabeledSet) -> list[str]:
    """Return a line on classes that are trained on and that no held-out image shows, if any."""
    classes, shown = task.classes(training.labels), set(task.classes(holdout.labels))
    missing = [name for name in classes if name not in shown]
    if not missing:
        return []
    return [
        f"the {len(holdout)} held-out images show {len(classes) - len(missing)} of the "
        f"{len(classes)} classes; not measured: {first_names(missing)}"
    ]
