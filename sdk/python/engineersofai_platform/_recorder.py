"""From calls in the training process to journal lines: a bounded buffer and its encoding.

The training thread appends a tuple and returns. `drain`, called by the flusher thread, gives points
their default steps, encodes them and appends them to the journal. When the disk refuses, encoded
records wait in memory up to a bound; what is above it is counted and said, never silently lost.
"""

from __future__ import annotations

import json
import os
import threading
from collections import deque

from ._errors import reason, say
from ._journal import Journal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any, Optional

# Calls in the buffer at which the flusher is woken early.
WAKE_ENTRIES = 4096
# Calls in the buffer above which the caller encodes and writes itself: about 12 MB of memory.
INLINE_ENTRIES = 32768
# Points in one record: a line of some 200 kB, well under the 4 MiB of one request.
RECORD_POINTS = 4096
# Parameters or tags in one record: at 4,096 characters each, well under 4 MiB too.
RECORD_FIELDS = 100
NAME_BYTES = 250
TEXT_CHARACTERS = 4096
# Points kept in memory while the disk refuses: about 15 MB.
WAITING_POINTS = 200_000

_MINIMUM_STEP, _MAXIMUM_STEP = -(2**63), 2**63 - 1


def text_of(value: object) -> str:
    """Strict JSON."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def spelled(value: float) -> str:
    """How the journal spells what JSON has no number for."""
    if value != value:
        return '"NaN"'
    return '"Infinity"' if value > 0 else '"-Infinity"'


class Recorder:
    """What one process records of one run."""

    def __init__(self, spool: str, run: str, wake: Callable[[], None]) -> None:
        self.spool = spool
        self.run = run
        self.journal = Journal(spool, run)
        self.dropped = 0
        # What the store said to records of ours, by sequence, where this process sends itself.
        self.answers: dict[int, dict[str, Any]] = {}
        # The journal is closed and all of it has arrived.
        self.delivered = False
        # The store will not take this run's records, whoever sends them how often.
        self.refused = False
        self._wake = wake
        self._steps: dict[str, int] = {}
        self._start()

    def _start(self) -> None:
        # An entry is (time_ns, step, {key: float}) or (kind, rest of the record).
        self.buffer: deque[tuple[Any, ...]] = deque()
        self.wake_entries = WAKE_ENTRIES
        self._lock = threading.Lock()
        self._waiting: list[tuple[str, int]] = []
        self._waiting_points = 0
        self._progress: Optional[str] = None
        self._full = False

    def after_fork(self) -> None:
        """In a forked child: what the parent buffered is the parent's, and this is a new writer."""
        self.journal.abandon()
        self.journal = Journal(self.spool, self.run)
        self.dropped = 0
        self.answers = {}
        self.delivered = False
        self.refused = False
        self._start()
        # No thread survives a fork; the first entry calls `pressed`, which starts them again.
        self.wake_entries = 0

    def wake_with(self, wake: Callable[[], None]) -> None:
        """Replaces what is called to have the buffer written soon."""
        self._wake = wake

    def pressed(self) -> None:
        """Called by the training thread when the buffer is longer than `wake_entries`."""
        if self.wake_entries == 0:
            self.wake_entries = WAKE_ENTRIES
            self._wake()
        elif len(self.buffer) > INLINE_ENTRIES:
            self.drain()
        elif self.wake_entries == WAKE_ENTRIES:
            # Once for each filling: waking costs more than appending does.
            self.wake_entries = INLINE_ENTRIES
            self._wake()

    def record(self, kind: str, **fields: object) -> None:
        """Buffers a record that is not a point."""
        self.buffer.append((kind, text_of(fields)[1:-1]))
        if self.wake_entries == 0:
            self.pressed()

    def record_now(self, kind: str, **fields: object) -> Optional[int]:
        """Writes a record, after all that came before it; its sequence, or None: the disk refused."""
        if self.wake_entries == 0:
            self.pressed()
        line = (f'"k":"{kind}",' + text_of(fields)[1:-1], 0)
        with self._lock:
            self._encode()
            self._waiting.append(line)
            self._write()
            return None if self._waiting else self.journal.sequence

    def set_step(self, key: str, step: int) -> None:
        """The default step that the next point of `key` gets."""
        with self._lock:
            self._steps[key] = step

    def drain(self) -> bool:
        """Moves everything buffered to the journal; False: the disk refused and it waits."""
        with self._lock:
            self._encode()
            self._write()
            return not self._waiting

    def finish(self) -> None:
        """Writes what is left and closes the journal."""
        with self._lock:
            self._encode()
            self._write()
            lost = self.dropped + len(self._waiting)
            try:
                self.journal.close()
            except OSError as error:
                say(f"run {self.run}: cannot make the journal durable ({reason(error)})")
        if lost:
            say(
                f"run {self.run}: {lost} records were lost because {self.spool} could not be written; "
                "free some space, or set PLATFORM_SPOOL to another disk"
            )

    def _encode(self) -> None:
        buffer = self.buffer
        self.wake_entries = WAKE_ENTRIES
        keys: dict[str, int] = {}
        # Key index, step, time and value of each point, one behind the other.
        points: list[object] = []
        steps = self._steps
        add = points.extend
        while buffer:
            try:
                entry = buffer.popleft()
            except IndexError:
                break
            if len(entry) == 3:
                nanoseconds, step, metrics = entry
                microseconds = nanoseconds // 1000
                for key, value in metrics.items():
                    index = keys.get(key)
                    if index is None:
                        key = clean_key(key)
                        index = keys.setdefault(key, len(keys))
                    at = steps.get(key, 0) if step is None else step
                    steps[key] = at + 1
                    add((index, at, microseconds, value if value - value == 0.0 else spelled(value)))
                if len(points) >= 4 * RECORD_POINTS:
                    self._put_points(keys, points)
            else:
                kind, rest = entry
                if kind == "progress":
                    # Only the newest tells anything.
                    self._progress = rest
                    continue
                self._put_points(keys, points)
                self._waiting.append((f'"k":"{kind}",{rest}', 0))
        self._put_points(keys, points)
        if self._progress is not None:
            self._waiting.append((f'"k":"progress",{self._progress}', 0))
            self._progress = None

    def _put_points(self, keys: dict[str, int], points: list[object]) -> None:
        if points:
            # One formatting of all is the fastest there is, and this runs beside training, in the same
            # interpreter. Python spells finite floats as JSON does.
            count = len(points) // 4
            written = ("[%s,%s,%s,%s]," * count)[:-1] % tuple(points)
            self._waiting.append((f'"k":"points","keys":{text_of(list(keys))},"points":[{written}]', count))
            self._waiting_points += count
            keys.clear()
            points.clear()

    def _write(self) -> None:
        if not self._waiting:
            return
        try:
            self.journal.append([record for record, _ in self._waiting])
        except OSError as error:
            if not self._full:
                self._full = True
                say(
                    f"cannot write to {self.spool} ({reason(error)}); keeping up to {WAITING_POINTS} "
                    "points in memory and trying again; free some space"
                )
            while self._waiting_points > WAITING_POINTS:
                # The newest go, so that what is kept has no gap.
                for place in range(len(self._waiting) - 1, -1, -1):
                    count = self._waiting[place][1]
                    if count:
                        del self._waiting[place]
                        self._waiting_points -= count
                        self.dropped += count
                        break
            return
        self._waiting.clear()
        self._waiting_points = 0
        if self._full:
            self._full = False
            say(f"{self.spool} can be written again; nothing kept in memory is missing")


def clean_key(key: object) -> str:
    """A name as the store takes it: printable, not empty, at most 250 bytes."""
    text = key if isinstance(key, str) else str(key)
    if text.isprintable() and 0 < len(text) <= 62:
        return text
    text = "".join("?" if ord(letter) < 32 or 127 <= ord(letter) < 160 else letter for letter in text)
    return text.encode("utf-8", "replace")[:NAME_BYTES].decode("utf-8", "ignore") or "?"


def batches(fields: dict[str, Any]) -> list[dict[str, Any]]:
    """Parts of a mapping that each fit well into one record."""
    names = list(fields)
    return [
        {name: fields[name] for name in names[at : at + RECORD_FIELDS]} for at in range(0, len(names), RECORD_FIELDS)
    ]


def clean_step(step: object) -> Optional[int]:
    """A step as the journal wants it, None where it is not a whole number."""
    try:
        number: int = int(step)  # type: ignore[call-overload]
    except (TypeError, ValueError, OverflowError):
        return None
    return min(max(number, _MINIMUM_STEP), _MAXIMUM_STEP - 1)


def clean_metrics(metrics: Mapping[Any, Any]) -> dict[str, float]:
    """The numbers among the metrics; what is none is said once for each key, and left out."""
    numbers: dict[str, float] = {}
    for key, value in metrics.items():
        name = key if isinstance(key, str) else str(key)
        if isinstance(value, (str, bytes, bytearray)):
            _not_a_number(name, value)
            continue
        try:
            numbers[name] = float(value)
        except Exception:  # a tensor of many elements, a deleted buffer: anything a framework raises
            _not_a_number(name, value)
    return numbers


def _not_a_number(key: str, value: object) -> None:
    shown = repr(value)
    if len(shown) > 80:
        shown = shown[:77] + "..."
    say(
        f"metric {key!r} skipped: {shown} ({type(value).__name__}) is not a number; log a number, or use "
        "log_params for text",
        once=("metric", key),
    )


def clean_param(value: object) -> object:
    """A parameter as a JSON scalar: other values are kept as their text."""
    text: object
    if value is None or isinstance(value, (bool, str)):
        text = value
    elif isinstance(value, int):
        return int(value) if -(2**63) <= value < 2**63 else str(value)
    elif isinstance(value, float):
        return float(value) if value - value == 0.0 else str(value)
    elif hasattr(value, "item") and getattr(value, "shape", None) == ():
        text = clean_param(value.item())
    else:
        text = os.fspath(value) if isinstance(value, os.PathLike) else str(value)
    return clean_text(text) if isinstance(text, str) else text


def clean_text(text: str) -> str:
    """Text of bounded length."""
    return text if len(text) <= TEXT_CHARACTERS else text[: TEXT_CHARACTERS - 3] + "..."
