"""``lloss select``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from lloss.annotations import Problems
from lloss.cli.options import PATH, empty_option, exclude_option, print_notes, subset_option
from lloss.scores.scores_folder import ScoresFolder
from lloss.selection import STRATEGIES, SelectionSettings, select
from lloss.selection.exclusions import find_excluded, read_excluded
from lloss.selection.selection_file import FORMATS, format_of, formatted, write_selection
from lloss.selection.ties import tie_note


@click.command("select")
@click.argument("scores", type=PATH)
@click.option("-k", "k", type=int, required=True, help="Images to select.")
@click.option(
    "--strategy",
    type=click.Choice(STRATEGIES),
    default="top",
    help="top: the K best scores; diverse: K unlike images of the 4·K best; random: any K.",
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
    help="Vectors that diverse measures likeness by.",
)
@click.option("--seed", type=int, default=0, help="Random seed of --subset and of random.")
@click.option("--at-most", is_flag=True, help="If fewer than K images are left, select them all.")
@click.option("-o", "--out", type=PATH, show_default="stdout", help="Output file.")
@click.option("--format", "kind", type=click.Choice(FORMATS), show_default="by the file's suffix")
def command(
    scores: Path,
    highest: bool,
    lowest: bool,
    exclude: tuple[Path, ...],
    empty: str,
    out: Path | None,
    kind: str | None,
    **values: Any,
) -> None:
    """Choose the K images to label next from a SCORES folder.

    Equal scores are ordered by id: the same scores and settings give the same bytes on any machine.
    """
    kind = kind or format_of(out)
    if out is None and kind == "parquet":
        raise click.UsageError("a terminal cannot show Parquet: give -o FILE.parquet")
    if highest and lowest:
        raise click.UsageError("give --highest or --lowest, not both")
    problems = Problems(skip=True)
    named = read_excluded(exclude, problems, empty)
    order = "highest" if highest else "lowest" if lowest else ""
    settings = SelectionSettings(order=order, **values)
    source = ScoresFolder(scores).opened()
    selection = select(source, settings, find_excluded(named, source.ids, "the scores", problems))
    if out is None:
        click.echo(formatted(selection, kind), nl=False)
    else:
        write_selection(selection, out, kind)
    summary = [f"{len(selection)} of {selection.eligible} selected {settings.how}"]
    summary += [f"spread by {selection.spread_by}"] if selection.spread_by else []
    summary += [f"{selection.excluded} excluded"] if selection.excluded else []
    summary += selection.unusable()
    print_notes(
        *problems.lines(),
        ", ".join(summary) + (f": {out}" if out else ""),
        tie_note(source, selection),
    )
