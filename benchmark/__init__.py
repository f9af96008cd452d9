"""Measure the whole stack beside its reference, in one run on one machine.

python -m benchmark compare    a deployment against Flask + Gunicorn + Keras, at 1 and at 8 clients
python -m benchmark launch     a model alone, at the settings recommended for this machine's processors
python -m benchmark tfrecords  labelled pictures for it, as TFRecords
python -m benchmark startup    how soon a deployment is live, and what it costs in memory
"""
