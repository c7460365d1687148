"""From a checkpoint to a verified artifact."""

from __future__ import annotations

import dataclasses
import importlib.metadata
from pathlib import Path
from typing import Any

from lloss.export.divergence_check import check_network
from lloss.export.graph import ScoringGraph, outputs_of, write_onnx
from lloss.export.parity import check_parity
from lloss.export.pool_distribution import ReferenceSample
from lloss.export.precision import Reducer, Reduction, Tell

from lloss.files import written_aside
from lloss.manifest import Manifest
from lloss.training.checkpoint import Checkpoint


def export_artifact(
    checkpoint: Checkpoint,
    path: Path,
    reduction: Reduction | None = None,
    tell: Tell = lambda _: None,
    reference: ReferenceSample | None = None,
) -> Manifest:
    """Export network and head as one ONNX file, checked against torch before it gets its name.

    Args:
        checkpoint: of a run with a head; its sample images are the check's.
        path: where to write; an existing file is replaced only by one that passed.
        reduction: a precision below fp32; the fp32 graph is checked first, then this against it.
        tell: receives a line on each attempt at a reduced precision, and on the judgement.
        reference: images whose predicted losses go into the manifest, to measure drift against.
            Without it, those that a reduction was judged on.

    Returns:
        The manifest that the file carries.

    Raises:
        DivergedError: the network's weights or outputs are no numbers, or exploded.
        ParityError: the graph does not compute what the network does; nothing is left.
        FidelityError: the reduced precision does not rank images as fp32 does; nothing is left.
        CheckpointError: the checkpoint cannot be exported.
        PoolError: the reduction's pool or the reference's is too small.
    """
    sample = reduction.draw() if reduction else None
    if reference:
        _ = reference.items  # a pool that is too small is told before minutes of export
    settings = checkpoint.settings
    spec = settings.image_spec()
    graph = ScoringGraph(checkpoint.network(), settings.mean, settings.std).eval()
    check_network(graph, checkpoint.sample, settings, checkpoint.path)
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
    with written_aside(path) as aside:
        # The measured fidelity is part of the file that it is measured on; metadata only.
        write_onnx(graph, manifest, aside)
        fidelity = check_parity(aside, graph, checkpoint.sample)
        manifest = dataclasses.replace(manifest, fidelity=fidelity)
        if reduction and sample:
            manifest = Reducer(reduction, sample, checkpoint, tell).run(aside, manifest)
        if reference:
            measured = reference.measure(aside, spec)
            manifest = dataclasses.replace(manifest, reference=measured or manifest.reference)
        _replace_manifest(aside, manifest)
    return manifest


def _replace_manifest(path: Path, manifest: Manifest) -> None:
    import onnx

    from lloss.manifest import KEY

    model = onnx.load(str(path), load_external_data=False)
    del model.metadata_props[:]  # the tools that reduce a precision leave notes to themselves
    model.metadata_props.add(key=KEY, value=manifest.to_json())
    onnx.save(model, str(path))


def _provenance(checkpoint: Checkpoint) -> dict[str, Any]:
    return {
        "checkpoint_sha256": checkpoint.sha256,
        "labeled_images": checkpoint.labeled,
        "labels_sha256": checkpoint.labels_sha256,
        "epochs": f"{checkpoint.epoch}/{checkpoint.settings.epochs}",
        "settings": checkpoint.settings.as_dict(),
        "versions": {
            name: importlib.metadata.version(name)
            for name in ("lloss", "torch", "torchvision", "onnx", "onnxscript")
        },
    }
