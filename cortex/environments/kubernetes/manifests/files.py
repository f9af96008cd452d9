"""The files of a pod, as objects of the cluster: the API's spec, the model server's configuration, the project.

Each is named by its content and never changed, so that pods of two revisions each find their own.
"""

import base64
import hashlib
import json
import os
from collections.abc import Mapping
from typing import Any

from cortex.environments.kubernetes.manifests.keys import key_of
from cortex.environments.kubernetes.manifests.release import Release

CONFIG, FILES, PROJECT, RUN = "/cortex", "/cortex-project", "/project", "/run/cortex"
LARGEST = 1024 * 1024 - 32 * 1024
"""Bytes of files: Kubernetes takes 1 MiB for a ConfigMap or a Secret, names and base64 included."""
_SECRET = ".env"  # noqa: S105 - the name of a file


def size(files: Mapping[str, bytes]) -> int:
    """Return how much room files take in an object of the cluster."""
    encoded = (4 * len(data) / 3 if _SECRET in files or not _is_text(data) else len(data) for data in files.values())
    return int(sum(encoded)) + sum(2 * len(name) + 100 for name in files)


def files(release: Release, config: Mapping[str, str]) -> tuple[dict[str, Any], ...]:
    """Return the objects that hold the files of a release."""
    texts = {name: text.encode() for name, text in config.items()}
    objects = [_holder("ConfigMap", config_name(release, config), texts)]
    if release.project:
        objects.append(_holder(_kind(release), project_name(release), release.project))
    return tuple(objects)


def config_name(release: Release, config: Mapping[str, str]) -> str:
    """Return the name of the object that has the spec."""
    return f"{release.name}-config-{_digest(json.dumps(sorted(config.items())).encode())}"


def project_name(release: Release) -> str:
    """Return the name of the object that has the project."""
    parts = (part for name, data in sorted(release.project.items()) for part in (os.fsencode(name), data))
    return f"{release.name}-project-{_digest(b''.join(hashlib.sha256(part).digest() for part in parts))}"


def project_volume(release: Release) -> dict[str, Any]:
    """Return the volume that has the project's files under their keys (`manifests.keys`)."""
    modes = {key_of(name): 0o755 if name in release.executables else 0o644 for name in sorted(release.project)}
    items = [{"key": key, "path": key, "mode": mode} for key, mode in modes.items()]
    told = {"items": items} if release.executables else {}  # by default nothing may be run
    if _kind(release) == "Secret":
        return {"name": "files", "secret": {"secretName": project_name(release), **told}}
    return {"name": "files", "configMap": {"name": project_name(release), **told}}


def _kind(release: Release) -> str:
    return "Secret" if _SECRET in release.project else "ConfigMap"


def _holder(kind: str, name: str, files: Mapping[str, bytes]) -> dict[str, Any]:
    holder: dict[str, Any] = {"apiVersion": "v1", "kind": kind, "metadata": {"name": name}, "immutable": True}
    rows = {key_of(file): data for file, data in sorted(files.items())}
    if kind == "Secret":
        return {**holder, "type": "Opaque", "data": {key: _base64(data) for key, data in rows.items()}}
    texts = {key: data.decode() for key, data in rows.items() if _is_text(data)}
    others = {key: _base64(data) for key, data in rows.items() if key not in texts}
    return {**holder, "data": texts, **({"binaryData": others} if others else {})}


def _is_text(data: bytes) -> bool:
    try:
        return "\0" not in data.decode()
    except UnicodeDecodeError:
        return False


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:10]
