"""Bodies of requests and replies about pools, described in OpenAPI.

Many replies are records of the services or of the store as they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from lloss.serve.daemon.services.image_labels import Labeled
from lloss.serve.daemon.store.records import Counts, JobRow, PoolScores
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    WithJsonSchema,
    model_validator,
)

from lloss.selection import SelectionSettings, strategy_names
from lloss.selection.selection import COMPARED_MOST

_MAX_FIELDS = 32

MAX_IDS = 1_000_000
"""Ids in a request; the size of its body is limited as well."""

Id = Annotated[str, StringConstraints(min_length=1, max_length=8192)]
Label = Annotated[str, StringConstraints(max_length=8192)]


class StrictBody(BaseModel):
    """A body without unknown fields, whose values have the declared types."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class SmallBody(StrictBody):
    """A body with few fields: to list a million unknown ones takes seconds and a gigabyte."""

    @model_validator(mode="before")
    @classmethod
    def _check_count(cls, given: Any) -> Any:
        if isinstance(given, dict) and len(given) > _MAX_FIELDS:
            raise ValueError(f"{len(given)} fields: give only known ones")
        return given


class NoBody(SmallBody):
    """A body without fields: the request has parameters alone."""


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


_STRATEGY = {"type": "string", "enum": ["", *strategy_names()]}


class SelectBody(SmallBody):
    """Which images to hand out."""

    k: int = Field(ge=1, le=1_000_000, description="How many.")
    strategy: Annotated[str, WithJsonSchema(_STRATEGY)] = Field(
        "",
        description="How to choose: top takes the highest scores, random draws; those that compare "
        f'images hand out at most {COMPARED_MOST:,}. "" is herding where the scores have '
        "embeddings, k is not larger than that and no order is given, or else top.",
    )
    by: str = Field("loss", max_length=100, description='The column to choose by; "" for none.')
    order: Literal["", "highest", "lowest"] = Field(
        "", description='Which end of it; "" for that of loss, entropy, confidence or margin.'
    )
    embedding: str = Field(
        "", max_length=100, description='The column to compare images by; "" for the usual one.'
    )
    subset: int = Field(0, ge=0, le=10**12, description="Images of a random sub-pool; 0: all.")
    seed: int = Field(0, ge=-(2**63), le=2**63 - 1, description="Of random draws.")
    at_most: bool = Field(False, description="Take what is left when fewer than k are.")
    min_distance: float = Field(
        0,
        ge=0,
        le=2,
        description="Pass over near-duplicates: images of a smaller cosine distance to a labeled "
        "image or an earlier pick.",
    )
    balance: str = Field(
        "",
        max_length=100,
        description="Spread the picks equally over the groups of a column of the scores; predicted "
        "stands for the classes predicted.",
    )
    class_weight: Literal["", "balanced"] = Field(
        "",
        description="balanced lets images of rare predicted classes weigh more, with herding or "
        "coverage.",
    )
    exclude: list[Id] = Field(
        default_factory=list,
        max_length=MAX_IDS,
        fail_fast=True,
        description="Ids, or names that match one id each, as names in labels do.",
    )

    def settings(self) -> SelectionSettings:
        """Convert all but ``exclude``; SettingsError for values that exclude each other."""
        settings = SelectionSettings(**self.model_dump(exclude={"exclude"}))
        settings.refuse_unused()
        return settings


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


_LABELS = {"type": "array", "items": LabelBody.model_json_schema()}  # without a reference


class LabelsBody(StrictBody):
    """Labels of images."""

    labels: Annotated[list[LabelBody], WithJsonSchema(_LABELS)] = Field(
        min_length=1, max_length=MAX_IDS, fail_fast=True
    )


class PoolView(BaseModel):
    """A pool, its newest complete scores, and the states of its images."""

    name: str
    uri: str
    created: float
    scores: PoolScores | None
    images: Counts
    job: JobRow | None = Field(description="The newest one.")


@dataclass(frozen=True)
class LabeledView(Labeled):
    """What a request with labels did.

    Attributes:
        without_class: unchanged images: their annotation in Label Studio chose no class.
        disputed: images with annotations of different classes in its export: the newest counts.
        notes: which columns of a CSV were read, if not ``id`` and ``label``, and ignored ones that
            may matter.
    """

    without_class: int = 0
    disputed: int = 0
    notes: Sequence[str] = ()
