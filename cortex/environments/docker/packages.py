"""The packages that a project wants in its image: its requirements.txt, with the files that this names.

What pip could not find in a build is an error before the build, by file and line: a file that is missing or outside of
the project, and a directory to install from, which the image does not have.
"""

import hashlib
import posixpath
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from cortex.environments.requirements import lines
from cortex.environments.tree import plainly
from cortex.errors import UserError
from cortex.spec import APISpec

ONNX_RUNTIME = "onnxruntime==1.31.1"
"""What the image of an ONNX predictor has, unless its project names another one."""
PIP_VARIABLES = ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_TRUSTED_HOST")
_REQUIREMENTS, _OURS = "requirements.txt", "cortex-packages.txt"
_NAMED = re.compile(r"(?:-r|--requirement|-c|--constraint)(?:\s+|=)?(?P<file>.+)")
_WHEEL = re.compile(r"(?P<file>[^:\s]+\.(?:whl|zip|tar\.gz))(?:\s.*)?")
_PLACED = re.compile(
    r"(?:-e|--editable|-f|--find-links)(?:\s+|=)?(?!.*://).+|\.{0,2}/.*|\.|(?:[A-Za-z0-9._-]+\s*@\s*)?file:.*"
)
_NO_DIRECTORY = "is not in the image while packages are installed; name a wheel of the project, which is copied there"
_IMAGE = """\
FROM {base}
USER root
{arguments}
COPY packages /tmp/packages
RUN cd /tmp/packages && pip --python /opt/cortex/bin/python install --no-cache-dir -r {entry} && rm -r /tmp/packages
USER 10001:10001
"""


@dataclass(frozen=True)
class Packages:
    """Files by their names in the project; pip is given ``entry``. None of them: nothing is to be installed."""

    files: Mapping[str, bytes]
    entry: str = _REQUIREMENTS

    @classmethod
    def of(cls, spec: APISpec, project: Mapping[str, Path]) -> "Packages":
        """Find what an API's workers want beyond what their image has, in the files of its project by name.

        UserError for what no build could install.
        """
        files: dict[str, bytes] = {}
        if _REQUIREMENTS in project:
            _collect(project, _REQUIREMENTS, files)
        text = b"\n".join(files.values())
        if spec.predictor.type == "onnx" and not re.search(rb"^\s*onnxruntime\b", text, re.MULTILINE):
            ours = "\n".join([ONNX_RUNTIME, *(["-r requirements.txt"] if files else []), ""])
            return cls({**files, _OURS: ours.encode()}, _OURS)
        return cls(files if text.strip() else {})

    def __bool__(self) -> bool:
        return bool(self.files)

    def digest(self, base: str) -> str:
        """Return a text that names these packages on top of an image."""
        parts = [base.encode(), *(part for row in sorted(self.files.items()) for part in (row[0].encode(), row[1]))]
        return hashlib.sha256(b"\n".join(hashlib.sha256(part).digest() for part in parts)).hexdigest()[:12]

    def context(self, base: str) -> dict[str, bytes]:
        """Return what the image is built from, by name; the build is given `PIP_VARIABLES`."""
        declared = "\n".join(f"ARG {name}" for name in PIP_VARIABLES)
        dockerfile = _IMAGE.format(base=base, arguments=declared, entry=self.entry)
        return {"Dockerfile": dockerfile.encode(), **{f"packages/{name}": each for name, each in self.files.items()}}


def _collect(project: Mapping[str, Path], name: str, files: dict[str, bytes]) -> None:
    """Add a file of requirements, and those that it names."""
    with plainly("cannot read"):
        files[name] = project[name].read_bytes()
    for number, line in lines(project[name], shown=name):
        where = f"{name}:{number}: {line}"
        if match := _NAMED.fullmatch(line):
            inner = _inside(project, posixpath.join(posixpath.dirname(name), match["file"].strip("\"'")), where)
            if inner not in files:
                _collect(project, inner, files)
        elif match := _WHEEL.fullmatch(line):
            inner = _inside(project, match["file"], where)  # pip looks from where it is run, not from this file
            files[inner] = project[inner].read_bytes()
        elif _PLACED.fullmatch(line) or _is_directory(project, line):
            raise UserError(f"{where}: {_NO_DIRECTORY}")


def _inside(project: Mapping[str, Path], path: str, where: str) -> str:
    """Return the name of a file of the project. UserError when it is not one."""
    name = posixpath.normpath(path)
    if name not in project:
        raise UserError(f"{where}: there is no such file in the project")
    return name


def _is_directory(project: Mapping[str, Path], line: str) -> bool:
    """Tell whether pip would take a line for a directory: it has a slash, and the project has that directory."""
    return "/" in line and any(name.startswith(f"{posixpath.normpath(line)}/") for name in project)
