"""Whether this machine can play several ones."""

import os
import shutil
import subprocess

import pytest

from p2pnode.hosts import Hosts, HostsFailed


def can_make_hosts():
    if os.geteuid() != 0 or not all(map(shutil.which, ("ip", "tc"))):
        return False
    try:
        with Hosts(1):
            return True
    except HostsFailed:  # root in a container that may not
        return False


needs_hosts = pytest.mark.skipif(not can_make_hosts(), reason="needs Linux, iproute2 and root")


def can_mount():
    if os.geteuid() != 0 or not all(map(shutil.which, ("unshare", "mount"))):
        return False
    return subprocess.run(["unshare", "-m", "true"], capture_output=True, check=False).returncode == 0


needs_mounts = pytest.mark.skipif(not can_mount(), reason="needs Linux and root")
