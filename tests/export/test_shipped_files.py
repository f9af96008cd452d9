"""The data files that ship with the project are what they claim to be."""

import base64
import hashlib
import json
import subprocess
import sys
from pathlib import Path

from export.recorded_requests import CAT
from export.signature import CLASS_INDEX

ROOT = Path(__file__).parents[2]


def test_index_is_the_one_that_keras_downloads() -> None:
    """The file is Keras' byte for byte: Keras checks its download against this sum."""
    assert hashlib.md5(CLASS_INDEX.read_bytes()).hexdigest() == "c2c37ea517e94d9795004a39431a14cb"


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
