"""Requests and replies of the Open Inference Protocol, with Triton's binary tensors.

A body is JSON alone, or JSON of the length that the header ``Inference-Header-Content-Length``
tells, followed by the tensors whose ``parameters`` have a ``binary_data_size``: little-endian,
row-major, in the order of their mention. Elements of BYTES are a length (uint32) and so many bytes.

Nothing here trusts a number before it is compared with the bytes that are there.
"""

from __future__ import annotations

import base64
import binascii
import itertools
import json
import math
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np
from lloss.serve.daemon.errors import RequestError
from lloss.serve.daemon.services.request_queue import Answer, Images
from numpy.typing import NDArray

PIXELS, ENCODED, ERROR = "images", "encoded", "error"
"""The two inputs, of which a request has one, and the output beside the model's own."""

MAX_JSON = 16 << 20
"""Bytes of JSON: parsed it takes up to twenty times as many."""

MANY = 4096
"""Numbers that JSON is made of at a time: some milliseconds, in which no other thread runs. Of more
it is made beside the event loop."""

_LENGTH = struct.Struct("<I")
_SHOWN = 60


@dataclass(frozen=True)
class Wanted:
    """An output that is asked for, and whether as a binary tensor."""

    name: str
    binary: bool


@dataclass(frozen=True)
class InferRequest:
    """A request for inference.

    Attributes:
        images: uint8 [N, H, W, 3], a view of the body where that is binary, or N image files.
        id: of the client's; "" for none.
        named: outputs that are asked for, in the order of the reply; none for all.
        binary: whether all come as binary tensors.
        seconds: within which the client wants it; None where it does not say.
    """

    images: Images
    id: str
    named: Sequence[Wanted]
    binary: bool
    seconds: float | None

    def wanted(self, outputs: Sequence[str]) -> Sequence[Wanted]:
        """What a reply has, of a model with these outputs.

        Raises:
            RequestError: 400 one that is asked for is none of them.
        """
        for output in self.named:
            _check_output(output.name, outputs)
        return self.named or [Wanted(name, self.binary) for name in outputs]


def parse_request(
    body: bytes, header_length: str | None, outputs: Sequence[str], most: int
) -> InferRequest:
    """Read a request.

    Args:
        body: of it, inflated.
        header_length: the header ``Inference-Header-Content-Length``, if there is one.
        outputs: names that can be asked for.
        most: images that a request may have.

    Raises:
        RequestError: 400 it is none; 413 it has more images or JSON than may be.
    """
    head, tail = _split(body, header_length)
    fields = _parsed(head)
    parameters = _parameters(fields, "the request")
    id = fields.get("id", "")
    if not isinstance(id, str):
        _refuse(f"id is {_shown(id)}: give a string")
    inputs = fields.get("inputs")
    if not isinstance(inputs, list) or len(inputs) != 1 or not isinstance(inputs[0], dict):
        _refuse(f"inputs: give a list with one tensor, {PIXELS!r} or {ENCODED!r}")
    binary = _flag(parameters, "binary_data_output")
    return InferRequest(
        _input(inputs[0], tail, most),
        id,
        _named(fields.get("outputs"), binary, outputs),
        binary,
        _seconds(parameters.get("timeout", 0)),
    )


def reply(
    request: InferRequest, wanted: Sequence[Wanted], answer: Answer, model: str, version: str
) -> tuple[bytes, int]:
    """The body that tells an answer, and the length of its JSON; all of it where that is the same.

    Rows of bad images are NaN, ``null`` in JSON; the output ``error`` holds why, "" elsewhere.
    """
    outputs: list[str] = []
    tensors: list[bytes] = []
    for each in wanted:
        if each.name == ERROR:
            texts = [answer.errors.get(row, "") for row in range(len(request.images))]
            told = {"name": ERROR, "datatype": "BYTES", "shape": [len(texts)]}
            data = _bytes_tensor(texts) if each.binary else _json(texts)
        else:
            values = answer.columns[each.name]
            told = {"name": each.name, "datatype": "FP32", "shape": list(values.shape)}
            data = values.astype("<f4", copy=False).tobytes() if each.binary else _listed(values)
        if isinstance(data, bytes):
            tensors.append(data)
            outputs.append(_json({**told, "parameters": {"binary_data_size": len(data)}}))
        else:
            outputs.append(f'{_json(told)[:-1]},"data":{data}}}')
    fields = {"model_name": model, "model_version": version}
    if request.id:
        fields["id"] = request.id
    head = f'{_json(fields)[:-1]},"outputs":[{",".join(outputs)}]}}'.encode()
    return b"".join((head, *tensors)), len(head)


def is_long(wanted: Sequence[Wanted], answer: Answer) -> bool:
    """Whether a reply shall be made beside the event loop."""
    told = (each.name for each in wanted if not each.binary and each.name != ERROR)
    return sum(answer.columns[name].size for name in told) > MANY


def _split(body: bytes, header_length: str | None) -> tuple[bytes, memoryview]:
    """The JSON, and what follows it."""
    length = len(body)
    if header_length is not None:
        text = header_length.strip()
        # isdigit alone takes digits of any script, and int alone signs and underscores.
        if not (text.isascii() and text.isdigit() and len(text) < 20 and int(text) <= length):
            _refuse(
                f"Inference-Header-Content-Length is {_shown(text)} in a body of {length} bytes"
            )
        length = int(text)
    if length > MAX_JSON:
        raise RequestError(
            413, f"{length} bytes of JSON: give at most {MAX_JSON}, and images as binary tensors"
        )
    return body[:length], memoryview(body)[length:]


def _parsed(head: bytes) -> dict[str, Any]:
    try:
        fields = json.loads(head.decode("utf-8"), parse_constant=_no_constant)
    except RecursionError:
        _refuse("the JSON is nested too deep")
    except ValueError as error:  # of JSON, of UTF-8, of a number with too many digits
        _refuse(f"not JSON: {_shown(str(error))}")
    if not isinstance(fields, dict):
        _refuse('the JSON is no object: give {"inputs": […]}')
    return fields


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number of JSON")


def _parameters(fields: Mapping[str, Any], where: str) -> dict[str, Any]:
    parameters = fields.get("parameters", {})
    if not isinstance(parameters, dict):
        _refuse(f"parameters of {where}: give an object")
    for name in parameters:
        if name.startswith("shared_memory"):
            _refuse(f"{where}: shared memory is not supported; send the tensors themselves")
    return parameters


def _flag(parameters: Mapping[str, Any], name: str, otherwise: bool = False) -> bool:
    value = parameters.get(name, otherwise)
    if not isinstance(value, bool):
        _refuse(f"{name} is {_shown(value)}: give true or false")
    return value


def _seconds(microseconds: Any) -> float | None:
    if not _is_int(microseconds) or microseconds < 0:
        _refuse(f"timeout is {_shown(microseconds)}: give microseconds, a whole number")
    return min(microseconds, 10**15) / 1e6 or None


def _input(tensor: dict[str, Any], tail: memoryview, most: int) -> Images:
    name, datatype = tensor.get("name"), tensor.get("datatype")
    known = {PIXELS: ("UINT8", "N, H, W, 3"), ENCODED: ("BYTES", "N")}
    if not isinstance(name, str) or name not in known:
        _refuse(f"input {_shown(name)}: give {PIXELS!r} or {ENCODED!r}")
    wanted, axes = known[name]
    if datatype != wanted:
        _refuse(f"input {name!r} of datatype {_shown(datatype)}: give {wanted}")
    shape = tensor.get("shape")
    if (
        not isinstance(shape, list)
        or len(shape) != len(axes.split(", "))
        or not all(_is_int(side) and side >= 1 for side in shape)
        or (name == PIXELS and shape[3] != 3)
    ):
        _refuse(f"input {name!r} of shape {_shown(shape)}: give [{axes}], each at least 1")
    if shape[0] > most:
        raise RequestError(
            413, f"{_shown(shape[0])} images in one request: give at most {most} and send several"
        )
    size = _parameters(tensor, f"input {name!r}").get("binary_data_size")
    if size is None:
        if len(tail):
            _refuse(f"{len(tail)} bytes after the JSON, and input {name!r} has no binary_data_size")
        return _of_json(tensor.get("data"), name, shape)
    if not _is_int(size) or size != len(tail):
        _refuse(
            f"input {name!r} has binary_data_size {_shown(size)}, and {len(tail)} bytes follow "
            "the JSON"
        )
    if "data" in tensor:
        _refuse(f"input {name!r} has data and binary_data_size: give one of them")
    return _files(tail, shape[0]) if name == ENCODED else _pixels(tail, shape)


def _pixels(content: memoryview | bytes, shape: Sequence[int]) -> NDArray[np.uint8]:
    # A side may have 4,300 digits, and of a product with more Python prints none.
    count = math.prod(shape) if max(shape) <= len(content) else None
    if count != len(content):
        has = "more" if count is None else count
        _refuse(f"{len(content)} pixel values for shape {_shown(shape)}, which has {has}")
    return np.frombuffer(content, np.uint8).reshape(shape)


def _files(content: memoryview, count: int) -> list[bytes]:
    if count * _LENGTH.size > len(content):
        _refuse(f"{count} elements in {len(content)} bytes")
    files, at = [], 0
    for number in range(count):
        if at + _LENGTH.size > len(content):
            _refuse(f"element {number} of {count} is missing")
        (length,) = _LENGTH.unpack_from(content, at)
        at += _LENGTH.size
        if length > len(content) - at:
            _refuse(f"element {number} is said to have {length} bytes, {len(content) - at} follow")
        files.append(bytes(content[at : at + length]))
        at += length
    if at != len(content):
        _refuse(f"{len(content) - at} bytes after the last element")
    return files


def _of_json(data: Any, name: str, shape: Sequence[int]) -> Images:
    if not isinstance(data, list):
        _refuse(f"input {name!r} has no data: give a list, or binary_data_size and the bytes")
    if name == PIXELS:
        try:
            return _pixels(bytes(_flat(data, len(shape))), shape)
        except (ValueError, TypeError) as error:
            text = f"input {name!r}: pixel values are whole numbers from 0 to 255"
            raise RequestError(400, text) from error
    if len(data) != shape[0]:
        _refuse(f"input {name!r} has {len(data)} elements, its shape says {shape[0]}")
    try:
        return [base64.b64decode(text, validate=True) for text in data]
    except (ValueError, TypeError, binascii.Error) as error:
        text = f"input {name!r}: image files are base64 in JSON, or send them as a binary tensor"
        raise RequestError(400, text) from error


def _flat(data: list[Any], depth: int) -> list[Any]:
    """Numbers in a row, of lists of up to so many levels."""
    for _ in range(depth - 1):
        if not all(type(entry) is list for entry in data):
            break
        data = list(itertools.chain.from_iterable(data))
    return data


def _named(given: Any, binary: bool, outputs: Sequence[str]) -> list[Wanted]:
    if given is None:
        return []
    if not isinstance(given, list) or not all(isinstance(entry, dict) for entry in given):
        _refuse("outputs: give a list of objects with a name")
    found: dict[str, Wanted] = {}
    for entry in given:
        name = _check_output(entry.get("name"), outputs)
        if name in found:
            _refuse(f"output {name!r} is asked for twice")
        parameters = _parameters(entry, f"output {name!r}")
        if parameters.get("classification"):
            _refuse(f"output {name!r}: classification is not supported; rank the values yourself")
        found[name] = Wanted(name, _flag(parameters, "binary_data", binary))
    return list(found.values())


def _check_output(name: Any, outputs: Sequence[str]) -> str:
    if not isinstance(name, str) or name not in outputs:
        _refuse(f"output {_shown(name)}: choose of {', '.join(outputs)}")
    return name


def _bytes_tensor(texts: Sequence[str]) -> bytes:
    encoded = [text.encode("utf-8", "replace") for text in texts]
    return b"".join(part for text in encoded for part in (_LENGTH.pack(len(text)), text))


def _listed(values: NDArray[np.float32]) -> str:
    """A list, row-major; JSON has no NaN and no infinity."""
    flat = values.ravel()
    slices = (flat[start : start + MANY] for start in range(0, len(flat), MANY))
    return f"[{','.join(_json(_finite(each))[1:-1] for each in slices)}]"


def _finite(values: NDArray[np.float32]) -> Sequence[float | None]:
    numbers: list[float] = values.tolist()
    if np.isfinite(values).all():
        return numbers
    return [value if math.isfinite(value) else None for value in numbers]


def _json(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _shown(value: Any) -> str:
    """A client's value in a message: short, on one line, whatever it is."""
    if isinstance(value, (list, tuple)):
        inner = ", ".join(_shown(entry) for entry in value[:5] if not isinstance(entry, list))
        return f"[{inner}{', …' if len(value) > 5 else ''}]"
    if isinstance(value, dict):
        return "an object"
    text = repr(value[:_SHOWN]) if isinstance(value, str) else str(value)
    return text if len(text) <= _SHOWN + 2 else f"{text[:_SHOWN]}…"


def _refuse(message: str) -> NoReturn:
    raise RequestError(400, message)
