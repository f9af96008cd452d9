"""throughput_test.py as a person runs it."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from PIL import Image

import throughput_test as throughput_test_module
from tests.waiting import DEADLINE, until

SCRIPT = Path(__file__).parents[2] / "throughput_test.py"


def throughput_test(*arguments: object, cwd: Path | None = None, **env: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, SCRIPT, *map(str, arguments)]
    env = os.environ | env
    return subprocess.run(command, capture_output=True, text=True, timeout=60, env=env, cwd=cwd, check=False)


def asked(*arguments: object) -> Result:
    """Run the command in this process: what is wrong with options needs no process of its own to be told."""
    return CliRunner().invoke(throughput_test_module.main, [str(argument) for argument in arguments])


def test_table(endpoint: str, seen: Any, picture_file: Path) -> None:
    """The closing table has throughput, latency and errors; progress goes to standard error."""
    done = throughput_test("-w", 2, "-t", 2, "-s", 3, "-b", 5, picture_file, endpoint)
    assert done.returncode == 0
    assert "measuring" not in done.stdout
    table = dict(re.findall(r"^(\S+(?: \S+)*) {2,}(.*?) *$", done.stdout, re.MULTILINE))
    assert (table["requests answered"], table["errors"], len(seen.requests)) == ("12", "0", 12)
    assert set(table) >= {"throughput", "mean", "p50", "p90", "p99"}
    assert re.search(r"inferences/s", done.stdout)


def test_arguments_from_the_environment(endpoint: str, seen: Any, picture_file: Path) -> None:
    """IMG_URL and ENDPOINT may come from the environment; the defaults are one worker, one thread, ten requests."""
    done = throughput_test(IMG_URL=str(picture_file), ENDPOINT=endpoint)
    assert done.returncode == 0
    assert len(seen.requests) == 10


def test_a_folder_with_modules_of_its_own(endpoint: str, picture_file: Path) -> None:
    """What the current folder holds is nothing that the processes of the tester import."""
    (picture_file.parent / "random.py").write_text("raise SystemExit('not meant')")
    done = throughput_test(picture_file, endpoint, cwd=picture_file.parent)
    assert (done.returncode, "not meant" in done.stderr) == (0, False), done.stderr


def test_nothing_succeeded(endpoint: str, picture_file: Path) -> None:
    """Without one success the exit code is 1, and the table, or a line where there is none, says why."""
    done = asked("-s", 2, picture_file, endpoint + "/503")
    assert done.exit_code == 1
    assert re.search(r"HTTP 503 Service Unavailable +2", done.stdout)
    done = asked("-q", "-s", 2, picture_file, endpoint + "/503")
    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr == "failed: nothing was answered (HTTP 503 Service Unavailable: 2)\n"


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("none.jpg", "http://127.0.0.1:1"), 1, "none.jpg: No such file or directory; give the URL or the path of a p"),
        (("a" * 300, "http://127.0.0.1:1"), 1, "aaa: File name too long; give the URL or the path of a picture"),
        (("none.json", "http://127.0.0.1:1"), 1, "none.json: No such file or directory; give the path of a JSON file"),
        (("PICTURE", "localhost:1"), 1, "Error: localhost:1: not an endpoint"),
        (("-w", "0", "PICTURE", "http://127.0.0.1:1"), 2, "'-w'"),
        (("-i", "0", "PICTURE", "http://127.0.0.1:1"), 2, "'-i'"),
        (("-i", "inf", "PICTURE", "http://127.0.0.1:1"), 2, "inf is not a number up to 1,000,000,000"),
        (("--rate", "nan", "PICTURE", "http://127.0.0.1:1"), 2, "nan is not a number up to"),
        (("--timeout", "1e300", "PICTURE", "http://127.0.0.1:1"), 2, "1e300 is not a number up to"),
        (("--target-rate", "inf", "PICTURE", "http://127.0.0.1:1"), 2, "inf is not a number up to"),
        (("--header", "X: \udcff", "PICTURE", "http://127.0.0.1:1"), 1, "Error: X: not a header that can be sent"),
        ((), 2, "Missing argument 'IMG_URL'"),
    ],
)
def test_usage(picture_file: Path, arguments: tuple[str, ...], code: int, message: str) -> None:
    """A bad argument is one clear line, and no traceback."""
    done = asked(*(str(picture_file) if each == "PICTURE" else each for each in arguments))
    assert done.exit_code == code
    assert message in done.stderr
    assert isinstance(done.exception, SystemExit)


@pytest.mark.parametrize("options", [("-i", "60"), ("--sweep", "2,4..64", "-i", "60"), ("--slo", "p99=1s", "-i", "60")])
def test_ctrl_c(endpoint: str, seen: Any, picture_file: Path, options: tuple[str, ...]) -> None:
    """Ctrl-C, which reaches the whole process group, ends a run, a sweep or a search early and still reports."""
    command = [sys.executable, SCRIPT, *options, "--warmup", "0", "-w", "2", picture_file, endpoint + "/slow"]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        before = len(seen.requests)
        until(lambda: len(seen.requests) >= before + 30)
        os.killpg(process.pid, signal.SIGINT)
        out, err = process.communicate(timeout=DEADLINE)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 0, err
    assert "(interrupted)" in out
    assert ("knee" in out) == ("--sweep" in options)
    assert "Traceback" not in err


def test_ctrl_c_while_the_command_is_loaded(tmp_path: Path) -> None:
    """It is silent, as nothing was measured."""
    (tmp_path / "click.py").write_text("import os, signal; os.kill(os.getpid(), signal.SIGINT)")
    done = throughput_test("none.jpg", "http://127.0.0.1:1", PYTHONPATH=str(tmp_path))
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "")


def test_a_tester_that_is_ended(endpoint: str, seen: Any, picture_file: Path) -> None:
    """SIGTERM, as ``timeout`` sends it, ends it with all of its processes, and none of them has a last word."""
    command = [sys.executable, SCRIPT, "-q", "-i", "60", "-w", "2", picture_file, endpoint + "/slow"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        until(lambda: seen.requests)
        process.terminate()
        _, said = process.communicate(timeout=DEADLINE)  # until the last process has closed its end
    finally:
        process.kill()
    assert (process.returncode, said) == (-signal.SIGTERM, "")


def test_a_report_through_a_link(endpoint: str, picture_file: Path, tmp_path: Path) -> None:
    """A report goes where a link leads, also when no file is there yet; one that comes to nothing leaves none."""
    link, place = tmp_path / "latest.json", tmp_path / "run.json"
    link.symlink_to(place)
    assert asked("-q", "-s", 1, "--json", link, "none.jpg", endpoint).exit_code == 1
    assert (link.is_symlink(), place.exists()) == (True, False)
    assert asked("-q", "-s", 1, "--json", link, picture_file, endpoint).exit_code == 0
    assert json.loads(place.read_text())["schema"] == "cortex.loadtest/1"
    assert link.is_symlink()


@pytest.mark.parametrize("form", ["multipart", "raw"])
def test_forms_of_a_picture(endpoint: str, seen: Any, picture_file: Path, form: str) -> None:
    """A form holds the picture as a file; a raw body is the picture."""
    done = asked("-s", 1, "--format", form, "--quiet", picture_file, endpoint)
    assert (done.exit_code, done.output) == (0, "")
    [(_, headers, body)] = seen.requests
    assert picture_file.read_bytes() in body
    assert (body == picture_file.read_bytes()) == (form == "raw")
    assert headers["Content-Type"].startswith("multipart/form-data; boundary=" if form == "multipart" else "image/jpeg")


def test_insecure(secure_endpoint: str, seen: Any, picture_file: Path) -> None:
    """By another name the server is trusted only when its certificate is not looked at; so are its metrics."""
    other = secure_endpoint.replace("localhost", "127.0.0.1")
    refused = asked("-s", 1, picture_file, other)
    assert refused.exit_code == 1
    assert "certificate not trusted" in refused.stdout
    used = asked("-s", 1, "--insecure", picture_file, other)
    assert used.exit_code == 0
    assert "server execute" in used.stdout


def test_credentials_in_urls(endpoint: str, seen: Any, picture_file: Path, tmp_path: Path) -> None:
    """User and password of a URL are sent; no file and no message holds them, nor the values of a query."""
    files = {kind: tmp_path / f"report.{kind}" for kind in ("json", "csv", "html")}
    private = endpoint.replace("://", "://me:hunter%402@") + "/200?token=abcdef"
    named = [part for kind, path in files.items() for part in (f"--{kind}", path)]
    done = throughput_test("-s", 2, *named, picture_file, private)
    assert done.returncode == 0, done.stderr
    assert {headers["Authorization"] for _, headers, _ in seen.requests} == {"Basic bWU6aHVudGVyQDI="}
    failed = throughput_test("http://me:hunter2@127.0.0.1:1/?token=abcdef", endpoint)
    assert failed.returncode == 1
    kept = [path.read_text() for path in files.values()] + [done.stdout, done.stderr, failed.stderr]
    assert [secret for secret in ("hunter", "abcdef") if any(secret in text for text in kept)] == []
    assert json.loads(kept[0])["result"]["settings"]["endpoint"] == endpoint + "/200?token=..."


def test_everything_at_once(endpoint: str, seen: Any, tmp_path: Path) -> None:
    """A folder of pictures, an open loop, expected answers, conditions, cost and files, quietly."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for name in ("a.jpg", "b.png"):
        Image.new("RGB", (8, 8), "red" if name == "a.jpg" else "blue").save(folder / name)
    (tmp_path / "answers.json").write_text('{"a.jpg": ["tench"], "b.png": ["another"]}')
    files = {kind: tmp_path / f"report.{kind}" for kind in ("json", "csv", "html")}
    done = throughput_test(
        *("--rate", 20, "-i", 2, "--arrivals", "poisson", "--warmup", 0.2, "--expect", tmp_path / "answers.json"),
        *("--assert", "p99<10s,errors<1%", "--price-per-hour", 1, "--target-rate", 100, "--header", "X-Who: me"),
        *("--api-key", "secret", "--no-keep-alive", "--quiet"),
        *(part for kind, path in files.items() for part in (f"--{kind}", path)),
        *(folder, endpoint),
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert re.fullmatch(r"failed: errors<1% \([\d.]+%\)\n", done.stderr)
    written = files["json"].read_text()
    result = json.loads(written)["result"]
    assert result["requests"] > 5
    assert result["errors"] == {"wrong answer": pytest.approx(result["requests"], abs=1)}
    assert result["cost"]["replicas"] >= 5
    assert "secret" not in written
    assert "X-Who" not in written
    headers = seen.requests[0][1]
    assert (headers["X-Who"], headers["Authorization"], headers["Connection"]) == ("me", "Bearer secret", "close")
    assert seen.connections >= len(seen.requests)
    assert all(path.stat().st_size for path in files.values())


def test_a_full_disk(endpoint: str, picture_file: Path, tmp_path: Path) -> None:
    """A report for which there is no room costs neither the table nor another report; the exit code tells."""
    done = throughput_test("--json", "/dev/full", "--csv", tmp_path / "run.csv", picture_file, endpoint)
    assert done.returncode == 1
    assert re.search(r"requests answered +10", done.stdout)
    assert "Error: /dev/full: No space left on device" in done.stderr
    assert (tmp_path / "run.csv").read_text().splitlines()[-1].startswith("summary,")


def test_a_full_disk_for_the_table(endpoint: str, picture_file: Path, tmp_path: Path) -> None:
    """The reports are written all the same; what is told is one line."""
    command = [sys.executable, SCRIPT, "--csv", tmp_path / "run.csv", picture_file, endpoint]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert done.stderr.endswith("Error: standard output: No space left on device\n")
    assert "Traceback" not in done.stderr
    assert (tmp_path / "run.csv").read_text().splitlines()[-1].startswith("summary,")


def test_sweep_and_comparison(endpoint: str, picture_file: Path, tmp_path: Path) -> None:
    """A sweep names its knee; a run compares itself with an earlier one, and says when it is too short for that."""
    swept = throughput_test(
        *("--sweep", "2,4,8", "-i", 0.7, "--warmup", 0, "--json", tmp_path / "a.json"),
        picture_file,
        endpoint + "/capacity",
    )
    assert swept.returncode == 0, swept.stderr
    assert "knee" in swept.stdout
    assert len(json.loads((tmp_path / "a.json").read_text())["sweep"]["points"]) == 3
    compared = throughput_test("-s", 2, "--compare", tmp_path / "a.json", picture_file, endpoint)
    assert compared.returncode == 0
    assert "too few to compare" in " ".join(compared.stdout.split())


def test_search(endpoint: str, picture_file: Path, tmp_path: Path) -> None:
    """No rate beyond what the server can answer holds. How far below it stays is up to what else the machine does."""
    options = ("--slo", "p90=60ms", "-i", 0.5, "-t", 16, "--warmup", 0, "--json", tmp_path / "a.json")
    done = asked(*options, picture_file, endpoint + "/capacity")
    assert done.exit_code == 0, done.output
    found = json.loads((tmp_path / "a.json").read_text())["search"]
    assert max((each["rate"] for each in found["trials"] if each["held"]), default=0) < 220
    assert not all(each["held"] for each in found["trials"])
    if found["rate"]:
        assert found["trials"][-1]["result"]["seconds"] >= 3 * 0.5
        assert "confirmed by a longer run" in " ".join(done.stdout.split())


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("--sweep", "1,2", "--slo", "p99=1s"), 2, "--sweep and --slo exclude each other"),
        (("--slo", "p99=1s", "--rate", "5"), 2, "--slo chooses its own rates: leave out --rate"),
        (("--rate", "5", "--think-time", "1"), 2, "--think-time is of a closed loop"),
        (("--sweep", "1,2", "--over", "rate", "--think-time", "1"), 2, "--think-time is of a closed loop"),
        (("--scenario", "SingleStream", "--think-time", "1"), 2, "--think-time is of a closed loop"),
        (("--arrivals", "poisson"), 2, "--arrivals is of an open loop: give --rate or --schedule"),
        (("--schedule", "steps:5/1s", "-i", "5"), 2, "--schedule says how long it lasts: leave out -i"),
        (("--scenario", "Server", "--rate", "5", "--warmup", "1"), 2, "leave out --warmup"),
        (("--scenario", "SingleStream", "--rate", "5"), 2, "the scenario SingleStream has no rate"),
        (("--scenario", "Offline", "--rate", "5", "--slo", "p99=1s"), 2, "the scenario Offline has no bound"),
        (("--client-key", str(SCRIPT)), 2, "--client-key belongs to a --client-cert"),
        (("--slo", "p99"), 1, "p99: not a bound on latency; it looks like p99=100ms"),
        (("--assert", ""), 1, "not a condition"),
        (("--sweep", ""), 1, "not a sweep"),
        (("--slo", ""), 1, "not a bound on latency"),
        (("--schedule", ""), 1, "a schedule is ramp:"),
        (("--sweep", "1.5,2"), 1, "connections are whole numbers"),
        (("--metrics-url", "x"), 1, "--metrics-url x: no metrics can be read there (x: not an endpoint"),
        (("--metrics-url", "http://127.0.0.1:1/metrics"), 1, "no metrics can be read there (connection refused)"),
        (("--compare", str(SCRIPT)), 1, "not JSON"),
        (("--compare", "DEEP"), 1, "deep.json: not JSON"),
        (("--expect", "DEEP"), 1, "deep.json: not JSON"),
        (("--expect", "none.json"), 1, "none.json: No such file"),
        (("--json", "/none/a.json"), 1, "/none/a.json: No such file"),
        (("--json", "a" * 300), 1, "aaa: File name too long; name a file that can be written"),
        (("--ca-file", str(SCRIPT)), 1, "not usable for TLS"),
    ],
)
def test_options_that_do_not_fit(picture_file: Path, arguments: tuple[str, ...], code: int, message: str) -> None:
    """Options that exclude each other, or cannot be read, are told before anything is sent."""
    deep = picture_file.with_name("deep.json")
    deep.write_text("[" * 100_000)
    done = asked(*(deep if each == "DEEP" else each for each in arguments), picture_file, "https://127.0.0.1:1")
    assert done.exit_code == code
    assert message in " ".join(done.stderr.split())
    assert isinstance(done.exception, SystemExit)
