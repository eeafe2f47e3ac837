"""What a training script can do with a run, and what happens when it goes wrong."""

from __future__ import annotations

import shutil
import subprocess
import textwrap
import time

import pytest

SNIPPET = """
import engineersofai_platform as platform

with platform.training_run(
    name="bert-finetuning",
    tags={"team": "nlp", "project": "document-classifier"},
) as run:
    model = train_bert(config)
    run.log_metrics({"val_accuracy": 0.91})
    run.register_model(model, "document-classifier")
"""


def test_the_snippet_of_the_readme_runs_verbatim(script, store, online):
    pytest.importorskip("sklearn")
    stand_in = """
        from sklearn.datasets import load_digits
        from sklearn.linear_model import LogisticRegression

        config = {"C": 0.1}

        def train_bert(config):
            images, labels = load_digits(return_X_y=True)
            return LogisticRegression(max_iter=300, **config).fit(images[:500] / 16.0, labels[:500])
        """
    script(textwrap.dedent(stand_in) + SNIPPET, **online)
    (opened,) = store.records(kind="open")
    assert opened["name"] == "bert-finetuning"
    assert opened["tags"] == {"team": "nlp", "project": "document-classifier"}
    assert store.series() == {"val_accuracy": [(0, 0.91)]}
    assert store.models["document-classifier"][0]["version"] == 1
    assert store.records(kind="close")[0]["status"] == "finished"


def test_an_exception_fails_the_run_with_its_traceback_and_goes_on(script, store, online):
    _, err = script(
        """
        def train():
            raise ValueError("the loss exploded")

        with platform.training_run() as run:
            run.log_metrics({"loss": 1.0})
            train()
        """,
        fails=True,
        **online,
    )
    (close,) = store.records(kind="close")
    assert close["status"] == "failed"
    assert "in train" in close["error"] and "ValueError: the loss exploded" in close["error"]
    assert "ValueError: the loss exploded" in err


@pytest.mark.parametrize(
    ("end", "status", "fails"),
    [
        ("raise KeyboardInterrupt", "failed", True),
        ("raise SystemExit(0)", "finished", False),
        ("raise SystemExit(3)", "failed", True),
    ],
)
def test_interrupts_and_exits_end_the_run_by_what_they_mean(script, store, online, end, status, fails):
    script(f"with platform.training_run():\n    {end}\n", fails=fails, **online)
    assert store.records(kind="close")[0]["status"] == status


def test_a_run_without_a_block_is_closed_at_the_end_of_the_process(script, store, online):
    script("platform.training_run().log_metrics({'loss': 1.0})", **online)
    assert store.series() == {"loss": [(0, 1.0)]}
    assert store.records(kind="close")[0]["status"] == "finished"


def test_a_run_without_a_block_fails_when_the_script_does(script, store, online):
    script("run = platform.training_run()\nraise ValueError('late')", fails=True, **online)
    (close,) = store.records(kind="close")
    assert close["status"] == "failed" and "ValueError: late" in close["error"]


def test_nested_runs_know_their_parent(script, store, online):
    script(
        """
        with platform.training_run("outer") as outer:
            with platform.training_run("inner", nested=True) as inner:
                assert platform.current_run() is inner
                inner.log_metrics({"loss": 1.0})
            assert platform.current_run() is outer
        with platform.training_run("next"):
            pass
        assert platform.current_run() is None
        """,
        **online,
    )
    opened = {record["name"]: record for record in store.records(kind="open")}
    outer = next(run for run in store.runs() if store.records(run, "open")[0]["name"] == "outer")
    assert opened["inner"]["parent"] == outer
    assert opened["outer"]["parent"] is None and opened["next"]["parent"] is None


def test_inside_a_platform_run_the_first_attaches_and_others_are_children(script, store, online):
    script(
        """
        with platform.training_run() as first:
            with platform.training_run(nested=True) as second:
                pass
        with platform.training_run() as third:
            pass
        print(first.id, second.id, third.id)
        """,
        PLATFORM_RUN_ID="run-17",
        PLATFORM_RUN_NAME="from-the-platform",
        PLATFORM_TAGS='{"team": "nlp"}',
        **online,
    )
    runs = store.runs()
    assert runs[0] == "run-17" and all(run.startswith("run-17.") and len(run) == 15 for run in runs[1:])
    assert len(runs) == 3
    assert store.records("run-17", "open")[0]["name"] == "from-the-platform"
    assert all(record["tags"] == {"team": "nlp"} for record in store.records(kind="open"))
    assert [store.records(run, "open")[0]["parent"] for run in runs[1:]] == ["run-17", "run-17"]


def test_resume_goes_on_with_the_run_and_its_steps(script, store, online):
    out, _ = script(
        """
        with platform.training_run("first") as run:
            run.log_metrics({"loss": 3.0})
            run.log_metrics({"loss": 2.0})
        print(run.id)
        """,
        **online,
    )
    script(
        f"with platform.training_run(resume={out.strip()!r}) as run:\n    run.log_metrics({{'loss': 1.0}})", **online
    )
    assert store.runs() == [out.strip()]
    assert store.series()["loss"] == [(0, 3.0), (1, 2.0), (2, 1.0)]


@pytest.mark.parametrize("run", ["../escape", "run-", "local-short", "run-1/../2"])
def test_an_id_that_is_none_is_refused(script, run):
    _, err = script(f"platform.training_run(resume={run!r})", fails=True)
    assert "is not a run id" in err


def test_bad_values_are_skipped_and_said_once_and_training_goes_on(script, store, online):
    _, err = script(
        """
        class Strange:
            def __float__(self):
                raise RuntimeError("freed")
        with platform.training_run() as run:
            for _ in range(3):
                run.log_metrics({"text": "high", "none": None, "list": [1, 2], "strange": Strange(), "good": 1})
            run.log_metrics("not a mapping")
            run.log_metrics(None)
            run.log_metrics({"huge": 10 ** 400})
            run.log_metrics({"good": 2}, step="seven")
            run.log_metrics({"good": 3}, step=7.0)
            run.log_metrics({3: True})
            run.log_metrics({"": 1.0, "line\\nbreak": 1.0, "long" * 100: 1.0})
            run.log_metrics({})
            run.log_progress("a", None)
            run.log_params(7)
            run.set_tags(7)
        run.log_metrics({"late": 1.0})
        """,
        **online,
    )
    odd = {"?": [(0, 1.0)], "line?break": [(0, 1.0)], ("long" * 100)[:250]: [(0, 1.0)]}
    assert store.series() == {"good": [(0, 1.0), (1, 1.0), (2, 1.0), (3, 2.0), (7, 3.0)], "3": [(0, 1.0)], **odd}
    for key in ("text", "none", "list", "strange", "huge"):
        assert err.count(f"metric '{key}' skipped") == 1
    assert err.count("is closed") == 1


def test_nan_and_infinities_are_kept(script, store, online):
    script(
        """
        with platform.training_run() as run:
            run.log_metrics({"loss": float("nan"), "up": float("inf"), "down": -float("inf")})
            run.log_params({"weight": float("nan")})
        """,
        **online,
    )
    assert store.series() == {"loss": [(0, "NaN")], "up": [(0, "Infinity")], "down": [(0, "-Infinity")]}
    assert store.records(kind="params")[0]["params"] == {"weight": "nan"}


def test_a_dictionary_that_is_changed_after_logging_is_logged_as_it_was(script, store, online):
    script(
        """
        with platform.training_run() as run:
            metrics = {}
            for number in range(5):
                metrics["loss"] = float(number)
                run.log_metrics(metrics)
        """,
        **online,
    )
    assert [value for _, value in store.series()["loss"]] == [0.0, 1.0, 2.0, 3.0, 4.0]


def test_numpy_scalars_are_numbers(script, store, online):
    pytest.importorskip("numpy")
    script(
        """
        import numpy
        with platform.training_run() as run:
            run.log_metrics({"a": numpy.float32(0.5), "b": numpy.int64(3), "c": numpy.array(2.0)}, step=numpy.int64(9))
            run.log_params({"rate": numpy.float64(0.25), "layers": numpy.int32(4), "shape": (1, 2)})
        """,
        **online,
    )
    assert store.series() == {"a": [(9, 0.5)], "b": [(9, 3.0)], "c": [(9, 2.0)]}
    assert store.records(kind="params")[0]["params"] == {"rate": 0.25, "layers": 4, "shape": "(1, 2)"}


def test_params_tags_and_progress_are_recorded(script, store, online):
    script(
        """
        with platform.training_run(params={"lr": 0.1}, tags={"team": "nlp"}) as run:
            run.log_params({"layers": 3, "name": "b\\udc80d", "none": None, "path": __import__("pathlib").Path("a/b")})
            run.set_tags({"stage": "final"})
            for done in range(1000):
                run.log_progress(done + 1, 1000)
        """,
        **online,
    )
    first, second = store.records(kind="params")
    assert first["params"] == {"lr": 0.1}
    assert second["params"] == {"layers": 3, "name": "b?d", "none": None, "path": "a/b"}
    assert store.records(kind="tags")[0]["tags"] == {"stage": "final"}
    progress = store.records(kind="progress")
    assert (progress[-1]["done"], progress[-1]["total"]) == (1000, 1000) and len(progress) < 20


def test_a_checkpoint_says_when_all_was_saved_and_keeps_the_file_when_told_which(script, store, online):
    before_us = time.time_ns() // 1000
    script(
        """
        open("weights.bin", "w").write("0.5")
        with platform.training_run() as run:
            run.log_checkpoint(step=41)
            run.log_checkpoint("weights.bin", step=42)
            run.log_checkpoint()
        run.log_checkpoint()
        """,
        **online,
    )
    checkpoints = store.records(kind="checkpoint")
    assert [record["step"] for record in checkpoints] == [41, 42, None]
    assert before_us <= checkpoints[0]["at_us"] <= checkpoints[2]["at_us"] <= time.time_ns() // 1000
    (weights,) = store.records(kind="artifact")
    assert (weights["path"], store.blobs[weights["sha256"]]) == ("weights.bin", b"0.5")


def test_artifacts_are_kept_as_they_were_when_logged(script, store, online):
    script(
        """
        import os
        os.makedirs("plots/deep")
        open("plots/loss.txt", "w").write("first")
        open("plots/deep/acc.txt", "w").write("acc")
        with platform.training_run() as run:
            run.log_artifact("plots/loss.txt")
            open("plots/loss.txt", "w").write("second")
            run.log_artifact("plots")
            run.log_artifact("plots/loss.txt", "named/loss.txt")
        """,
        **online,
    )
    found = [(record["path"], store.blobs[record["sha256"]]) for record in store.records(kind="artifact")]
    assert found == [
        ("loss.txt", b"first"),
        ("plots/deep/acc.txt", b"acc"),
        ("plots/loss.txt", b"second"),
        ("named/loss.txt", b"second"),
    ]
    assert script.leftovers() == []


@pytest.mark.parametrize("name", ["../up", "/root", "a/../../b", ""])
def test_an_artifact_name_that_leaves_the_folder_is_refused(script, name):
    _, err = script(f"platform.training_run().log_artifact(__file__, {name!r})", fails=True)
    assert "leaves the folder" in err


def test_a_missing_artifact_names_the_path(script):
    _, err = script("platform.training_run().log_artifact('nothing.txt')", fails=True)
    assert "no file or folder 'nothing.txt'" in err


def test_system_metrics_are_logged_by_default(script, store, online):
    script(
        """
        import time
        with platform.training_run(system_metrics_seconds=0.2) as run:
            while run._recorder.journal.sequence < 3:
                time.sleep(0.05)
        """,
        **online,
    )
    series = store.series(system=True)
    assert series["system/memory_mib"][0][1] > 1 and "system/cpu_percent" in series


def test_simulated_devices_have_no_readings(script, store, online):
    script(
        """
        from engineersofai_platform._system import Devices
        devices = Devices()
        assert devices._handles == [] and devices.sample("system/") == {}
        """,
        PLATFORM_DEVICES='[{"id": "sim-0", "index": 0, "simulated": true}]',
    )


NVML = """
#include <string.h>
int nvmlInit_v2(void) { return 0; }
int nvmlDeviceGetHandleByUUID(const char *uuid, void **device) {
    if (strcmp(uuid, "GPU-real")) return 6;
    *device = (void *)7;
    return 0;
}
int nvmlDeviceGetUtilizationRates(void *device, unsigned *rates) { rates[0] = 83; rates[1] = 4; return device != (void *)7; }
int nvmlDeviceGetMemoryInfo(void *device, unsigned long long *memory) {
    memory[0] = 80ull << 30; memory[1] = 50ull << 30; memory[2] = 30ull << 30;
    return device != (void *)7;
}
"""


def test_real_devices_are_read_from_the_driver_library(script):
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("no C compiler for a stand-in of the driver library")
    (script.folder / "nvml.c").write_text(NVML)
    library = script.folder / "libnvidia-ml.so.1"
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, script.folder / "nvml.c"], check=True)
    out, _ = script(
        """
        from engineersofai_platform._system import Devices
        print(sorted(Devices().sample("system/").items()))
        """,
        LD_LIBRARY_PATH=script.folder,
        PLATFORM_DEVICES='[{"id": "sim-0", "simulated": true}, {"id": "GPU-real", "simulated": false}]',
    )
    assert out.strip() == "[('system/gpu0_memory_mib', 30720.0), ('system/gpu0_utilization_percent', 83.0)]"


def test_a_clock_that_jumps_back_keeps_order_and_steps(script, store, online):
    script(
        """
        from engineersofai_platform import _runs
        times = iter(range(10**18, 0, -10**15))
        with platform.training_run() as run:
            _runs._now_ns = lambda: next(times)
            for number in range(10):
                run.log_metrics({"number": number})
        """,
        **online,
    )
    assert store.series()["number"] == [(number, float(number)) for number in range(10)]
