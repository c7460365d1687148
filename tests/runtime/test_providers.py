"""What a provider needs, what it is run with, and that it is the one that runs."""

from __future__ import annotations

import ctypes
import importlib.metadata
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnxruntime as ort
import pytest

from lloss.errors import DeviceMemoryError, EngineError
from lloss.files import locked, sha256_of
from lloss.manifest import read_manifest
from lloss.runtime import cuda_driver as cuda
from lloss.runtime import providers, tf32
from lloss.runtime import shared_libraries as libraries
from lloss.runtime.engine_cache import EngineCache
from lloss.runtime.providers import (
    Setup,
    missing,
    open_session,
    parse_device,
    provider_options,
    setup_of,
)

ALL = ["TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"]
SETUP = Setup("cuda", (32, 48), 256)


def test_importing_it_loads_no_runtime() -> None:
    code = (
        "import lloss.runtime.providers, sys; assert not {'onnxruntime', 'onnx'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.fixture
def driver(fake_cuda: Path, monkeypatch: pytest.MonkeyPatch) -> cuda.Driver:
    """A machine with a driver and a GPU."""
    library = ctypes.CDLL(str(fake_cuda))
    library.fake_gpus(1)
    made = cuda.Driver(library)
    monkeypatch.setattr(cuda, "driver", lambda: made)
    return made


def installed(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    """Only these libraries are on the machine."""
    monkeypatch.setattr(libraries, "load", lambda name: any(n in name for n in names))


def test_a_machine_that_has_everything_misses_nothing(
    driver: cuda.Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed(monkeypatch, "lib")
    monkeypatch.setenv(tf32.VARIABLE, "0")
    assert [missing(name, ALL) for name in providers.ORDER] == [None, None, None]
    problem = "GPU 1: this machine shows 1, counted from 0"
    assert [missing(name, ALL, 1) for name in providers.ORDER] == [problem, problem, None]


def test_tensorrt_is_refused_where_it_may_use_tf32(
    driver: cuda.Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed(monkeypatch, "lib")
    monkeypatch.delenv(tf32.VARIABLE, raising=False)
    problem = missing("tensorrt", ALL)
    assert problem is not None and problem.endswith("start the program with NVIDIA_TF32_OVERRIDE=0")
    assert missing("cuda", ALL) is None, "it has an option of its own"
    monkeypatch.setenv(tf32.VARIABLE, "1")
    assert missing("tensorrt", ALL) == problem


def test_a_gpu_is_named_by_its_number() -> None:
    found = [parse_device(text) for text in ("auto", "cpu", "cuda", "cuda:0", "tensorrt:12")]
    assert found == [("auto", 0), ("cpu", 0), ("cuda", 0), ("cuda", 0), ("tensorrt", 12)]


@pytest.mark.parametrize("text", ["cuda:", "cuda:x", "cuda:-1", "cuda:²", "cpu:0", "auto:1"])
def test_other_names_of_a_gpu_are_refused(text: str) -> None:
    with pytest.raises(EngineError, match=f"provider '{text}': .* such as cuda:1"):
        parse_device(text)


def test_a_provider_that_is_not_in_the_wheel(monkeypatch: pytest.MonkeyPatch) -> None:
    assert missing("cpu", ["CPUExecutionProvider"]) is None
    monkeypatch.setattr(importlib.metadata, "distribution", _only("onnxruntime"))
    assert missing("cuda", ["CPUExecutionProvider"]) == "is not in the installed onnxruntime"
    monkeypatch.setattr(importlib.metadata, "distribution", _only("onnxruntime", "onnxruntime-gpu"))
    problem = missing("cuda", ["CPUExecutionProvider"])
    assert problem is not None and "hide each other: pip uninstall both" in problem


def _only(*names: str) -> Any:
    def distribution(name: str) -> str:
        if name not in names:
            raise importlib.metadata.PackageNotFoundError(name)
        return name

    return distribution


@pytest.mark.parametrize("provider", ["cuda", "tensorrt"])
def test_no_driver(provider: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda, "LIBRARY", "libcuda.so.none")
    monkeypatch.setattr(cuda, "driver", cuda.Driver)
    problem = missing(provider, ALL)
    assert problem is not None and problem.startswith("libcuda.so.none is not on this machine")


def test_a_missing_library_is_named_with_the_extra_that_brings_it(
    driver: cuda.Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed(monkeypatch, "cublas", "cufft", "curand", "cudart")
    problem = missing("cuda", ALL)
    assert problem == "libcudnn.so.9 is not on this machine: pip install 'lloss[gpu]'"
    assert missing("tensorrt", ALL) == problem, "what CUDA lacks, TensorRT lacks"


def test_tensorrt_of_another_major_is_not_it(
    driver: cuda.Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed(monkeypatch, "cublas", "cufft", "curand", "cudart", "cudnn")
    monkeypatch.setattr(libraries, "tensorrt_elsewhere", lambda: None)
    assert missing("tensorrt", ALL) == (
        "libnvinfer.so.10 (TensorRT 10) is not on this machine: pip install 'lloss[trt]'"
    )
    monkeypatch.setattr(libraries, "tensorrt_elsewhere", lambda: "11.4.0.106")
    problem = missing("tensorrt", ALL)
    assert problem is not None
    assert "TensorRT 11.4.0.106 is installed" in problem and "'lloss[trt]'" in problem


def test_the_fall_backs_follow_the_provider() -> None:
    chains = {
        name: [ort_name for ort_name, _ in provider_options(replace(SETUP, provider=name))]
        for name in providers.ORDER
    }
    assert chains == {"tensorrt": ALL, "cuda": ALL[1:], "cpu": ALL[2:]}


def test_options_of_cuda() -> None:
    ((_, fp32), _) = provider_options(SETUP)
    assert fp32["use_tf32"] == "0" and fp32["enable_cuda_graph"] == "1"
    assert fp32["arena_extend_strategy"] == "kSameAsRequested" and fp32["prefer_nhwc"] == "0"
    ((_, fp16), _) = provider_options(replace(SETUP, precision="fp16", graphs=False, device_id=2))
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


def test_the_runtime_knows_every_option() -> None:
    """One that the wheel never names would be an error on a machine with a GPU."""
    folder = Path(ort.__file__).parent / "capi"
    for name, setup in (("cuda", SETUP), ("tensorrt", replace(SETUP, provider="tensorrt"))):
        file = folder / f"libonnxruntime_providers_{name}.so"
        if not file.is_file():
            pytest.skip("needs onnxruntime-gpu")
        binary = file.read_bytes()
        cache = EngineCache(Path("a"), Path("b"))
        for option in provider_options(setup, cache)[0][1]:
            assert option.encode() in binary, option


def test_an_engines_key_names_all_it_depends_on(
    driver: cuda.Driver, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import json

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv(tf32.VARIABLE, raising=False)
    monkeypatch.setattr(libraries, "tensorrt_version", lambda: "10.14.1")
    setup = replace(SETUP, provider="tensorrt", precision="fp16")
    cache = providers.engine_cache(setup, "ab" * 32)
    assert cache.engines.is_relative_to(tmp_path / "lloss" / "tensorrt")
    key = json.loads((cache.engines / "key.json").read_text())
    assert (
        key.items()
        >= {
            "sha256": "ab" * 32,
            "onnxruntime": ort.__version__,
            "tensorrt": "10.14.1",
            "cuda": "13.2",
            "gpu": "Fake GPU",
            "compute_capability": "9.0",
            "precision": "fp16",
            "trt_profile_max_shapes": "images:256x32x48x3",
            "tf32": "possible",
        }.items()
    )
    assert "driver" in key and "device_id" not in key
    monkeypatch.setenv(tf32.VARIABLE, "0")
    without = providers.engine_cache(setup, "ab" * 32)
    assert without.engines != cache.engines and without.timings != cache.timings


@pytest.fixture
def setup(artifact: Path) -> Setup:
    return setup_of(read_manifest(artifact), "cpu", 16)


def test_a_session_says_what_runs(artifact: Path, setup: Setup) -> None:
    opened = open_session(artifact, setup, sha256_of(artifact))
    assert opened.provider == "cpu" and not opened.graphs and not opened.note
    assert set(opened.nodes) == {"cpu"} and opened.nodes["cpu"] > 10


def test_the_callers_options_are_used(artifact: Path, setup: Setup) -> None:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.logid = "mine"
    opened = open_session(artifact, setup, "", options)
    assert opened.session.get_session_options().logid == "mine"


def test_a_file_that_the_runtime_cannot_load_is_one_line(tmp_path: Path, setup: Setup) -> None:
    path = tmp_path / "bad.onnx"
    path.write_bytes(b"nothing of the kind")
    with pytest.raises(EngineError, match=r"bad\.onnx: ") as raised:
        open_session(path, setup, "")
    assert "\n" not in str(raised.value)


def sessions(monkeypatch: pytest.MonkeyPatch, refuse_graphs: bool) -> list[dict[str, str]]:
    """The runtime without a GPU: CUDA's options are noted, and the CPU runs."""
    monkeypatch.setattr(ort, "preload_dlls", lambda: None)
    real, given = ort.InferenceSession, []

    def session(path: str, options: Any, providers: Any, **rest: Any) -> Any:
        given.append(providers[0][1])
        if refuse_graphs and providers[0][1]["enable_cuda_graph"] == "1":
            raise RuntimeError("This session cannot use the graph capture feature\nmore")
        return real(path, options, providers=["CPUExecutionProvider"], **rest)

    monkeypatch.setattr(ort, "InferenceSession", session)
    return given


def test_a_silent_fall_back_is_found_out(
    artifact: Path, setup: Setup, monkeypatch: pytest.MonkeyPatch
) -> None:
    sessions(monkeypatch, refuse_graphs=False)
    with pytest.raises(EngineError, match="cuda could not be started, CPUExecutionProvider ran"):
        open_session(artifact, replace(setup, provider="cuda"), "")


def test_a_graph_that_cannot_be_captured_is_opened_without(
    artifact: Path, setup: Setup, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = sessions(monkeypatch, refuse_graphs=True)
    real = ort.InferenceSession

    def on_cuda(*arguments: Any, **rest: Any) -> Any:
        made = real(*arguments, **rest)
        made.get_providers = lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"]
        return made

    monkeypatch.setattr(ort, "InferenceSession", on_cuda)
    monkeypatch.setattr(providers, "_placement", lambda session: {"cuda": 80, "cpu": 2})
    opened = open_session(artifact, replace(setup, provider="cuda"), "")
    assert [options["enable_cuda_graph"] for options in given] == ["1", "0"]
    assert not opened.graphs
    assert "no CUDA graphs: " in opened.note and "graph capture feature" in opened.note
    assert opened.nodes == {"cuda": 80, "cpu": 2}


def test_the_callers_thread_keeps_its_current_gpu(
    artifact: Path, setup: Setup, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The runtime makes the session's GPU the current device of the thread that it is made in."""
    made = []
    monkeypatch.setattr(ort, "preload_dlls", lambda: None)

    def session(*_: Any, **rest: Any) -> None:
        made.append(threading.get_ident())
        raise RuntimeError("Failed to allocate memory for requested buffer of size 7")

    monkeypatch.setattr(ort, "InferenceSession", session)
    with pytest.raises(DeviceMemoryError, match="buffer of size 7"):
        open_session(artifact, replace(setup, provider="cuda"), "")
    assert len(made) == 1, "without graphs it would need as much"
    assert made[0] != threading.get_ident()


def test_one_process_at_a_time_has_the_engines_files(
    artifact: Path, setup: Setup, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    cache = EngineCache(tmp_path, tmp_path)
    monkeypatch.setattr(ort, "preload_dlls", lambda: None)
    monkeypatch.setattr(providers, "engine_cache", lambda *_: cache)
    held: list[bool] = []

    def session(*_: Any, **rest: Any) -> None:
        try:
            with locked(tmp_path, EngineError("busy")):
                held.append(False)
        except EngineError:
            held.append(True)
        raise RuntimeError("that is enough")

    monkeypatch.setattr(ort, "InferenceSession", session)
    with pytest.raises(EngineError, match="that is enough"):
        open_session(artifact, replace(setup, provider="tensorrt"), "")
    with locked(tmp_path, EngineError("it is free again")):
        assert held == [True]


def test_a_provider_that_took_no_node_does_not_run(
    artifact: Path, setup: Setup, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(providers, "_placement", lambda session: {"cuda": 3})
    with pytest.raises(EngineError, match="cpu took none of its nodes"):
        open_session(artifact, setup, "")
