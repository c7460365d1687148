"""Requests and replies of the Open Inference Protocol, with Triton's binary tensors.

A body is JSON alone, or JSON of the length in the header ``Inference-Header-Content-Length`` and
then the tensors whose ``parameters`` have a ``binary_data_size``: little-endian, row-major, in the
order of the JSON. An element of BYTES is a length (uint32) and that many bytes.
"""

from __future__ import annotations

import itertools
import math
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, NoReturn

import numpy as np
from lloss.serve.daemon.errors import RequestError, validation_problem
from lloss.serve.daemon.services.request_queue import Answer, Images
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import to_json

PIXELS, ENCODED, ERROR = "images", "encoded", "error"
"""The two inputs, of which a request has one, and the output besides the model's own."""

MAX_JSON = 16 << 20
"""Bytes of JSON: parsed it takes up to twenty times as much memory."""

MANY = 16_384
"""Numbers in a reply from which on a thread encodes it: that takes 1.5 ms."""

_CHUNK = 65_536
"""Numbers that are encoded together; no other thread runs during that time."""

_LENGTH = struct.Struct("<I")


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True, val_json_bytes="base64")


class _Parameters(_Strict):
    """Parameters of a request, of its inputs and its outputs; unknown ones are ignored."""

    timeout: Annotated[int, Field(ge=0)] = 0  # microseconds
    binary_data_output: bool = False
    binary_data_size: Annotated[int, Field(ge=0, lt=1 << 63)] | None = None
    binary_data: bool | None = None

    @model_validator(mode="before")
    @classmethod
    def _refuse_extensions(cls, given: Any) -> Any:
        if isinstance(given, dict):
            if any(name.startswith("shared_memory") for name in given):
                raise ValueError("shared memory is not supported; send the tensors themselves")
            if given.get("classification"):
                raise ValueError("classification is not supported; rank the values yourself")
        return given


_Side = Annotated[int, Field(ge=1, lt=1 << 31)]


class _Pixels(_Strict):
    name: Literal["images"]
    datatype: Literal["UINT8"]
    shape: tuple[_Side, _Side, _Side, Literal[3]]
    data: list[Any] | None = None  # may be nested
    parameters: _Parameters = _Parameters()


class _Encoded(_Strict):
    name: Literal["encoded"]
    datatype: Literal["BYTES"]
    shape: tuple[_Side]
    data: list[bytes] | None = Field(None, fail_fast=True)
    parameters: _Parameters = _Parameters()


class _Output(_Strict):
    name: str
    parameters: _Parameters = _Parameters()


class _Body(_Strict):
    id: str = ""
    parameters: _Parameters = _Parameters()
    inputs: list[Annotated[_Pixels | _Encoded, Field(discriminator="name")]] = Field(
        min_length=1, max_length=1
    )
    outputs: list[_Output] = Field([], fail_fast=True)


@dataclass(frozen=True)
class InferRequest:
    """A request for inference.

    Attributes:
        images: uint8 [N, H, W, 3], a view of the body when that is binary, or N image files.
        id: of the client; "" for none.
        outputs: what to reply with, in this order, and whether as binary tensors; empty for all.
        binary: whether all outputs become binary tensors.
        seconds: the client's timeout; None without one.
    """

    images: Images
    id: str
    outputs: Mapping[str, bool]
    binary: bool
    seconds: float | None

    def formats(self, available: Sequence[str]) -> Mapping[str, bool]:
        """The outputs to reply with, by a model with these, and whether as binary tensors.

        Raises:
            RequestError: 400 the request names another output.
        """
        for name in self.outputs:
            if name not in available:
                _refuse(f"output {name[:60]!r}: choose of {', '.join(available)}")
        return self.outputs or dict.fromkeys(available, self.binary)


def parse_request(body: bytes, header_length: str | None, max_images: int) -> InferRequest:
    """Read a request.

    Args:
        body: all of it.
        header_length: the header ``Inference-Header-Content-Length``, if there is one.
        max_images: that a request may have.

    Raises:
        RequestError: 400 malformed; 413 too many images or too much JSON.
    """
    head, tail = _split(body, header_length)
    try:
        fields = _Body.model_validate_json(head)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        raise RequestError(400, validation_problem(first)) from error
    binary = fields.parameters.binary_data_output
    outputs: dict[str, bool] = {}
    for each in fields.outputs:
        if each.name in outputs:
            _refuse(f"the request names output {each.name[:60]!r} twice")
        own = each.parameters.binary_data
        outputs[each.name] = binary if own is None else own
    images = _images(fields.inputs[0], tail, max_images)
    seconds = min(fields.parameters.timeout, 10**15) / 1e6 or None
    return InferRequest(images, fields.id, outputs, binary, seconds)


def encode_reply(
    request: InferRequest, formats: Mapping[str, bool], answer: Answer, model: str, version: str
) -> tuple[bytes, int]:
    """Encode the body of a reply; returns it and the length of its JSON.

    Rows of bad images are NaN (``null`` in JSON); the output ``error`` has the reason, else "".
    """
    outputs: list[bytes] = []
    tensors: list[bytes] = []
    for name, binary in formats.items():
        if name == ERROR:
            texts = [answer.errors.get(row, "") for row in range(len(request.images))]
            head = {"name": ERROR, "datatype": "BYTES", "shape": [len(texts)]}
            data = _binary_texts(texts) if binary else to_json(texts)
        else:
            values = answer.columns[name]
            head = {"name": name, "datatype": "FP32", "shape": list(values.shape)}
            data = values.astype("<f4", copy=False).tobytes() if binary else _numbers(values)
        if binary:
            tensors.append(data)
            outputs.append(to_json({**head, "parameters": {"binary_data_size": len(data)}}))
        else:
            outputs.append(to_json(head)[:-1] + b',"data":' + data + b"}")
    fields = {"model_name": model, "model_version": version}
    if request.id:
        fields["id"] = request.id
    content = to_json(fields)[:-1] + b',"outputs":[' + b",".join(outputs) + b"]}"
    return b"".join((content, *tensors)), len(content)


def is_long(formats: Mapping[str, bool], answer: Answer) -> bool:
    """Whether a thread should encode the reply."""
    return sum(answer.columns[name].size for name in formats if name != ERROR) > MANY


def _split(body: bytes, header_length: str | None) -> tuple[bytes, memoryview]:
    """The JSON, and what follows it."""
    length = len(body)
    if header_length is not None:
        text = header_length.strip()
        # isdigit alone accepts digits of any script, and int alone signs and underscores.
        if not (text.isascii() and text.isdigit() and len(text) < 20 and int(text) <= length):
            _refuse(f"Inference-Header-Content-Length is {text[:60]!r} in a body of {length} bytes")
        length = int(text)
    if length > MAX_JSON:
        raise RequestError(
            413, f"{length} bytes of JSON: give at most {MAX_JSON}, and images as binary tensors"
        )
    return body[:length], memoryview(body)[length:]


def _images(tensor: _Pixels | _Encoded, tail: memoryview, max_images: int) -> Images:
    name, count, size = tensor.name, tensor.shape[0], tensor.parameters.binary_data_size
    if count > max_images:
        raise RequestError(
            413, f"{count} images in one request: give at most {max_images} and send several"
        )
    if (size or 0) != len(tail):
        _refuse(f"input {name!r}: binary_data_size {size}, but {len(tail)} bytes follow the JSON")
    if (size is None) == (tensor.data is None):
        _refuse(f"input {name!r}: give a list as data, or binary_data_size and the bytes")
    if isinstance(tensor, _Pixels):
        pixels = tail if tensor.data is None else _pixel_bytes(tensor.data)
        if math.prod(tensor.shape) != len(pixels):
            _refuse(f"input {name!r}: {len(pixels)} pixel values for shape {list(tensor.shape)}")
        return np.frombuffer(pixels, np.uint8).reshape(tensor.shape)
    files = _files(tail, count) if tensor.data is None else tensor.data
    if len(files) != count:
        _refuse(f"input {name!r} has {len(files)} elements, its shape says {count}")
    return files


def _pixel_bytes(data: list[Any]) -> bytes:
    for _ in range(3):  # nested as [N, H, W, 3], or flat
        if not all(type(entry) is list for entry in data):
            break
        data = list(itertools.chain.from_iterable(data))
    try:
        return bytes(data)
    except (ValueError, TypeError) as error:
        message = "input 'images': pixel values are whole numbers from 0 to 255"
        raise RequestError(400, message) from error


def _files(content: memoryview, count: int) -> list[bytes]:
    files, at = [], 0
    for number in range(count):
        if at + _LENGTH.size > len(content):
            _refuse(f"element {number} of {count} is missing")
        (length,) = _LENGTH.unpack_from(content, at)
        at += _LENGTH.size
        if length > len(content) - at:
            _refuse(f"element {number} should have {length} bytes, {len(content) - at} follow")
        files.append(bytes(content[at : at + length]))
        at += length
    if at != len(content):
        _refuse(f"{len(content) - at} bytes after the last element")
    return files


def _binary_texts(texts: Sequence[str]) -> bytes:
    encoded = [text.encode("utf-8", "replace") for text in texts]
    return b"".join(part for text in encoded for part in (_LENGTH.pack(len(text)), text))


def _numbers(values: NDArray[np.float32]) -> bytes:
    """A flat list, row-major; null for NaN and infinity."""
    flat = values.ravel()
    chunks = (flat[at : at + _CHUNK].tolist() for at in range(0, flat.size, _CHUNK))
    return b"[" + b",".join(to_json(c, inf_nan_mode="null")[1:-1] for c in chunks) + b"]"


def _refuse(message: str) -> NoReturn:
    raise RequestError(400, message)
