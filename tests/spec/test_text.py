"""Files that are no yaml, or no yaml for us: one clear line each."""

import os
import textwrap
from pathlib import Path

import pytest

from cortex.errors import UserError
from cortex.spec.config import read

BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 10)
)
MERGE_BOMB = "- &a0 {x: 1}\n" + "".join(f"- &a{i} {{<<: [*a{i - 1}, *a{i - 1}]}}\n" for i in range(1, 40))
GOOD = "- name: a\n  predictor: {type: python, path: predictor.py}\n"

ROWS = [
    (b"", "1: at least one API must be configured (see docs/cortex.yaml)"),
    (b"# nothing\n", "1: at least one API must be configured (see docs/cortex.yaml)"),
    (b"[]", "1: at least one API must be configured (see docs/cortex.yaml)"),
    (b"name: a", "1: cortex YAML configuration files must contain a list of maps (see docs/cortex.yaml)"),
    (b"hello", "1: cortex YAML configuration files must contain a list of maps (see docs/cortex.yaml)"),
    (
        b"- name: a\n\tkind: b",
        "2: invalid yaml: while scanning for the next token, found character '\\t' that cannot start any token "
        "(indent with spaces, not with tabs)",
    ),
    (
        b"- name: @a",
        "1: invalid yaml: while scanning for the next token, found character '@' that cannot start any token "
        '(text cannot start with "@")',
    ),
    (b"- a\nb: 1", "2: invalid yaml: while parsing a block collection, expected <block end>, but found '?'"),
    (b"- a\n---\n- b", "2: invalid yaml: expected a single document in the stream, but found another document"),
    (b"- *" + b"a" * 1000, f"1: invalid yaml: found undefined alias '{'a' * 277}"),
    (b"- *a", "1: invalid yaml: found undefined alias 'a'"),
    (b"- name: \xff\xfe", "1: invalid yaml: the file is not UTF-8 text"),
    (b"- a\n- \x00\x01", "2: invalid yaml: a control character, is this a text file?"),
    (b"\x7fELF\x02\x01\x01\x00", "1: invalid yaml: a control character, is this a text file?"),
    (BOMB.encode(), "1: invalid yaml: more than 10000 values (what an alias names counts each time)"),
    (b"- &a [*a]", "1: invalid yaml: nested more than 50 levels deep"),
    (b"- " + b"[" * 60 + b"]" * 60, "1: invalid yaml: nested more than 50 levels deep"),
    (b"- &a {<<: 1}", "1: invalid yaml: only a map can be merged with <<"),
    (
        b"- !!python/object/apply:os.system [id]",
        "1: invalid yaml: the tag 'tag:yaml.org,2002:python/object/apply:os.system' is not supported",
    ),
    (b"- !!binary aGk=", "1: invalid yaml: the tag 'tag:yaml.org,2002:binary' is not supported"),
    (b"- !!int a", '1: invalid yaml: "a" is no int'),
    (b"- !!bool a", '1: invalid yaml: "a" is no bool'),
    (b"- " + b"9" * 5000, f'1: invalid yaml: "{"9" * 95}..." is no int'),
    (b"- 0x" + b"f" * 5000, "1: invalid yaml: an integer of more than 64 bits"),
]


@pytest.mark.parametrize(("content", "expected"), ROWS)
def test_a_file_that_cannot_be_used(complaints, content: bytes, expected: str) -> None:
    """What is wrong with a file as a whole is one line, with the number of the line where it is."""
    assert complaints(content) == [f"cortex.yaml:{expected}"]


@pytest.mark.parametrize("text", [MERGE_BOMB, "- &a {<<: *a}", "[" * 100_000, "- " * 100_000, "{a: " * 60_000])
def test_what_would_fill_the_memory_or_the_stack(complaints, text: str) -> None:
    """Whatever is nested, in itself or in another, ends with one line."""
    [line] = complaints(text)
    assert line.startswith("cortex.yaml:")
    assert "invalid yaml" in line


def test_a_key_that_is_there_twice(complaints) -> None:
    """The second of two equal keys is refused, with the line of the first."""
    assert complaints(GOOD + "  name: b\n  kind: RealtimeAPI\n  kind: RealtimeAPI\n") == [
        'cortex.yaml:3: a: key "name" is already defined on line 1',
        'cortex.yaml:5: a: key "kind" is already defined on line 4',
    ]


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("1", "the key 1 must be text (put it in quotes)"),
        ("null", "the key null must be text (put it in quotes)"),
        ("on", "the key on must be text (put it in quotes)"),
        ("[a]", "a key must be text"),
        ("{a: 1}", "a key must be text"),
        ('"@a"', '"@a": text cannot start with "@"'),
        ('"\\0"', '"\\u0000": text cannot contain a null character or half a surrogate pair'),
        ('"\\ud800"', '"\\ud800": text cannot contain a null character or half a surrogate pair'),
    ],
)
def test_a_key_that_is_not_text(complaints, key: str, expected: str) -> None:
    """Keys are text, in `config` too."""
    head = "- name: a\n  predictor:\n    type: python\n    path: predictor.py\n    config:\n      b: 1\n"
    text = f"{head}      ? {key}\n      : 2\n"
    assert complaints(text) == [f"cortex.yaml:7: a: predictor.config: {expected}"]


@pytest.mark.parametrize("value", ['"@a"', '"a\\0b"', '"\\ud800"'])
@pytest.mark.parametrize("key", ["predictor.path", "predictor.python_path", "predictor.env.A", "predictor.config.a"])
def test_text_that_nothing_could_use(complaints, key: str, value: str) -> None:
    """References, null characters and broken Unicode are refused wherever text may stand, once."""
    _, name, *inner = key.split(".")
    path = "" if name == "path" else "path: predictor.py, "
    item = f"{{{inner[0]}: {value}}}" if inner else value
    [line] = complaints(f"- name: a\n  predictor: {{type: python, {path}{name}: {item}}}\n")
    assert line.startswith(f"cortex.yaml:2: a: {key}: ")
    assert "text cannot" in line


def test_numbers_and_text_are_told_apart_as_cortex_did(read) -> None:
    """Dates and times stay text, an exponent makes a number, a leading zero makes octal."""
    config = "{a: 2020-01-01, b: 10:30, c: 1e3, d: 010, e: 0x1F, f: 1_000, g: yes, h: ~, i: =, j: -.5, k: 08}"
    [api] = read(f"- name: a\n  predictor: {{type: python, path: predictor.py, config: {config}}}\n").apis
    assert list(api.predictor.config.values()) == [
        "2020-01-01", "10:30", 1000.0, 8, 31, 1000, True, None, "=", -0.5, "08"
    ]  # fmt: skip


def test_what_many_apis_share_may_be_written_once(read) -> None:
    """Anchors, aliases and merged maps work, and a key of one's own wins."""
    text = textwrap.dedent("""\
        - &first
          name: a
          predictor: &predictor {type: python, path: predictor.py, threads_per_process: 4}
          compute: {cpu: 2}
        - <<: *first
          name: b
          predictor: {<<: *predictor, threads_per_process: 8}
        """)
    first, second = read(text).apis
    assert (first.predictor.threads_per_process, second.predictor.threads_per_process) == (4, 8)
    assert second.compute == first.compute


def test_a_byte_order_mark_and_windows_lines(read) -> None:
    """A file from another editor is the same file."""
    assert read(b"\xef\xbb\xbf" + GOOD.replace("\n", "\r\n").encode()).apis == read(GOOD).apis


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("nothing.yaml", "nothing.yaml: file does not exist"),
        ("directory", "directory: is not a file"),
        ("pipe", "pipe: is not a file"),
        ("x" * 300, f"{'x' * 300}: cannot be read: File name too long"),
        ("large.yaml", "large.yaml: larger than 256 KiB, is this an API configuration file?"),
        ("loop", "loop: cannot be read: Too many levels of symbolic links"),
    ],
)
def test_a_file_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, expected: str) -> None:
    """The name is as the user gave it, and reading never hangs."""
    monkeypatch.chdir(tmp_path)
    Path("directory").mkdir()
    os.mkfifo("pipe")
    Path("loop").symlink_to("loop")
    Path("large.yaml").write_text("é" * 150_000)  # the limit is in the middle of one of them
    with pytest.raises(UserError) as error:
        read(Path(name))
    assert str(error.value) == expected
