"""Every error that a user can cause.

::

    images ──train──▶ checkpoint ──export──▶ model.onnx ──score──▶ scores/ ──select──▶ ids
    LabelError        CheckpointError        ModelFileError        ScoresError
    PoolError                                ParityError           SelectionError
    ImageError (one image)   FidelityError   EngineError

Each message is one line: what is wrong, with the value, and what to do. The CLI prints it and exits
with 2.
"""

from __future__ import annotations


class LlossError(Exception):
    """Base of all errors that a user can cause and correct."""

    exit_code = 2
    """Exit status of the CLI."""


class SettingsError(LlossError, ValueError):
    """An invalid option, or an invalid value in ``lloss.toml``."""


class PoolError(LlossError):
    """An unreadable pool, or an id that the pool does not contain."""


class LabelError(LlossError):
    """Labels that do not fit the pool, the model or each other."""


class ImageError(LlossError):
    """One unreadable image: becomes a row of ``skipped.parquet`` instead of ending the run."""


class CheckpointError(LlossError):
    """A training run that cannot be opened or resumed."""


class DivergedError(LlossError):
    """Training whose loss or weights became infinite or NaN."""


class ModelFileError(LlossError):
    """A file that lloss did not export, or that is damaged."""


class ParityError(ModelFileError):
    """An exported graph whose outputs differ from those of the network."""


class FidelityError(ModelFileError):
    """A graph of reduced precision that ranks images differently from the fp32 graph."""


class SlowGraphError(ModelFileError):
    """A graph of reduced precision that is no faster than the fp32 graph."""


class EngineError(LlossError):
    """A provider that cannot run the model."""


class DeviceMemoryError(EngineError):
    """Too little GPU memory for a batch; a smaller batch may fit."""


class DeviceLostError(EngineError):
    """A GPU that this process can no longer use."""


class ScoresError(LlossError):
    """A scores folder that cannot be read or resumed."""


class OtherRunError(ScoresError):
    """A scores folder written with other settings than those of this run."""


class SelectionError(LlossError):
    """An impossible selection: K is larger than the number of images left, for example."""


class ProjectError(LlossError):
    """A project folder that cannot be opened or continued."""


class InterruptedRunError(LlossError):
    """Ctrl-C or SIGTERM; finished work is kept and the same command resumes."""

    exit_code = 130


class MissingExtraError(LlossError, ImportError):
    """Optional packages that are not installed."""

    def __init__(self, what: str, extra: str, missing: str) -> None:
        other = ", or 'lloss[gpu]' for an NVIDIA GPU" if extra == "cpu" else ""
        super().__init__(
            f"{what} needs the package {missing!r}, which is not installed: "
            f"pip install 'lloss[{extra}]'{other}"
        )
