"""kubectl, called by this project: what it is asked, and what its errors mean to a person."""

import json
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

from cortex.errors import UserError

MANAGER = "cortex"
"""Our name among the field managers of server-side apply."""
_SECONDS = 30
_FORBIDDEN = re.compile(r'User "(?P<user>[^"]*)" cannot (?P<verb>\w+) resource "(?P<kind>[^"]*)"')
_DEBUGGING = re.compile(r"[EWI]\d{4} ")
"""Begins the lines that kubectl's libraries log, each several times over."""
_RULES: tuple[tuple[str, str], ...] = (
    (r"context .* (does not exist|was not found)|no context exists", "{said}; `kubectl config get-contexts` shows those"
     " there are, and `cortex env configure NAME --context C` chooses one"),
    (r"current-context|no configuration has been provided|connection to the server localhost:8080", "kubectl has no"
     " cluster to talk to: make a context with your cloud's own command, or choose one with"
     " `cortex env configure NAME --context C` ({said})"),
    (r"connection to the server|was refused|i/o timeout|no such host|no route to host|Unable to connect",
     "the cluster does not answer: {said}"),
    (r"Unauthorized|must be logged in|credentials|exec plugin", "the cluster does not know you: {said}; log in with"
     " your cloud's own command"),
    (r"namespaces? \"[^\"]*\" not found", "{said}; make it with `kubectl create namespace`, or choose another one with"
     " `cortex env configure NAME --namespace N`"),
)  # fmt: skip


class Kubectl:
    """Call kubectl for one namespace of one cluster. Nothing is called before a method is."""

    def __init__(self, context: str, namespace: str) -> None:
        self._context = context
        self._namespace = namespace

    def apply(self, documents: Sequence[Mapping[str, Any]]) -> None:
        """Bring objects to what documents say, by server-side apply; what others manage of them stays theirs."""
        items = {"apiVersion": "v1", "kind": "List", "items": list(documents)}
        self.run("apply", "--server-side", f"--field-manager={MANAGER}", "--force-conflicts", "-f", "-", given=items)

    def get(self, kinds: str, selector: str) -> list[dict[str, Any]]:
        """Return the objects of some kinds (``deployments,pods``) that a label selector finds."""
        return _items(self.run("get", kinds, "--selector", selector, "--output", "json"))

    def find(self, kind: str, name: str) -> dict[str, Any] | None:
        """Return one object, or None when it is not there."""
        text = self.run("get", kind, name, "--ignore-not-found", "--output", "json")
        return _parsed(text) if text.strip() else None

    def warnings(self) -> list[dict[str, Any]]:
        """Return the namespace's warning events."""
        return _items(self.run("get", "events", "--field-selector=type=Warning", "--output", "json"))

    def delete(self, names: Sequence[str]) -> None:
        """Remove objects, named ``KIND/NAME``, without waiting until they are gone."""
        if names:
            self.run("delete", "--ignore-not-found", "--wait=false", *names)

    @cached_property
    def groups(self) -> frozenset[str]:
        """The ``GROUP/VERSION`` that the cluster knows."""
        return frozenset(self.run("api-versions", namespaced=False).split())

    @cached_property
    def version(self) -> tuple[int, int]:
        """The cluster's version of Kubernetes."""
        server = _parsed(self.run("version", "--output", "json", namespaced=False)).get("serverVersion") or {}
        numbers = [re.match(r"\d+", str(server.get(part, ""))) for part in ("major", "minor")]
        major, minor = (int(number.group()) if number else 0 for number in numbers)
        return major, minor

    def run(self, *arguments: str, given: object = None, namespaced: bool = True) -> str:
        """Call kubectl and return what it printed. UserError, for a person, when it fails."""
        text = "" if given is None else json.dumps(given)  # never the terminal: kubectl is not to ask anything
        try:
            done = subprocess.run(
                self._command(arguments, namespaced), input=text, capture_output=True, text=True, check=False
            )
        except OSError as error:
            raise UserError(f"kubectl cannot be started: {error.strerror}") from error
        if done.returncode:
            raise UserError(explain(done.stderr or done.stdout))
        return done.stdout

    def lines(self, *arguments: str) -> Iterator[str]:
        """Yield what kubectl prints, line by line, as it comes. It is ended with the generator."""
        command = self._command(arguments, True)
        with (
            tempfile.TemporaryFile("w+", errors="replace") as said,  # a pipe would fill up, and stop kubectl
            subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=said, text=True, errors="replace"
            ) as process,
        ):
            assert process.stdout is not None  # it is a pipe
            try:
                for line in process.stdout:
                    yield line.rstrip("\r\n")
                if process.wait():
                    said.seek(0)
                    raise UserError(explain(said.read()))
            finally:
                process.terminate()

    def _command(self, arguments: Sequence[str], namespaced: bool) -> list[str]:
        program = shutil.which("kubectl")
        if program is None:
            raise UserError("kubectl is not on the PATH; install it: https://kubernetes.io/docs/tasks/tools/")
        context = [f"--context={self._context}"] if self._context else []
        namespace = [f"--namespace={self._namespace}"] if namespaced else []
        timeout = [] if "--follow" in arguments else [f"--request-timeout={_SECONDS}s"]
        return [program, *context, *namespace, *timeout, *arguments]


def _items(text: str) -> list[dict[str, Any]]:
    return list(_parsed(text).get("items") or [])


def _parsed(text: str) -> dict[str, Any]:
    """Return the object that kubectl printed as JSON. UserError when it printed something else."""
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise UserError(f"kubectl printed what is not an object in JSON: {text.strip()[:200]!r}")
    return found


def explain(said: str) -> str:
    """Return in one line what kubectl's complaint means, and what to do."""
    lines = (" ".join(line.split()) for line in said.splitlines() if not _DEBUGGING.match(line))
    told = dict.fromkeys(line.removeprefix("Error from server ").removeprefix("error: ") for line in lines)
    line = " ".join(told).strip()[:1000]
    if forbidden := _FORBIDDEN.search(line):
        return (
            f"you ({forbidden['user']}) may not {forbidden['verb']} {forbidden['kind']} in this namespace; ask its"
            " owner for a role that allows it"
        )
    for pattern, meaning in _RULES:
        if re.search(pattern, line):
            return meaning.format(said=line)
    return f"kubectl: {line}" if line else "kubectl failed and did not say why"
