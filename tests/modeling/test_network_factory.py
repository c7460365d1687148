"""Factories by name: what is found, what is called, and what is refused in one line."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from torch import nn

from lloss.entry_points import MODELS
from lloss.errors import SettingsError
from lloss.modeling.network_factory import find_factory, make_network, read_arguments

from ..packages import here, install

NETS = """
from torch import nn

def build(num_classes, width=4, *, names=()):
    network = nn.Linear(width, num_classes)
    network.names = names
    return network

def free(classes, **options):
    network = nn.Linear(2, classes)
    network.options = options
    return network

class Own(nn.Linear):
    def __init__(self, num_classes: int) -> None:
        super().__init__(3, num_classes)

def greedy(**options):
    return nn.Linear(1, options["num_classes"])

def positional(num_classes, /):
    return nn.Linear(1, num_classes)

def number(num_classes):
    return num_classes

def broken(num_classes, depth=1):
    raise RuntimeError("no such\\ndepth")

def leaving(num_classes):
    raise SystemExit(0)

def needing(num_classes):
    import a_package_of_nobody

constant = 3
"""


@pytest.fixture
def nets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the module ``nets``, which is the current one."""
    here(tmp_path / "here", monkeypatch, "nets", NETS)
    return tmp_path / "here"


def _made(model: str, classes: int = 5, *args: str) -> Any:
    return make_network(model, find_factory(model), classes, read_arguments(args))


def test_values_are_json_where_they_can_be_read_as_such() -> None:
    given = ["a=3", "b=0.5", "c=true", "d=[1, 2]", 'e={"f": null}', "g=gelu", "h=", "i=x=y",
             "j=NaN", 'k="3"']  # fmt: skip
    assert read_arguments(given) == {
        "a": 3, "b": 0.5, "c": True, "d": [1, 2], "e": {"f": None}, "g": "gelu", "h": "",
        "i": "x=y", "j": "NaN", "k": "3",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["depth"], "'depth': write key=value"),
        (["a-b=1"], "'a-b=1': write key=value"),
        (["a=1", "a=2"], "'a=2': a is given twice"),
        (["num_classes=3"], "lloss passes the number of classes itself"),
        (["classes=3"], "lloss passes the number of classes itself"),
    ],
)
def test_arguments_that_say_nothing_usable_are_refused(given: list[str], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        read_arguments(given)


def test_a_factory_in_the_current_directory_gets_the_classes_and_its_arguments(nets: Path) -> None:
    network = _made("nets:build", 5, "width=7", 'names=["a"]')
    assert (network.in_features, network.out_features, network.names) == (7, 5, ["a"])
    assert _made("nets:free", 4, "anything=x").options == {"anything": "x"}
    assert type(_made("nets:Own")).__name__ == "Own"


def test_a_factory_of_an_installed_package_is_found_by_its_entry_points_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    points = {MODELS: {"wide": "wide_nets:build", "gone": "wide_nets:missing"}}
    install(tmp_path / "site", monkeypatch, "wide-nets", {"wide_nets": NETS}, points)
    assert isinstance(_made("wide"), nn.Module)
    with pytest.raises(SettingsError, match="model 'gone': the entry point wide_nets:missing of "
                       "the package wide-nets cannot be imported: AttributeError"):  # fmt: skip
        find_factory("gone")


@pytest.mark.parametrize("model", ["os:system", "subprocess:run", "builtins:exec", "posix:system",
                                   "shutil:rmtree", "__main__:main", "importlib.util:find_spec",
                                   "torch.__main__:main"])  # fmt: skip
def test_nothing_of_pythons_own_library_is_imported(
    model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "system", lambda *_: pytest.fail("it was called"))
    with pytest.raises(SettingsError, match="is a module of Python itself, which has no networks"):
        find_factory(model)


@pytest.mark.parametrize("model", ["nets:greedy", "nets:positional", "nets:constant",
                                   "nets:nn", "torch:load", "torch.hub:load"])  # fmt: skip
def test_what_names_no_number_of_classes_is_not_called(model: str, nets: Path) -> None:
    with pytest.raises(SettingsError, match="names no parameter num_classes or classes, .*write "
                       r"one: def build\(num_classes\)"):  # fmt: skip
        find_factory(model)


@pytest.mark.parametrize(
    ("model", "args", "message"),
    [
        ("nets:number", [], "returned a int, not a torch.nn.Module"),
        ("nets:broken", ["depth=9"], "cannot be built with num_classes=5, depth=9: RuntimeError: "
         "no such depth$"),
        ("nets:leaving", [], "cannot be built with num_classes=5: SystemExit: 0"),
        ("nets:needing", [], "needs the package 'a_package_of_nobody': pip install a_pack"),
        ("nets:build", ["wdith=3"], "takes no 'wdith'; it takes width, names"),
        ("nets:biuld", [], r"nets \(.*nets.py\) has no 'biuld'; did you mean 'build'\?"),
        ("nets:", [], "write package.module:factory, or timm:NAME"),
        ("nets:Own.build", [], "write package.module:factory"),
        ("nest:build", [], "no module 'nest', neither installed nor in the current directory .*"
         "here; run lloss in the folder that holds it"),
        ("torch.nest:build", [], "no module 'torch.nest', neither installed"),
    ],
)  # fmt: skip
def test_what_cannot_be_found_or_built_is_one_line(
    model: str, args: list[str], message: str, nets: Path
) -> None:
    with pytest.raises(SettingsError, match=message) as caught:
        _made(model, 5, *args)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("import a_package_of_nobody.part", "needs the package 'a_package_of_nobody': pip install"),
        ("def build(:", "bad cannot be imported: SyntaxError: .*bad.py, line 1"),
        ("raise SystemExit", "bad cannot be imported: SystemExit"),
        ("import bad.part", "bad cannot be imported: ModuleNotFoundError: .*bad.part"),
    ],
)
def test_a_module_that_cannot_be_imported_is_one_line(
    text: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here(tmp_path / "here", monkeypatch, "bad", text)
    with pytest.raises(SettingsError, match=f"model 'bad:build': {message}"):
        find_factory("bad:build")


def test_a_file_in_the_current_directory_replaces_no_installed_module(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here(tmp_path / "here", monkeypatch, "mutex_of_lloss", NETS)
    other = {"mutex_of_lloss": "value = 1"}
    install(tmp_path / "site", monkeypatch, "mutex-of-lloss", other, {})
    with pytest.raises(SettingsError, match=r"\(.*site.*\) has no 'build'"):
        find_factory("mutex_of_lloss:build")


def test_a_name_of_two_packages_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("one", "two"):
        points = {MODELS: {"same": f"nets_{name}:build"}}
        install(tmp_path / name, monkeypatch, f"nets-{name}", {f"nets_{name}": NETS}, points)
    with pytest.raises(SettingsError, match="'same': nets-one and nets-two both register it"):
        find_factory("same")
