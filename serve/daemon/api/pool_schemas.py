"""Bodies of requests and answers about pools and jobs; they are what OpenAPI tells of."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from lloss.serve.daemon.services.job_runner import Jobs
from lloss.serve.daemon.services.selections import DIVERSE_MOST, HandedOut, Ranked, SelectionRequest
from lloss.serve.daemon.store.records import Counts, JobRow, JobState, Pending, PoolRow
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from lloss.pools.uri import without_secrets
from lloss.selection import STRATEGIES, SelectionSettings

IDS_MOST = 1_000_000
"""Ids in a request; its bytes are bounded as well."""

_FIELDS = 32
"""Of a body, known ones or not."""

Id = Annotated[str, StringConstraints(min_length=1, max_length=8192)]
Label = Annotated[str, StringConstraints(max_length=8192)]
Strategy = Literal["top", "diverse", "random"]
assert set(STRATEGIES) == {"top", "diverse", "random"}


class Strict(BaseModel):
    """A body without anything unknown in it, in the types that it says."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Narrow(Strict):
    """A body of few fields, of which there are not millions of complaints."""

    @model_validator(mode="before")
    @classmethod
    def _few(cls, given: Any) -> Any:
        if isinstance(given, dict) and len(given) > _FIELDS:
            raise ValueError(f"{len(given)} fields: give at most those that are known")
        return given


class PoolPut(Narrow):
    """A pool to name."""

    uri: str = Field(
        min_length=1, max_length=4096, description="An absolute path or a URL under a root."
    )
    scores: str | None = Field(
        None,
        min_length=1,
        max_length=4096,
        description="A complete scores folder of it that lloss score made, under a root as well.",
    )


class SelectBody(Narrow):
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
        max_length=IDS_MOST,
        fail_fast=True,
        description="Ids, or names that mean one image each as names in labels do.",
    )

    def request(self) -> SelectionRequest:
        """As selections take it.

        Raises:
            SettingsError: a value that cannot be.
        """
        settings = SelectionSettings(**self.model_dump(exclude={"exclude"}))
        return SelectionRequest(settings, tuple(self.exclude))


class IdsBody(Narrow):
    """Images of a pool."""

    ids: list[Id] = Field(min_length=1, max_length=IDS_MOST, fail_fast=True)


class ReturnBody(IdsBody):
    """Images of a pool, and the selection that handed them out."""

    selection: str = Field(
        "",
        max_length=100,
        description="Frees only what is still pending by this selection; without it, images are "
        "freed from any selection.",
    )


class LabelIn(Strict):
    """An image that is labeled."""

    id: Id
    label: Label = Field("", description='Its class; "" where the label is kept elsewhere.')


class LabelsBody(Strict):
    """Images that are labeled."""

    labels: list[LabelIn] = Field(min_length=1, max_length=IDS_MOST, fail_fast=True)
    allow_new_classes: bool = Field(False, description="As the parameter of the same name.")
    without: bool = Field(False, description="As the parameter of the same name.")


def labels_schema() -> dict[str, Any]:
    """The JSON schema of :class:`LabelsBody`, in one piece."""
    schema = LabelsBody.model_json_schema()
    schema["properties"]["labels"]["items"] = schema.pop("$defs")["LabelIn"]
    return schema


class ScoresView(BaseModel):
    """The newest complete scores of a pool; times are Unix seconds everywhere."""

    folder: str
    model_sha256: str
    scored: int
    skipped: int


class CountsView(BaseModel):
    """How many images are what."""

    labeled: int
    pending: int
    skipped: int


class JobView(BaseModel):
    """A pool on its way to be scored."""

    id: str
    pool: str
    state: JobState
    model_sha256: str
    created: float
    started: float | None
    ended: float | None
    done: int
    total: int | None = Field(description="Of the pool; null where counting is not cheap.")
    scored: int
    skipped: int
    rate: float | None = Field(description="Images a second of a job that runs.")
    error: str
    resumable: bool = Field(description="Whether it goes on where it failed, submitted again.")
    batch_size: int

    @classmethod
    def of(cls, row: JobRow, jobs: Jobs) -> JobView:
        """With the progress of now."""
        now = jobs.live(row)
        fields = {name: getattr(now, name) for name in cls.model_fields if name != "rate"}
        return cls(**fields, rate=jobs.rate(row))


class PoolView(BaseModel):
    """A pool and what is known of it."""

    name: str
    uri: str
    created: float
    scores: ScoresView | None
    images: CountsView
    job: JobView | None = Field(description="The newest one.")

    @classmethod
    def of(cls, row: PoolRow, counts: Counts, newest: JobRow | None, jobs: Jobs) -> PoolView:
        """All of it."""
        scores = None
        if row.scores is not None:
            scores = ScoresView(
                folder=str(row.scores),
                model_sha256=row.model_sha256 or "",
                scored=row.scored,
                skipped=row.skipped,
            )
        return cls(
            name=row.name,
            uri=without_secrets(row.uri),
            created=row.created,
            scores=scores,
            images=CountsView(**vars(counts)),
            job=None if newest is None else JobView.of(newest, jobs),
        )


class PoolsView(BaseModel):
    """All pools."""

    pools: list[PoolView]


class JobsView(BaseModel):
    """Jobs, the newest first."""

    jobs: list[JobView]


class RankedView(BaseModel):
    """An image that was chosen."""

    id: str
    score: float | None
    rank: int

    @classmethod
    def listed(cls, images: Any) -> list[RankedView]:
        """JSON knows no infinity."""
        found: list[Ranked] = list(images)
        return [cls(id=o.id, score=finite(o.score), rank=o.rank) for o in found]


class SelectionView(BaseModel):
    """Images that were handed out, best first."""

    id: str
    pool: str
    model_sha256: str
    expires: float = Field(description="When those that are not labeled by then become free.")
    eligible: int = Field(description="Images the choice was made from.")
    replayed: bool = Field(description="Whether an earlier request with the same key made it.")
    unknown: int = Field(0, description="Ids to exclude that mean no scored image.")
    by_name: int = Field(0, description="Ids to exclude that mean one by another name.")
    notes: list[str] = Field([], description="What to know of the choice: scores that tie.")
    images: list[RankedView]

    @classmethod
    def of(cls, handed: HandedOut) -> SelectionView:
        """All of it."""
        return cls(**{**vars(handed), "images": RankedView.listed(handed.images)})


class PreviewView(BaseModel):
    """The images that would be handed out next."""

    images: list[RankedView]


class PendingView(BaseModel):
    """An image that somebody has."""

    id: str
    selection: str
    expires: float
    score: float | None
    rank: int

    @classmethod
    def of(cls, pending: Pending) -> PendingView:
        """All of it."""
        return cls(**{**vars(pending), "score": finite(pending.score)})


class PendingsView(BaseModel):
    """Images that somebody has, those that become free first at the head."""

    total: int
    images: list[PendingView]


class LabelView(BaseModel):
    """A labeled image."""

    id: str
    label: str


class LabelsView(BaseModel):
    """Labeled images."""

    labels: list[LabelView]


class MarkedView(BaseModel):
    """How many images became another thing."""

    images: int


class LabeledView(BaseModel):
    """What became of labels."""

    images: int = Field(description="That are labeled now.")
    kept: int = Field(description="Of them, that had a label and keep it: they were given none.")
    by_name: int = Field(
        0,
        description="Of them, that were found by a name that is not their id, such as one with "
        "other folders before it.",
    )
    without_class: int = Field(
        0, description="Left as they are: their annotation in Label Studio's export chose no class."
    )
    disputed: int = Field(
        0,
        description="That have annotations of different classes in Label Studio's export: the "
        "newest one counts.",
    )
    new_classes: list[str] = Field(description="Classes that were not known before.")


class ReturnedView(BaseModel):
    """What became of images that were given back."""

    images: int = Field(description="That are free now and were not.")
    others: int = Field(description="That another selection has by now, and keeps.")
    unknown: int = Field(description="Ids that are not in the pool.")


def finite(score: float | None) -> float | None:
    """The score, if JSON can tell it."""
    return score if score is not None and math.isfinite(score) else None
