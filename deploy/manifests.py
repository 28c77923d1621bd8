"""Checks deploy/kubernetes: ``python -m deploy.manifests`` says what is wrong, and exits with status 1 if anything is.

Kustomize builds the manifests for a cluster. This builds them from the few of its fields that they use, so that they
can be checked where it is not installed; a test compares the two where it is.
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonpatch
import jsonschema
import kubernetes_validate
import yaml

Manifest = dict[str, Any]
FOLDER = Path(__file__).parent / "kubernetes"
BUILT = ("base", "overlays/gpu", "overlays/keda")
# Of Kubernetes: the oldest that is supported, and the newest that is known here.
VERSIONS = ("1.30", "1.37")
# What Kubernetes itself does not define: all that is used of it, by its apiVersion and kind.
KEDA: Manifest = {
    "type": "object",
    "required": ["apiVersion", "kind", "metadata", "spec"],
    "properties": {
        "spec": {
            "type": "object",
            "required": ["scaleTargetRef", "triggers"],
            "additionalProperties": False,
            "properties": {
                "scaleTargetRef": {"type": "object", "required": ["name"], "properties": {"name": {"type": "string"}}},
                "pollingInterval": {"type": "integer"},
                "minReplicaCount": {"type": "integer"},
                "maxReplicaCount": {"type": "integer"},
                "fallback": {
                    "type": "object",
                    "required": ["failureThreshold", "replicas"],
                    "properties": {"failureThreshold": {"type": "integer"}, "replicas": {"type": "integer"}},
                },
                "triggers": {
                    "type": "array",
                    "minItems": 1,
                    "items": {
                        "type": "object",
                        "required": ["type", "metadata"],
                        "properties": {
                            "type": {"const": "prometheus"},
                            "metadata": {
                                "type": "object",
                                "required": ["serverAddress", "query", "threshold"],
                                "additionalProperties": {"type": "string"},
                            },
                        },
                    },
                },
            },
        }
    },
}
CUSTOM = {("keda.sh/v1alpha1", "ScaledObject"): KEDA}


def build(folder: Path) -> list[Manifest]:
    """The manifests of a folder with a kustomization. Raises ValueError for a field that is not understood, and for a
    patch of nothing; jsonpatch.JsonPatchException for a patch that does not fit."""
    return _built(folder, [])


def _built(folder: Path, before: list[Manifest]) -> list[Manifest]:
    """``before`` with the resources, components and patches of this folder, in this order."""
    kustomization = yaml.safe_load((folder / "kustomization.yaml").read_text())
    unknown = set(kustomization) - {"apiVersion", "kind", "resources", "components", "patches"}
    if unknown:
        raise ValueError(f"{folder}: not understood: {', '.join(sorted(unknown))}")
    found = list(before)
    for name in kustomization.get("resources", ()):
        path = folder / name
        found += build(path) if path.is_dir() else yaml.safe_load_all(path.read_text())
    for name in kustomization.get("components", ()):
        found = _built(folder / name, found)
    for patch in kustomization.get("patches", ()):
        found = _patched(found, patch["target"], yaml.safe_load((folder / patch["path"]).read_text()), folder)
    return found


def _patched(manifests: list[Manifest], target: dict[str, str], patch: list[Any], folder: Path) -> list[Manifest]:
    """With the operations of a JSON patch (RFC 6902) applied to those of this kind and name."""
    hit = [each for each in manifests if (each["kind"], each["metadata"]["name"]) == (target["kind"], target["name"])]
    if not hit:
        raise ValueError(f"{folder}: a patch of {target}, which there is not")
    return [jsonpatch.apply_patch(each, patch) if each in hit else each for each in manifests]


def problems(manifest: Manifest) -> Iterator[str]:
    """What Kubernetes would refuse."""
    name = f"{manifest['kind']} {manifest['metadata']['name']}"
    schema = CUSTOM.get((manifest["apiVersion"], manifest["kind"]))
    try:
        if schema is not None:
            jsonschema.validate(manifest, schema)
            return
        for version in VERSIONS:
            kubernetes_validate.validate(manifest, version, strict=True)
    except (jsonschema.ValidationError, kubernetes_validate.SchemaNotFoundError) as error:
        path = ".".join(map(str, getattr(error, "absolute_path", ())))
        yield f"{name}: {path}: {error.message}"


def main() -> int:
    different = {json.dumps(manifest, sort_keys=True) for folder in BUILT for manifest in build(FOLDER / folder)}
    found = [problem for text in sorted(different) for problem in problems(json.loads(text))]
    for problem in found:
        print(problem, file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
