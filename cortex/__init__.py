"""Deploy a trained model to CPU, GPU and AWS Inferentia from one yaml each."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cortex.python_client import Client

__version__ = "0.1.0"


def client(env: str) -> "Client":
    """Return what deploys and manages APIs in the environment of this name, as in Cortex: ``cortex.client("local")``.

    Raises `cortex.errors.UserError` when there is none.
    """
    from cortex.python_client import Client  # here, since every process of an API imports this package

    return Client.of(env)
