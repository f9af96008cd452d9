"""A worker in ten lines: answers every connection on the inherited socket with its own words, until SIGTERM."""

import os
import signal
import socket
import sys

from cortex.notify import notify

word, mode = sys.argv[1:]
if mode == "fail":
    print("about to fail")
    notify(status="error: predictor.py: __init__: no such luck")
    sys.exit(3)
if mode == "mute":
    print("nothing said\nlast words: an error")
    sys.exit(7)
if mode == "greet":
    word = os.environ["GREETING"]
listener = socket.socket(fileno=int(os.environ["CORTEX_LISTEN_FD"]))
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
notify(status="loading")
notify(ready=True)
while True:
    connection, _ = listener.accept()
    if connection.recv(100) == b"die":
        os._exit(9)
    connection.sendall(f"{word} {os.getpid()}".encode())
    connection.close()
