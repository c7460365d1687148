"""Which columns of a table are the ids and the images, and what a row of them is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from lloss.errors import ImageError, PoolError
from lloss.pools.image_files import check_encoded
from lloss.pools.pool import Item
from lloss.pools.storage import StoragePath

_ID_NAMES = ("id", "image_id", "key", "__key__")
_PATH_NAMES = ("path", "image_path", "file_name", "file")


@dataclass(frozen=True)
class Columns:
    """The columns of a table that make its items.

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
        kind = schema.field(image).type
        if not (_is_bytes(kind) or _is_struct(kind) or _is_text(kind)):
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
        try:
            ids: list[str] = batch.column(self.id).cast(pa.string()).to_pylist()
        except UnicodeDecodeError:
            last = first + batch.num_rows - 1
            raise PoolError(f"{path}: an id in rows {first} to {last} is not UTF-8") from None
        if not all(ids):
            row = next(row for row, id in enumerate(ids, first) if not id)
            raise PoolError(
                f"{path}: the id in row {row} (from 0) of {self.id!r} is null or empty; "
                "choose another column with ?id=COLUMN"
            )
        return ids

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
        cell = self.column[self.row]
        if pa.types.is_struct(cell.type) and cell.is_valid:
            by_path = "path" in cell and not cell["bytes"].is_valid
            cell = cell["path" if by_path else "bytes"]
        if not cell.is_valid:
            raise ImageError("the image is null")
        is_path = _is_text(cell.type)
        buffer = (cell.value if pa.types.is_dictionary(cell.type) else cell).as_buffer()
        check_encoded(buffer.size)
        data = bytes(buffer)
        if not is_path:
            return data
        try:
            return self.folder.image(data.decode()).read()  # type: ignore[return-value]
        except UnicodeDecodeError as error:
            raise ImageError(f"its path {data!r} is not UTF-8") from error

    def detached(self) -> ImageCell:
        """The same without its batch, of which it would keep all the rows in memory."""
        return ImageCell(self.column.take([self.row]), 0, self.folder)


def _image_column(schema: Any, uri: str, listed: str) -> str:
    images = [f.name for f in schema if _is_bytes(f.type) or _is_struct(f.type)]
    found = images or _named(_PATH_NAMES, schema)
    if len(found) != 1:
        which = "no column of images" if not found else f"images in {' and in '.join(found)}"
        raise PoolError(f"{uri}: {which} (its columns: {listed}); name one with ?image=COLUMN")
    return found[0]


def _id_column(schema: Any, image: str, uri: str) -> str:
    own = [image] if _is_text(schema.field(image).type) else []
    ids = [name for name in _named(_ID_NAMES, schema) if name != image]
    found = ids or own or _named(_PATH_NAMES, schema)
    if len(found) > 1:
        raise PoolError(f"{uri}: ids in {' and in '.join(found)}; name one with ?id=COLUMN")
    return next(iter(found), "")


def _named(names: Sequence[str], schema: Any) -> list[str]:
    return [column for column in schema.names if column.strip().lower() in names]


def _is_bytes(kind: Any) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _is_struct(kind: Any) -> bool:
    """Whether it is what Hugging Face makes of an image: bytes, or a path to them."""
    return pa.types.is_struct(kind) and any(
        field.name == "bytes" and _is_bytes(field.type) for field in kind
    )


def _is_text(kind: Any) -> bool:
    plain = kind.value_type if pa.types.is_dictionary(kind) else kind
    return bool(pa.types.is_string(plain) or pa.types.is_large_string(plain))
