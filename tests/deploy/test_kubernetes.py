"""The files for Kubernetes, against its public schemas and our own command lines."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import typer
import yaml

from search.__main__ import app
from search.names import check_study_template
from search.run import flags_of, read_config
from search.submit import check_address, request

ROOT = Path(__file__).parents[2]
FILES = ("kuberay-job.yaml", "cron-job.yaml")
KUBERNETES = "1.33"


def documents(file: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((ROOT / "deploy" / file).read_text(encoding="utf-8")))


def named(file: str, kind: str) -> dict[str, Any]:
    [found] = [document for document in documents(file) if document["kind"] == kind]
    return found


def pod_templates(tree: object) -> Iterator[dict[str, Any]]:
    """What lies under the keys `template`, at any depth."""
    for key, branch in tree.items() if isinstance(tree, dict) else ():
        if key == "template":
            yield branch
        yield from pod_templates(branch)
    for branch in tree if isinstance(tree, list) else ():
        yield from pod_templates(branch)


def pods(file: str) -> list[dict[str, Any]]:
    return [template["spec"] for each in documents(file) for template in pod_templates(each)]


def ray_job() -> dict[str, Any]:
    spec: dict[str, Any] = named("kuberay-job.yaml", "RayJob")["spec"]
    return spec


@pytest.mark.parametrize("file", FILES)
def test_what_is_kubernetes_own_is_valid_by_its_schema(file: str) -> None:
    own = [document for document in documents(file) if document["apiVersion"] != "ray.io/v1"]
    wrapped = [
        {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "pod"}, "spec": pod}
        for pod in pods(file)
    ]
    assert own
    assert wrapped
    for document in own + wrapped:
        kubernetes_validate.validate(document, KUBERNETES, strict=True)


def test_a_misspelt_key_of_a_pod_is_seen() -> None:
    [pod] = pods("cron-job.yaml")
    wrapped = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "pod"}, "spec": dict(pod)}
    wrapped["spec"]["serviceAcountName"] = "x"
    with pytest.raises(kubernetes_validate.ValidationError, match="serviceAcountName"):
        kubernetes_validate.validate(wrapped, KUBERNETES, strict=True)


@pytest.mark.parametrize("file", FILES)
def test_pods_have_an_account_without_rights_no_root_and_bounds(file: str) -> None:
    accounts = {
        document["metadata"]["name"]
        for document in documents(file)
        if document["kind"] == "ServiceAccount" and not document["automountServiceAccountToken"]
    }
    for pod in pods(file):
        assert pod["serviceAccountName"] in accounts
        assert pod["automountServiceAccountToken"] is False
        assert pod["securityContext"]["runAsNonRoot"] is True
        for container in pod["containers"]:
            assert container["securityContext"]["allowPrivilegeEscalation"] is False
            assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
            assert {"cpu", "memory"} <= container["resources"]["requests"].keys()
            assert "memory" in container["resources"]["limits"]


@pytest.mark.parametrize("file", FILES)
def test_what_is_mounted_is_there(file: str) -> None:
    claims = {
        document["metadata"]["name"]
        for document in documents(file)
        if document["kind"] == "PersistentVolumeClaim"
    }
    for pod in pods(file):
        volumes = {volume["name"]: volume for volume in pod.get("volumes", ())}
        mounts = {
            mount["name"]
            for container in pod["containers"]
            for mount in container.get("volumeMounts", ())
        }
        assert mounts == volumes.keys()
        for volume in volumes.values():
            if claim := volume.get("persistentVolumeClaim"):
                assert claim["claimName"] in claims


@pytest.mark.parametrize("file", FILES)
def test_secrets_come_from_a_secret(file: str) -> None:
    entries = [
        entry
        for pod in pods(file)
        for container in pod["containers"]
        for entry in container.get("env", ())
        if re.search(r"PASSWORD|TOKEN|USERNAME", entry["name"])
    ]
    assert entries
    assert [entry["name"] for entry in entries if "secretKeyRef" not in entry["valueFrom"]] == []


def test_the_ray_job_ends_goes_on_and_keeps_others_out() -> None:
    job = ray_job()
    assert job["shutdownAfterJobFinishes"] is True
    assert job["activeDeadlineSeconds"] > 0
    assert job["backoffLimit"] > 0
    assert job["rayClusterSpec"]["authOptions"] == {"mode": "token"}
    pinned = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    assert f"ray=={job['rayClusterSpec']['rayVersion']}\n" in pinned


def test_the_ray_job_searches_where_its_record_outlives_it() -> None:
    job = ray_job()
    word, python, option, module, *flags = shlex.split(job["entrypoint"])
    assert (word, python, option, module) == ("exec", "python", "-m", "search.run")
    config = read_config(flags_of(flags))
    assert config.study == "load"
    [head] = job["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]["containers"]
    settings = {entry["name"]: entry.get("value") for entry in head["env"]}
    [mount] = head["volumeMounts"]
    assert str(settings["LSTM_SEARCH_HOME"]).startswith(f"{mount['mountPath']}/")
    assert str(config.data.path).startswith(f"{mount['mountPath']}/")


def test_the_cron_job_submits_one_search_a_night() -> None:
    job = named("cron-job.yaml", "CronJob")["spec"]
    assert job["concurrencyPolicy"] == "Forbid"
    assert job["startingDeadlineSeconds"] > 0
    assert job["jobTemplate"]["spec"]["activeDeadlineSeconds"] < 86400
    assert job["jobTemplate"]["spec"]["backoffLimit"] > 0
    [container] = job["jobTemplate"]["spec"]["template"]["spec"]["containers"]
    assert container["command"] == ["python", "-m", "search", "submit"]
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    given = commands["submit"].make_context("submit", list(container["args"])).params
    check_study_template(given["study"])
    assert given["study"] == "nightly-{date}"
    check_address(given["address"], given["insecure"])
    flags = flags_of(given["arguments"])
    wanted = request("nightly-2026-11-23", given["arguments"], read_config(flags), None)
    assert wanted.files == []  # the table is the cluster's own
