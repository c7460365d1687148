"""Changes of labels and images since an earlier cycle, which may be mistakes."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from lloss.annotations import Problems
from lloss.data.id_matching import Matches
from lloss.data.image_overlap import trace
from lloss.data.labeled_set import LabeledSet

_TRAINING = ("model", "weights", "size", "optimizer", "lr", "freeze")
"""Settings by which the figures of two cycles differ, besides their labels. Epochs and batches grow
with the labels."""


def note_training(before: Mapping[str, Any], now: Mapping[str, Any], problems: Problems) -> None:
    """Note settings of training that are not those of the cycle before, such as automatic ones."""
    changed = [
        f"{name} = {before[name]!r} (now {now[name]!r})"
        for name in _TRAINING
        if name in before and before[name] != now[name]
    ]
    if changed:
        problems.note(
            f"the cycle before was trained with {', '.join(changed)}: the figures of the two "
            "differ by that too"
        )


def content_hashes(labeled: LabeledSet) -> dict[str, str]:
    """Hash the content of each image, by id; leave out unreadable images and remote objects."""
    hashes = {item.id: trace(item) for item in labeled.items if not isinstance(item.file, str)}
    return {id: content.hex() for id, content in hashes.items() if content is not None}


def note_changes(
    before: Mapping[str, Any],
    images: Mapping[str, str],
    labeled: LabeledSet,
    cycle: str,
    problems: Problems,
) -> None:
    """Note labels that disappeared or changed since a cycle, and images with other content.

    This reveals a label file overwritten by its new rows, a sheet with one column sorted, and
    renumbered image files. ``before`` are the labels of that cycle by id, ``images`` their
    :func:`content_hashes`, and ``labeled`` all current labels.
    """
    now = {item.id: label for item, label in zip(labeled.items, labeled.labels)}
    missing = _without_label(before, now)
    changed = [id for id in before if id in now and str(before[id]) != str(now[id])]
    same_ids = labeled.take(row for row, item in enumerate(labeled.items) if item.id in images)
    hashes = content_hashes(same_ids) if images else {}
    replaced = [id for id, content in hashes.items() if content != images[id]]

    def note(ids: list[str], what: str, also: str = "", shown: str = "") -> None:
        if ids:
            problems.note(
                f"{labeled.origin}: {len(ids)} of the {len(before)} images that were labeled in "
                f"cycle {cycle} {what} ({ids[0]!r}, for example{shown}){also}"
            )

    note(
        missing,
        "have no label any more",
        ": they are not trained on and can be selected again; add labels, keep earlier ones",
    )
    shown = ""
    if changed and isinstance(now[changed[0]], str):
        shown = f": {before[changed[0]]!r} then, {now[changed[0]]!r} now"
    note(changed, "have another label now", shown=shown)
    note(
        replaced,
        "are other images now",
        ": if files were renamed or rows reordered, the labels belong to the wrong images",
    )


def note_unlabeled(
    picks: Sequence[str], labeled: LabeledSet, cycle: str, problems: Problems
) -> None:
    """Note picks of a cycle that have no label where others have, such as images of nothing."""
    now = {item.id for item in labeled.items}
    missing = _without_label(picks, now)
    if 0 < len(missing) < len(picks):
        problems.note(
            f"{labeled.origin}: {len(missing)} of the {len(picks)} images that cycle {cycle} "
            f"selected have no label ({missing[0]!r}, for example): they may be selected again; "
            "remove from the pool what cannot be labeled"
        )


def _without_label(ids: Iterable[str], labeled: Collection[str]) -> list[str]:
    """The ids that no labeled image has, nor another id that they may mean."""
    others = [id for id in ids if id not in labeled]
    moved = Matches(lambda: iter(labeled), others)
    return [id for id in others if not moved.of(id)]
