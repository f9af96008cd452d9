"""From a trained model to what each target serves: ``python -m export --help``."""

from cortex import telemetry

telemetry.turn_off()
