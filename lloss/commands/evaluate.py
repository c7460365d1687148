"""``lloss evaluate``."""

from __future__ import annotations

from pathlib import Path

import click

from lloss.checkpoint import load_checkpoint
from lloss.commands.options import PATH, labels_options
from lloss.errors import LabelError
from lloss.evaluation import evaluate_checkpoint, scatter
from lloss.files import write_json
from lloss.labels import open_labeled


@click.command()
@click.argument("run", type=PATH)
@click.argument("data")
@labels_options
@click.option("-o", "--out", type=PATH, help="Folder for the figures.  [default: the run's own]")
def evaluate(run: Path, data: str, labels: Path | None, data_root: Path, out: Path | None) -> None:
    """Measure a RUN on held-out labeled DATA.

    Prints accuracy and how well the predicted loss ranks the true one, the entropy of the same
    network beside it; writes evaluation.json and evaluation.png.
    """
    out = out or (run if run.is_dir() else run.parent)
    checkpoint = load_checkpoint(run)  # a missing run is told before the images are looked for
    labeled = open_labeled(data, labels, data_root)
    if len(labeled) < 2:
        raise LabelError(f"{data}: one image has no rank; give at least 2")
    found = evaluate_checkpoint(checkpoint, labeled)
    write_json(out / "evaluation.json", found.as_dict())
    click.echo(f"images             {found.images}")
    if found.unseen:
        click.echo(f"of unknown classes {found.unseen}, counted as misses")
    click.echo(f"{found.metric_name:19s}{found.metric:.4f}")
    click.echo(f"mean loss          {found.mean_loss:.4f}")
    click.echo(f"{'':19s}{'predicted loss':>15s}{'entropy':>10s}{'chance':>9s}")
    chance = {"ranking_accuracy": 0.5, "spearman": 0.0, "lift": 1.0}
    for name, expected in chance.items():
        head = f"{getattr(found.head, name):15.4f}" if found.head else f"{'–':>15s}"
        label = {"lift": "top-decile lift"}.get(name, name.replace("_", " "))
        click.echo(f"{label:19s}{head}{getattr(found.entropy, name):10.4f}{expected:9.1f}")
    if found.predicted_loss is not None:
        scatter(found, out / "evaluation.png")
        click.echo(f"picture            {out / 'evaluation.png'}")
