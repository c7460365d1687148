"""What a provider needs, its options, and that it is the one that runs."""

from __future__ import annotations

import ctypes
import importlib.metadata
import json
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnxruntime as ort
import pytest

from lloss.errors import DeviceMemoryError, EngineError
from lloss.files import locked, sha256_of
from lloss.images.decode import ImageSpec
from lloss.manifest import Manifest, read_manifest
from lloss.runtime import cuda_driver, providers, shared_libraries, tf32
from lloss.runtime.engine_cache import EngineCache
from lloss.runtime.providers import (
    SessionSetup,
    error_type,
    open_session,
    parse_device,
    provider_options,
    why_unavailable,
)

ALL = ["TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"]
MANIFEST = Manifest(
    task="classification", model="m", classes=("a", "b"), image=ImageSpec(32, 48),
    mean=(0, 0, 0), std=(1, 1, 1), outputs={"loss": ()},
)  # fmt: skip
FP16 = replace(MANIFEST, precision="fp16")
SETUP = SessionSetup(MANIFEST, "cuda", 256)


@pytest.fixture(autouse=True)
def gpu_wheel(monkeypatch: pytest.MonkeyPatch) -> None:
    """onnxruntime for GPUs, whichever is installed."""
    monkeypatch.setattr(ort, "get_available_providers", lambda: ALL)


@pytest.fixture
def driver(fake_cuda: Path, monkeypatch: pytest.MonkeyPatch) -> cuda_driver.Driver:
    """A machine with a driver and a GPU."""
    library = ctypes.CDLL(str(fake_cuda))
    library.fake_gpus(1)
    made = cuda_driver.Driver(library)
    monkeypatch.setattr(cuda_driver, "driver", lambda: made)
    return made


def install(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    """Only these libraries are on the machine."""
    load = lambda name: any(part in name for part in names)  # noqa: E731
    monkeypatch.setattr(shared_libraries, "load", load)


def test_a_complete_machine_misses_nothing(
    driver: cuda_driver.Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(monkeypatch, "lib")
    monkeypatch.setenv(tf32.VARIABLE, "0")
    assert [why_unavailable(name) for name in providers.ORDER] == ["", "", ""]
    problem = "GPU 1: this machine shows 1, counted from 0"
    assert [why_unavailable(name, 1) for name in providers.ORDER] == [problem, problem, ""]


def test_tensorrt_is_refused_where_it_may_use_tf32(
    driver: cuda_driver.Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(monkeypatch, "lib")
    monkeypatch.delenv(tf32.VARIABLE, raising=False)
    problem = why_unavailable("tensorrt")
    assert problem.endswith("start the program with NVIDIA_TF32_OVERRIDE=0")
    assert not why_unavailable("cuda"), "it has an option of its own"
    monkeypatch.setenv(tf32.VARIABLE, "1")
    assert why_unavailable("tensorrt") == problem


def test_devices_are_parsed() -> None:
    parsed = [parse_device(text) for text in ("auto", "cpu", "cuda", "cuda:0", "tensorrt:12")]
    assert parsed == [("auto", 0), ("cpu", 0), ("cuda", 0), ("cuda", 0), ("tensorrt", 12)]
    for text in ("cuda:", "cuda:x", "cuda:-1", "cuda:²", "cpu:0", "auto:1"):
        with pytest.raises(EngineError, match=f"provider '{text}': .* such as cuda:1"):
            parse_device(text)


def test_a_provider_that_is_not_in_the_wheel(monkeypatch: pytest.MonkeyPatch) -> None:
    def install_wheels(*names: str) -> None:
        def distribution(name: str) -> str:
            if name not in names:
                raise importlib.metadata.PackageNotFoundError(name)
            return name

        monkeypatch.setattr(importlib.metadata, "distribution", distribution)

    monkeypatch.setattr(ort, "get_available_providers", lambda: ["CPUExecutionProvider"])
    assert not why_unavailable("cpu")
    install_wheels("onnxruntime")
    assert why_unavailable("cuda") == "is not in the installed onnxruntime"
    install_wheels("onnxruntime", "onnxruntime-gpu")
    problem = why_unavailable("cuda")
    assert "hide each other: pip uninstall both" in problem


@pytest.mark.parametrize("provider", ["cuda", "tensorrt"])
def test_a_machine_without_driver(provider: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda_driver, "LIBRARY", "libcuda.so.none")
    monkeypatch.setattr(cuda_driver, "driver", cuda_driver.Driver)
    problem = why_unavailable(provider)
    assert problem.startswith("libcuda.so.none is not on this machine")


def test_a_missing_library_is_named_with_its_extra(
    driver: cuda_driver.Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    cuda = ("cublas", "cufft", "curand", "cudart")
    install(monkeypatch, *cuda)
    problem = why_unavailable("cuda")
    assert problem == "libcudnn.so.9 is not on this machine: pip install 'lloss[gpu]'"
    assert why_unavailable("tensorrt") == problem, "TensorRT needs it too"
    install(monkeypatch, *cuda, "cudnn")
    monkeypatch.setattr(shared_libraries, "installed_tensorrt", lambda: None)
    assert why_unavailable("tensorrt") == (
        "libnvinfer.so.10 (TensorRT 10) is not on this machine: pip install 'lloss[trt]'"
    )
    monkeypatch.setattr(shared_libraries, "installed_tensorrt", lambda: "11.4.0.106")
    problem = why_unavailable("tensorrt")
    assert "TensorRT 11.4.0.106 is installed" in problem and "'lloss[trt]'" in problem


def test_fall_backs_follow_the_provider() -> None:
    for start, name in enumerate(providers.ORDER):
        chain = [name for name, _ in provider_options(replace(SETUP, provider=name))]
        assert chain == ALL[start:]


def test_options_of_cuda() -> None:
    ((_, fp32), _) = provider_options(SETUP)
    assert fp32["use_tf32"] == "0" and fp32["enable_cuda_graph"] == "1"
    assert fp32["arena_extend_strategy"] == "kSameAsRequested" and fp32["prefer_nhwc"] == "0"
    ((_, fp16), _) = provider_options(replace(SETUP, manifest=FP16, graphs=False, device_id=2))
    assert fp16["prefer_nhwc"] == "1" and fp16["enable_cuda_graph"] == "0"
    assert fp16["use_tf32"] == "1", "without it convolutions get no tensor cores, in fp16 either"
    assert fp16["device_id"] == "2"
    below = provider_options(replace(SETUP, provider="tensorrt"))[1][1]
    searches = [given["cudnn_conv_algo_search"] for given in (fp32, fp16, below)]
    assert searches == ["EXHAUSTIVE", "HEURISTIC", "HEURISTIC"], "only graphs plan each size once"


def test_options_of_tensorrt(tmp_path: Path) -> None:
    cache = EngineCache(tmp_path / "engines", tmp_path / "timings")
    setup = replace(SETUP, provider="tensorrt")
    (_, options), (_, below), _ = provider_options(setup, cache)
    assert options["trt_profile_min_shapes"] == "images:1x32x48x3"
    assert options["trt_profile_opt_shapes"] == "images:256x32x48x3"
    assert options["trt_profile_max_shapes"] == "images:256x32x48x3"
    assert options["trt_engine_cache_path"] == str(tmp_path / "engines")
    assert options["trt_timing_cache_path"] == str(tmp_path / "timings")
    assert options["trt_cuda_graph_enable"] == below["enable_cuda_graph"] == "0"
    assert "trt_engine_cache_enable" not in provider_options(setup)[0][1]


@pytest.mark.parametrize("name", ["cuda", "tensorrt"])
def test_the_runtime_knows_every_option(name: str) -> None:
    """An option that the wheel does not contain would be an error on a machine with a GPU."""
    file = Path(ort.__file__).parent / "capi" / f"libonnxruntime_providers_{name}.so"
    if not file.is_file():
        pytest.skip("needs onnxruntime-gpu")
    binary, cache = file.read_bytes(), EngineCache(Path("a"), Path("b"))
    for option in provider_options(replace(SETUP, provider=name), cache)[0][1]:
        assert option.encode() in binary, option


def test_the_key_of_an_engine_has_all_it_depends_on(
    driver: cuda_driver.Driver, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv(tf32.VARIABLE, raising=False)
    monkeypatch.setattr(shared_libraries, "tensorrt_version", lambda: "10.14.1")
    setup = replace(SETUP, provider="tensorrt", manifest=FP16)
    cache = providers.engine_cache(setup, "ab" * 32)
    assert cache.engines.is_relative_to(tmp_path / "lloss" / "tensorrt")
    key = json.loads((cache.engines / "key.json").read_text())
    wanted = {
        "sha256": "ab" * 32,
        "onnxruntime": ort.__version__,
        "tensorrt": "10.14.1",
        "cuda": "13.2",
        "gpu": "Fake GPU",
        "compute_capability": "9.0",
        "precision": "fp16",
        "trt_profile_max_shapes": "images:256x32x48x3",
        "tf32": "possible",
    }
    assert wanted.items() <= key.items()
    assert "driver" in key and "device_id" not in key
    monkeypatch.setenv(tf32.VARIABLE, "0")
    without = providers.engine_cache(setup, "ab" * 32)
    assert without.engines != cache.engines and without.timings != cache.timings


@pytest.fixture
def setup(artifact: Path) -> SessionSetup:
    return SessionSetup(read_manifest(artifact), "cpu", 16)


def test_a_session_on_the_cpu(artifact: Path, setup: SessionSetup) -> None:
    options = ort.SessionOptions()
    options.logid = "mine"
    opened = open_session(artifact, setup, sha256_of(artifact), options)
    assert not opened.note
    nodes = providers._count_nodes(opened.session)
    assert set(nodes) == {"cpu"} and nodes["cpu"] > 10
    assert opened.session.get_session_options().logid == "mine"


def test_a_file_that_the_runtime_cannot_load_is_one_line(
    tmp_path: Path, setup: SessionSetup
) -> None:
    path = tmp_path / "bad.onnx"
    path.write_bytes(b"no graph")
    with pytest.raises(EngineError, match=r"bad\.onnx: ") as raised:
        open_session(path, setup, "")
    assert "\n" not in str(raised.value)


@pytest.fixture
def cuda_sessions(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, str]]:
    """Sessions of CUDA that the CPU runs; returns the options that they get."""
    monkeypatch.setattr(ort, "preload_dlls", lambda: None)
    real, given = ort.InferenceSession, []

    def session(path: str, options: Any, providers: Any, **rest: Any) -> Any:
        given.append(providers[0][1])
        if providers[0][1]["enable_cuda_graph"] == "1":
            raise RuntimeError("This session cannot use the graph capture feature\nmore")
        return real(path, options, providers=["CPUExecutionProvider"], **rest)

    monkeypatch.setattr(ort, "InferenceSession", session)
    return given


def test_a_silent_fall_back_is_an_error(
    artifact: Path, setup: SessionSetup, cuda_sessions: list[dict[str, str]]
) -> None:
    with pytest.raises(EngineError, match="cuda could not be started, CPUExecutionProvider ran"):
        open_session(artifact, replace(setup, provider="cuda"), "")


def test_a_model_that_cannot_be_captured_runs_without_graphs(
    artifact: Path,
    setup: SessionSetup,
    cuda_sessions: list[dict[str, str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real = ort.InferenceSession

    def on_cuda(*arguments: Any, **rest: Any) -> Any:
        session = real(*arguments, **rest)
        session.get_providers = lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"]
        return session

    monkeypatch.setattr(ort, "InferenceSession", on_cuda)
    monkeypatch.setattr(providers, "_count_nodes", lambda session: {"cuda": 80, "cpu": 2})
    opened = open_session(artifact, replace(setup, provider="cuda"), "")
    assert [options["enable_cuda_graph"] for options in cuda_sessions] == ["1", "0"]
    assert "no CUDA graphs: " in opened.note and "graph capture feature" in opened.note


@pytest.mark.parametrize("provider", ["cuda", "tensorrt"])
def test_the_callers_thread_keeps_its_gpu_and_one_process_writes_engines(
    provider: str,
    artifact: Path,
    setup: SessionSetup,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """The runtime changes the current device of the thread that opens a session."""
    monkeypatch.setattr(ort, "preload_dlls", lambda: None)
    monkeypatch.setattr(providers, "engine_cache", lambda *_: EngineCache(tmp_path, tmp_path))
    threads, locks = [], []

    def session(*_: Any, **rest: Any) -> None:
        threads.append(threading.get_ident())
        try:
            with locked(tmp_path, EngineError("busy")):
                locks.append(False)
        except EngineError:
            locks.append(True)
        raise RuntimeError("Failed to allocate memory for requested buffer of size 7")

    monkeypatch.setattr(ort, "InferenceSession", session)
    with pytest.raises(DeviceMemoryError, match="buffer of size 7"):
        open_session(artifact, replace(setup, provider=provider), "")
    assert len(threads) == 1, "without graphs it would need as much memory"
    assert threads[0] != threading.get_ident()
    assert locks == [provider == "tensorrt"]
    with locked(tmp_path, EngineError("it is free again")):
        pass


def test_a_provider_without_nodes_does_not_run(
    artifact: Path, setup: SessionSetup, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(providers, "_count_nodes", lambda session: {"cuda": 3})
    with pytest.raises(EngineError, match="cpu took none of its nodes"):
        open_session(artifact, setup, "")


@pytest.mark.parametrize(
    "line",
    [
        "Status Message: bfc_arena.cc:376 Failed to allocate memory for requested buffer of size 9",
        "Available memory of 12 is smaller than requested bytes of 99",
        "CUDA failure 2: out of memory ; GPU=0 ; expr=cudaMalloc(&p, size);",
        "CUBLAS failure 3: CUBLAS_STATUS_ALLOC_FAILED",
        "the NVIDIA driver: cuMemAlloc_v2 failed with CUDA_ERROR_OUT_OF_MEMORY (2)",
    ],
)
def test_messages_of_memory_that_is_out(line: str) -> None:
    assert error_type(RuntimeError(f"Non-zero status code\n{line}")) is DeviceMemoryError
    assert error_type(RuntimeError("CUDA failure 700: an illegal memory access")) is EngineError
