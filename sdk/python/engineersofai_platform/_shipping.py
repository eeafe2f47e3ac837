"""Sends what one writer's journal holds, in order, each record once.

The same code runs in the SDK's background sender and in `sync`: it knows a folder and a client, and
keeps its place in the `watermark` file, so that any number of processes may take over from another.
"""

from __future__ import annotations

import json
import os
import re

from ._errors import say
from ._http import Client, Refused, quoted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Optional

# The contract allows 4 MiB a call; smaller ones keep each answer quick.
BATCH_BYTES = 2 * 1024 * 1024
# The store takes no longer record.
LONGEST_LINE_BYTES = 4 * 1024 * 1024
# A jump in the numbers past this is a damaged number, not lost records: no process logs so many.
LARGEST_GAP = 1 << 32
_HEAD = re.compile(rb'\{"s":([1-9]\d{0,18}),"k":"(\w+)"')
_SEGMENT = re.compile(r"\d{8}\.ndjson")


class Shipment:
    """The delivery of one writer's records."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self.writer = os.path.basename(folder)
        self.run = os.path.basename(os.path.dirname(folder))
        self.results: dict[int, dict[str, Any]] = {}
        self.sent = 0
        self.refused = 0
        self.watermark = self._kept_watermark()
        self._segment = 1
        self._offset = 0
        self._reached = 0
        self._told: set[tuple[str, int]] = set()
        self._batch_bytes = BATCH_BYTES
        self._conflicts = 0

    def _kept_watermark(self) -> int:
        try:
            with open(os.path.join(self.folder, "watermark"), encoding="ascii") as file:
                return int(file.read().strip() or 0)
        except (OSError, ValueError):
            return 0

    def segments(self) -> list[int]:
        """Numbers of the segments that are there."""
        try:
            names = os.listdir(self.folder)
        except OSError:
            return []
        return sorted(int(name[:8]) for name in names if _SEGMENT.fullmatch(name))

    def _read(self) -> list[tuple[int, str, bytes]]:
        """The next whole lines above the watermark, moving the place in the segments with them."""
        while True:
            # Asked first: what is read after this is then all there will be.
            ended = os.path.exists(os.path.join(self.folder, "closed"))
            segments = self.segments()
            path = os.path.join(self.folder, f"{self._segment:08d}.ndjson")
            content = b""
            try:
                with open(path, "rb") as file:
                    file.seek(self._offset)
                    content = file.read(self._batch_bytes)
                    if content and b"\n" not in content:
                        content += file.readline()
            except FileNotFoundError:
                pass
            end = content.rfind(b"\n") + 1
            if end:
                lines, judged = self._sift(path, content[:end], self._offset, ended)
                self._offset += judged
                if lines or not judged:
                    return lines
                continue
            later = [number for number in segments if number > self._segment]
            if not later:
                return []
            self._segment, self._offset = later[0], 0

    def _sift(
        self, path: str, content: bytes, offset: int, ended: bool
    ) -> tuple[list[tuple[int, str, bytes]], int]:
        """The lines that the store takes or answers, in order and without a gap: what it can never take
        would hold up every good line behind it for ever (docs/reference/journal.md). And how many bytes
        were judged: a number that jumps waits, with all behind it, for the next one, while there may
        come one."""
        numbered = []
        begin, judged = offset, len(content)
        for line in content.split(b"\n"):
            if line.strip():
                numbered.append((offset, line, parse(line)))
            offset += len(line) + 1
        lines: list[tuple[int, str, bytes]] = []
        reached = max(self.watermark, self._reached)
        for at, (place, line, parsed) in enumerate(numbered):
            if parsed is None:
                self._tell(path, place, f"it has no sequence: {line[:60]!r}")
                continue
            sequence, kind = parsed
            if sequence <= reached:
                continue
            if sequence > reached + 1:
                # A number that the lines behind it do not go on from is itself what is damaged.
                later = next((after[0] for _, _, after in numbered[at + 1 :] if after is not None), None)
                if later is None:
                    later = self._sequence_behind(begin + len(content))
                too_far = sequence - reached > LARGEST_GAP
                if later is None and not ended and not too_far:
                    judged = place - begin
                    break
                if too_far or (later is not None and later <= sequence):
                    self._tell(path, place, f"sequence {sequence} comes after {reached}")
                    continue
                why = f"records {reached + 1} to {sequence - 1} are not in the journal"
                lines.append((sequence - 1, "lost", _lost(reached + 1, sequence - 1, why)))
            if len(line) > LONGEST_LINE_BYTES:
                why = f"the record has {len(line)} bytes, at most {LONGEST_LINE_BYTES}; log it in parts"
                kind, line = "lost", _lost(sequence, sequence, why)
            lines.append((sequence, kind, line))
            reached = sequence
        self._reached = reached
        return lines, judged

    def _sequence_behind(self, offset: int) -> Optional[int]:
        """The first sequence from a place in this segment on."""
        for number in self.segments():
            if number < self._segment:
                continue
            try:
                with open(os.path.join(self.folder, f"{number:08d}.ndjson"), "rb") as file:
                    file.seek(offset if number == self._segment else 0)
                    for line in file:
                        parsed = parse(line) if line.endswith(b"\n") else None
                        if parsed is not None:
                            return parsed[0]
            except FileNotFoundError:
                # Another sender has delivered and deleted it.
                continue
        return None

    def _tell(self, path: str, place: int, why: str) -> None:
        """Once for each line, however often it is read again."""
        if (path, place) not in self._told:
            self._told.add((path, place))
            self.refused += 1
            say(f"run {self.run}: the line at byte {place} of {path} was not recorded: {why}")

    def _rewind(self) -> None:
        segments = self.segments()
        self._segment, self._offset, self._reached = (segments[0] if segments else 1), 0, 0

    def step(self, client: Client) -> bool:
        """Sends one batch; False: nothing was left. Raises Unreachable or Refused."""
        place = (self._segment, self._offset, self._reached)
        lines = self._read()
        if not lines:
            return False
        try:
            for at, (sequence, kind, line) in enumerate(lines):
                if kind in ("artifact", "model"):
                    why = self._upload(client, line)
                    if why is not None:
                        lines[at] = (sequence, "lost", _lost(sequence, sequence, why))
            body = b"\n".join(line for _, _, line in lines) + b"\n"
            answer = client.expect(
                "POST",
                f"/v1/tracking/{quoted(self.run)}/journal?writer={quoted(self.writer)}",
                body,
                kind="application/x-ndjson",
            )
            self._taken(client, lines, answer)
        except Refused as refusal:
            self._segment, self._offset, self._reached = place
            if refusal.status == 409:
                return self._after_conflict(refusal)
            if refusal.status == 413 and self._batch_bytes > 64 * 1024:
                self._batch_bytes //= 4
                return True
            raise
        except Exception:
            self._segment, self._offset, self._reached = place
            raise
        self._conflicts = 0
        return True

    def _after_conflict(self, refusal: Refused) -> bool:
        """The store holds less than we believed: start again from what it names."""
        self._conflicts += 1
        named = refusal.body.get("watermark")
        if not isinstance(named, int):
            found = re.search(r"(?:watermark|does not follow)\D{0,20}(\d+)", json.dumps(refusal.body))
            named = int(found.group(1)) if found else 0
        if self._conflicts > 5:
            raise refusal
        self.watermark = named
        self._rewind()
        return True

    def _upload(self, client: Client, line: bytes) -> Optional[str]:
        """Sends the bytes that a record refers to; what is wrong with those that are never taken."""
        for entry in _files(line):
            address = entry.get("sha256")
            if not isinstance(address, str) or not re.fullmatch(r"[0-9a-f]{64}", address):
                continue
            status, _ = client.call("HEAD", f"/v1/blobs/{address}")
            if status == 200:
                continue
            try:
                with open(os.path.join(os.path.dirname(self.folder), "files", address), "rb") as file:
                    length = os.fstat(file.fileno()).st_size
                    client.expect("PUT", f"/v1/blobs/{address}", file, length, "application/octet-stream")
            except Refused as refusal:
                if refusal.status in (401, 403):
                    raise
                # A record of what is lost stands in its place, and must not block those behind it.
                return f"the bytes of {entry.get('path')!r} were refused: {refusal.message}"
            except FileNotFoundError:
                say(f"run {self.run}: the bytes of {entry.get('path')!r} are no longer in the spool")
        return None

    def _taken(self, client: Client, lines: list[tuple[int, str, bytes]], answer: dict[str, Any]) -> None:
        watermark = answer.get("watermark")
        reached = watermark if isinstance(watermark, int) else lines[-1][0]
        results = [result for result in answer.get("results") or [] if isinstance(result, dict)]
        for result in results:
            sequence = result.get("sequence")
            if isinstance(sequence, int):
                self.results[sequence] = result
                if result.get("error"):
                    self.refused += 1
                    say(f"run {self.run}: record {sequence} was not taken: {result['error']}")
        for sequence, kind, line in lines:
            if kind == "model" and sequence <= reached and sequence not in self.results:
                found = self._version_of(client, sequence, line)
                if found:
                    self.results[sequence] = found
                    results.append(found)
        # Answers first: should we die in between, they are asked for again with the same lines.
        if results:
            with open(os.path.join(self.folder, "results.ndjson"), "a", encoding="utf-8") as file:
                file.write("".join(json.dumps(result, separators=(",", ":")) + "\n" for result in results))
        if reached < lines[-1][0]:
            # The rest was not taken, for whatever reason of the store: it is sent again.
            self._rewind()
        self.sent += sum(1 for sequence, _, _ in lines if sequence <= reached)
        self.watermark = max(self.watermark, reached)
        try:
            self._keep_watermark()
            self._sweep(lines)
        except OSError:
            # A full disk here only means that these lines are sent again some day, and skipped.
            pass

    def _version_of(self, client: Client, sequence: int, line: bytes) -> Optional[dict[str, Any]]:
        """Asks for the version when the answer that carried it was lost on its way."""
        record = _record(line)
        manifest = record.get("manifest")
        identity = manifest.get("id") if isinstance(manifest, dict) else None
        try:
            view = client.expect("GET", f"/v1/models/{quoted(str(record.get('name')))}")
        except Refused:
            return None
        for version in view.get("versions") or []:  # type: ignore[attr-defined]
            if identity and version.get("manifest", {}).get("id") == identity:
                return {"sequence": sequence, "model": record.get("name"), "version": version.get("version")}
        return None

    def _keep_watermark(self) -> None:
        path = os.path.join(self.folder, "watermark")
        temporary = f"{path}.{os.getpid()}"
        with open(temporary, "w", encoding="ascii") as file:
            file.write(str(self.watermark))
        os.replace(temporary, path)

    def _sweep(self, lines: list[tuple[int, str, bytes]]) -> None:
        """Deletes what is delivered: files these lines referred to, and segments behind the place."""
        for sequence, kind, line in lines:
            if kind in ("artifact", "model") and sequence <= self.watermark:
                for entry in _files(line):
                    # Safe even when a later record names the same bytes: the store has them now.
                    _delete(os.path.join(os.path.dirname(self.folder), "files", str(entry.get("sha256"))))
        for number in self.segments():
            if number < self._segment:
                _delete(os.path.join(self.folder, f"{number:08d}.ndjson"))

    def clear(self) -> None:
        """Removes the folder of a writer that is closed and delivered."""
        import shutil

        shutil.rmtree(self.folder, ignore_errors=True)
        run_folder = os.path.dirname(self.folder)
        for folder in (os.path.join(run_folder, "files"), run_folder):
            try:
                os.rmdir(folder)
            except OSError:
                break


def parse(line: bytes) -> Optional[tuple[int, str]]:
    """Sequence and kind; none where there is no sequence that the store could answer."""
    head = _HEAD.match(line)
    if head:
        return int(head.group(1)), head.group(2).decode()
    record = _record(line)
    sequence = record.get("s")
    if isinstance(sequence, int) and not isinstance(sequence, bool) and sequence > 0:
        return sequence, str(record.get("k"))
    return None


def _record(line: bytes) -> dict[str, Any]:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return record if isinstance(record, dict) else {}


def _files(line: bytes) -> list[dict[str, Any]]:
    """What a record says of the bytes it refers to."""
    record = _record(line)
    files = record.get("files") if record.get("k") == "model" else [record]
    return [entry for entry in files if isinstance(entry, dict)] if isinstance(files, list) else []


def _lost(first: int, through: int, why: str) -> bytes:
    """The record that stands for those from `first` to `through`."""
    record = {"s": first, "through": through, "k": "lost", "why": why}
    return json.dumps(record, separators=(",", ":")).encode()


def _delete(path: str) -> None:
    try:
        os.unlink(path)
    except OSError:
        pass
