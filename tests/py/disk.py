"""A small disk for a test: a tmpfs in a mount namespace of its own, where that can be had."""

import os
import subprocess

import pytest

NAMESPACE = ["unshare", "--mount"] if os.geteuid() == 0 else ["unshare", "--map-root-user", "--mount"]


def namespaces():
    try:
        return subprocess.run([*NAMESPACE, "sh", "-c", "mount -t tmpfs none /mnt"], capture_output=True).returncode == 0
    except FileNotFoundError:
        return False


needs_disk = pytest.mark.skipif(not namespaces(), reason="no tmpfs can be mounted here (neither as root nor in a user namespace)")
