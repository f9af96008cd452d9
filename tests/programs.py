"""Programs that are no Python packages: tests that need one skip where it is not installed, and say so."""

import os
import shutil

import pytest

NGINX = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin:/usr/local/sbin")
needs_nginx = pytest.mark.skipif(NGINX is None, reason="nginx is not installed")
