"""The `cortex` command as a process of its own, over the fake environments: python fake_cortex.py ARGUMENTS."""

import sys

from fake_environment import PROVIDERS, FakeLocal

from cortex.cli import main
from cortex.environments.registry import Registry, cortex_home

if __name__ == "__main__":
    FakeLocal.world.steps = ("starting [model server]", "waiting for worker 0")
    sys.exit(main(registry=Registry(cortex_home(), PROVIDERS)))
