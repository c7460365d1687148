"""Which labels a pool takes: a class is chosen, and one that is new is meant."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lloss.serve.daemon.errors import RequestError
from lloss.serve.daemon.store.image_table import ImageTable

from lloss.text.clean_names import clean_name
from lloss.text.similar_names import COMPARED, nearest

if TYPE_CHECKING:
    from lloss.serve.daemon.services.model_manager import Models

_SHOWN = 5
"""Names that a refusal lists."""

CHOOSE = "choose a class first (or skip)"


class NewClassError(RequestError):
    """A class that neither the model nor an earlier label knows.

    Attributes:
        name: of the class.
        short: what is said to who can be asked back.
    """

    def __init__(self, name: str, resembles: str, message: str) -> None:
        super().__init__(422, message)
        self.name = name
        self.short = f"{name[:COMPARED]!r} is no class so far; the nearest one is {resembles!r}."


@dataclass(frozen=True)
class Accepted:
    """What labels may be beside classes that are known.

    Attributes:
        new_classes: names that neither the model nor an earlier label knows.
        without: "", for an image whose label is kept elsewhere.
        reason: why there are none at all, which a refusal adds.
    """

    new_classes: bool = False
    without: bool = False
    reason: str = ""


class Classes:
    """Checks labels against the classes of the model that serves and of earlier labels.

    Where the model is no classifier, labels are no class names: all are accepted, also "".
    """

    def __init__(self, models: Models, images: ImageTable) -> None:
        self._models, self._images = models, images

    @property
    def required(self) -> bool:
        """Whether an image that is labeled needs a class; also while no model is loaded."""
        return not self._models.sha256 or self._models.manifest.task == "classification"

    def new_in(self, pool: str, names: Iterable[str]) -> list[str]:
        """Those of some names that are new; none where no class is known so far."""
        if not self.required:
            return []
        asked = {name for name in names if name}
        rest = sorted(asked - self._of_model())
        known = self._known(pool) if rest else set()
        return [name for name in rest if name not in known] if known else []

    def checked(self, pool: str, labels: Mapping[str, str], accepted: Accepted) -> dict[str, str]:
        """The labels as class names are compared, see :func:`lloss.text.clean_names.clean_name`.

        Raises:
            RequestError: 422 an image without a class, or with one that nobody can see.
            NewClassError: a class that is new.
        """
        clean = {id: clean_name(label) for id, label in labels.items()}
        blank = next((id for id, label in labels.items() if label and not clean[id]), None)
        if blank is not None:
            raise RequestError(
                422,
                f"{CHOOSE}: the label of {blank[:200]!r} is {labels[blank][:COMPARED]!r}, which "
                "has no visible character; none was marked",
            )
        if self.required and not accepted.without:
            self._check_chosen(pool, clean, accepted.reason)
        if not accepted.new_classes:
            new = self.new_in(pool, clean.values())
            if new:
                raise self._refusal(pool, new)
        return clean

    def _check_chosen(self, pool: str, labels: Mapping[str, str], reason: str) -> None:
        bare = [id for id, label in labels.items() if not label]
        if not bare:
            return
        states = self._images.states(pool, bare)
        lost = [id for id in bare if id not in states or not states[id].label]
        if lost:
            more = f" and {len(lost) - 1} more have" if len(lost) > 1 else " has"
            raise RequestError(
                422,
                f"{CHOOSE}: {lost[0][:200]!r}{more} no label; none was marked (where labels are "
                f"kept elsewhere: without=true){reason}",
            )

    def _of_model(self) -> set[str]:
        if not self._models.sha256:
            return set()
        return set(map(clean_name, self._models.manifest.classes))

    def _known(self, pool: str) -> set[str]:
        return self._of_model() | set(map(clean_name, self._images.known_labels(pool)))

    def _refusal(self, pool: str, new: list[str]) -> NewClassError:
        known = sorted(self._known(pool))
        listed = ", ".join(repr(name[:COMPARED]) for name in known[:_SHOWN])
        more = f" and {len(known) - _SHOWN} more" if len(known) > _SHOWN else ""
        others = f" (and {len(new) - 1} more)" if len(new) > 1 else ""
        resembles = nearest(new[0], known)
        return NewClassError(
            new[0],
            resembles,
            f"the class {new[0][:COMPARED]!r}{others} is new; the nearest known one is "
            f"{resembles!r} (known: {listed}{more}); none was marked: correct it, or "
            "allow it by allow_new_classes=true",
        )
