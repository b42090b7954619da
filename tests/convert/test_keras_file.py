"""Files of every Keras: what loads answers as it did, what does not gets the right reason."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from convert import keras_file
from convert.errors import ConversionError
from tests.convert import legacy_files as legacy

X = np.random.default_rng(0).uniform(0, 1, (2, 48, 48, 1)).astype(np.float32)


def answers(found: Any) -> Any:
    return np.asarray(found(X, training=False))


def check(path: Path, made: Any, **options: Any) -> tuple[str, ...]:
    loaded = keras_file.load(path, **options)
    np.testing.assert_allclose(answers(loaded.network), answers(made), atol=1e-5)
    return loaded.notes


def test_tensorflow_2_with_groups_in_depthwise_layers(tmp_path: Path) -> None:
    made = legacy.network()
    path = legacy.write_h5(tmp_path / "tf2.h5", legacy.keras_2(made), made.layers)
    assert check(path, made) == ()


def test_an_hdf5_file_named_keras(tmp_path: Path) -> None:
    made = legacy.network()
    path = legacy.write_h5(tmp_path / "tf2.keras", legacy.keras_2(made), made.layers)
    check(path, made)
    made.save(tmp_path / "new.keras")
    (tmp_path / "new.keras").rename(tmp_path / "new.h5")
    check(tmp_path / "new.h5", made)


def test_a_sequential_whose_configuration_is_a_list(tmp_path: Path) -> None:
    made = legacy.network()
    config = legacy.keras_2(made, "2.0.8")
    config["config"] = config["config"]["layers"]
    check(legacy.write_h5(tmp_path / "old.h5", config, made.layers), made)


def test_keras_1(tmp_path: Path) -> None:
    config, made = legacy.keras_1()
    check(legacy.write_h5(tmp_path / "one.h5", config, made.layers, suffix="_{}"), made)
    config["config"][0]["config"]["dim_ordering"] = "th"
    path = legacy.write_h5(tmp_path / "theano.h5", config, made.layers, suffix="_{}")
    with pytest.raises(ConversionError, match="Keras 1 in Theano's order"):
        keras_file.load(path)


def channels_first(made: Any) -> dict[str, Any]:
    """The network as it is stored with the channels first. Its kernels are the same."""
    config = legacy.keras_2(made, "2.3.1")
    for layer in config["config"]["layers"]:
        content = layer["config"]
        if "data_format" in content:
            content["data_format"] = "channels_first"
        if "batch_input_shape" in content:
            content["batch_input_shape"] = [None, 1, 48, 48]
        if layer["class_name"] == "BatchNormalization":
            content["axis"] = 1
    return config


def test_channels_first(tmp_path: Path) -> None:
    made = legacy.network()
    path = legacy.write_h5(tmp_path / "first.h5", channels_first(made), made.layers)
    notes = check(path, made)
    assert notes == ("its input takes channels first; it was turned to channels last",)


def test_channels_first_without_a_format_in_flatten(tmp_path: Path) -> None:
    # Up to Keras 2.1 it flattened channels, rows, columns in the order in which they came.
    made = legacy.network()
    config = channels_first(made)
    flat, dense = made.get_layer("flat"), made.get_layer("answer")
    del next(
        layer["config"] for layer in config["config"]["layers"] if layer["config"]["name"] == "flat"
    )["data_format"]
    path = legacy.write_h5(tmp_path / "first.h5", config, made.layers)
    kernel, bias = dense.get_weights()
    _, height, width, channels = flat.input.shape
    turned = kernel.reshape(channels, height, width, -1).transpose(1, 2, 0, 3)
    dense.set_weights([turned.reshape(kernel.shape), bias])
    check(path, made)


def test_one_layer_with_channels_first(tmp_path: Path) -> None:
    # EmoPy's networks: the pooling takes rows for channels.
    keras.utils.set_random_seed(2)
    image = keras.Input((48, 48, 1))
    x = keras.layers.Conv2D(6, 4, activation="relu", name="conv")(image)
    turned = keras.layers.Permute((2, 3, 1))(x)
    pooled = keras.layers.Permute((3, 1, 2))(keras.layers.MaxPooling2D(name="pool")(turned))
    answer = keras.layers.Dense(3, name="dense")(keras.layers.Flatten(name="flat")(pooled))
    made = keras.Model(image, answer)
    layers = [made.get_layer(name) for name in ("conv", "pool", "flat", "dense")]
    config = [
        {"class_name": type(layer).__name__, "config": dict(layer.get_config())} for layer in layers
    ]
    config[0]["config"]["batch_input_shape"] = [None, 48, 48, 1]
    config[1]["config"]["data_format"] = "channels_first"
    stored = {"class_name": "Sequential", "config": config, "keras_version": "2.0.6"}
    path = legacy.write_h5(tmp_path / "pool.h5", stored, layers)
    assert check(path, made) == ()


def test_channels_first_in_a_file_that_keras_itself_loads(tmp_path: Path) -> None:
    path, made = tmp_path / "first.keras", legacy.network()
    made.save(path)

    def edit(config: dict[str, Any]) -> None:
        for layer in config["config"]["layers"]:
            content = layer["config"]
            if "data_format" in content:
                content["data_format"] = "channels_first"
            if layer["class_name"] == "InputLayer":
                content["batch_shape"] = [None, 1, 48, 48]
            if layer["class_name"] == "BatchNormalization":
                content["axis"] = 1

    legacy.edit_keras(path, edit)
    assert "turned to channels last" in check(path, made)[-1]


def test_theanos_kernels_are_turned(tmp_path: Path) -> None:
    made = legacy.network()
    config = legacy.keras_2(made, "2.0.8") | {"backend": "theano"}
    path = legacy.write_h5(tmp_path / "theano.h5", config, made.layers)
    conv = made.get_layer("conv")
    kernel, bias = conv.get_weights()
    conv.set_weights([kernel[::-1, ::-1], bias])
    assert "Theano" in check(path, made)[0]


def test_weights_alone_need_an_architecture(tmp_path: Path) -> None:
    made = legacy.network()
    path = legacy.write_h5(tmp_path / "only.h5", None, made.layers)
    with pytest.raises(ConversionError, match=r"--architecture FILE\.json"):
        keras_file.load(path)
    (tmp_path / "net.json").write_text(json.dumps(legacy.keras_2(made)))
    with pytest.raises(ConversionError, match=r"--architecture net\.json"):
        keras_file.load(path)
    check(path, made, architecture=str(tmp_path / "net.json"))
    (tmp_path / "build.py").write_text(
        "from tests.convert.legacy_files import network\ndef build(): return network()\n"
    )
    check(path, made, architecture=f"{tmp_path / 'build.py'}:build")
    with pytest.raises(ConversionError, match="no function 'other'"):
        keras_file.load(path, architecture=f"{tmp_path / 'build.py'}:other")


def test_the_architecture_of_another_network_is_refused(tmp_path: Path) -> None:
    made = legacy.network()
    config = legacy.keras_2(made)
    config["config"]["layers"][0]["config"]["filters"] = 5
    path = legacy.write_h5(tmp_path / "tf2.h5", config, made.layers)
    with pytest.raises(ConversionError, match="do not belong together"):
        keras_file.load(path)


def functional(name: str, layers: list[dict[str, Any]], last: str) -> dict[str, Any]:
    image = {
        "class_name": "InputLayer",
        "name": "image",
        "config": {"name": "image", "batch_input_shape": legacy.SHAPE, "dtype": "float32"},
        "inbound_nodes": [],
    }
    return {
        "class_name": "Functional",
        "name": name,
        "config": {
            "name": name,
            "layers": [image, *layers],
            "input_layers": [["image", 0, 0]],
            "output_layers": [[last, 0, 0]],
        },
        "keras_version": "2.11.0",
    }


def nested(made: Any, calls: Any, at: int = 1) -> dict[str, Any]:
    inner = legacy.keras_2(made)
    return {
        "class_name": "Sequential",
        "name": "old",
        "config": inner["config"],
        "inbound_nodes": calls,
    }


def whole(made: Any) -> list[Any]:
    """What stands for a nested network in a file: one group with the weights of its layers."""

    class Group:
        name = "old"
        weights = made.weights

    return [Group]


def test_a_nested_network_and_operators_of_tensorflow(tmp_path: Path) -> None:
    made = legacy.network()
    divide = {
        "class_name": "TFOpLambda",
        "name": "tf.math.truediv",
        "config": {"name": "tf.math.truediv", "function": "math.truediv"},
        "inbound_nodes": [["image", 0, 0, {"y": 2.0, "name": None}]],
    }
    # The nested network's making counts as its call 0.
    inner = nested(made, [[["tf.math.truediv", 0, 0, {}]]])
    config = functional("outer", [divide, inner], "old")
    config["config"]["output_layers"] = [["old", 1, 0]]
    path = legacy.write_h5(tmp_path / "nested.h5", config, whole(made))
    loaded = keras_file.load(path)
    np.testing.assert_allclose(
        answers(loaded.network), np.asarray(made(X / 2, training=False)), atol=1e-5
    )
    divide["config"]["function"] = "io.read_file"
    path = legacy.write_h5(tmp_path / "bad.h5", config, whole(made))
    with pytest.raises(ConversionError, match=r"io\.read_file"):
        keras_file.load(path)


def test_a_multi_gpu_wrapper_is_removed(tmp_path: Path) -> None:
    made = legacy.network()

    def part(name: str) -> dict[str, Any]:
        return {
            "class_name": "Lambda",
            "name": name,
            "config": {"name": name, "function": ["4wE=", None, None]},
            "inbound_nodes": [[["image", 0, 0, {}]]],
        }

    inner = nested(made, [[["part_0", 0, 0, {}]], [["part_1", 0, 0, {}]]])
    joined = {
        "class_name": "Concatenate",
        "name": "joined",
        "config": {"name": "joined", "axis": 0},
        "inbound_nodes": [[["old", 1, 0, {}], ["old", 2, 0, {}]]],
    }
    config = functional("outer", [part("part_0"), part("part_1"), inner, joined], "joined")
    path = legacy.write_h5(tmp_path / "gpus.h5", config, whole(made))
    assert check(path, made) == ("the multi-GPU wrapper was removed",)


def test_augmentation_with_unknown_arguments_is_removed(tmp_path: Path) -> None:
    made = legacy.network()
    with_flip = keras.Sequential(
        [keras.Input((48, 48, 1)), keras.layers.RandomRotation(0.1, name="turn"), *made.layers]
    )
    with_flip.save(tmp_path / "augmented.keras")

    def edit(config: Any) -> None:
        for layer in config["config"]["layers"]:
            if layer["class_name"] == "RandomRotation":
                layer["config"]["value_range_of_another_version"] = [0, 255]

    legacy.edit_keras(tmp_path / "augmented.keras", edit)
    (note,) = check(tmp_path / "augmented.keras", made)
    assert note.startswith("RandomRotation (turn) was removed")


def test_an_unknown_argument_is_dropped_with_a_note(tmp_path: Path) -> None:
    made = legacy.network()
    made.save(tmp_path / "new.keras")

    def edit(config: Any) -> None:
        config["config"]["layers"][1]["config"]["sparkle"] = 3

    legacy.edit_keras(tmp_path / "new.keras", edit)
    (note,) = check(tmp_path / "new.keras", made)
    assert "sparkle=3" in note


def test_a_layer_that_takes_fewer_arguments_than_its_base(tmp_path: Path) -> None:
    made = legacy.network()
    config = legacy.keras_2(made)
    dropout = {"name": "drop", "trainable": True, "dtype": "float32", "rate": 0.1}
    layers = config["config"]["layers"]
    layers.insert(2, {"class_name": "SpatialDropout2D", "config": {**dropout, "noise_shape": None}})
    assert check(legacy.write_h5(tmp_path / "drop.h5", config, made.layers), made) == ()


def test_the_keras_of_tensorflow_2_in_a_keras_archive(tmp_path: Path) -> None:
    made = legacy.network()
    made.save(tmp_path / "tf.keras")

    def edit(config: Any) -> None:
        config.clear()
        config.update(legacy.keras_2(made))
        config["module"] = "tf_keras.src.engine.sequential"

    legacy.edit_keras(tmp_path / "tf.keras", edit)
    check(tmp_path / "tf.keras", made)


def test_hard_sigmoid_is_that_of_the_keras_that_wrote_the_file(tmp_path: Path) -> None:
    made = legacy.network()
    config = legacy.keras_2(made)
    config["config"]["layers"][0]["config"]["activation"] = "hard_sigmoid"
    path = legacy.write_h5(tmp_path / "hard.h5", config, made.layers)
    found = keras_file.load(path).network
    first = keras.Model(found.inputs[0], found.layers[1].output)
    made.layers[0].activation = lambda x: keras.ops.clip(0.2 * x + 0.5, 0, 1)
    np.testing.assert_allclose(np.asarray(first(X)), np.asarray(made.layers[0](X)), atol=1e-6)


def test_custom_layers_and_lambdas_need_to_be_named(tmp_path: Path) -> None:
    made = legacy.network()
    config = legacy.keras_2(made)
    config["config"]["layers"][-2]["class_name"] = "MyFlatten"
    path = legacy.write_h5(tmp_path / "custom.h5", config, made.layers)
    with pytest.raises(ConversionError, match=r"'MyFlatten'.*--custom-objects"):
        keras_file.load(path)
    (tmp_path / "mine.py").write_text(
        "import keras\nclass MyFlatten(keras.layers.Flatten):\n    pass\n"
        "def halve(x):\n    return x / 2\n"
    )
    custom = keras_file.import_custom_objects(str(tmp_path / "mine.py"))
    check(path, made, custom_objects=custom)
    with pytest.raises(ConversionError, match="cannot be imported"):
        keras_file.import_custom_objects(str(tmp_path / "absent.py"))
    halved = {
        "class_name": "Lambda",
        "name": "halve",
        "config": {"name": "halve", "function": ["4wE=", None, None]},
        "inbound_nodes": [[["image", 0, 0, {}]]],
    }
    inner = nested(made, [[["halve", 0, 0, {}]]])
    dense = {
        "class_name": "Activation",
        "name": "end",
        "config": {"name": "end", "activation": "linear"},
        "inbound_nodes": [[["old", 1, 0, {}]]],
    }
    config = functional("outer", [halved, inner, dense], "end")
    path = legacy.write_h5(tmp_path / "lambda.h5", config, whole(made))
    with (
        pytest.MonkeyPatch.context() as patch,
        pytest.raises(ConversionError, match=r"Lambda layer halve.*--allow-lambda"),
    ):
        # Keras 2, if installed, would run the code in the file.
        patch.setattr(keras_file, "_through_keras_2", lambda *_: pytest.fail("read with tf_keras"))
        patch.setattr(keras_file.importlib.util, "find_spec", lambda _: True)
        keras_file.load(path)
    found = keras_file.load(path, custom_objects=custom).network
    np.testing.assert_allclose(answers(found), np.asarray(made(X / 2)), atol=1e-5)


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.h5", b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n", "git lfs pull"),
        ("a.h5", b"\n<!DOCTYPE html><html>", "HTML page"),
        ("a.h5", b"import keras\nmodel = keras.Sequential()\n", "Python script"),
        ("a.keras", b"\x80\x02}q\x00torch", "PyTorch checkpoint"),
        (
            "a.h5",
            b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03.",
            "PyTorch checkpoint",
        ),
        ("a.keras", b"", "empty"),
        ("a.h5", b'{"class_name": "Sequential"}', "--architecture a.h5"),
        ("a.h5", b"\x1c\x00\x00\x00TFL3", "TFLite model already"),
        ("a.h5", b"\x00\x01\x02\x03", "unknown contents"),
        ("a.keras", b"PK\x03\x04 and then nothing", "truncated"),
        ("a.h5", b"\x89HDF\r\n\x1a\n" + b"\x00" * 200, "cannot read"),
    ],
)
def test_what_a_file_really_is(tmp_path: Path, name: str, content: bytes, reason: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ConversionError, match=reason) as error:
        keras_file.load(tmp_path / name)
    assert len(str(error.value).splitlines()) == 1


def test_a_certain_reason_is_given_once(tmp_path: Path) -> None:
    made = legacy.network()
    whole = legacy.write_h5(tmp_path / "whole.h5", legacy.keras_2(made), made.layers).read_bytes()
    (tmp_path / "cut.h5").write_bytes(whole[: len(whole) // 2])
    legacy.write_h5(tmp_path / "only.h5", None, made.layers)
    for name, reason in (
        ("cut.h5", r"it is truncated \([\d,]+ bytes\); copy it again$"),
        ("only.h5", r"FILE\.py:FUNCTION$"),
    ):
        with pytest.raises(ConversionError, match=reason):
            keras_file.load(tmp_path / name)


def test_a_pytorch_archive_and_a_saved_model(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.h5", "w") as archive:
        archive.writestr("archive/data.pkl", b"")
    with pytest.raises(ConversionError, match="PyTorch checkpoint"):
        keras_file.load(tmp_path / "a.h5")
    (tmp_path / "saved").mkdir()
    (tmp_path / "saved" / "saved_model.pb").write_bytes(b"")
    with pytest.raises(ConversionError, match="SavedModel folder"):
        keras_file.load(tmp_path / "saved")
