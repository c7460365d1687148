"""The Open Inference Protocol, spoken by NVIDIA's client."""

from __future__ import annotations

import base64
import copy
import dataclasses
import re
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import tritonclient.http as triton
from lloss.serve.daemon.api import inference, inference_tensors
from lloss.serve.daemon.services.model_manager import Scored
from lloss.serve.daemon.services.request_queue import Answer
from tritonclient.utils import InferenceServerException

from lloss import Scorer

from ....waiting import PATIENCE
from ...scoring.fakes import pictures

MODEL = "lloss"


@pytest.fixture(scope="module")
def scorer(onnx_file: Any) -> Any:
    with Scorer(onnx_file, "cpu", batch_size=8) as made:
        yield made


@pytest.fixture
def client(served: Any) -> Any:
    with triton.InferenceServerClient(served.url, concurrency=8, network_timeout=PATIENCE) as made:
        yield made


def tensor(images: np.ndarray, binary: bool = True) -> triton.InferInput:
    made = triton.InferInput("images", list(images.shape), "UINT8")
    return made.set_data_from_numpy(images, binary_data=binary)


def files(contents: list[bytes]) -> triton.InferInput:
    made = triton.InferInput("encoded", [len(contents)], "BYTES")
    return made.set_data_from_numpy(np.array(contents, dtype=np.object_))


def assert_same(result: Any, wanted: Any, names: list[str]) -> None:
    for name in names:
        found = result.as_numpy(name)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, wanted.columns[name], rtol=1e-4, atol=1e-5)


def test_the_server_describes_itself_and_its_model(client: Any, served: Any) -> None:
    assert client.is_server_live() and client.is_server_ready()
    assert client.get_server_metadata()["name"] == "lloss"
    assert client.get_server_metadata()["extensions"] == ["binary_tensor_data"]
    assert client.is_model_ready(MODEL) and client.is_model_ready(MODEL, "1")
    assert not client.is_model_ready("other") and not client.is_model_ready(MODEL, "2")
    reply = client.get_model_metadata(MODEL)
    assert (reply["name"], reply["versions"]) == ("lloss", ["1"])
    assert reply == client.get_model_metadata(MODEL, "1")
    assert {t["name"]: (t["datatype"], t["shape"]) for t in reply["inputs"]} == {
        "images": ("UINT8", [-1, -1, -1, 3]),
        "encoded": ("BYTES", [-1]),
    }
    outputs = {t["name"]: (t["datatype"], t["shape"]) for t in reply["outputs"]}
    for name, shape in served.models.current.manifest.outputs.items():
        assert outputs.pop(name) == ("FP32", [-1, *shape])
    assert outputs == {"error": ("BYTES", [-1])}


def test_the_lines_of_the_guide_run(served: Any, capsys: pytest.CaptureFixture[str]) -> None:
    guide = (Path(__file__).parents[4] / "serve" / "README.md").read_text(encoding="utf-8")
    (lines,) = re.findall(r"```python\n(.*?)```", guide, re.DOTALL)
    assert "127.0.0.1:8000" in lines
    exec(lines.replace("127.0.0.1:8000", served.url), {})
    assert len(capsys.readouterr().out.strip("[]\n").split()) == 4


@pytest.mark.parametrize("binary_in", [True, False])
@pytest.mark.parametrize("binary_out", [True, False])
def test_pixels_in_json_and_binary(
    client: Any, scorer: Scorer, binary_in: bool, binary_out: bool
) -> None:
    images = pictures(5)
    wanted = [
        triton.InferRequestedOutput(name, binary_data=binary_out) for name in ("embedding", "loss")
    ]
    result = client.infer(MODEL, [tensor(images, binary_in)], outputs=wanted, request_id="a b")
    reply = result.get_response()
    assert [output["name"] for output in reply["outputs"]] == ["embedding", "loss"]
    assert (reply["id"], reply["model_name"], reply["model_version"]) == ("a b", "lloss", "1")
    assert_same(result, scorer.score(images), ["embedding", "loss"])


def test_all_outputs_are_the_default(client: Any, scorer: Scorer, served: Any) -> None:
    images = pictures(3)
    result = client.infer(MODEL, [tensor(images)], model_version="1")
    assert_same(result, scorer.score(images), list(served.models.current.manifest.outputs))
    packed = client.infer(MODEL, [tensor(images)], response_compression_algorithm="gzip")
    assert_same(packed, scorer.score(images), ["loss"])  # not compressed, as a client must accept
    with pytest.raises(InferenceServerException, match="uncompressed") as failed:
        client.infer(MODEL, [tensor(images)], request_compression_algorithm="gzip")
    assert failed.value.status() == "415"
    assert result.as_numpy("error").tolist() == [b""] * 3


@pytest.mark.parametrize("binary", [True, False])
def test_a_bad_image_fails_alone(
    client: Any, scorer: Scorer, encoded: Callable[..., bytes], binary: bool
) -> None:
    good = [encoded(image) for image in pictures(2)]
    bomb = encoded(np.zeros((200, 200, 3), np.uint8))  # over image_pixels
    outputs = [triton.InferRequestedOutput(n, binary_data=binary) for n in ("loss", "error")]
    result = client.infer(
        MODEL, [files([good[0], b"no image", good[1], b"", bomb])], outputs=outputs
    )
    loss = result.as_numpy("loss")
    np.testing.assert_allclose(loss[[0, 2]], scorer.score(good).loss, rtol=1e-4)
    assert np.isnan(loss[[1, 3, 4]]).all()
    errors = [t.decode() if isinstance(t, bytes) else t for t in result.as_numpy("error")]
    assert errors[0] == errors[2] == ""
    assert "known format" in errors[1] and "empty" in errors[3]
    assert "200×200 pixels, over the limit of 10000" in errors[4]
    with pytest.raises(InferenceServerException, match="no image could be used") as failed:
        client.infer(MODEL, [files([b"x", b""])])
    assert failed.value.status() == "422"


def post(served: Any, body: Any) -> httpx.Response:
    url = f"http://{served.url}/v2/models/lloss/infer"
    return httpx.post(url, json=body, timeout=PATIENCE)


def outputs_of(reply: httpx.Response) -> dict[str, Any]:
    assert reply.status_code == 200, reply.text
    return {output["name"]: output["data"] for output in reply.json()["outputs"]}


def asked(**changes: Any) -> dict[str, Any]:
    given = {"name": "images", "datatype": "UINT8", "shape": [1, 1, 1, 3], "data": [1, 2, 3]}
    return {"inputs": [{**given, **changes}]}


def test_files_are_base64_in_json_and_pixels_may_be_nested(
    served: Any, scorer: Scorer, encoded: Callable[..., bytes]
) -> None:
    images = pictures(2)
    text = [base64.b64encode(encoded(image)).decode() for image in images]
    for request in (
        asked(name="encoded", datatype="BYTES", shape=[2], data=text),
        asked(shape=[2, 8, 8, 3], data=images.tolist()),
    ):
        reply = post(served, request)
        assert reply.headers["content-type"] == "application/json"
        outputs = outputs_of(reply)
        np.testing.assert_allclose(outputs["loss"], scorer.score(images).loss, rtol=1e-4)
        assert outputs["error"] == ["", ""]
        assert reply.headers["x-lloss-model"] == served.models.sha256


def test_a_model_loaded_during_a_request_replies_with_its_own_outputs(
    served: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    score = served.models.score

    async def by_another(*given: Any) -> Scored:
        """Score by a model without embedding."""
        scored = await score(*given)
        model, columns = copy.copy(scored.model), dict(scored.answer.columns)
        outputs = dict(model.manifest.outputs)
        del columns["embedding"], outputs["embedding"]
        model.sha256 = "ab" * 32
        model.manifest = dataclasses.replace(model.manifest, outputs=outputs)
        return Scored(Answer(columns, {}), model)

    monkeypatch.setattr(served.models, "score", by_another)
    reply = post(served, asked())
    assert reply.headers["x-lloss-model"] == "ab" * 32
    assert "loss" in outputs_of(reply) and "embedding" not in outputs_of(reply)
    reply = post(served, {**asked(), "outputs": [{"name": "embedding"}]})
    assert reply.status_code == 400 and "'embedding': choose of loss" in reply.json()["error"]


def test_long_replies_are_encoded_in_a_thread(served: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    threads: list[threading.Thread] = []
    encode = inference.encode_reply

    def noted(*given: Any) -> Any:
        threads.append(threading.current_thread())
        return encode(*given)

    monkeypatch.setattr(inference_tensors, "MANY", 4096)
    monkeypatch.setattr(inference, "encode_reply", noted)
    for count in (1, 64):  # 128 numbers each
        reply = post(served, asked(shape=[count, 1, 1, 3], data=[0] * 3 * count))
        assert len(outputs_of(reply)["embedding"]) == 128 * count
    loop = served.running.thread
    assert [thread is loop for thread in threads] == [True, False]


def test_the_timeout_is_in_microseconds(client: Any, served: Any) -> None:
    with served.held(), pytest.raises(InferenceServerException, match=r"within 0\.05 s") as late:
        client.infer(MODEL, [tensor(pictures(1))], timeout=50_000)
    assert late.value.status() == "504"
    client.infer(MODEL, [tensor(pictures(1))], timeout=10_000_000)
