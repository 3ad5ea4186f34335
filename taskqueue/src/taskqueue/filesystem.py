"""On what kind of filesystem a path lies: SQLite's locks and shared memory do not work over a network."""

import os
from pathlib import Path

#: Locks of these may silently not work, and the write-ahead log needs memory shared by one machine.
NETWORK = frozenset(
    {
        "nfs",
        "nfs4",
        "cifs",
        "smb3",
        "smbfs",
        "afs",
        "ceph",
        "glusterfs",
        "lustre",
        "ncpfs",
        "fuse.sshfs",
        "fuse.glusterfs",
    }
)
#: Folders that a virtual machine or a container shares with its host: usually right with one owner.
SHARED = frozenset({"9p", "virtiofs", "vboxsf", "fuse.grpcfuse", "fakeowner", "prl_fs"})


def filesystem_type(path: Path, mounts: str | None = None) -> str:
    """The type of the innermost mount that holds `path`; "" where the system does not tell."""
    if mounts is None:
        try:
            mounts = Path("/proc/self/mounts").read_text(encoding="utf-8", errors="replace")
        except OSError:
            return ""
    where = os.path.realpath(path)
    best, found = "", ""
    for line in mounts.splitlines():
        fields = line.split(" ")
        if len(fields) < 3:
            continue
        point = fields[1].replace("\\040", " ").replace("\\011", "\t").replace("\\134", "\\")
        inside = point == "/" or where == point or where.startswith(point + "/")
        if inside and len(point) >= len(best):
            best, found = point, fields[2]
    return found
