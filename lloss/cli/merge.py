"""``lloss merge``."""

from __future__ import annotations

from pathlib import Path

import click

from lloss.cli.options import PATH, print_notes
from lloss.errors import SettingsError
from lloss.scores.merge import merge_shards


@click.command("merge")
@click.argument("shards", type=PATH, nargs=-1, required=True)
@click.option("-o", "--out", type=PATH, required=True, help="The scores folder to write.")
def command(shards: tuple[Path, ...], out: Path) -> None:
    """Merge the scores folders of all SHARDS into one.

    Refuses shards that are missing, unfinished, or of different models, pools or settings. The
    result equals what one run over the whole pool would have written.
    """
    if out.resolve() in {shard.resolve() for shard in shards}:
        raise SettingsError(f"-o {out}: is one of the shards; choose a new folder")
    counts = merge_shards(shards, out)
    skipped = f", {counts['skipped']} skipped" if counts["skipped"] else ""
    print_notes(f"{out}: {counts['scored']} images scored{skipped}")
