"""The classes that labels may have: known ones, and new ones if the request allows them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from lloss.serve.daemon.errors import RequestError
from lloss.serve.daemon.services.model_manager import ModelManager
from lloss.serve.daemon.store.image_table import ImageTable

from lloss.text.clean_names import clean_name
from lloss.text.similar_names import COMPARED, nearest

CHOOSE = "choose a class first (or skip)"


class NewClassError(RequestError):
    """Classes that neither the model nor a label has: ``name``; ``short`` is for a user."""

    def __init__(self, new: Sequence[str], known: Iterable[str]) -> None:
        self.name = new[0]
        shown, resembles = repr(new[0][:COMPARED]), repr(nearest(new[0], known))
        others = f" (and {len(new) - 1} more)" if len(new) > 1 else ""
        super().__init__(
            422,
            f"the class {shown}{others} is new; the nearest known one is {resembles}; none was "
            "marked: correct it, or allow it by allow_new_classes=true",
        )
        self.short = f"{shown} is a new class; the most similar one is {resembles}."


class LabelClasses:
    """Checks labels against the classes of the serving model and of earlier labels.

    If the model is not a classifier, all labels are accepted, also "".
    """

    def __init__(self, models: ModelManager, images: ImageTable) -> None:
        self._models, self._images = models, images

    @property
    def required(self) -> bool:
        """Whether labels need a class; also before a model is loaded."""
        return not self._models.sha256 or "prediction" in self._models.current.manifest.outputs

    def new_in(self, pool: str, names: Iterable[str]) -> list[str]:
        """The new classes among names; none if the pool has no classes yet."""
        asked = {name for name in names if name} if self.required else set()
        if not asked - self._of_model():
            return []
        known = self._known(pool)
        return sorted(asked - known) if known else []

    def checked(
        self, pool: str, labels: Mapping[str, str], new_classes: bool = False, without: bool = False
    ) -> tuple[dict[str, str], list[str]]:
        """The labels, cleaned by :func:`lloss.text.clean_names.clean_name`, and new classes.

        Raises RequestError: 422 an image has no class, or a new one; see ``ImageLabels.label``.
        """
        clean = {id: clean_name(label) for id, label in labels.items()}
        blank = next((id for id, label in labels.items() if label and not clean[id]), None)
        if blank is not None:
            raise RequestError(
                422,
                f"{CHOOSE}: the label of {blank[:200]!r} is {labels[blank][:COMPARED]!r}, which "
                "has no visible character; none was marked",
            )
        if self.required and not without:
            self._check_labeled(pool, [id for id in clean if not clean[id]])
        new = self.new_in(pool, clean.values())
        if new and not new_classes:
            raise NewClassError(new, self._known(pool))
        return clean, new

    def _check_labeled(self, pool: str, ids: list[str]) -> None:
        states = self._images.states(pool, ids)
        bare = [id for id in ids if id not in states or not states[id].label]
        if bare:
            more = f" and {len(bare) - 1} more have" if len(bare) > 1 else " has"
            raise RequestError(
                422,
                f"{CHOOSE}: {bare[0][:200]!r}{more} no label; none was marked (if labels are "
                "kept elsewhere: without=true)",
            )

    def _of_model(self) -> set[str]:
        models = self._models
        return set(map(clean_name, models.current.manifest.classes if models.sha256 else ()))

    def _known(self, pool: str) -> set[str]:
        return self._of_model() | set(map(clean_name, self._images.label_names(pool)))
