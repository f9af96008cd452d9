"""Environments that do nothing and say what a test wants: the other side of the CLI's seam."""

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cortex.environments.base import API, Deployed, Progress
from cortex.errors import UserError
from cortex.spec import APISpec, Model, Predictor
from cortex.spec.config import Config

IRIS = APISpec(
    name="iris", predictor=Predictor(type="tensorflow", path="predictor.py", models=(Model(path="models/iris"),))
)


def api(spec: APISpec = IRIS, **changes: Any) -> API:
    """Return an API that went live five and a half minutes ago, but for ``changes``."""
    values = {
        "api_id": "7f3c",
        "status": "live",
        "endpoint": "http://localhost:8888",
        "last_updated": time.time() - 330,
    }
    return API(spec=spec, **(values | changes))


@dataclass
class World:
    """What an environment says, and what it was asked."""

    apis: list[API] = field(default_factory=lambda: [api()])
    steps: tuple[str, ...] = ()
    results: tuple[Deployed, ...] = ()
    log: tuple[str, ...] = ("loading the predictor from predictor.py", "200 OK POST /")
    error: BaseException | None = None
    calls: list[tuple[str, dict[str, Any]]] = field(default_factory=list)


class FakeLocal:
    provider = "local"
    known: tuple[str, ...] = ("tls_port", "rate_limit")
    world = World()

    def __init__(self, home: Path, settings: Mapping[str, str], name: str) -> None:
        for key in settings:
            if key not in self.known:
                raise UserError(f"the {self.provider} environment has no setting {key!r}")
        self.home = home
        self.name = name
        self.settings = settings

    def choose_front(self, choice: str) -> None:
        self._called("choose_front", choice=choice)

    def deploy(self, config: Config, *, force: bool, progress: Progress) -> Iterator[Deployed]:
        self._called("deploy", config=config.path, names=[spec.name for spec in config.apis], force=force)
        for step in self.world.steps:
            progress(step)
        yield from self.world.results

    def render(self, config: Config, front: str | None = None) -> tuple[dict[str, Any], ...]:
        self._called("render", config=config.path, front=front)
        return tuple({"provider": self.provider, "api": spec.name, **self.settings} for spec in config.apis)

    def apis(self) -> tuple[API, ...]:
        self._called("apis")
        return tuple(self.world.apis)

    def api(self, name: str) -> API:
        self._called("api", name=name)
        return self._find(name)

    def logs(self, name: str, *, follow: bool) -> Iterator[str]:
        self._called("logs", name=name, follow=follow)
        self._find(name)
        yield from self.world.log
        while follow:
            time.sleep(0.01)
            yield "200 OK POST /"

    def refresh(self, name: str, *, force: bool, progress: Progress) -> Deployed:
        self._called("refresh", name=name, force=force)
        for step in self.world.steps:
            progress(step)
        return self.world.results[0] if self.world.results else Deployed(name, f"updating {name}", api=self._find(name))

    def delete(self, name: str, *, keep_cache: bool) -> str:
        self._called("delete", name=name, keep_cache=keep_cache)
        self._find(name)
        return f"deleting {name}"

    def _called(self, method: str, **arguments: Any) -> None:
        self.world.calls.append((method, arguments))
        if self.world.error:
            raise self.world.error

    def _find(self, name: str) -> API:
        for each in self.world.apis:
            if each.spec.name == name:
                return each
        raise UserError(f"{name} is not deployed")


class FakeDocker(FakeLocal):
    provider = "docker"
    known = ("registry", "front")
    world = World(apis=[])


PROVIDERS = {"local": "fake_environment:FakeLocal", "docker": "fake_environment:FakeDocker"}
