"""Reads Keras files of every version: builds the network from its configuration, then its weights.

Keras 3 reads what Keras 3 wrote. Files of Keras 1 and 2 name arguments, layers and weights
differently, and Keras 3 refuses most of them. Here the configuration is translated, arguments that
are unknown are dropped with a note, the layers are connected through Keras' public interface, and
the weights are assigned by layer and name.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import inspect
import io
import json
import re
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from convert import file_kind
from convert.errors import ConversionError
from convert.native_output import suppressed_output

with suppressed_output():
    import keras

CustomObjects = Mapping[str, Any]

KERAS_2 = "pip install --no-deps 'tf_keras>=2.21,<2.22'"
"""Without its dependencies: it names the package tensorflow, even where tensorflow-cpu is there."""


class CertainError(ConversionError):
    """A reason to which Keras' own message would add nothing."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """A network and what had to be changed to read it, one line each."""

    network: Any
    notes: tuple[str, ...] = ()


def load(
    path: Path,
    *,
    architecture: str | None = None,
    custom_objects: CustomObjects | None = None,
    allow_lambda: bool = False,
) -> Loaded:
    """Read a ``.keras`` or HDF5 file, whatever its name.

    architecture: a JSON file for weights without a configuration, or ``FILE.py:FUNCTION``, a
    function without arguments that returns the network.
    custom_objects: layers and functions by name. allow_lambda: run code stored in the file.
    Raises ConversionError with Keras' reason.
    """
    import train.networks  # noqa: F401  registers this project's own layers

    kind = file_kind.recognise(path)
    custom = dict(custom_objects or {})
    if kind == file_kind.SAVED_MODEL:
        return _through_keras_2(path, custom, allow_lambda)
    reason: Exception | None = None
    if architecture is None and not _means_otherwise(path, kind):
        try:
            return Loaded(_with_keras(path, kind, custom, allow_lambda))
        except Exception as error:  # Keras raises many types
            reason = error
    try:
        with suppressed_output():
            return _tolerantly(path, kind, architecture, custom, allow_lambda)
    except Exception as error:
        certain = isinstance(error, CertainError)
        if architecture is None and not certain and importlib.util.find_spec("tf_keras"):
            with contextlib.suppress(ConversionError):
                return _through_keras_2(path, custom, allow_lambda)
        first = (
            ""
            if certain or reason is None
            else f" (Keras {keras.__version__}: {_one_line(reason)})"
        )
        raise ConversionError(f"cannot read {path}: {_one_line(error)}{first}") from error


def _through_keras_2(path: Path, custom: CustomObjects, allow_lambda: bool) -> Loaded:
    """Read with ``tf_keras``, which is Keras 2, and take the network over through HDF5."""
    if importlib.util.find_spec("tf_keras") is None:
        raise ConversionError(
            f"{path} is a SavedModel folder, which Keras 3 does not read: install Keras 2 next to "
            f"it with `{KERAS_2}`, or save the network as .h5 where it was trained"
        )
    try:
        with tempfile.TemporaryDirectory() as folder, suppressed_output():
            tf_keras = importlib.import_module("tf_keras")
            saving = importlib.import_module("tf_keras.src.saving.serialization_lib")
            # load_model's own safe_mode has no effect on HDF5 files: their Lambda layers would run.
            with saving.SafeModeScope(not allow_lambda):
                network = tf_keras.models.load_model(
                    path, custom_objects=dict(custom), compile=False, safe_mode=not allow_lambda
                )
            copy = Path(folder, "model.h5")
            network.save(copy, save_format="h5")
            loaded = _tolerantly(copy, file_kind.HDF5, None, custom, allow_lambda)
    except Exception as error:
        raise ConversionError(f"cannot read {path}: {_one_line(error)}") from error
    return Loaded(loaded.network, (*loaded.notes, f"read with tf_keras {tf_keras.__version__}"))


def _with_keras(path: Path, kind: str, custom: CustomObjects, allow_lambda: bool) -> Any:
    """What Keras itself makes of the file, under a name with the suffix that it expects."""
    suffix = ".h5" if kind == file_kind.HDF5 else ".keras"
    with tempfile.TemporaryDirectory() as folder, suppressed_output():
        if path.suffix != suffix:
            link = Path(folder, f"model{suffix}")
            link.symlink_to(path.resolve())
            path = link
        return keras.models.load_model(
            path, custom_objects=dict(custom), compile=False, safe_mode=not allow_lambda
        )


def _means_otherwise(path: Path, kind: str) -> bool:
    """Whether Keras 3 reads the file without an error, but computes something else or cannot run.

    TensorFlow runs channels first on a GPU only.
    """
    try:
        if kind == file_kind.KERAS:
            with zipfile.ZipFile(path) as archive:
                return f'"{_FIRST}"'.encode() in archive.read("config.json")
        with h5py.File(path, "r") as weights:
            text = _attribute(weights, "model_config")
            differs = '"hard_sigmoid"' in text or _attribute(weights, "backend") == _THEANO
            return f'"{_FIRST}"' in text or (differs and keras_version({}, weights) < 3)
    except (OSError, KeyError, zipfile.BadZipFile):  # truncated: the error comes when it is read
        return False


def _attribute(weights: Any, name: str) -> str:
    value = weights.attrs.get(name, "")
    return value.decode() if isinstance(value, bytes) else str(value)


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def import_custom_objects(name: str) -> dict[str, Any]:
    """The classes and functions of a module, given as ``FILE.py`` or by its dotted name.

    Importing runs its code. Raises ConversionError.
    """
    module = import_module(name, "--custom-objects")
    found = {
        key: value
        for key, value in vars(module).items()
        if not key.startswith("_") and callable(value)
    }
    return {**found, **getattr(module, "CUSTOM_OBJECTS", {})}


def import_module(name: str, option: str) -> Any:
    """The module ``FILE.py`` or of that dotted name; its code runs. Raises ConversionError."""
    try:
        if not name.endswith(".py"):
            return importlib.import_module(name)
        spec = importlib.util.spec_from_file_location(Path(name).stem, name)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module  # Keras looks its classes up by module
        spec.loader.exec_module(module)
        return module
    except Exception as error:  # whatever the module's code raises
        raise ConversionError(
            f"{option} {name} cannot be imported: {_one_line(error)}; give FILE.py or a module name"
        ) from error


# --- the configuration ----------------------------------------------------------------------------


def _tolerantly(
    path: Path, kind: str, architecture: str | None, custom: CustomObjects, allow_lambda: bool
) -> Loaded:
    with _weights_file(path, kind) as weights:
        if architecture is not None and ".py" in architecture:
            network = _call(architecture)
            assign(weights, tree_of(network))
            return Loaded(network, (f"the network comes from {architecture}",))
        config = _config(path, kind, weights, architecture)
        builder = Builder(custom, allow_lambda, keras_version(config, weights))
        inner = builder.unwrap_copies(config)
        tree = builder.model(inner)
        # The weights of a nested network are stored under its name.
        assign(weights, tree if inner is config else Node("", "Functional", None, [tree]))
        if _THEANO in (config.get("backend"), _attribute(weights, "backend")):
            _turn_kernels(tree)
            builder.note("its kernels were turned by 180 degrees: Theano convolves")
        network = tree.layer
        if builder.channels_first and network.input_shape[1] in (1, 3):
            network = _channels_last(network)
            builder.note("its input takes channels first; it was turned to channels last")
        return Loaded(network, tuple(builder.notes))


def _weights_file(path: Path, kind: str) -> Any:
    if kind == file_kind.HDF5:
        try:
            return h5py.File(path, "r")
        except OSError as error:
            if "truncated" in str(error):
                raise CertainError(
                    f"it is truncated ({path.stat().st_size:,} bytes); copy it again"
                ) from error
            raise ConversionError(_one_line(error)) from error
    with zipfile.ZipFile(path) as archive:
        return h5py.File(io.BytesIO(archive.read("model.weights.h5")), "r")


def _config(path: Path, kind: str, weights: Any, architecture: str | None) -> dict[str, Any]:
    if architecture is not None:
        try:
            text: str | bytes = Path(architecture).read_bytes()
        except OSError as error:
            raise ConversionError(f"--architecture {architecture}: {error.strerror}") from error
    elif kind == file_kind.KERAS:
        with zipfile.ZipFile(path) as archive:
            text = archive.read("config.json")
    elif "model_config" in weights.attrs:
        text = weights.attrs["model_config"]
    else:
        raise CertainError(_without_config(path))
    try:
        config = json.loads(text)
    except ValueError as error:
        raise ConversionError(f"its configuration is not JSON ({error})") from error
    if not isinstance(config, dict) or "class_name" not in config:
        raise ConversionError(
            f"{architecture or 'its configuration'} does not describe a model: expected the JSON "
            "of model.to_json()"
        )
    return config


def _without_config(path: Path) -> str:
    near = [
        file.name
        for file in sorted(path.parent.glob("*.json"))
        if b'"class_name"' in file.read_bytes()[:2000]
    ]
    return (
        "it contains weights without a network: give the network's JSON with "
        f"--architecture {near[0] if near else 'FILE.json'}"
        + ("" if near else ", or the code that builds it with --architecture FILE.py:FUNCTION")
    )


def _call(architecture: str) -> Any:
    file, _, name = architecture.partition(":")
    module = import_module(file, "--architecture")
    make = getattr(module, name or "build_model", None)
    if not callable(make):
        raise ConversionError(
            f"--architecture {architecture}: {file} has no function {name or 'build_model'!r}; "
            "give FILE.py:FUNCTION"
        )
    return make()


def keras_version(config: Mapping[str, Any], weights: Any) -> int:
    """The major version of the Keras that wrote a file; 2 where the file does not say."""
    text = str(config.get("keras_version") or _attribute(weights, "keras_version"))
    if text[:1].isdigit():
        return int(text.split(".")[0])
    return 3 if str(config.get("module", "")).startswith("keras") and "nb_row" not in text else 2


@dataclass(slots=True)
class Node:
    """A layer, or a model with its layers in the order of its configuration.

    channels_first: whether its images have the channels first; ``layer`` has them last.
    """

    name: str
    class_name: str
    layer: Any
    children: list[Node] = field(default_factory=list)
    channels_first: bool = False

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        """The layer's answer to Keras tensors."""
        if not self.channels_first:
            return self.layer(*arguments, **options)
        image, *others = arguments
        answer = self.layer(keras.layers.Permute((2, 3, 1))(image), *others, **options)
        return keras.layers.Permute((3, 1, 2))(answer) if len(answer.shape) == 4 else answer

    def leaves(self) -> Iterator[Node]:
        """The layers below it, or itself."""
        if not self.children:
            yield self
        for child in self.children:
            yield from child.leaves()


_FIRST = "channels_first"
_THEANO = "theano"


def _turn_kernels(tree: Node) -> None:
    # As Keras 2 did: https://github.com/keras-team/keras/blob/2.3.1/keras/engine/saving.py
    for leaf in tree.leaves():
        if leaf.class_name in ("Conv1D", "Conv2D", "Conv2DTranspose"):
            kernel, *others = leaf.layer.get_weights()
            spatial = tuple(range(kernel.ndim - 2))
            leaf.layer.set_weights([np.flip(kernel, spatial), *others])


def _channels_last(network: Any) -> Any:
    channels, height, width = network.input_shape[1:]
    image = keras.Input((height, width, channels))
    return keras.Model(image, network(keras.layers.Permute((3, 1, 2))(image)), name=network.name)


def tree_of(network: Any) -> Node:
    """The tree of a network that is built already."""
    children = [tree_of(layer) for layer in getattr(network, "layers", ())]
    return Node(network.name, type(network).__name__, network, children)


_KERAS_1 = {
    "output_dim": "units",
    "nb_filter": "filters",
    "subsample": "strides",
    "border_mode": "padding",
    "bias": "use_bias",
    "p": "rate",
}
_OF_LAYER = {
    "LeakyReLU": (("alpha", "negative_slope"),),
    "AtrousConvolution2D": (("atrous_rate", "dilation_rate"),),
}
"""Arguments of single layers that were renamed since Keras 2."""
_RENAMED = {
    "Convolution2D": "Conv2D",
    "SeparableConvolution2D": "SeparableConv2D",
    "AtrousConvolution2D": "Conv2D",
    "Deconvolution2D": "Conv2DTranspose",
    "BatchNormalizationV1": "BatchNormalization",
    "BatchNormalizationV2": "BatchNormalization",
    "SyncBatchNormalization": "BatchNormalization",
    "CuDNNGRU": "GRU",
    "CuDNNLSTM": "LSTM",
}
_MODELS = ("Model", "Functional", "Sequential")
_TRAINING_ONLY = re.compile(r"(_initializer|_regularizer|_constraint|^activity_regularizer)$")
_HARMLESS = {
    *("batch_input_shape", "batch_shape", "input_dtype", "ragged", "sparse", "input_shape"),
    *("implementation", "time_major", "unroll", "stateful", "optional", "build_config"),
    *("init", "W_regularizer", "b_regularizer", "W_constraint", "b_constraint", "mode", "weights"),
    *(
        "trainable",
        "dim_ordering",
        "nb_row",
        "nb_col",
        "input_dim",
        "gamma_init",
        "beta_init",
        "fused",
        "renorm",
    ),
    *("virtual_batch_size", "adjustment", "input_length", "quantization_config", "lora_rank"),
}
"""Arguments that may be dropped without a note: they do not change what the layer computes."""
_AUGMENTATION = re.compile(
    r"^(Random\w+|AutoContrast|RandAugment|AugMix|MixUp|CutMix|Equalization|Solarization|"
    r"GaussianNoise|GaussianDropout|AlphaDropout|Pipeline)$"
)


class Builder:
    """Builds networks from configurations of Keras 1, 2 and 3.

    notes: what was changed or dropped. channels_first: whether a layer's images have the channels
    first.
    """

    def __init__(self, custom: CustomObjects, allow_lambda: bool, version: int) -> None:
        self.custom = custom
        self.allow_lambda = allow_lambda
        self.version = version
        self.notes: list[str] = []
        self.channels_first = False

    def note(self, text: str) -> None:
        """Add a note, once."""
        if text not in self.notes:
            self.notes.append(text)

    def unwrap_copies(self, config: dict[str, Any]) -> dict[str, Any]:
        """The network inside a multi-GPU wrapper: copies on slices of the batch, concatenated."""
        if config["class_name"] not in ("Model", "Functional"):
            return config
        layers = config["config"]["layers"]
        inner = [layer for layer in layers if layer["class_name"] in _MODELS]
        rest = {layer["class_name"] for layer in layers} - set(_MODELS)
        if len(inner) == 1 and rest <= {"InputLayer", "Lambda", "Concatenate"} and "Lambda" in rest:
            self.note("the multi-GPU wrapper was removed")
            content = inner[0]["config"]
            name = inner[0].get("name")
            if isinstance(content, dict) and name:
                content = {**content, "name": name}
            return {**inner[0], "config": content}
        return config

    def model(self, config: Mapping[str, Any]) -> Node:
        """A Sequential or functional model. Raises ConversionError."""
        content, name = config["config"], config["class_name"]
        if name == "Sequential":
            return self._sequential(content)
        if name in _MODELS or (isinstance(content, dict) and "output_layers" in content):
            return self._functional(content)
        raise ConversionError(
            f"it is a model of the class {name!r}, which only its own code can build: give the "
            "module that defines it with --custom-objects MODULE"
        )

    def _sequential(self, content: Any) -> Node:
        # Up to Keras 2.2.2 the configuration was the list of layers itself.
        configs = content if isinstance(content, list) else content["layers"]
        name = "sequential" if isinstance(content, list) else content.get("name", "sequential")
        shape = None if isinstance(content, list) else content.get("build_input_shape")
        image, children = None, []
        for config in configs:
            found = _input_shape(config)
            if image is None and found is not None:
                shape = found
            if config["class_name"] == "InputLayer":
                continue
            child = self.node(config)
            children.append(child)
            if image is None:
                shape = shape or _shape_of(child.layer)
                if shape is None:
                    raise ConversionError(
                        "its Sequential network does not say its input size: build the network in "
                        "code and give --architecture FILE.py:FUNCTION"
                    )
                image = x = keras.Input(shape[1:])
            x = child(x)
        return Node(name, "Sequential", keras.Model(image, x, name=_safe(name)), children)

    def _functional(self, content: Mapping[str, Any]) -> Node:
        made: dict[str, list[Any]] = {}  # outputs by layer, one per call
        children: dict[str, Node] = {}
        waiting: list[tuple[str, Any]] = []
        for config in content["layers"]:
            name = config.get("name") or config["config"]["name"]
            if config["class_name"] == "InputLayer":
                made[name] = [keras.Input(_input_shape(config)[1:], name=_safe(name))]
                continue
            children[name] = self.node(config)
            waiting += [(name, call) for call in config["inbound_nodes"] if call]
        calls = {name: sum(other == name for other, _ in waiting) for name in children}
        first = _first_calls(content, calls)
        while waiting:
            later: list[tuple[str, Any]] = []
            for name, call in waiting:
                # The calls of a layer keep their order: others refer to them by position.
                ready = all(
                    len(made.get(layer, ())) > at - first.get(layer, 0)
                    for layer, at in _references(call)
                )
                if not ready or any(other == name for other, _ in later):
                    later.append((name, call))
                    continue
                arguments, options = _arguments(call, made, first)
                made.setdefault(name, []).append(children[name](*arguments, **options))
            if len(later) == len(waiting):
                raise ConversionError(f"its layers {later[0][0]} and others depend on each other")
            waiting = later
        inputs = [_tensor(made, end, first) for end in _ends(content["input_layers"])]
        outputs = [_tensor(made, end, first) for end in _ends(content["output_layers"])]
        name = content.get("name", "model")
        network = keras.Model(_alone(inputs), _alone(outputs), name=_safe(name))
        return Node(name, "Functional", network, list(children.values()))

    def node(self, config: Mapping[str, Any]) -> Node:
        """One layer, or a nested model."""
        class_name = config["class_name"]
        content = config["config"]
        if class_name in _MODELS and class_name not in self.custom:
            node = self.model(config)
            # Weights are stored under the name that the outer model uses.
            node.name = config.get("name") or node.name
            return node
        name = content.get("name") or config.get("name") or class_name.lower()
        first = content.get("data_format") == _FIRST
        content = {**content, **({"data_format": "channels_last"} if first else {})}
        self.channels_first |= first
        layer = self.layer(class_name, content, name)
        return Node(name, class_name, layer, channels_first=first)

    def layer(self, class_name: str, content: dict[str, Any], name: str) -> Any:
        """A layer from its configuration. Raises ConversionError."""
        if class_name in ("TFOpLambda", "SlicingOpLambda", "TensorFlowOpLayer"):
            return _tensorflow_function(class_name, content, name)
        if class_name == "Lambda":
            return self._lambda(content, name)
        if _AUGMENTATION.match(class_name):
            self.note(f"{class_name} ({name}) was removed: it works only in training")
            return keras.layers.Activation("linear", name=_safe(name))
        kind = (
            self.custom.get(class_name)
            or keras.saving.get_registered_object(str(content.get("registered_name", class_name)))
            or getattr(keras.layers, _RENAMED.get(class_name, class_name), None)
        )
        if kind is None:
            raise ConversionError(
                f"it uses the layer {class_name!r}, which Keras does not have: give the module "
                "that defines it with --custom-objects MODULE"
            )
        content = self._translated(class_name, content)
        if kind is keras.layers.Bidirectional or kind is keras.layers.TimeDistributed:
            inner = content.pop("layer")
            node = self.node(inner)
            if node.channels_first:
                raise ConversionError(f"the layer {name} contains one that takes channels first")
            content["layer"] = node.layer
            content.pop("backward_layer", None)
        accepted = self._accepted(kind, content, name)
        try:
            return kind(**accepted) if class_name not in self.custom else kind.from_config(accepted)
        except (TypeError, ValueError) as error:
            raise ConversionError(f"the layer {name} ({class_name}): {_one_line(error)}") from error

    def _translated(self, class_name: str, content: Mapping[str, Any]) -> dict[str, Any]:
        """The arguments in Keras 3's words; what matters only in training is left out."""
        translated = _renamed(class_name, content, self.version)
        for key in ("activation", "recurrent_activation"):
            if key in translated:
                translated[key] = self._activation(translated[key])
        translated["name"] = _safe(translated.get("name") or class_name.lower())
        return {key: value for key, value in translated.items() if not _TRAINING_ONLY.search(key)}

    def _activation(self, value: Any) -> Any:
        if isinstance(value, dict):
            inner = value.get("config")
            value = inner if isinstance(inner, str) else value.get("class_name")
        if isinstance(value, str) and value in self.custom:
            return self.custom[value]
        if value == "hard_sigmoid" and self.version < 3:
            return _hard_sigmoid_of_keras_2
        return value

    def _accepted(self, kind: Any, content: dict[str, Any], name: str) -> dict[str, Any]:
        """The arguments that a class takes; the others are dropped with a note."""
        known = _parameters(kind)
        kept = {key: value for key, value in content.items() if known is None or key in known}
        for key in set(content) - set(kept) - _HARMLESS:
            unset = content[key] is None or (key == "groups" and content[key] == 1)
            if not unset:
                self.note(f"{name}: the argument {key}={content[key]!r} is unknown and was dropped")
        return kept

    def _lambda(self, content: Mapping[str, Any], name: str) -> Any:
        function = content.get("function")
        for key in (name, function):
            if isinstance(key, str) and key in self.custom:
                return keras.layers.Lambda(self.custom[key], name=_safe(name))
        if not self.allow_lambda:
            raise CertainError(
                f"the Lambda layer {name} is Python code: give the function by its name with "
                "--custom-objects MODULE, or run the code in the file with --allow-lambda if you "
                "trust where it comes from"
            )
        raise ConversionError(
            f"the Lambda layer {name} holds bytecode of another Python version: define a function "
            f"named {name} and give it with --custom-objects MODULE"
        )


def _renamed(class_name: str, content: Mapping[str, Any], version: int) -> dict[str, Any]:
    """The arguments in the names and forms of Keras 3. Raises ConversionError."""
    if content.get("dim_ordering") == "th":
        raise ConversionError(
            "it is a file of Keras 1 in Theano's order, whose kernels are arranged differently: "
            "save it again with Keras 2.0 to 2.3, which converts them"
        )
    renamed = dict(content)
    for old, new in (*_OF_LAYER.get(class_name, ()), *(_KERAS_1.items() if version < 2 else ())):
        if old in renamed:
            renamed.setdefault(new, renamed.pop(old))
    if "nb_row" in renamed:
        renamed["kernel_size"] = (renamed["nb_row"], renamed["nb_col"])
    if class_name == "BatchNormalization" and isinstance(renamed.get("axis"), list):
        renamed["axis"] = renamed["axis"][0]
    dtype = renamed.get("dtype")
    if isinstance(dtype, dict) or (isinstance(dtype, str) and "float32" not in dtype):
        renamed["dtype"] = "float32"
    return renamed


def _hard_sigmoid_of_keras_2(x: Any) -> Any:
    """Keras 3 computes another function under this name."""
    return keras.ops.clip(0.2 * x + 0.5, 0.0, 1.0)


def _tensorflow_function(class_name: str, content: Mapping[str, Any], name: str) -> Any:
    """A layer that calls a TensorFlow function, as Keras 2 stores operators in a functional model.

    The function is looked up in TensorFlow by name: no code from the file runs.
    """
    import tensorflow as tf

    path = str(content.get("function", ""))
    if class_name == "SlicingOpLambda" or path.startswith("__operators__"):
        operator = path.rpartition(".")[2]
        plain: dict[str, Callable[..., Any]] = {
            "add": lambda x, y, **_: x + y,
            "getitem": _slice,
        }
        function = plain.get(operator)
    else:
        found: Any = tf
        for part in path.split("."):
            found = getattr(found, part, None)
        safe = path.split(".")[0] not in ("io", "py_function", "numpy_function", "load_op_library")
        function = found if callable(found) and safe else None
    if function is None:
        raise ConversionError(
            f"the layer {name} calls TensorFlow's {path or class_name!r}, which is not available"
        )

    called = function

    class Call(keras.layers.Layer):  # type: ignore[misc]
        def call(self, *arguments: Any, **options: Any) -> Any:
            options.pop("name", None)
            if "dtype" in options:
                options["dtype"] = tf.as_dtype(options["dtype"])
            return called(*arguments, **options)

    return Call(name=_safe(name))


def _slice(x: Any, slice_spec: Any, **_: Any) -> Any:
    def part(item: Any) -> Any:
        if isinstance(item, dict) and item.get("class_name") == "__ellipsis__":
            return Ellipsis
        if isinstance(item, dict):
            return slice(item.get("start"), item.get("stop"), item.get("step"))
        return Ellipsis if item == "..." else item

    items = slice_spec if isinstance(slice_spec, list | tuple) else [slice_spec]
    return x[tuple(part(item) for item in items)]


def _parameters(kind: Any) -> set[str] | None:
    """Arguments of a class's constructor; None where it takes any."""
    known: set[str] = set()
    for cls in inspect.getmro(kind):
        if "__init__" not in vars(cls):
            continue
        parameters = inspect.signature(vars(cls)["__init__"]).parameters.values()
        known |= {p.name for p in parameters if p.kind is not p.VAR_KEYWORD} - {"self"}
        if cls is keras.layers.Layer:
            break
        if not any(p.kind is p.VAR_KEYWORD for p in parameters):
            return known
    return known | {"name", "trainable", "dtype"}


def _input_shape(config: Mapping[str, Any]) -> Any:
    content = config["config"]
    if not isinstance(content, dict):
        return None
    shape = content.get("batch_input_shape") or content.get("batch_shape")
    if shape is None and config["class_name"] in _MODELS and isinstance(content, dict):
        layers = content.get("layers") or [None]
        return _input_shape(layers[0]) if layers[0] else None
    if isinstance(shape, dict):  # Keras 3 stores tuples so
        shape = shape.get("items") or shape.get("config")
    return None if shape is None else tuple(shape)


def _shape_of(layer: Any) -> Any:
    return tuple(layer.input_shape) if isinstance(layer, keras.Model) else None


def _references(call: Any) -> list[tuple[str, int]]:
    """Layer and call number of every tensor that a call takes."""
    if isinstance(call, dict) and call.get("class_name") == "__keras_tensor__":
        layer, at, _ = call["config"]["keras_history"]
        return [(layer, at)]
    if isinstance(call, dict):
        return [found for value in call.values() for found in _references(value)]
    if _is_reference(call):
        options = call[3] if len(call) > 3 else {}
        return [(call[0], call[1]), *_references(options)]
    if isinstance(call, list | tuple):
        return [found for value in call for found in _references(value)]
    return []


def _is_reference(value: Any) -> bool:
    return (
        isinstance(value, list | tuple)
        and len(value) in (3, 4)
        and isinstance(value[0], str)
        and isinstance(value[1], int)
        and isinstance(value[2], int)
    )


def _first_calls(content: Mapping[str, Any], calls: Mapping[str, int]) -> dict[str, int]:
    """The number of each layer's first call in this model, where it is not 0.

    Keras counts the calls of a layer in all models: a nested model counts its own making.
    """
    ends = [*_ends(content["output_layers"])]
    found = [(end[0], end[1]) for end in ends]
    for config in content["layers"]:
        found += _references(config.get("inbound_nodes") or [])
    last: dict[str, int] = {}
    for layer, at in found:
        last[layer] = max(at, last.get(layer, 0))
    return {
        name: at - calls.get(name, 1) + 1 for name, at in last.items() if at >= calls.get(name, 1)
    }


def _arguments(
    call: Any, made: Mapping[str, list[Any]], first: Mapping[str, int]
) -> tuple[list[Any], dict[str, Any]]:
    """Positional and named arguments of a call, its references replaced by tensors."""

    def resolved(value: Any) -> Any:
        if isinstance(value, dict) and value.get("class_name") == "__keras_tensor__":
            return _tensor(made, value["config"]["keras_history"], first)
        if _is_reference(value):
            return _tensor(made, value, first)
        if isinstance(value, dict):
            return {key: resolved(item) for key, item in value.items()}
        if isinstance(value, list):
            if len(value) == 2 and value[0] == "_CONSTANT_VALUE":
                return value[1]
            return [resolved(item) for item in value]
        return value

    if isinstance(call, dict):  # Keras 3
        return [resolved(item) for item in call["args"]], _options(resolved(call["kwargs"]))
    calls = [call] if _is_reference(call) else call
    options: Any = next((item[3] for item in calls if len(item) > 3 and item[3]), {})
    tensors = [_tensor(made, item, first) for item in calls]
    return [_alone(tensors)], _options(resolved(options))


def _options(options: dict[str, Any]) -> dict[str, Any]:
    drop = ("training", "mask")
    return {key: value for key, value in options.items() if key not in drop}


def _tensor(made: Mapping[str, list[Any]], end: Sequence[Any], first: Mapping[str, int]) -> Any:
    layer, call, output = end[:3]
    found = made[layer][call - first.get(layer, 0)]
    return found[output] if isinstance(found, list | tuple) else found


def _ends(value: Any) -> list[Any]:
    return [value] if _is_reference(value) else list(value)


def _alone(values: list[Any]) -> Any:
    return values[0] if len(values) == 1 else values


def _safe(name: str) -> str:
    return name.replace("/", "_")  # Keras 3 refuses a slash in a name


# --- the weights ----------------------------------------------------------------------------------


def assign(weights: Any, tree: Node) -> None:
    """Give every layer its weights from an HDF5 file, of any of Keras' three arrangements.

    Raises ConversionError when a layer's weights are absent or of another shape.
    """
    stored = weights.get("model_weights", weights)
    if any(key in stored for key in ("layers", "_layer_checkpoint_dependencies")):
        _assign_by_class(stored, tree)
        return
    for child in tree.children or [tree]:
        leaves = [leaf for leaf in child.leaves() if leaf.layer.weights]
        if not leaves:
            continue
        group = stored.get(child.name)
        arrays = [] if group is None else _named(group)
        for leaf in leaves:
            _assign_named(leaf, arrays, alone=len(leaves) == 1)


def _named(group: Any) -> list[tuple[str, Any]]:
    """Names and arrays of a layer's group, in the order in which Keras stored them."""
    names = [
        name.decode() if isinstance(name, bytes) else str(name)
        for name in group.attrs.get("weight_names", ())
    ]
    return [(name, np.asarray(group[name])) for name in names]


def _assign_named(leaf: Node, arrays: list[tuple[str, Any]], *, alone: bool) -> None:
    mine = arrays
    if not alone:
        mine = [item for item in arrays if leaf.name in item[0].split("/")]
    wanted = [variable.path.rpartition("/")[2] for variable in leaf.layer.weights]
    by_name = {name.rpartition("/")[2].partition(":")[0]: array for name, array in mine}
    if len(by_name) == len(mine) and set(wanted) <= set(by_name):
        values = [by_name[name] for name in wanted]
    else:
        values = [array for _, array in mine]
    _set(leaf, values)


def _assign_by_class(stored: Any, tree: Node) -> None:
    """The arrangement of ``.keras``: layers numbered by their class, in the model's order."""
    key = "layers" if "layers" in stored else "_layer_checkpoint_dependencies"
    used: dict[str, int] = {}
    for child in tree.children:
        kind = _snake(child.class_name)
        number = used.get(kind, 0)
        used[kind] = number + 1
        name = kind if number == 0 else f"{kind}_{number}"
        groups = stored[key]
        group = groups.get(name)
        if group is None:  # some versions number by the layers' own names
            group = groups.get(child.name)
        if child.children:
            if group is None:
                raise ConversionError(f"the weights of {child.name} are not in the file")
            _assign_by_class(group, child)
        elif child.layer.weights:
            _set(child, [] if group is None else _arrays(group))


def _arrays(group: Any) -> list[Any]:
    found: list[Any] = []
    for key in sorted(group, key=lambda key: (key != "vars", len(key), key)):
        if key == "seed_generator":  # the state of a random generator is not a weight
            continue
        item = group[key]
        found += [np.asarray(item)] if isinstance(item, h5py.Dataset) else _arrays(item)
    return found


def _set(leaf: Node, values: list[Any]) -> None:
    layer = leaf.layer
    expected = [tuple(variable.shape) for variable in layer.weights]
    if [tuple(value.shape) for value in values] != expected:
        shapes = ", ".join("x".join(map(str, value.shape)) or "scalar" for value in values)
        raise ConversionError(
            f"the layer {leaf.name} ({leaf.class_name}) takes weights of "
            f"{', '.join('x'.join(map(str, shape)) for shape in expected)}, the file has "
            f"{shapes or 'none'}: the network and the weights do not belong together"
        )
    layer.set_weights(values)
    if isinstance(layer, keras.layers.Normalization):
        layer.finalize_state()  # what it computes with is derived from its weights


def _snake(name: str) -> str:
    name = re.sub(r"\W+", "", name)
    name = re.sub("(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub("([a-z])([A-Z])", r"\1_\2", name).lower()
