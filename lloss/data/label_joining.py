"""Labels and the images of a pool that they are of."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path

from lloss.annotations.json_fields import BrokenError, leaving_out
from lloss.annotations.problems import Problems
from lloss.data.annotation_files import holds_xml
from lloss.data.id_matching import Matches, differs
from lloss.errors import LabelError
from lloss.pools import FolderPool, Item, Pool, open_pool, unique_ids


def labeled_pool(
    uri: str | Path,
    labels: Sequence[Path],
    problems: Problems | None = None,
    written: Sequence[Path] = (),
) -> Pool:
    """Open a pool without the folders of its masks, which are no images to label.

    Images that lie in a folder of XML annotations stay: they are what those are of.

    Args:
        uri: of the pool, as :func:`lloss.pools.open_pool` takes it.
        labels: files or folders.
        problems: notes go there, of how many images were left out and what was passed over.
        written: folders that lloss itself writes, now or later: what is in them is not of the pool.
    """
    folders = [path for path in labels if path.is_dir() and not holds_xml(path)]
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


def images_of(
    pool: Pool,
    labels: Mapping[str, Sequence[str]],
    origin: str,
    problems: Problems,
    own_suffix: bool = True,
    remedy: str = "",
) -> dict[str, str]:
    """The image that each label is of, by :mod:`lloss.data.id_matching`.

    Args:
        pool: of the images.
        labels: the names of the image by a key for each label; where both of two mean an image
            they mean the same one.
        origin: of the labels, for messages.
        problems: labels that mean no one image go there, and images that several labels mean,
            broken ones included: such an image gets none. A note says how many were not found by
            their id.
        own_suffix: see :class:`Matches`.
        remedy: against several labels of an image, beside mending them.

    Returns:
        Ids of the pool by key.

    Raises:
        LabelError: as :class:`Problems` has it.
        PoolError: two images of the pool have one id.
    """
    unread = problems.unread.get(origin, set())
    names = {name for several in (*labels.values(), *unread) for name in several}
    matches = Matches(partial(unique_ids, pool), names, own_suffix)
    keys: dict[str, list[str]] = {}
    for key, several in labels.items():
        with leaving_out(problems):
            keys.setdefault(meant(matches, several, f"{origin}: {key!r}"), []).append(key)
    for several in sorted(unread):
        for id in {ids[0] for name in several if len(ids := matches.of(name)) == 1} & keys.keys():
            keys[id].append(several[-1])
    found = _labeled_once(keys, origin, problems, remedy)
    loose = [
        key for key, id in found.items() if all(differs(n, id, own_suffix) for n in labels[key])
    ]
    if loose:
        many = f"{len(loose)} labels were" if len(loose) > 1 else "1 label was"
        first = f"{labels[loose[0]][0]!r} is {found[loose[0]]!r} of the pool"
        problems.note(f"{origin}: {many} matched by name; the first: {first}")
    return found


def _labeled_once(
    keys: Mapping[str, Sequence[str]], origin: str, problems: Problems, remedy: str
) -> dict[str, str]:
    """The id by the label's key, of images with one label; see :func:`images_of`.

    Args:
        keys: of the labels of each image, by its id.
        origin: see :func:`images_of`, as for the others.
        problems: images with several labels go there.
        remedy: against several.
    """
    found: dict[str, str] = {}
    for id, of in keys.items():
        with leaving_out(problems):
            if len(of) > 1:
                more = f" and {len(of) - 2} more" if len(of) > 2 else ""
                what = f"is a label of the image {id!r}, as {of[1]!r} is{more}"
                raise BrokenError(f"{origin}: {of[0]!r}", f"{what}; {remedy}" if remedy else what)
            found[of[0]] = id
    return found


def refuse_own(labeled: Iterable[tuple[Item, Path]], origin: str) -> None:
    """Refuse masks that are the very images that they label.

    Raises:
        LabelError: an image and its mask are one file.
    """
    for item, mask in labeled:
        with contextlib.suppress(OSError, ValueError):
            if isinstance(item.file, bytes) and mask.samefile(os.fsdecode(item.file)):
                raise LabelError(
                    f"{origin}: the image {item.id!r} of the pool is its own mask; put masks into "
                    "a folder of their own, and give that as the labels"
                )


def meant(matches: Matches, names: Sequence[str], where: str) -> str:
    """The id that the names of a label mean.

    Raises:
        BrokenError: they mean no image, or several.
    """
    found = {name: matches.of(name) for name in names}
    doubtful = next((name for name, ids in found.items() if len(ids) > 1), None)
    if doubtful is not None:
        shown = "" if where.endswith(repr(doubtful)) else f"{doubtful!r} "
        raise BrokenError(where, shown + matches.why(doubtful))
    certain = {ids[0]: name for name, ids in found.items() if ids}
    if len(certain) > 1:
        both = " and ".join(f"{id!r} (by the name {name!r})" for id, name in certain.items())
        raise BrokenError(where, f"means two images, {both}")
    if not certain:
        raise BrokenError(where, matches.why(names[0]))
    return next(iter(certain))
