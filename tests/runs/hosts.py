"""Hosts that share a disk, on one machine: each has a name, a kernel's identity and a mount.

A host is a process in namespaces of its own (`unshare`, which needs no privilege where the system
allows user namespaces). Its mount is one of sshfs, whose server is a process here: no network and
no sshd. The kernel knows such mounts as different disks: `flock` on one does not reach the other,
and files are seen late, as on a network file system.
"""

import contextlib
import shutil
import subprocess
import uuid
from pathlib import Path

import pytest

SFTP_SERVERS = ("/usr/lib/openssh/sftp-server", "/usr/libexec/openssh/sftp-server")
_BEGIN = """
hostname "$1" && mount --bind "$2" /proc/sys/kernel/random/boot_id || exit 97
shift 2; exec "$@"
"""


class Host:
    """Another machine.

    Args:
        name: Its name.
        place: Receives the identity of its kernel.
        own_kernel: Whether it has one of its own; else it is a container of this machine.
    """

    def __init__(self, name, place, *, own_kernel=True):
        self.name = name
        self._boot = place / f"boot-{name}"
        here = Path("/proc/sys/kernel/random/boot_id").read_text()
        self._boot.write_text(f"{uuid.uuid4()}\n" if own_kernel else here)

    def command(self, *arguments):
        """Returns the command that runs another one on this host, as the same process."""
        enter = ["unshare", "--map-root-user", "--uts", "--mount", "sh", "-c", _BEGIN, "sh"]
        return [*enter, self.name, str(self._boot), *map(str, arguments)]


def require_hosts(place):
    """Skips the test where a process may not have namespaces of its own."""
    if shutil.which("unshare") is None:
        pytest.skip("no unshare (util-linux)")
    probe = subprocess.run(Host("probe", place).command("hostname"), capture_output=True, text=True)
    if probe.returncode or probe.stdout.strip() != "probe":
        pytest.skip(f"no namespaces here: {probe.stderr.strip() or probe.returncode}")


@contextlib.contextmanager
def mounted(share, *places):
    """Mounts a folder at some places, each by an sshfs of its own; skips the test without one."""
    server = next(filter(Path.exists, map(Path, SFTP_SERVERS)), None)
    if shutil.which("sshfs") is None or server is None or not Path("/dev/fuse").exists():
        pytest.skip("no sshfs, sftp-server or /dev/fuse (apt install sshfs openssh-sftp-server)")
    shell = share.parent / "no-ssh"
    shell.write_text(f"#!/bin/sh\nexec {server}\n")
    shell.chmod(0o755)
    with contextlib.ExitStack() as stack:
        for place in places:
            place.mkdir()
            command = ["sshfs", "-o", f"ssh_command={shell}", f"host:{share}", str(place)]
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode:
                pytest.skip(f"sshfs cannot mount here: {done.stderr.strip()}")
            stack.callback(subprocess.run, ["fusermount3", "-u", "-z", str(place)], check=True)
        yield
