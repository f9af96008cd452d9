"""Gunicorn's settings for the reference, `benchmark.flask_api`."""

from typing import Any

workers = 3
timeout = 120  # a worker imports Keras first, and three do so at once
control_socket_disable = True  # it would stand in the user's home
READY = "worker is ready to answer"


def post_worker_init(worker: Any) -> None:
    """Say that one worker has loaded its model: until all have, there is nothing to measure."""
    worker.log.info(READY)
