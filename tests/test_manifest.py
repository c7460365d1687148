"""Reading the manifest: only whole, self-contained files of ours."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from lloss.errors import ArtifactError
from lloss.manifest import KEY, Manifest, read_manifest
from lloss.statistics.loss_distribution import LossReference


def with_manifest(source: Path, target: Path, text: str) -> Path:
    model = onnx.load(str(source))
    for prop in model.metadata_props:
        if prop.key == KEY:
            prop.value = text
    onnx.save(model, str(target))
    return target


def test_the_manifest_survives_its_own_json(artifact: Path) -> None:
    manifest = read_manifest(artifact)
    assert Manifest.from_json(manifest.to_json(), "here") == manifest


def test_a_reference_survives_too_and_older_files_have_none(artifact: Path) -> None:
    manifest = read_manifest(artifact)
    losses = np.random.default_rng(0).normal(0, 1, 300).astype(np.float32)
    noted = dataclasses.replace(manifest, reference=LossReference.of(losses, "Bilder/ä"))
    assert Manifest.from_json(noted.to_json(), "here") == noted
    fields = json.loads(manifest.to_json())
    assert fields["format"] == 1 and fields.pop("reference") is None
    assert Manifest.from_json(json.dumps(fields), "here").reference is None


@pytest.mark.parametrize(
    "reference",
    [
        3, [], {}, {"pool": "p", "images": 300, "quantiles": [1.0, 2.0]},
        {"pool": "p", "images": 300, "quantiles": [2.0] * 100 + [1.0]},
        {"pool": "p", "images": 300, "quantiles": [float("nan")] * 101},
        {"pool": "p", "images": 0, "quantiles": [1.0] * 101},
        {"pool": "p", "images": 300, "quantiles": ["x"] * 101},
        {"pool": "p", "images": float("inf"), "quantiles": [1.0] * 101},
        {"pool": "p", "images": 300, "quantiles": [10**400] * 101},
    ],
)  # fmt: skip
def test_a_damaged_reference_is_one_line(artifact: Path, reference: object) -> None:
    fields = json.loads(read_manifest(artifact).to_json())
    with pytest.raises(ArtifactError, match="its manifest is damaged"):
        Manifest.from_json(json.dumps({**fields, "reference": reference}), "here")


def test_an_infinite_size_of_images_is_one_line(artifact: Path) -> None:
    fields = json.loads(read_manifest(artifact).to_json())
    fields["image"]["height"] = float("inf")
    with pytest.raises(ArtifactError, match="its manifest is damaged"):
        Manifest.from_json(json.dumps(fields), "here")


@pytest.mark.parametrize("size", [0, 100, 5000])
def test_a_truncated_file_is_no_artifact(artifact: Path, tmp_path: Path, size: int) -> None:
    path = tmp_path / "cut.onnx"
    path.write_bytes(artifact.read_bytes()[:size])
    with pytest.raises(ArtifactError, match=r"cut\.onnx"):
        read_manifest(path)


def test_garbage_is_no_artifact(tmp_path: Path) -> None:
    path = tmp_path / "noise.onnx"
    path.write_bytes(np.random.default_rng(0).bytes(4096))
    with pytest.raises(ArtifactError, match="not a readable ONNX file|not an artifact"):
        read_manifest(path)


def test_a_missing_file_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="lloss export RUN"):
        read_manifest(tmp_path / "none.onnx")


def test_a_folder_is_no_artifact(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="is a folder; an artifact is one file"):
        read_manifest(tmp_path)


def foreign(path: Path, weight: TensorProto | None = None) -> Path:
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])
    out = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])
    nodes = [helper.make_node("Identity", ["x"], ["y"])]
    graph = helper.make_graph(nodes, "g", [value], [out], [weight] if weight else [])
    path.write_bytes(helper.make_model(graph, producer_name="some-tool").SerializeToString())
    return path


def test_an_onnx_file_of_another_tool_is_distinguished(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"made by some-tool.*no manifest"):
        read_manifest(foreign(tmp_path / "other.onnx"))


def test_weights_in_another_file_are_refused_and_not_read(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"\0" * 4)
    weight = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[1])
    weight.data_location = TensorProto.EXTERNAL
    entry = weight.external_data.add()
    entry.key, entry.value = "location", "secret"
    with pytest.raises(ArtifactError, match="'w' in another file"):
        read_manifest(foreign(tmp_path / "reaching.onnx", weight))


def test_a_later_format_asks_for_an_update(artifact: Path, tmp_path: Path) -> None:
    fields = json.loads(read_manifest(artifact).to_json())
    path = with_manifest(artifact, tmp_path / "m.onnx", json.dumps({**fields, "format": 99}))
    with pytest.raises(ArtifactError, match="format 99.*update lloss"):
        read_manifest(path)


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"format": 1}', '{"format": 1, "task": 3}'])
def test_a_damaged_manifest_is_one_line(artifact: Path, tmp_path: Path, text: str) -> None:
    with pytest.raises(ArtifactError, match="manifest"):
        read_manifest(with_manifest(artifact, tmp_path / "m.onnx", text))


def test_a_manifest_of_another_graph_is_refused(artifact: Path, tmp_path: Path) -> None:
    fields = json.loads(read_manifest(artifact).to_json())
    fields["outputs"] = {"loss": [], "extra": []}
    path = with_manifest(artifact, tmp_path / "m.onnx", json.dumps(fields))
    with pytest.raises(ArtifactError, match="not its manifest's"):
        read_manifest(path)
