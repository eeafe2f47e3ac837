"""Models are saved in the format of their framework, with a manifest that tells how to load them."""

from __future__ import annotations

import json

import pytest

REGISTER = """
import sys
{build}
with platform.training_run() as run:
    registered = run.register_model(model, "a-model", {options})
    print(registered.name, registered.version)
"""

FRAMEWORKS = {
    "sklearn": (
        "sklearn",
        "from sklearn.linear_model import LogisticRegression\n"
        "model = LogisticRegression().fit([[0.0, 1.0], [1.0, 0.0]], ['no', 'yes'])",
        "scikit-learn",
        {"model.joblib", "model.skops"},
    ),
    "xgboost": (
        "xgboost",
        "import xgboost\nmodel = xgboost.XGBClassifier(n_estimators=2).fit([[0.0, 1.0], [1.0, 0.0]], [0, 1])",
        "xgboost",
        {"model.ubj"},
    ),
    "lightgbm": (
        "lightgbm",
        "import lightgbm\n"
        "model = lightgbm.LGBMClassifier(n_estimators=2, min_child_samples=1).fit([[0.0, 1.0], [1.0, 0.0]], [0, 1])",
        "lightgbm",
        {"model.txt"},
    ),
    "pytorch": (
        "torch",
        "import torch\nmodel = torch.nn.Sequential(torch.nn.Linear(2, 1))",
        "torch",
        {"model.safetensors", "state_dict.pt"},
    ),
    "tensorflow": (
        "keras",
        "import keras\nmodel = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])",
        "keras",
        {"model.keras"},
    ),
    "transformers": (
        "transformers",
        "from transformers import BertConfig, BertModel\n"
        "model = BertModel(BertConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8, vocab_size=16))",
        "transformers",
        {"model.safetensors", "pytorch_model.bin"},
    ),
    "onnx": (
        "onnx",
        "from onnx import TensorProto, helper\n"
        "value = helper.make_tensor_value_info('x', TensorProto.FLOAT, [1])\n"
        "model = helper.make_model(helper.make_graph([helper.make_node('Identity', ['x'], ['y'])], 'g', [value],\n"
        "    [helper.make_tensor_value_info('y', TensorProto.FLOAT, [1])]))",
        "onnx",
        {"model.onnx"},
    ),
}


@pytest.mark.parametrize("framework", sorted(FRAMEWORKS))
def test_each_framework_is_saved_in_its_own_format(script, store, online, framework):
    module, build, package, weights = FRAMEWORKS[framework]
    pytest.importorskip(module, reason=f"{framework} is not installed")
    out, _ = script(REGISTER.format(build=build, options=""), **online)
    assert out.split()[-2:] == ["a-model", "1"]
    (version,) = store.models["a-model"]
    manifest, files = version["manifest"], {entry["path"] for entry in version["files"]}
    assert manifest["framework"] == framework and manifest["python"]
    # Some are also published without GPU support under a longer name.
    assert any(line.startswith((package + "==", package + "-cpu==")) for line in manifest["requirements"])
    assert files & weights and "manifest.json" in files
    stored = next(entry for entry in version["files"] if entry["path"] == "manifest.json")
    assert json.loads(store.blobs[stored["sha256"]]) == manifest


def test_a_sklearn_model_can_be_loaded_again_from_what_was_stored(script, store, online, tmp_path):
    pytest.importorskip("sklearn")
    script(REGISTER.format(build=FRAMEWORKS["sklearn"][1], options="example=[[0.0, 1.0]]"), **online)
    (version,) = store.models["a-model"]
    blobs = {entry["path"]: store.blobs[entry["sha256"]] for entry in version["files"]}
    path = version["manifest"]["path"]
    (tmp_path / path).write_bytes(blobs[path])
    if path.endswith("skops"):
        import skops.io

        model = skops.io.load(tmp_path / path)
    else:
        import joblib

        model = joblib.load(tmp_path / path)
    assert list(model.predict([[1.0, 0.0]])) == ["yes"]
    assert version["manifest"]["classes"] == ["no", "yes"]
    assert json.loads(blobs["example.json"]) == [[0.0, 1.0]]


def test_versions_count_up(script, store, online):
    code = REGISTER.format(build="model = {'a': 1}", options='framework="pickle"')
    assert [script(code, **online)[0].split()[1] for _ in range(3)] == ["1", "2", "3"]


def test_a_signature_is_read_off_an_array(script, store, online):
    pytest.importorskip("sklearn")
    build = FRAMEWORKS["sklearn"][1] + "\nimport numpy\nexample = numpy.array([[0.0, 1.0]] * 9)"
    script(REGISTER.format(build=build, options="example=example"), **online)
    manifest = store.models["a-model"][0]["manifest"]
    assert manifest["signature"]["inputs"] == {"kind": "tensor", "dtype": "float64", "shape": [-1, 2]}
    assert manifest["signature"]["outputs"]["shape"] == [-1]


def test_a_signature_is_read_off_a_table(script, store, online):
    pytest.importorskip("pandas")
    build = "import pandas\nmodel = [1]\nexample = pandas.DataFrame({'age': [1, 2], 'name': ['a', None]})"
    script(REGISTER.format(build=build, options='example=example, framework="pickle"'), **online)
    columns = store.models["a-model"][0]["manifest"]["signature"]["inputs"]["columns"]
    assert [column["name"] for column in columns] == ["age", "name"]


def test_a_given_signature_is_kept_as_it_is(script, store, online):
    script(REGISTER.format(build="model = 1", options='framework="pickle", signature={"x": "float"}'), **online)
    assert store.models["a-model"][0]["manifest"]["signature"] == {"x": "float"}


def test_a_marked_class_is_pickled_with_the_script_that_defines_it(script, store, online):
    build = "@platform.model\nclass Doubler:\n    def predict(self, x):\n        return 2 * x\nmodel = Doubler()"
    script(REGISTER.format(build=build, options="example=3"), **online)
    (version,) = store.models["a-model"]
    assert version["manifest"]["class"] == "__main__.Doubler"
    assert version["manifest"]["sources"] == [{"module": "__main__", "path": "source/script.py"}]
    assert version["manifest"]["signature"]["outputs"] == {"kind": "scalar", "dtype": "int"}
    assert version["manifest"]["loads_code"] is True


def test_a_saved_file_is_registered_as_it_is(script, store, online):
    build = "model = 'weights.onnx'\nopen(model, 'wb').write(b'bytes')"
    script(REGISTER.format(build=build, options='framework="onnx"'), **online)
    (version,) = store.models["a-model"]
    assert version["manifest"]["path"] == "weights.onnx" and b"bytes" in store.blobs.values()


@pytest.mark.parametrize(
    ("build", "options", "told"),
    [
        ("model = object()", "", "mark its class with @platform.model"),
        ("model = None", "", "NoneType"),
        ("model = dict", 'framework="caffe"', "framework='caffe' is not known; allowed are"),
        ("model = 'weights.onnx'", "", "say what it holds with framework="),
        ("model = 'gone.onnx'", 'framework="onnx"', "no file or folder 'gone.onnx'"),
        ("model = lambda: 1", 'framework="pickle"', "pickle could not save"),
    ],
)
def test_what_cannot_be_saved_says_what_could(script, build, options, told):
    if "lambda" in build:
        try:
            import cloudpickle  # noqa: F401
        except ImportError:
            pass
        else:
            pytest.skip("cloudpickle saves lambdas")
    _, err = script(REGISTER.format(build=build, options=options), fails=True)
    assert told in err and "PlatformError" in err


def test_a_framework_that_is_missing_gives_a_clear_error(script):
    build = """
sys.modules["torch"] = None
class Module: pass
Module.__module__ = "torch.nn.modules"
model = Module()
"""
    _, err = script(REGISTER.format(build=build, options=""), fails=True)
    assert "saving this pytorch model needs torch" in err and "pip install torch" in err


@pytest.mark.parametrize("name", ["", "Upper", "-first", "a/b", "a" * 64])
def test_a_model_name_outside_the_grammar_is_refused(script, name):
    _, err = script(f"platform.training_run().register_model(1, {name!r}, framework='pickle')", fails=True)
    assert "is not a model name; allowed are" in err


def test_offline_a_model_is_pending_and_gets_its_version_by_sync(script, store):
    out, err = script(REGISTER.format(build="model = 1", options='framework="pickle"'))
    assert out.split() == ["a-model", "None"] and "gets its version when" in err
    script.sync(store)
    assert store.models["a-model"][0]["version"] == 1 and script.leftovers() == []
