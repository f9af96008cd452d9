"""What a request may carry, and what its answer looks like: Cortex's contract, at the door of a real worker."""

import contextlib
import http.client
import json
import math
import re
from datetime import datetime
from urllib.parse import urljoin

import pytest
import requests

from tests.waiting import DEADLINE, until

PREDICTOR = '''
"""A predictor for tests."""
import json
import math
import threading

import numpy as np
from fastapi import HTTPException
from fastapi.exceptions import RequestValidationError
from starlette.background import BackgroundTask
from starlette.datastructures import FormData, Headers, QueryParams
from starlette.responses import JSONResponse, PlainTextResponse, StreamingResponse

KEPT = PlainTextResponse("kept", 202)
posted = []


def describe(payload):
    if isinstance(payload, FormData):
        read = lambda v: v if isinstance(v, str) else [v.filename, v.file.read().decode()]
        return ["form", [[k, read(v)] for k, v in payload.multi_items()]]
    if isinstance(payload, bytes):
        return ["bytes", payload.decode()]
    return ["json", payload]


def half():
    yield b"some"
    raise RuntimeError("in the middle")


class PythonPredictor:
    def __init__(self, config):
        self.config = config

    def predict(self, payload, query_params, headers, batch_id):
        """Do what the query says."""
        assert isinstance(query_params, QueryParams) and isinstance(headers, Headers) and batch_id is None
        print("predicting", threading.current_thread().name)
        match query_params.get("do"):
            case None:
                return describe(payload)
            case "return":
                return eval(query_params["value"], globals())
            case "raise":
                raise eval(query_params["value"], globals())
            case "header":
                return headers[query_params["name"].upper()]
            case "posted":
                return posted

    def post_predict(self, response, query_params):
        if "post" in query_params:
            posted.append([query_params["post"], response])
            raise ValueError("nobody waits for this")
'''


@pytest.fixture(scope="module")
def worker(module_workers):
    spec = {"networking": {"max_body_size": "1Mi"}}
    return module_workers.start(PREDICTOR, spec, env={"CORTEX_NOTICES": '["random weights"]'}).await_ready()


@pytest.mark.parametrize(
    ("content_type", "body", "seen"),
    [
        ("application/json", b'{"a": [1, 2.5, null]}', ["json", {"a": [1, 2.5, None]}]),
        ("Application/JSON; charset=utf-8", b'"text"', ["json", "text"]),
        ("application/json", b"NaN", ["json", math.nan]),
        ("text/plain", b"text", ["bytes", "text"]),
        ("image/jpeg", b"", ["bytes", ""]),
        (None, b"raw", ["bytes", "raw"]),
        ("application/x-www-form-urlencoded", b"a=1&a=2&b=%20", ["form", [["a", "1"], ["a", "2"], ["b", " "]]]),
    ],
)
def test_payload_by_content_type(worker, content_type, body, seen):
    """The content type decides whether the payload is parsed JSON, a form or bytes."""
    answer = worker.post(body, headers={"content-type": content_type})
    assert json.dumps(answer.json()) == json.dumps(seen)


def test_multipart_payload(worker):
    """Files of a multipart form are UploadFile, its fields are text, however long."""
    answer = worker.post({"field": "x" * 500_000}, files=[("image", ("a.txt", b"one")), ("image", ("b.txt", b"two"))])
    assert answer.json() == [
        "form",
        [["field", "x" * 500_000], ["image", ["a.txt", "one"]], ["image", ["b.txt", "two"]]],
    ]


@pytest.mark.parametrize(
    ("value", "status", "content_type", "body"),
    [
        ("b'\\xff\\x00'", 200, "application/octet-stream", b"\xff\x00"),
        ("'text'", 200, "text/plain; charset=utf-8", b"text"),
        ("None", 200, "application/json", b"null"),
        ("[1, 2.5, {'a': True}]", 200, "application/json", b'[1, 2.5, {"a": true}]'),
        ("[math.nan, math.inf]", 200, "application/json", b"[NaN, Infinity]"),
        ("(1, 2)", 200, "application/json", b"[1, 2]"),
        ("JSONResponse({'a': 1}, 418)", 418, "application/json", b'{"a":1}'),
        ("KEPT", 202, "text/plain; charset=utf-8", b"kept"),
        ("JSONResponse({'a': 1}, 101)", 500, None, b"internal server error"),
        ("JSONResponse({'a': 1}, 999)", 500, None, b"internal server error"),
        ("""PlainTextResponse("x", headers={"x-mine": "a\\nb"})""", 500, None, b"internal server error"),
        ("""PlainTextResponse("x", headers={"x mine": "a"})""", 500, None, b"internal server error"),
        ("""PlainTextResponse("x", headers={"content-length": "2"})""", 500, None, b"internal server error"),
        ("""PlainTextResponse("xyz", headers={"content-length": "2"})""", 500, None, b"internal server error"),
        ("""PlainTextResponse("x", headers={"content-length": "1"})""", 200, "text/plain; charset=utf-8", b"x"),
        ("np.float32(1)", 500, None, b"internal server error"),
        ("np.zeros(2)", 500, None, b"internal server error"),
        ("{1, 2}", 500, None, b"internal server error"),
        ("'\\ud800'", 500, None, b"internal server error"),
        ("(lambda x: x.append(x) or x)([])", 500, None, b"internal server error"),
    ],
)
def test_responses(worker, value, status, content_type, body):
    """bytes, str, Response and JSON are told apart; what JSON cannot express is a 500."""
    for _ in range(2):
        answer = worker.post(b"", params={"do": "return", "value": value})
        assert (answer.status_code, answer.headers.get("content-type"), answer.content) == (status, content_type, body)


def test_a_body_that_its_status_does_not_have(worker):
    """It is left out, and the connection goes on."""
    connection = http.client.HTTPConnection(worker.url.removeprefix("http://"), timeout=10)
    with contextlib.closing(connection):
        for _ in range(2):
            connection.request("POST", "/?do=return&value=JSONResponse(None,204)")
            answer = connection.getresponse()
            assert (answer.status, answer.read()) == (204, b"")


@pytest.mark.parametrize(
    ("value", "status", "body"),
    [
        ("ValueError('secret')", 500, "internal server error"),
        ("KeyError('x')", 500, "internal server error"),
        ("SystemExit(1)", 500, "internal server error"),
        ("StopIteration()", 500, "internal server error"),
        ("KeyboardInterrupt()", 500, "internal server error"),
        ("MemoryError()", 500, "internal server error"),
        ("HTTPException(404, 'no such image')", 404, "no such image"),
        ("HTTPException(422, {'a': 1})", 422, "{'a': 1}"),
        ("HTTPException(503, 'later', headers={'Retry-After': '7'})", 503, "later"),
        ("HTTPException(204)", 204, ""),
        ("HTTPException(404, 'no', headers={'x-mine': 'a\\nb'})", 500, "internal server error"),
        ("HTTPException(404, 'no', headers={'content-length': '3'})", 500, "internal server error"),
        ("HTTPException(204, headers={'content-length': '3'})", 500, "internal server error"),
        ("HTTPException(100)", 500, "internal server error"),
        ("HTTPException(600)", 500, "internal server error"),
        ("RequestValidationError([])", 400, "[]"),
    ],
)
def test_errors(worker, value, status, body):
    """An HTTPException is the answer; anything else is a 500 without a detail, and the worker lives on."""
    answer = worker.post(b"", params={"do": "raise", "value": value})
    assert answer.status_code == status
    if status != 400:
        assert answer.text == body
    if status == 503:
        assert answer.headers["retry-after"] == "7"


def test_the_log_has_the_cause_and_the_id(worker):
    """The traceback of a 500 stands in the log under the id that the response carries."""
    answer = worker.post(b"", params={"do": "raise", "value": "ValueError('why it failed')"})
    request_id = answer.headers["x-request-id"]
    log = worker.await_log(f"INFO:500 Internal Server Error POST / [{request_id}]")
    assert f"ERROR:prediction failed [{request_id}]\nTraceback" in log
    assert "ValueError: why it failed" in log
    assert 'predictor.py", line' in log


@pytest.mark.parametrize(
    "silent",
    [
        'import logging.config\nlogging.config.dictConfig({"version": 1, "root": {"handlers": []}})\n',
        "import logging\nlogging.disable(logging.CRITICAL)\n",
        "import io, sys\nsys.stdout = io.TextIOWrapper(sys.stdout.detach(), 'ascii')\n",
        "import sys\nsys.stdout.close()\nsys.stdout = sys.stderr\n",
    ],
)
def test_a_predictor_that_configures_logging(workers, silent):
    """The log of the worker stays as it is: it has the cause of a 500, whatever a predictor does with loggers and with
    its stdout."""
    worker = workers.start(silent + PREDICTOR.partition('"""\n')[2]).await_ready()
    answer = worker.post(b"", params={"do": "raise", "value": "ValueError('the very cause')"})
    log = worker.await_log(f"INFO:500 Internal Server Error POST / [{answer.headers['x-request-id']}]")
    assert "ValueError: the very cause" in log


FULL = """
import os
import sys


class PythonPredictor:
    def __init__(self, config):
        full = os.open("/dev/full", os.O_WRONLY)
        for stream in (1, 2):
            os.dup2(full, stream)

    def predict(self, payload):
        print("got", payload)
        print("got", payload, file=sys.stderr, flush=True)
        return "answered"
"""


@pytest.mark.parametrize("env", [{}, {"PYTHONUNBUFFERED": "1"}])
def test_a_full_disk_costs_the_log_only(workers, env):
    """What a predictor prints is lost where there is no room for it; its answer is not, nor is the worker's end."""
    worker = workers.start(FULL, env=env).await_ready()
    for _ in range(2):
        assert worker.post(b"x" * 20_000).text == "answered"
    worker.process.terminate()
    assert worker.process.wait(timeout=DEADLINE) == 0


def test_a_stream_that_breaks_is_logged(worker):
    """A response that fails after its headers are out ends the connection, and is a 500 with the id in the log."""
    request_id = "broken-stream-1"
    with pytest.raises(requests.exceptions.ChunkedEncodingError):
        worker.post(
            b"", params={"do": "return", "value": "StreamingResponse(half())"}, headers={"x-request-id": request_id}
        )
    log = worker.await_log(f"INFO:500 Internal Server Error POST / [{request_id}]")
    assert "in the middle" in log
    assert f"request {request_id} was not answered as it should" in log


def test_what_fails_after_the_answer_changes_nothing_of_it(worker):
    """An answer that has left stays what it was in the log, when a task of the response's own fails after it."""
    value = "PlainTextResponse('sent', background=BackgroundTask(eval, '1 / 0'))"
    answer = worker.post(b"", params={"do": "return", "value": value}, headers={"x-request-id": "too-late"})
    assert (answer.status_code, answer.text) == (200, "sent")
    worker.await_log("request too-late was not answered as it should")
    worker.post(b"", params={"do": "raise", "value": "ValueError()"}, headers={"x-request-id": "after-it"})
    assert "[too-late]" not in worker.await_log("INFO:500 Internal Server Error POST / [after-it]")


@pytest.mark.parametrize(
    ("given", "kept"),
    [("abc-123", True), ("a/b:c=d", True), ("", False), ("x" * 129, False), ("with space", False), ("<script>", False)],
)
def test_request_id(worker, given, kept):
    """A sane id of the client's is kept; otherwise the worker gives one. Every response carries it."""
    for path in ("/", "/nowhere"):
        answer = requests.post(worker.url + path, headers={"x-request-id": given}, timeout=10)
        assert (answer.headers["x-request-id"] == given) is kept
        assert 0 < len(answer.headers["x-request-id"]) <= 128


def test_log_format(worker):
    """A request's line has Cortex's form; probes are silent; a path cannot write a line of its own."""
    before = len(worker.log)
    requests.get(worker.url + "/healthz", timeout=10)
    requests.get(worker.url + "/evil%0Aline", timeout=10)
    worker.post(b"")
    until(lambda: "POST /\n" in worker.log[before:])
    log = worker.log[before:]
    (line,) = [line for line in log.splitlines() if line.endswith("POST /")]
    moment, _, rest = line.partition(":cortex:")
    assert datetime.strptime(moment, "%Y-%m-%d %H:%M:%S.%f")
    assert rest == f"pid-{worker.process.pid}:INFO:200 OK POST /"
    assert "404 Not Found GET /evil%0Aline [" in log
    assert "healthz" not in log


def test_headers_are_case_insensitive(worker):
    """headers is Starlette's Headers."""
    answer = worker.post(b"", params={"do": "header", "name": "x-mine"}, headers={"X-Mine": "yes"})
    assert answer.text == "yes"


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "Expecting value: line 1 column 1 (char 0)"),
        (b"{", "Expecting property name enclosed in double quotes: line 1 column 2 (char 1)"),
        (b"[" * 100_000, "too deeply nested"),
        (b'"\xff"', "'utf-8' codec can't decode byte 0xff in position 1: invalid start byte"),
        (b"1" * 5000, "Exceeds the limit"),
    ],
)
def test_bad_json(worker, body, message):
    """A body that is not the JSON it claims to be is a 400 with the parser's words."""
    answer = worker.post(body, headers={"content-type": "application/json"})
    assert answer.status_code == 400
    assert list(answer.json()) == ["error"]
    assert answer.json()["error"].startswith(message)


_PART = '--a\r\nContent-Disposition: form-data; name="x"\r\n\r\n1\r\n--a--\r\n'


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("multipart/form-data", b"x"),
        ("multipart/form-data; boundary=a", b"--b\r\n\r\n"),
        ("multipart/form-data; boundary=a; charset=undefined", _PART.encode()),
    ],
)
def test_bad_form(worker, content_type, body):
    """A form that does not hold together is a 400 that says why."""
    answer = worker.post(body, headers={"content-type": content_type})
    assert answer.status_code == 400
    assert answer.text


@pytest.mark.parametrize(
    ("method", "path", "status", "text"),
    [
        ("GET", "/predict/", 404, "Not Found"),
        ("POST", "/other", 404, "Not Found"),
        ("POST", "//", 404, "Not Found"),
        ("PUT", "/", 405, "Method Not Allowed"),
        ("DELETE", "/predict", 405, "Method Not Allowed"),
        ("POST", "/healthz", 405, "Method Not Allowed"),
    ],
)
def test_exact_routes(worker, method, path, status, text):
    """Paths are compared exactly; the plain answers have no content type."""
    connection = http.client.HTTPConnection(worker.url.removeprefix("http://"), timeout=10)
    with contextlib.closing(connection):
        connection.request(method, path)  # as it is: some versions of requests make one slash of two
        answer = connection.getresponse()
        assert (answer.status, answer.read().decode()) == (status, text)
    assert "content-type" not in answer.headers
    if path == "/":
        assert answer.headers["allow"] == "GET, POST"


def test_both_predict_paths(worker):
    """/ and /predict are the same, for POST and for GET."""
    for path in ("/", "/predict"):
        assert requests.post(worker.url + path, data=b"x", timeout=10).json() == ["bytes", "x"]
        assert requests.get(worker.url + path, timeout=10).json()["api_name"] == "api"


def test_summary(worker):
    """GET says how to use the API and what its owner must know about it."""
    assert requests.get(worker.url, timeout=10).json() == {
        "message": "make a prediction by sending a post request to this endpoint with a json payload",
        "api_name": "api",
        "notices": ["random weights"],
    }


def test_cors(worker):
    """Browsers of any origin may call, with any header, and read the request id."""
    origin = {"origin": "https://example.org"}
    answer = worker.post(b"", headers=origin, params={"do": "raise", "value": "ValueError()"})
    assert answer.status_code == 500
    assert answer.headers["access-control-allow-origin"] in ("*", origin["origin"])
    assert answer.headers["access-control-expose-headers"] == "x-request-id"
    asked = {"access-control-request-method": "POST", "access-control-request-headers": "x-mine, content-type"}
    answer = requests.options(worker.url, headers={**origin, **asked}, timeout=10)
    assert answer.status_code == 200
    assert "POST" in answer.headers["access-control-allow-methods"]
    assert "x-mine" in answer.headers["access-control-allow-headers"]


def test_probes(worker):
    """/healthz and /readyz answer 200 while the worker serves."""
    assert requests.get(worker.url + "/healthz", timeout=10).text == "ok"
    assert requests.get(worker.url + "/readyz", timeout=10).text == "ready"


def test_openapi(worker):
    """The documentation names the API, what its author says, and the forms that a request may take."""
    document = requests.get(worker.url + "/openapi.json", timeout=10).json()
    assert document["info"]["title"] == "api"
    assert "Do what the query says." in document["info"]["description"]
    assert "random weights" in document["info"]["description"]
    for path in ("/", "/predict"):
        operation = document["paths"][path]["post"]
        assert set(operation["requestBody"]["content"]) == {
            "application/json",
            "multipart/form-data",
            "application/x-www-form-urlencoded",
            "application/octet-stream",
        }
        assert set(operation["responses"]) >= {"200", "400", "413", "500", "503"}


def test_the_documentation_is_of_this_api(worker):
    """Behind a front /iris/docs leads to /iris/openapi.json, and what is tried there to /iris, not to another API."""
    page = requests.get(worker.url + "/docs", timeout=10).text
    [link] = re.findall(r"url: '(.*?)'", page)
    assert urljoin("http://front/iris/docs", link) == "http://front/iris/openapi.json"
    assets = re.findall(r'(?:src|href)="(.*?)"', page)
    assert len(assets) == 3
    for asset in assets:
        path = urljoin("http://front/iris/docs", asset).removeprefix("http://front/iris/")
        assert requests.get(f"{worker.url}/{path}", timeout=10).status_code == 200, "and needs no internet"
    [server] = requests.get(worker.url + "/openapi.json", timeout=10).json()["servers"]
    assert urljoin("http://front/iris/openapi.json", server["url"]) == "http://front/iris/"


def test_post_predict(worker):
    """post_predict sees what predict returned, after the response; its failure is only logged."""
    answer = worker.post(b"", params={"do": "return", "value": "{'raw': 1}", "post": "seen"})
    assert answer.json() == {"raw": 1}
    log = worker.await_log("ValueError: nobody waits for this")
    assert f"post_predict failed [{answer.headers['x-request-id']}]" in log
    assert ["seen", {"raw": 1}] in worker.post(b"", params={"do": "posted"}).json()


def test_predict_runs_in_the_pool(worker):
    """The predictor's code runs in the worker's own threads, and what it prints is in the log as it is."""
    worker.post(b"")
    assert "predicting predict_0" in worker.await_log("predicting").splitlines()
