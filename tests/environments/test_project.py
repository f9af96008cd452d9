import os
from collections.abc import Callable
from pathlib import Path

import pytest

from cortex.environments import project as module
from cortex.environments.fields import FieldError
from cortex.environments.project import Project
from cortex.errors import UserError
from cortex.spec import APISpec, Predictor
from cortex.spec.config import Config
from cortex.spec.document import Document

MakeSpec = Callable[..., APISpec]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A project with the least that one has."""
    return _touch(tmp_path / "project", "cortex.yaml", "predictor.py")


def _touch(root: Path, *names: str, content: bytes = b"x") -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    return root


def _project(root: Path, *specs: APISpec) -> Project:
    """Return the project of the first of some APIs, or of one without models."""
    apis = specs or (APISpec(name="api", predictor=Predictor(type="python", path="predictor.py")),)
    return Project.of(Config(root / "cortex.yaml", apis, Document("", [], {}, ())), apis[0], root / "state")


def _files(root: Path, *specs: APISpec) -> set[str]:
    return set(_project(root, *specs).tree.files)


@pytest.mark.parametrize(
    ("name", "kept"),
    [
        ("labels.json", True),
        ("requirements.txt", True),
        ("package/module.py", True),
        ("README.md", True),
        (".env", True),
        ("sub/.env", True),
        (".git/config", False),
        (".env/bin/python", False),
        ("sub/.secret", False),
        (".cortexignore", False),
        ("__pycache__/predictor.cpython-311.pyc", False),
        ("package/__pycache__/x", False),
        ("old.pyc", False),
        ("old.pyd", False),
        ("cortex.yaml", False),
        ("cortex_gpu.yaml", False),
        ("cortex-other.yml", False),
        ("config.yaml", True),
        ("sub/cortex.yaml", True),
        ("cortex/predictor.yaml.py", True),
        ("cortex-debug-20201010.tgz", False),
        ("sub/cortex-debug-x/log", False),
        ("node_modules/left-pad/index.js", False),
        ("sub/node_modules/index.js", False),
    ],
)
def test_which_files_are_of_a_project(root: Path, name: str, kept: bool) -> None:
    _touch(root, name)
    assert (name in _files(root)) is kept


def test_a_virtual_environment_is_not_of_a_project(root: Path) -> None:
    _touch(root, "venv/pyvenv.cfg", "venv/lib/x.py", "lib/x.py")
    assert _files(root) == {"predictor.py", "lib/x.py"}


@pytest.mark.parametrize(
    ("patterns", "kept"),
    [
        ("", {"a.log", "data/a", "data/keep", "sub/a.log"}),
        ("*.log", {"data/a", "data/keep"}),
        ("/a.log", {"data/a", "data/keep", "sub/a.log"}),
        ("data/", {"a.log", "sub/a.log"}),
        ("data/*\n!data/keep", {"a.log", "data/keep", "sub/a.log"}),
        ("# *.log\n\n**/sub", {"a.log", "data/a", "data/keep"}),
    ],
)
def test_cortexignore_is_written_as_gitignore_is(root: Path, patterns: str, kept: set[str]) -> None:
    _touch(root, "a.log", "data/a", "data/keep", "sub/a.log")
    (root / ".cortexignore").write_text(patterns)
    assert _files(root) == {"predictor.py", *kept}


@pytest.mark.parametrize("content", [b"fine\n!\n", b"\xff\xfe"], ids=["pattern", "encoding"])
def test_a_cortexignore_that_cannot_be_read_is_one_line(root: Path, content: bytes) -> None:
    (root / ".cortexignore").write_bytes(content)
    with pytest.raises(UserError, match=r"\.cortexignore: .*; patterns are written as in \.gitignore") as raised:
        _project(root)
    assert "\n" not in str(raised.value)


def test_models_that_the_yaml_names_are_left_out(root: Path, make_spec: MakeSpec) -> None:
    _touch(root, "models/a/1/saved_model.pb", "models/b/1/saved_model.pb", "m.zip", "all/c/1/saved_model.pb")
    specs = [make_spec("models/a", f"{root}/m.zip", "s3://bucket/b"), make_spec(models_dir="./all/")]
    assert _files(root, *specs) == {"predictor.py", "models/b/1/saved_model.pb"}


def test_an_api_beside_has_its_models_left_out_and_its_predictor_unchecked(root: Path, make_spec: MakeSpec) -> None:
    _touch(root, "m/1/saved_model.pb")
    beside = make_spec("m", predictor="missing.py")
    assert _files(root, make_spec("s3://bucket/m"), beside) == {"predictor.py"}


@pytest.mark.parametrize("path", [".", "./", "src", "..", "src/../src"])
def test_a_directory_with_the_predictor_in_it_is_kept_though_it_is_the_model_too(
    root: Path, make_spec: MakeSpec, path: str
) -> None:
    _touch(root, "src/predictor.py")
    assert "src/predictor.py" in _files(root, make_spec(path, predictor="src/predictor.py"))


def test_the_state_of_environments_is_left_out(root: Path) -> None:
    _touch(root, "state/apis/x", "a")
    assert _files(root) == {"predictor.py", "a"}


def test_a_link_inside_the_project_is_followed(root: Path) -> None:
    _touch(root, "data/labels.txt")
    (root / "labels.txt").symlink_to("data/labels.txt")
    (root / "again").symlink_to("data")
    (root / "data/up").symlink_to("..")
    project = _project(root)
    assert {"labels.txt", "again/labels.txt", "data/labels.txt"} <= set(project.tree.files)
    assert project.notices == ()


def test_a_link_out_of_the_project_is_left_out_and_said(root: Path, tmp_path: Path) -> None:
    """A revision has no files of the machine that a link, maybe somebody else's, happens to reach."""
    _touch(tmp_path / "home", "id_rsa")
    (root / "key").symlink_to(tmp_path / "home/id_rsa")
    (root / "home").symlink_to(tmp_path / "home")
    (root / "gone").symlink_to("nowhere")
    (root / "self").symlink_to("self")
    (root / ".hidden").symlink_to("nowhere")
    project = _project(root)
    assert set(project.tree.files) == {"predictor.py"}
    assert len(project.notices) == 4
    assert f"key is a link to {tmp_path}/home/id_rsa, which is not in the project: it is left out" in project.notices


def test_what_is_said_of_a_link_is_text(root: Path) -> None:
    """Its name may be bytes that are no UTF-8; a notice goes into files, answers and the name of the revision."""
    (root / os.fsdecode(b"caf\xe9")).symlink_to("/etc/passwd")
    (notice,) = _project(root).notices
    assert notice.encode().startswith(rb"caf\udce9 is a link to /etc/passwd")


@pytest.mark.parametrize("through_a_link", [False, True])
def test_a_yaml_in_the_home_directory_is_refused(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, through_a_link: bool
) -> None:
    monkeypatch.setenv("HOME", str(root))
    if through_a_link:
        (tmp_path / "link").symlink_to(root)
    with pytest.raises(UserError, match=r"^cortex\.yaml is in your home directory, and every file next to it would"):
        _project(tmp_path / "link" if through_a_link else root)


def test_a_yaml_in_the_root_directory_is_refused() -> None:
    with pytest.raises(UserError, match=r"^cortex\.yaml is in the root directory"):
        _project(Path("/"))


def test_a_project_that_is_too_large_names_its_largest_files(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, size in (("huge.bin", 600_000_000), ("large.bin", 2_000_000), ("small.bin", 1000)):
        with (root / name).open("wb") as stream:
            stream.truncate(size)
    with pytest.raises(UserError) as raised:
        _project(root)
    assert str(raised.value) == (
        f"the project {root} has 602.0 MB, more than 512.0 MB; its largest files are huge.bin (600.0 MB), "
        f"large.bin (2.0 MB), small.bin (1.0 kB); name what the API does not need in {root}/.cortexignore"
    )
    monkeypatch.setattr(module, "_LARGEST", 602_001_001)
    assert "huge.bin" in _project(root).tree.files


@pytest.mark.parametrize(
    ("predictor", "ignore"), [("missing.py", ""), (".hidden.py", ""), ("predictor.py", "*.py"), ("../out.py", "")]
)
def test_a_predictor_that_is_not_of_the_project_is_a_field_error(
    root: Path, make_spec: MakeSpec, predictor: str, ignore: str
) -> None:
    _touch(root, ".hidden.py", "../out.py")
    (root / ".cortexignore").write_text(ignore)
    with pytest.raises(FieldError, match="is not a file of the project") as raised:
        _project(root, make_spec(predictor=predictor))
    assert raised.value.field == "predictor.path"
    assert raised.value.message.startswith(f"{predictor}: ")


def test_a_predictor_may_be_written_with_a_dot(root: Path, make_spec: MakeSpec) -> None:
    assert _files(root, make_spec(predictor="./predictor.py")) == {"predictor.py"}


def test_a_directory_that_may_not_be_read_is_one_line(ordinary_user: Path) -> None:
    _touch(ordinary_user, "cortex.yaml", "predictor.py")
    (ordinary_user / "closed").mkdir(mode=0o000)
    with pytest.raises(UserError, match=r"^cannot read the directory .*/closed: Permission denied$"):
        _project(ordinary_user)
