"""The providers of onnxruntime: what each needs, its options, and a session on it.

The scorer and the builder of TensorRT engines open their sessions here, with the same options, so
that the scorer finds an engine that was built ahead.
"""

from __future__ import annotations

import importlib.metadata
import re
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from lloss.errors import DeviceMemoryError, EngineError
from lloss.files import locked
from lloss.manifest import INPUT, Manifest
from lloss.runtime import cuda_driver, tf32
from lloss.runtime import shared_libraries as libraries
from lloss.runtime.engine_cache import EngineCache
from lloss.runtime.graph_capture import CAPTURE_LOCK
from lloss.runtime.int8_support import session_options
from lloss.runtime.onnx_runtime import import_onnxruntime

ORDER = ("tensorrt", "cuda", "cpu")
"""The order in which ``auto`` tries providers."""

ON_GPU = ("tensorrt", "cuda")

ORT_NAMES = {
    "tensorrt": "TensorrtExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "cpu": "CPUExecutionProvider",
}

Options = list[tuple[str, dict[str, str]]]

_NO_MEMORY = re.compile(
    "failed to allocate memory|memory allocation failed|out.?of.?memory|_ALLOC_FAILED"
    "|available memory of .* is smaller than",
    re.IGNORECASE,
)
"""Messages of onnxruntime, CUDA, cuBLAS, cuDNN and TensorRT; there is no error code for it."""


def parse_device(text: str) -> tuple[str, int]:
    """Parse ``cuda:1``, ``tensorrt``, ``cpu`` or ``auto`` into provider and GPU number."""
    name, colon, number = text.partition(":")
    if name not in ("auto", *ORDER):
        raise EngineError(
            f"provider {text!r}: choose one of auto, {', '.join(ORDER)}; cuda:1 and tensorrt:1 "
            "name a GPU"
        )
    if not colon:
        return name, 0
    if name not in ON_GPU or not (number.isascii() and number.isdecimal()):
        raise EngineError(
            f"provider {text!r}: give a GPU's number, counted from 0, after cuda or tensorrt, such "
            "as cuda:1"
        )
    return name, int(number)


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
        cuda_driver.driver().check(device_id)
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
        return f"{library} (TensorRT 10) is not on this machine{_other_tensorrt()}"
    if tf32.possible(device_id):
        return (
            "would compute in TF32, which only the environment can forbid: start the program with "
            f"{tf32.VARIABLE}=0"
        )
    return ""


@dataclass(frozen=True)
class SessionSetup:
    """What a session is made for."""

    manifest: Manifest
    provider: str  # tensorrt, cuda or cpu
    batch_size: int  # the largest
    device_id: int = 0
    graphs: bool = True  # capture CUDA graphs; the runs must then keep to fixed addresses


def provider_options(setup: SessionSetup, cache: EngineCache | None = None) -> Options:
    """Names and options for ``InferenceSession(providers=…)``: the provider and its fall-backs.

    The fall-backs run single nodes that the provider cannot; :func:`open_session` checks that the
    provider itself runs.
    """
    options: Options = []
    if setup.provider == "tensorrt":
        options.append((ORT_NAMES["tensorrt"], _tensorrt_options(setup, cache)))
    if setup.provider in ON_GPU:
        options.append((ORT_NAMES["cuda"], _cuda_options(setup)))
    return [*options, (ORT_NAMES["cpu"], {})]


def _cuda_options(setup: SessionSetup) -> dict[str, str]:
    graphs = setup.graphs and setup.provider == "cuda"
    half = setup.manifest.precision == "fp16"  # runs in the layout that tensor cores read
    return {
        "device_id": str(setup.device_id),
        # Two of cuDNN's heuristics, which try nothing out. A convolution keeps one plan and makes
        # it again whenever the number of images changes. Captured graphs plan each batch size
        # once, so that the better heuristic pays; without them the quick one does.
        "cudnn_conv_algo_search": "EXHAUSTIVE" if graphs else "HEURISTIC",
        "cudnn_conv_use_max_workspace": "1",
        "arena_extend_strategy": "kSameAsRequested",
        "prefer_nhwc": _flag(half),
        # For convolutions, 0 excludes all kernels of tensor cores, also those of fp16, which needs
        # them. In an fp16 artifact only the head is fp32. See tf32.py on what binds the libraries.
        "use_tf32": _flag(half),
        "enable_cuda_graph": _flag(graphs),
    }


def _tensorrt_options(setup: SessionSetup, cache: EngineCache | None) -> dict[str, str]:
    image = setup.manifest.image
    counts = {"min": 1, "opt": setup.batch_size, "max": setup.batch_size}
    options = {
        "device_id": str(setup.device_id),
        # The graph has the precision (fp16, QDQ); the builder's own switches stay off.
        "trt_fp16_enable": "0",
        "trt_context_memory_sharing_enable": "1",
        # The provider keeps one captured graph a session, without an id: buffers and batch sizes
        # would replay each other's graph.
        "trt_cuda_graph_enable": "0",
        **{
            f"trt_profile_{end}_shapes": f"{INPUT}:{count}x{image.height}x{image.width}x3"
            for end, count in counts.items()
        },
    }
    if cache is not None:
        options |= {
            "trt_engine_cache_enable": "1",
            "trt_engine_cache_path": str(cache.engines),
            "trt_timing_cache_enable": "1",
            "trt_timing_cache_path": str(cache.timings),
        }
    return options


def engine_cache(setup: SessionSetup, sha256: str) -> EngineCache:
    """The folders of an artifact's TensorRT engines on this machine."""
    gpu = cuda_driver.driver().gpu(setup.device_id)
    machine = {
        "onnxruntime": import_onnxruntime().__version__,
        "tensorrt": libraries.tensorrt_version(),
        "cuda": gpu.cuda,
        "driver": gpu.driver,
        "gpu": gpu.name,
        "compute_capability": gpu.compute_capability,
        # An engine that was built where TF32 was possible may use it.
        "tf32": "possible" if tf32.possible(setup.device_id) else "off",
    }
    model = {
        "sha256": sha256,
        "precision": setup.manifest.precision,
        **_tensorrt_options(setup, None),
    }
    del model["device_id"]  # an engine serves every GPU of the same model
    return EngineCache.of(machine, model)


class Opened(NamedTuple):
    """A session, and why it has no CUDA graphs although its setup asks for them, or ""."""

    session: Any
    note: str = ""


def open_session(path: Path, setup: SessionSetup, sha256: str, options: Any = None) -> Opened:
    """Open a session on the setup's provider, and check that it is the one that runs.

    Call :func:`why_unavailable` first: this function does not repeat its checks. Where the graph
    has nodes that cannot be captured, the session is opened again without CUDA graphs, with a note.
    """
    if setup.provider == "cpu":
        return _open(path, setup, None, options)
    # In a separate thread: onnxruntime changes the current device of the calling thread, and the
    # caller's, such as torch's, must stay.
    with CAPTURE_LOCK.shared(), ThreadPoolExecutor(1, "lloss-open") as thread:
        cache = engine_cache(setup, sha256) if setup.provider == "tensorrt" else None
        # TensorRT writes its files in place: two processes would read each other's halves.
        with locked(cache.timings) if cache else nullcontext():
            return thread.submit(_open, path, setup, cache, options).result()


def _open(path: Path, setup: SessionSetup, cache: EngineCache | None, options: Any) -> Opened:
    if setup.provider != "cpu":
        import_onnxruntime().preload_dlls()  # optional libraries too, such as cuFFT
    chain = provider_options(setup, cache)
    note = ""
    try:
        session = _new_session(path, chain, options)
    except DeviceMemoryError:
        raise
    except EngineError as error:
        if chain[0][1].get("enable_cuda_graph") != "1":
            raise
        note = f"no CUDA graphs: {error}"
        chain = provider_options(replace(setup, graphs=False), cache)
        session = _new_session(path, chain, options)
    running = session.get_providers()[0]
    if running != chain[0][0]:
        raise EngineError(f"{path}: {setup.provider} could not be started, {running} ran instead")
    nodes = _count_nodes(session)
    if not nodes.get(setup.provider):
        raise EngineError(f"{path}: {setup.provider} took none of its nodes ({nodes})")
    return Opened(session, note)


def _new_session(path: Path, providers: Options, options: Any) -> Any:
    ort = import_onnxruntime()
    options = options or session_options(weight_bits=0)
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    try:
        # Without enable_fallback=0, a failure prints a banner and the next provider takes over.
        session = ort.InferenceSession(str(path), options, providers=providers, enable_fallback=0)
    except Exception as error:  # onnxruntime's errors have no common public base
        raise error_type(error)(f"{path}: {first_line(error)}") from error
    session.disable_fallback()
    return session


def _count_nodes(session: Any) -> dict[str, int]:
    """Count the nodes of each provider: a provider can start and be given none."""
    short_names = {long: name for name, long in ORT_NAMES.items()}
    counts: dict[str, int] = {}
    for part in session.get_provider_graph_assignment_info():
        name = short_names.get(part.ep_name, part.ep_name)
        counts[name] = counts.get(name, 0) + len(part.get_nodes())
    return counts


def error_type(error: BaseException) -> type[EngineError]:
    """Our type for an error of onnxruntime; ours keep their type."""
    if isinstance(error, EngineError):
        return type(error)
    return DeviceMemoryError if _NO_MEMORY.search(str(error)) else EngineError


def first_line(error: BaseException) -> str:
    """The first line of an error of onnxruntime, which may be a page long."""
    return next(iter(str(error).splitlines()), type(error).__name__)


def _flag(value: bool) -> str:
    return "1" if value else "0"


def _other_tensorrt() -> str:
    version = libraries.installed_tensorrt()
    if version and not version.startswith("10."):
        return (
            f": TensorRT {version} is installed (plain 'pip install tensorrt' brings it), which "
            "this onnxruntime cannot use: pip install 'lloss[trt]'"
        )
    return ": pip install 'lloss[trt]'"


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
