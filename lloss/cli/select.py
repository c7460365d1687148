"""``lloss select``."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from lloss.annotations import Problems
from lloss.cli.options import (
    FOLDER_OR_URL,
    PATH,
    empty_option,
    exclude_option,
    print_notes,
    subset_option,
)
from lloss.pools.uri import is_fiftyone
from lloss.project.labeling_tasks import FORMATS as TASK_FORMATS
from lloss.project.labeling_tasks import LISTS, write_tasks
from lloss.project.pick_predictions import find_model
from lloss.scores.scores_folder import ScoresFolder
from lloss.selection import Selection, SelectionSettings, select, strategy_names
from lloss.selection.exclusions import find_excluded, read_excluded
from lloss.selection.metadata import joined
from lloss.selection.selection import BALANCED, PREDICTED
from lloss.selection.selection_file import FIFTYONE, FORMATS, format_of, formatted, write_selection
from lloss.selection.strategies import STRATEGIES, get_strategy
from lloss.selection.ties import tie_note
from lloss.text.counts import counted

_TASK_LIST_OPTIONS = (
    click.option(
        "--run",
        "model",
        type=PATH,
        help="Task lists: the training run, or model.onnx, that made SCORES.  [default: if it is "
        "where it was]",
    ),
    click.option("--pool", help="Task lists: the images.  [default: the pool that was scored]"),
    click.option(
        "--no-predictions",
        is_flag=True,
        help="Task lists: leave out what the model finds.",
    ),
    click.option(
        "--min-score",
        type=float,
        help="Task lists: the least score of an object or a joint.  [default: 0.4, 0.1]",
    ),
    click.option(
        "--copy-images",
        is_flag=True,
        help="Task lists: copy the images beside the list. Those within larger files always are.",
    ),
    click.option(
        "--image-url",
        help="Label Studio: the images' URL, with {path} or {id}.  [default: of local files]",
    ),
)


def _task_list_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of task lists; the command receives those given as ``listing``."""
    names = ("model", "pool", "no_predictions", "min_score", "copy_images", "image_url")

    @functools.wraps(command)
    def collect(**values: Any) -> Any:
        listing = {name: values.pop(name) for name in names}
        given = {name: one for name, one in listing.items() if one is not None and one is not False}
        return command(listing=given, **values)

    for option in reversed(_TASK_LIST_OPTIONS):
        collect = option(collect)
    return collect


@click.command("select")
@click.argument("scores", type=FOLDER_OR_URL)
@click.option("-k", "k", type=int, required=True, help="Images to select.")
@click.option(
    "--strategy",
    type=click.Choice(strategy_names()),
    show_default="herding where SCORES have embeddings, K is 10,000 at most and neither "
    "--highest nor --lowest is given, or else top",
    help=f"{'; '.join(f'{name}: {each.title}' for name, each in STRATEGIES.items())}.",
)
@click.option(
    "--by",
    default="loss",
    help="Column to select by: loss and entropy highest first, confidence and margin lowest "
    "first, others with --highest or --lowest.",
)
@click.option("--highest", is_flag=True, help="Take the highest of --by first.")
@click.option("--lowest", is_flag=True, help="Take the lowest of --by first.")
@exclude_option
@empty_option
@subset_option
@click.option(
    "--embedding",
    default="",
    metavar="COLUMN",
    show_default="pretrained_embedding where the scores have it, or else embedding",
    help="Vectors that likeness is measured by.",
)
@click.option(
    "--min-distance",
    type=float,
    default=0.0,
    help="Pass over near-duplicates: images whose vectors have a smaller cosine distance (0 to 2) "
    "to a labeled image or an earlier pick.",
)
@click.option(
    "--balance",
    default="",
    metavar="[predicted|COLUMN]",
    help="Spread the picks equally over the classes predicted, or over the groups that a column "
    "of SCORES or --metadata names (camera, site, day).",
)
@click.option(
    "--class-weight",
    type=click.Choice([BALANCED]),
    help="balanced: images of rare predicted classes weigh more, with herding or coverage.",
)
@click.option(
    "--metadata",
    type=PATH,
    help="CSV or Parquet with the columns id and that of --balance.",
)
@click.option("--seed", type=int, default=0, help="Random seed of --subset and --strategy.")
@click.option("--at-most", is_flag=True, help="If fewer than K images are left, select them all.")
@click.option(
    "-o", "--out", type=PATH, show_default="stdout", help="Output file, folder, or fiftyone:NAME."
)
@click.option(
    "--format",
    "kind",
    type=click.Choice([*FORMATS, *TASK_FORMATS]),
    show_default="by the file's suffix",
    help="coco, yolo (a folder), cvat and label-studio are task lists for labeling tools, with "
    "what the model finds on each image; -o fiftyone:NAME tags them in a dataset of FiftyOne.",
)
@_task_list_options
def command(
    scores: Path | str,
    highest: bool,
    lowest: bool,
    exclude: tuple[Path, ...],
    empty: str,
    out: Path | None,
    kind: str | None,
    metadata: Path | None,
    strategy: str | None,
    class_weight: str | None,
    listing: dict[str, Any],
    **values: Any,
) -> None:
    """Choose the K images to label next from a SCORES folder, or its URL.

    Equal scores are ordered by id: the same scores and settings give the same bytes on any machine.
    """
    kind = kind or format_of(out)
    _check_output(kind, out, listing)
    if highest and lowest:
        raise click.UsageError("give --highest or --lowest, not both")
    problems = Problems(skip=True)
    named = read_excluded(exclude, problems, empty)
    order = "highest" if highest else "lowest" if lowest else ""
    settings = SelectionSettings(
        strategy=strategy or "", order=order, class_weight=class_weight or "", **values
    )
    settings.refuse_unused()
    folder = ScoresFolder(scores).opened()
    source = joined(folder, settings, metadata, problems)
    selection = select(source, settings, find_excluded(named, folder.ids, "the scores", problems))
    notes = _write(selection, scores, out, kind, listing)
    print_notes(
        *problems.lines(),
        _summary(selection) + (f": {out}" if out else ""),
        *_named(selection, scores).remarks(),
        settings.assumption(selection),
        tie_note(source, selection),
        f"warning: {doubt}" if (doubt := selection.collapse()) else "",
        *notes,
    )


def _named(selection: Selection, scores: Path | str) -> Selection:
    """Name the classes that picks are spread over, if the model of the scores is where it was."""
    if selection.settings.balance != PREDICTED:
        return selection
    model = find_model((), ScoresFolder(scores), predict=False)
    return selection.with_class_names(model.classes)


def _summary(selection: Selection) -> str:
    settings = selection.settings
    among = [selection.among()] if selection.among() else []
    summary = [f"{len(selection)} of {selection.eligible} selected {settings.how}", *among]
    summary += [f"spread by {selection.spread_by}"] if selection.spread_by else []
    summary += [f"{selection.excluded} excluded"] if selection.excluded else []
    if get_strategy(settings.strategy).labeled or settings.min_distance:
        summary.append(f"{counted(selection.labeled, 'labeled image')} taken into account")
    return ", ".join([*summary, *selection.unusable()])


def _check_output(kind: str, out: Path | None, listing: dict[str, Any]) -> None:
    if is_fiftyone(out or "") != (kind == FIFTYONE):
        raise click.UsageError(f"-o {out} has a format of its own: leave --format out")
    if kind in LISTS:
        if out is None:
            raise click.UsageError(f"--format {kind} writes a file or a folder: give -o")
    elif listing:
        options = ", ".join("--" + name.replace("_", "-") for name in sorted(listing))
        options = options.replace("--model", "--run")
        raise click.UsageError(f"{options}: for a task list; give --format {TASK_FORMATS[0]}")
    elif out is None and kind == "parquet":
        raise click.UsageError("a terminal cannot show Parquet: give -o FILE.parquet")


def _write(
    selection: Selection,
    scores: Path | str,
    out: Path | None,
    kind: str,
    listing: dict[str, Any],
) -> list[str]:
    """Write or print the selection; return lines on it."""
    if out is None:
        click.echo(formatted(selection, kind), nl=False)
    elif kind in LISTS:
        predictions = not listing.pop("no_predictions", False)
        return write_tasks(
            selection, out, format=kind, scores=scores, predictions=predictions, **listing
        )
    else:
        write_selection(selection, out, kind)
    return []
