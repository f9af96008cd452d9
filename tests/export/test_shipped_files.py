"""The data files that ship with the project are what they claim to be."""

import base64
import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from export.recorded_requests import CAT
from export.signature import CLASS_INDEX

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def index() -> dict[str, Any]:
    return json.loads(CLASS_INDEX.read_text())


def test_index_is_the_one_that_keras_downloads() -> None:
    """The file is Keras' byte for byte: Keras checks its download against this sum."""
    assert hashlib.md5(CLASS_INDEX.read_bytes()).hexdigest() == "c2c37ea517e94d9795004a39431a14cb"


def test_index_has_a_thousand_classes_in_order(index: dict[str, Any]) -> None:
    """Keys 0 to 999; class numbers follow the order of the synsets, which are unique."""
    assert list(index) == [str(k) for k in range(1000)]
    synsets = [synset for synset, _ in index.values()]
    assert synsets == sorted(set(synsets))


@pytest.mark.parametrize(
    ("number", "synset", "name"),
    [
        (0, "n01440764", "tench"),
        (2, "n01484850", "great_white_shark"),
        (134, "n02012849", "crane"),
        (248, "n02109961", "Eskimo_dog"),
        (281, "n02123045", "tabby"),
        (282, "n02123159", "tiger_cat"),
        (285, "n02124075", "Egyptian_cat"),
        (517, "n03126707", "crane"),
        (638, "n03710637", "maillot"),
        (639, "n03710721", "maillot"),
        (999, "n15075141", "toilet_tissue"),
    ],
)
def test_index_names(index: dict[str, Any], number: int, synset: str, name: str) -> None:
    """Names are Keras': the first WordNet lemma with underscores; two names occur twice."""
    assert index[str(number)] == [synset, name]


def test_sample_is_the_cat() -> None:
    """sample.json is one request with one image: the bytes of the photo whose source export/README.md names."""
    sample = json.loads((ROOT / "sample.json").read_text())
    assert list(sample) == ["imgs"]
    assert [base64.b64decode(image, validate=True) for image in sample["imgs"]] == [CAT.read_bytes()]


def test_cat_is_a_jpeg_of_known_size() -> None:
    """The photo has the size of scikit-image's chelsea, in the frame header of a baseline JPEG."""
    data = CAT.read_bytes()
    frame = data.index(b"\xff\xc0")
    height, width = (int.from_bytes(data[frame + at : frame + at + 2], "big") for at in (5, 7))
    assert (height, width) == (300, 451)


def test_contract_does_not_need_tensorflow() -> None:
    """An API worker may import the signature, and a person may ask for help, without paying for TensorFlow."""
    code = "import sys, export.signature, export.cli; sys.exit('tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
