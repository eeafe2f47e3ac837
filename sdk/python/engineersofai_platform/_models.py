"""Saves a model in its framework's own format, with a manifest that says what it needs to be loaded.

The framework is read off the names of the modules its classes come from, so that nothing is
imported that the script has not imported already. Formats that cannot run code when loaded come
first: safetensors, skops, ONNX, JSON. Where only pickle will do, the manifest says so.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
import time

from . import _frameworks, _signature
from ._errors import PlatformError, reason, say
from ._journal import store_file
from ._version import __version__

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Optional

MANIFEST = "manifest.json"


class Saved:
    """A model on disk, ready to be recorded."""

    def __init__(self, framework: str, manifest: dict[str, Any], files: list[dict[str, Any]]) -> None:
        self.framework = framework
        self.manifest = manifest
        self.files = files


def check_name(name: object) -> str:
    """Returns the name when it has the grammar of a model name."""
    if isinstance(name, str) and re.fullmatch(r"[a-z0-9][a-z0-9._-]{0,62}", name):
        return name
    text = name if isinstance(name, str) else ""
    meant = re.sub(r"[^a-z0-9._-]+", "-", text.lower()).strip("-._")[:63]
    raise PlatformError(
        f"{name!r} is not a model name; allowed are 1 to 63 of a-z 0-9 . _ -, starting with a letter or digit"
        + (f"; {meant!r} would do" if meant else "")
    )


def save(
    model: Any,
    name: str,
    files_folder: str,
    *,
    run: str,
    signature: Any = None,
    example: Any = None,
    framework: Optional[str] = None,
    tokenizer: Any = None,
    requirements: Optional[list[str]] = None,
) -> Saved:
    """Writes model, example and manifest into `files_folder` under their hashes."""
    check_name(name)
    chosen = _frameworks.choose(model, framework)
    staging = os.path.join(files_folder, ".model-" + os.urandom(8).hex())
    try:
        os.makedirs(staging, mode=0o700)
        written = chosen.save(model, staging)
        if tokenizer is not None:
            if not hasattr(tokenizer, "save_pretrained"):
                raise PlatformError(f"tokenizer={type(tokenizer).__name__} has no save_pretrained; pass a tokenizer")
            tokenizer.save_pretrained(staging)
        versions, needed = _frameworks.versions_of(model, chosen.name)
        manifest: dict[str, Any] = {
            "manifest_version": 1,
            # Tells this registration from every other one, also from one of the same bytes.
            "id": os.urandom(16).hex(),
            "name": name,
            "run": run,
            "framework": chosen.name,
            "class": _frameworks.class_name(model),
            "format": written.pop("format"),
            "python": ".".join(str(part) for part in sys.version_info[:3]),
            "versions": versions,
            "requirements": sorted(set(requirements)) if requirements is not None else needed,
            "signature": _signature.plain(signature) if signature is not None else _inferred(model, example),
            "example": None,
            "created_us": time.time_ns() // 1000,
            "sdk": __version__,
        }
        manifest.update(written)
        if example is not None:
            manifest["example"] = "example.json"
            with open(os.path.join(staging, "example.json"), "w", encoding="utf-8") as file:
                json.dump(_signature.sample(example), file, allow_nan=False, default=str)
        with open(os.path.join(staging, MANIFEST), "w", encoding="utf-8") as file:
            json.dump(manifest, file, allow_nan=False, indent=2, sort_keys=True, default=str)
        # What the record carries is what the file says, so the two can never differ.
        with open(os.path.join(staging, MANIFEST), encoding="utf-8") as file:
            manifest = json.load(file)
        return Saved(chosen.name, manifest, _store(staging, files_folder))
    except OSError as error:
        raise PlatformError(
            f"cannot save model {name!r} under {files_folder} ({reason(error)}); free some space or set "
            "PLATFORM_SPOOL to another disk, and register it again"
        ) from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _store(staging: str, files_folder: str) -> list[dict[str, Any]]:
    files = []
    for folder, _, names in os.walk(staging):
        for file in names:
            path = os.path.join(folder, file)
            relative = os.path.relpath(path, staging).replace(os.sep, "/")
            address, size = store_file(files_folder, path, move=True)
            files.append({"path": relative, "sha256": address, "size_bytes": size})
    return sorted(files, key=lambda entry: str(entry["path"]))


def _inferred(model: Any, example: Any) -> Any:
    if example is None:
        return None
    try:
        described: dict[str, Any] = {"inputs": _signature.describe(example)}
    except Exception as error:  # an exotic input must not cost the model its registration
        say(f"no signature: the example is not understood ({type(error).__name__}: {error})")
        return None
    predict = getattr(model, "predict", None)
    if callable(predict):
        try:
            described["outputs"] = _signature.describe(predict(example))
        except Exception:
            # Some models want other inputs in predict; the inputs alone are worth keeping.
            pass
    return described
