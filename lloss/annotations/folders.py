"""Where the images lie that a file names."""

from __future__ import annotations

from collections.abc import Sequence

from lloss.pools.places import LocalPlace, Place

_TRIED = 8
"""Images looked for before the file's own folder is taken for theirs."""


def image_folder(listing: Place, names: Sequence[str], asked: str = "") -> Place:
    """The folder of a file's images.

    Args:
        listing: the file.
        names: of the images, as it writes them.
        asked: the folder that the user names, relative to the file's; "" to look for it.

    Returns:
        The first of the file's folder, ``images`` in it and ``images`` beside it that holds one of
        the first images; the file's folder if none does.
    """
    if isinstance(listing, LocalPlace):
        listing = LocalPlace(listing.path.absolute(), listing.within)
    folder = listing.parent
    if asked:
        return folder.at(asked)
    candidates = (folder, folder.at("images"), folder.parent.at("images"))
    for name in names[:_TRIED]:
        for candidate in candidates:
            if candidate.at(name).kind() == "file":
                return candidate
    return folder
