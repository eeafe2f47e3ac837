"""A home, a store and a way to run scripts as a user would: each in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap

import pytest
from store import TOKEN, Store

import engineersofai_platform

PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(engineersofai_platform.__file__)))


class Script:
    """Starts Python code with the environment of a user, and no other platform variables."""

    def __init__(self, folder):
        self.folder = folder
        self.spool = folder / "home" / "spool"

    def environment(self, **variables):
        kept = {key: value for key, value in os.environ.items() if not key.startswith("PLATFORM_")}
        kept.update(
            PLATFORM_HOME=str(self.folder / "home"),
            PLATFORM_SYSTEM_METRICS="off",
            PYTHONPATH=PACKAGE,
            PYTHONWARNINGS="ignore::DeprecationWarning",
        )
        kept.update({key: str(value) for key, value in variables.items()})
        return kept

    def start(self, code, **variables):
        path = self.folder / "script.py"
        path.write_text("import engineersofai_platform as platform\n" + textwrap.dedent(code))
        return subprocess.Popen(
            [sys.executable, str(path)],
            cwd=self.folder,
            env=self.environment(**variables),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def __call__(self, code, fails=False, **variables):
        process = self.start(code, **variables)
        out, err = process.communicate(timeout=60)
        assert (process.returncode != 0) == fails, err
        return out, err

    def module(self, *arguments, **variables):
        return subprocess.run(
            [sys.executable, "-m", *arguments],
            cwd=self.folder,
            env=self.environment(**variables),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            timeout=120,
        )

    def sync(self, store):
        return self.module("engineersofai_platform", "sync", PLATFORM_URL=store.url, PLATFORM_TOKEN=TOKEN)

    def leftovers(self):
        return sorted(str(path.relative_to(self.spool)) for path in self.spool.rglob("*") if path.is_file())


@pytest.fixture
def script(tmp_path):
    return Script(tmp_path)


@pytest.fixture
def store():
    store = Store()
    yield store
    store.close()


@pytest.fixture
def online(store):
    return {"PLATFORM_URL": store.url, "PLATFORM_TOKEN": TOKEN}
