"""What computes: the providers of onnxruntime, what each needs, and the options they run with.

The scorer and the builder of TensorRT engines make their sessions here, with the same options, so
that an engine that was built ahead is the one that is looked for. Nothing here imports onnxruntime
before it is asked to.
"""

from __future__ import annotations

import importlib.metadata
import re
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

from lloss.errors import DeviceMemoryError, EngineError
from lloss.files import locked
from lloss.manifest import INPUT, Manifest
from lloss.runtime import cuda_driver as cuda
from lloss.runtime import shared_libraries as libraries
from lloss.runtime import tf32
from lloss.runtime.engine_cache import EngineCache
from lloss.runtime.graph_capture import DEVICES

Provider = Literal["auto", "tensorrt", "cuda", "cpu"]

ORDER = ("tensorrt", "cuda", "cpu")
"""What ``auto`` tries, in this order."""

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
"""Of the runtime's arena, CUDA, cuBLAS, cuDNN and TensorRT: the runtime has no code for it."""


def parse_device(text: str) -> tuple[str, int]:
    """Provider and number of the GPU from ``cuda``, ``cuda:1``, ``tensorrt:1``, ``cpu``, ``auto``.

    Raises:
        EngineError: it names no provider, or a GPU where none can be named.
    """
    name, colon, number = text.partition(":")
    if name not in get_args(Provider):
        choices = ", ".join(get_args(Provider))
        raise EngineError(
            f"provider {text!r}: choose one of {choices}; cuda:1 and tensorrt:1 name a GPU"
        )
    if not colon:
        return name, 0
    if name not in ON_GPU or not (number.isascii() and number.isdecimal()):
        raise EngineError(
            f"provider {text!r}: a GPU is named by its number, counted from 0, after cuda or "
            "tensorrt, such as cuda:1"
        )
    return name, int(number)


def missing(provider: str, available: Sequence[str], device_id: int = 0) -> str | None:
    """Why a provider cannot run on this machine at all, with the remedy; None when it can.

    Asking first spares a page of the loader's noise. Libraries that are found stay loaded, which
    is what the provider needs of them.

    Args:
        provider: ``tensorrt``, ``cuda`` or ``cpu``.
        available: of ``onnxruntime.get_available_providers()``.
        device_id: number of the GPU.
    """
    if ORT_NAMES[provider] not in available:
        return f"is not in the installed onnxruntime{_clash()}"
    if provider == "cpu":
        return None
    try:
        cuda.driver().check(device_id)
    except EngineError as error:
        return str(error)
    lacking = libraries.first_missing(libraries.cuda_libraries(_cuda_major()))
    if lacking:
        return f"{lacking} is not on this machine: pip install 'lloss[gpu]'"
    if provider == "tensorrt":
        lacking = libraries.first_missing(libraries.TENSORRT)
        if lacking:
            return f"{lacking} (TensorRT 10) is not on this machine{_other_tensorrt()}"
        if tf32.possible(device_id):
            return (
                "would compute in TF32, which only the environment forbids it: start the program "
                f"with {tf32.VARIABLE}=0"
            )
    return None


@dataclass(frozen=True)
class Setup:
    """What a session is made for.

    Attributes:
        provider: ``tensorrt``, ``cuda`` or ``cpu``.
        image: height and width of the input.
        batch_size: the largest batch.
        precision: of the artifact; fp16 networks run in the layout that tensor cores read.
        device_id: number of the GPU.
        graphs: whether CUDA graphs may be captured; the runs must then keep to fixed addresses.
    """

    provider: str
    image: tuple[int, int]
    batch_size: int
    precision: str = "fp32"
    device_id: int = 0
    graphs: bool = True

    def profile(self) -> dict[str, str]:
        """TensorRT's range of shapes for the input, in onnxruntime's notation."""
        height, width = self.image
        return {
            f"trt_profile_{end}_shapes": f"{INPUT}:{count}x{height}x{width}x3"
            for end, count in (("min", 1), ("opt", self.batch_size), ("max", self.batch_size))
        }


def provider_options(setup: Setup, cache: EngineCache | None = None) -> Options:
    """Names and options for ``InferenceSession(providers=…)``: the provider and its fall-backs.

    The fall-backs run single nodes that the first cannot; that the first one runs at all is for
    the caller to check.
    """
    options: Options = []
    if setup.provider == "tensorrt":
        options.append((ORT_NAMES["tensorrt"], _tensorrt_options(setup, cache)))
    if setup.provider in ON_GPU:
        options.append((ORT_NAMES["cuda"], _cuda_options(setup)))
    return [*options, (ORT_NAMES["cpu"], {})]


def _cuda_options(setup: Setup) -> dict[str, str]:
    graphs = setup.graphs and setup.provider == "cuda"
    return {
        "device_id": str(setup.device_id),
        # These are two of cuDNN's heuristics by now; nothing is tried out. A convolution keeps one
        # plan and makes it again whenever the number of images changes. Captured graphs plan each
        # bucket once, and the better heuristic pays; else the quick one does.
        "cudnn_conv_algo_search": "EXHAUSTIVE" if graphs else "HEURISTIC",
        "cudnn_conv_use_max_workspace": "1",
        "arena_extend_strategy": "kSameAsRequested",
        "prefer_nhwc": _flag(setup.precision == "fp16"),
        # For convolutions the option leaves out all kernels of tensor cores, those of fp16 too,
        # which need them. Of an fp16 artifact only the head is fp32; see .tf32 for what binds it.
        "use_tf32": _flag(setup.precision == "fp16"),
        "enable_cuda_graph": _flag(graphs),
    }


def _tensorrt_options(setup: Setup, cache: EngineCache | None) -> dict[str, str]:
    options = {
        "device_id": str(setup.device_id),
        # Precision is in the graph (fp16, QDQ); the builder's own switches stay off.
        "trt_fp16_enable": "0",
        "trt_context_memory_sharing_enable": "1",
        # The provider keeps one captured graph a session and no id of it; buffers and buckets
        # would replay each other's.
        "trt_cuda_graph_enable": "0",
        **setup.profile(),
    }
    if cache is not None:
        options |= {
            "trt_engine_cache_enable": "1",
            "trt_engine_cache_path": str(cache.engines),
            "trt_timing_cache_enable": "1",
            "trt_timing_cache_path": str(cache.timings),
        }
    return options


@dataclass(frozen=True)
class Opened:
    """A session that really runs on the provider that was asked for.

    Attributes:
        session: an ``onnxruntime.InferenceSession``.
        provider: ``tensorrt``, ``cuda`` or ``cpu``.
        graphs: whether it captures CUDA graphs; only a device's executor may run it then.
        nodes: how many of the graph's nodes each provider runs.
        note: why there are no CUDA graphs although they were asked for; empty otherwise.
    """

    session: Any
    provider: str
    graphs: bool
    nodes: Mapping[str, int]
    note: str = ""


def setup_of(
    manifest: Manifest, provider: str, batch_size: int, device_id: int = 0, graphs: bool = True
) -> Setup:
    """The setup that an artifact runs with: the one place where scorer and builder agree."""
    size = (manifest.image.height, manifest.image.width)
    return Setup(provider, size, batch_size, manifest.precision, device_id, graphs)


def engine_cache(setup: Setup, sha256: str) -> EngineCache:
    """Where TensorRT's engines for an artifact are kept on this machine.

    Args:
        setup: what the session is made for.
        sha256: of the artifact's file.

    Raises:
        EngineError: there is no GPU, or others can write to the folder.
    """
    import onnxruntime

    gpu = cuda.driver().gpu(setup.device_id)
    machine = {
        "onnxruntime": onnxruntime.__version__,
        "tensorrt": libraries.tensorrt_version(),
        "cuda": gpu.cuda,
        "driver": gpu.driver,
        "gpu": gpu.name,
        "compute_capability": gpu.compute_capability,
        # Engines of before TF32 was kept out have kernels that use it.
        "tf32": "possible" if tf32.possible(setup.device_id) else "off",
    }
    model = {"sha256": sha256, "precision": setup.precision, **_tensorrt_options(setup, None)}
    del model["device_id"]  # engines are a model of GPU's, not one GPU's
    return EngineCache.of(machine, model)


def open_session(path: Path, setup: Setup, sha256: str, options: Any = None) -> Opened:
    """Make a session on the provider of ``setup``, and check that it is the one that runs.

    Call :func:`missing` first: this does not repeat what it finds. Where the graph has nodes that
    cannot be captured, the session is made again without CUDA graphs, and the note says why. No
    other session captures a CUDA graph at the same time.

    Args:
        path: the artifact.
        setup: what for.
        sha256: of the file; names TensorRT's cache.
        options: an ``onnxruntime.SessionOptions``; those of the CPU are the caller's to choose.

    Raises:
        DeviceMemoryError: the GPU has too little memory left.
        EngineError: the provider cannot run the artifact.
    """
    if setup.provider == "cpu":
        return _opened(path, setup, None, options)
    # In a thread of its own: the runtime makes the GPU the calling thread's current device, and
    # the caller's, such as torch's, must not change.
    with DEVICES.shared(), ThreadPoolExecutor(1, "lloss-open") as thread:
        cache = engine_cache(setup, sha256) if setup.provider == "tensorrt" else None
        # TensorRT writes its files in place: two processes would read each other's halves.
        with locked(cache.timings) if cache else nullcontext():
            return thread.submit(_opened, path, setup, cache, options).result()


def _opened(path: Path, setup: Setup, cache: EngineCache | None, options: Any) -> Opened:
    import onnxruntime

    if setup.provider != "cpu":
        onnxruntime.preload_dlls()  # what it can do with and without, such as cuFFT
    wanted = provider_options(setup, cache)
    graphs = any(given.get("enable_cuda_graph") == "1" for _, given in wanted)
    note = ""
    try:
        session = _session(path, wanted, options)
    except DeviceMemoryError:
        raise
    except EngineError as error:
        if not graphs:
            raise
        graphs, note = False, f"no CUDA graphs: {error}"
        wanted = provider_options(replace(setup, graphs=False), cache)
        session = _session(path, wanted, options)
    running = session.get_providers()[0]
    if running != wanted[0][0]:
        raise EngineError(
            f"{path}: {setup.provider} could not be started, {running} ran in its place"
        )
    nodes = _placement(session)
    if not nodes.get(setup.provider):
        raise EngineError(f"{path}: {setup.provider} took none of its nodes ({nodes})")
    return Opened(session, setup.provider, graphs, nodes, note)


def _placement(session: Any) -> dict[str, int]:
    """How many nodes each provider was given: a provider can start and be given none."""
    names = {long: short for short, long in ORT_NAMES.items()}
    counts: dict[str, int] = {}
    for part in session.get_provider_graph_assignment_info():
        name = names.get(part.ep_name, part.ep_name)
        counts[name] = counts.get(name, 0) + len(part.get_nodes())
    return counts


def _session(path: Path, providers: Options, options: Any) -> Any:
    import onnxruntime

    if options is None:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3  # errors; what else matters is checked after
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    try:
        # Without enable_fallback=0 a failure prints a banner and the next provider takes over.
        session = onnxruntime.InferenceSession(
            str(path), options, providers=providers, enable_fallback=0
        )
    except Exception as error:  # the runtime's own errors have no common public base
        raise kind_of(error)(f"{path}: {first_line(error)}") from error
    session.disable_fallback()
    return session


def kind_of(error: BaseException) -> type[EngineError]:
    """What an error of the runtime's is here: :class:`DeviceMemoryError`, or any; ours as it is."""
    if isinstance(error, EngineError):
        return type(error)
    return DeviceMemoryError if _NO_MEMORY.search(str(error)) else EngineError


def first_line(error: BaseException) -> str:
    """The first line of an error of the runtime's, which goes on for a page."""
    return next(iter(str(error).splitlines()), type(error).__name__)


def _flag(value: bool) -> str:
    return "1" if value else "0"


def _cuda_major() -> str:
    import onnxruntime

    version: str = getattr(onnxruntime, "cuda_version", "") or "13"
    return version.partition(".")[0]


def _other_tensorrt() -> str:
    found = libraries.tensorrt_elsewhere()
    if found and not found.startswith("10."):
        return (
            f": TensorRT {found} is installed (plain 'pip install tensorrt' brings it), which "
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
