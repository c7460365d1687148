"""Images that must not be scored or selected, named by files: labels, selections, or ids alone.

Names are matched as in training (:mod:`lloss.data.id_matching`).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lloss.annotations import Problems
from lloss.annotations.problems import AnnotationError
from lloss.data.id_matching import Matches, differs
from lloss.data.label_formats import read_any_labels
from lloss.data.label_joining import image_names, match_names
from lloss.data.labeled_set import UNLABELED, drop_empty_labels
from lloss.data.mask_files import MaskFile
from lloss.errors import LabelError
from lloss.text.counts import counted, part


@dataclass(frozen=True)
class NamedImages:
    """The names of the image of each label of a file, by the label's key; see :class:`.Matches`."""

    origin: str
    names: Mapping[str, tuple[str, ...]]
    own_suffix: bool = True


def read_excluded(paths: Iterable[Path], problems: Problems, empty: str = "") -> list[NamedImages]:
    """Read the names of the images that files name.

    Args:
        paths: CSV with a column ``id``, or labels of any kind. A labeled person is named by its
            own id and by its image's.
        problems: counts broken annotations, whose images are excluded all the same, and gets a
            note of labels that show nothing.
        empty: what such labels mean, see :mod:`lloss.data.labeled_set`.
    """
    files = []
    for path in paths:
        labels = read_any_labels(path, problems)
        of_masks = any(isinstance(label, MaskFile) for label in labels.values())
        if not of_masks or empty == UNLABELED:  # only then read masks
            labels = drop_empty_labels(labels, empty, problems)
        keys = [*sorted(problems.unusable.get(str(path), ())), *labels]
        names = {key: image_names(key, labels.get(key)) for key in keys}
        if not names:
            problems.note(f"{path}: names no image to exclude")
        files.append(NamedImages(str(path), names, own_suffix=not of_masks))
    if problems.unusable:
        problems.note("images that broken annotations name are excluded all the same")
    return files


def find_excluded(
    files: Collection[NamedImages], ids: Callable[[], Iterator[str]], where: str, problems: Problems
) -> set[str]:
    """Find the ids of the images that files name; a name that may mean several is refused.

    The ids of the pool or the scores are read once per file, twice where a name matches none.
    Notes count the names that are not ids; ``where`` says in them what was searched.
    """
    found = set[str]()
    unknown: list[str] = []
    by_name: list[str] = []
    for file in files:
        names = {name for several in file.names.values() for name in several}
        matches = Matches(ids, names, file.own_suffix)
        for key, several in file.names.items():
            if not any(map(matches.of, several)):
                near = "" if unknown else matches.near(several[0])
                unknown.append(f"{several[0]!r}; {near}" if near else repr(several[0]))
                continue
            try:
                id = match_names(matches, several, f"{file.origin}: {key!r}")
            except AnnotationError as error:
                raise LabelError(str(error)) from error
            found.add(id)
            if all(differs(name, id, file.own_suffix) for name in several):
                by_name.append(f"{several[0]!r} is {id!r}")
    count = sum(len(file.names) for file in files)
    problems.note(unmatched_note(unknown, count, where))
    if by_name:
        problems.note(f"{len(by_name)} excluded by name (the first: {by_name[0]})")
    return found


def unmatched_note(unknown: Sequence[str], count: int, where: str) -> str:
    """Say how many of ``count`` ids to exclude match nothing, of which these are; "" for none."""
    if not unknown:
        return ""
    what = f"{part(len(unknown), count, 'ids to exclude', 'match')} nothing in {where}"
    if len(unknown) == count:
        what = f"none of the {counted(count, 'id')} to exclude is in {where}"
    return f"{what} (the first: {unknown[0]})"
