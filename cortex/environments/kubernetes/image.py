"""An image with the models and the project of a release, for what a cluster cannot read from this machine.

It is made of `cortex-api`, pushed to the environment's registry, and copied from by the pod's first container.
"""

import shutil
import subprocess
import tempfile
from pathlib import Path

from cortex.environments.base import Progress
from cortex.environments.kubernetes.manifests.release import Release
from cortex.environments.model_cache import ModelCache
from cortex.environments.models import resolve
from cortex.environments.project import Project
from cortex.errors import UserError
from cortex.spec.config import Config

_BUILDERS = ("docker", "podman")


def provide(release: Release, config: Config, home: Path, progress: Progress) -> None:
    """Build and push the image of a release, if it has one. UserError when that cannot be done."""
    if not release.bundle:
        return
    builder = next(filter(None, map(shutil.which, _BUILDERS)), None)
    if builder is None:
        raise UserError("to build an image for the registry, docker or podman must be on the PATH")
    with tempfile.TemporaryDirectory(prefix="cortex-image-") as name:
        context = Path(name)
        _fill(context, release, config, home, progress)
        progress(f"building the image {release.bundle} ...")
        _run(builder, "build", "--tag", release.bundle, str(context))
    progress(f"pushing the image {release.bundle} ...")
    _run(builder, "push", release.bundle)


def _fill(context: Path, release: Release, config: Config, home: Path, progress: Progress) -> None:
    """Write what the image is built from."""
    base = release.settings.own_image("api")
    (context / "Dockerfile").write_text(f"FROM {base}\nCOPY --chown=10001:10001 bundle /bundle\n")
    (context / "bundle").mkdir()
    spec = release.spec.with_models(release.bundled_models)
    cache = ModelCache(home / "model_cache")
    with cache.hold():
        for model in resolve(spec, config.path.absolute().parent, cache, progress):
            shutil.copytree(model.path, context / "bundle/models" / model.name)
    if release.bundles_project:
        Project.of(config, release.spec, home).tree.copy_to(context / "bundle/project")


def _run(*command: str) -> None:
    try:
        done = subprocess.run(command, capture_output=True, stdin=subprocess.DEVNULL, text=True, check=False)
    except OSError as error:
        raise UserError(f"{command[0]} cannot be started: {error.strerror}") from error
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines()
        raise UserError(f"{Path(command[0]).name} {command[1]} failed: {said[-1] if said else 'it did not say why'}")
