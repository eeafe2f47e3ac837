"""The two background threads of a process: one writes journals, one sends them.

They are apart because a slow server must never delay writing, which is what frees memory. Both are
daemons started with the first run, and again in a forked child once it records something.
"""

from __future__ import annotations

import os
import random
import threading
import time

from . import _settings
from ._errors import reason, say
from ._recorder import Recorder

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Optional

    from ._settings import Server
    from ._shipping import Shipment

FLUSH_SECONDS = 0.5
# The shortest pause between two sendings: points are worth batching.
SEND_SECONDS = 0.25
LONGEST_BACK_OFF_SECONDS = 30.0


class Sender:
    """Sends the journals of this process by HTTP, in its own thread."""

    def __init__(self, server: Server) -> None:
        self.server = server
        # Why nothing will be sent any more in this process.
        self.given_up: Optional[str] = None
        self._shipments: dict[Recorder, Shipment] = {}
        self._changed = threading.Condition()
        self._wake = threading.Event()
        self._failures = 0
        self._succeeded = False
        self._nobody = False
        # How many callers wait for delivery; while any does, pauses are short.
        self._waiting = 0
        self._hurry = threading.Event()
        self._thread: Optional[threading.Thread] = None

    def add(self, recorder: Recorder) -> None:
        """Sends this recorder's journal from now on."""
        with self._changed:
            if recorder not in self._shipments and not recorder.delivered:
                from ._shipping import Shipment

                shipment = Shipment(recorder.journal.folder)
                shipment.results = recorder.answers
                self._shipments[recorder] = shipment
        if self._thread is None:
            thread = threading.Thread(target=self._loop, name="platform-sender", daemon=True)
            try:
                thread.start()
                self._thread = thread
            except RuntimeError:
                # The interpreter is ending; `sync` delivers what is left.
                self.given_up = "the process is ending"

    def wake(self) -> None:
        """There is something to send."""
        self._wake.set()

    def left(self, recorder: Recorder) -> int:
        """How many records of this recorder have not arrived."""
        if recorder.delivered:
            return 0
        shipment = self._shipments.get(recorder)
        return recorder.journal.sequence - (shipment.watermark if shipment is not None else 0)

    def wait(self, done: Callable[[], bool], seconds: float) -> bool:
        """Waits until `done`, the deadline, or until it is clear that nobody answers."""
        if done():
            return True
        if self.given_up is not None:
            return False
        end = time.monotonic() + seconds
        before = self._failures
        with self._changed:
            self._waiting += 1
            self._hurry.set()
        self._wake.set()
        try:
            with self._changed:
                while not done():
                    remaining = end - time.monotonic()
                    if remaining <= 0 or self.given_up is not None:
                        return False
                    if self._nobody and not self._succeeded and self._failures > before:
                        return False
                    self._changed.wait(min(remaining, 0.1))
                return True
        finally:
            with self._changed:
                self._waiting -= 1
                if self._waiting == 0:
                    self._hurry.clear()

    def _loop(self) -> None:
        from ._http import Client, Refused, Unreachable

        client: Optional[Client] = None
        while self.given_up is None:
            if self._failures == 0:
                self._wake.wait()
            pause = self._pause()
            if pause:
                # In back-off new records do not shorten the pause; somebody who waits does.
                self._hurry.wait(pause)
            self._wake.clear()
            try:
                if client is None:
                    client = Client(self.server)
                self._pass(client)
                self._failures = 0
                self._hurry.wait(SEND_SECONDS)
            except Unreachable as error:
                self._failures += 1
                self._nobody = error.nobody
                if self._failures == 1:
                    say(
                        f"{self.server.url} does not answer ({error}); recording to "
                        f"{_settings.spool_folder()} and trying again",
                        once="unreachable",
                    )
            except Refused as refusal:
                self._give_up(refusal.status, refusal.message)
            except Exception as error:  # a sender that dies silently would look like a dead server
                self._give_up(0, f"{type(error).__name__}: {error}")
            with self._changed:
                self._changed.notify_all()

    def _give_up(self, status: int, message: str) -> None:
        if status == 401:
            say(
                f"{self.server.url} refused the token ({message}); recording offline; run `platform login`, then "
                "`platform sync`",
                once="refused",
            )
        else:
            say(f"{self.server.url} refused records ({message}); recording offline", once="refused")
        self.given_up = message

    def _pause(self) -> float:
        if self._failures == 0:
            return 0.0
        if self._hurry.is_set():
            # Somebody waits, and only for seconds: try again soon, but do not spin.
            time.sleep(0.1)
            return 0.0
        longest = min(LONGEST_BACK_OFF_SECONDS, 0.5 * 2.0 ** min(self._failures, 10))
        return longest * random.uniform(0.5, 1.0)

    def _pass(self, client: Any) -> None:
        from ._http import Refused

        for recorder, shipment in list(self._shipments.items()):
            if recorder.refused:
                continue
            try:
                while shipment.step(client):
                    self._succeeded = True
                    with self._changed:
                        self._changed.notify_all()
            except Refused as refusal:
                if refusal.status == 401:
                    raise
                # The other runs of this process may fare better.
                recorder.refused = True
                say(f"run {recorder.run}: {self.server.url} refused its records ({refusal.message})")
                continue
            if recorder.journal.closed and shipment.watermark >= recorder.journal.sequence:
                shipment.clear()
                with self._changed:
                    recorder.delivered = True
                    del self._shipments[recorder]
                    self._changed.notify_all()


class Engine:
    """The recorders of this process and the threads that serve them."""

    def __init__(self) -> None:
        self.spool = _settings.usable_spool_folder()
        self.recorders: list[Recorder] = []
        self.samplers: list[Callable[[float], None]] = []
        # Closed ones whose delivery nobody has waited for yet.
        self._closed: list[Recorder] = []
        self.sender: Optional[Sender] = None
        self._agent_sends = _settings.agent_sends()
        self._looked_for_server = False
        self._wake = threading.Event()
        self._thread: Optional[threading.Thread] = None
        self._lock = threading.Lock()

    def after_fork(self) -> None:
        """In a forked child: no thread is left, and no connection may be shared."""
        self.sender = None
        self._looked_for_server = False
        self._wake = threading.Event()
        self._thread = None
        self._lock = threading.Lock()
        # The parent samples its own process; a child is often only a data loader.
        self.samplers = []
        self._closed = []

    def add(self, recorder: Recorder) -> None:
        """Serves a recorder from now on."""
        with self._lock:
            self.recorders.append(recorder)
        self.start()

    def remove(self, recorder: Recorder) -> None:
        """The recorder's journal is closed; what is undelivered is still sent."""
        with self._lock:
            if recorder in self.recorders:
                self.recorders.remove(recorder)
                self._closed.append(recorder)

    def wake(self) -> None:
        """Flush soon."""
        if self._thread is None:
            self.start()
        self._wake.set()

    def start(self) -> None:
        """Starts what is not running."""
        with self._lock:
            if not self._agent_sends and not self._looked_for_server:
                self._looked_for_server = True
                server = _settings.server()
                if server is None:
                    say(
                        f"no server configured; recording offline to {self.spool}; run `platform login`, then "
                        "`platform sync`",
                        once="unconfigured",
                    )
                else:
                    self.sender = Sender(server)
            if self._thread is None:
                thread = threading.Thread(target=self._loop, name="platform-flusher", daemon=True)
                try:
                    thread.start()
                    self._thread = thread
                except RuntimeError:
                    # The interpreter is ending: what is left is written at close.
                    pass

    def deliver(self, recorder: Recorder) -> None:
        """There may be new lines of this recorder to send."""
        if self.sender is not None and recorder.journal.sequence:
            self.sender.add(recorder)
            self.sender.wake()

    def _loop(self) -> None:
        while True:
            self._wake.wait(FLUSH_SECONDS)
            self._wake.clear()
            now = time.monotonic()
            for sampler in tuple(self.samplers):
                try:
                    sampler(now)
                except Exception as error:
                    self.samplers.remove(sampler)
                    say(f"system metrics stopped: {reason(error)}", once="sampler")
            for recorder in tuple(self.recorders):
                try:
                    before = recorder.journal.sequence
                    recorder.drain()
                    if recorder.journal.sequence != before:
                        self.deliver(recorder)
                except Exception as error:
                    say(f"run {recorder.run}: {type(error).__name__}: {error}", once=("drain", recorder.run))

    def wait_for_delivery(self, seconds: float) -> None:
        """Waits a bounded time for every closed journal to arrive, and says what did not."""
        with self._lock:
            closed, self._closed = self._closed, []
        if self._agent_sends:
            return
        end = time.monotonic() + seconds
        sender = self.sender
        for recorder in closed:
            left = recorder.journal.sequence
            if sender is not None and left:
                if not sender.wait(_arrived(recorder), end - time.monotonic()):
                    # What is known to be down is not waited for again.
                    end = 0.0
                left = sender.left(recorder)
            if left > 0:
                say(
                    f"run {recorder.run}: {left} records are kept in {recorder.journal.run_folder}; send them "
                    "with `python -m engineersofai_platform sync`"
                )

    def answer(self, recorder: Recorder, sequence: int) -> Optional[dict[str, Any]]:
        """What the store said to a record, once it is known."""
        if not self._agent_sends:
            return recorder.answers.get(sequence)
        import json

        try:
            with open(os.path.join(recorder.journal.folder, "results.ndjson"), encoding="utf-8") as file:
                for line in file:
                    if line.endswith("\n"):
                        result = json.loads(line)
                        if result.get("sequence") == sequence:
                            return dict(result)
        except (OSError, ValueError):
            pass
        return None

    def wait_for_answer(self, recorder: Recorder, sequence: int, seconds: float) -> Optional[dict[str, Any]]:
        """The answer to a record, or None when it did not come within the bound."""
        if self.sender is not None:
            self.deliver(recorder)
            self.sender.wait(lambda: recorder.refused or self.answer(recorder, sequence) is not None, seconds)
            return self.answer(recorder, sequence)
        if not self._agent_sends:
            return None
        end = time.monotonic() + seconds
        while True:
            found = self.answer(recorder, sequence)
            if found is not None or time.monotonic() >= end:
                return found
            time.sleep(0.02)


def _arrived(recorder: Recorder) -> Callable[[], bool]:
    return lambda: recorder.delivered or recorder.refused
