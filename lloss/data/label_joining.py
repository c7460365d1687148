"""Find the image of a pool that each label is of."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from lloss.annotations.problems import AnnotationError, Problems
from lloss.data.id_matching import Matches, differs
from lloss.data.label_formats import may_hold_images
from lloss.errors import LabelError
from lloss.pools import FolderPool, Item, Pool, open_pool, unique_ids
from lloss.pools.uri import PoolUri


def labeled_pool(
    uri: str | Path | PoolUri,
    labels: Sequence[Path],
    problems: Problems | None = None,
    written: Sequence[Path] = (),
) -> Pool:
    """Open a pool without the folders of its masks, which are not images to label.

    Images in a folder of XML annotations stay: the annotations are of them. Folders that
    lloss itself has ``written``, or will write, are left out too.
    """
    folders = [path for path in labels if path.is_dir() and not may_hold_images(path)]
    pool = open_pool(uri, leave_out=[*folders, *written])
    if problems is None:
        return pool
    problems.note(pool.remark())
    if isinstance(pool, FolderPool) and any(True for path in folders for _ in FolderPool(path)):
        count = FolderPool(pool.root, leave_out=written).count() - pool.count()
        if count:
            named = " and ".join(map(str, folders))
            images = f"{count} images" if count > 1 else "1 image"
            problems.note(f"{pool.uri}: left out {images} in the folder of labels {named}")
    return pool


def image_names(key: str, label: Any) -> tuple[str, ...]:
    """The names of the image of a label: its key, and what else the label calls the image."""
    return label.image_names(key) if hasattr(label, "image_names") else (key,)


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
    beside mending them; see :class:`Matches` for ``own_suffix``. Returns ids of the pool by key.
    """
    names = {key: image_names(key, label) for key, label in labels.items()}
    unusable = problems.unusable.get(origin, set())
    every = {name for several in (*names.values(), *unusable) for name in several}
    matches = Matches(partial(unique_ids, pool), every, own_suffix)
    keys: dict[str, list[str]] = {}
    for key, several in names.items():
        with problems.skipping():
            keys.setdefault(match_names(matches, several, f"{origin}: {key!r}"), []).append(key)
    for several in sorted(unusable):
        for id in {ids[0] for name in several if len(ids := matches.of(name)) == 1} & keys.keys():
            keys[id].append(several[-1])
    found: dict[str, str] = {}
    for id, of in keys.items():
        with problems.skipping():
            _refuse_several(id, of, origin, remedy)
            found[of[0]] = id
    loose = [k for k, id in found.items() if all(differs(n, id, own_suffix) for n in names[k])]
    if loose:
        many = f"{len(loose)} labels were" if len(loose) > 1 else "1 label was"
        first = f"{names[loose[0]][0]!r} is {found[loose[0]]!r} of the pool"
        problems.note(f"{origin}: {many} matched by name; the first: {first}")
    return found


def _refuse_several(id: str, keys: Sequence[str], origin: str, remedy: str) -> None:
    if len(keys) > 1:
        more = f" and {len(keys) - 2} more" if len(keys) > 2 else ""
        what = f"is a label of the image {id!r}, as {keys[1]!r} is{more}"
        what = f"{what}; {remedy}" if remedy else what
        raise AnnotationError(f"{origin}: {keys[0]!r}", what)


def match_names(matches: Matches, names: Sequence[str], where: str) -> str:
    """The id that the names of a label mean; refuse names of no image, or of several."""
    ids = {name: matches.of(name) for name in names}
    doubtful = next((name for name in names if len(ids[name]) > 1), None)
    if doubtful is not None:
        shown = "" if where.endswith(repr(doubtful)) else f"{doubtful!r} "
        raise AnnotationError(where, shown + matches.why(doubtful))
    certain = {of[0]: name for name, of in ids.items() if of}
    if len(certain) > 1:
        both = " and ".join(f"{id!r} (by the name {name!r})" for id, name in certain.items())
        raise AnnotationError(where, f"means two images, {both}")
    if not certain:
        raise AnnotationError(where, matches.why(names[0]))
    return next(iter(certain))


def refuse_own(labeled: Iterable[tuple[Item, Path]], origin: str) -> None:
    """Refuse masks that are the very images that they label."""
    for item, mask in labeled:
        with contextlib.suppress(OSError, ValueError):
            if isinstance(item.file, bytes) and mask.samefile(os.fsdecode(item.file)):
                raise LabelError(
                    f"{origin}: the image {item.id!r} of the pool is its own mask; put masks into "
                    "a folder of their own, and give that as the labels"
                )
