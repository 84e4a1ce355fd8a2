"""Names that survive a power cut, and which file system a path is on, where the system says so (Linux)."""

from __future__ import annotations

import errno
import os
import re
from pathlib import Path
from typing import NamedTuple

# SQLite's write-ahead log needs memory that all readers share, which these do not give across machines.
# fmt: off
NETWORK = frozenset({
    "9p", "afpfs", "afs", "beegfs", "ceph", "cifs", "coda", "davfs", "fuse.davfs2", "fuse.gcsfuse",
    "fuse.glusterfs", "fuse.rclone", "fuse.s3fs", "fuse.smbnetfs", "fuse.sshfs", "fuse.vmhgfs-fuse",
    "glusterfs", "gpfs", "lustre", "ncpfs", "nfs", "nfs4", "orangefs", "pvfs2", "smb2", "smb3", "smbfs",
    "vboxsf", "webdav",
})
# fmt: on
_NO_DIRECTORY_SYNC = {errno.EACCES, errno.EPERM, errno.EISDIR, errno.EINVAL, errno.EBADF, errno.ENOTSUP}
_MOUNTS = Path("/proc/self/mounts")


class Mount(NamedTuple):
    """A line of the system's list of mounts."""

    source: str  # a device, `server:/export`, or a word that says nothing
    folder: str
    type: str  # ext4, nfs4, ...


def mount_of(path: str | bytes | os.PathLike[str], mounts: Path = _MOUNTS) -> Mount | None:
    """What is mounted where `path` is, or would be; None where the system does not say."""
    real = os.fsdecode(os.path.realpath(path))
    found: Mount | None = None
    for mount in _mounts(mounts):
        # The later of two mounts at one place hides the earlier.
        if (found is None or len(mount.folder) >= len(found.folder)) and _is_below(real, mount.folder):
            found = mount
    return found


def mounts_below(path: str | bytes | os.PathLike[str], mounts: Path = _MOUNTS) -> list[Mount]:
    """What is mounted on folders inside `path`; nothing where the system does not say."""
    real = os.fsdecode(os.path.realpath(path))
    return [mount for mount in _mounts(mounts) if mount.folder != real and _is_below(mount.folder, real)]


def _mounts(mounts: Path) -> list[Mount]:
    try:
        lines = mounts.read_bytes().splitlines()
    except OSError:
        return []
    found = []
    for line in lines:
        # A space in a name is \040.
        fields = [re.sub(rb"\\([0-7]{3})", lambda octal: bytes([int(octal[1], 8)]), each) for each in line.split()[:3]]
        if len(fields) == 3:
            found.append(Mount(*map(os.fsdecode, fields)))
    return found


def _is_below(path: str, folder: str) -> bool:
    return (path + "/").startswith(folder.rstrip("/") + "/")


def file_system_type(path: str | os.PathLike[str], mounts: Path = _MOUNTS) -> str | None:
    """`ext4`, `nfs4`, ... of the file system that `path` is, or would be, on; None where the system does not say."""
    mount = mount_of(path, mounts)
    return mount.type if mount else None


def is_network(path: str | os.PathLike[str]) -> bool:
    """Whether `path` is on a file system that is known to be shared over a network."""
    return file_system_type(path) in NETWORK


def sync_directory(directory: str | os.PathLike[str]) -> None:
    """Make new names in a directory survive a power cut, where the system has a way to ask for it.

    Raises:
        OSError: it has, and the disk failed.
    """
    try:
        handle = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
    except OSError as error:
        if error.errno not in _NO_DIRECTORY_SYNC:
            raise


def make_directories(directory: Path) -> None:
    """Make a directory and those above it; what was made survives a power cut."""
    missing = [folder for folder in (directory, *directory.parents) if not folder.exists()]
    directory.mkdir(parents=True, exist_ok=True)
    for folder in missing:
        sync_directory(folder.parent)
