from __future__ import annotations

import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from lloss.modeling import published_weights, weights_cache
from lloss.modeling.published_weights import TimmWeights, TorchvisionWeights
from lloss.modeling.weights_cache import WeightsUnavailableError

NAME = "test_resnet.r160_in1k"  # timm's smallest


@pytest.fixture
def timm(monkeypatch: pytest.MonkeyPatch) -> Any:
    """timm, with a hub that does not answer."""
    package = pytest.importorskip("timm", reason="timm is not installed")

    def silent(url: str) -> None:
        raise TimeoutError("no answer")

    monkeypatch.setattr(published_weights, "answers", silent)
    return package


def test_weights_are_named_as_their_library_names_them() -> None:
    assert TorchvisionWeights("vgg16", "IMAGENET1K_FEATURES").title == (
        "torchvision's VGG16_Weights.IMAGENET1K_FEATURES"
    )
    assert TimmWeights("resnet18").title == "timm's resnet18"


def test_timms_weights_are_those_of_its_network(
    timm: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs = timm.create_model(NAME).state_dict()
    torch.save(theirs, tmp_path / "w.pt")
    create, file = timm.create_model, {"file": str(tmp_path / "w.pt")}
    monkeypatch.setattr(
        timm, "create_model", lambda *a, **k: create(*a, **k, pretrained_cfg_overlay=file)
    )
    before = torch.get_rng_state()
    state = TimmWeights(NAME).state()
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(state[name], value) for name, value in theirs.items())


def test_a_hub_that_does_not_answer_is_not_waited_for(
    timm: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    constants = pytest.importorskip("huggingface_hub").constants
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    began = time.monotonic()
    with pytest.raises(WeightsUnavailableError) as caught:
        TimmWeights(NAME).fetch()
    assert "\n" not in str(caught.value)
    assert time.monotonic() - began < 5
    assert constants.HF_HUB_OFFLINE is False


@pytest.mark.parametrize("whole_headers", [False, True])
def test_a_hub_whose_files_do_not_answer_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whole_headers: bool
) -> None:
    pytest.importorskip("timm", reason="timm is not installed")
    constants = pytest.importorskip("huggingface_hub").constants
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(weights_cache, "ANSWER_SECONDS", 0.2)
    monkeypatch.setenv("no_proxy", "*")
    asked, release = list[str](), threading.Event()

    class Hub(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.send_response(200)
            self.end_headers()

        def do_GET(self) -> None:
            asked.append(self.path)
            if self.path != "/":  # as where a firewall lets the hub through, not its files
                if whole_headers:
                    self.do_HEAD()
                release.wait()

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr(constants, "ENDPOINT", url)
    monkeypatch.setattr(
        constants, "HUGGINGFACE_CO_URL_TEMPLATE", url + "/{repo_id}/resolve/{revision}/{filename}"
    )
    try:
        with pytest.raises(WeightsUnavailableError) as caught:
            TimmWeights(NAME).fetch()
    finally:
        release.set()
        server.shutdown()
        server.server_close()
    assert "\n" not in str(caught.value)
    assert asked == [f"/timm/{NAME}/resolve/main/model.safetensors"]


def test_a_file_that_timm_has_by_its_address_alone_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pytest.importorskip("timm", reason="timm is not installed")
    monkeypatch.setattr(weights_cache, "ANSWER_SECONDS", 0.2)
    monkeypatch.setenv("no_proxy", "*")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        source = SimpleNamespace(url=f"http://{address}/net-00000000.pth", hf_hub_id=None)
        monkeypatch.setattr("timm.get_pretrained_cfg", lambda name: source)
        with pytest.raises(WeightsUnavailableError, match=rf"from {address}: .*(no answer|timed)"):
            TimmWeights("legacy_seresnet18.in1k").fetch()
