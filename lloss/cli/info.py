"""``lloss info``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from lloss.cli.options import PATH
from lloss.files import sha256_of
from lloss.images.bit_depth import WHITE_16
from lloss.manifest import Manifest, read_manifest
from lloss.statistics.loss_unit import LossUnit
from lloss.text.first_names import first_names


@click.command("info")
@click.argument("model", type=PATH)
@click.option("--json", "as_json", is_flag=True, help="Print the whole manifest as JSON.")
def command(model: Path, as_json: bool) -> None:
    """Describe the exported MODEL."""
    manifest = read_manifest(model)
    if as_json:
        click.echo(json.dumps(json.loads(manifest.to_json()), indent=2, ensure_ascii=False))
        return
    size = f"{model.stat().st_size / 1e6:.1f} MB"
    rows = {"file": f"{model} ({size})", "sha256": sha256_of(model), **_rows(manifest)}
    for name, value in rows.items():
        click.echo(f"{name:11s} {value}")


def _rows(manifest: Manifest) -> dict[str, object]:
    image, provenance = manifest.image, manifest.provenance
    outputs = ", ".join(
        name + (f" [{', '.join(map(str, shape))}]" if shape else "")
        for name, shape in manifest.outputs.items()
    )
    recipe, calibrated = manifest.recipe, ""
    if recipe:
        calibrated = (
            f", calibrated by {recipe.get('calibration')} on {recipe.get('images')} images, "
            f"weights of {recipe.get('weight_bits')} bits"
        )
    rows: dict[str, object] = {
        "task": manifest.task,
        "model": " ".join([manifest.model, *provenance.get("settings", {}).get("model_args", [])]),
        "input": f"images uint8 [N, {image.height}, {image.width}, 3], resized by {image.fit}"
        f"{f', filled with {image.fill}' if image.fill else ''}"
        f"{f', {image.share:.3g} of it' if image.share < 1 else ''}, {image.resample}; "
        f"white of 16-bit images: {image.white or WHITE_16}",
        "outputs": f"{outputs}; float32 [N, …]",
        "classes": f"{len(manifest.classes)}: {first_names(manifest.classes, 12)}",
        "loss": str(manifest.unit or "in no unit, and of either sign"),
        **_calibration(manifest.unit),
        "precision": manifest.precision + calibrated,
        "fidelity": fidelity_text(manifest),
        "reference": str(manifest.reference or "none: lloss serve measures no drift"),
        "trained on": _training(provenance),
        "checkpoint": provenance.get("checkpoint_sha256"),
        "versions": ", ".join(f"{k} {v}" for k, v in provenance.get("versions", {}).items()),
    }
    if speed := manifest.speed:
        rows["speed"] = f"{speed['times_fp32']:.2g}× fp32 on {speed['cpu']}"
    return rows


def _calibration(unit: LossUnit | None) -> dict[str, str]:
    """The row of true against predicted losses; none without a unit."""
    if unit is None or not unit.calibration:
        return {}
    pairs = (f"{each.predicted:.2g} → {each.true:.2g}" for each in unit.calibration)
    return {"calibration": f"predicted → true mean, from the lowest: {', '.join(pairs)}"}


def _training(provenance: Mapping[str, Any]) -> str:
    if "labeled_images" in provenance:
        return f"{provenance['labeled_images']} images, {provenance.get('epochs')} epochs"
    return f"unknown: a network from outside; its head reads {', '.join(provenance['taps'])}"


def fidelity_text(manifest: Manifest) -> str:
    """Say how near a model is to torch and to its fp32 graph, for ``info`` and ``export``."""
    parity = manifest.fidelity.get("torch_parity", {}).get("max_abs_difference", {})
    what = "score of the head" if manifest.unit else "predicted loss"
    torch = f"{what} within {parity.get('loss', float('nan')):.1e} of torch"
    measured = manifest.fidelity.get("fp32")
    if not measured:
        return torch
    mean = measured.get("mean_loss")  # older files lack it
    of = "" if mean is None else f" (mean loss {mean:.2g})"
    return (
        f"against fp32 on {measured['images']} images of {measured['pool']}, computed on "
        f"{measured.get('provider', 'cpu')}: Spearman {measured['spearman']:.5f}, "
        f"top-10% overlap {measured['top_decile_overlap']:.3f}, "
        f"largest difference {measured['max_abs_difference']:.2g}{of}; fp32's {torch}"
    )
