"""Every error that a user can cause.

::

    images ──train──▶ checkpoint ──export──▶ model.onnx ──score──▶ scores/ ──select──▶ ids
    LabelError        CheckpointError        ArtifactError         ScoresError
    PoolError                                ParityError           SelectionError
    ImageError (one image)   FidelityError   EngineError

Each message is one line: what was wrong, with the value, and what to do. The CLI prints it and
exits with 2.
"""

from __future__ import annotations


class LlossError(Exception):
    """Base of all errors that a user can cause and mend."""

    exit_code = 2
    """What the CLI exits with."""


class SettingsError(LlossError, ValueError):
    """An option or a value in ``lloss.toml`` that cannot be used."""


class PoolError(LlossError):
    """A pool that cannot be read, or an id that it does not hold."""


class LabelError(LlossError):
    """Labels that do not fit the pool, the model or each other."""


class ImageError(LlossError):
    """One image that cannot be decoded or resized: a row in ``skipped.parquet``, not a lost run."""


class CheckpointError(LlossError):
    """A training run that cannot be opened or continued."""


class DivergedError(LlossError):
    """A training whose loss or weights became infinite or NaN."""


class ArtifactError(LlossError):
    """A model file that is no lloss artifact."""


class ParityError(ArtifactError):
    """An exported graph that does not compute what the network computes."""


class FidelityError(ArtifactError):
    """A graph of reduced precision that does not rank images as the fp32 graph does."""


class EngineError(LlossError):
    """A provider that cannot run the artifact."""


class DeviceMemoryError(EngineError):
    """A GPU that has too little memory for a batch: a smaller one may fit."""


class DeviceLostError(EngineError):
    """A GPU on which nothing of this process runs any more."""


class CaptureError(EngineError):
    """A CUDA graph that cannot be captured, or replays wrongly: its session is not to be used."""


class ScoresError(LlossError):
    """A scores folder that cannot be read or resumed."""


class OtherRunError(ScoresError):
    """A scores folder that was begun with other settings, which may come back."""


class SelectionError(LlossError):
    """A selection that cannot be made, such as a K larger than what is left."""


class ProjectError(LlossError):
    """A project folder that cannot be opened or continued."""


class InterruptedRunError(LlossError):
    """Ctrl-C or SIGTERM; what was done is kept and the same command goes on from there."""

    exit_code = 130


class MissingExtraError(LlossError, ImportError):
    """A part of lloss whose optional packages are not installed."""

    def __init__(self, what: str, extra: str, missing: str, *other_extras: str) -> None:
        extras = " or ".join(f"'lloss[{name}]'" for name in (extra, *other_extras))
        super().__init__(
            f"{what} needs the package {missing!r}, which is not installed: pip install {extras}"
        )
