"""The folder of a training run: its checkpoint and figures, written while it trains."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any, TypeAlias

from lloss.errors import CheckpointError, DivergedError, InterruptedRunError
from lloss.files import locked, write_error, write_text
from lloss.modeling.network import TappedNetwork
from lloss.tasks.train_settings import TrainSettings
from lloss.text.progress import progress
from lloss.training.checkpoint import FILE, Checkpoint, load_checkpoint
from lloss.training.pace import Pace
from lloss.training.probe import probe
from lloss.training.trainer import Trainer

METRICS = "metrics.jsonl"

CHECKPOINT_SECONDS = 60.0  # between two: a large one takes seconds to write

Observe: TypeAlias = Callable[[], dict[str, float]]


def training_folder(run: Path) -> contextlib.AbstractContextManager[None]:
    """Make the folder of a run, for this process alone."""
    busy = CheckpointError(f"{run}: another training is at work in this folder; wait for it")
    return locked(run, busy)


def earlier_run(
    run: Path,
    settings: TrainSettings,
    labels_sha256: str,
    labeled: int,
    start_sha256: str,
    resume: bool,
) -> Checkpoint | None:
    """Load the run to resume, if there is one, and refuse one of other settings or labels."""
    if not (run / FILE).exists():
        return None
    if not resume:
        raise CheckpointError(
            f"{run}: holds a training run already; go on with --resume (in Python resume=True), or "
            "choose another folder"
        )
    before = load_checkpoint(run)
    old, new = before.settings.as_dict(), settings.filled_from(before.settings).as_dict()
    if not settings.taps:
        new["taps"] = old["taps"]  # found automatically then as now
    new["folds"] = old["folds"]  # they measure the training, and may come after it
    for name in old:
        if old[name] != new[name]:
            raise CheckpointError(
                f"{run}: was trained with {name} = {old[name]!r}, now it is {new[name]!r}; "
                "resume with the old value, or choose another folder"
            )
    if before.labels_sha256 != labels_sha256:
        raise CheckpointError(
            f"{run}: was trained on other labels ({before.labeled} images, now {labeled}); "
            "choose another folder"
        )
    if before.start_sha256 != start_sha256:
        raise CheckpointError(
            f"{run}: was begun with {'another' if before.start_sha256 else 'no'} warm start; "
            "resume with the same --warm-start, or choose another folder"
        )
    return before


def refuse_other_images(run: Path, before: Checkpoint, images_sha256: str) -> None:
    """Refuse to resume on images of the same names with other pixels."""
    if before.images_sha256 != images_sha256:
        raise CheckpointError(
            f"{run}: was trained on other images of the same names (their pixels changed); "
            "restore them, or train in another folder"
        )


def with_taps(settings: TrainSettings, network: TappedNetwork) -> TrainSettings:
    """Note the modules that the head reads in the settings."""
    return dataclasses.replace(settings, taps=tuple(tap.module for tap in network.taps))


def continue_run(
    run: Path,
    trainer: Trainer,
    checkpoint: Checkpoint,
    observe: Observe = dict,
    say: Callable[[str], None] = lambda _: None,
) -> Checkpoint:
    """Train to the end, and leave the checkpoint and the figures of each epoch in the folder.

    ``checkpoint`` lacks the taps and the trainer's state; see :func:`train_epochs` for ``observe``.
    """
    _keep_epochs(run / METRICS, trainer.epoch)
    settings = with_taps(checkpoint.settings, trainer.model)
    writer = RunWriter(run, trainer, dataclasses.replace(checkpoint, settings=settings))
    with interruptible() as interrupted:
        try:
            train_epochs(trainer, observe, writer, interrupted, say)
        except DivergedError as error:
            raise DivergedError(f"{error}. {kept(run)}") from None
    return load_checkpoint(run)


def kept(run: Path) -> str:
    """Say whether a checkpoint is there after an error."""
    path = run / FILE
    return f"{path} keeps a state before that" if path.exists() else "No checkpoint was written"


class RunWriter:
    """Writes a run's checkpoint, which lacks only the trainer's state, and its metrics."""

    def __init__(self, run: Path, trainer: Trainer, checkpoint: Checkpoint) -> None:
        self.run, self.trainer, self.checkpoint = run, trainer, checkpoint
        self.saved = time.monotonic()

    def save(self) -> None:
        """Write the checkpoint of this very step."""
        state, found = self.trainer.state(), self.checkpoint
        seen = probe(self.trainer.model, found.settings, found.sample)
        dataclasses.replace(found, state=state, probe=seen).save(self.run / FILE)
        self.saved = time.monotonic()

    def save_if_due(self) -> None:
        """Write it when the last one is old, so that a killed run loses little."""
        if time.monotonic() - self.saved > CHECKPOINT_SECONDS:
            self.save()

    def log(self, figures: dict[str, float]) -> None:
        """Append an epoch's figures."""
        path = self.run / METRICS
        try:
            with path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(figures) + "\n")
        except OSError as error:
            raise write_error(error, path) from error


def train_epochs(
    trainer: Trainer,
    observe: Observe = dict,
    writer: RunWriter | None = None,
    interrupted: threading.Event | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> list[dict[str, float]]:
    """Train to the end, and return the figures of each epoch.

    ``observe`` measures more figures at the end of each. When ``interrupted`` is set, ``writer``
    writes a checkpoint, and ``InterruptedRunError`` follows. ``say`` receives an estimate of the
    time that the rest takes.
    """
    done: list[dict[str, float]] = []
    epochs, images = trainer.settings.epochs, trainer.batches.images
    before = trainer.epoch * images + trainer.totals["images"]
    pace = Pace.of(trainer, say)
    with progress(total=epochs * images, initial=before, unit="images", desc="train") as bar:
        while not trainer.finished:
            figures = trainer.advance()
            pace.step()
            if figures is not None:
                figures |= observe()
                done.append(figures)
                if writer:
                    writer.log(figures)
                names = [n for n in ("loss", "ranking_accuracy") if n in figures]
                bar.set_description(f"train {trainer.epoch}/{epochs}", refresh=False)
                bar.set_postfix({name: figures[name] for name in names}, refresh=False)
            bar.update(trainer.epoch * images + trainer.totals["images"] - bar.n)
            if writer is None or interrupted is None:
                continue
            if trainer.asked_to_stop(interrupted.is_set()):
                writer.save()
                raise InterruptedRunError(
                    f"stopped after {trainer.epoch} of {epochs} epochs; {writer.run / FILE} holds "
                    "the state: run it again with --resume (in Python resume=True) to go on"
                )
            writer.save_if_due()
    if writer:
        writer.save()
    return done


@contextlib.contextmanager
def interruptible() -> Iterator[threading.Event]:
    """Let the first Ctrl-C or SIGTERM finish the step; a second one acts as ever.

    A signal that the process ignores, as a shell makes background jobs ignore Ctrl-C, stays so.
    """
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked  # only the main thread may set handlers
        return

    def ask(number: int, frame: FrameType | None) -> None:
        asked.set()
        signal.signal(number, before[number])

    before: dict[int, Any] = {n: signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)}
    before = {
        number: handler for number, handler in before.items() if handler is not signal.SIG_IGN
    }
    try:
        for number in before:
            signal.signal(number, ask)
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _keep_epochs(path: Path, epochs: int) -> None:
    """Drop the metrics of epochs that the checkpoint does not hold."""
    if path.exists():
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
        write_text(path, "".join(lines[:epochs]))
