"""Which columns of a table are the ids and the images, and what a row of them is."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from lloss.errors import ImageError, PoolError
from lloss.pools.image_files import check_encoded, failing_read
from lloss.pools.pool import Item
from lloss.pools.storage import StoragePath

_ID_NAMES = ("id", "image_id", "key", "__key__")
_PATH_NAMES = ("path", "image_path", "file_name", "file")


@dataclass(frozen=True)
class Columns:
    """The columns of a table that make its items.

    Where the paths of the images are the ids too, a null path has the id ``row N``, N its position
    in the pool: it is one bad image.

    Attributes:
        image: encoded bytes, a struct of ``bytes`` and ``path``, or a path.
        id: strings or integers; empty for the row number.
    """

    image: str
    id: str

    @classmethod
    def chosen(cls, schema: Any, options: dict[str, str], uri: str) -> Columns:
        """Take the columns that ``options`` name, or those of an unambiguous schema.

        Raises:
            PoolError: there is no such column, none of a fitting type, or more than one.
        """
        listed = ", ".join(f"{field.name} ({field.type})" for field in schema) or "none"
        for name in options.values():
            if schema.names.count(name) != 1:
                raise PoolError(f"{uri}: does not have one column {name!r} (it has {listed})")
        image = options.get("image") or _image_column(schema, uri, listed)
        if not any(fits(schema.field(image).type) for fits in (_is_bytes, _is_struct, _is_text)):
            raise PoolError(
                f"{uri}: the column {image!r} holds no images (it has {listed}); "
                "they are encoded bytes, a struct of bytes and path, or a path"
            )
        id = options.get("id") or _id_column(schema, image, uri)
        if id and not any(fits(schema.field(id).type) for fits in (_is_text, pa.types.is_integer)):
            raise PoolError(
                f"{uri}: the column {id!r} of {schema.field(id).type} cannot be an id; "
                "ids are strings or integers; choose another with ?id=COLUMN"
            )
        return cls(image, id)

    @property
    def read(self) -> list[str]:
        """The columns to read for items."""
        return list(dict.fromkeys([self.image, *([self.id] if self.id else [])]))

    def ids(self, batch: Any, first: int, path: StoragePath, offset: int) -> list[str]:
        """The ids of a batch; PoolError where one is null, empty or not UTF-8.

        ``first`` is the batch's first row in the file ``path``, ``offset`` the pool's position of
        that file's first row.
        """
        if not self.id:
            return [str(offset + first + row) for row in range(batch.num_rows)]
        column = batch.column(self.id)
        try:
            ids: list[str | None] = column.cast(pa.string()).to_pylist()
        except UnicodeDecodeError:
            row = next(row for row in range(len(column)) if not _is_utf8(column[row]))
            raise PoolError(f"{path}: the id in row {first + row} (from 0) is not UTF-8") from None
        if self.id != self.image:
            for wrong, what in ((None, "null"), ("", "empty")):
                if wrong in ids:
                    row = first + ids.index(wrong)
                    raise PoolError(f"{path}: the id in row {row} (from 0) is {what}")
        return [f"row {offset + first + row}" if id is None else id for row, id in enumerate(ids)]

    def items(self, batch: Any, first: int, path: StoragePath, offset: int) -> Iterator[Item]:
        """The items of a batch; arguments as of :meth:`ids`. They hold it until they are gone."""
        images, folder = batch.column(self.image), path.parent
        for row, id in enumerate(self.ids(batch, first, path, offset)):
            yield Item(id, ImageCell(images, row, folder))


@dataclass(frozen=True, slots=True)
class ImageCell:
    """An image in a row of a ``pyarrow.Array``; paths are relative to ``folder``. Call to read."""

    column: Any
    row: int
    folder: StoragePath

    def __call__(self) -> bytes:
        return _image(*_bytes_and_path(self.column[self.row]), self.folder)

    def detached(self) -> Callable[[], bytes]:
        """The same without its batch, of which it would keep all the rows in memory."""
        try:
            parts = _bytes_and_path(self.column[self.row])
        except ImageError as error:
            return failing_read(error)
        return functools.partial(_image, *parts, self.folder)


def _bytes_and_path(cell: Any) -> tuple[bytes | None, bytes | None]:
    """An image's bytes, or its path, which need not be UTF-8; None for what is missing."""
    if not pa.types.is_struct(cell.type):
        return (None, _buffer(cell)) if _is_text(cell.type) else (_buffer(cell), None)
    if not cell.is_valid:
        return None, None
    data = _buffer(cell["bytes"])
    has_path = any(field.name == "path" and _is_text(field.type) for field in cell.type)
    return data, _buffer(cell["path"]) if has_path and data is None else None


def _buffer(cell: Any) -> bytes | None:
    """The bytes of a scalar of bytes or of text."""
    cell = cell.value if pa.types.is_dictionary(cell.type) else cell
    if not cell.is_valid:
        return None
    buffer = cell.as_buffer()
    check_encoded(buffer.size)
    return bytes(buffer)


def _is_utf8(cell: Any) -> bool:
    try:
        (_buffer(cell) or b"").decode()
    except UnicodeDecodeError:
        return False
    return True


def _image(data: bytes | None, path: bytes | None, folder: StoragePath) -> bytes:
    if data is not None:
        return data
    if not path:
        raise ImageError("the image is null")
    try:
        return folder.read_image(path.decode())
    except UnicodeDecodeError as error:
        raise ImageError(f"its path {path!r} is not UTF-8") from error


def _image_column(schema: Any, uri: str, listed: str) -> str:
    images = [f.name for f in schema if _is_bytes(f.type) or _is_struct(f.type)]
    found = images or _path_columns(schema)
    if len(found) != 1:
        which = "no column of images" if not found else f"images in {' and in '.join(found)}"
        raise PoolError(f"{uri}: {which} (its columns: {listed}); name one with ?image=COLUMN")
    return found[0]


def _id_column(schema: Any, image: str, uri: str) -> str:
    ids = [name for name in _named(_ID_NAMES, schema) if name != image]
    if len(ids) > 1 and ids[0].lower() == ids[1].lower():
        raise PoolError(f"{uri}: ids in {' and in '.join(ids)}; name one with ?id=COLUMN")
    own = [image] if _is_text(schema.field(image).type) else []
    return next(iter([*ids, *own, *_path_columns(schema)]), "")


def _path_columns(schema: Any) -> list[str]:
    named = [name for name in _named(_PATH_NAMES, schema) if schema.names.count(name) == 1]
    return [name for name in named if _is_text(schema.field(name).type)]


def _named(names: tuple[str, ...], schema: Any) -> list[str]:
    """The columns of these names in any case, in the order of the names; an exact one wins."""
    found: list[str] = []
    for name in names:
        alike = [column for column in schema.names if column.strip().lower() == name]
        found += [name] if name in alike else alike
    return found


def _is_bytes(kind: Any) -> bool:
    checks = ("is_binary", "is_large_binary", "is_binary_view")
    return any(getattr(pa.types, check)(kind) for check in checks)


def _is_struct(kind: Any) -> bool:
    """Whether it is what Hugging Face makes of an image: bytes, or a path to them."""
    return pa.types.is_struct(kind) and any(
        field.name == "bytes" and _is_bytes(field.type) for field in kind
    )


def _is_text(kind: Any) -> bool:
    plain = kind.value_type if pa.types.is_dictionary(kind) else kind
    checks = ("is_string", "is_large_string", "is_string_view")
    return any(getattr(pa.types, check)(plain) for check in checks)
