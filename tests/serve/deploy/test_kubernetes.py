"""The manifests, against Kubernetes' schemas, the daemon, and their own commands."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from lloss.serve.daemon.http.authentication import PROBES
from lloss.serve.daemon.settings import ServeSettings

from lloss.cli import serve as cli
from lloss.cli.main import main
from lloss.scores.scores_folder import ScoresFolder

from .test_deploy import started
from .test_served import DEPLOY, RULES

FILES = sorted((DEPLOY / "kubernetes").glob("*.yaml"))
DOCUMENTS = {
    (path.stem, each["kind"]): each
    for path in FILES
    for each in yaml.safe_load_all(path.read_text(encoding="utf-8"))
}
SCORE, MERGE = DOCUMENTS["score-job", "Job"], DOCUMENTS["merge-job", "Job"]
DAEMON, MONITOR = DOCUMENTS["daemon", "Deployment"], DOCUMENTS["daemon", "PodMonitor"]
NAME = "app.kubernetes.io/name"


def pod(workload: dict[str, Any]) -> dict[str, Any]:
    spec: dict[str, Any] = workload["spec"]["template"]["spec"]
    return spec


def container(workload: dict[str, Any]) -> dict[str, Any]:
    (only,) = pod(workload)["containers"]
    assert isinstance(only, dict)
    return only


def environment(workload: dict[str, Any]) -> dict[str, str]:
    return {each["name"]: each["value"] for each in container(workload)["env"]}


@pytest.mark.parametrize("version", ["1.31", "1.37"])
@pytest.mark.parametrize("key", [key for key in DOCUMENTS if key[1] != "PodMonitor"])
def test_a_manifest_is_of_its_schema(key: tuple[str, str], version: str) -> None:
    reason = "the schemas are not installed: pip install kubernetes-validate"
    schemas = pytest.importorskip("kubernetes_validate", reason=reason)
    schemas.validate(DOCUMENTS[key], version, strict=True)
    with pytest.raises(schemas.ValidationError):
        schemas.validate({**DOCUMENTS[key], "specs": {}}, version, strict=True)


@pytest.mark.parametrize("workload", [SCORE, MERGE, DAEMON], ids=["score", "merge", "daemon"])
def test_a_pod_is_unprivileged_and_mounts_what_it_has(workload: dict[str, Any]) -> None:
    spec, only = pod(workload), container(workload)
    mounts = [each["name"] for each in only["volumeMounts"]]
    assert sorted(mounts) == sorted(volume["name"] for volume in spec["volumes"])
    assert "/tmp" in [each["mountPath"] for each in only["volumeMounts"]]
    assert only["securityContext"] == {
        "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }  # fmt: skip
    user = (DEPLOY / "Dockerfile").read_text(encoding="utf-8").partition("\nUSER ")[2].split(":")[0]
    assert spec["securityContext"]["runAsNonRoot"]
    assert str(spec["securityContext"]["runAsUser"]) == user


def test_the_daemon_is_started_as_in_the_container() -> None:
    only = container(DAEMON)
    assert only["command"] == ["lloss", "serve"]
    given = {word for word in only["args"] if word.startswith("--")}
    assert given == {word for word in started()["Dockerfile"] if word.startswith("--")}
    assert given <= {name for parameter in cli.command.params for name in parameter.opts}
    options = dict(zip(only["args"][1::2], only["args"][2::2]))
    paths = [options[name] for name in ("--data-dir", "--token-file", "--pool-root")]
    mounted = {each["mountPath"]: each["name"] for each in only["volumeMounts"]}
    for path in [only["args"][0], *paths]:
        assert any(path == at or path.startswith(f"{at}/") for at in mounted), path
    service = DOCUMENTS["daemon", "Service"]
    assert options["--allowed-host"] == service["metadata"]["name"]
    (port,) = only["ports"]
    assert options["--port"] == str(port["containerPort"])
    assert service["spec"]["ports"][0]["targetPort"] == port["name"]
    claim = next(each for each in pod(DAEMON)["volumes"] if each["name"] == "data")
    made = DOCUMENTS["daemon", "PersistentVolumeClaim"]["metadata"]["name"]
    assert claim["persistentVolumeClaim"]["claimName"] == made


def test_two_daemons_never_share_the_data_dir() -> None:
    spec = DAEMON["spec"]
    assert (spec["replicas"], spec["strategy"]) == (1, {"type": "Recreate"})
    drain = ServeSettings(model=Path("m"), data_dir=Path("d")).drain_seconds
    assert pod(DAEMON)["terminationGracePeriodSeconds"] >= drain + 10


def test_the_probes_need_no_token_and_no_host() -> None:
    only = container(DAEMON)
    probes = {
        name: only[f"{name}Probe"]["httpGet"] for name in ("startup", "liveness", "readiness")
    }
    assert {probe["path"] for probe in probes.values()} <= PROBES
    assert probes["liveness"]["path"] == "/healthz" and probes["readiness"]["path"] == "/readyz"
    assert {probe["port"] for probe in probes.values()} == {only["ports"][0]["name"]}


def test_the_monitor_scrapes_the_daemon_under_the_name_of_the_rules() -> None:
    labels = DAEMON["spec"]["template"]["metadata"]["labels"]
    (endpoint,) = MONITOR["spec"]["podMetricsEndpoints"]
    assert MONITOR["apiVersion"] == "monitoring.coreos.com/v1"
    assert (endpoint["port"], endpoint["path"]) == (
        container(DAEMON)["ports"][0]["name"],
        "/metrics",
    )
    secret = next(each for each in pod(DAEMON)["volumes"] if each["name"] == "token")["secret"]
    key = endpoint["authorization"]["credentials"]
    assert key["name"] == secret["secretName"]
    assert f"/{key['key']}" in container(DAEMON)["args"][10]
    for selector in (
        MONITOR["spec"]["selector"]["matchLabels"],
        DAEMON["spec"]["selector"]["matchLabels"],
        DOCUMENTS["daemon", "Service"]["spec"]["selector"],
    ):
        assert selector.items() <= labels.items()
        for job in (SCORE, MERGE):  # must not be scraped, or get requests
            assert not selector.items() <= job["spec"]["template"]["metadata"]["labels"].items()
    job = labels[MONITOR["spec"]["jobLabel"]]
    assert f'job="{job}"' in str(RULES)


def test_the_jobs_agree_on_the_number_of_shards() -> None:
    spec = SCORE["spec"]
    shards = {environment(SCORE)["LLOSS_SHARDS"], environment(MERGE)["LLOSS_SHARDS"]}
    assert shards == {str(spec["completions"])} and spec["completionMode"] == "Indexed"
    # A store that does not answer ends lloss with the same exit code as a wrong option.
    assert all("onExitCodes" not in rule for rule in spec["podFailurePolicy"]["rules"])
    assert pod(SCORE)["restartPolicy"] == "Never"  # a failure policy asks for it


def test_the_jobs_score_and_merge_a_pool(
    s3: str, onnx_file: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their own commands, against a server that speaks S3; the first pod is replaced once."""
    import fsspec

    root = f"{s3}/{tmp_path.name}"
    fsspec.filesystem("s3").put(f"{photos}/", f"{root}/photos/", recursive=True)

    def here(text: str) -> str:
        return text.replace("/srv/model/model.onnx", str(onnx_file)).replace("s3://bucket", root)

    more = ["--provider=cpu", "--part-size=4"]
    main(["score", str(onnx_file), f"{root}/photos", "--out", f"{root}/whole", *more])
    monkeypatch.setenv("LLOSS_SHARDS", environment(SCORE)["LLOSS_SHARDS"])
    for index in (0, *range(SCORE["spec"]["completions"])):
        monkeypatch.setenv("JOB_COMPLETION_INDEX", str(index))
        args = [here(each).replace("$(JOB_COMPLETION_INDEX)", str(index))
                for each in container(SCORE)["args"]]  # fmt: skip
        main([*container(SCORE)["command"][1:], *args, *more])
    script = [*container(MERGE)["command"], *map(here, container(MERGE)["args"])]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    env = {**os.environ, **environment(MERGE), "PATH": path}
    done = subprocess.run(script, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    whole, merged = (ScoresFolder(f"{root}/{name}") for name in ("whole", "scores"))
    assert merged.opened().files.names() == whole.files.names()
    for name in whole.files.names():
        assert merged.files.read(name) == whole.files.read(name)
