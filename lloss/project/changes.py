"""What became of the labels and images of an earlier cycle: nobody may have meant it so."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lloss.annotations import Problems
from lloss.data.id_matching import Matches
from lloss.data.image_overlap import trace
from lloss.data.labeled_set import LabeledSet


def digests(labeled: LabeledSet) -> dict[str, str]:
    """By id what an image is recognized by later; images in a store and unreadable ones have none.

    Args:
        labeled: the images.
    """
    found = {item.id: trace(item) for item in labeled.items if not isinstance(item.file, str)}
    return {id: digest.hex() for id, digest in found.items() if digest is not None}


def note_changes(
    before: Mapping[str, Any],
    images: Mapping[str, str],
    labeled: LabeledSet,
    cycle: str,
    problems: Problems,
) -> None:
    """Note labels of an earlier cycle that are gone or others now, and images that are others.

    A file of labels that was overwritten by the new ones alone, a sheet of which one column was
    sorted, and files that were numbered anew all look like labels as good as any.

    Args:
        before: the labels of that cycle, by id.
        images: their :func:`digests`.
        labeled: all labels there are now.
        cycle: its number, for the notes.
        problems: keeps the notes.
    """
    now = {item.id: label for item, label in zip(labeled.items, labeled.labels)}
    moved = Matches(lambda: iter(now), [id for id in before if id not in now])
    gone = [id for id in before if id not in now and not moved.of(id)]
    other = [id for id in before if id in now and str(before[id]) != str(now[id])]
    many = f"{labeled.origin}: {{}} of the {len(before)} images that were labeled in cycle {cycle}"
    if gone:
        problems.note(
            f"{many.format(len(gone))} have no label any more ({gone[0]!r}, for example): they are "
            "not trained on and can be selected again; labels are added, earlier ones stay"
        )
    if other:
        id = other[0]
        shown = f"{id!r}, for example"
        if isinstance(now[id], str):
            shown += f": {before[id]!r} then, {now[id]!r} now"
        problems.note(f"{many.format(len(other))} have another label now ({shown})")
    known = labeled.take(row for row, item in enumerate(labeled.items) if item.id in images)
    again = digests(known) if images else {}
    others = [id for id, digest in again.items() if digest != images[id]]
    if others:
        problems.note(
            f"{many.format(len(others))} are other images now ({others[0]!r}, for example): if "
            "files were renamed or rows reordered, the labels are of the wrong images"
        )
