"""PythonClient: models that the user's own ``load_model`` loads into this process."""

import threading
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cortex.errors import UserError
from cortex.model_client.models import LATEST, choose_name, choose_version, versions_on_disk
from cortex.spec import Model


class PythonClient:
    """Hold the models of one API, loaded when first asked for. Safe to use from several threads.

    At most ``cache_size`` models stay in memory when it is set; the one that was used longest ago leaves first.
    """

    def __init__(self, models: tuple[Model, ...], cache_size: int | None = None) -> None:
        self._paths = {model.name: versions_on_disk(Path(model.path)) for model in models}
        self._cache_size = cache_size
        self._load: Callable[[str], Any] | None = None
        self._loaded: OrderedDict[tuple[str, int], Any] = OrderedDict()
        self._lock = threading.RLock()  # a load_model may ask for another model

    def set_load_method(self, load_model: Callable[[str], Any]) -> None:
        """Name the function that turns the path of a model's version into the model."""
        self._load = load_model

    def get_model(self, model_name: str | None = None, model_version: str = LATEST) -> Any:
        """Return what ``load_model(model_path)`` returned for this model and version.

        Raises UserError for a model or version that does not exist, and whatever ``load_model`` raises.
        """
        name = choose_name(list(self._paths), model_name)
        key = (name, choose_version(self._paths[name], model_version, name))
        with self._lock:  # one at a time: loading the same model twice costs its memory twice
            if key not in self._loaded:
                self._loaded[key] = self._load_model(key)
            self._loaded.move_to_end(key)
            model = self._loaded[key]
            if self._cache_size is not None and len(self._loaded) > self._cache_size:
                self._loaded.popitem(last=False)
            return model

    @property
    def input_signatures(self) -> dict[str, Any]:
        """Nothing: only the user's code knows what its models take."""
        return {}

    @property
    def metadata(self) -> dict[str, Any]:
        """Describe every version under ``name-version``. The values survive JSON."""
        return {
            f"{name}-{number}": {
                "disk_path": str(path),
                "timestamp": int(path.stat().st_mtime) if path.exists() else None,
            }
            for name, rows in self._paths.items()
            for number, path in sorted(rows.items())
        }

    def healthy(self) -> bool:
        """Say yes: the models are part of this process."""
        return True

    def close(self) -> None:
        """Do nothing: the models end with the process."""

    def _load_model(self, key: tuple[str, int]) -> Any:
        if self._load is None:
            raise UserError("get_model() can be called once __init__ of the PythonPredictor has returned")
        return self._load(str(self._paths[key[0]][key[1]]))
