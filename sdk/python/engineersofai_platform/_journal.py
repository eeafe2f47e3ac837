"""The journal on disk: whole lines, numbered without a gap, in segments of one writer.

The format is the contract of docs/reference/journal.md. This module only appends; it knows nothing
of buffers, servers or threads, and its caller holds a lock.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Optional

SEGMENT_BYTES = 16 * 1024 * 1024


def new_writer() -> str:
    """A name for this process as a writer."""
    return "w-" + os.urandom(8).hex()


def segment_name(number: int) -> str:
    """File name of a segment."""
    return f"{number:08d}.ndjson"


class Journal:
    """Appends records for one run as one writer. Every method may raise OSError."""

    def __init__(self, spool: str, run: str) -> None:
        self.run = run
        self.spool = os.path.abspath(spool)
        self.writer = new_writer()
        self.run_folder = os.path.join(spool, run)
        self.files_folder = os.path.join(self.run_folder, "files")
        self.folder = os.path.join(self.run_folder, self.writer)
        self.sequence = 0
        self.closed = False
        self._segment = 0
        self._size = 0
        self._descriptor: Optional[int] = None

    def append(self, records: list[str]) -> int:
        """Appends records, each the fields of a JSON object from `"k"` on, and returns the number
        of the last. On an error nothing of them is in the journal, and the call may be repeated."""
        if not records:
            return self.sequence
        descriptor = self._open()
        sequence = self.sequence
        lines = []
        for record in records:
            sequence += 1
            lines.append(f'{{"s":{sequence},{record}}}\n')
        # A lone surrogate (an undecodable file name, say) would make the line unreadable elsewhere.
        content = "".join(lines).encode("utf-8", "replace")
        written = 0
        try:
            while written < len(content):
                written += os.write(descriptor, content[written:] if written else content)
        except OSError:
            # Cut a torn line off again, so that what follows later starts on a line of its own.
            os.ftruncate(descriptor, self._size)
            raise
        self._size += len(content)
        self.sequence = sequence
        if self._size >= SEGMENT_BYTES:
            self._end_segment()
        return sequence

    def _open(self) -> int:
        if self._descriptor is None:
            os.makedirs(self.folder, mode=0o700, exist_ok=True)
            path = os.path.join(self.folder, segment_name(self._segment + 1))
            flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_APPEND | getattr(os, "O_CLOEXEC", 0)
            descriptor = os.open(path, flags, 0o600)
            self._segment += 1
            self._size = 0
            self._descriptor = descriptor
            lock_segment(descriptor)
            # A file whose name is not on the disk is gone after a loss of power, whatever was synced into
            # it. The names on the way to it are new with the first.
            sync_folder(self.folder)
            if self._segment == 1:
                sync_folder(self.run_folder)
                sync_folder(self.spool)
                sync_folder(os.path.dirname(self.spool))
        return self._descriptor

    def _end_segment(self) -> None:
        if self._descriptor is not None:
            descriptor, self._descriptor = self._descriptor, None
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)

    def close(self) -> None:
        """Makes everything durable and marks that this writer appends nothing more."""
        if self.closed:
            return
        # Told last: a sender that saw it earlier could remove the folder under the marker's feet.
        try:
            if self._segment == 0:
                return
            self._end_segment()
            with open(os.path.join(self.folder, "closed"), "wb"):
                pass
            sync_folder(self.folder)
        finally:
            self.closed = True

    def abandon(self) -> None:
        """Lets go of the file in a forked child: the parent goes on writing it."""
        if self._descriptor is not None:
            try:
                os.close(self._descriptor)
            except OSError:
                pass
            self._descriptor = None
        self.closed = True


def sync_folder(folder: str) -> None:
    """Makes the names in a folder durable, where its file system can; costs a wait for the disk."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | getattr(os, "O_DIRECTORY", 0))
    except OSError:
        return
    try:
        os.fsync(descriptor)
    except OSError:
        # Some shared file systems sync no folders. What is in the files is not lost by going on.
        pass
    finally:
        os.close(descriptor)


def lock_segment(descriptor: int) -> None:
    """Holds a lock as long as the writer lives: how `sync` tells a dead writer from a silent one."""
    try:
        import fcntl

        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (ImportError, OSError):
        pass


def store_file(files_folder: str, source: str, move: bool = False) -> tuple[str, int]:
    """Puts the bytes of `source` under their SHA-256 and returns hash and size. May raise OSError."""
    import hashlib

    os.makedirs(files_folder, mode=0o700, exist_ok=True)
    digest = hashlib.sha256()
    size = 0
    temporary = os.path.join(files_folder, ".incoming-" + os.urandom(8).hex())
    try:
        with open(source, "rb") as reader:
            writer = None if move else open(temporary, "wb")
            try:
                while True:
                    block = reader.read(1024 * 1024)
                    if not block:
                        break
                    digest.update(block)
                    size += len(block)
                    if writer is not None:
                        writer.write(block)
            finally:
                if writer is not None:
                    writer.close()
        address = digest.hexdigest()
        os.replace(source if move else temporary, os.path.join(files_folder, address))
    except OSError:
        try:
            os.unlink(temporary)
        except OSError:
            pass
        raise
    return address, size
