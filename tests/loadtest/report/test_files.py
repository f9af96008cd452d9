"""Files for other programs: what is written can be read, and a bad place is found before the run."""

import csv
import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from cortex.errors import UserError
from cortex.loadtest import files
from cortex.loadtest.findings import Report


def test_json_round_trips(whole: Report, tmp_path: Path) -> None:
    """The result that is read back is the one that was written; all results have the same keys."""
    files.write_json(whole, path := tmp_path / "a.json")
    data = json.loads(path.read_text())
    assert data["schema"] == "cortex.loadtest/1"
    assert Report.from_dict(str(path), data).result == whole.result
    several = [each["result"] for each in (*data["sweep"]["points"], *data["search"]["trials"])]
    assert {tuple(each) for each in (data["comparison"]["before"], *several)} == {tuple(data["result"])}


def test_csv_has_a_row_per_window_and_a_summary(whole: Report, tmp_path: Path) -> None:
    """Rows say what they are of; figures are plain numbers in seconds, and empty where there are none."""
    files.write_csv(whole, path := tmp_path / "a.csv")
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["row"] for row in rows] == ["window"] * 20 + ["point"] * 7 + ["trial"] * 7 + ["summary"]
    assert tuple(rows[0]) == files.CSV_COLUMNS
    assert rows[11]["p99"] == ""
    assert [row["value"] for row in rows if row["row"] == "point"] == ["1", "2", "4", "8", "16", "32", "64"]
    summary, latency = rows[-1], whole.result.latency
    assert latency
    assert float(summary["p99"]) == latency.p99
    assert float(summary["uncorrected_p99"]) < 0.1 < latency.p99
    assert (summary["requests"], summary["errors"], summary["inferences"]) == ("4000", "35", "8000")
    assert float(summary["requests_per_second"]) == pytest.approx(4000 / 20.02)


def test_csv_holds_no_text_from_outside(hostile: Report, tmp_path: Path) -> None:
    """A spreadsheet finds nothing to evaluate: all fields but the first are numbers."""
    files.write_csv(hostile, path := tmp_path / "a.csv")
    with path.open(newline="") as file:
        fields = [field for row in list(csv.reader(file))[1:] for field in row[1:] if field]
    assert fields
    assert [field for field in fields if not re.fullmatch(r"-?\d+(\.\d+)?(e[+-]\d+)?", field)] == []


def test_text_that_is_no_unicode_is_written(plain: Report, tmp_path: Path) -> None:
    """An error that holds a lone surrogate, as undecodable bytes become in Python, spoils no file."""
    odd = Report(replace(plain.result, errors={"odd \udcff": 1}))
    for write, name in ((files.write_html, "a.html"), (files.write_json, "a.json"), (files.write_csv, "a.csv")):
        write(odd, tmp_path / name)
        assert (tmp_path / name).read_text(encoding="utf-8")


def test_a_bad_place_is_found_before_the_run(tmp_path: Path) -> None:
    """The error names the file; a good place is left as it was."""
    for bad in (tmp_path / "missing" / "a.json", tmp_path):
        with pytest.raises(UserError, match=str(bad)):
            files.check(bad)
    (old := tmp_path / "old.json").write_text("kept")
    files.check(old)
    files.check(tmp_path / "new.json")
    assert old.read_text() == "kept"
    assert [each.name for each in tmp_path.iterdir()] == ["old.json"]


def test_a_file_that_cannot_be_written_is_an_error(plain: Report, tmp_path: Path) -> None:
    """It names the file and says what to do."""
    with pytest.raises(UserError, match="name a file that can be written"):
        files.write_csv(plain, tmp_path)
