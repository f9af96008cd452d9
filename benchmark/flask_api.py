"""The reference: ResNet-50 behind Flask, as it is commonly done. Each Gunicorn worker loads Keras and the model.

POST /predict takes a form with the file ``image``, and answers ``{"predictions": [{"label", "probability"} x 5],
"success": true}``. It is a stand-in for the API of a well-known tutorial, faithful in what costs time and memory: PIL
decodes and resizes, ``model.predict`` runs one image a time. The weights are random: they change no duration.
"""

import json
from pathlib import Path
from typing import Any

import flask
import keras
import numpy as np
from keras.applications.resnet50 import ResNet50, preprocess_input
from PIL import Image

_LABELS = Path(__file__).parents[1] / "export" / "imagenet_class_index.json"

app = flask.Flask(__name__)
_model = ResNet50(weights=None)
_labels = {int(k): name for k, (_, name) in json.loads(_LABELS.read_text()).items()}


@app.post("/predict")
def predict() -> Any:
    """Classify the uploaded image."""
    upload = flask.request.files.get("image")
    if upload is None:
        return flask.jsonify(success=False), 400
    image = Image.open(upload.stream).convert("RGB").resize((224, 224))
    batch = preprocess_input(keras.utils.img_to_array(image)[np.newaxis])
    scores = _model.predict(batch)[0]
    best = np.argsort(scores)[:-6:-1]
    predictions = [{"label": _labels[int(k)], "probability": float(scores[k])} for k in best]
    return flask.jsonify(predictions=predictions, success=True)
