"""The files that make clusters and servers: checked as far as that goes without a cloud."""

from __future__ import annotations

import configparser
import copy
import importlib.util
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import REPOSITORY
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

DEPLOY = REPOSITORY / "deploy"


def load(path: Path) -> Any:
    return yaml.safe_load(path.read_text())


def check_cluster(config: dict[str, Any]) -> None:
    """What `ray up` checks before it asks the cloud for anything."""
    from ray.autoscaler._private.util import prepare_config, validate_config

    validate_config(prepare_config(copy.deepcopy(config)))


def test_cluster_file_is_what_ray_up_accepts() -> None:
    config = load(REPOSITORY / "cluster.yaml")
    check_cluster(config)
    head, worker = (config["available_node_types"][name] for name in ("head", "gpu_worker"))
    assert "GPU" not in head["resources"]
    assert worker["resources"]["GPU"] == 1
    assert worker["node_config"]["InstanceMarketOptions"] == {"MarketType": "spot"}


@pytest.mark.parametrize("fault", ["unknown key", "wrong type", "no such head", "no provider"])
def test_cluster_file_with_a_fault_is_not_accepted(fault: str) -> None:
    config = load(REPOSITORY / "cluster.yaml")
    if fault == "unknown key":
        config["max_wrokers"] = 8
    elif fault == "wrong type":
        config["idle_timeout_minutes"] = "soon"
    elif fault == "no such head":
        config["head_node_type"] = "chief"
    else:
        del config["provider"]
    with pytest.raises(Exception, match=r"max_wrokers|soon|head_node_type|provider"):
        check_cluster(config)


def test_cluster_of_one_s_own_machines_as_described_is_accepted() -> None:
    config = load(REPOSITORY / "cluster.yaml")
    for key in ("available_node_types", "head_node_type"):
        del config[key]
    config["provider"] = {"type": "local", "head_ip": "10.0.0.1", "worker_ips": ["10.0.0.2", "10.0.0.3"]}
    check_cluster({**config, "max_workers": 2, "min_workers": 2})


def ray_versions(text: str) -> set[str]:
    return set(re.findall(r"(?:rayproject/ray:|ovos-ray:|rayVersion: \")(\d+\.\d+\.\d+)", text))


def test_every_file_names_the_ray_version_that_is_tested() -> None:
    import ray

    project = (REPOSITORY / "pyproject.toml").read_text()
    found = re.search(r'"(ray\[[a-z,]+\][^"]+)"', project)
    assert found is not None
    allowed: SpecifierSet = Requirement(found[1]).specifier
    named = {
        path.name: ray_versions(path.read_text())
        for path in [REPOSITORY / "cluster.yaml", *DEPLOY.iterdir()]
        if path.is_file()
    }
    assert named["cluster.yaml"] == named["Dockerfile"] == named["rayjob.yaml"] == named["raycluster.yaml"]
    (version,) = named["cluster.yaml"]
    assert version in allowed
    assert version.split(".")[:2] == ray.__version__.split(".")[:2]


def test_cluster_file_installs_what_the_project_needs() -> None:
    """The list of a plain image must not fall behind the project's own."""
    project = (REPOSITORY / "pyproject.toml").read_text().partition("dependencies = [")[2].partition("]\n\n")[0]
    wanted = [Requirement(line) for line in re.findall(r'"([^"]+)"', project)]
    nodes = {"python_version": "3.11", "python_full_version": "3.11.9"}
    needed = {one.name: one.specifier for one in wanted if one.marker is None or one.marker.evaluate(nodes)}
    del needed["ray"]
    (command,) = load(REPOSITORY / "cluster.yaml")["setup_commands"]
    installed = {Requirement(line).name: Requirement(line).specifier for line in re.findall(r'"([^"]+)"', command)}
    assert installed == needed, "an image may hold older ones, which pip leaves alone if they will do"


def test_nodes_in_the_cloud_let_in_nobody_and_give_no_credentials_away() -> None:
    for node in load(REPOSITORY / "cluster.yaml")["available_node_types"].values():
        config = node["node_config"]
        assert config["MetadataOptions"]["HttpTokens"] == "required", "IMDSv2"
        assert config["MetadataOptions"]["HttpPutResponseHopLimit"] == 1
        assert config["SecurityGroupIds"], "without one Ray makes a group that is open for ssh from everywhere"
        assert all(disk["Ebs"]["Encrypted"] for disk in config["BlockDeviceMappings"])


# ---------------------------------------------------------------- KubeRay

# What the operator's types know and require (ray.io/v1, KubeRay 1.5). Names alone: pod templates are Kubernetes' own.
CLUSTER_KEYS = {
    "headGroupSpec", "workerGroupSpecs", "rayVersion", "enableInTreeAutoscaling", "autoscalerOptions", "authOptions",
    "headServiceAnnotations", "suspend", "gcsFaultToleranceOptions", "managedBy",
}  # fmt: skip
JOB_KEYS = {
    "entrypoint", "runtimeEnvYAML", "jobId", "submissionMode", "backoffLimit", "ttlSecondsAfterFinished", "metadata",
    "shutdownAfterJobFinishes", "activeDeadlineSeconds", "rayClusterSpec", "clusterSelector", "submitterPodTemplate",
    "submitterConfig", "suspend", "entrypointNumCpus", "entrypointNumGpus", "entrypointResources", "deletionStrategy",
}  # fmt: skip
WORKER_KEYS = {
    "groupName", "replicas", "minReplicas", "maxReplicas", "numOfHosts", "rayStartParams", "template", "scaleStrategy",
    "idleTimeoutSeconds", "suspend",
}  # fmt: skip


def check_ray_cluster(spec: dict[str, Any]) -> None:
    assert not spec.keys() - CLUSTER_KEYS, spec.keys() - CLUSTER_KEYS
    assert not spec["headGroupSpec"].keys() - {"rayStartParams", "template", "serviceType", "headService"}
    for group in [spec["headGroupSpec"], *spec["workerGroupSpecs"]]:
        assert all(isinstance(value, str) for value in group["rayStartParams"].values()), "parameters are strings"
        check_pod(group["template"]["spec"])
    for group in spec["workerGroupSpecs"]:
        assert not group.keys() - WORKER_KEYS, group.keys() - WORKER_KEYS
        assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]


def check_pod(pod: dict[str, Any]) -> None:
    volumes = {volume["name"] for volume in pod.get("volumes", ())}
    for container in pod["containers"]:
        assert container["name"]
        assert container["image"]
        # Ray reads its CPUs and memory from the limits; without equal requests a pod may be scheduled where they lack.
        assert container["resources"]["requests"] == container["resources"]["limits"]
        mounted = {mount["name"] for mount in container.get("volumeMounts", ())}
        assert mounted <= volumes, f"no volume for {mounted - volumes}"
        assert all(len(port["name"]) <= 15 for port in container.get("ports", ())), "a limit of Kubernetes"


def check_rights(spec: dict[str, Any]) -> None:
    """Pods run as a user, gain no rights, and only the head speaks with Kubernetes."""
    for group in [spec["headGroupSpec"], *spec["workerGroupSpecs"]]:
        pod = group["template"]["spec"]
        assert pod["securityContext"]["runAsNonRoot"]
        assert pod["securityContext"]["runAsUser"] != 0
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in pod["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "capabilities": {"drop": ["ALL"]},
            }
    for group in spec["workerGroupSpecs"]:
        assert group["template"]["spec"]["automountServiceAccountToken"] is False


def manifests() -> Iterator[tuple[str, dict[str, Any]]]:
    for name in ("raycluster.yaml", "rayjob.yaml"):
        document = load(DEPLOY / name)
        yield document["kind"], document


def test_kuberay_manifests_hold_what_the_operator_needs() -> None:
    kinds = dict(manifests())
    assert kinds.keys() == {"RayCluster", "RayJob"}
    for document in kinds.values():
        assert document["apiVersion"] == "ray.io/v1"
        assert re.fullmatch(r"[a-z0-9-]{1,47}", document["metadata"]["name"]), "names of pods are made of it"
    check_ray_cluster(kinds["RayCluster"]["spec"])
    job = kinds["RayJob"]["spec"]
    assert not job.keys() - JOB_KEYS, job.keys() - JOB_KEYS
    check_ray_cluster(job["rayClusterSpec"])
    assert job["ttlSecondsAfterFinished"] == 0 or job["shutdownAfterJobFinishes"]
    assert isinstance(yaml.safe_load(job["runtimeEnvYAML"]), dict)
    for spec in (kinds["RayCluster"]["spec"], job["rayClusterSpec"]):
        assert spec["authOptions"] == {"mode": "token"}, "an open cluster runs anybody's code"


def test_pods_have_no_more_rights_than_they_need_and_run_one_commit() -> None:
    kinds = dict(manifests())
    check_rights(kinds["RayCluster"]["spec"])
    check_rights(kinds["RayJob"]["spec"]["rayClusterSpec"])
    code = yaml.safe_load(kinds["RayJob"]["spec"]["runtimeEnvYAML"])["working_dir"]
    assert re.search(r"/archive/[0-9a-f]{40}\.zip$", code), "a branch moves between two starts of one study"


def test_only_ray_s_own_pods_reach_its_nodes() -> None:
    policy = load(DEPLOY / "networkpolicy.yaml")
    assert (policy["apiVersion"], policy["kind"]) == ("networking.k8s.io/v1", "NetworkPolicy")
    nodes = {"matchLabels": {"ray.io/is-ray-node": "yes"}}  # a label that KubeRay gives to every node
    assert policy["spec"]["podSelector"] == nodes
    assert policy["spec"]["policyTypes"] == ["Ingress"]
    (rule,) = policy["spec"]["ingress"]
    allowed = [source["podSelector"]["matchLabels"] for source in rule["from"]]
    assert allowed[0] == nodes["matchLabels"]
    assert allowed[1] == {"job-name": dict(manifests())["RayJob"]["metadata"]["name"]}
    assert all(allowed), "no selector that is empty: it would let in everybody"


@pytest.mark.parametrize("fault", ["unknown key", "number for a parameter", "no volume", "less requested"])
def test_kuberay_manifest_with_a_fault_is_noticed(fault: str) -> None:
    spec = dict(manifests())["RayCluster"]["spec"]
    head = spec["headGroupSpec"]
    if fault == "unknown key":
        spec["workerGroupSpec"] = []
    elif fault == "number for a parameter":
        head["rayStartParams"]["num-cpus"] = 2
    elif fault == "no volume":
        head["template"]["spec"]["volumes"] = []
    else:
        head["template"]["spec"]["containers"][0]["resources"]["requests"]["cpu"] = "1"
    with pytest.raises(AssertionError):
        check_ray_cluster(spec)


def test_command_of_the_job_manifest_is_one_the_program_takes() -> None:
    """The settings exist, have the right types, and hold no path that another machine does not know."""
    import shlex

    from typer.main import get_command

    from ovos_ray.cli.app import app
    from ovos_ray.on_ray.job_paths import refuse_relative_paths

    words = shlex.split(dict(manifests())["RayJob"]["spec"]["entrypoint"])
    assert words[:3] == ["python", "-m", "ovos_ray"]
    command = get_command(app).commands[words[3]]  # type: ignore[attr-defined]
    refuse_relative_paths(command.make_context(words[3], words[4:]).params)


# ---------------------------------------------------------------- the MLflow server


def test_tracking_server_waits_for_its_database_and_keeps_both_outside_of_the_containers() -> None:
    compose = load(DEPLOY / "mlflow.yaml")
    database, server = compose["services"]["database"], compose["services"]["mlflow"]
    assert server["depends_on"]["database"]["condition"] == "service_healthy"
    assert database["healthcheck"]["test"]
    uri = server["environment"]["MLFLOW_BACKEND_STORE_URI"]
    user, name = database["environment"]["POSTGRES_USER"], database["environment"]["POSTGRES_DB"]
    assert re.fullmatch(rf"postgresql\+psycopg2://{user}:\$\{{POSTGRES_PASSWORD:\?.+\}}@database:5432/{name}", uri)
    assert "${POSTGRES_PASSWORD:?" in database["environment"]["POSTGRES_PASSWORD"], "no password in the file"
    for service in (database, server):
        for volume in service["volumes"]:
            assert volume.partition(":")[0] in compose["volumes"]
    assert (DEPLOY / server["build"]["dockerfile"]).is_file()


def test_tracking_server_asks_for_a_password_and_is_no_root_and_not_open_to_the_world() -> None:
    services = load(DEPLOY / "mlflow.yaml")["services"]
    server = services["mlflow"]
    assert "--app-name=basic-auth" in server["command"]
    for name in ("MLFLOW_AUTH_ADMIN_PASSWORD", "MLFLOW_FLASK_SERVER_SECRET_KEY"):
        assert re.fullmatch(r"\$\{MLFLOW_[A-Z]+_PASSWORD:\?.+\}", server["environment"][name]), "no default, no value"
    assert server["ports"] == ["${MLFLOW_BIND:-127.0.0.1}:5000:5000"]
    assert "ports" not in services["database"]
    assert server["user"] != "root"
    assert server["user"] != "0"
    assert server["read_only"]
    assert server["cap_drop"] == ["ALL"]
    assert all("no-new-privileges:true" in service["security_opt"] for service in services.values())
    lines = (DEPLOY / "mlflow.dockerfile").read_text().splitlines()
    assert f"USER {server['user']}" in lines
    copied = [line.split()[1] for line in lines if line.startswith("COPY")]
    assert all((DEPLOY / name).is_file() for name in copied)


def test_tracking_server_s_rules_are_ones_that_mlflow_reads() -> None:
    spec = importlib.util.find_spec("mlflow")
    assert spec is not None
    assert spec.origin is not None
    shipped, ours = configparser.ConfigParser(), configparser.ConfigParser()
    assert shipped.read(Path(spec.origin).parent / "server" / "auth" / "basic_auth.ini")
    assert ours.read(DEPLOY / "mlflow_auth.ini")
    assert set(ours["mlflow"]) <= set(shipped["mlflow"])
    assert ours["mlflow"]["default_permission"] == "NO_PERMISSIONS"
    volumes = load(DEPLOY / "mlflow.yaml")["services"]["mlflow"]["volumes"]
    database = ours["mlflow"]["database_uri"]
    assert any(database.startswith(f"sqlite:///{volume.partition(':')[2]}/") for volume in volumes)


def test_every_image_is_of_one_version() -> None:
    images = [service["image"] for service in load(DEPLOY / "mlflow.yaml")["services"].values() if "image" in service]
    images += re.findall(r"^(?:FROM|ARG RAY_IMAGE=) ?([a-z][^\s]+)", (DEPLOY / "mlflow.dockerfile").read_text(), re.M)
    images += [load(REPOSITORY / "cluster.yaml")["docker"]["image"]]
    for _, document in manifests():
        spec = document["spec"].get("rayClusterSpec", document["spec"])
        for group in [spec["headGroupSpec"], *spec["workerGroupSpecs"]]:
            images += [container["image"] for container in group["template"]["spec"]["containers"]]
    assert len(images) > 5
    for image in images:
        assert re.search(r":\d+\.\d+", image), f"{image} moves"


def test_tracking_server_s_command_is_one_that_mlflow_takes() -> None:
    from click.testing import CliRunner
    from mlflow.cli import cli

    command = load(DEPLOY / "mlflow.yaml")["services"]["mlflow"]["command"]
    assert command[0] == "mlflow"
    options = {option for parameter in cli.commands["server"].params for option in parameter.opts}
    assert {word.partition("=")[0] for word in command[2:]} <= options
    assert CliRunner().invoke(cli, ["server", "--no-such-option"]).exit_code == 2


def test_dockerfile_copies_what_is_there_and_builds_on_the_tested_ray() -> None:
    lines = (DEPLOY / "Dockerfile").read_text().splitlines()
    sources = [word for line in lines if line.startswith("COPY") for word in line.split()[2:-1]]
    assert "ovos_ray" in sources
    assert all((REPOSITORY / source).exists() for source in sources)


@pytest.mark.skipif(sys.version_info < (3, 11), reason="the image has Python 3.11, whose tomllib the script needs")
def test_dockerfile_installs_the_project_s_dependencies_and_leaves_ray_alone() -> None:
    found = re.search(r"<<'EOF'[^\n]*\n(.*?)\nEOF\n", (DEPLOY / "Dockerfile").read_text(), re.DOTALL)
    assert found is not None
    printed = subprocess.run(
        [sys.executable, "-c", found[1]], cwd=REPOSITORY, capture_output=True, text=True, check=True
    ).stdout
    names = {Requirement(line).name for line in printed.splitlines()}
    assert {"torch", "mlflow", "psutil", "matplotlib", "av"} <= names
    assert "ray" not in names
