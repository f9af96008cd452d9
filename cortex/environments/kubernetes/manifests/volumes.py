"""What the containers of a pod see of files, and where those come from."""

from collections.abc import Mapping
from typing import Any

from cortex.environments.kubernetes.manifests.files import CONFIG, RUN, config_name, project_volume
from cortex.environments.kubernetes.manifests.release import (
    MODELS,
    Release,
    is_fetched,
    is_local,
    mount_path,
    volume_of,
)


def mounts(release: Release) -> list[dict[str, Any]]:
    """Return what every container of a release sees: its configuration, the sockets, the models."""
    rows: list[dict[str, Any]] = [
        {"name": "config", "mountPath": CONFIG, "readOnly": True},
        {"name": "run", "mountPath": RUN},
        {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108 - a volume of the container's own
    ]
    if _has_models_directory(release):
        rows.append({"name": "models", "mountPath": MODELS, "readOnly": True})
    for index, model in enumerate(release.models):
        if (volume := volume_of(model)) is not None:
            row = {"name": f"model-{index}", "mountPath": mount_path(model, volume[1]), "readOnly": True}
            rows.append({**row, **({"subPath": volume[1]} if volume[1] else {})})
        elif is_local(model) and not release.settings.registry:
            rows.append({"name": f"model-{index}", "mountPath": mount_path(model, model.path), "readOnly": True})
    return rows


def volumes(release: Release, config: Mapping[str, str]) -> list[dict[str, Any]]:
    """Return the volumes of a pod; ``config`` is what `files.config_name` names."""
    rows: list[dict[str, Any]] = [
        {"name": "config", "configMap": {"name": config_name(release, config)}},
        {"name": "project", "emptyDir": {}},
        *([project_volume(release)] if release.project else []),
        {"name": "run", "emptyDir": {}},
        {"name": "tmp", "emptyDir": {}},
    ]
    if _has_models_directory(release):
        rows.append({"name": "models", "emptyDir": {}})
    for index, model in enumerate(release.models):
        if (volume := volume_of(model)) is not None:
            claim = {"claimName": volume[0], "readOnly": True}
            rows.append({"name": f"model-{index}", "persistentVolumeClaim": claim})
        elif is_local(model) and not release.settings.registry:
            rows.append({"name": f"model-{index}", "hostPath": {"path": model.path, "type": "Directory"}})
    return rows


def _has_models_directory(release: Release) -> bool:
    return bool(release.bundled_models) or any(is_fetched(model) for model in release.models)
