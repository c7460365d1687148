"""Label Studio's JSON export: a list of tasks, each with its annotations.

::

    [{"data": {"image": "/data/upload/1/0a1b2c3d-cat.jpg"},
      "annotations": [{"result": [{"type": "choices", "value": {"choices": ["cat"]}}]}]}]

Of several annotations of an image the newest counts, one marked as ground truth before others.
Predictions and drafts are no labels. Verified with label-studio 1.23.2.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime
from typing import Annotated, Any, NamedTuple
from urllib.parse import parse_qs, unquote, urlsplit

import msgspec

from lloss.annotations.json_fields import convert
from lloss.annotations.problems import AnnotationError, Problems
from lloss.errors import LabelError
from lloss.text.clean_names import clean_name, is_text
from lloss.text.counts import counted, part

_Text = Annotated[str, msgspec.Meta(min_length=1)]

_UPLOADED = re.compile(r"(?:^|.*/)upload/(?:\d+/)?[0-9a-f]{8}-([^/]+)")  # beginning of a UUID
_PATH = re.compile(r"[^\s?]+\.\w{2,5}(?:\?.*)?|\w+://.*|/(?:data|tasks)/.*", re.DOTALL)


class PoolImage(msgspec.Struct, frozen=True):
    """The data of a task that lloss created: the pool's name and the image's id."""

    lloss_id: _Text
    lloss_pool: _Text = ""

    def __post_init__(self) -> None:
        if not is_text(self.lloss_id + self.lloss_pool):
            raise ValueError("a name has half of a character")


class Annotation(msgspec.Struct, frozen=True):
    """An annotation of one image; each of its results should be an object."""

    result: list[Any]
    id: int = 0
    was_cancelled: bool | None = False  # whether the annotator skipped the image
    ground_truth: bool | None = False
    created_at: Any = None
    updated_at: Any = None

    @property
    def age(self) -> tuple[bool, float, int]:
        """Sorts annotations, the one that counts last: by the time of the last change."""
        changed = _seconds(self.updated_at) or _seconds(self.created_at)
        return bool(self.ground_truth), changed, self.id

    def choices(self, control: str | None = None) -> list[str]:
        """The classes chosen for the whole image; ``control`` names the control that counts."""
        return [
            name if isinstance(name, str) and is_text(name) else ""
            for of, names in self.controls()
            if control in (None, of)
            for name in names
        ]

    def controls(self) -> Iterator[tuple[str, list[Any]]]:
        """The name of each control of the whole image, and what is chosen there."""
        for item in self.result:
            if isinstance(item, dict) and item.get("type") == "choices":
                value = item.get("value")
                # A region's has coordinates as well.
                if isinstance(value, dict) and value.keys() == {"choices"}:
                    names = value["choices"]
                    yield str(item.get("from_name")), names if isinstance(names, list) else []

    def choice(self, control: str | None = None) -> str:
        """The class of the whole image; "" when there is not exactly one choice."""
        chosen = self.choices(control)
        return clean_name(chosen[0]) if len(chosen) == 1 else ""


class Placed(NamedTuple):
    """An annotation and its place in the export."""

    where: str
    annotation: Annotation


class _Data(msgspec.Struct):
    data: dict[str, Any]


class _Task(msgspec.Struct):
    annotations: list[Any]
    drafts: list[Any] | None = None


class TaskImage(NamedTuple):
    """The image of a task: its name, its pool if lloss created the task, its path if uploaded."""

    name: str
    pool: str = ""
    upload: str = ""


NameOf = Callable[[Mapping[str, Any], str], TaskImage | None]
"""Names the image of a task's data, whose place is given too; None if the task is not read."""


def is_label_studio(document: Any) -> bool:
    """Whether this is a list of tasks, as Label Studio exports JSON and JSON-MIN."""
    first = document[0] if isinstance(document, list) and document else None
    return isinstance(first, dict) and ("data" in first or "annotation_id" in first)


def read_annotations(
    document: Any, origin: str, problems: Problems, name_of: NameOf | None = None
) -> dict[str, list[Placed]]:
    """Read the annotations that are not skips by the name of the image, the one that counts last.

    An image without one is left out; notes count those. ``name_of`` is :func:`image_of`.

    Raises:
        LabelError: not such an export, or its tasks are of several pools.
    """
    start = f"{origin}: " if origin else ""
    if not isinstance(document, list):
        what = "not an export of Label Studio: export JSON, which is a list of tasks"
        raise LabelError(f"{start}{what}")
    counts = Counter[str](tasks=len(document))
    pools, uploads = set[str](), dict[str, str]()
    images: defaultdict[str, list[Placed]] = defaultdict(list)
    for number, fields in enumerate(document, 1):
        where = f"{start}task {number}"
        with problems.skipping():
            if isinstance(fields, dict) and "annotation_id" in fields:
                raise LabelError(f"{where}: this export is JSON-MIN; export JSON instead")
            data = convert(fields, _Data, where).data
            image = (name_of or image_of)(data, f"{where}.data")
            if image is None:
                continue
            pools.add(image.pool)
            if len(named := sorted(pools - {""})) > 1:  # two pools may have the same ids
                both = " and ".join(repr(name[:100]) for name in named)
                remedy = "export one of them (the daemon takes pool=NAME)"
                raise LabelError(f"{where}: the tasks are of the pools {both}: {remedy}")
            with problems.skipping(origin, image.name):
                if (other := uploads.setdefault(image.name, image.upload)) != image.upload:
                    both = f"{other!r} and {image.upload!r}"
                    raise AnnotationError(where, f"are {both} one image or two? Keep one of them")
                images[image.name] += _annotations(fields, where, counts)
    several = sum(len(some) > 1 for some in images.values())
    _note_counts(origin, counts, several, problems)
    return {
        name: sorted(some, key=lambda one: one.annotation.age)
        for name, some in images.items()
        if some
    }


def parse_choices(
    document: Any, origin: str, problems: Problems, control: str = ""
) -> dict[str, str]:
    """Read the class of each image, by its name; notes count images without one.

    ``control`` names the control whose choices count; it is needed where there are several.
    """
    images = read_annotations(document, origin, problems)
    labels: dict[str, str] = {}
    without = 0
    controls = {of for some in images.values() for of, _ in some[-1].annotation.controls()}
    if len(controls) > 1 - bool(control) and control not in controls:
        names = " and ".join(sorted(map(repr, controls)))
        raise LabelError(f"{origin}: has choices of {names}; add ?control=NAME behind the file")
    for name, some in images.items():
        with problems.skipping(origin, name):
            chosen = some[-1].annotation.choices(control or None)
            if len(chosen) > 1:
                shown = " and ".join(map(repr, chosen))
                raise AnnotationError(some[-1].where, f"has the choices {shown}; keep one")
            if chosen and not clean_name(chosen[0]):
                raise AnnotationError(some[-1].where, "its choice is empty")
            labels.update((name, clean_name(one)) for one in chosen)
            without += not chosen
    if without:
        have = part(without, len(images), "annotated images", "have")
        problems.note(f"{origin}: {have} no choice: not labeled yet")
    if disputed := sum(is_disputed(some, control or None) for some in images.values()):
        problems.note(
            f"{origin}: annotators chose different classes for {counted(disputed, 'image')}"
        )
    return labels


def is_disputed(annotations: Iterable[Placed], control: str | None = None) -> bool:
    """Whether annotations of an image chose different classes."""
    return len({one.annotation.choice(control) for one in annotations} - {""}) > 1


def image_of(data: Mapping[str, Any], where: str) -> TaskImage:
    """Name the image of a task by its ``lloss_id``, or by its path.

    The path is that of the key ``image``, or of the only value that looks like one. Of an upload
    it is the name without the letters that Label Studio puts before it.
    """
    if "lloss_id" in data:
        image = convert(data, PoolImage, where)
        return TaskImage(image.lloss_id, image.lloss_pool)
    paths = {key: text for key, text in data.items() if _is_path(text)}
    found = [paths["image"]] if "image" in paths else list(paths.values())
    if len(found) != 1:
        which = f"has several images ({', '.join(paths)})" if paths else "names no image"
        raise AnnotationError(where, f"{which}; name it under the key 'image'")
    return _image_at(found[0], where)


def _is_path(text: Any) -> bool:
    return isinstance(text, str) and bool(_PATH.fullmatch(text.strip()))


def _image_at(path: str, where: str) -> TaskImage:
    """The image at a URL, which may be one of Label Studio's own."""
    url = urlsplit(path)
    local = parse_qs(url.query).get("d", []) if url.path.endswith("/data/local-files/") else [path]
    if "fileuri=" in url.query or not local:
        raise AnnotationError(where, f"{path[:100]!r} does not say the image's path")
    uploaded = _UPLOADED.fullmatch(url.path)
    return TaskImage(unquote(uploaded[1]), upload=path) if uploaded else TaskImage(local[0])


def _annotations(fields: Any, where: str, counts: Counter[str]) -> list[Placed]:
    task = convert(fields, _Task, where)
    given = [
        Placed(place, convert(entry, Annotation, place))
        for index, entry in enumerate(task.annotations)
        for place in [f"{where}: annotations[{index}]"]
    ]
    kept = [one for one in given if not one.annotation.was_cancelled]
    counts["skipped"] += len(given) > 0 and not kept
    counts["unlabeled"] += not given
    counts["drafts"] += len(task.drafts or [])
    return kept


def _note_counts(origin: str, counts: Counter[str], several: int, problems: Problems) -> None:
    total = counts["tasks"]
    if count := counts["unlabeled"]:
        what = f"{part(count, total, 'tasks', 'have')} no annotation: not labeled yet"
        problems.note(f"{origin}: {what} (predictions are no labels)")
    if count := counts["skipped"]:
        problems.note(f"{origin}: {part(count, total, 'tasks', 'were')} skipped: not labeled")
    if count := counts["drafts"]:
        problems.note(f"{origin}: {counted(count, 'draft')} left out, since not submitted yet")
    if several:
        what = counted(several, "image has", "images have")
        problems.note(f"{origin}: {what} several annotations: the newest of each counts")


def _seconds(stamp: object) -> float:
    try:
        return datetime.fromisoformat(stamp).timestamp() if isinstance(stamp, str) else 0.0
    except (ValueError, OverflowError, OSError):
        return 0.0
