"""The frameworks whose models can be saved, how each is recognised, and how each is written."""

from __future__ import annotations

import os
import shutil
import sys

from ._errors import PlatformError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Optional

MARK = "__engineersofai_platform_model__"


class Framework:
    """A framework: its name, the top-level modules of its classes, its packages, its writer."""

    def __init__(
        self,
        name: str,
        modules: tuple[str, ...],
        packages: tuple[str, ...],
        save: Callable[[Any, str], dict[str, Any]],
    ) -> None:
        self.name = name
        self.modules = modules
        # Distributions to pin, where they are installed; the first is the framework itself.
        self.packages = packages
        self._save = save

    def save(self, model: Any, folder: str) -> dict[str, Any]:
        """Writes the model into the folder; returns `format` and other fields for the manifest."""
        if isinstance(model, (str, os.PathLike)):
            return _copy(os.fspath(model), folder)
        try:
            return self._save(model, folder)
        except (PlatformError, OSError):
            raise
        except ImportError as error:
            raise PlatformError(
                f"saving this {self.name} model needs {error.name or error}; add it to requirements.txt "
                f"(pip install {error.name or self.packages[0]})"
            ) from error
        except Exception as error:
            raise PlatformError(
                f"{self.name} could not save {class_name(model)}: {type(error).__name__}: {error}; "
                'framework="pickle" saves any picklable object'
            ) from error


def class_name(model: Any) -> str:
    """Module and class."""
    if isinstance(model, (str, os.PathLike)):
        return "file"
    kind = type(model)
    return f"{kind.__module__}.{kind.__qualname__}"


def modules_of(model: Any) -> list[str]:
    """Top-level modules that the classes of the model come from, nearest first."""
    found: list[str] = []
    for kind in type(model).__mro__:
        top = (getattr(kind, "__module__", "") or "").split(".")[0]
        if top and top not in found:
            found.append(top)
    return found


def choose(model: Any, asked: Optional[str]) -> Framework:
    """The framework asked for, or the one that the classes of the model belong to."""
    names = ", ".join(framework.name for framework in FRAMEWORKS)
    if asked is not None:
        for framework in FRAMEWORKS:
            if asked in (framework.name, *framework.modules):
                return framework
        raise PlatformError(f"framework={asked!r} is not known; allowed are {names}")
    if isinstance(model, (str, os.PathLike)):
        raise PlatformError(f"{os.fspath(model)!r} is a path; say what it holds with framework=, one of {names}")
    if getattr(model, MARK, False) is True and not isinstance(model, type):
        return PICKLE
    modules = modules_of(model)
    for framework in FRAMEWORKS:
        if any(module in framework.modules for module in modules):
            return framework
    hint = 'mark its class with @platform.model, or pass framework="pickle"'
    if isinstance(model, type):
        hint = "pass an instance rather than the class"
    elif model is None:
        hint = "did the function that makes the model return it"
    raise PlatformError(f"cannot save {class_name(model)} as a model; supported are {names}; {hint}")


def versions_of(model: Any, framework: str) -> tuple[dict[str, str], list[str]]:
    """Versions of what the model needs, and the same as lines of a requirements file."""
    from importlib import metadata

    chosen = next(entry for entry in FRAMEWORKS if entry.name == framework)
    wanted = list(chosen.packages)
    modules = [] if isinstance(model, (str, os.PathLike)) else modules_of(model)
    for entry in FRAMEWORKS:
        if any(module in entry.modules for module in modules):
            wanted += [package for package in entry.packages if package not in wanted]
    owners: Any = {}
    if hasattr(metadata, "packages_distributions") and any(
        module not in _KNOWN and module not in ("builtins", "__main__") for module in modules
    ):
        owners = metadata.packages_distributions()
    for module in modules:
        wanted += [package for package in owners.get(module, []) if package not in wanted]
    versions: dict[str, str] = {}
    for package in wanted:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    # A local part ("2.1+cu121") names a build that an index may not have.
    return versions, [f"{package}=={version.split('+')[0]}" for package, version in sorted(versions.items())]


def _copy(source: str, folder: str) -> dict[str, Any]:
    if os.path.isdir(source):
        shutil.copytree(source, folder, dirs_exist_ok=True)
    elif os.path.isfile(source):
        shutil.copy(source, folder)
    else:
        raise PlatformError(f"no file or folder {source!r} in {os.getcwd()}; give the path of a saved model")
    return {"format": "files", "path": os.path.basename(os.path.abspath(source))}


def _classes(model: Any) -> dict[str, Any]:
    from . import _signature

    try:
        classes = _signature.plain(model.classes_)
    except Exception:  # not fitted, or not a classifier
        return {}
    return {"classes": classes} if isinstance(classes, list) and len(classes) <= 1000 else {}


def _save_sklearn(model: Any, folder: str) -> dict[str, Any]:
    try:
        import skops.io  # type: ignore[import-not-found, import-untyped, unused-ignore]

        skops.io.dump(model, os.path.join(folder, "model.skops"))
        return {"format": "skops", "path": "model.skops", "loads_code": False, **_classes(model)}
    except OSError:
        raise
    except Exception:
        # Not installed, or an object inside that skops does not know.
        _remove(folder, "model.skops")
    import joblib  # type: ignore[import-not-found, import-untyped, unused-ignore]

    joblib.dump(model, os.path.join(folder, "model.joblib"), compress=3)
    return {
        "format": "joblib",
        "path": "model.joblib",
        "loads_code": True,
        **_source_of(model, folder),
        **_classes(model),
    }


def _save_xgboost(model: Any, folder: str) -> dict[str, Any]:
    try:
        model.save_model(os.path.join(folder, "model.ubj"))
        path = "model.ubj"
    except (ValueError, TypeError):
        # Releases before 1.6 write JSON only.
        _remove(folder, "model.ubj")
        path = "model.json"
        model.save_model(os.path.join(folder, path))
    return {"format": path.split(".")[1], "path": path, "loads_code": False, **_classes(model)}


def _save_lightgbm(model: Any, folder: str) -> dict[str, Any]:
    booster = getattr(model, "booster_", model)
    booster.save_model(os.path.join(folder, "model.txt"))
    return {"format": "text", "path": "model.txt", "loads_code": False, **_classes(model)}


def _save_torch(model: Any, folder: str) -> dict[str, Any]:
    import torch  # type: ignore[import-not-found, import-untyped, unused-ignore]

    # Wrappers of distributed training and of torch.compile hold the module that matters.
    for _ in range(4):
        inner = getattr(model, "_orig_mod", None)
        if inner is None and type(model).__name__ in ("DataParallel", "DistributedDataParallel"):
            inner = getattr(model, "module", None)
        if inner is None:
            break
        model = inner
    if isinstance(model, torch.jit.ScriptModule):
        model.save(os.path.join(folder, "model.torchscript"))
        return {"format": "torchscript", "path": "model.torchscript", "loads_code": True}
    if not hasattr(model, "state_dict"):
        raise PlatformError(f"{class_name(model)} has no state_dict; pass a torch.nn.Module")
    fields: dict[str, Any] = {}
    try:
        from safetensors.torch import save_model  # type: ignore[import-not-found, import-untyped, unused-ignore]

        save_model(model, os.path.join(folder, "model.safetensors"))
        fields.update(format="safetensors", path="model.safetensors", loads_code=False)
    except OSError:
        raise
    except Exception:
        _remove(folder, "model.safetensors")
        state = {
            key: value.detach().cpu() if hasattr(value, "detach") else value
            for key, value in model.state_dict().items()
        }
        torch.save(state, os.path.join(folder, "state_dict.pt"))
        fields.update(format="state_dict", path="state_dict.pt", loads_code=False)
    try:
        torch.save(model, os.path.join(folder, "module.pt"))
        fields["module"] = "module.pt"
    except OSError:
        raise
    except Exception as error:
        # The weights are what matters; a lambda inside the module keeps it from being pickled.
        _remove(folder, "module.pt")
        fields["module"] = None
        fields["module_error"] = f"{type(error).__name__}: {error}"
    return {**fields, **_source_of(model, folder)}


def _save_tensorflow(model: Any, folder: str) -> dict[str, Any]:
    if hasattr(model, "save"):
        try:
            model.save(os.path.join(folder, "model.keras"))
            return {"format": "keras", "path": "model.keras", "loads_code": False}
        except OSError:
            raise
        except Exception:
            # Releases before 2.12 do not know the .keras format.
            _remove(folder, "model.keras")
    import tensorflow  # type: ignore[import-not-found, import-untyped, unused-ignore]

    tensorflow.saved_model.save(model, os.path.join(folder, "saved_model"))
    return {"format": "saved_model", "path": "saved_model", "loads_code": False}


def _save_transformers(model: Any, folder: str) -> dict[str, Any]:
    if not hasattr(model, "save_pretrained"):
        raise PlatformError(f"{class_name(model)} has no save_pretrained; pass a model, pipeline or adapter")
    model.save_pretrained(folder)
    fields: dict[str, Any] = {"format": "save_pretrained", "path": "."}
    if getattr(model, "task", None):
        fields["pipeline"] = str(model.task)
    return fields


def _save_onnx(model: Any, folder: str) -> dict[str, Any]:
    path = os.path.join(folder, "model.onnx")
    if isinstance(model, (bytes, bytearray)):
        content: Optional[bytes] = bytes(model)
    elif not hasattr(model, "SerializeToString"):
        raise PlatformError(
            f"{class_name(model)} cannot be written back; pass the onnx.ModelProto or the path of the file"
        )
    else:
        try:
            content = model.SerializeToString()
        except Exception:
            # Protocol buffers end at 2 GiB.
            content = None
    if content is not None:
        with open(path, "wb") as file:
            file.write(content)
    else:
        import onnx  # type: ignore[import-not-found, import-untyped, unused-ignore]

        onnx.save(model, path, save_as_external_data=True, location="model.onnx.weights")
    return {"format": "onnx", "path": "model.onnx", "loads_code": False}


def _save_pickle(model: Any, folder: str) -> dict[str, Any]:
    path = os.path.join(folder, "model.pkl")
    try:
        # Classes of the script itself are only found again when pickled by value.
        import cloudpickle as pickler  # type: ignore[import-not-found, import-untyped, unused-ignore]

        form = "cloudpickle"
    except ImportError:
        import pickle as pickler

        form = "pickle"
    with open(path, "wb") as file:
        pickler.dump(model, file, protocol=4)
    return {"format": form, "path": "model.pkl", "loads_code": True, **_source_of(model, folder)}


def _source_of(model: Any, folder: str) -> dict[str, Any]:
    """Keeps the script that defines the class, which a pickle refers to but does not hold."""
    sources = []
    for kind in type(model).__mro__:
        module = sys.modules.get(kind.__module__ or "")
        path = getattr(module, "__file__", None)
        if not path or not path.endswith(".py") or not os.path.isfile(path):
            continue
        if any(part in ("site-packages", "dist-packages") for part in path.split(os.sep)):
            continue
        if path.startswith((sys.base_prefix + os.sep + "lib", os.path.dirname(os.__file__))):
            continue
        os.makedirs(os.path.join(folder, "source"), exist_ok=True)
        shutil.copy(path, os.path.join(folder, "source"))
        entry = {"module": kind.__module__, "path": "source/" + os.path.basename(path)}
        if entry not in sources:
            sources.append(entry)
    return {"sources": sources} if sources else {}


def _remove(folder: str, name: str) -> None:
    path = os.path.join(folder, name)
    if os.path.isdir(path):
        shutil.rmtree(path, ignore_errors=True)
    elif os.path.exists(path):
        os.unlink(path)


PICKLE = Framework("pickle", (), ("cloudpickle", "numpy", "scipy", "pandas"), _save_pickle)

# In the order asked: classes of the first ones often also inherit from the later ones.
FRAMEWORKS = (
    Framework(
        "transformers",
        ("transformers", "peft", "diffusers", "sentence_transformers"),
        ("transformers", "peft", "diffusers", "sentence-transformers", "tokenizers", "safetensors", "torch"),
        _save_transformers,
    ),
    Framework(
        "tensorflow",
        ("keras", "tensorflow", "tf_keras"),
        ("tensorflow", "tensorflow-cpu", "keras", "numpy"),
        _save_tensorflow,
    ),
    Framework("lightgbm", ("lightgbm",), ("lightgbm", "numpy", "scipy"), _save_lightgbm),
    Framework("xgboost", ("xgboost",), ("xgboost", "xgboost-cpu", "numpy", "scipy"), _save_xgboost),
    Framework(
        "sklearn",
        ("sklearn", "imblearn"),
        ("scikit-learn", "imbalanced-learn", "skops", "joblib", "numpy", "scipy"),
        _save_sklearn,
    ),
    Framework("onnx", ("onnx", "onnxruntime"), ("onnx", "onnxruntime"), _save_onnx),
    Framework("pytorch", ("torch", "lightning", "pytorch_lightning"), ("torch", "safetensors", "numpy"), _save_torch),
    PICKLE,
)
_KNOWN = {module for framework in FRAMEWORKS for module in framework.modules}
