"""A docker, and a docker-compose, for tests: it keeps containers in a file, and notes every command that it was given.

Its directory (``DOCKER_STAND_IN``) has ``commands``, ``containers.json``, ``images`` (one in a line), and what a test
puts there: ``refuse`` (what docker says instead of doing anything), ``refuse COMMAND SERVICE`` (the same, of compose),
``crash`` (a part of the names of services that end as soon as they start), ``unready`` (workers are not ready) and
``leaving`` (the id of a container that is gone once it was listed). A container that has ended is of a network that is
gone, as after `docker network prune`.
"""

import json
import os
import re
import sys
from pathlib import Path

HERE = Path(os.environ["DOCKER_STAND_IN"])
STATE = HERE / "containers.json"


def containers() -> dict[str, dict]:
    return json.loads(STATE.read_text()) if STATE.exists() else {}


def images(add: str = "", remove: str = "") -> list[str]:
    names = [*(HERE / "images").read_text().split(), add]
    found = sorted({name for name in names if name and name != remove})
    (HERE / "images").write_text("\n".join(found))
    return found


def compose(arguments: list[str]) -> None:
    import yaml  # a docker starts without it, and without its packages, in half the time

    project, file = arguments[1], Path(arguments[3])
    command, *services = [word for word in arguments[4:] if not word.startswith("--")]
    rows, crash = containers(), (HERE / "crash").read_text() if (HERE / "crash").exists() else None
    document = yaml.safe_load(file.read_text())
    if command == "down":
        rows = {}
    if command == "logs" and "--tail=0" not in arguments:
        print("\n".join(f"{service}_1  | it runs" for service in services))
    for service in services:
        if (refused := HERE / f"refuse {command} {service}").exists():
            sys.exit(refused.read_text())
        if command == "up" and (service not in rows or "--force-recreate" in arguments):
            labels = {**document["services"][service].get("labels", {}), "com.docker.compose.project": project}
            failed = crash is not None and crash in service
            rows[service] = {
                "Id": f"id-{service}",
                "State": {"Running": not failed, "ExitCode": 3 if failed else 0, "Pid": 7},
                "RestartCount": 0,
                "Config": {"Labels": {**labels, "com.docker.compose.service": service}},
                "NetworkSettings": {"Networks": {f"{project}_default": {}}},
                "File": str(file),
            }
        elif service not in rows:
            continue
        elif command == "up" and not rows[service]["State"]["Running"]:
            sys.exit(f"Cannot start service {service}: network 53a7 not found")
        elif command in ("stop", "start"):
            rows[service]["State"]["Running"] = command == "start"
        elif command == "rm":
            rows.pop(service)
    unfinished = STATE.with_suffix(".unfinished")
    unfinished.write_text(json.dumps(rows))
    unfinished.replace(STATE)  # at once: tests look at it meanwhile


def docker(arguments: list[str]) -> int:
    rows = containers()
    match arguments:
        case ["compose", *_]:
            return 1  # the plugin is not installed
        case ["ps", *_]:
            print("\n".join(row["Id"] for row in rows.values()))
            if (HERE / "leaving").exists():
                print((HERE / "leaving").read_text())
                (HERE / "leaving").unlink()
        case ["inspect", *ids]:
            print(json.dumps([row for row in rows.values() if row["Id"] in ids]))
            return 0 if {*ids} <= {row["Id"] for row in rows.values()} else 1
        case ["exec", _, "python", _, "/readyz"]:
            return 1 if (HERE / "unready").exists() else 0
        case ["exec", _, "python", _, "/-/configuration", _] if not rows["front"]["State"]["Running"]:
            return 1
        case ["exec", _, "python", _, "/-/configuration", _]:
            text = (Path(rows["front"]["File"]).parent / "front/nginx.conf").read_text()
            print(re.search(r"return 200 '(\w+)'", text)[1])
        case ["logs", *_]:
            print("2026-01-01 00:00:00,000:cortex:pid-1:ERROR:failed to start api\nValueError: no such label\n")
            print("cortex.errors.NotStarted: predictor.py: __init__: ValueError: no such label: runtime exception")
        case ["build", *_, "--tag", name, _]:
            images(add=name)
        case ["image", "inspect", name]:
            return 0 if name in images() else 1
        case ["image", "ls", _, _, repository]:
            print("\n".join(name.partition(":")[2] for name in images() if name.startswith(f"{repository}:")))
        case ["image", "rm", name]:
            images(remove=name)
    return 0


if __name__ == "__main__":
    name, arguments = Path(sys.argv[0]).name, sys.argv[1:]
    with (HERE / "commands").open("a") as log:
        log.write(" ".join([name, *arguments]) + "\n")
    if (HERE / "refuse").exists():
        sys.exit((HERE / "refuse").read_text())
    if name == "docker":
        sys.exit(docker(arguments))
    compose(arguments)
