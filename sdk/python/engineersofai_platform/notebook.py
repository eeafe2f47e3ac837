"""Runs a notebook as it is: `python -m engineersofai_platform.notebook train.ipynb`.

Outputs of the cells are printed while they come, the executed notebook is written beside the given
one, and inside a platform run it becomes an artifact of that run. This process records with a writer
of its own and neither opens nor closes the run: that is for the code in the kernel.
"""

from __future__ import annotations

import importlib
import os
import re
import sys
import tempfile
import time

from . import _settings
from ._errors import reason, say

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Optional

# The path of a socket ends at some 100 bytes.
LONGEST_SOCKET_FOLDER = 80


def main(arguments: Optional[list[str]] = None) -> int:
    """Executes one notebook; an exit code."""
    import argparse

    parser = argparse.ArgumentParser(prog="python -m engineersofai_platform.notebook")
    parser.add_argument("notebook", help="path of the .ipynb file")
    parser.add_argument("--kernel", help="kernel to use (default: the one the notebook names, else python3)")
    given = parser.parse_args(arguments)
    path: str = given.notebook
    if not os.path.isfile(path):
        say(f"no notebook {path!r} in {os.getcwd()}")
        return 2
    try:
        import nbclient  # noqa: F401

        files = importlib.import_module("nbformat")
    except ImportError as error:
        say(f"running notebooks needs {error.name}; pip install nbclient ipykernel")
        return 1
    try:
        notebook = files.read(path, as_version=4)
    except Exception as error:  # nbformat raises many kinds for a file that is no notebook
        say(f"{path!r} is not a notebook: {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}")
        return 2
    code = _execute(notebook, path, given.kernel)
    executed = os.path.splitext(path)[0] + ".executed.ipynb"
    try:
        files.write(notebook, executed)
    except OSError as error:
        say(f"cannot write {executed} ({reason(error)})")
        return 1
    print(f"executed notebook: {executed}", flush=True)
    record(executed)
    return code


def _execute(notebook: Any, path: str, kernel: Optional[str]) -> int:
    from jupyter_client.kernelspec import NoSuchKernel
    from nbclient.exceptions import CellExecutionError, DeadKernelError

    named = kernel or notebook.metadata.get("kernelspec", {}).get("name") or "python3"
    try:
        with tempfile.TemporaryDirectory(prefix="nb-") as sockets:
            try:
                _client(notebook, path, named, sockets).execute()
            except NoSuchKernel:
                if kernel is not None or named == "python3":
                    raise
                # Notebooks carry the kernel name of the laptop they were written on.
                say(f"kernel {named!r} is not installed here; using python3")
                _client(notebook, path, "python3", sockets).execute()
    except CellExecutionError as error:
        sys.stdout.flush()
        text = str(error).rstrip() + "\n"
        # Colours are for people at a terminal; a log is searched.
        sys.stderr.write(text if sys.stderr.isatty() else re.sub(r"\x1b\[[0-9;]*m", "", text))
        return 1
    except DeadKernelError:
        say("the kernel died while a cell ran; the usual cause is memory")
        return 1
    except NoSuchKernel:
        say(f"kernel {named!r} is not installed; pip install ipykernel")
        return 1
    return 0


def _client(notebook: Any, path: str, kernel: str, sockets: str) -> Any:
    from nbclient import NotebookClient

    total = sum(1 for cell in notebook.cells if cell.cell_type == "code" and cell.source.strip())
    done = 0
    started = 0.0

    def on_start(cell: Any, cell_index: int) -> None:
        nonlocal started
        if cell.cell_type == "code" and cell.source.strip():
            started = time.monotonic()
            first = cell.source.strip().splitlines()[0]
            print(f"[{done + 1}/{total}] {first[:100]}", flush=True)

    def on_executed(cell: Any, cell_index: int, execute_reply: Any) -> None:
        nonlocal done
        done += 1
        failed = execute_reply.get("content", {}).get("status") == "error"
        took = time.monotonic() - started
        print(f"[{done}/{total}] {'failed' if failed else 'done'} in {took:.1f} s", flush=True)

    class Streaming(NotebookClient):  # type: ignore[misc, unused-ignore]
        """Prints what cells print, when they print it."""

        def process_message(self, message: Any, cell: Any, cell_index: int) -> Any:
            kind, content = message["msg_type"], message.get("content", {})
            if kind == "stream":
                out = sys.stderr if content.get("name") == "stderr" else sys.stdout
                out.write(content.get("text", ""))
                out.flush()
            elif kind in ("execute_result", "display_data"):
                text = content.get("data", {}).get("text/plain")
                if text:
                    print(text, flush=True)
            return super().process_message(message, cell, cell_index)

    streaming = Streaming(
        notebook,
        timeout=None,
        kernel_name=kernel,
        resources={"metadata": {"path": os.path.dirname(os.path.abspath(path))}},
        on_cell_execute=on_start,
        on_cell_executed=on_executed,
    )
    if os.name == "posix" and len(sockets) <= LONGEST_SOCKET_FOLDER:
        # Sockets in a folder of our own: other users of the node cannot listen in, as they could on TCP.
        kernel_process = streaming.create_kernel_manager()
        kernel_process.transport = "ipc"
        kernel_process.ip = os.path.join(sockets, "kernel")
    return streaming


def record(path: str) -> None:
    """Keeps a file as an artifact of the platform run this process belongs to, if it does."""
    run = _settings.platform_run()
    if run is None:
        return
    from ._engine import Engine
    from ._journal import store_file
    from ._recorder import Recorder

    engine = Engine()
    recorder = Recorder(engine.spool, _settings.check_run(run), engine.wake)
    try:
        address, size = store_file(recorder.journal.files_folder, path)
    except OSError as error:
        say(f"cannot keep {path} as an artifact ({reason(error)})")
        return
    engine.add(recorder)
    name = re.sub(r"^.*/", "", path.replace(os.sep, "/"))
    recorder.record_now("artifact", path=name, sha256=address, size_bytes=size)
    recorder.finish()
    engine.remove(recorder)
    engine.deliver(recorder)
    engine.wait_for_delivery(_settings.drain_seconds())


if __name__ == "__main__":
    sys.exit(main())
