"""Every error that a person is meant to read.

    Error
    ├── UserError        your yaml, model, predictor, request or flag; the message says what to do
    │   ├── AddressTaken somebody else listens where an API is to listen
    │   ├── TakenOver    another command ended a deployment, to begin its own
    │   └── NotStarted   a process that gave up before it was ready
    └── CortexError      a fault of ours

Errors become output in two places only: the CLI's catch (``error: ...``, ``exit_code``) and the API's HTTP handler.
This module imports nothing, so anything may import it.
"""


class Error(Exception):
    """Carry one message for a person, and the exit code of a command that ends with it."""

    exit_code = 1


class UserError(Error):
    """Say what is wrong with something the user wrote, and what would be right."""


class AddressTaken(UserError):
    """Say at which address somebody else listens."""


class TakenOver(UserError):
    """Say that another command ended this one's work, to begin its own."""


class NotStarted(UserError):
    """Say why a process gave up before it was ready."""

    exit_code = 3


class CortexError(Error):
    """Say that this project is at fault, not its user."""
