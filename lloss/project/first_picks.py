"""The first images to label of a project that has no labels: cycle 000.

::

    cycles/000/
      scores/                      embeddings by a network with trained weights, if there is one
      selected.csv, selected.*, report.html
      summary.json                 written last

They are spread over the pool by the embeddings, or drawn at random where no trained weights are at
hand. Nothing is trained.
"""

from __future__ import annotations

import itertools
import os
import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from lloss.data.decode_ahead import decoded
from lloss.errors import ImageError, PoolError
from lloss.files import sweep, write_json
from lloss.manifest import EMBEDDING
from lloss.pools import Item, Pool, SubsetPool, refuse_duplicates
from lloss.project.cycle_choice import SMALL, distance_note, select_images
from lloss.project.cycle_output import REPORT, write_task_lists
from lloss.project.pick_predictions import PickModel
from lloss.project.picks_file import SELECTED
from lloss.project.project import Project
from lloss.project.report import Report, write_report
from lloss.project.selected_images import describe_picks
from lloss.project.summary import SUMMARY, Summary
from lloss.project.trust_figures import TrustFigures, remarks_on, trust_lines
from lloss.scores.score_source import TableScores
from lloss.scores.scores_folder import ScoresFolder, scores_table
from lloss.selection import Selection
from lloss.selection.hashing import draw_ids
from lloss.selection.selection_file import write_selection
from lloss.serve.scoring.batch.scoring_run import PART
from lloss.tasks.train_settings import TrainSettings
from lloss.text.counts import counted
from lloss.text.progress import progress
from lloss.training.cautions import how_picked
from lloss.training.decisions import SAMPLE
from lloss.training.near_duplicate_views import automatic_distance
from lloss.training.pretrained_backbone import (
    Embedded,
    PretrainedBackbone,
    pretrained_backbone,
)

FOLDER = "000"

STEP = 256  # Images in memory at a time


def choose_first(project: Project, say: Callable[[str], None], at_most: bool = False) -> Summary:
    """Choose the first K images, or finish that.

    Raises:
        PoolError: the pool has no image, or none that can be read.
        SelectionError: it has fewer than K, and ``at_most`` is off.
    """
    first = _FirstPicks(project, project.cycles / FOLDER, say)
    return first.run(at_most)


@dataclass(frozen=True)
class _Choice:
    selection: Selection
    skipped: int  # images that cannot be read
    settings: TrainSettings  # of the network that embedded
    notes: Sequence[str]


@dataclass(frozen=True)
class _FirstPicks:
    project: Project
    folder: Path
    say: Callable[[str], None]

    def run(self, at_most: bool) -> Summary:
        """Embed, select, write everything."""
        self.folder.mkdir(parents=True, exist_ok=True)
        sweep(self.folder)
        problems = self.project.problems()
        self.say("nothing is labeled yet: choose the first images without training")
        whole = self.project.open_pool(problems)
        tested = self.project.test_ids(whole, self.project.open_test(problems), problems)
        pool = SubsetPool(whole, tested) if tested else whole
        self._say_each(problems.lines())
        choice = self._choose(pool, at_most)
        write_selection(choice.selection, self.folder / SELECTED)
        why = "no model is trained before the first labels"
        model = PickModel(task=choice.settings.task, note=why)
        write_task_lists(self.project, self.folder, choice.selection, pool, model, self.say)
        summary = self._summary(choice, problems.lines())
        self._report(summary, choice.selection, pool, model, choice.settings)
        write_json(self.folder / SUMMARY, asdict(summary))
        return summary

    def _say_each(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.say(line)

    def _choose(self, pool: Pool, at_most: bool) -> _Choice:
        """Choose by embeddings, or at random where no trained network is at hand."""
        sample, settings = _sample(pool), self.project.train
        backbone, lines = pretrained_backbone(settings, sample)
        self._say_each(lines)
        if backbone is None:
            notes = [
                f"no trained weights of {settings.model} are at hand (see weights under [train]): "
                "the first images are drawn at random"
            ]
            self._say_each(notes)
            selection, skipped = self._drawn(pool, at_most)
        else:
            settings, scores = backbone.settings, self._embed(backbone, pool)
            skipped, distance = len(scores.skipped()), self._distance(backbone, sample)
            how = self.project.first_selection("coverage", at_most, distance)
            selection = select_images(self.project, how, scores)[0]
            notes = [*filter(None, [distance_note(distance, selection), selection.collapse()])]
            self._say_each(notes)
        if skipped:
            self.say(f"{counted(skipped, 'image')} cannot be read")
        return _Choice(selection, skipped, settings, notes)

    def _summary(self, choice: _Choice, noted: Sequence[str]) -> Summary:
        selection = choice.selection
        trust = TrustFigures(
            duplicates=selection.duplicates,
            distance=selection.settings.min_distance,
            monitored=min(self.project.monitored, len(selection)),
        )
        summary = Summary(
            cycle=0,
            labeled=0,
            selected=len(selection),
            scored=selection.eligible,
            skipped=choice.skipped,
            classes={},
            labels_sha256="",
            evaluation=None,
            metric_name=self.project.task.metric,
            training=choice.settings.as_dict(),
            notes=[*noted, *choice.notes],
            trust=trust.as_dict(),
        )
        lines = [*remarks_on(selection), *trust_lines(trust, [summary])]
        self._say_each(lines)
        return replace(summary, trust_lines=lines)

    def _distance(self, backbone: PretrainedBackbone, sample: list[Item]) -> float:
        """Measure how near images are to changed copies of themselves, if asked for."""
        if not self.project.measures_distance:
            return 0.0
        network, settings = backbone.network.cpu(), backbone.settings
        return automatic_distance(network, settings, sample, self.project.k)

    def _embed(self, backbone: PretrainedBackbone, pool: Pool) -> ScoresFolder:
        """Write the embeddings of the pool, from the first missing part on."""
        scores, settings = ScoresFolder(self.folder / "scores"), backbone.settings
        run = {
            "pool": pool.uri,
            "pool_fingerprint": pool.fingerprint(),
            "network": f"{settings.model} {' '.join(settings.model_args)}".strip(),
            "weights": settings.weights,
            "size": settings.size,
            "part_size": PART,
        }
        before = scores.run()
        if before and _others(before, run):
            self.say(f"{scores}: is of other settings or another pool; embed again")
            shutil.rmtree(scores.path)
            before = None
        if before and before["state"] == "complete":
            return scores
        if not pool.streamed:
            refuse_duplicates(pool)
        scores.path.mkdir(parents=True, exist_ok=True)
        sweep(scores.path)
        scores.write_run({"state": "running", **run})
        self.say(f"embed the images of {pool.uri} by {settings.model}, weights {settings.weights}")
        self._embed_parts(backbone, pool, scores)
        ids = [scores.part_ids(number) for number in scores.part_numbers()]
        counts = {"scored": sum(len(a) for a, _ in ids), "skipped": sum(len(b) for _, b in ids)}
        scores.write_skipped()
        if not counts["scored"]:
            shutil.rmtree(scores.path)
            raise PoolError(f"{pool.uri}: none of its {counts['skipped']} images can be read")
        scores.write_run({"state": "complete", **run, **counts})
        return scores

    def _embed_parts(self, backbone: PretrainedBackbone, pool: Pool, scores: ScoresFolder) -> None:
        start = len(scores.parts()) * PART
        steps = (range(at, at + STEP) for at in itertools.count(start, STEP))
        total = pool.count() if pool.counted else None
        with progress(total=total, initial=start, unit="images", desc="embed") as bar:
            chunks = itertools.groupby(pool.chunks(steps), lambda chunk: chunk.start // PART)
            for number, part in chunks:
                found: list[Embedded] = []
                for chunk in part:
                    found += backbone.embed(chunk.items)
                    bar.update(len(chunk))
                ids = [id for some in found for id in some.ids]
                vectors = np.concatenate([some.embeddings for some in found])
                skipped = [each for some in found for each in some.skipped]
                scores.write_part(number, scores_table(ids, {EMBEDDING: vectors}), skipped)

    def _drawn(self, pool: Pool, at_most: bool) -> tuple[Selection, int]:
        """Draw images that can be read; also count those drawn before them that cannot."""
        k, seed = self.project.k, self.project.monitoring_seed
        order = draw_ids(pool.ids(), pool.count(), seed)
        readable: list[str] = []
        skipped = 0
        for start in range(0, len(order), k):
            for id, image in decoded(pool.find(order[start : start + k]), SMALL):
                skipped += isinstance(image, ImageError)
                readable += [] if isinstance(image, ImageError) else [id]
            if len(readable) >= k:
                break
        scores = TableScores(pa.table({"id": pa.array(readable, pa.string())}))
        settings = replace(self.project.first_selection("random", at_most), seed=seed)
        return select_images(self.project, settings, scores)[0], skipped

    def _report(
        self,
        summary: Summary,
        selection: Selection,
        pool: Pool,
        model: PickModel,
        settings: TrainSettings,
    ) -> None:
        spec = replace(settings, size=settings.size or SMALL.width).image_spec()
        report = Report(
            project=self.project.root.resolve().name,
            task=settings.task,
            model=settings.model,
            metric=self.project.task.metric_title,
            cycles=[summary],
            selected_how=how_picked(selection, "", None).replace(" beside the labeled ones", ""),
            losses=np.empty(0, np.float32),
            picks=describe_picks(selection, pool, model, spec),
            provenance={"network": settings.model, "weights": settings.weights},
            counted=self.project.task.counted,
        )
        write_report(report, self.folder / REPORT)


def _others(before: dict[str, Any], now: dict[str, Any]) -> bool:
    """Whether embeddings were begun of another pool or with other settings."""
    places = [os.path.realpath(str(run.get("pool"))) for run in (before, now)]
    changed = [name for name, value in now.items() if name != "pool" and before.get(name) != value]
    return bool(changed) or places[0] != places[1]


def _sample(pool: Pool) -> list[Item]:
    """Some images, to see how large they are."""
    if pool.streamed:
        found = list(itertools.islice(pool, SAMPLE))
    else:
        found = pool.find(draw_ids(pool.ids(), SAMPLE, 0))
    if not found:
        raise PoolError(f"{pool.uri}: has no image to label")
    return found
