"""From a checkpoint to a verified ONNX file."""

from __future__ import annotations

import dataclasses
import importlib.metadata
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from lloss.export.divergence_check import check_network
from lloss.export.graph import ScoringGraph, outputs_of, write_onnx
from lloss.export.pool_sample import ReferenceSample
from lloss.export.precision import Log, ReducedPrecision
from lloss.export.torch_parity import check_parity
from numpy.typing import NDArray

from lloss.files import atomic_write
from lloss.manifest import KEY, Manifest
from lloss.modeling.network_source import package_versions
from lloss.training.checkpoint import Checkpoint
from lloss.training.divergence import remedy


def export_onnx(
    checkpoint: Checkpoint,
    path: Path,
    reduction: ReducedPrecision | None = None,
    log: Log = lambda _: None,
    reference: ReferenceSample | None = None,
) -> Manifest:
    """Export network and head as one ONNX file, checked against torch before it gets its name.

    Args:
        checkpoint: of a run with a head; its sample images are those of the check.
        path: of the file; only a file that passed replaces an existing one.
        reduction: a precision below fp32, which is then compared with the checked fp32 graph.
        log: receives a line on each attempt at a reduced precision, and on the judgement.
        reference: images whose predicted losses go into the manifest, to measure drift against;
            by default those that a reduction was judged on.

    Raises:
        DivergedError: the network's weights or outputs are not finite, or exploded.
        ParityError: the graph does not compute what the network does; nothing is written.
        FidelityError: the reduced precision ranks images differently; nothing is written.
        CheckpointError: the checkpoint cannot be exported.
        PoolError: the pool of the reduction or of the reference is too small.
    """
    if reduction:
        _ = reduction.sample  # a pool that is too small raises here, before minutes of export
    settings = checkpoint.settings
    spec = settings.image_spec()
    graph = ScoringGraph(checkpoint.network(), settings.mean, settings.std).eval()
    check_network(graph, checkpoint.sample, remedy(settings), checkpoint.path)
    manifest = Manifest(
        task=settings.task,
        model=settings.model,
        classes=checkpoint.classes,
        image=spec,
        mean=settings.mean,
        std=settings.std,
        outputs=outputs_of(graph, (spec.height, spec.width)),
        provenance=_provenance(checkpoint),
    )
    with atomic_write(path) as aside:
        manifest = write_checked(graph, manifest, aside, checkpoint.sample)
        if reduction:
            manifest = reduction.run(aside, manifest, checkpoint, log)
        if reference:
            measured = reference.measure(aside, spec)
            manifest = dataclasses.replace(manifest, reference=measured or manifest.reference)
        replace_manifest(aside, manifest)
    return manifest


def write_checked(
    graph: ScoringGraph, manifest: Manifest, path: Path, images: NDArray[np.uint8]
) -> Manifest:
    """Write a graph that computes what torch does on images, uint8 [S, H, W, 3].

    Returns the manifest with the differences, which is not in the file yet.
    """
    write_onnx(graph, manifest, path)
    return dataclasses.replace(manifest, fidelity=check_parity(path, graph, images))


def replace_manifest(path: Path, manifest: Manifest) -> None:
    """Write the manifest with all measurements into the measured file."""
    model = onnx.load(str(path), load_external_data=False)
    del model.metadata_props[:]  # onnxruntime's tools leave notes there
    model.metadata_props.add(key=KEY, value=manifest.to_json())
    onnx.save(model, str(path))


def _provenance(checkpoint: Checkpoint) -> dict[str, Any]:
    return {
        "checkpoint_sha256": checkpoint.sha256,
        "labeled_images": checkpoint.labeled,
        "labels_sha256": checkpoint.labels_sha256,
        "epochs": f"{checkpoint.epoch}/{checkpoint.settings.epochs}",
        "settings": checkpoint.settings.as_dict(),
        "versions": versions() | package_versions(checkpoint.settings.model),
    }


def versions() -> dict[str, str]:
    """Versions of the packages that an export depends on."""
    names = ("lloss", "torch", "torchvision", "onnx", "onnxscript")
    return {name: importlib.metadata.version(name) for name in names}
