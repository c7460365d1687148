"""Persons as a pool: each is a square of an image, from a JSON of annotations."""

from __future__ import annotations

import functools
import itertools
import operator
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

from lloss.annotations.json_fields import parse_json
from lloss.annotations.person_file import parse_persons
from lloss.annotations.person_record import Person, touches
from lloss.annotations.problems import AnnotationError, Problems
from lloss.errors import ImageError, LabelError, PoolError
from lloss.images.crop_box import CropBox
from lloss.images.decode import Pixels, decode_whole
from lloss.pools.fingerprints import content_fingerprint
from lloss.pools.image_files import failing_read
from lloss.pools.pool import Item, Pool
from lloss.pools.storage import StoragePath, image_folder
from lloss.pools.uri import PoolUri

T = TypeVar("T")
_KEPT = 8
"""Decoded images kept for the next person of each, of at most so many bytes."""
_KEPT_BYTES = 32 << 20


class PersonCrop(NamedTuple):
    """A person of a pool."""

    id: str
    image: str
    region: CropBox | str  # or the reason why there is no square
    size: tuple[int, int] | None = None  # height and width of the image it was drawn on, if known


@dataclass(frozen=True, slots=True)
class CropItem(Item):
    """A square of an image of a pool; reading it gives ``uint8 [side, side, 3]``."""

    image: Item
    region: CropBox
    decoded: Callable[[], Pixels]  # the whole image

    @classmethod
    def of(
        cls, id: str, image: Item, region: CropBox, decoded: Callable[[], Pixels] | None = None
    ) -> CropItem:
        """Make a square of an image, which is decoded each time by default."""
        decoded = decoded or functools.partial(_decode, image)
        return cls(
            id, functools.partial(_cut, decoded, region), image, region, decoded, file=image.file
        )

    def cut(self, factor: float) -> Pixels:
        """Cut the square scaled by ``factor`` around its centre, black outside the image."""
        return _cut(self.decoded, self.region.grown(factor))


class PersonCropPool(Pool):
    """The persons of a JSON of MPII or COCO, as squares of their images.

    Ids are ``image@cx,cy,scale`` or ``image@x,y,w,h``, in the JSON's own numbers. Persons of one
    image stand together, in the order in which images first come, so that an image is decoded once
    for all of them where possible. A person whose region has no size, or is beside the image, is
    a bad image. The option ``image`` names the folder of the images, relative to the JSON's; see
    :func:`.image_folder`. PoolError where an entry has no image or place, or two are the same.
    """

    unique = True

    def __init__(self, listing: StoragePath, uri: PoolUri) -> None:
        self.listing = listing
        self.uri = str(uri)
        self.remote = listing.remote
        try:
            with listing.open() as file:
                document = parse_json(file, str(listing))
            people = parse_persons(document, str(listing), _Refusing())
            self._crops = grouped(map(_crop_of, people), operator.attrgetter("image"))
        except LabelError as error:
            raise PoolError(str(error)) from error
        names = list(dict.fromkeys(one.image for one in self._crops))
        self.images = image_folder(listing, names, uri.options.get("image", ""))

    def __iter__(self) -> Iterator[Item]:
        return crop_items(self._crops, self.images)

    def ids(self) -> Iterator[str]:
        return (one.id for one in self._crops)

    def count(self) -> int:
        return len(self._crops)

    def fingerprint(self) -> str:
        return content_fingerprint(self.listing)


def crop_items(crops: Iterable[PersonCrop], folder: StoragePath) -> Iterator[Item]:
    """The items of persons, whose images have names relative to ``folder``."""
    kept = functools.lru_cache(_KEPT)(lambda name: _SharedImage(folder.image(name)))
    lock = threading.Lock()

    def decoded(name: str, size: tuple[int, int] | None) -> Pixels:
        with lock:
            image = kept(name)
        pixels = image.decoded()
        if size is not None and pixels.shape[:2] != size:
            raise ImageError(
                f"is an image of {pixels.shape[1]}×{pixels.shape[0]} pixels, the person was drawn "
                f"on {size[1]}×{size[0]} (width×height)"
            )
        return pixels

    for id, name, region, size in crops:
        if isinstance(region, str):
            yield Item(id, failing_read(ImageError(region)))
        else:
            pixels = functools.partial(decoded, name, size)
            yield CropItem.of(id, folder.image(name), region, pixels)


class _Refusing(Problems):
    """A pool leaves nothing out: a second listing would not give the same."""

    def report(self, where: str, what: str) -> None:
        raise LabelError(f"{where}: {what}; correct it, or remove it from the pool")


class _SharedImage:
    """An image of several persons: one thread decodes it while the others wait for it."""

    def __init__(self, image: Item) -> None:
        self._image = image
        self._lock = threading.Lock()
        self._pixels: Pixels | None = None

    def decoded(self) -> Pixels:
        """The pixels, read-only for the caller; ImageError where it cannot be read."""
        with self._lock:
            if self._pixels is not None:
                return self._pixels
            pixels = _decode(self._image)
            if pixels.nbytes <= _KEPT_BYTES:
                self._pixels = pixels
            return pixels


def grouped(crops: Iterable[T], image: Callable[[T], str]) -> list[T]:
    """Bring the persons of an image together, in the order of the first of each."""
    groups: dict[str, list[T]] = {}
    for crop in crops:
        groups.setdefault(image(crop), []).append(crop)
    return list(itertools.chain.from_iterable(groups.values()))


def _crop_of(person: Person) -> PersonCrop:
    try:
        return PersonCrop(person.id, person.image, person.region(), person.size)
    except AnnotationError as error:
        return PersonCrop(person.id, person.image, error.what)


def _decode(image: Item) -> Pixels:
    return decode_whole(image.read())


def _cut(decoded: Callable[[], Pixels], region: CropBox) -> Pixels:
    pixels = decoded()
    height, width, _ = pixels.shape
    if not touches(region, (height, width)):
        shown = f"{region.side} pixels a side at {region.left}, {region.top} (left, top)"
        raise ImageError(f"its region of {shown} does not touch the {width}×{height} pixels")
    return region.cut(pixels)
