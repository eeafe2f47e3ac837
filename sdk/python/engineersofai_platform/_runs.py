"""Runs as the training script sees them: opened, logged to, closed whatever happens.

Nothing here touches the network. The rule for every method that training calls often is that it
never raises and never waits; methods called once (artifacts, models) raise clear errors.
"""

from __future__ import annotations

import atexit
import os
import sys
import threading
import time

from . import _settings
from ._errors import PlatformError, say
from ._sweeps import sweep_parameters
from ._version import __version__

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType
    from typing import Any, Callable, Optional, TypeVar, Union

    from ._engine import Engine
    from ._recorder import Recorder

    T = TypeVar("T")

# How long register_model waits for the version number.
VERSION_SECONDS = 10.0
# A traceback is kept from its end, where the cause is.
TRACEBACK_CHARACTERS = 64 * 1024

_lock = threading.RLock()
_engine: Optional[Engine] = None
_open_runs: list[Run] = []
# The first run of a process inside a platform run is that run; later ones are its children.
_attached = False
_end_watched = False


class ModelVersion:
    """A registered model. `version` is None until the store has given the number."""

    def __init__(self, name: str, run_id: str, look: Callable[[float], Optional[dict[str, Any]]]) -> None:
        self.name = name
        self.run_id = run_id
        self._look = look
        self._version: Optional[int] = None

    def wait(self, seconds: float = VERSION_SECONDS) -> Optional[int]:
        """Waits for the number; None when it did not come in time."""
        if self._version is None:
            answer = self._look(seconds)
            if answer is not None:
                if answer.get("error"):
                    raise PlatformError(f"model {self.name!r} was not registered: {answer['error']}")
                version = answer.get("version")
                self._version = int(version) if version is not None else None
        return self._version

    @property
    def version(self) -> Optional[int]:
        """The version number, from 1."""
        return self.wait(0.0)

    def __repr__(self) -> str:
        return f"ModelVersion(name={self.name!r}, version={self._version or 'pending'})"


class Run:
    """One tracked run. Made by `training_run`; usable in a `with` block or until `close`."""

    def __init__(
        self,
        engine: Engine,
        identity: str,
        name: str,
        parent: Optional[str],
        system_metrics_seconds: float,
    ) -> None:
        from ._recorder import Recorder

        self.id = identity
        self.name = name
        self.parent = parent
        self._engine = engine
        self._recorder: Recorder = Recorder(engine.spool, identity, engine.wake)
        self._closed = False
        self._process = os.getpid()
        self._thread = threading.get_ident()
        self._last_error = getattr(sys, "last_value", None)
        self._sample_seconds = system_metrics_seconds
        self._next_sample = 0.0
        self._system: Any = None
        self._artifacts_waiting: list[tuple[str, str]] = []

    # Metrics: the one path that must cost next to nothing.

    def log_metrics(self, metrics: Mapping[str, Any], step: Optional[int] = None) -> None:
        """Logs numbers at a step; without one, each key counts its own steps from 0.

        Returns at once and never raises: what is not a number is skipped and said once.
        """
        try:
            for value in metrics.values():
                if value.__class__ is not float:
                    numbers = _clean_metrics(metrics)
                    break
            else:
                numbers = dict(metrics)
            if step is not None and step.__class__ is not int:
                step = _clean_step(step)
            if self._closed:
                self._say_closed()
                return
            recorder = self._recorder
            buffer = recorder.buffer
            buffer.append((_now_ns(), step, numbers))
            if len(buffer) > recorder.wake_entries:
                recorder.pressed()
        except Exception as error:
            say(
                f"log_metrics skipped {type(metrics).__name__}: {error}; pass a mapping of names to numbers",
                once="log_metrics",
            )

    def log_metric(self, key: str, value: Any, step: Optional[int] = None) -> None:
        """Logs one number."""
        self.log_metrics({key: value}, step)

    def log_progress(self, done: int, total: int) -> None:
        """Says how far the script is: `done` of `total`."""
        try:
            if not self._closed:
                self._recorder.record("progress", done=_count(done), total=_count(total))
        except Exception as error:
            say(f"log_progress skipped {done!r} of {total!r}: {error}", once="log_progress")

    def log_checkpoint(
        self, path: Optional[Union[str, os.PathLike[str]]] = None, step: Optional[int] = None
    ) -> None:
        """Says that all work until now is saved, and so what would be lost if the run were stopped.

        With `path` the file or folder is kept as an artifact too; a checkpoint that stays on a disk of
        your own needs none. Call it once the checkpoint is whole on disk. A run that must give way to
        another is chosen by what it would lose since then.
        """
        saved_us = _now_ns() // 1000
        if step is not None and step.__class__ is not int:
            step = _clean_step(step)
        if path is not None:
            self.log_artifact(path)
        self._record_now("checkpoint", at_us=saved_us, step=step)

    def log_params(self, params: Mapping[str, Any]) -> None:
        """Keeps parameters; values other than text, numbers, booleans and None are kept as text."""
        from ._recorder import batches, clean_key, clean_param

        try:
            cleaned = {clean_key(key): clean_param(value) for key, value in params.items()}
        except Exception as error:
            say(f"log_params skipped {type(params).__name__}: {error}; pass a mapping", once="log_params")
            return
        for part in batches(cleaned):
            self._record_now("params", params=part)

    def log_param(self, key: str, value: Any) -> None:
        """Keeps one parameter."""
        self.log_params({key: value})

    def set_tags(self, tags: Mapping[str, Any]) -> None:
        """Adds or changes tags."""
        from ._recorder import batches

        try:
            cleaned = _clean_tags(tags)
        except Exception as error:
            say(f"set_tags skipped {type(tags).__name__}: {error}; pass a mapping", once="set_tags")
            return
        for part in batches(cleaned):
            self._record_now("tags", tags=part)

    def log_artifact(self, path: Union[str, os.PathLike[str]], name: Optional[str] = None) -> None:
        """Keeps a file, or every file of a folder, as it is now.

        `name` is its path among the artifacts of the run; by default the last part of `path`.
        """
        from . import _artifacts

        if self._closed:
            self._say_closed()
            return
        for relative, file in _artifacts.files_of(path, name):
            if not self._keep_artifact(relative, file):
                # A full disk: the flusher tries again, and training goes on.
                self._artifacts_waiting.append((relative, file))

    def _keep_artifact(self, relative: str, file: str) -> bool:
        from ._errors import reason
        from ._journal import store_file

        try:
            address, size = store_file(self._recorder.journal.files_folder, file)
        except OSError as error:
            say(
                f"artifact {relative!r} waits: cannot copy {file} to {self._engine.spool} ({reason(error)}); "
                "free some space",
                once=("artifact", relative),
            )
            return False
        self._record_now("artifact", path=relative, sha256=address, size_bytes=size)
        return True

    def _retry_artifacts(self) -> None:
        waiting, self._artifacts_waiting = self._artifacts_waiting, []
        for relative, file in waiting:
            if not self._keep_artifact(relative, file):
                self._artifacts_waiting.append((relative, file))

    def register_model(
        self,
        model: Any,
        name: str,
        *,
        signature: Any = None,
        example: Any = None,
        framework: Optional[str] = None,
        tokenizer: Any = None,
        requirements: Optional[list[str]] = None,
        wait_seconds: float = VERSION_SECONDS,
    ) -> ModelVersion:
        """Saves the model in its framework's own format and registers it as the next version.

        `signature` describes inputs and outputs, and is read off `example` when not given. With
        `framework="pickle"`, or a class marked with `@platform.model`, any picklable object is taken.
        """
        from . import _models

        if self._closed:
            raise PlatformError(f"run {self.id} is closed; register models before the end of the run")
        saved = _models.save(
            model,
            name,
            self._recorder.journal.files_folder,
            run=self.id,
            signature=signature,
            example=example,
            framework=framework,
            tokenizer=tokenizer,
            requirements=requirements,
        )
        sequence = self._record_now(
            "model", name=name, framework=saved.framework, manifest=saved.manifest, files=saved.files
        )
        recorder, engine = self._recorder, self._engine

        def look(seconds: float) -> Optional[dict[str, Any]]:
            if sequence is None:
                return None
            if seconds <= 0:
                return engine.answer(recorder, sequence)
            return engine.wait_for_answer(recorder, sequence, seconds)

        registered = ModelVersion(name, self.id, look)
        if registered.wait(wait_seconds) is None:
            say(f"model {name!r} is saved; it gets its version when the records of run {self.id} arrive")
        return registered

    def _record_now(self, kind: str, **fields: object) -> Optional[int]:
        if self._closed:
            self._say_closed()
            return None
        sequence = self._recorder.record_now(kind, **fields)
        self._engine.deliver(self._recorder)
        return sequence

    def _say_closed(self) -> None:
        say(f"run {self.id} is closed; what is logged after its end is left out", once=("closed", self.id))

    # Life and end.

    def _open(
        self, tags: Mapping[str, Any], swept: Mapping[str, Any], params: Optional[Mapping[str, Any]]
    ) -> None:
        self._recorder.record_now(
            "open",
            name=self.name,
            tags=_clean_tags(tags),
            parent=self.parent,
            started_us=_now_ns() // 1000,
            context=_context(),
        )
        for given in (swept, params):
            if given:
                self.log_params(given)
        self._engine.add(self._recorder)
        self._engine.samplers.append(self._tick)
        self._engine.deliver(self._recorder)

    def _tick(self, now: float) -> None:
        """Called by the flusher: system metrics, and artifacts that the disk refused."""
        if self._artifacts_waiting:
            self._retry_artifacts()
        if self._sample_seconds <= 0:
            return
        if self._system is None:
            from ._system import FIRST_SAMPLE_SECONDS, System

            self._system = System()
            self._next_sample = now + min(FIRST_SAMPLE_SECONDS, self._sample_seconds)
        elif now >= self._next_sample and not self._closed:
            self._next_sample = now + self._sample_seconds
            self.log_metrics(self._system.sample())

    def _after_fork(self) -> None:
        self._recorder.after_fork()
        self._artifacts_waiting = []

    def close(self, status: str = "finished", error: Optional[str] = None) -> None:
        """Ends the run as `finished` or `failed`, and waits a bounded time for delivery."""
        if status not in ("finished", "failed"):
            raise PlatformError(f"{status!r} is not a status; allowed are finished and failed")
        with _lock:
            if self._closed:
                return
            if self._artifacts_waiting:
                self._retry_artifacts()
            for relative, file in self._artifacts_waiting:
                say(f"artifact {relative!r} is lost: {file} could not be copied to {self._engine.spool}")
            self._closed = True
            if self in _open_runs:
                _open_runs.remove(self)
        recorder, engine = self._recorder, self._engine
        if self._tick in engine.samplers:
            engine.samplers.remove(self._tick)
        if self._process == os.getpid():
            if error is not None and len(error) > TRACEBACK_CHARACTERS:
                error = "...\n" + error[-TRACEBACK_CHARACTERS:]
            recorder.record_now("close", status=status, error=error, ended_us=_now_ns() // 1000)
        recorder.finish()
        engine.remove(recorder)
        engine.deliver(recorder)
        # While another run of this process is open, delivery goes on behind its back.
        if not _open_runs:
            engine.wait_for_delivery(_settings.drain_seconds())

    def __enter__(self) -> Run:
        return self

    def __exit__(
        self,
        kind: Optional[type[BaseException]],
        error: Optional[BaseException],
        trace: Optional[TracebackType],
    ) -> None:
        if error is None or _is_a_good_end(error):
            self.close()
        else:
            self.close("failed", _traceback(error))

    def __repr__(self) -> str:
        return f"Run(id={self.id!r}, name={self.name!r}, {'closed' if self._closed else 'open'})"


def training_run(
    name: Optional[str] = None,
    *,
    tags: Optional[Mapping[str, Any]] = None,
    params: Optional[Mapping[str, Any]] = None,
    nested: bool = False,
    resume: Optional[str] = None,
    system_metrics_seconds: Optional[float] = None,
) -> Run:
    """Starts a run: in a `with` block, or until `close` or the end of the process.

    Inside `platform run` the first one is the platform's run and later ones are its children.
    Elsewhere it is a run of its own, or with `nested=True` a child of the open one. `resume` goes on
    with the run of that id.
    """
    global _attached
    for what, given in (("tags", tags), ("params", params)):
        if given is not None and not hasattr(given, "items"):
            raise PlatformError(f"{what}={given!r} is not a mapping; pass one such as {{'team': 'nlp'}}")
    with _lock:
        engine = _engine_of_this_process()
        inside = _settings.platform_run()
        if inside is not None:
            _settings.check_run(inside)
        parent: Optional[str] = None
        if resume is not None:
            identity = _settings.check_run(resume)
            if _settings.agent_sends() and identity.split(".")[0] != inside:
                raise PlatformError(
                    f"cannot resume {identity!r} inside platform run {inside!r}; allowed are {inside!r} and its "
                    "nested runs; resume other runs from a laptop or notebook"
                )
            if identity == inside:
                _attached = True
        elif inside is not None and not _attached:
            _attached = True
            identity = inside
        elif inside is not None:
            identity = f"{inside.split('.')[0]}.{os.urandom(4).hex()}"
            parent = _enclosing_run() or inside
        else:
            identity = _settings.new_local_run()
            parent = _enclosing_run() if nested else None
        own = identity == inside
        started = Run(
            engine,
            identity,
            str(name or (os.environ.get("PLATFORM_RUN_NAME") if own else None) or _script_name()),
            parent,
            # One run of a process samples it; the others would only repeat the same numbers.
            0.0 if _open_runs else _settings.system_metrics_seconds(system_metrics_seconds),
        )
        if resume is not None:
            _continue_steps(started)
        _open_runs.append(started)
    tags = {**(_settings.platform_tags() if inside is not None else {}), **(tags or {})}
    # What sets this run apart from the others of its sweep is always among what is compared.
    started._open(tags, sweep_parameters() if own else {}, params)
    return started


def current_run() -> Optional[Run]:
    """The run that was opened last and is still open; None without one."""
    with _lock:
        return _open_runs[-1] if _open_runs else None


def model(kind: T) -> T:
    """Marks a class, or an object, as a model that may be registered by pickling it."""
    kind.__engineersofai_platform_model__ = True  # type: ignore[attr-defined]
    return kind


def _enclosing_run() -> Optional[str]:
    here = threading.get_ident()
    for run in reversed(_open_runs):
        if run._thread == here:
            return run.id
    return _open_runs[-1].id if _open_runs else None


def _continue_steps(run: Run) -> None:
    """Lets default steps go on where the stored series end, when the server can be asked."""
    server = None if _settings.agent_sends() else _settings.server()
    if server is None:
        return
    from ._http import Client, Refused, Unreachable, quoted

    try:
        client = Client(server)
        view = client.expect("GET", f"/v1/tracking/{quoted(run.id)}")
        client.close()
        metrics = view.get("metrics")
        for key, latest in metrics.items() if isinstance(metrics, dict) else ():
            run._recorder.set_step(key, int(latest["step"]) + 1)
    except (Unreachable, Refused, KeyError, TypeError, ValueError):
        # Offline: steps start at 0 again, and the user may give `step=`.
        pass


def _script_name() -> str:
    argument = sys.argv[0] if sys.argv else ""
    if not argument or argument in ("-c", "-m") or "ipykernel" in argument:
        return "notebook" if "ipykernel" in sys.modules else "interactive"
    return os.path.splitext(os.path.basename(argument))[0] or "script"


def _context() -> dict[str, str]:
    context = {
        "script": sys.argv[0] if sys.argv else "",
        "python": ".".join(str(part) for part in sys.version_info[:3]),
        "sdk": __version__,
        "host": os.uname().nodename if hasattr(os, "uname") else os.environ.get("COMPUTERNAME", ""),
        "process": str(os.getpid()),
    }
    for key in ("PLATFORM_ATTEMPT", "PLATFORM_MEMBER"):
        if os.environ.get(key):
            context[key[9:].lower()] = os.environ[key]
    return context


def _is_a_good_end(error: BaseException) -> bool:
    if isinstance(error, SystemExit):
        return error.code in (None, 0)
    return isinstance(error, GeneratorExit)


def _traceback(error: BaseException) -> str:
    import traceback

    return "".join(traceback.format_exception(type(error), error, error.__traceback__))


def _engine_of_this_process() -> Engine:
    global _engine
    if _engine is None:
        from ._engine import Engine

        _engine = Engine()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=_after_fork)
        _watch_the_end()
    return _engine


def _watch_the_end() -> None:
    """Closes what is open when this process ends."""
    global _end_watched
    if not _end_watched:
        atexit.register(_at_end)
        _end_watched = True
    processes = sys.modules.get("multiprocessing.process")
    if processes is not None and processes.parent_process() is not None:
        # A child of multiprocessing ends without atexit, but runs these.
        from multiprocessing.util import Finalize

        Finalize(None, _at_end, exitpriority=100)


def _after_fork() -> None:
    global _lock
    _lock = threading.RLock()
    if _engine is not None:
        _engine.after_fork()
        wake = _engine.wake

        def first_record() -> None:
            _watch_the_end()
            wake()

        for run in _open_runs:
            run._after_fork()
            run._recorder.wake_with(first_record)


def _at_end() -> None:
    """Closes what the script left open, as failed when it ended by an error nobody caught."""
    for run in reversed(list(_open_runs)):
        error = getattr(sys, "last_value", None)
        # An interactive shell keeps the last error of any cell: that says nothing about the run.
        if error is None or error is run._last_error or "IPython" in sys.modules or _is_a_good_end(error):
            run.close()
        else:
            run.close("failed", _traceback(error))


def _clean_metrics(metrics: Mapping[Any, Any]) -> dict[str, float]:
    from ._recorder import clean_metrics

    return clean_metrics(metrics)


def _clean_tags(tags: Mapping[Any, Any]) -> dict[str, str]:
    from ._recorder import clean_key, clean_text

    return {clean_key(key): clean_text(str(value)) for key, value in tags.items()}


def _clean_step(step: Any) -> Optional[int]:
    from ._recorder import clean_step

    cleaned = clean_step(step)
    if cleaned is None:
        say(f"step {step!r} is not a whole number; counting steps by key instead", once="step")
    return cleaned


_now_ns = time.time_ns


def _count(number: Any) -> int:
    return min(max(0, int(number)), 2**63 - 1)
