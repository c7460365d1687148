"""``lloss simulate``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from lloss.annotations import Problems
from lloss.cli.options import (
    PATH,
    automatic_option,
    empty_option,
    labels_options,
    print_notes,
    skip_bad_option,
    training_device_option,
    training_settings,
)
from lloss.runtime.cpu_count import usable_cores
from lloss.simulation.comparison import compare
from lloss.simulation.experiment import Budget, Experiment
from lloss.simulation.labeled_data import DataOptions
from lloss.simulation.methods import METHODS, UNREAD_OF_FROZEN, parse_methods
from lloss.simulation.report import write_report
from lloss.simulation.run import FROZEN, Run, decided_settings
from lloss.simulation.scenarios import EXAMPLES, parse_scenarios
from lloss.simulation.tables import terminal_table
from lloss.tasks.presets import resolve_settings

COMPARED = "random,entropy,herding"
TRIALS = 10


@click.command("simulate")
@click.argument("data", required=False)
@labels_options
@click.option(
    "--test", default="20%", help="Images to measure on: labeled data as DATA, or a share of DATA."
)
@click.option("--test-labels", type=PATH, help="If --test is a pool: its labels.")
@skip_bad_option
@empty_option
@click.option("-o", "--out", type=PATH, required=True, help="Folder of the results.")
@click.option(
    "--methods",
    default=COMPARED,
    help=f"What to compare, of {', '.join(METHODS)}; NAME+KEY=VALUE changes one.",
)
@click.option(
    "--scenario",
    "scenarios",
    default="balanced",
    help=f"Pools to draw of DATA, separated by commas: {', '.join(EXAMPLES)}.",
)
@automatic_option("--pool-size", "all images", "Images of a pool.")
@click.option("--initial", type=click.IntRange(2), default=100, help="Labels to start with.")
@click.option("-k", type=click.IntRange(1), default=100, help="Labels added a cycle.")
@click.option("--cycles", type=click.IntRange(2), default=6, help="Trainings, the first included.")
@click.option(
    "--trials",
    type=click.IntRange(1),
    show_default=str(TRIALS),
    help="Repetitions, all paired; the report names no winner before all are finished. A larger "
    "number than before adds trials to OUT, and the report says so.",
)
@click.option(
    "--frozen/--full",
    default=None,
    show_default="frozen where weights are trained",
    help="Train heads on cached features of a frozen network, or the whole network.",
)
@click.option(
    "--features",
    type=PATH,
    show_default="OUT/features",
    help="Folder of cached features; simulations may share one.",
)
@automatic_option("-j", "one per core", "Trials at the same time.")
@click.option("--report-only", is_flag=True, help="Report on OUT as it is; leave DATA out.")
@training_device_option
@training_settings
def command(
    data: str | None,
    out: Path,
    preset: str,
    train: dict[str, Any],
    device: str,
    report_only: bool,
    **given: Any,
) -> None:
    """Compare ways to select on fully labeled DATA, as lloss train takes it.

    Each trial draws a pool and initial labels; each method then trains, is measured, and selects
    the next K, as lloss next would. All methods of a trial share everything that is random. Results
    go to OUT, one line a cycle; the same command continues what was interrupted. At the end,
    OUT/report.html, curves.png and results.csv say who wins, and how sure that is. See
    docs/simulation.md.
    """
    if report_only != (data is None):
        raise click.UsageError(
            "--report-only reads OUT alone: leave DATA out" if data else "Missing argument 'DATA'."
        )
    if data is not None:
        _simulate(data, out, preset, train, device, given)
    comparison = compare(out)
    report = write_report(out, comparison)
    click.echo("\n".join(terminal_table(comparison)))
    click.echo(report)


def _simulate(
    data: str, out: Path, preset: str, train: dict[str, Any], device: str, given: dict[str, Any]
) -> None:
    settings = resolve_settings(preset, **train)
    methods, scenarios = parse_methods(given["methods"]), parse_scenarios(given["scenarios"])
    budget = Budget(given["initial"], given["k"], given["cycles"])
    options = DataOptions(
        settings.task, data, given["labels"], given["test"], given["test_labels"],
        given["data_root"], given["skip_bad"], given["empty"], settings.seed,
    )  # fmt: skip
    problems = Problems(given["skip_bad"])
    opened = options.open(problems)
    print_notes(*problems.lines())
    settings, learner = decided_settings(opened, settings, given["frozen"], print_notes)
    unread = ["--" + name.replace("_", "-") for name in train if name in UNREAD_OF_FROZEN]
    if unread and learner == FROZEN:
        what = ", ".join(unread)
        print_notes(f"warning: {what}: not read, since the network is frozen; choose --full")
    experiment = Experiment(
        opened.source, settings, scenarios, methods, budget, given["trials"] or TRIALS,
        given["pool_size"], settings.seed, learner, options.described(opened),
    )  # fmt: skip
    processes = given["j"] or usable_cores()
    Run(out, processes, given["features"], device, extend=given["trials"] is not None).simulate(
        experiment, opened, options.drawn(opened), print_notes
    )
