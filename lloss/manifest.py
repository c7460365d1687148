"""The manifest inside ``model.onnx``: what a scorer and its user must know of it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from lloss.errors import ModelFileError
from lloss.images.decode import ImageSpec
from lloss.statistics.loss_distribution import LossReference
from lloss.statistics.loss_unit import LossUnit

KEY = "lloss.manifest"
FORMATS = 1, 2, 3
"""Formats that are read; 2 has a grey other than black around the image, which 1 did not know; 3
another filter, or less of the middle."""
INPUT = "images"
EMBEDDING = "embedding"
PRETRAINED_EMBEDDING = "pretrained_embedding"
"""Outputs to spread a selection by: features of the trained network, and of the one before."""

PRECISIONS = ("fp32", "fp16", "int8")
"""Precisions of the network; the head and the outputs are float32 in each."""


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What an exported model is.

    The graph's input is ``images``, uint8 [N, H, W, 3] with any N; normalisation is inside. Its
    outputs are float32 with a leading N.
    """

    task: str
    model: str  # the network's name
    classes: tuple[str, ...]  # their names; ``prediction`` is an index into them
    image: ImageSpec
    mean: tuple[float, ...]  # of the normalisation inside, for the record
    std: tuple[float, ...]
    outputs: Mapping[str, tuple[int, ...]]  # each one's shape after N; ``loss`` is among them
    precision: str = "fp32"  # of the network; head and outputs are fp32
    # Largest differences of the fp32 graph from torch (``torch_parity``), and of a reduced graph
    # from that (``fp32``), on the ``provider`` named there
    fidelity: Mapping[str, Any] = field(default_factory=dict)
    # Of int8: the calibration, the layers left in fp32, and what that reached on ``tuning`` images
    recipe: Mapping[str, Any] = field(default_factory=dict)
    # Of int8: images per second compared with the fp32 graph's, and on which processor
    speed: Mapping[str, Any] = field(default_factory=dict)
    # sha256 of the checkpoint, training settings, labels, versions
    provenance: Mapping[str, Any] = field(default_factory=dict)
    reference: LossReference | None = None  # predicted loss on a pool given at export
    # Of the output ``loss``, which is above 0; None in files of earlier versions: in no unit, and
    # of either sign
    unit: LossUnit | None = None

    def to_json(self) -> str:
        """One JSON object, for the file's metadata."""
        plain = self.image.share == 1 and self.image.resample == "bilinear"
        version = (2 if self.image.fill else 1) if plain else 3
        return json.dumps({"format": version, **msgspec.to_builtins(self)}, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str, where: str) -> Manifest:
        """Parse :meth:`to_json`; ModelFileError for other text or a later format."""
        try:
            fields = json.loads(text)
            version = fields.pop("format")
            if version not in FORMATS:
                raise ModelFileError(
                    f"{where}: its manifest is of format {version}, this lloss reads {FORMATS}; "
                    "update lloss or export again"
                )
            return msgspec.convert(fields, cls)
        except (KeyError, TypeError, ValueError, AttributeError, msgspec.MsgspecError) as error:
            raise ModelFileError(f"{where}: its manifest is damaged: export again") from error


def class_name(classes: Sequence[str], prediction: float | None) -> str:
    """The class of an output ``prediction``; "" where it is not an index."""
    if prediction is None or not 0 <= prediction < len(classes):
        return ""
    return classes[int(prediction)]


def read_manifest(path: str | Path) -> Manifest:
    """Read the manifest of an exported model, and check that the file is whole and self-contained.

    ModelFileError for any other file, and for a graph that is not the manifest's.
    """
    import onnx  # half a second, and not everybody who imports this reads a model

    path = Path(path)
    if path.is_dir():
        raise ModelFileError(f"{path}: is a folder; a model is one file, such as model.onnx")
    if not path.is_file():
        raise ModelFileError(f"{path}: no such file; make it with lloss export RUN -o {path}")
    try:
        # Without external data: a file may name others on this machine, and must not reach them.
        model = onnx.load(str(path), load_external_data=False)
    except Exception as error:  # protobuf fails in its own ways
        raise ModelFileError(f"{path}: not a readable ONNX file; export it again") from error
    _refuse_external_data(model, path)
    metadata = {prop.key: prop.value for prop in model.metadata_props}
    if KEY not in metadata:
        maker = f" (made by {model.producer_name})" if model.producer_name else ""
        raise ModelFileError(
            f"{path}: not a model of lloss{maker}: it has no manifest; use lloss export"
        )
    manifest = Manifest.from_json(metadata[KEY], str(path))
    _check_interface(model, manifest, path)
    return manifest


def _refuse_external_data(model: Any, path: Path) -> None:
    for tensor in _tensors(model.graph):
        if tensor.data_location == tensor.EXTERNAL or tensor.external_data:
            raise ModelFileError(
                f"{path}: keeps the weights {tensor.name!r} in another file; a model is one "
                "self-contained file: use lloss export"
            )


def _tensors(graph: Any) -> Any:
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    for node in graph.node:
        for attribute in node.attribute:
            yield from (*attribute.tensors, *([attribute.t] if attribute.HasField("t") else ()))
            for inner in (*attribute.graphs, *([attribute.g] if attribute.HasField("g") else ())):
                yield from _tensors(inner)


def _check_interface(model: Any, manifest: Manifest, path: Path) -> None:
    inputs, outputs = [i.name for i in model.graph.input], [o.name for o in model.graph.output]
    height, width = manifest.image.height, manifest.image.width
    shapes = {INPUT: (height, width, 3), **manifest.outputs}
    found = {v.name: _trailing(v) for v in (*model.graph.input, *model.graph.output)}
    if (
        found != shapes
        or inputs != [INPUT]
        or outputs != list(manifest.outputs)
        or "loss" not in outputs
    ):
        raise ModelFileError(
            f"{path}: its graph has the tensors {found}, which are not its manifest's; "
            "export it again"
        )


def _trailing(value: Any) -> tuple[int, ...]:
    """The shape after N."""
    return tuple(dim.dim_value for dim in value.type.tensor_type.shape.dim)[1:]
