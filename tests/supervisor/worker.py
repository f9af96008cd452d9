"""A small worker: answers every connection on the inherited socket with its own words, until SIGTERM.

In mode ``hesitate`` it goes on for a second after SIGTERM, and then stays for another that accepts nothing. In mode
``late`` it fails once there is a file ``fail``, in mode ``once`` when it was started before.
"""

import faulthandler
import os
import signal
import socket
import sys
import time
from pathlib import Path

from cortex.notify import notify

word, mode = sys.argv[1:]
while mode == "late" and not Path("fail").exists():
    time.sleep(0.02)
if mode in ("fail", "late") or (mode == "once" and Path("started").exists()):
    print("about to fail")
    notify(status="error: predictor.py: __init__: no such luck")
    sys.exit(3)
if mode == "mute":
    print("nothing said\nlast words: an error")
    sys.exit(7)
if mode == "abort":
    print("I0000 00:00:1.2 3 port.cc:153] round-off errors\nExtension modules: h5py._errors (total: 1)")
    faulthandler.enable()
    os.abort()
if mode == "greet":
    word = os.environ["GREETING"]
Path("started").touch()
listener = socket.socket(fileno=int(os.environ["CORTEX_LISTEN_FD"]))


def leave(*_: object) -> None:
    notify(stopping=True)
    time.sleep(1)
    sys.exit(0)


def hesitate(*_: object) -> None:
    signal.signal(signal.SIGALRM, leave)
    signal.alarm(1)


signal.signal(signal.SIGTERM, hesitate if mode == "hesitate" else lambda *_: sys.exit(0))
notify(status="loading")
notify(ready=True)
while True:
    connection, _ = listener.accept()
    if connection.recv(100) == b"die":
        os._exit(9)
    connection.sendall(f"{word} {os.getpid()}".encode())
    connection.close()
