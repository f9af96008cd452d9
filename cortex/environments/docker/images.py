"""Which images an API's containers are made from, and how they come to this machine."""

import re
from dataclasses import dataclass
from pathlib import Path

import cortex
from cortex.environments import model_server
from cortex.environments.base import Progress
from cortex.environments.docker.compose import Images
from cortex.environments.docker.engine import Engine
from cortex.environments.docker.packages import PIP_VARIABLES, Packages
from cortex.environments.tree import Tree
from cortex.errors import UserError
from cortex.spec import APISpec

_OF_AN_API = "cortex-api-"
"""Begins the names of images with packages of an API's own."""
_DIGEST = re.compile("[0-9a-f]{12}")
_TARGETS = ("api", "model-server")


@dataclass(frozen=True)
class Shelf:
    """Where the project's own images are: in ``registry``, or made from the source that this code is a part of."""

    registry: str = ""
    front: str = "nginx:stable"

    def images(self, spec: APISpec, *, gpus: int, packages: Packages) -> Images:
        """Return the images of an API; ``packages`` are what its project wants installed."""
        api = self.api(spec)
        if packages:
            api = f"{_OF_AN_API}{spec.name}:{packages.digest(api)}"
        server = model_server.image(spec, self._own, on_gpu=bool(spec.compute.gpu and gpus))
        return Images(api, server)

    def built(self, name: str, engine: Engine) -> list[str]:
        """Return the images of this machine that have the packages of an API of that name."""
        tags = engine("image", "ls", "--format", "{{.Tag}}", f"{_OF_AN_API}{name}").split()
        return [f"{_OF_AN_API}{name}:{tag}" for tag in tags if _DIGEST.fullmatch(tag)]  # others are their owner's

    def api(self, spec: APISpec) -> str:
        """Return the image that an API's workers are made from, before its project's packages are installed."""
        return spec.predictor.image or self._own("api")

    def source(self) -> Path | None:
        """Return the source directory that the images are built from, when this code runs from one."""
        root = Path(cortex.__file__).parents[1]
        return root if not self.registry and (root / "deploy/Dockerfile").is_file() else None

    def builds(self) -> dict[str, dict[str, str]]:
        """Return how compose builds the images that are built from `source`, by their names."""
        source = self.source()
        if source is None:
            return {}
        dockerfile = {"context": str(source), "dockerfile": "deploy/Dockerfile"}
        return {self._own(target): {**dockerfile, "target": target} for target in _TARGETS}

    def _own(self, target: str) -> str:
        prefix = f"{self.registry.rstrip('/')}/" if self.registry else ""
        return f"{prefix}cortex-{target}:{cortex.__version__}"


def provide(spec: APISpec, project: Path, shelf: Shelf, engine: Engine, images: Images, progress: Progress) -> None:
    """Have every image of an API on this machine: built, pulled, or there already. UserError when one cannot be had."""
    packages = Packages.of(spec, Tree.of(project).files)
    used = [shelf.api(spec), shelf.front]
    used += [images.model_server] if spec.predictor.type == "tensorflow" else []
    for image in used:
        _provide(image, shelf, engine, progress)
    if packages:
        progress(f"installing the packages of {spec.name} into {images.api} ...")
        directory = project.parent / "image"
        for name, data in packages.context(shelf.api(spec)).items():
            (directory / name).parent.mkdir(parents=True, exist_ok=True)
            (directory / name).write_bytes(data)
        _build(engine, "--tag", images.api, str(directory))


def _provide(image: str, shelf: Shelf, engine: Engine, progress: Progress) -> None:
    if build := shelf.builds().get(image):
        progress(f"building image {image} ...")  # what is unchanged is not built again
        source = build["context"]
        _build(engine, "--file", f"{source}/{build['dockerfile']}", "--target", build["target"], "--tag", image, source)
    elif not engine.good("image", "inspect", image):
        if image.startswith("cortex-"):
            raise UserError(_cannot_be_had(image))
        progress(f"pulling image {image} ...")
        try:
            engine("pull", "--quiet", image)
        except UserError as error:
            raise UserError(f"image {image} cannot be pulled: {error}") from error


def _build(engine: Engine, *arguments: str) -> None:
    """Build an image; a build that fails leaves no container. pip's variables are those of this command, if any."""
    engine("build", "--quiet", "--force-rm", *(f"--build-arg={name}" for name in PIP_VARIABLES), *arguments)


def _cannot_be_had(image: str) -> str:
    device = "".join(f".{name}" for name in ("gpu", "neuron") if f"-{name}:" in image)
    return (
        f"image {image} is not on this machine: build it from the source, as deploy/Dockerfile{device} says, or "
        "name the registry that has it: cortex env configure NAME --provider docker --registry REGISTRY"
    )
