"""Keep libraries from reporting to their makers what runs here."""

import sys


def turn_off() -> None:
    """Have OpenVINO and NNCF find no `openvino_telemetry`, which would ask Google Analytics to count their use.

    Call it before the first import of either. Both work without that package; it has no switch but a file in the user's
    home (``opt_in_out --opt_out``), and starts a thread and a look at the network with the import.
    """
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # None: importing it is an ImportError
