"""From a trained model to what each target serves: ``python -m export --help``."""

from cortex import bare_openvino

bare_openvino.arrange()
