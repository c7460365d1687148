"""``lloss merge``."""

from __future__ import annotations

from pathlib import Path

import click

from lloss.cli.options import FOLDER_OR_URL, print_notes
from lloss.errors import SettingsError
from lloss.scores.folder_files import folder_files
from lloss.scores.merge import merge_shards
from lloss.text.counts import counted


@click.command("merge")
@click.argument("shards", type=FOLDER_OR_URL, nargs=-1, required=True)
@click.option(
    "-o", "--out", type=FOLDER_OR_URL, required=True, help="The scores folder to write, or its URL."
)
def command(shards: tuple[Path | str, ...], out: Path | str) -> None:
    """Merge the scores folders of all SHARDS into one.

    Refuses shards that are missing, unfinished, or of different models, pools or settings. The
    result equals what one run over the whole pool would have written.
    """
    if folder_files(out).key in {folder_files(shard).key for shard in shards}:
        raise SettingsError(f"-o {out}: is one of the shards; choose a new folder")
    counts = merge_shards(shards, out)
    skipped = f", {counts['skipped']} skipped" if counts["skipped"] else ""
    print_notes(f"{out}: {counted(counts['scored'], 'image')} scored{skipped}")
