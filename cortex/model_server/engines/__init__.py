"""The engines that run models, one module each; none is imported before a model needs it."""

from cortex import bare_openvino

bare_openvino.arrange()
