"""Read the manifest: only of whole, self-contained files of ours."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from lloss.errors import ModelFileError
from lloss.manifest import KEY, Manifest, read_manifest
from lloss.statistics.loss_distribution import LossReference


def with_manifest(source: Path, target: Path, text: str) -> Path:
    model = onnx.load(str(source))
    for prop in model.metadata_props:
        if prop.key == KEY:
            prop.value = text
    onnx.save(model, str(target))
    return target


def test_the_manifest_survives_its_own_json(onnx_file: Path) -> None:
    manifest = read_manifest(onnx_file)
    assert Manifest.from_json(manifest.to_json(), "here") == manifest
    losses = np.random.default_rng(0).normal(0, 1, 300).astype(np.float32)
    noted = dataclasses.replace(manifest, reference=LossReference.of(losses, "Bilder/ä"))
    assert Manifest.from_json(noted.to_json(), "here") == noted
    fields = json.loads(manifest.to_json())  # older files have no reference
    assert fields["format"] == 1 and fields.pop("reference") is None
    assert Manifest.from_json(json.dumps(fields), "here").reference is None


REFERENCE: dict[str, Any] = {"pool": "p", "images": 300, "quantiles": [1.0] * 101}


@pytest.mark.parametrize(
    "change",
    [
        *({"reference": value} for value in (3, [], {})),
        *({"reference": {**REFERENCE, "quantiles": value}} for value in
          ([1.0, 2.0], [2.0] * 100 + [1.0], [float("nan")] * 101, ["x"] * 101, [10**400] * 101)),
        *({"reference": {**REFERENCE, "images": value}} for value in (0, float("inf"))),
        {"image": {"height": float("inf"), "width": 8, "fit": "crop"}},
    ],
)  # fmt: skip
def test_a_damaged_field_is_one_line(onnx_file: Path, change: dict[str, Any]) -> None:
    fields = json.loads(read_manifest(onnx_file).to_json())
    with pytest.raises(ModelFileError, match="its manifest is damaged"):
        Manifest.from_json(json.dumps({**fields, **change}), "here")


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"format": 1}', '{"format": 1, "task": 3}'])
def test_a_damaged_manifest_is_one_line(text: str) -> None:
    with pytest.raises(ModelFileError, match="manifest"):
        Manifest.from_json(text, "here")


def foreign(path: Path, weight: TensorProto | None = None) -> Path:
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])
    out = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])
    nodes = [helper.make_node("Identity", ["x"], ["y"])]
    graph = helper.make_graph(nodes, "g", [value], [out], [weight] if weight else [])
    path.write_bytes(helper.make_model(graph, producer_name="some-tool").SerializeToString())
    return path


def test_a_file_that_is_not_a_model_is_refused(onnx_file: Path, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    for content in (*(onnx_file.read_bytes()[:size] for size in (0, 100, 5000)),
                    np.random.default_rng(0).bytes(4096)):  # fmt: skip
        path.write_bytes(content)
        reason = r"model\.onnx: not (a readable ONNX file|a model of lloss)"
        with pytest.raises(ModelFileError, match=reason):
            read_manifest(path)
    for other, reason in (
        (tmp_path / "none.onnx", "no such file; make it with lloss export RUN"),
        (tmp_path, "is a folder; a model is one file"),
        (foreign(path), r"made by some-tool.*no manifest"),
    ):
        with pytest.raises(ModelFileError, match=reason):
            read_manifest(other)


def test_weights_in_another_file_are_refused_and_not_read(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"\0" * 4)
    weight = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[1])
    weight.data_location = TensorProto.EXTERNAL
    entry = weight.external_data.add()
    entry.key, entry.value = "location", "secret"
    with pytest.raises(ModelFileError, match="'w' in another file"):
        read_manifest(foreign(tmp_path / "reaching.onnx", weight))


def test_a_grey_border_needs_a_version_that_knows_it(onnx_file: Path) -> None:
    manifest = read_manifest(onnx_file)
    grey = dataclasses.replace(manifest, image=dataclasses.replace(manifest.image, fill=114))
    assert [json.loads(m.to_json())["format"] for m in (manifest, grey)] == [1, 2]
    assert Manifest.from_json(grey.to_json(), "m.onnx").image.fill == 114
    for how in ({"share": 0.875}, {"resample": "bicubic", "fill": 0}):
        other = dataclasses.replace(manifest, image=dataclasses.replace(manifest.image, **how))
        assert json.loads(other.to_json())["format"] == 3
        assert Manifest.from_json(other.to_json(), "m.onnx") == other


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"format": 99}, "format 99.*update lloss"),
        ({"outputs": {"loss": [], "extra": []}}, "not its manifest's"),
    ],
)
def test_a_manifest_of_another_format_or_graph_is_refused(
    onnx_file: Path, tmp_path: Path, change: dict[str, Any], reason: str
) -> None:
    fields = json.loads(read_manifest(onnx_file).to_json())
    path = with_manifest(onnx_file, tmp_path / "m.onnx", json.dumps({**fields, **change}))
    with pytest.raises(ModelFileError, match=reason):
        read_manifest(path)
