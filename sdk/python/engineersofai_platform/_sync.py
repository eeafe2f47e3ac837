"""Sends what ended processes left in the spool: `python -m engineersofai_platform sync`."""

from __future__ import annotations

import json
import os
import re

from . import _settings
from ._errors import say
from ._http import Client, Refused, Unreachable
from ._journal import segment_name
from ._shipping import Shipment, parse

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Optional

# Exit codes, as those of the command line.
DONE, FAILED, UNAUTHENTICATED, UNAVAILABLE = 0, 1, 3, 6

DIED = "the process ended without closing the run"


def sync(spool: str) -> int:
    """Sends everything in the spool and says what it did; an exit code."""
    shipments = [Shipment(folder) for folder in writers(spool)]
    if not shipments:
        print(f"nothing to send in {spool}")
        return DONE
    server = _settings.server()
    if server is None:
        say("no server configured; run `platform login`, or set PLATFORM_URL and PLATFORM_TOKEN")
        return FAILED
    client: Optional[Client] = None
    sent: dict[str, int] = {}
    refused = 0
    try:
        client = Client(server)
        for shipment in shipments:
            ended = end_if_dead(shipment.folder)
            try:
                while shipment.step(client):
                    pass
            except Refused as refusal:
                if refusal.status == 401:
                    raise
                # The other runs of the spool may fare better.
                say(f"run {shipment.run}: {server.url} refused its records ({refusal.message})")
                refused += 1
                ended = False
            refused += shipment.refused
            sent[shipment.run] = sent.get(shipment.run, 0) + shipment.sent
            if ended:
                shipment.clear()
    except Unreachable as error:
        say(f"{server.url} does not answer ({error}); nothing is lost, run `platform sync` again later")
        return UNAVAILABLE
    except Refused as refusal:
        say(f"{server.url} refused the token ({refusal.message}); run `platform login`")
        return UNAUTHENTICATED
    finally:
        if client is not None:
            client.close()
        for run, count in sorted(sent.items()):
            print(f"run {run}: {count} records sent")
    return FAILED if refused else DONE


def writers(spool: str) -> list[str]:
    """Folders of writers, oldest first."""
    found = []
    try:
        runs = os.listdir(spool)
    except OSError:
        return []
    for run in runs:
        folder = os.path.join(spool, run)
        if not os.path.isdir(folder):
            continue
        for writer in os.listdir(folder):
            path = os.path.join(folder, writer)
            if re.fullmatch(r"w-[0-9a-f]{16}", writer) and os.path.isdir(path):
                found.append((os.stat(path).st_mtime_ns, path))
    return [path for _, path in sorted(found)]


def end_if_dead(folder: str) -> bool:
    """Whether the writer appends nothing more. One whose process died is ended here: a torn last
    line is cut off, and a run it opened but never closed is closed as failed."""
    marker = os.path.join(folder, "closed")
    if os.path.exists(marker):
        return True
    segments = Shipment(folder).segments()
    if not segments:
        return False
    path = os.path.join(folder, segment_name(segments[-1]))
    try:
        import fcntl

        with open(path, "r+b") as file:
            try:
                fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                # Its process lives and goes on by itself.
                return False
            written_us = os.fstat(file.fileno()).st_mtime_ns // 1000
            content = file.read()
            file.truncate(content.rfind(b"\n") + 1)
            last = _unclosed(folder, segments)
            if last is not None:
                file.seek(0, os.SEEK_END)
                # It lived at least until it last wrote.
                record = {"s": last + 1, "k": "close", "status": "failed", "error": DIED, "ended_us": written_us}
                file.write(json.dumps(record, separators=(",", ":")).encode() + b"\n")
            file.flush()
            with open(marker, "wb"):
                pass
    except (ImportError, OSError):
        return False
    return True


def _unclosed(folder: str, segments: list[int]) -> Optional[int]:
    """The last sequence when this writer opened the run, never closed it, and nobody resumed it."""
    last, opened, closed = 0, False, False
    for number in segments:
        with open(os.path.join(folder, segment_name(number)), "rb") as file:
            for line in file:
                if not line.endswith(b"\n"):
                    break
                # One that cannot be read is the sender's to tell of.
                last, kind = parse(line) or (last, None)
                opened = opened or kind == "open"
                closed = closed or kind == "close"
    if segments[0] != 1:
        # Its first segment has been delivered and deleted, and with it the record of opening.
        opened = True
    run_folder = os.path.dirname(folder)
    others = [name for name in os.listdir(run_folder) if name.startswith("w-") and name != os.path.basename(folder)]
    return last if opened and not closed and not others else None
