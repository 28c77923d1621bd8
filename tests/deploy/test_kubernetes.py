"""The manifests for Kubernetes: what they say is valid, safe, and fits the service."""

import copy
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonpatch
import pytest
import yaml

from app.settings import Settings
from app.store.backbones import MAX_BYTES
from cli.main import full_parser
from deploy.manifests import BUILT, FOLDER, Manifest, build, main, problems
from tests.conftest import ROOT
from tests.deploy.asked import unknown
from tests.deploy.conftest import Exported
from tests.pages import blocks
from tests.test_sizing import TMP, limit

MANIFESTS = {folder: build(FOLDER / folder) for folder in BUILT}
BASE, GPU, KEDA = MANIFESTS.values()
PARTS = ("app", "adapt", "train")
PAGE = (ROOT / "docs" / "kubernetes.md").read_text()


def one(manifests: list[Manifest], kind: str, name: str) -> Manifest:
    [found] = [each for each in manifests if (each["kind"], each["metadata"]["name"]) == (kind, name)]
    return found


def deployment(part: str, manifests: list[Manifest] = BASE) -> Manifest:
    return one(manifests, "Deployment", f"lamanas-{part}")


def pod(part: str, manifests: list[Manifest] = BASE) -> Manifest:
    spec: Manifest = deployment(part, manifests)["spec"]["template"]["spec"]
    return spec


def container(part: str, manifests: list[Manifest] = BASE) -> Manifest:
    [found] = pod(part, manifests)["containers"]
    return dict(found)


# ---------------------------------------------------------------------- checking and building


def test_all_manifests_are_valid() -> None:
    assert main() == 0


@pytest.mark.parametrize(
    ("kind", "name", "path", "value"),
    [
        ("Deployment", "lamanas-app", "/spec/template/spec/containers/0/livenessprobe", {}),
        ("Service", "lamanas-app", "/spec/ports/0/port", "http"),
        ("NetworkPolicy", "lamanas", "/spec/podSelector/matchlabels", {}),
        ("ScaledObject", "lamanas-adapt", "/spec/triggers/0/metadata/threshold", 4),
        ("ScaledObject", "lamanas-adapt", "/spec/minReplicas", 1),
        ("HorizontalPodAutoscaler", "lamanas-app", "/apiVersion", "autoscaling/v3"),
    ],
)
def test_what_kubernetes_would_refuse_is_found(kind: str, name: str, path: str, value: Any) -> None:
    manifest = copy.deepcopy(one(KEDA, kind, name))
    assert list(problems(manifest)) == []
    broken = jsonpatch.apply_patch(manifest, [{"op": "add", "path": path, "value": value}])
    [problem] = problems(broken)
    assert problem.startswith(f"{kind} {name}: ")


def test_a_problem_is_told_and_fails(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("deploy.manifests.build", lambda _: [BASE[0] | {"dtaa": {}}])
    assert main() == 1
    assert capsys.readouterr().err.startswith("ConfigMap lamanas: ")


def test_a_kustomization_that_is_not_understood_is_refused(tmp_path: Path) -> None:
    (tmp_path / "kustomization.yaml").write_text("resources: []\nnamePrefix: my-\n")
    with pytest.raises(ValueError, match="not understood: namePrefix"):
        build(tmp_path)


def test_a_patch_of_what_there_is_not_is_refused(tmp_path: Path) -> None:
    patch = {"path": "patch.yaml", "target": {"kind": "Deployment", "name": "nobody"}}
    (tmp_path / "kustomization.yaml").write_text(yaml.safe_dump({"resources": [], "patches": [patch]}))
    (tmp_path / "patch.yaml").write_text("[]")
    with pytest.raises(ValueError, match="nobody"):
        build(tmp_path)


def kustomized(folder: Path) -> list[Manifest]:
    """What Kustomize builds; it is part of kubectl."""
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        pytest.skip("kubectl is not installed")
    done = subprocess.run([kubectl, "kustomize", folder], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return list(yaml.safe_load_all(done.stdout))


@pytest.mark.parametrize("folder", BUILT)
def test_kustomize_builds_the_same(folder: str) -> None:
    def sorted_(manifests: list[Manifest]) -> list[str]:
        return sorted(json.dumps(manifest, sort_keys=True) for manifest in manifests)

    assert sorted_(kustomized(FOLDER / folder)) == sorted_(MANIFESTS[folder])


# ---------------------------------------------------------------------- pods


@pytest.mark.parametrize("manifests", MANIFESTS.values(), ids=MANIFESTS)
@pytest.mark.parametrize("part", PARTS)
def test_pods_have_no_rights_that_they_do_not_need(part: str, manifests: list[Manifest]) -> None:
    spec, own = pod(part, manifests), container(part, manifests)["securityContext"]
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert f"useradd --uid {spec['securityContext']['runAsUser']} " in (ROOT / "Dockerfile").read_text()
    assert spec["automountServiceAccountToken"] is False
    assert own == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


@pytest.mark.parametrize("part", PARTS)
def test_pods_have_the_memory_of_the_containers_of_compose(part: str) -> None:
    amount, unit = re.fullmatch(r"(\d+)(Gi|Mi)", container(part)["resources"]["limits"]["memory"]).groups()  # type: ignore[union-attr]
    assert int(amount) * {"Mi": 1, "Gi": 1024}[unit] == limit(part)
    [tmp] = [volume["emptyDir"] for volume in pod(part)["volumes"] if volume["name"] == "tmp"]
    assert tmp == {"medium": "Memory", "sizeLimit": f"{TMP}Mi"}
    assert {"name": "tmp", "mountPath": "/tmp"} in container(part)["volumeMounts"]  # noqa: S108


@pytest.mark.parametrize("part", PARTS)
def test_pods_may_take_longer_to_end_than_a_shutdown_waits(part: str) -> None:
    before = container(part).get("lifecycle", {}).get("preStop", {"exec": {"command": ["0"]}})["exec"]["command"][-1]
    drain = Settings.model_fields["drain_seconds"].default
    assert pod(part)["terminationGracePeriodSeconds"] >= drain + int(before) + 10


def set_by(part: str, manifests: list[Manifest]) -> Iterator[str]:
    yield from one(manifests, "ConfigMap", "lamanas")["data"]
    yield from (each["name"] for each in container(part, manifests).get("env", ()))


@pytest.mark.parametrize("manifests", MANIFESTS.values(), ids=MANIFESTS)
@pytest.mark.parametrize("part", PARTS)
def test_pods_are_given_settings_that_exist_and_no_others(part: str, manifests: list[Manifest]) -> None:
    known = {f"LAMANAS_{name.upper()}" for name in Settings.model_fields}
    assert set(set_by(part, manifests)) <= known
    # Of a Service named lamanas, for example, the cluster would make LAMANAS_PORT=tcp://…
    assert pod(part, manifests)["enableServiceLinks"] is False


@pytest.mark.parametrize("part", PARTS)
def test_pods_run_commands_that_exist(part: str) -> None:
    words = container(part)["args"]
    assert full_parser().parse_args(words).command == words[0]


def test_no_probe_of_the_app_depends_on_redis_or_on_workers() -> None:
    own = container("app")
    probes = [own[f"{name}Probe"]["httpGet"] for name in ("startup", "readiness", "liveness")]
    assert probes == [{"path": "/healthz", "port": "http"}] * 3
    assert {port["name"]: port["containerPort"] for port in own["ports"]} == {
        "http": Settings.model_fields["port"].default
    }


@pytest.mark.parametrize("part", ["adapt", "train"])
def test_workers_are_probed_at_their_start_only(part: str) -> None:
    own = container(part)
    assert {name for name in own if name.endswith("Probe")} == {"startupProbe"}
    program, *words = own["startupProbe"]["exec"]["command"]
    args = full_parser().parse_args(words)
    assert (program, args.command, args.queue, args.check) == ("lamanas", "worker", part, True)


# ---------------------------------------------------------------------- what refers to what


@pytest.mark.parametrize("manifests", MANIFESTS.values(), ids=MANIFESTS)
def test_what_selects_pods_selects_those_that_exist(manifests: list[Manifest]) -> None:
    labels = [deployment(part, manifests)["spec"]["template"]["metadata"]["labels"] for part in PARTS]

    def selected(selector: dict[str, str]) -> int:
        return sum(selector.items() <= each.items() for each in labels)

    for manifest in manifests:
        spec, kind, name = manifest.get("spec", {}), manifest["kind"], manifest["metadata"]["name"]
        if kind == "Service":
            assert selected(spec["selector"]) == 1
        elif kind in ("Deployment", "PodDisruptionBudget"):
            assert selected(spec["selector"]["matchLabels"]) == 1
        elif kind == "NetworkPolicy":
            assert selected(spec["podSelector"]["matchLabels"]) == (3 if name == "lamanas" else 1)
        elif kind in ("HorizontalPodAutoscaler", "ScaledObject"):
            target = one(manifests, "Deployment", spec["scaleTargetRef"]["name"])
            assert "replicas" not in target["spec"]  # otherwise each `kubectl apply` would reset it
    for part in PARTS:
        spreads = pod(part, manifests).get("topologySpreadConstraints", ())
        assert all(selected(each["labelSelector"]["matchLabels"]) == 1 for each in spreads)


def test_workers_are_reached_by_nobody_and_reach_names_redis_and_the_bucket() -> None:
    everything, app = (one(BASE, "NetworkPolicy", name)["spec"] for name in ("lamanas", "lamanas-app"))
    assert everything["policyTypes"] == ["Ingress", "Egress"]
    assert "ingress" not in everything
    assert [port["port"] for rule in everything["egress"] for port in rule["ports"]] == [53, 53, 6379, 443]
    assert app["ingress"] == [{"ports": [{"protocol": "TCP", "port": 8000}]}]


def test_volumes_of_a_pod_are_those_that_it_mounts_and_secrets_those_of_the_page() -> None:
    secrets = set()
    for part in PARTS:
        volumes = {volume["name"]: volume for volume in pod(part)["volumes"]}
        assert volumes.keys() == {mount["name"] for mount in container(part)["volumeMounts"]}
        secrets |= {volume["secret"]["secretName"] for volume in volumes.values() if "secret" in volume}
        secrets |= {each["secretRef"]["name"] for each in container(part)["envFrom"] if "secretRef" in each}
    assert set(re.findall(r"create secret generic (\S+)", PAGE)) == secrets


@pytest.mark.parametrize("part", ["app", "adapt"])
def test_pods_have_a_place_for_the_backbones_that_they_fetch(part: str) -> None:
    assert {"name": "backbones", "mountPath": "/data/backbones"} in container(part)["volumeMounts"]
    [volume] = [volume for volume in pod(part)["volumes"] if volume["name"] == "backbones"]
    amount = re.fullmatch(r"(\d+)Gi", volume["emptyDir"]["sizeLimit"])
    assert amount is not None
    assert int(amount[1]) * 2**30 >= 2 * MAX_BYTES


def test_workers_on_a_gpu_ask_for_one_and_the_app_for_none() -> None:
    for part, gpus in (("app", None), ("adapt", "1"), ("train", "1")):
        own = container(part, GPU)
        assert own["resources"]["limits"].get("nvidia.com/gpu") == gpus
        assert own["image"] == ("lamanas-cuda" if gpus else "lamanas")
        device = {each["name"]: each.get("value") for each in own.get("env", ())}.get("LAMANAS_DEVICE")
        assert device == ("cuda" if gpus else None)
        assert ("tolerations" in pod(part, GPU)) is bool(gpus)
    assert deployment("adapt", GPU)["spec"]["strategy"]["rollingUpdate"]["maxSurge"] == 0
    assert deployment("train", GPU)["spec"]["strategy"] == {"type": "Recreate"}


def test_keda_scales_the_adapt_workers_by_metrics_that_are_exported(exported: Exported) -> None:
    spec = one(KEDA, "ScaledObject", "lamanas-adapt")["spec"]
    trigger = spec["triggers"][0]["metadata"]
    query = trigger["query"]
    assert trigger["ignoreNullValues"] == "false"  # otherwise no answer counts as an empty queue
    assert "lamanas_queue_length" in query
    assert unknown(query, exported) == []
    assert 1 <= spec["minReplicaCount"] <= spec["fallback"]["replicas"] <= spec["maxReplicaCount"]


# ---------------------------------------------------------------------- the page


def test_the_overlay_of_the_page_builds(tmp_path: Path) -> None:
    shutil.copytree(FOLDER, tmp_path / "kubernetes")
    own = tmp_path / "kubernetes" / "overlays" / "mine"
    own.mkdir()
    [text] = [block for block in blocks(PAGE, "yaml") if block.startswith("# overlays/mine/kustomization.yaml")]
    (own / "kustomization.yaml").write_text(text)
    manifests = kustomized(own)
    images = {container(part, manifests)["image"].partition(":")[0] for part in PARTS}
    assert images == {"registry.example.org/lamanas", "registry.example.org/lamanas-cuda"}
    assert one(manifests, "ScaledObject", "lamanas-adapt")
    assert one(manifests, "ConfigMap", "lamanas")["data"]["LAMANAS_RATE_LIMIT"]
    assert [problem for manifest in manifests for problem in problems(manifest)] == []


def test_every_file_that_the_page_names_exists() -> None:
    named = re.findall(r"`(deploy/[\w./-]+)`", PAGE)
    assert named
    assert [path for path in named if not (ROOT / path).exists()] == []
