from __future__ import annotations

from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lloss.errors import SettingsError
from lloss.modeling.pretrained_weights import read_state_dict, start_from


def _network(classes: int = 3) -> nn.Module:
    body = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    return nn.Sequential(OrderedDict(body=body, fc=nn.Linear(4, classes)))


def _prefixed(state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {prefix + name: value for name, value in state.items()}


@pytest.mark.parametrize("wrapper", ["", "state_dict", "model_state_dict", "model"])
@pytest.mark.parametrize("prefix", ["", "module.", "model.", "model.module.", "_orig_mod."])
def test_state_dicts_of_training_scripts_are_read(
    tmp_path: Path, wrapper: str, prefix: str
) -> None:
    theirs, ours = _network(), _network()
    content: Any = _prefixed(theirs.state_dict(), prefix)
    if wrapper:
        content = {"epoch": 3, wrapper: content, "optimizer": {"state": {}, "param_groups": []}}
    torch.save(content, tmp_path / "w.pt")
    start = start_from(ours, read_state_dict(str(tmp_path / "w.pt")), "w.pt", "net", {"fc"})
    assert all(torch.equal(v, theirs.state_dict()[k]) for k, v in ours.state_dict().items())
    assert start.line == "weights w.pt: 3 of 3 layers taken over"
    assert start.taken == ours.state_dict().keys()


def test_a_fresh_last_layer_and_what_is_not_used_are_said() -> None:
    state = _prefixed(_network(5).state_dict(), "net.") | {"criterion.weight": torch.ones(2)}
    ours = _network()
    before = ours.state_dict()["fc.weight"].clone()
    start = start_from(ours, state, "w.pt", "net", {"fc"})
    assert start.line == (
        "weights w.pt: 2 of 3 layers taken over; fresh: fc; 1 of its tensors are of no layer here"
    )
    assert torch.equal(ours.state_dict()["fc.weight"], before)
    assert "body.0.weight" in start.taken
    assert "fc.weight" not in start.taken


def test_a_part_of_a_network_is_started() -> None:
    donor, ours = _network(), nn.Sequential(OrderedDict(net=_network(), after=nn.Linear(2, 2)))
    start = start_from(ours, donor.state_dict(), "w.pt", "net", {"net.fc"}, part="net")
    assert torch.equal(ours.state_dict()["net.fc.weight"], donor.state_dict()["fc.weight"])
    assert start.left == ("after",)


def test_nothing_is_matched_loosely() -> None:
    state = _network().state_dict()
    other = {**state, "body.0.weight": torch.zeros(4, 3, 5, 5)}
    lacking = {name: value for name, value in state.items() if not name.startswith("body.1")}
    renamed = {name.replace("body.0", "body.zero"): value for name, value in state.items()}
    twice = _prefixed(state, "model.") | _prefixed(state, "ema.")
    for content, message in (
        (other, r"differ in 1 layers, 'body\.0'"), (lacking, r"'body\.1'"),
        (renamed, r"'body\.0'"), (twice, r"hold net 2 times, under model\., ema\."),
    ):  # fmt: skip
        with pytest.raises(SettingsError, match=message):
            start_from(_network(), content, "w.pt", "net", {"fc"})
    # The counter of batch norm, which old files lack, does not matter.
    old = {name: value for name, value in state.items() if "num_batches" not in name}
    assert start_from(_network(), old, "w.pt", "net", {"fc"}).left == ()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"state_dict": {"a": torch.ones(1)}, "model": {"a": torch.ones(1)}}, "under state_dict"),
        (
            {"format": 1, "settings": {}, "state": {}},
            "is a checkpoint of lloss train, not a state dict",
        ),
        ({}, "not a state dict"),
        ([1, 2], "not a state dict"),
        (nn.Linear(2, 2), r"holds Python objects .*; write the tensors alone"),
    ],
)
def test_another_file_is_refused_with_the_remedy(
    tmp_path: Path, content: Any, message: str
) -> None:
    torch.save(content, tmp_path / "w.pt")
    with pytest.raises(SettingsError, match=rf"w\.pt: .*{message}"):
        read_state_dict(str(tmp_path / "w.pt"))
    (tmp_path / "text.pt").write_text("no weights")
    with pytest.raises(SettingsError, match="not a readable state dict"):
        read_state_dict(str(tmp_path / "text.pt"))


def test_safetensors_are_read_where_the_package_is(tmp_path: Path) -> None:
    safetensors = pytest.importorskip("safetensors.torch", reason="safetensors is not installed")
    state = _network().state_dict()
    safetensors.save_file(state, tmp_path / "w.safetensors")
    read = read_state_dict(str(tmp_path / "w.safetensors"))
    assert all(torch.equal(read[name], value) for name, value in state.items())


def test_safetensors_without_the_package_name_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "safetensors.torch", None)
    with pytest.raises(SettingsError, match="pip install safetensors"):
        read_state_dict(str(tmp_path / "w.safetensors"))
