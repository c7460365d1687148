"""What a provider needs, its options, and that it is the one that runs."""

from __future__ import annotations

import importlib.metadata
import json
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnxruntime as ort
import pytest

from lloss.errors import DeviceMemoryError, EngineError
from lloss.files import locked
from lloss.images.decode import ImageSpec
from lloss.manifest import Manifest, read_manifest
from lloss.runtime import cuda_driver, providers, shared_libraries, tf32
from lloss.runtime.providers import (
    SessionSetup,
    error_type,
    open_session,
    parse_provider,
    provider_options,
    why_unavailable,
)

from .fake_driver import FakeDriver

ALL = ["TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"]
MANIFEST = Manifest(
    task="classification", model="m", classes=("a", "b"), image=ImageSpec(32, 48),
    mean=(0, 0, 0), std=(1, 1, 1), outputs={"loss": ()},
)  # fmt: skip
FP16 = replace(MANIFEST, precision="fp16")
SETUP = SessionSetup(MANIFEST, "cuda", 256)


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """onnxruntime for GPUs, whichever is installed; and a driver with one GPU."""
    monkeypatch.setattr(ort, "get_available_providers", lambda: ALL)
    monkeypatch.setattr(cuda_driver, "load_library", FakeDriver)
    monkeypatch.setenv(tf32.VARIABLE, "0")


def install(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    """Only these libraries are on the machine."""
    load = lambda name: any(part in name for part in names)  # noqa: E731
    monkeypatch.setattr(shared_libraries, "load", load)


def test_devices_are_parsed() -> None:
    parsed = [parse_provider(text) for text in ("auto", "cpu", "cuda", "cuda:0", "tensorrt:12")]
    assert parsed == [("auto", 0), ("cpu", 0), ("cuda", 0), ("cuda", 0), ("tensorrt", 12)]
    for text in ("cuda:", "cuda:x", "cuda:-1", "cuda:²", "cpu:0", "auto:1", "gpu", ""):
        with pytest.raises(EngineError, match=f"provider '{text}': .*; cuda:1 and"):
            parse_provider(text)


def test_a_complete_machine_misses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, "lib")
    assert [why_unavailable(name) for name in providers.ORDER] == ["", "", ""]
    problem = "GPU 1: this machine shows 1, counted from 0"
    assert [why_unavailable(name, 1) for name in providers.ORDER] == [problem, problem, ""]


def test_tensorrt_is_refused_where_it_may_use_tf32(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, "lib")
    monkeypatch.delenv(tf32.VARIABLE)
    assert why_unavailable("tensorrt").endswith("start the program with NVIDIA_TF32_OVERRIDE=0")
    assert not why_unavailable("cuda"), "it has an option of its own"


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
    assert "hide each other: pip uninstall both" in why_unavailable("cuda")


def test_what_is_missing_is_named_with_its_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda = ("cublas", "curand", "cudart")
    install(monkeypatch, *cuda)
    problem = why_unavailable("cuda")
    assert problem == "libcudnn.so.9 is not on this machine: pip install 'lloss[gpu]'"
    assert why_unavailable("tensorrt") == problem, "TensorRT needs it too"
    install(monkeypatch, *cuda, "cudnn")
    assert why_unavailable("tensorrt") == (
        "libnvinfer.so.10 (TensorRT 10) is not on this machine: pip install 'lloss[trt]'"
    )
    monkeypatch.setattr(cuda_driver, "load_library", lambda: FakeDriver(0))
    for name in ("cuda", "tensorrt"):
        assert why_unavailable(name).startswith("the NVIDIA driver finds no GPU")


def test_options_of_cuda() -> None:
    ((_, fp32), _) = provider_options(SETUP)
    assert fp32["use_tf32"] == "0" and fp32["prefer_nhwc"] == "0"
    ((_, fp16), _) = provider_options(replace(SETUP, manifest=FP16, device_id=2))
    assert fp16["prefer_nhwc"] == "1" and fp16["device_id"] == "2"
    assert fp16["use_tf32"] == "1", "without it convolutions get no tensor cores, in fp16 either"


def test_options_of_tensorrt(tmp_path: Path) -> None:
    setup = replace(SETUP, provider="tensorrt")
    ((_, options), *_) = provider_options(setup, tmp_path / "engines")
    assert options["trt_profile_min_shapes"] == "images:1x32x48x3"
    assert options["trt_profile_opt_shapes"] == "images:256x32x48x3"
    assert options["trt_profile_max_shapes"] == "images:256x32x48x3"
    assert options["trt_engine_cache_path"] == str(tmp_path / "engines")


@pytest.mark.parametrize("name", ["cuda", "tensorrt"])
def test_the_runtime_knows_every_option(name: str) -> None:
    """An option that the wheel does not contain would be an error on a machine with a GPU."""
    chain = provider_options(replace(SETUP, provider=name), Path("a/b"))
    assert [provider for provider, _ in chain] == ALL[providers.ORDER.index(name) :]
    file = Path(ort.__file__).parent / "capi" / f"libonnxruntime_providers_{name}.so"
    if not file.is_file():
        pytest.skip("needs onnxruntime-gpu")
    binary = file.read_bytes()
    for option in chain[0][1]:
        assert option.encode() in binary, option


def test_the_key_of_an_engine_has_all_it_depends_on(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(shared_libraries, "tensorrt_version", lambda: "101401")
    setup = replace(SETUP, provider="tensorrt", manifest=FP16)
    folder = providers._engine_folder(setup, "ab" * 32)
    assert folder.is_relative_to(tmp_path / "lloss" / "tensorrt")
    key = json.loads((folder / "key.json").read_text())
    assert (
        key.items()
        > {
            "onnxruntime": ort.__version__,
            "tensorrt": "101401",
            "cuda": "13.2",
            "gpu": "Fake GPU 0",
            "compute_capability": "9.0",
            "sha256": "ab" * 32,
            "trt_profile_max_shapes": "images:256x32x48x3",
        }.items()
    )
    assert "device_id" not in key


@pytest.fixture
def setup(onnx_file: Path) -> SessionSetup:
    return SessionSetup(read_manifest(onnx_file), "cpu", 16)


def test_a_session_on_the_cpu(onnx_file: Path, setup: SessionSetup, tmp_path: Path) -> None:
    session = open_session(onnx_file, setup, "")
    nodes = providers.count_nodes(session)
    assert set(nodes) == {"CPUExecutionProvider"} and nodes["CPUExecutionProvider"] > 10
    assert session.get_session_options().intra_op_num_threads == 1
    path = tmp_path / "bad.onnx"
    path.write_bytes(b"no graph")
    with pytest.raises(EngineError, match=r"bad\.onnx: ") as raised:
        open_session(path, setup, "")
    assert "\n" not in str(raised.value)


def test_another_provider_than_was_asked_for_is_an_error(
    onnx_file: Path, setup: SessionSetup, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ort, "preload_dlls", lambda: None)
    real = ort.InferenceSession

    def session(path: str, options: Any, providers: Any, **rest: Any) -> Any:
        return real(path, options, providers=["CPUExecutionProvider"], **rest)

    monkeypatch.setattr(ort, "InferenceSession", session)
    with pytest.raises(EngineError, match="cuda could not be started, CPUExecutionProvider ran"):
        open_session(onnx_file, replace(setup, provider="cuda"), "")
    monkeypatch.setattr(providers, "count_nodes", lambda session: {"CUDAExecutionProvider": 3})
    with pytest.raises(EngineError, match="cpu took none of its nodes"):
        open_session(onnx_file, setup, "")


@pytest.mark.parametrize("provider", ["cuda", "tensorrt"])
def test_the_callers_thread_keeps_its_gpu_and_one_process_writes_engines(
    provider: str,
    onnx_file: Path,
    setup: SessionSetup,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """The runtime changes the current GPU of the thread that opens a session."""
    monkeypatch.setattr(ort, "preload_dlls", lambda: None)
    monkeypatch.setattr(providers, "_engine_folder", lambda *_: tmp_path)
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
        open_session(onnx_file, replace(setup, provider=provider), "")
    assert len(threads) == 1 and threads[0] != threading.get_ident()
    assert locks == [provider == "tensorrt"]


@pytest.mark.parametrize(
    "line",
    [
        "Status Message: bfc_arena.cc:376 Failed to allocate memory for requested buffer of size 9",
        "Available memory of 12 is smaller than requested bytes of 99",
        "CUDA failure 2: out of memory ; GPU=0 ; expr=cudaMalloc(&p, size);",
        "CUBLAS failure 3: CUBLAS_STATUS_ALLOC_FAILED",
    ],
)
def test_messages_of_memory_that_is_out(line: str) -> None:
    assert error_type(RuntimeError(f"Non-zero status code\n{line}")) is DeviceMemoryError
    assert error_type(RuntimeError("CUDA failure 700: an illegal memory access")) is EngineError
