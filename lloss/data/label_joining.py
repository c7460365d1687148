"""Find the image of a pool that each label is of."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lloss.annotations.label_types import PersonLabel
from lloss.annotations.problems import AnnotationError, Problems
from lloss.data.annotation_folders import holds_annotations
from lloss.data.id_matching import Matches, differs
from lloss.errors import LabelError
from lloss.pools import FolderPool, Item, Pool, open_pool, refuse_duplicates
from lloss.pools.uri import PoolUri
from lloss.text.counts import counted


def labeled_pool(
    uri: str | Path | PoolUri,
    labels: Sequence[Path],
    problems: Problems | None = None,
    written: Sequence[Path] = (),
) -> Pool:
    """Open a pool without the folders of its masks, which are not images to label.

    Images in a folder of annotation files stay: the annotations are of them. Folders that
    lloss itself has ``written``, or will write, are left out too.
    """
    folders = mask_folders(labels)
    pool = open_pool(uri, leave_out=[*folders, *written])
    if problems is None:
        return pool
    problems.note(pool.remark())
    if isinstance(pool, FolderPool) and not pool.remote:
        root = Path(str(pool.root)).resolve()
        if inside := [str(path) for path in folders if root in path.resolve().parents]:
            problems.note(f"{pool.uri}: left out the folder of labels {' and '.join(inside)}")
    return pool


def mask_folders(labels: Sequence[Path]) -> list[Path]:
    """Those labels that are folders of masks."""
    return [path for path in labels if path.is_dir() and not holds_annotations(path)]


def image_names(key: str, label: Any) -> tuple[str, ...]:
    """The names of the image of a label: its key; of a person, also that of the image."""
    return (key, label.image) if isinstance(label, PersonLabel) else (key,)


def match_labels(
    pool: Pool,
    labels: Mapping[str, Any],
    origin: str,
    problems: Problems,
    own_suffix: bool = True,
    remedy: str = "",
) -> dict[str, str]:
    """Find the image that each label is of, by the rule of :mod:`lloss.data.id_matching`.

    An image with several labels gets none, broken ones included; a note says how many were not
    found by their id.

    ``origin`` names the labels in messages; ``remedy`` helps against several labels of an image,
    besides mending them; see :class:`Matches` for ``own_suffix``. Returns ids of the pool by key.
    """
    names = {key: image_names(key, label) for key, label in labels.items()}
    unusable = problems.unusable.get(origin, set())
    every = {name for several in names.values() for name in several} | unusable
    refuse_duplicates(pool)
    matches = Matches(pool.ids, every, own_suffix)
    keys: dict[str, list[str]] = {}
    for key, several in names.items():
        with problems.skipping():
            keys.setdefault(match_names(matches, several, f"{origin}: {key!r}"), []).append(key)
    for name in sorted(unusable):
        ids = matches.of(name)
        if len(ids) == 1 and ids[0] in keys:
            keys[ids[0]].append(name)
    found: dict[str, str] = {}
    for id, of in keys.items():
        with problems.skipping():
            if len(of) > 1:
                more = f" and {len(of) - 2} more" if len(of) > 2 else ""
                what = f"is a label of the image {id!r}, as {of[1]!r} is{more}"
                what = f"{what}; {remedy}" if remedy else what
                raise AnnotationError(f"{origin}: {of[0]!r}", what)
            found[of[0]] = id
    loose = [k for k, id in found.items() if all(differs(n, id, own_suffix) for n in names[k])]
    if loose:
        many = counted(len(loose), "label was", "labels were")
        first = f"{names[loose[0]][0]!r} is {found[loose[0]]!r} of the pool"
        problems.note(f"{origin}: {many} matched by name; the first: {first}")
    return found


def match_names(matches: Matches, names: Sequence[str], where: str) -> str:
    """The id that a label's names mean, the first with a meaning; refuse one in doubt, and none."""
    for name in names:
        ids = matches.of(name)
        if len(ids) > 1:
            shown = "" if where.endswith(repr(name)) else f"{name!r} "
            raise AnnotationError(where, shown + matches.why(name))
        if ids:
            return ids[0]
    raise AnnotationError(where, matches.why(names[0]))


def refuse_own(labeled: Iterable[tuple[Item, Path]], origin: str) -> None:
    """Refuse masks that are the very images that they label."""
    for item, mask in labeled:
        with contextlib.suppress(OSError, ValueError):
            if isinstance(item.file, bytes) and mask.samefile(os.fsdecode(item.file)):
                raise LabelError(
                    f"{origin}: the image {item.id!r} of the pool is its own mask; put masks into "
                    "a folder of their own, and give that as the labels"
                )
