"""``lloss select`` and ``lloss info``."""

from __future__ import annotations

import json
from pathlib import Path

import click

from lloss.annotations import Problems
from lloss.cli.options import PATH, Subset, empty_option
from lloss.files import sha256_of
from lloss.images.bit_depth import WHITE_16
from lloss.manifest import Manifest, read_manifest
from lloss.scores.scores_folder import ScoresFolder
from lloss.selection import STRATEGIES, SelectionSettings
from lloss.selection.exclusion_files import read_excluded, select_without
from lloss.selection.ties import tie_note
from lloss.selection.writers import FORMATS, format_of, formatted, write_selection


@click.command()
@click.argument("scores", type=PATH)
@click.option("-k", "k", type=int, required=True, help="How many images to select.")
@click.option(
    "--strategy",
    type=click.Choice(STRATEGIES),
    default="top",
    show_default=True,
    help="The best scores; spread over the 4K best; or at random.",
)
@click.option(
    "--by",
    default="loss",
    show_default=True,
    help="The column to select by: loss and entropy highest first, confidence and margin lowest "
    "first, others by --highest or --lowest.",
)
@click.option("--highest", is_flag=True, help="The highest of --by first.")
@click.option("--lowest", is_flag=True, help="The lowest of --by first.")
@click.option(
    "--exclude", type=PATH, multiple=True, help="CSV with a column id, or labels: never select."
)
@empty_option
@click.option("--subset", type=Subset(), default="0", help="Choose from a random M or M% alone.")
@click.option(
    "--seed", type=int, default=0, show_default=True, help="Random seed of --subset and random."
)
@click.option("--at-most", is_flag=True, help="Take what is left when fewer than K are.")
@click.option("-o", "--out", type=PATH, help="Write here, by its suffix.  [default: stdout]")
@click.option("--format", "kind", type=click.Choice(FORMATS), help="ids, csv, jsonl or parquet.")
def select(
    scores: Path,
    k: int,
    strategy: str,
    by: str,
    highest: bool,
    lowest: bool,
    exclude: tuple[Path, ...],
    empty: str,
    subset: float,
    seed: int,
    at_most: bool,
    out: Path | None,
    kind: str | None,
) -> None:
    """Choose the K images to label next from a SCORES folder.

    The order is total, by score and then by id: the same scores and settings give the same bytes
    anywhere.
    """
    kind = kind or format_of(out)
    if out is None and kind == "parquet":
        raise click.UsageError("Parquet does not go to a terminal: give -o FILE.parquet")
    if highest and lowest:
        raise click.UsageError("--highest and --lowest: give one of them")
    problems = Problems(skip=True)
    excluded = read_excluded(exclude, problems, empty)
    settings = SelectionSettings(
        k=k,
        strategy=strategy,
        by=by,
        order="highest" if highest else "lowest" if lowest else "",
        subset=subset,
        seed=seed,
        at_most=at_most,
    )
    source = ScoresFolder(scores).opened()
    chosen, without = select_without(source, settings, excluded)
    if out is None:
        click.echo(formatted(chosen, kind), nl=False)
    else:
        write_selection(chosen, out, kind)
    for line in problems.lines():
        click.echo(line, err=True)
    notes = [f"{len(chosen)} of {chosen.eligible} selected {settings.how}", *chosen.notes()]
    notes += without.notes("the scores")
    click.echo(", ".join(notes) + (f": {out}" if out else ""), err=True)
    if tied := tie_note(source, chosen):
        click.echo(tied, err=True)


@click.command()
@click.argument("model", type=PATH)
@click.option("--json", "as_json", is_flag=True, help="The whole manifest as JSON.")
def info(model: Path, as_json: bool) -> None:
    """Tell what the artifact MODEL is."""
    manifest = read_manifest(model)
    if as_json:
        click.echo(json.dumps(json.loads(manifest.to_json()), indent=2, ensure_ascii=False))
        return
    image = manifest.image
    classes = ", ".join(manifest.classes[:12]) + (", …" if len(manifest.classes) > 12 else "")
    outputs = ", ".join(
        name + (f" [{', '.join(map(str, shape))}]" if shape else "")
        for name, shape in manifest.outputs.items()
    )
    came = manifest.provenance
    rows = {
        "file": f"{model} ({model.stat().st_size / 1e6:.1f} MB)",
        "sha256": sha256_of(model),
        "task": manifest.task,
        "model": manifest.model,
        "input": f"images uint8 [N, {image.height}, {image.width}, 3], by {image.fit}; "
        f"white of 16-bit images: {image.white or WHITE_16}",
        "outputs": f"{outputs}; float32 [N, …]",
        "classes": f"{len(manifest.classes)}: {classes}",
        **_loss_norm(manifest),
        "precision": manifest.precision + _recipe(manifest),
        "fidelity": _fidelity(manifest),
        "reference": str(manifest.reference or "none: lloss serve measures no drift"),
        "trained on": f"{came.get('labeled_images')} images, {came.get('epochs')} epochs",
        "checkpoint": came.get("checkpoint_sha256"),
        "versions": ", ".join(f"{k} {v}" for k, v in came.get("versions", {}).items()),
    }
    if manifest.speed:
        has = manifest.speed.get("instructions")
        where = manifest.speed["cpu"] + (f" ({has})" if has else "")
        rows["speed"] = f"{manifest.speed['times_fp32']:.2g}× fp32 on {where}"
    for name, value in rows.items():
        click.echo(f"{name:11s} {value}")


def _loss_norm(manifest: Manifest) -> dict[str, str]:
    """What the predicted loss is of, where a setting decides it."""
    if manifest.task != "detection":
        return {}
    norm = manifest.provenance.get("settings", {}).get("loss_norm")
    meant = {
        "positives": "an image's loss is divided by its positive anchors",
        "none": "an image's loss is not divided: it grows with the objects",
    }
    return {"loss_norm": f"{norm}: {meant.get(norm, 'not known')}"}


def _recipe(manifest: Manifest) -> str:
    recipe = manifest.recipe
    if not recipe:
        return ""
    kept = recipe.get("kept", [])
    layers = f", in fp32: {', '.join(kept)}" if kept else ""
    made_for = recipe.get("instructions")
    cpus = f" for CPUs with {made_for}" if made_for else ""
    return (
        f", calibrated by {recipe.get('calibration')} on {recipe.get('images')} images, "
        f"weights of {recipe.get('weight_bits')} bits{cpus}{layers}"
    )


def _fidelity(manifest: Manifest) -> str:
    parity = manifest.fidelity.get("torch_parity", {}).get("max_abs_difference", {})
    torch = f"predicted loss within {parity.get('loss', float('nan')):.1e} of torch"
    measured = manifest.fidelity.get("fp32")
    if not measured:
        return torch
    return (
        f"to fp32 on {measured['images']} images of {measured['pool']}, computed on "
        f"{measured.get('provider', 'cpu')}: "
        f"Spearman {measured['spearman']:.5f}, "
        f"top-10% overlap {measured['top_decile_overlap']:.3f}, "
        f"largest difference {measured['max_abs_difference']:.2g}; fp32's {torch}"
    )
