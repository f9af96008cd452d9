"""A kubectl that is no cluster: it keeps what is applied in a directory, and lets pods fare as it is told.

``KUBECTL_STATE/fate`` says how the pods of the newest revision fare (success when it is not there), ``said`` is a list
of every command line, one as JSON per line.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

STATE = Path(os.environ["KUBECTL_STATE"])
SIMPLE = {
    "forbidden": 'Error from server (Forbidden): deployments.apps "x" is forbidden: User "ann" cannot get resource '
    '"deployments" in API group "apps" in the namespace "default"',
    "context": 'error: context "nowhere" does not exist',
    "none": "error: current-context must exist in order to minify",
    "down": "The connection to the server 10.0.0.1:6443 was refused - did you specify the right host or port?",
    "login": "error: You must be logged in to the server (Unauthorized)",
    "namespace": 'Error from server (NotFound): namespaces "models" not found',
}
WAITING: dict[str, dict[str, Any]] = {
    "image": {
        "ready": False,
        "state": {"waiting": {"reason": "ImagePullBackOff", "message": 'Back-off pulling image "cortex-api"'}},
    },
    "crash": {
        "ready": False,
        "state": {"waiting": {"reason": "CrashLoopBackOff"}},
        "lastState": {"terminated": {"exitCode": 3, "reason": "Error"}},
        "restartCount": 2,
    },
    "memory": {
        "ready": False,
        "state": {"waiting": {"reason": "CrashLoopBackOff"}},
        "lastState": {"terminated": {"exitCode": 137, "reason": "OOMKilled"}},
        "restartCount": 4,
    },
    "mount": {"ready": False, "state": {"waiting": {"reason": "ContainerCreating"}}},
    "slow": {"state": {"running": {}}, "ready": False},
}


def fate() -> str:
    file = STATE / "fate"
    steps = file.read_text().split() if file.exists() else ["success"]
    return steps[0]


def look() -> str:
    """Let time pass since the last look at the pods, and return how they fare: the last word is how it stays."""
    steps = (STATE / "fate").read_text().split() if (STATE / "fate").exists() else ["success"]
    if len(steps) > 1 and (STATE / "looked").exists():
        (STATE / "fate").write_text(" ".join(steps[1:]))
    (STATE / "looked").touch()
    return fate()


def stored() -> dict[str, dict[str, Any]]:
    return {f"{row['kind']}/{row['metadata']['name']}": row for row in map(json.loads, _lines("objects"))}


def store(rows: dict[str, dict[str, Any]]) -> None:
    (STATE / "objects").write_text("".join(json.dumps(row) + "\n" for row in rows.values()))


def _lines(name: str) -> list[str]:
    file = STATE / name
    return file.read_text().splitlines() if file.exists() else []


def deployment(row: dict[str, Any], how: str) -> dict[str, Any]:
    replicas = row["spec"]["replicas"]
    good = replicas if how == "success" else 0
    stamp = "2026-01-02T03:04:05Z"
    conditions = [{"type": "Progressing", "status": "True", "lastUpdateTime": stamp}]
    if how == "late":
        conditions = [{"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded"}]
    available = replicas if (STATE / "lived").exists() else good
    status = {"observedGeneration": 1, "replicas": replicas, "updatedReplicas": good, "availableReplicas": available}
    metadata = {**row["metadata"], "generation": 1, "creationTimestamp": stamp}
    return {**row, "metadata": metadata, "status": {**status, "conditions": conditions}}


def pod(row: dict[str, Any], how: str) -> dict[str, Any]:
    template = row["spec"]["template"]
    status: dict[str, Any] = {"phase": "Running", "conditions": []}
    images = {each["name"]: each["image"] for each in template["spec"]["containers"]}
    good = {"ready": True, "restartCount": 0, "state": {"running": {}}}
    status["containerStatuses"] = [
        {"name": name, "image": image, **good, **(WAITING.get(how, {}) if name == "api" or how == "mount" else {})}
        for name, image in images.items()
    ]
    if how == "unschedulable":
        message = "0/3 nodes are available: 3 Insufficient nvidia.com/gpu."
        status = {"phase": "Pending", "conditions": [{"type": "PodScheduled", "status": "False", "message": message}]}
    metadata = {"name": f"{row['metadata']['name']}-abc", "labels": template["metadata"]["labels"]}
    return {"kind": "Pod", "metadata": metadata, "status": status}


def history(row: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the replica sets of a deployment: of its template, and of so many before as it keeps."""
    rows = [each for each in map(json.loads, _lines("history")) if each["metadata"]["name"] == row["metadata"]["name"]]
    kept = rows[-1 - row["spec"]["revisionHistoryLimit"] :]
    labels = row["spec"]["template"]["metadata"]["labels"]
    return [{**each, "kind": "ReplicaSet", "metadata": {"name": "api-1", "labels": labels}} for each in kept]


def refused(row: dict[str, Any]) -> dict[str, Any]:
    message = 'pods "x-" is forbidden: exceeded quota: team, requested: nvidia.com/gpu=1'
    condition = {"type": "ReplicaFailure", "status": "True", "message": message}
    labels = row["spec"]["template"]["metadata"]["labels"]
    metadata = {"name": f"{row['metadata']['name']}-1", "labels": labels}
    return {"kind": "ReplicaSet", "metadata": metadata, "spec": row["spec"], "status": {"conditions": [condition]}}


def get(words: list[str]) -> None:
    kinds, rows, how = words[1], stored(), fate()
    if kinds == "events":
        event = {
            "involvedObject": {"name": "api-abc"},
            "reason": "FailedMount",
            "message": "hostPath type check failed",
        }
        answer([event] if how == "mount" else [])
        return
    if "--selector" not in words:
        (found,) = [row for name, row in rows.items() if name.lower() == f"{kinds}/{words[2]}"] or [None]
        print(json.dumps(deployment(found, how)) if found else "")
        return
    selector = dict(part.split("=") for part in words[words.index("--selector") + 1].split(","))
    mine = [row for row in rows.values() if selector.items() <= row["metadata"].get("labels", {}).items()]
    deployed = [row for row in mine if row["kind"] == "Deployment"]
    others = [row for row in mine if row["kind"] != "Deployment"]
    if "pods" in kinds:
        how = look()
        others = [row for row in others if row["kind"] in ("Ingress", "HorizontalPodAutoscaler")]
        others += [each for row in deployed for each in history(row)]
        others += [refused(row) for row in deployed if how == "quota"]
        others += [pod(row, how) for row in deployed if how != "quota"]
        answer([*(deployment(row, how) for row in deployed), *others])
        return
    answer(mine)


def answer(items: list[Any]) -> None:
    print(json.dumps({"kind": "List", "items": items}))


def main(words: list[str]) -> int:
    given = sys.stdin.read() if words[-2:] == ["-f", "-"] else ""
    with (STATE / "said").open("a") as file:
        file.write(json.dumps(words) + "\n")
    words = [word for word in words if not word.startswith(("--context=", "--namespace=", "--request-timeout="))]
    if fate() in SIMPLE:
        print(SIMPLE[fate()], file=sys.stderr)
        return 1
    match words[0]:
        case "get":
            get(words)
        case "apply":
            new = {f"{row['kind']}/{row['metadata']['name']}": row for row in json.loads(given)["items"]}
            store({**stored(), **new})
            with (STATE / "history").open("a") as past:
                past.write("".join(json.dumps(row) + "\n" for row in new.values() if row["kind"] == "Deployment"))
        case "delete":
            store({name: row for name, row in stored().items() if name not in words})
        case "version":
            print(json.dumps({"serverVersion": {"major": "1", "minor": "33+"}}))
        case "api-versions":
            print("apps/v1\nmonitoring.coreos.com/v1" if (STATE / "monitoring").exists() else "apps/v1")
        case "logs" if "--previous" in words:
            print("Traceback (most recent call last):\nNameError: name 'cv3' is not defined")
        case "logs":
            if fate() == "loud":
                print("E0101 00:00:00 reflector: watch closed\n" * 5000, file=sys.stderr, flush=True)
            stamps = ("2026-01-01T00:00:02Z ", "2026-01-01T00:00:01Z ") if "--timestamps" in words else ("", "")
            print(f"[pod/api-abc/api] {stamps[0]}200 OK POST /\n[pod/api-xyz/api] {stamps[1]}serving")
            for line in _lines("log"):
                print(line)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
