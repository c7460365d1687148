"""The parser of requests meets anything, and answers with a request or a refusal."""

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
    OutputFormat,
    encode_reply,
    is_long,
    parse_request,
)
from lloss.serve.daemon.errors import RequestError
from lloss.serve.daemon.services.batch_parts import Answer

OUTPUTS = ["loss", "embedding", "error"]
MOST = 100


def parsed(body: bytes, length: str | None = None) -> Any:
    """The request, or None where it was refused; any other exception fails the test."""
    try:
        request = parse_request(body, length, OUTPUTS, MOST)
    except RequestError as error:
        assert error.status in (400, 413)
        assert "\n" not in str(error) and 0 < len(str(error)) < 500
        str(error).encode()
        return None
    count = len(request.images)
    assert 1 <= count <= MOST and {each.name for each in request.formats(OUTPUTS)} <= set(OUTPUTS)
    if isinstance(request.images, np.ndarray):
        assert request.images.dtype == np.uint8 and request.images.shape[3] == 3
        assert request.images.nbytes <= len(body)
    else:
        assert sum(map(len, request.images)) <= len(body)
    assert request.seconds is None or 0 < request.seconds <= 1e9
    return request


huge = st.sampled_from([10**4000, -(10**4000), 10**4300 - 1, 10**2200])
"""As many digits as JSON is read with, and nearly; their products have more."""

odd = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(-3, 12),
    st.sampled_from([2**31, 2**32, 2**63, 2**64, 2**70, -(2**63)]),
    huge,
    st.floats(allow_nan=True),
    st.text(max_size=8),
    st.sampled_from(["images", "encoded", "loss", "error", "UINT8", "BYTES", "AAAA", "\ud800"]),
    st.lists(st.integers(-1, 300), max_size=6),
    st.lists(st.one_of(st.text(max_size=6), st.none(), st.lists(st.integers())), max_size=4),
    st.dictionaries(st.sampled_from(["name", "binary_data", "shape"]), st.integers(), max_size=2),
)
shapes = st.one_of(
    odd, st.lists(st.one_of(st.integers(0, 3), odd), min_size=1, max_size=5), st.just([1, 1, 1, 3])
)
parameters = st.one_of(
    odd,
    st.dictionaries(
        st.sampled_from(
            ["binary_data_size", "binary_data", "binary_data_output", "timeout", "classification"]
        ),
        odd,
        max_size=3,
    ),
)
inputs = st.one_of(
    odd,
    st.fixed_dictionaries(
        {"name": st.sampled_from(["images", "encoded"])},
        optional={
            "datatype": st.one_of(st.sampled_from(["UINT8", "BYTES"]), odd),
            "shape": shapes,
            "data": odd,
            "parameters": parameters,
        },
    ),
)
requests = st.fixed_dictionaries(
    {"inputs": st.one_of(st.lists(inputs, max_size=3), odd)},
    optional={
        "outputs": st.one_of(
            st.lists(st.fixed_dictionaries({"name": odd}, optional={"parameters": parameters})),
            odd,
        ),
        "parameters": parameters,
        "id": odd,
    },
)


@settings(max_examples=400, deadline=None)
@given(requests, st.binary(max_size=40), st.one_of(st.none(), st.integers(-5, 5), st.text()))
def test_any_json_with_any_tail(request: Any, tail: bytes, off: Any) -> None:
    head = json.dumps(request).encode()
    length = str(len(head) + off) if isinstance(off, int) else off
    parsed(head + tail, length)


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
    st.lists(st.one_of(st.integers(-2, 4), st.integers(), huge), min_size=3, max_size=5),
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
    name: str, datatype: str, shape: list[int], content: bytes, size: int | None = None, **more: Any
) -> tuple[bytes, str]:
    size = len(content) if size is None else size
    tensor = {"name": name, "datatype": datatype, "shape": shape}
    tensor["parameters"] = {"binary_data_size": size}
    head = json.dumps({"inputs": [tensor], **more}).encode()
    return head + content, str(len(head))


def test_binary_pixels_are_not_copied() -> None:
    body, length = body_of("images", "UINT8", [2, 2, 2, 3], bytes(range(24)))
    request = parsed(body, length)
    assert np.shares_memory(request.images, np.frombuffer(body, np.uint8))


def test_long_json_is_not_parsed() -> None:
    with pytest.raises(RequestError, match="binary tensors") as refused:
        parse_request(b"[" * (MAX_JSON + 1), None, OUTPUTS, MOST)
    assert refused.value.status == 413


def test_the_outputs_default_to_all_and_say_how_they_come() -> None:
    body, length = body_of(
        "images",
        "UINT8",
        [1, 1, 1, 3],
        b"abc",
        parameters={"binary_data_output": True, "timeout": 1500},
        outputs=[{"name": "error"}, {"name": "loss", "parameters": {"binary_data": False}}],
    )
    request = parsed(body, length)
    assert request.formats(OUTPUTS) == [OutputFormat("error", True), OutputFormat("loss", False)]
    with pytest.raises(RequestError, match="output 'error': choose of loss"):
        request.formats(["loss"])
    assert request.seconds == 0.0015
    plain = parsed(*body_of("images", "UINT8", [1, 1, 1, 3], b"abc"))
    assert plain.formats(OUTPUTS) == [OutputFormat(name, False) for name in OUTPUTS]
    assert plain.formats(["loss"]) == [OutputFormat("loss", False)]
    assert plain.seconds is None


def test_a_reply_lies_as_triton_lays_it() -> None:
    request = parsed(
        *body_of(
            "images",
            "UINT8",
            [2, 1, 1, 3],
            b"abcdef",
            id="\ud800é",
            outputs=[
                {"name": "loss", "parameters": {"binary_data": True}},
                {"name": "embedding"},
                {"name": "error", "parameters": {"binary_data": True}},
            ],
        )
    )
    columns = {
        "loss": np.array([1.5, np.nan], np.float32),
        "embedding": np.array([[1, 2], [np.inf, 3]], np.float32),
    }
    answer = Answer(columns, {1: "bad é"})
    content, length = encode_reply(request, request.formats(OUTPUTS), answer, "lloss", "1")
    told = json.loads(content[:length])
    assert told["id"] == "\ud800é"
    loss, embedding, error = told["outputs"]
    assert embedding == {
        "name": "embedding",
        "datatype": "FP32",
        "shape": [2, 2],
        "data": [1, 2, None, 3],
    }
    assert loss["parameters"] == {"binary_data_size": 8}
    assert error["parameters"] == {"binary_data_size": 4 + 4 + 6}
    tail = content[length:]
    assert tail[:8] == columns["loss"].tobytes()
    assert tail[8:] == struct.pack("<II", 0, 6) + "bad é".encode()


def test_numbers_are_told_so_many_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    request = parsed(*body_of("images", "UINT8", [3, 1, 1, 3], bytes(9)))
    values = np.random.default_rng(0).normal(0, 1, (3, MANY)).astype(np.float32)
    values[1, 7], values[2, -1] = np.nan, np.inf
    real, sizes = json.dumps, list[int]()

    def dumps(value: Any, **given: Any) -> str:
        sizes.append(len(value))
        return real(value, **given)

    monkeypatch.setattr(json, "dumps", dumps)
    wanted = [OutputFormat("embedding", False), OutputFormat("loss", False)]
    answer = Answer({"embedding": values, "loss": values[:, 0]}, {})
    assert is_long(wanted, answer) and not is_long(wanted[1:], answer)
    assert not is_long([OutputFormat("embedding", True)], answer)
    content, _ = encode_reply(request, wanted, answer, "lloss", "1")
    embedding, loss = json.loads(content)["outputs"]
    flat = values.ravel().tolist()
    assert embedding["data"] == [value if np.isfinite(value) else None for value in flat]
    assert embedding["shape"] == [3, MANY] and loss["data"] == values[:, 0].tolist()
    assert sizes.count(MANY) == 3 and max(sizes) == MANY
