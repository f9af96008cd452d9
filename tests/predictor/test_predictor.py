"""What predictor.py accepts, what it answers, and how it refuses."""

import base64
import io
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException

ROOT = Path(__file__).parents[2]


def png(red: int) -> bytes:
    """Return a picture of one color whose red is given: class ``red`` to the `RedMeter`."""
    file = io.BytesIO()
    Image.new("RGB", (300, 260), (red, 10, 20)).save(file, "PNG")
    return file.getvalue()


def text(image: bytes) -> str:
    return base64.b64encode(image).decode()


def form(*files: tuple[str, bytes], field: str = "image") -> FormData:
    return FormData([(field, UploadFile(io.BytesIO(data), filename=name)) for name, data in files])


def five(first: int) -> list[str]:
    return [f"class {k}" for k in range(first, first + 5)]


def predictions(first: int) -> list[dict[str, Any]]:
    return [{"label": f"class {first + i}", "probability": 0.5 / 2**i} for i in range(5)]


ANSWERS = {
    "one image of a list is one flat list": ({"imgs": [text(png(7))]}, five(7)),
    "several images are a list of lists in order": (
        {"imgs": [text(png(9)), text(png(3)), text(png(200))]},
        [five(9), five(3), five(200)],
    ),
    "base64 with line breaks": ({"imgs": [base64.encodebytes(png(4)).decode()]}, five(4)),
    "a data: URL": ({"imgs": ["data:image/png;base64," + text(png(5))]}, five(5)),
    "a raw body": (png(6), five(6)),
    "a form with one file": (form(("a.png", png(8))), {"predictions": predictions(8), "success": True}),
    "a form with two files": (
        form(("a.png", png(8)), ("b.png", png(1))),
        {"predictions": [predictions(8), predictions(1)], "success": True},
    ),
}


@pytest.mark.parametrize("name", ANSWERS)
def test_answers(predictor: Any, name: str) -> None:
    """Every shape of request has its shape of answer."""
    payload, answer = ANSWERS[name]
    assert predictor.predict(payload) == answer


def test_one_call_for_all_images(predictor: Any, client: Any) -> None:
    """The images of a request go to the model together, as one [n, 224, 224, 3] uint8 batch."""
    predictor.predict({"imgs": [text(png(k)) for k in range(10)]})
    assert [(batch.shape, batch.dtype) for batch in client.inputs] == [((10, 224, 224, 3), np.uint8)]


BAD = "aGVsbG8="  # hello
REFUSALS = {
    "a form without a file": (form(("a.png", png(0)), field="picture"), "expected files in the field image"),
    "a form with a URL": (FormData([("url", "http://example.com")]), "expected files in the field image"),
    "a form with text": (FormData([("image", "cat")]), "image: expected a file"),
    "a bad file among good ones": (form(("a.png", png(1)), ("b.png", b"hello")), "image 'b.png': not a picture"),
    "no images": ({"imgs": []}, "expected 1 to 64 images, got 0"),
    "too many images": ({"imgs": [text(png(0))] * 65}, "expected 1 to 64 images, got 65"),
    "not a list": ({"imgs": text(png(0))}, 'expected {"imgs"'),
    "both": ({"imgs": [text(png(0))], "url": "http://example.com"}, 'expected {"imgs"'),
    "an unknown key": ({"images": []}, 'expected {"imgs"'),
    "nothing": (None, 'expected {"imgs"'),
    "a list": ([text(png(0))], 'expected {"imgs"'),
    "a number as an image": ({"imgs": [text(png(0)), 7]}, "imgs[1]: expected a base64 string, got int"),
    "a number as a URL": ({"url": 7}, 'expected {"imgs"'),
    "not base64": ({"imgs": ["%%%"]}, "imgs[0]: not base64"),
    "not ASCII": ({"imgs": ["kä"]}, "imgs[0]: not base64"),
    "half a base64": ({"imgs": ["abcde"]}, "imgs[0]: not base64"),
    "the third image is bad": ({"imgs": [text(png(0)), text(png(1)), BAD]}, "imgs[2]: not a picture in JPEG, PNG"),
    "a body that is no picture": (b"hello", "the request body: not a picture"),
    "JSON as something else": (b'{"imgs": []}', "the request body: not a picture (JSON takes Content-Type: app"),
    "an empty body": (b"", "the request body: not a picture"),
    "a file URL": ({"url": "file:///etc/passwd"}, "url: only http and https URLs are fetched, not file"),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_refusals(predictor: Any, client: Any, name: str) -> None:
    """A bad request is a 400 with one line that says which image and why, and never reaches the model."""
    payload, why = REFUSALS[name]
    with pytest.raises(HTTPException) as refused:
        predictor.predict(payload)
    assert refused.value.status_code == 400
    assert why in refused.value.detail
    assert "\n" not in refused.value.detail
    assert client.inputs == []


def test_private_urls_are_refused_by_default(module: Any, client: Any) -> None:
    """Without allow_private_urls, a URL that leads to loopback is a 400."""
    predictor = module.TensorFlowPredictor(client, {})
    with pytest.raises(HTTPException, match="not on the public internet"):
        predictor.predict({"url": "http://127.0.0.1:1/cat.jpg"})


@pytest.mark.parametrize("truthy", ["false", 1, "yes"])
def test_only_true_allows_private_urls(module: Any, client: Any, truthy: Any) -> None:
    """A guard is lifted by `true` alone: a quoted "false" must not lift it."""
    assert module.TensorFlowPredictor(client, {"allow_private_urls": truthy}).allow_private_urls is False


def test_labels_of_imagenet(module: Any, client: Any) -> None:
    """Without configuration, class k is class k of ImageNet."""
    predictor = module.TensorFlowPredictor(client, {})
    assert len(predictor.labels) == 1000
    assert predictor.predict(png(0))[:2] == ["tench", "goldfish"]
    assert predictor.predict(png(248))[0] == "Eskimo_dog"


def test_ranking_is_best_first(predictor: Any) -> None:
    """The five highest scores come out in falling order, wherever they stand."""
    scores = np.random.default_rng(1).permutation(1000).astype(np.float32)
    ranking = predictor.ranking(scores)
    assert [entry["probability"] for entry in ranking] == [999, 998, 997, 996, 995]
    assert [entry["label"] for entry in ranking] == [f"class {k}" for k in np.argsort(-scores)[:5]]


def test_never_imports_tensorflow() -> None:
    """Importing the predictor costs no TensorFlow."""
    check = "import predictor, sys; sys.exit('tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check], cwd=ROOT).returncode == 0
