"""The engines that run models, one module each; none is imported before a model needs it."""

from cortex import telemetry

telemetry.turn_off()
