"""Images that must not be scored or selected, named by files: labels, selections, or ids alone.

What a name means is decided as training decides it (:mod:`lloss.data.id_matching`), so that the
images left out are those that training on the same labels uses.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

from PIL import Image

from lloss.annotations import ObjectLabel, PersonLabel, Problems
from lloss.annotations.coco import is_coco, listed
from lloss.annotations.json_fields import BrokenError, load_json
from lloss.annotations.label_archive import native_labels
from lloss.annotations.label_csv import read_labels
from lloss.data.annotation_files import holds_xml
from lloss.data.empty_labels import UNLABELED, shown
from lloss.data.id_matching import Matches, differs
from lloss.data.label_joining import meant
from lloss.data.object_labels import object_names, read_objects
from lloss.data.pose_labels import person_names, read_persons
from lloss.errors import LabelError
from lloss.pools import FolderPool
from lloss.scores.scores_folder import ScoresFolder
from lloss.selection import Selection, SelectionSettings, select

Names = Mapping[str, tuple[str, ...]]
"""The names of the image of each label, by the label's key."""


@dataclass(frozen=True)
class NamedImages:
    """The images that a file names.

    Attributes:
        origin: the file.
        names: of each image.
        own_suffix: see :class:`lloss.data.id_matching.Matches`.
    """

    origin: str
    names: Names
    own_suffix: bool = True


@dataclass
class Excluded:
    """What the names came to.

    Attributes:
        ids: of the images to leave out.
        named: how many images the files name.
        lost: a name of each that is not among the ids.
        loose: a name and the id that it means, of each that is not named by its id.
        near: an id that the first of the lost ones nearly is, and how they differ; "" without one.
    """

    ids: set[str] = field(default_factory=set)
    named: int = 0
    lost: list[str] = field(default_factory=list)
    loose: list[tuple[str, str]] = field(default_factory=list)
    near: str = ""

    def notes(self, where: str) -> list[str]:
        """What the user should know, each a part of a sentence.

        Args:
            where: the ids were looked for: ``the scores``.
        """
        found = []
        if self.lost:
            first = f"the first: {self.lost[0]!r}" + (f"; {self.near}" if self.near else "")
            few = f"{len(self.lost)} of the {self.named} ids to exclude match nothing in {where}"
            none = f"none of the {self.named} ids to exclude is in {where}"
            found.append(f"{none if len(self.lost) == self.named else few} ({first})")
        if self.loose:
            name, id = self.loose[0]
            found.append(f"{len(self.loose)} excluded by name (the first: {name!r} is {id!r})")
        return found


def read_excluded(paths: Iterable[Path], problems: Problems, empty: str = "") -> list[NamedImages]:
    """The images that files name.

    Args:
        paths: CSV with a column ``id``; JSON: objects or keypoints as COCO's, persons as MPII's,
            or what a cycle keeps of its labels; a folder of VOC XML or of masks. A labeled person
            is named by its own id and by its image's.
        problems: broken annotations go there, whose images are excluded all the same, and a note
            of labels that show nothing.
        empty: what such labels mean, see :mod:`lloss.data.empty_labels`.

    Raises:
        LabelError: a file cannot be read, or names nothing.
    """
    files = [_with_unread(_read(path, problems, empty), problems) for path in paths]
    if problems.unread:
        problems.note("images that broken annotations name are excluded all the same")
    return files


def find_excluded(files: Iterable[NamedImages], ids: Callable[[], Iterator[str]]) -> Excluded:
    """Look the images up.

    Args:
        files: that name them.
        ids: of the pool or the scores; gone through once a file, twice where a name is lost.

    Raises:
        LabelError: a name may mean several.
    """
    excluded = Excluded()
    for file in files:
        names = {name for several in file.names.values() for name in several}
        matches = Matches(ids, names, file.own_suffix)
        for key, several in file.names.items():
            excluded.named += 1
            if not any(map(matches.of, several)):
                if not excluded.lost:
                    excluded.near = matches.near(several[0], elsewhere=False)
                excluded.lost.append(several[0])
                continue
            try:
                id = meant(matches, several, f"{file.origin}: {key!r}")
            except BrokenError as error:
                raise LabelError(str(error)) from error
            excluded.ids.add(id)
            if all(differs(name, id, file.own_suffix) for name in several):
                excluded.loose.append((several[0], id))
    return excluded


def select_without(
    folder: ScoresFolder, settings: SelectionSettings, files: Collection[NamedImages]
) -> tuple[Selection, Excluded]:
    """Select images that no file names.

    Names that are ids, the usual ones, cost no more than the selection; only where some are not
    the ids are gone through once more.

    Raises:
        LabelError: a name may mean several images.
        SelectionError: too few images are left.
    """
    names = {name for file in files for several in file.names.values() for name in several}
    chosen = select(folder, settings, names)
    if chosen.excluded == len(names):  # all of them are ids
        return chosen, Excluded(names, sum(len(file.names) for file in files))
    excluded = find_excluded(files, folder.ids)
    if len(excluded.ids) > chosen.excluded:
        chosen = select(folder, settings, excluded.ids)
    return chosen, excluded


def _with_unread(file: NamedImages, problems: Problems) -> NamedImages:
    """The images that a file names, those with broken annotations included."""
    unread = {several[-1]: several for several in problems.unread.get(file.origin, ())}
    return replace(file, names={**unread, **file.names}) if unread else file


def _read(path: Path, problems: Problems, empty: str) -> NamedImages:
    if path.is_dir():
        return _folder(path, problems, empty)
    if path.suffix.lower() != ".json":
        return NamedImages(str(path), {id: (id,) for id in read_labels(path, needs_label=False)})
    labels = _json(load_json(path), path, problems)
    names = _names(shown(labels, empty, problems))
    if not labels:
        raise LabelError(f"{path}: no labels in JSON that name images; give a CSV with a column id")
    return NamedImages(str(path), names)


def _folder(path: Path, problems: Problems, empty: str) -> NamedImages:
    if holds_xml(path):
        labels = shown(read_objects(path, problems), empty, problems)
        return NamedImages(str(path), object_names(labels))
    masks = {id: _MaskEntry() for id in FolderPool(path).ids()}
    if not masks:
        raise LabelError(f"{path}: holds neither VOC XML nor masks")
    if empty == UNLABELED:  # otherwise nothing in them matters
        masks = {id: _MaskEntry(_is_blank(path / id)) for id in masks}
    return NamedImages(str(path), _names(shown(masks, empty, problems)), own_suffix=False)


def _json(document: Any, path: Path, problems: Problems) -> Mapping[str, Any]:
    native = native_labels(document, str(path))
    if native is not None:
        return native
    if isinstance(document, list):
        return read_persons(path, problems)
    if is_coco(document):
        entries = listed(document, "annotations", str(path))
        of_persons = any(isinstance(entry, dict) and "keypoints" in entry for entry in entries)
        return (read_persons if of_persons else read_objects)(path, problems)
    if isinstance(document, dict):  # a cycle's masks
        masks = {id: label for id, label in document.items() if _is_of_mask(label)}
        return {id: _MaskEntry(label.get("names") == {}) for id, label in masks.items()}
    return {}


def _names(labels: Mapping[str, Any]) -> Names:
    if any(isinstance(label, PersonLabel) for label in labels.values()):
        return person_names(labels)
    if any(isinstance(label, ObjectLabel) for label in labels.values()):
        return object_names(labels)
    return {id: (id,) for id in labels}


@dataclass(frozen=True)
class _MaskEntry:
    """What is known of a mask here: the task of masks needs torch."""

    empty: bool = False
    marks: ClassVar[str] = "pixel of a class"


def _is_of_mask(label: object) -> bool:
    return isinstance(label, dict) and "sha256" in label


def _is_blank(path: Path) -> bool:
    """Whether all pixels of a mask are 255, which is no class."""
    try:
        with Image.open(path) as mask:
            return mask.mode in ("P", "L") and mask.getextrema() == (255, 255)
    except Exception as error:  # decoders raise nearly anything on a broken file
        raise LabelError(f"{path}: cannot be read as a mask: {error}") from error
