"""Sweeps: many runs of one command, each with parameters of its own.

A run of a sweep reads its parameters from its environment; a script or a notebook starts a sweep with
the `platform` program, which packs the folder and submits as it does from a shell.
"""

from __future__ import annotations

import os

from ._errors import PlatformError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from typing import Any, Optional, Union


def sweep_parameters() -> dict[str, Any]:
    """The parameters of this run of a sweep, by name; empty outside a sweep."""
    text = os.environ.get("PLATFORM_SWEEP")
    if not text:
        return {}
    import json

    try:
        parameters = json.loads(text)
    except ValueError:
        return {}
    return parameters if isinstance(parameters, dict) else {}


def sweep(
    command: Sequence[str],
    parameters: Mapping[str, Union[str, Iterable[Any]]],
    *,
    samples: Optional[int] = None,
    seed: Optional[int] = None,
    at_most: Optional[int] = None,
    priority: Union[int, str, None] = None,
    tags: Optional[Mapping[str, str]] = None,
    folder: Union[str, os.PathLike[str]] = ".",
    options: Sequence[str] = (),
) -> str:
    """Starts a run for each combination of parameters, and gives the id of the array they form.

        platform.sweep(["train.py", "--lr", "{lr}"], {"lr": [0.1, 0.01], "depth": range(2, 7)}, at_most=4)

    A parameter is a list of values, or text as `platform run --sweep` takes it: `"2..6"`, or with
    `samples` also `"0.0001..0.1:log"`. With `samples` so many are drawn, the same ones for the same
    `seed`; `at_most` run at once. `priority` is a class of the policy, such as `"high"`, or a number.
    `options` are further flags of `platform run`. Raises PlatformError with what the platform said when
    it refused.
    """
    import json
    import subprocess

    arguments = [_program(), "run", "--detach", "--json", "--folder", os.fspath(folder)]
    if not parameters:
        raise PlatformError('a sweep without parameters is one run; allowed is a mapping such as {"lr": [0.1, 0.01]}')
    for name, values in parameters.items():
        arguments += ["--sweep", f"{name}={_values(name, values)}"]
    if samples is not None:
        arguments += ["--sweep-mode", "random", "--samples", str(samples)]
        if seed is not None:
            arguments += ["--seed", str(seed)]
    elif seed is not None:
        raise PlatformError("a grid draws nothing, so a seed has no use; allowed with samples=N")
    if priority is not None:
        arguments += ["--priority", str(priority)]
    if at_most is not None:
        arguments += ["--at-most", str(at_most)]
    for key, value in (tags or {}).items():
        arguments += ["--tag", f"{key}={value}"]
    arguments += [*options, "--", *command] if _is_program(command) else [*options, *command]
    ended = subprocess.run(arguments, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    try:
        answer = json.loads(ended.stdout)
        return str(answer["array"]["id"])
    except (ValueError, KeyError, TypeError):
        raise PlatformError(f"the sweep was not started: {ended.stderr.strip()}") from None


def _is_program(command: Sequence[str]) -> bool:
    """Whether the first word is a program rather than a script or notebook of the folder."""
    if isinstance(command, str) or not command:
        raise PlatformError(f'command {command!r} is not a list of words; allowed is one such as ["train.py", "--fast"]')
    return not command[0].endswith((".py", ".ipynb"))


def _program() -> str:
    import shutil

    found = os.environ.get("PLATFORM_BINARY") or shutil.which("platform")
    if not found:
        raise PlatformError(
            "the program `platform` is not on PATH, and a sweep is submitted with it; "
            "set PLATFORM_BINARY to where it is"
        )
    return found


def _values(name: str, values: Union[str, Iterable[Any]]) -> str:
    if isinstance(values, str):
        return values
    texts = []
    for value in values:
        if isinstance(value, bool):
            text = "true" if value else "false"
        else:
            text = str(value)
        if not text or "," in text or ".." in text:
            raise PlatformError(
                f"value {value!r} of parameter {name!r} cannot be swept; allowed is what is not empty and holds "
                "neither ',' nor '..'"
            )
        texts.append(text)
    if not texts:
        raise PlatformError(f"parameter {name!r} has no values; allowed is at least one")
    return ",".join(texts)
