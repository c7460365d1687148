"""The providers of onnxruntime: what each needs, its options, and a session on it."""

from __future__ import annotations

import importlib.metadata
import re
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lloss.errors import DeviceMemoryError, EngineError
from lloss.files import locked
from lloss.manifest import INPUT, Manifest
from lloss.runtime import cuda_driver, tf32
from lloss.runtime import shared_libraries as libraries
from lloss.runtime.int8_support import session_options, weight_bits
from lloss.runtime.onnx_runtime import import_onnxruntime
from lloss.runtime.tensorrt_cache import engine_folder

ORDER = ("tensorrt", "cuda", "cpu")

ORT_NAMES = {
    "tensorrt": "TensorrtExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "cpu": "CPUExecutionProvider",
}

Options = list[tuple[str, dict[str, str]]]

_DEVICE = re.compile(r"(auto|cpu)|(tensorrt|cuda)(?::([0-9]+))?")

_NO_MEMORY = re.compile(
    "failed to allocate memory|memory allocation failed|out.?of.?memory|_ALLOC_FAILED"
    "|available memory of .* is smaller than",
    re.IGNORECASE,
)
"""Messages of onnxruntime, CUDA, cuBLAS, cuDNN and TensorRT; there is no error code for it."""


@dataclass(frozen=True)
class SessionSetup:
    """What a session is made for."""

    manifest: Manifest
    provider: str  # tensorrt, cuda or cpu
    batch_size: int  # the largest
    device_id: int = 0


def parse_provider(text: str) -> tuple[str, int]:
    """Parse ``cuda:1``, ``tensorrt``, ``cpu`` or ``auto`` into provider and GPU number."""
    found = _DEVICE.fullmatch(text)
    if not found:
        raise EngineError(
            f"provider {text!r}: choose one of auto, {', '.join(ORDER)}; cuda:1 and tensorrt:1 "
            "name a GPU, counted from 0"
        )
    without_gpu, on_gpu, number = found.groups()
    return without_gpu or on_gpu, int(number or 0)


def candidates(provider: str, precision: str) -> tuple[str, ...]:
    """The providers that :class:`.Engine` tries, in this order, until one works."""
    if provider != "auto":
        return (provider,)
    return ("cpu",) if precision == "int8" else ORDER  # int8 models are for CPUs


def why_unavailable(provider: str, device_id: int = 0) -> str:
    """Return why a provider cannot run on this machine, with the remedy; "" when it can.

    This check prevents pages of messages from the loader. It leaves the libraries that it finds
    loaded, as the provider needs them.
    """
    ort = import_onnxruntime()
    if ORT_NAMES[provider] not in ort.get_available_providers():
        return f"is not in the installed onnxruntime{_clash()}"
    if provider == "cpu":
        return ""
    try:
        cuda_driver.check_gpu(device_id)
    except EngineError as error:
        return str(error)
    cuda_version = getattr(ort, "cuda_version", "") or "13"
    library = libraries.first_missing(libraries.cuda_libraries(cuda_version.partition(".")[0]))
    if library:
        return f"{library} is not on this machine: pip install 'lloss[gpu]'"
    if provider == "cuda":
        return ""
    library = libraries.first_missing(libraries.TENSORRT)
    if library:
        return f"{library} (TensorRT 10) is not on this machine: pip install 'lloss[trt]'"
    if not tf32.forbidden():
        return (
            "would compute in TF32, which only the environment can forbid: start the program with "
            f"{tf32.VARIABLE}=0"
        )
    return ""


def open_session(path: Path, setup: SessionSetup, sha256: str) -> Any:
    """Open a session on the setup's provider, and check that it is the one that runs.

    Call :func:`why_unavailable` first: this function does not repeat its checks.
    """
    if setup.provider == "cpu":
        return _open(path, setup, None)
    # In a separate thread: onnxruntime changes the current GPU of the calling thread, and the
    # caller's, such as torch's, must stay.
    with ThreadPoolExecutor(1, "lloss-open") as thread:
        engines = _engine_folder(setup, sha256) if setup.provider == "tensorrt" else None
        # TensorRT writes its files in place: two processes would read each other's halves.
        with locked(engines) if engines else nullcontext():
            return thread.submit(_open, path, setup, engines).result()


def provider_options(setup: SessionSetup, engines: Path | None = None) -> Options:
    """Names and options for ``InferenceSession(providers=…)``: the provider and its fall-backs.

    The fall-backs run single nodes that the provider cannot; :func:`open_session` checks that the
    provider itself runs. ``engines`` is the folder of TensorRT's engine.
    """
    half = setup.manifest.precision == "fp16"
    cuda = {
        "device_id": str(setup.device_id),
        # A heuristic, which tries nothing out: a convolution plans again whenever the number of
        # images changes.
        "cudnn_conv_algo_search": "HEURISTIC",
        "cudnn_conv_use_max_workspace": "1",
        "arena_extend_strategy": "kSameAsRequested",
        "prefer_nhwc": "1" if half else "0",  # the layout that tensor cores read
        # For convolutions, 0 excludes all kernels of tensor cores, also those of fp16, which needs
        # them. In an fp16 model only the head is fp32.
        "use_tf32": "1" if half else "0",
    }
    options = {"tensorrt": _tensorrt_options(setup, engines), "cuda": cuda, "cpu": {}}
    first = ORDER.index(setup.provider)
    return [(ORT_NAMES[name], options[name]) for name in ORDER[first:]]


def _tensorrt_options(setup: SessionSetup, engines: Path | None = None) -> dict[str, str]:
    image = setup.manifest.image
    counts = {"min": 1, "opt": setup.batch_size, "max": setup.batch_size}
    options = {
        "device_id": str(setup.device_id),
        "trt_context_memory_sharing_enable": "1",
        **{
            f"trt_profile_{end}_shapes": f"{INPUT}:{count}x{image.height}x{image.width}x3"
            for end, count in counts.items()
        },
    }
    if engines is not None:
        options |= {
            "trt_engine_cache_enable": "1",
            "trt_engine_cache_path": str(engines),
        }
    return options


def _engine_folder(setup: SessionSetup, sha256: str) -> Path:
    """The folder of an exported model's TensorRT engine on this machine."""
    gpu = cuda_driver.gpu(setup.device_id)
    key = {
        "onnxruntime": import_onnxruntime().__version__,
        "tensorrt": libraries.tensorrt_version(),
        "cuda": gpu.cuda,
        "gpu": gpu.name,
        "compute_capability": gpu.compute_capability,
        "sha256": sha256,
        **_tensorrt_options(setup),
    }
    del key["device_id"]  # an engine serves every GPU of the same model
    return engine_folder(key)


def _open(path: Path, setup: SessionSetup, engines: Path | None) -> Any:
    ort = import_onnxruntime()
    options = session_options(1, weight_bits(setup.manifest))
    options.inter_op_num_threads = 1
    # A thread never spins: an idle core is the decoder's.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    if setup.provider != "cpu":
        ort.preload_dlls()  # optional libraries too, such as NVRTC
    chain = provider_options(setup, engines)
    try:
        # Without enable_fallback=0, a failure prints a banner and the next provider takes over.
        session = ort.InferenceSession(str(path), options, providers=chain, enable_fallback=0)
    except Exception as error:  # onnxruntime's errors have no common public base
        raise error_type(error)(f"{path}: {first_line(error)}") from error
    session.disable_fallback()
    running = session.get_providers()[0]
    if running != chain[0][0]:
        raise EngineError(f"{path}: {setup.provider} could not be started, {running} ran instead")
    if not count_nodes(session).get(running):
        raise EngineError(f"{path}: {setup.provider} took none of its nodes")
    return session


def count_nodes(session: Any) -> dict[str, int]:
    """Count the nodes of each provider: a provider can start and be given none."""
    counts: dict[str, int] = {}
    for part in session.get_provider_graph_assignment_info():
        counts[part.ep_name] = counts.get(part.ep_name, 0) + len(part.get_nodes())
    return counts


def error_type(error: BaseException) -> type[EngineError]:
    """Our type for an error of onnxruntime; ours keep their type."""
    if isinstance(error, EngineError):
        return type(error)
    return DeviceMemoryError if _NO_MEMORY.search(str(error)) else EngineError


def first_line(error: BaseException) -> str:
    """The first line of an error of onnxruntime, which may be a page long."""
    return next(iter(str(error).splitlines()), type(error).__name__)


def _clash() -> str:
    """Both wheels share one folder; the one installed last wins, often the one without GPU."""
    for name in ("onnxruntime", "onnxruntime-gpu"):
        try:
            importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            return ""
    return (
        "; onnxruntime and onnxruntime-gpu are installed together and hide each other: "
        "pip uninstall both, then pip install onnxruntime-gpu"
    )
