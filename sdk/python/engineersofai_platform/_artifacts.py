"""Which files an artifact is made of, and what they are called in the run."""

from __future__ import annotations

import os
import re

from ._errors import PlatformError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Optional, Union


def clean_name(name: str) -> str:
    """A relative path with `/`, checked so that it stays inside the run's folder."""
    parts = [part for part in name.replace(os.sep, "/").split("/") if part not in ("", ".")]
    if name.startswith("/") or not parts or ".." in parts or name[1:2] == ":":
        raise PlatformError(
            f"artifact name {name!r} leaves the folder of the run; use a relative path without '..', such as "
            "plots/loss.png"
        )
    # What a path must not hold on any system that may one day read it.
    return re.sub(r"[\x00-\x1f\x7f-\x9f\\]", "_", "/".join(parts))


def files_of(path: Union[str, os.PathLike[str]], name: Optional[str]) -> Iterator[tuple[str, str]]:
    """Pairs of artifact path and file, sorted; a folder gives every regular file beneath it."""
    source = os.fspath(path)
    base = clean_name(name if name is not None else os.path.basename(os.path.abspath(source)))
    if os.path.isfile(source):
        return iter([(base, source)])
    if not os.path.isdir(source):
        raise PlatformError(f"no file or folder {source!r} in {os.getcwd()}; give the path of one that is there")
    found = []
    for folder, _, files in os.walk(source):
        for file in files:
            full = os.path.join(folder, file)
            if os.path.isfile(full):
                relative = os.path.relpath(full, source).replace(os.sep, "/")
                found.append((clean_name(f"{base}/{relative}"), full))
    return iter(sorted(found))
