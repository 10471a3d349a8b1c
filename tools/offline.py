"""Run a command with the network unplugged: only the loopback interface is left.

    python tools/offline.py pytest

Linux only: a network namespace of its own, as root or as an ordinary user where user namespaces
are allowed. Elsewhere the command runs as it is, and a note says so. MOBILEMOE_UNPLUGGED is "1"
for the command when the network is gone.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import socket
import struct
import sys
from pathlib import Path

CLONE_NEWUSER, CLONE_NEWNET = 0x10000000, 0x40000000
SIOCSIFFLAGS, IFF_UP = 0x8914, 1


def unplug() -> None:
    """Move this process into a network namespace that holds only loopback.

    Raises:
        OSError: if this system does not allow it.
    """
    user, group = os.getuid(), os.getgid()
    libc = ctypes.CDLL(None, use_errno=True)
    flags = CLONE_NEWNET | (CLONE_NEWUSER if user else 0)
    if libc.unshare(flags) != 0:
        raise OSError(ctypes.get_errno(), "unshare")
    if user:
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"{user} {user} 1")
        Path("/proc/self/gid_map").write_text(f"{group} {group} 1")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        fcntl.ioctl(control, SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", IFF_UP))


def main() -> None:
    """Unplug if possible, then become the command."""
    command = sys.argv[1:]
    if not command:
        raise SystemExit(__doc__)
    try:
        unplug()
        os.environ["MOBILEMOE_UNPLUGGED"] = "1"
    except (OSError, AttributeError) as error:
        print(f"note: the network stays plugged in: {error}", file=sys.stderr)
    sys.stderr.flush()
    os.execvp(command[0], command)


if __name__ == "__main__":
    main()
