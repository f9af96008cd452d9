"""OpenVINO without what it can do without, and nobody here asks for."""

import sys

_LEFT_OUT = ("openvino_telemetry", "openvino.tools.ovc")


def arrange() -> None:
    """Have OpenVINO and NNCF not find two packages that they can do without. Call it before the first import of either.

    ``openvino_telemetry`` would ask Google Analytics to count their use. It has no switch but a file in the user's home
    (``opt_in_out --opt_out``), and starts a thread and a look at the network with the import. ``openvino.tools.ovc`` is
    ``openvino.convert_model``, a command line with its parsers: 5 MB and a tenth of a second. Here models are read by
    ``Core.read_model``.
    """
    for name in _LEFT_OUT:
        sys.modules.setdefault(name, None)  # type: ignore[arg-type]  # None: importing it is an ImportError
