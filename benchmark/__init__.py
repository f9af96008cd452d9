"""Measure the whole stack beside its reference, in one run on one machine.

python -m benchmark compare     all stacks side by side: engine, model server, API, TensorFlow, Flask + Gunicorn + Keras
python -m benchmark launch      a model alone, at the settings recommended for this machine's processors
python -m benchmark tfrecords   labelled pictures for it, as TFRecords
python -m benchmark worth       what each setting recommended by launch is worth
python -m benchmark startup     how soon a deployment is live, and what it costs in memory
python -m benchmark gpu_target  the GPU target on a machine that has a GPU

How a comparison goes: compare.py measures the sections of sections.py, which are made of the cells of cells.py, one run
of each in turn, on the systems that stacks.py has started. record.py keeps the figures; aims.py, tables.py and plot.py
say what they show, and document.py puts that into docs/performance.md, as it does what worth.py finds by launches in
turns.
"""

from cortex import bare_openvino

bare_openvino.arrange()
