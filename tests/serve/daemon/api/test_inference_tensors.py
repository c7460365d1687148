"""Any body becomes a request or a refusal; replies have the layout that Triton's clients read."""

from __future__ import annotations

import json
import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from lloss.serve.daemon.api.inference_tensors import (
    MANY,
    MAX_JSON,
    encode_reply,
    is_long,
    parse_request,
)
from lloss.serve.daemon.errors import RequestError
from lloss.serve.daemon.services.request_queue import Answer

OUTPUTS = ["loss", "embedding", "error"]
MOST = 100


def parsed(body: bytes, length: str | None = None) -> Any:
    """The request, or None where it was refused; any other exception fails the test."""
    try:
        request = parse_request(body, length, MOST)
    except RequestError as error:
        assert error.status in (400, 413)
        assert "\n" not in str(error) and 0 < len(str(error)) < 500
        str(error).encode()
        return None
    assert 1 <= len(request.images) <= MOST
    if isinstance(request.images, np.ndarray):
        assert request.images.dtype == np.uint8 and request.images.shape[3] == 3
        assert request.images.nbytes <= len(body)
    else:
        assert sum(map(len, request.images)) <= len(body)
    assert request.seconds is None or 0 < request.seconds <= 1e9
    return request


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=60), st.one_of(st.none(), st.text(max_size=6), st.integers(0, 70)))
def test_any_bytes(body: bytes, length: Any) -> None:
    assert parsed(body, str(length) if isinstance(length, int) else length) is None


elements = st.lists(
    st.tuples(st.one_of(st.integers(0, 2**32 - 1), st.integers(0, 9)), st.binary(max_size=9)),
    max_size=4,
)


@settings(max_examples=300, deadline=None)
@given(elements, st.binary(max_size=5), st.integers(-1, 6), st.integers(-2, 2))
def test_elements_of_any_length(
    parts: list[tuple[int, bytes]], tail: bytes, count: int, off: int
) -> None:
    content = b"".join(struct.pack("<I", length) + data for length, data in parts) + tail
    request = parsed(*body_of("encoded", "BYTES", [count], content, len(content) + off))
    sound = not tail and not off and all(length == len(data) for length, data in parts)
    if sound and count == len(parts) and parts:
        assert request.images == [data for _, data in parts]
    if off:
        assert request is None


@settings(max_examples=200, deadline=None)
@example([1, 10**4000, 10**4000, 3], b"abc")
@given(
    st.lists(st.one_of(st.integers(-2, 4), st.integers()), min_size=3, max_size=5),
    st.binary(max_size=50),
)
def test_pixels_of_any_shape(shape: list[int], content: bytes) -> None:
    request = parsed(*body_of("images", "UINT8", shape, content))
    sound = len(shape) == 4 and shape[3] == 3 and min(shape) > 0
    volume = int(np.prod([int(side) for side in shape], dtype=object))
    assert (request is not None) == (sound and volume == len(content) and shape[0] <= MOST)
    if request is not None:
        assert request.images.tobytes() == content and list(request.images.shape) == shape


def body_of(
    name: str, datatype: str, shape: list[int], content: bytes, size: Any = None, **more: Any
) -> tuple[bytes, str]:
    size = len(content) if size is None else size
    tensor = {"name": name, "datatype": datatype, "shape": shape}
    tensor["parameters"] = {"binary_data_size": size}
    head = json.dumps({"inputs": [tensor], **more}).encode()
    return head + content, str(len(head))


def refused(body: bytes, length: str | None = None) -> str:
    with pytest.raises(RequestError) as caught:
        parse_request(body, length, MOST).formats(OUTPUTS)
    assert caught.value.status == (413 if "give at most" in str(caught.value) else 400)
    return str(caught.value)


def json_body(**changes: Any) -> bytes:
    tensor = {"name": "images", "datatype": "UINT8", "shape": [1, 1, 1, 3], "data": [1, 2, 3]}
    return json.dumps({"inputs": [{**tensor, **changes}]}).encode()


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"datatype": "FP32"}, "inputs.0.images.datatype: Input should be 'UINT8' (given 'FP32')"),
        ({"name": "pixels"}, "'pixels' found using 'name' does not match any of the expected tags"),
        ({"shape": [1, 1, 3]}, "shape.3: Field required"),
        ({"shape": [1, 1, 1, 4]}, "shape.3: Input should be 3 (given 4)"),
        ({"shape": [1, 2**30, 2**30, 3]}, "3 pixel values"),
        ({"shape": [1, 2**40, 1, 3]}, "shape.1: Input should be less than 2147483648"),
        ({"data": [1, 2, 256]}, "0 to 255"),
        ({"data": None}, "give a list as data, or binary_data_size"),
        ({"data": [[1, 2], 3]}, "0 to 255"),
        ({"name": "encoded", "datatype": "BYTES", "shape": [1], "data": ["§"]}, "valid base64"),
        ({"parameters": {"binary_data_size": 3}}, "binary_data_size"),
        ({"parameters": {"shared_memory_region": "x"}}, "shared memory is not supported"),
        ({"shape": [101, 1, 1, 3]}, "101 images in one request: give at most 100"),
    ],
)
def test_wrong_tensors_are_refused(changes: dict[str, Any], reason: str) -> None:
    assert reason in refused(json_body(**changes))


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"outputs": [{"name": "x"}]}, "output 'x': choose of loss"),
        ({"outputs": [{"name": "loss"}, {"name": "loss"}]}, "twice"),
        ({"outputs": [{"name": "loss", "parameters": {"classification": 2}}]}, "rank the values"),
        ({"outputs": {}}, "outputs: Input should be a valid array"),
        ({"id": 7}, "id: Input should be a valid string (given 7)"),
        ({"parameters": {"timeout": -1}}, "timeout: Input should be greater than or equal to 0"),
        ({"parameters": {"binary_data_output": 1}}, "a valid boolean (given 1)"),
        ({"inputs": [{}, {}]}, "inputs"),
    ],
)
def test_wrong_requests_are_refused(fields: dict[str, Any], reason: str) -> None:
    assert reason in refused(json.dumps({**json.loads(json_body()), **fields}).encode())


@pytest.mark.parametrize("length", ["-1", "+1", "1_0", "99999", "x", "", "1" * 5000, "²"])
def test_the_length_of_the_json_is_checked(length: str) -> None:
    refused(json_body(), length)


NOT_JSON = (b"", b"{", b"null", b"[1]", b"\xff\xfe", b'{"inputs": NaN}', b"[" * 100_000,
            b'{"a":' * 100_000, b'{"inputs": 1' + b"0" * 10_000 + b"}")  # fmt: skip


@pytest.mark.parametrize("raw", NOT_JSON)
def test_a_body_that_is_not_json_is_refused(raw: bytes) -> None:
    assert "\n" not in refused(raw)
    assert "binary tensors" in refused(b"[" * (MAX_JSON + 1))


def test_the_lengths_of_binary_files_are_checked() -> None:
    def reason(tail: bytes, count: int = 1, size: Any = None) -> str:
        return refused(*body_of("encoded", "BYTES", [count], tail, size))

    assert "3 bytes, 2 follow" in reason(struct.pack("<I", 3) + b"ab")
    assert "4294967295 bytes" in reason(struct.pack("<I", 2**32 - 1))
    assert "1 bytes after the last" in reason(struct.pack("<I", 0) + b"a")
    assert "element 1 of 2 is missing" in reason(struct.pack("<I", 4) + b"abcd" + b"x", 2)
    assert "element 2 of 9 is missing" in reason(b"\0" * 8, 9)
    assert "binary_data_size 7, but 4 bytes follow" in reason(b"\0" * 4, 1, 7)
    for size in (-1, 2**70):
        assert "binary_data_size: Input should be" in reason(b"\0" * 4, 1, size)


def test_binary_pixels_are_not_copied() -> None:
    body, length = body_of("images", "UINT8", [2, 2, 2, 3], bytes(range(24)))
    assert np.shares_memory(parsed(body, length).images, np.frombuffer(body, np.uint8))


def test_a_request_names_its_outputs_or_gets_all() -> None:
    pixels: tuple[Any, ...] = ("images", "UINT8", [1, 1, 1, 3], b"abc")
    outputs = [{"name": "error"}, {"name": "loss", "parameters": {"binary_data": False}}]
    options = {"binary_data_output": True, "timeout": 1500}
    request = parsed(*body_of(*pixels, parameters=options, outputs=outputs))
    assert list(request.formats(OUTPUTS).items()) == [("error", True), ("loss", False)]
    with pytest.raises(RequestError, match="output 'error': choose of loss"):
        request.formats(["loss"])
    assert request.seconds == 0.0015
    plain = parsed(*body_of(*pixels))
    assert list(plain.formats(OUTPUTS)) == OUTPUTS
    assert plain.formats(["loss"]) == {"loss": False}
    assert plain.seconds is None


def test_a_reply_has_json_then_binary_tensors() -> None:
    outputs = [
        {"name": "loss", "parameters": {"binary_data": True}},
        {"name": "embedding"},
        {"name": "error", "parameters": {"binary_data": True}},
    ]
    body = body_of("images", "UINT8", [2, 1, 1, 3], b"abcdef", id="é\n", outputs=outputs)
    request = parsed(*body)
    columns = {
        "loss": np.array([1.5, np.nan], np.float32),
        "embedding": np.array([[1, 2], [np.inf, 3]], np.float32),
    }
    answer = Answer(columns, {1: "bad é"})
    content, length = encode_reply(request, request.formats(OUTPUTS), answer, "lloss", "1")
    reply = json.loads(content[:length])
    assert reply["id"] == "é\n"
    loss, embedding, error = reply["outputs"]
    head = {"name": "embedding", "datatype": "FP32", "shape": [2, 2]}
    assert embedding == {**head, "data": [1, 2, None, 3]}
    assert loss["parameters"] == {"binary_data_size": 8}
    assert error["parameters"] == {"binary_data_size": 4 + 4 + 6}
    tail = content[length:]
    assert tail[:8] == columns["loss"].tobytes()
    assert tail[8:] == struct.pack("<II", 0, 6) + "bad é".encode()


def test_many_numbers_keep_their_values_and_order() -> None:
    request = parsed(*body_of("images", "UINT8", [9, 1, 1, 3], bytes(27)))
    values = np.random.default_rng(0).normal(0, 1, (9, MANY)).astype(np.float32)
    values[1, 7], values[2, -1] = np.nan, np.inf
    formats = {"embedding": False, "loss": False}
    answer = Answer({"embedding": values, "loss": values[:, 0]}, {})
    assert is_long(formats, answer) and not is_long({"loss": False}, answer)
    content, _ = encode_reply(request, formats, answer, "lloss", "1")
    embedding, loss = json.loads(content)["outputs"]
    flat = values.ravel().tolist()
    assert embedding["data"] == [value if np.isfinite(value) else None for value in flat]
    assert embedding["shape"] == [9, MANY] and loss["data"] == values[:, 0].tolist()
