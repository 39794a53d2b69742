"""Images judged by networks made here, against the same arithmetic in NumPy."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from data.texts import make_batch
from sharpen.core.errors import ConfigError, DataError, FileFormatError, MissingFileError
from sharpen.data import Dataset, ops
from sharpen.data.process import operators_of

RNG = np.random.default_rng(0)
KERNEL = RNG.normal(size=(4, 3, 3, 3)).astype(np.float32)
WEIGHT = RNG.normal(size=(4, 2)).astype(np.float32)
BIAS = np.array([0.1, -0.2], np.float32)


def network(
    path: Path,
    *,
    batch: int | str = "n",
    side: int | str = 8,
    weight: Any = WEIGHT,
    kind: int = TensorProto.FLOAT,
) -> Path:
    """Convolution, ReLU, mean over the image, linear: two classes."""
    nodes = [
        helper.make_node("Cast", ["x"], ["real"], to=TensorProto.FLOAT),
        helper.make_node("Conv", ["real", "kernel"], ["c"], kernel_shape=[3, 3]),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("GlobalAveragePool", ["r"], ["p"]),
        helper.make_node("Flatten", ["p"], ["f"]),
        helper.make_node("Gemm", ["f", "weight", "bias"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("x", kind, [batch, 3, side, side])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [batch, 2])],
        [
            numpy_helper.from_array(KERNEL, "kernel"),
            numpy_helper.from_array(np.asarray(weight, np.float32), "weight"),
            numpy_helper.from_array(BIAS, "bias"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    path.write_bytes(model.SerializeToString())
    return path


def reference(x: np.ndarray) -> np.ndarray:
    """[n, 2] logits of [n, 3, height, width]."""
    windows = np.lib.stride_tricks.sliding_window_view(x.astype(np.float64), (3, 3), (2, 3))
    convolved = np.einsum("nchwij,kcij->nkhw", windows, KERNEL.astype(np.float64))
    return np.maximum(convolved, 0).mean((2, 3)) @ WEIGHT + BIAS


def picture(seed: int, size: tuple[int, int] = (8, 8), mode: str = "RGB") -> Image.Image:
    bands = len(Image.new(mode, (1, 1)).getbands())
    values = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], bands), np.uint8)
    return Image.fromarray(values.squeeze(), mode)


def address(image: Image.Image) -> str:
    sink = io.BytesIO()
    image.save(sink, "PNG")
    return "data:image/png;base64," + base64.b64encode(sink.getvalue()).decode()


def scores(one: Any, rows: list[list[Image.Image]]) -> list[list[float]]:
    fields = [{"images": [address(image) for image in row]} for row in rows]
    batch = make_batch(["text"] * len(rows), fields)
    return list(one.measure(batch)["image_onnx_classifier"])


def softmax(logits: np.ndarray) -> np.ndarray:
    made = np.exp(logits - logits.max(1, keepdims=True))
    return made / made.sum(1, keepdims=True)


@pytest.mark.parametrize("batch", [1, 3, 32])
def test_scores_are_those_of_the_network(tmp_path: Path, batch: int) -> None:
    path = network(tmp_path / "m.onnx")
    images = [picture(i) for i in range(7)]
    one = ops.image_onnx_classifier(model=str(path), batch=batch, mean=(0.4, 0.5, 0.6), std=(0.2,))
    x = np.stack([np.asarray(image) for image in images]) / 255
    x = ((x - [0.4, 0.5, 0.6]) / 0.2).transpose(0, 3, 1, 2)
    wanted = softmax(reference(x))[:, 1]
    found = scores(one, [images[:3], [], images[3:]])
    assert [len(row) for row in found] == [3, 0, 4]
    assert np.concatenate([found[0], found[2]]) == pytest.approx(wanted, abs=1e-5)


def test_outputs_classes_and_bands_are_as_asked(tmp_path: Path) -> None:
    path = str(network(tmp_path / "m.onnx"))
    image = picture(3)
    x = (np.asarray(image)[None, :, :, ::-1] / 255 - 0.5).transpose(0, 3, 1, 2) / 0.5
    logits = reference(x)[0]
    common = {"model": path, "bands": "bgr", "labels": ("fine", "bad")}
    for output, wanted in (
        ("none", logits[0]),
        ("sigmoid", 1 / (1 + np.exp(-logits[0]))),
        ("softmax", softmax(logits[None])[0, 0]),
    ):
        one = ops.image_onnx_classifier(**common, classes=("fine",), output=output)
        assert scores(one, [[image]])[0] == pytest.approx([wanted], abs=1e-5)
    both = ops.image_onnx_classifier(**common, classes=("bad", "0"))
    assert scores(both, [[image]])[0] == pytest.approx([1.0])


def test_images_of_any_shape_and_mode_become_the_networks(tmp_path: Path) -> None:
    free = str(network(tmp_path / "free.onnx", side="side"))
    fixed = str(network(tmp_path / "fixed.onnx", batch=2))
    odd = [picture(1, (31, 9)), picture(2, (5, 40), "RGBA"), picture(3, (8, 8), "L")]
    for resize in ("stretch", "crop"):
        one = ops.image_onnx_classifier(model=free, size=(8, 8), resize=resize)
        other = ops.image_onnx_classifier(model=fixed, resize=resize)
        assert scores(one, [odd]) == [pytest.approx(scores(other, [odd])[0], abs=1e-6)]
    wide = Image.new("RGB", (24, 8))
    wide.paste(picture(5), (8, 0))
    crop = ops.image_onnx_classifier(model=free, size=(8, 8), resize="crop")
    assert scores(crop, [[wide]])[0] == pytest.approx(scores(crop, [[picture(5)]])[0])


def test_networks_of_whole_numbers_are_given_pixels(tmp_path: Path) -> None:
    path = network(tmp_path / "m.onnx", kind=TensorProto.UINT8)
    image = picture(4)
    logits = reference(np.asarray(image)[None].transpose(0, 3, 1, 2))
    one = ops.image_onnx_classifier(model=str(path), output="none")
    assert scores(one, [[image]])[0] == pytest.approx([logits[0, 1]], rel=1e-4)


def test_rows_are_kept_by_their_images_and_damaged_ones_fail_alone(tmp_path: Path) -> None:
    path = network(tmp_path / "m.onnx")
    images = [picture(i) for i in range(20)]
    one = ops.image_onnx_classifier(model=str(path))
    values = [row[0] for row in scores(one, [[image] for image in images])]
    middle = float(np.median(values))
    rows = [{"text": str(i), "images": [address(image)]} for i, image in enumerate(images)]
    rows.append({"text": "broken", "images": ["data:image/png;base64,AAAA"]})
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (made,) = operators_of([{"image_onnx_classifier": {"model": str(path), "max": middle}}])
    result = (
        Dataset.read(tmp_path / "in.jsonl")
        .apply(made)
        .write(tmp_path / "out", on_error="skip", trace=True, workers=2)
    )
    assert result.rows_out == sum(value <= middle for value in values)
    assert "is no image" in result.why(20)[0]["reason"]
    gone = next(i for i, value in enumerate(values) if value > middle)
    assert result.why(gone)[0]["value"] == pytest.approx(values[gone])


def test_what_is_no_number_is_an_error(tmp_path: Path) -> None:
    path = network(tmp_path / "m.onnx", weight=np.full((4, 2), np.nan))
    one = ops.image_onnx_classifier(model=str(path))
    with pytest.raises(DataError, match=r"m\.onnx comes to what is no number for a data: address"):
        scores(one, [[picture(1)]])


def test_sizes_that_the_network_cannot_take_are_an_error(tmp_path: Path) -> None:
    path = network(tmp_path / "m.onnx", side="side")
    one = ops.image_onnx_classifier(model=str(path), size=(2, 2))
    with pytest.raises(DataError, match=r"cannot take images of the shape \[3, 2, 2\]"):
        scores(one, [[picture(1)]])


def strange(path: Path, shape: list[Any], kind: int = TensorProto.FLOAT, inputs: int = 1) -> str:
    names = [f"x{i}" for i in range(inputs)]
    graph = helper.make_graph(
        [helper.make_node("Identity", [names[0]], ["y"])],
        "strange",
        [helper.make_tensor_value_info(name, kind, shape) for name in names],
        [helper.make_tensor_value_info("y", kind, shape)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    path.write_bytes(model.SerializeToString())
    return str(path)


def test_files_that_are_no_classifiers_are_refused(tmp_path: Path) -> None:
    whole = network(tmp_path / "m.onnx").read_bytes()
    for name, data in (("cut", whole[: len(whole) // 2]), ("empty", b""), ("text", b"hello")):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(FileFormatError, match=f"{name} is no ONNX file that can be run"):
            ops.image_onnx_classifier(model=str(tmp_path / name))
    with pytest.raises(FileFormatError, match=r"shape \['n', 5\]; it must be \[n, channels"):
        ops.image_onnx_classifier(model=strange(tmp_path / "a", ["n", 5]))
    with pytest.raises(FileFormatError, match=r"the input 'x0' is tensor\(int64\)"):
        ops.image_onnx_classifier(model=strange(tmp_path / "b", ["n", 3, 8, 8], TensorProto.INT64))
    with pytest.raises(FileFormatError, match="must have one input, images; it has x0, x1"):
        ops.image_onnx_classifier(model=strange(tmp_path / "c", ["n", 3, 8, 8], inputs=2))
    with pytest.raises(MissingFileError, match="there is no model"):
        ops.image_onnx_classifier(model=str(tmp_path / "gone"))


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"size": (4, 4)}, r"takes images of \[8, 8\]"),
        ({"size": (8,)}, "must be a width and a height"),
        ({"mean": (0.5, 0.5)}, "mean must have 1 or 3 values"),
        ({"std": (0.0,)}, r"std=\[0.0\] must be above 0"),
        ({"labels": ("a", "b", "c")}, "has 2 outputs; labels names 3"),
        ({"classes": ("2",)}, "classes: 2; there are: 0 to 1"),
        ({"classes": ("no",), "labels": ("a", "b")}, "classes: no; there are: a, b"),
        ({"classes": ()}, "classes: none"),
        ({"resize": "fit"}, "resize='fit' must be one of stretch, crop"),
        ({"batch": 0}, "batch=0"),
    ],
)
def test_wrong_arguments_are_refused(tmp_path: Path, arguments: Any, told: str) -> None:
    path = str(network(tmp_path / "m.onnx"))
    with pytest.raises(ConfigError, match=told):
        ops.image_onnx_classifier(model=path, **arguments)


def test_a_network_of_any_size_needs_one(tmp_path: Path) -> None:
    path = str(network(tmp_path / "m.onnx", side="side"))
    with pytest.raises(ConfigError, match=r"takes images of any size: give size"):
        ops.image_onnx_classifier(model=path)
