"""What known files say of themselves, read where it is missing: no sound is decoded and no model loaded.

A library of an earlier version gets it so, at its next ingest, and every library when more can be read than before.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

from audiosearch.config import Limits
from audiosearch.errors import MediaError
from audiosearch.ingest.changes import File
from audiosearch.store.records import DescribedFile
from audiosearch.store.store import Store
from audiosearch.types import Metadata

GROUP_FILES = 1000  # written together
POLL_SECONDS = 0.05


def describe_files(
    store: Store, files: Sequence[File], n_workers: int, limits: Limits, stopped: Callable[[], bool]
) -> list[str]:
    """Read and store the metadata of files whose sound is known; returns a line for each that was damaged.

    A file that cannot be opened any more, or whose reader dies of it, is not asked again for what it cannot say.
    """
    from audiosearch.ingest.workers import DecodePool, Described, Failed, Job

    warnings: list[str] = []
    ready: list[DescribedFile] = []
    ahead = deque(enumerate(files))
    with DecodePool(n_workers, limits=limits) as pool:
        while (ahead or pool.busy) and not stopped():
            while ahead and pool.free:
                key, file = ahead.popleft()
                pool.submit(Job(key, file.absolute, only_metadata=True))
            for message in pool.events(POLL_SECONDS):
                file, warning = files[message.key], ""
                if isinstance(message, Described):
                    warning = "; ".join(message.warnings)
                    ready.append(DescribedFile(file.root_id, file.path, message.stat, message.metadata, warning))
                elif isinstance(message, Failed):
                    warning = f"its metadata could not be read ({message.detail})"
                    if message.cause not in MediaError.PASSING or message.cause in MediaError.COSTLY:
                        ready.append(DescribedFile(file.root_id, file.path, file.stat, Metadata(), warning))
                if warning:
                    warnings.append(f"{file.absolute}: {warning}")
            if len(ready) >= GROUP_FILES:
                store.describe(ready)
                ready = []
    store.describe(ready)
    return warnings
