"""What a run of a sweep knows of its parameters, and what cannot be swept."""

from __future__ import annotations

import json

SWEPT = '{"depth": 3, "kind": "svm", "lr": 0.01}'


def test_a_run_of_a_sweep_reads_its_parameters_and_others_have_none(script):
    code = "print(platform.sweep_parameters())"
    assert script(code)[0] == "{}\n"
    assert script(code, PLATFORM_SWEEP="no json")[0] == "{}\n"
    assert script(code, PLATFORM_SWEEP="[1]")[0] == "{}\n"
    assert script(code, PLATFORM_SWEEP=SWEPT)[0] == f"{json.loads(SWEPT)}\n"


def test_the_parameters_of_a_sweep_are_kept_with_the_run_and_the_scripts_own_win(script, store, online):
    code = """
        with platform.training_run(name="swept", params={"lr": 0.5, "width": 8}):
            pass
        with platform.training_run(name="nested"):
            pass
        """
    script(code, **online, PLATFORM_SWEEP=SWEPT, PLATFORM_RUN_ID="run-7")
    kept = [record["params"] for record in store.records(kind="params")]
    assert kept == [{"depth": 3, "kind": "svm", "lr": 0.01}, {"lr": 0.5, "width": 8}]


def test_what_cannot_be_swept_is_said_with_what_can(script):
    code = """
        import sys
        asked = [
            (["train.py"], {}),
            (["train.py"], {"lr": []}),
            (["train.py"], {"lr": ["a,b"]}),
            ("train.py", {"lr": [1]}),
            ([], {"lr": [1]}),
        ]
        for command, parameters in asked:
            try:
                platform.sweep(command, parameters)
            except platform.PlatformError as error:
                print(error)
        try:
            platform.sweep(["train.py"], {"lr": [1]}, seed=3)
        except platform.PlatformError as error:
            print(error)
        """
    told = script(code, PLATFORM_BINARY="/nowhere/platform")[0].splitlines()
    assert told == [
        'a sweep without parameters is one run; allowed is a mapping such as {"lr": [0.1, 0.01]}',
        "parameter 'lr' has no values; allowed is at least one",
        "value 'a,b' of parameter 'lr' cannot be swept; allowed is what is not empty and holds neither ',' nor '..'",
        "command 'train.py' is not a list of words; allowed is one such as [\"train.py\", \"--fast\"]",
        'command [] is not a list of words; allowed is one such as ["train.py", "--fast"]',
        "a grid draws nothing, so a seed has no use; allowed with samples=N",
    ]
