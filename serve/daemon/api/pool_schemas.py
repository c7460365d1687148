"""Bodies of requests and replies about pools, described in OpenAPI.

Many replies are records of the services or of the store as they are.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from lloss.serve.daemon.services.hand_out import DIVERSE_MOST, SelectionRequest
from lloss.serve.daemon.store.records import Counts, JobRow, Pending, PoolScores
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from lloss.selection import STRATEGIES, SelectionSettings

MAX_IDS = 1_000_000
"""Ids in a request; the size of its body is limited as well."""

_MAX_FIELDS = 32

Id = Annotated[str, StringConstraints(min_length=1, max_length=8192)]
Label = Annotated[str, StringConstraints(max_length=8192)]
Strategy = Literal["top", "diverse", "random"]
assert set(STRATEGIES) == {"top", "diverse", "random"}


class StrictBody(BaseModel):
    """A body without unknown fields, whose values have the declared types."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class SmallBody(StrictBody):
    """A body with few fields, so that an error does not list millions of unknown ones."""

    @model_validator(mode="before")
    @classmethod
    def _check_count(cls, given: Any) -> Any:
        if isinstance(given, dict) and len(given) > _MAX_FIELDS:
            raise ValueError(f"{len(given)} fields: give only known ones")
        return given


class PoolBody(SmallBody):
    """A pool to add."""

    uri: str = Field(
        min_length=1, max_length=4096, description="An absolute path or a URL under a root."
    )
    scores: str | None = Field(
        None,
        min_length=1,
        max_length=4096,
        description="A complete scores folder of it that lloss score made, under a root as well.",
    )


class SelectBody(SmallBody):
    """Which images to hand out."""

    k: int = Field(ge=1, le=1_000_000, description="How many.")
    strategy: Strategy = Field(
        "top",
        description=f"The highest scores; spread (at most {DIVERSE_MOST:,}); or at random.",
    )
    by: str = Field("loss", min_length=1, max_length=100, description="The column to choose by.")
    order: Literal["", "highest", "lowest"] = Field(
        "", description='Which end of it; "" for that of loss, entropy, confidence or margin.'
    )
    subset: float = Field(
        0, ge=0, le=1e12, allow_inf_nan=False, description="A random sub-pool: a number or share."
    )
    seed: int = Field(0, ge=-(2**63), le=2**63 - 1, description="Of subset and random.")
    at_most: bool = Field(False, description="Take what is left when fewer than k are.")
    exclude: list[Id] = Field(
        default_factory=list,
        max_length=MAX_IDS,
        fail_fast=True,
        description="Ids, or names that match one id each, as names in labels do.",
    )

    def request(self) -> SelectionRequest:
        """Convert it; raises :class:`SettingsError` for values that exclude each other."""
        settings = SelectionSettings(**self.model_dump(exclude={"exclude"}))
        return SelectionRequest(settings, tuple(self.exclude))


class IdsBody(SmallBody):
    """Images of a pool."""

    ids: list[Id] = Field(min_length=1, max_length=MAX_IDS, fail_fast=True)


class ReturnBody(IdsBody):
    """Images of a pool, and the selection that handed them out."""

    selection: str = Field(
        "",
        max_length=100,
        description="Frees only what is still pending by this selection; without it, images are "
        "freed from any selection.",
    )


class LabelBody(StrictBody):
    """A label of an image."""

    id: Id
    label: Label = Field("", description='Its class; "" when the label is kept elsewhere.')


class LabelsBody(StrictBody):
    """Labels of images."""

    labels: list[LabelBody] = Field(min_length=1, max_length=MAX_IDS, fail_fast=True)
    allow_new_classes: bool = Field(False, description="As the parameter of the same name.")
    without: bool = Field(False, description="As the parameter of the same name.")


class PoolView(BaseModel):
    """A pool, its newest complete scores, and the states of its images."""

    name: str
    uri: str
    created: float
    scores: PoolScores | None
    images: Counts
    job: JobRow | None = Field(description="The newest one.")


class PendingView(BaseModel):
    """Pending images, those that become free first at the head."""

    total: int
    images: list[Pending]


class LabeledView(BaseModel):
    """What a request with labels did."""

    images: int = Field(description="Images that are labeled now.")
    kept: int = Field(description="Of them, those that keep the label they had: none was given.")
    by_name: int = Field(
        0,
        description="Of them, those found by a name that is not their id, such as one with other "
        "folders before it.",
    )
    without_class: int = Field(
        0, description="Unchanged images: their annotation in Label Studio chose no class."
    )
    disputed: int = Field(
        0,
        description="Images with annotations of different classes in Label Studio's export: the "
        "newest one counts.",
    )
    new_classes: list[str] = Field(description="Classes that were not known before.")
