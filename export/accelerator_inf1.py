"""Compile a frozen SavedModel for Inferentia 1. A program for the interpreter that has tensorflow-neuron: Python 3.6.

Its argument is ``--check``, or a JSON object: model, target, batch_size, compiler_args. The last line of its standard
output is a JSON object: share (of the operations on the device) and tools. It exits with 3 when tools are missing.
"""

import json
import os
import shutil
import sys

MISSING = 3


def _check():
    """Import the tool chain and find its compiler, which tensorflow-neuron starts by name."""
    try:
        import tensorflow.neuron as neuron
    except ImportError as error:
        sys.exit(_missing(str(error)))
    if shutil.which("neuron-cc") is None:
        sys.exit(_missing("there is no neuron-cc on the PATH"))
    return neuron


def _missing(text):
    sys.stderr.write(text + "\n")
    return MISSING


def _versions():
    import pkg_resources

    found = {}
    for name in ("tensorflow-neuron", "neuron-cc"):
        try:
            found[name] = pkg_resources.get_distribution(name).version
        except pkg_resources.DistributionNotFound:
            found[name] = "unknown"
    return found


def _compile(told):
    """Compile for requests of any size: the runtime splits a batch into those of the size that was compiled for."""
    neuron = _check()
    report = neuron.saved_model.compile(
        told["model"],
        told["target"],
        batch_size=told["batch_size"],
        dynamic_batch_size=True,
        compiler_args=told["compiler_args"],
    )
    return report["OnNeuronRatio"]


def main():
    if sys.argv[1] == "--check":
        _check()
        return
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "1")
    share = _compile(json.loads(sys.argv[1]))
    sys.stdout.write("\n" + json.dumps({"share": float(share), "tools": _versions()}) + "\n")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:  # the command that started it says so
        sys.exit(130)
