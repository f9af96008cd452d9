"""Compile a frozen SavedModel for Inferentia 2. A program for the interpreter that has tensorflow-neuronx: Python 3.8.

Its argument and its output are those of accelerator_inf1.py.
"""

import json
import os
import sys

MISSING = 3


def _check():
    try:
        import tensorflow_neuronx
    except ImportError as error:
        sys.stderr.write(str(error) + "\n")
        sys.exit(MISSING)
    return tensorflow_neuronx


def _versions():
    from importlib.metadata import PackageNotFoundError, version

    found = {}
    for name in ("tensorflow-neuronx", "neuronx-cc", "tensorflow"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "unknown"
    return found


def _compile(told):
    """Trace the signature, and save the trace under the signature's own names."""
    os.environ["NEURON_CC_FLAGS"] = " ".join(told["compiler_args"])  # how the tracer hands arguments to its compiler
    neuron = _check()
    import tensorflow as tf

    serve = tf.saved_model.load(told["model"]).signatures["serving_default"]
    ((alias, spec),) = serve.structured_input_signature[1].items()
    (output,) = serve.structured_outputs
    example = tf.zeros([told["batch_size"], *spec.shape.as_list()[1:]], spec.dtype)
    traced = neuron.trace(lambda value: serve(**{alias: value})[output], example)
    traced.dynamic_batch_size = True

    module = tf.Module()
    module.traced = traced

    def predict(value):
        return {output: traced(value)}

    module.predict = tf.function(predict, input_signature=[tf.TensorSpec(spec.shape, spec.dtype, name=alias)])
    tf.saved_model.save(module, told["target"], signatures={"serving_default": module.predict})
    return traced.on_neuron_ratio


def main():
    if sys.argv[1] == "--check":
        _check()
        return
    share = _compile(json.loads(sys.argv[1]))
    sys.stdout.write("\n" + json.dumps({"share": float(share), "tools": _versions()}) + "\n")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:  # the command that started it says so
        sys.exit(130)
