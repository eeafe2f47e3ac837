"""What every script pays for: import time, names, types, and the notebook runner."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from conftest import PACKAGE


def test_the_standard_platform_module_is_never_shadowed(script):
    out, _ = script(
        "import sys; sys.modules.pop('platform', None)\nimport platform as standard; print(standard.python_version())"
    )
    assert out.strip() == ".".join(map(str, sys.version_info[:3]))


def test_import_loads_nothing_heavy_and_stays_below_40_ms(script):
    heavy = [
        "json",
        "ssl",
        "socket",
        "http.client",
        "urllib.request",
        "hashlib",
        "typing",
        "ctypes",
        "logging",
        "argparse",
    ]
    code = (
        "import sys, time\n"
        "before = set(sys.modules)\n"
        "start = time.perf_counter()\n"
        "import engineersofai_platform\n"
        "took = time.perf_counter() - start\n"
        f"print(took * 1000, *[name for name in {heavy!r} if name in set(sys.modules) - before])\n"
    )
    path = script.folder / "measure.py"
    path.write_text(code)
    lines = []
    for _ in range(5):
        shown = subprocess.run([sys.executable, str(path)], env=script.environment(), stdout=subprocess.PIPE, text=True)
        lines.append(shown.stdout.split())
    assert min(float(line[0]) for line in lines) < 40
    assert lines[0][1:] == []


def test_log_metrics_costs_little(script):
    bench = os.path.join(os.path.dirname(__file__), "..", "benches", "log_metrics_cost.py")
    shown = subprocess.run([sys.executable, bench], env=script.environment(), stdout=subprocess.PIPE, text=True)
    # The aim is 2 µs; a shared test machine gets room before this fails.
    assert json.loads(shown.stdout)["value"] < 6.0


def test_the_public_interface_passes_a_strict_type_check(tmp_path):
    pytest.importorskip("mypy", reason="mypy is not installed")
    script = tmp_path / "user.py"
    script.write_text(
        "import engineersofai_platform as platform\n"
        "with platform.training_run(name='x', tags={'team': 'nlp'}) as run:\n"
        "    run.log_metrics({'loss': 0.1}, step=3)\n"
        "    version: platform.ModelVersion = run.register_model(object(), 'm')\n"
        "    number: int | None = version.version\n"
        "@platform.model\n"
        "class Mine:\n"
        "    pass\n"
        "mine: Mine = Mine()\n"
    )
    command = [sys.executable, "-m", "mypy", "--strict", "--cache-dir", str(tmp_path / "cache")]
    source = os.path.join(PACKAGE, "engineersofai_platform")
    environment = {**os.environ, "MYPYPATH": PACKAGE}
    for arguments in (["--python-version", "3.10", str(script)], [source]):
        result = subprocess.run(command + arguments, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True)
        assert result.returncode == 0, result.stdout


def notebook(folder, *sources, kernel="python3"):
    cells = [
        {
            "cell_type": "code",
            "execution_count": None,
            "id": f"c{place}",
            "metadata": {},
            "outputs": [],
            "source": source,
        }
        for place, source in enumerate(sources)
    ]
    metadata = {"kernelspec": {"name": kernel, "display_name": "Python", "language": "python"}}
    path = folder / "train.ipynb"
    path.write_text(json.dumps({"cells": cells, "metadata": metadata, "nbformat": 4, "nbformat_minor": 5}))
    return path


PLATFORM = {"PLATFORM_RUN_ID": "run-5", "PLATFORM_SENDER": "agent"}


def journal(spool):
    return [json.loads(line) for path in spool.glob("run-5/w-*/0*.ndjson") for line in path.read_text().splitlines()]


def test_a_notebook_runs_as_it_is_and_is_kept(script):
    pytest.importorskip("nbclient", reason="nbclient is not installed")
    pytest.importorskip("ipykernel", reason="ipykernel is not installed")
    notebook(
        script.folder,
        "import engineersofai_platform as platform\nrun = platform.training_run()\nprint('hello', run.id)",
        "run.log_metrics({'loss': 1.0})\n6 * 7",
        kernel="a-kernel-of-some-laptop",
    )
    spool = script.folder / "spool"
    result = script.module("engineersofai_platform.notebook", "train.ipynb", PLATFORM_SPOOL=spool, **PLATFORM)
    assert result.returncode == 0, result.stderr
    for told in ("[1/2] import", "hello run-5", "[2/2] done", "42", "train.executed.ipynb"):
        assert told in result.stdout
    executed = json.loads((script.folder / "train.executed.ipynb").read_text())
    assert executed["cells"][1]["outputs"][0]["data"]["text/plain"] == ["42"]
    kinds = sorted(record["k"] for record in journal(spool))
    assert kinds == ["artifact", "close", "open", "points"]
    assert len(list(spool.glob("run-5/w-*/closed"))) == 2


def test_a_notebook_whose_cell_fails_is_kept_and_fails(script):
    pytest.importorskip("nbclient", reason="nbclient is not installed")
    pytest.importorskip("ipykernel", reason="ipykernel is not installed")
    notebook(script.folder, "print('before')", "raise ValueError('exploded')", "print('never')")
    spool = script.folder / "spool"
    result = script.module("engineersofai_platform.notebook", "train.ipynb", PLATFORM_SPOOL=spool, **PLATFORM)
    assert result.returncode == 1 and "ValueError: exploded" in result.stderr
    assert "never" not in result.stdout
    assert (script.folder / "train.executed.ipynb").exists()
    assert [record["path"] for record in journal(spool)] == ["train.executed.ipynb"]


def test_a_notebook_without_nbclient_says_what_to_install(script):
    notebook(script.folder, "1")
    code = "import sys; sys.modules['nbclient'] = None\nfrom engineersofai_platform.notebook import main\nsys.exit(main(['train.ipynb']))"
    _, err = script(code, fails=True)
    assert "pip install nbclient ipykernel" in err


def test_a_notebook_that_is_not_there_or_is_none_is_a_usage_error(script):
    assert script.module("engineersofai_platform.notebook", "gone.ipynb").returncode == 2
