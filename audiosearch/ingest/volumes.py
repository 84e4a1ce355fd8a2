"""Which disk a folder is on: tells a disk from another one in its place, and says what its inode numbers are worth."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path

from audiosearch.store.filesystem import NETWORK, Mount, mount_of

_UUIDS = Path("/dev/disk/by-uuid")
# File systems whose statvfs id is made of their UUID; others make it of the device's number, which changes.
_ID_OF_UUID = frozenset({"ext2", "ext3", "ext4", "btrfs", "f2fs", "zfs"})
# These number files anew whenever they are mounted. `fuseblk` may be NTFS, which would not, or exFAT.
_MADE_UP_INODES = frozenset({"vfat", "msdos", "exfat", "fuseblk", "9p", "iso9660", "udf"})


@dataclass(frozen=True, slots=True)
class Volume:
    """A file system. `id` is the same after a restart and on another mount point; None where nothing says it."""

    id: str | None = None
    keeps_inodes: bool = True


class Volumes:
    """Volumes of folders, each looked up once."""

    def __init__(self) -> None:
        self._by_device: dict[int, Volume] = {}
        self._by_folder: dict[str, Volume] = {}

    def of(self, folder: str) -> Volume:
        """The volume that a folder is on, or a nameless one if that cannot be read."""
        if folder not in self._by_folder:
            self._by_folder[folder] = self._of(folder)
        return self._by_folder[folder]

    def _of(self, folder: str) -> Volume:
        try:
            device = Path(folder).stat().st_dev
            if device not in self._by_device:
                self._by_device[device] = _volume(folder, device)
        except OSError:
            return Volume()
        return self._by_device[device]


def is_other(before: str | None, now: str | None) -> bool:
    """Whether two ids certainly mean different volumes: both are known, and by the same kind of id."""
    return (
        before is not None and now is not None and before != now and before.partition(":")[0] == now.partition(":")[0]
    )


def _volume(folder: str, device: int) -> Volume:
    if sys.platform == "win32":
        return Volume(f"serial:{device:x}")
    mount = mount_of(folder)
    if mount is None:
        return Volume()
    keeps_inodes = mount.type not in _MADE_UP_INODES and not mount.type.startswith("fuse.")
    return Volume(_id(mount, folder), keeps_inodes)


def _id(mount: Mount, folder: str) -> str | None:
    if mount.type in NETWORK:
        return f"share:{mount.source}"
    uuid = _uuid(mount.source)
    if uuid is not None:
        return f"uuid:{uuid}"
    if mount.type in _ID_OF_UUID:
        return f"fs:{os.statvfs(folder).f_fsid:x}"
    return None


def _uuid(source: str) -> str | None:
    try:
        device = Path(source).stat().st_rdev
        return next((name.name for name in _UUIDS.iterdir() if device and name.stat().st_rdev == device), None)
    except OSError:
        return None
