"""Execute the notebook on the standard input as Jupyter would; write it, with its outputs, to the standard output.

The kernel is the interpreter that runs this, whatever kernels are installed, and speaks through sockets in a directory
of its own. A cell that fails does not end it. The argument is the working directory.
"""

import sys
import tempfile
from pathlib import Path

import nbformat
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient

notebook = nbformat.reads(sys.stdin.read(), as_version=4)
with tempfile.TemporaryDirectory() as sockets:  # a socket's path has to be short
    manager = AsyncKernelManager(
        kernel_name="python3",
        kernel_spec_manager=KernelSpecManager(kernel_dirs=[]),  # the kernel of this interpreter is what is left
        transport="ipc",
        connection_file=str(Path(sockets) / "kernel.json"),
    )
    NotebookClient(
        notebook, km=manager, timeout=None, allow_errors=True, resources={"metadata": {"path": sys.argv[1]}}
    ).execute()
sys.stdout.write(nbformat.writes(notebook))
