"""Download an API's models inside its pod, before anything else starts there.

``python -P -m cortex.environments.kubernetes.models --spec /cortex/spec.json --models /models`` leaves every model that
is a URL under ``/models/NAME``, checked and arranged as in every other environment, by the same code.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from cortex.environments.kubernetes.manifests.release import is_fetched
from cortex.environments.model_cache import ModelCache
from cortex.environments.models import resolve
from cortex.errors import Error
from cortex.spec import APISpec


def main(arguments: Sequence[str] | None = None) -> int:
    """Fetch the models and return the exit code: 0, or 1 after one line on stderr that says what is wrong."""
    parser = argparse.ArgumentParser(prog="python -m cortex.environments.kubernetes.models")
    parser.add_argument("--spec", type=Path, required=True, help="the API's spec, as JSON")
    parser.add_argument("--models", type=Path, required=True, help="the directory that gets the models")
    options = parser.parse_args(arguments)
    try:
        fetch(APISpec.model_validate_json(options.spec.read_bytes()), options.models)
    except Error as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        return error.exit_code
    return 0


def fetch(spec: APISpec, models: Path) -> None:
    """Put every model of a spec that is a URL into ``models/NAME``. FieldError for one that cannot be had."""
    remote = spec.with_models(filter(is_fetched, spec.predictor.models))
    cache = ModelCache(models / ".cache")
    with cache.hold():
        for model in resolve(remote, models, cache, partial(print, flush=True)):
            link = models / model.name
            link.unlink(missing_ok=True)  # of a container that was started before this one
            link.symlink_to(os.path.relpath(model.path, models))


if __name__ == "__main__":
    sys.exit(main())
