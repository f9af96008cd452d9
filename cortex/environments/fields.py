"""An error about the value of one field of a yaml, before anyone has said which file and line it is in."""

from cortex.errors import UserError


class FieldError(UserError):
    """Say what is wrong with ``field``, the way to a field of `APISpec`: ``predictor.models[0].path``.

    The whole text is ``field: message``. Whoever has the file says ``Config.where(api, field)`` in place of the field:
    that names file, line and API, and the key that the user wrote.
    """

    def __init__(self, field: str, message: str) -> None:
        super().__init__(f"{field}: {message}")
        self.field = field
        self.message = message
