"""Layers of Caffe's forks against NumPy, each written from the public source that its docstring names."""

from __future__ import annotations

from caffe2fluid.errors import ConvertError
from caffe2fluid.tests.tools import caffemodel, run, translate_files

import numpy as np
import pytest

X = np.random.default_rng(0).standard_normal((2, 8, 4, 6)).astype(np.float32)


def converted(folder, kind, body="", blobs=None, inputs=None, tops=("l",)):
    """The tops of one layer on these inputs (default: X)."""
    inputs = {"data": X} if inputs is None else inputs
    text = "".join(f'input: "{name}" input_shape {{ dim: {list(array.shape)} }}\n' for name, array in inputs.items())
    reads = " ".join(f'bottom: "{name}"' for name in inputs)
    text += f'layer {{ name: "l" type: "{kind}" {reads} {" ".join(f"""top: "{top}" """ for top in tops)} {body} }}'
    (folder / "net.prototxt").write_text(text)
    if blobs is not None:
        (folder / "net.caffemodel").write_bytes(caffemodel({"l": (kind, blobs)}))
    translation = translate_files(folder / "net.prototxt", folder / "net.caffemodel" if blobs is not None else None)
    return [run(translation, inputs)[top] for top in tops]


def reorg(x, stride, reverse):
    """reorg_cpu in include/caffe/layers/reorg_layer.hpp, called by src/caffe/layers/reorg_layer.cpp with the bottom's
    sizes (github.com/Cambricon/caffe, b4bd3b726c584a209e2c30a653bd55a31c33c59b)."""
    batch, channels, height, width = x.shape
    fewer = channels // stride**2
    flat, out = x.reshape(batch, -1), np.empty((batch, x[0].size), x.dtype)
    for c in range(channels):
        for h in range(height):
            for w in range(width):
                one = w + width * (h + height * c)
                offset = c // fewer
                column, row = w * stride + offset % stride, h * stride + offset // stride
                other = column + width * stride * (row + height * stride * (c % fewer))
                if reverse:
                    out[:, other] = flat[:, one]
                else:
                    out[:, one] = flat[:, other]
    if reverse:
        return out.reshape(batch, fewer, height * stride, width * stride)
    return out.reshape(batch, channels * stride**2, height // stride, width // stride)


@pytest.mark.parametrize("reverse", [False, True])
def test_reorg(reverse, tmp_path):
    (ours,) = converted(tmp_path, "Reorg", f"reorg_param {{ stride: 2 reverse: {str(reverse).lower()} }}")
    np.testing.assert_array_equal(ours, reorg(X, 2, reverse))


@pytest.mark.parametrize("kind", ["SeLu", "SeLU", "SELU"])
@pytest.mark.parametrize(
    ("body", "alpha", "scale"), [("", 1.67326324, 1.050700987), ("alpha: 1.5 lambda: 0.9", 1.5, 0.9)]
)
def test_selu(kind, body, alpha, scale, tmp_path):
    """SeLuLayer::Forward_cpu in src/caffe/layers/selu_layer.cpp (github.com/fireae/caffe_latte,
    715da18e3ab1764e3795b8757d95bff8ccbf0df1; as SeLU in foss-for-synopsys-dwc-arc-processors/synopsys-caffe): x > 0 ?
    lambda * x : lambda * alpha * (exp(x) - 1)."""
    (ours,) = converted(tmp_path, kind, f"selu_param {{ {body} }}")
    np.testing.assert_allclose(ours, np.where(X > 0, scale * X, scale * alpha * (np.exp(X) - 1)), rtol=1e-5, atol=1e-6)


def test_mish(tmp_path):
    """MishLayer::Forward_cpu in src/caffe/layers/mish_layer.cpp (github.com/foss-for-synopsys-dwc-arc-processors/
    synopsys-caffe, ffc96cc18be910a0c04b410253e94c2890acac95): x * (2 / (1 + exp(-2 s)) - 1), s = log(exp(x) + 1) within
    -20..20."""
    x = (X * 15).astype(np.float64)
    soft = np.where(x > 20, x, np.where(x < -20, np.exp(x), np.log(np.exp(x) + 1)))
    (ours,) = converted(tmp_path, "Mish", inputs={"data": X * 15})
    np.testing.assert_allclose(ours, x * (2 / (1 + np.exp(-2 * soft)) - 1), rtol=1e-4, atol=1e-6)


def test_spatial_dropout_does_nothing_at_test_time(tmp_path):
    """SpatialDropoutLayer::Forward_cpu in src/caffe/layers/spatial_dropout_layer.cpp (github.com/jtetrea/caffe-enet,
    fe04743803b4448715cfedbb587e8f5b8f5c06a4) copies unless it trains."""
    for message in ("spatial_dropout_param", "dropout_param"):
        (ours,) = converted(tmp_path, "SpatialDropout", f"{message} {{ dropout_ratio: 0.1 }}")
        np.testing.assert_array_equal(ours, X)
    with pytest.raises(ConvertError, match="sample_weights_test"):
        converted(tmp_path, "SpatialDropout", "spatial_dropout_param { sample_weights_test: true }")


@pytest.mark.parametrize("flag", [False, True])
def test_continuation_indicator(flag, tmp_path):
    """ContinuationIndicatorLayer::Forward_cpu in src/caffe/layers/continuation_indicator_layer.cpp (github.com/dlunion/CC4.0,
    1225991c1d6547dfdbe38bd5619cb34602e9303b): [time_step, batch_size], t == 0 ? 0 : 1, or 1 where the flag is set."""
    text = 'input: "x" input_shape { dim: 3 dim: 2 dim: 5 }\n'
    text += (
        'layer { name: "c" type: "ContinuationIndicator" top: "c" continuation_indicator_param '
        f"{{ time_step: 3 batch_size: 2 flag: {str(flag).lower()} }} }}\n"
        'layer { name: "l" type: "LSTM" bottom: "x" bottom: "c" top: "l" recurrent_param { num_output: 4 '
        'weight_filler { type: "constant" value: 0.1 } bias_filler { type: "constant" value: 0.1 } } }'
    )
    (tmp_path / "net.prototxt").write_text(text)
    (tmp_path / "net.caffemodel").write_bytes(caffemodel({"x": ("ReLU", [np.zeros(1)])}))
    translation = translate_files(tmp_path / "net.prototxt", tmp_path / "net.caffemodel")
    result = run(translation, {"x": np.ones((3, 2, 5))})
    np.testing.assert_array_equal(result["c"], [[1.0 if flag else 0.0] * 2, [1, 1], [1, 1]])
    assert result["l"].shape == (3, 2, 4)


@pytest.mark.parametrize("margin", ["SINGLE", "DOUBLE", "TRIPLE", "QUADRUPLE"])
def test_margin_inner_product(margin, tmp_path):
    """MarginInnerProductLayer::Forward_cpu in src/caffe/layers/margin_inner_product_layer.cpp of SphereFace
    (github.com/zjwzcnjsy/caffe, a7f7595eed722cc81288f6965e6e95874723db12): x'w with w of length 1; the margins change the
    labelled class alone, all others are (x'w + lambda * x'w) / (1 + lambda)."""
    weights = np.random.default_rng(1).standard_normal((5, 192))
    body = f"margin_inner_product_param {{ num_output: 5 type: {margin} base: 1000 lambda_min: 5 iteration: 0 }}"
    inputs = {"data": X, "label": np.zeros(2, np.float32)}
    text = "".join(f'input: "{name}" input_shape {{ dim: {list(array.shape)} }}\n' for name, array in inputs.items())
    text += (
        f'layer {{ name: "l" type: "MarginInnerProduct" bottom: "data" bottom: "label" top: "l" top: "lambda" {body} }}'
    )
    (tmp_path / "net.prototxt").write_text(text)
    (tmp_path / "net.caffemodel").write_bytes(caffemodel({"l": ("MarginInnerProduct", [weights])}))
    translation = translate_files(tmp_path / "net.prototxt", tmp_path / "net.caffemodel")
    assert list(translation.network.inputs) == ["data"]
    expected = X.reshape(2, -1) @ (weights / np.linalg.norm(weights, axis=1, keepdims=True)).T
    np.testing.assert_allclose(run(translation, {"data": X})["l"], expected, rtol=1e-4, atol=1e-5)


def test_l2_normalization(tmp_path):
    """L2NormalizationLayer::Forward_cpu of the forks for metric learning, src/caffe/layers/l2normalization_layer.cpp
    (github.com/hyphhh/mycaffe, d39b6f35e199cb962a74ba7599021da64fc1907f): each item times the power -0.5 of the sum of its squares."""
    x = X.reshape(2, -1, 1, 1)
    (ours,) = converted(tmp_path, "L2Normalization", inputs={"data": x})
    expected = np.stack([item * (item.astype(np.float64) ** 2).sum() ** -0.5 for item in x])
    np.testing.assert_allclose(ours, expected, rtol=1e-5)


def test_transpose(tmp_path):
    """TransposeLayer::permute of Microsoft's and the warp-ctc forks, src/caffe/layers/transpose_layer.cpp
    (github.com/dlunion/CC4.0, 1225991c1d6547dfdbe38bd5619cb34602e9303b): axis i of the top
    is axis dim(i) of the bottom."""
    (ours,) = converted(tmp_path, "Transpose", "transpose_param { dim: 3 dim: 0 dim: 2 dim: 1 }")
    np.testing.assert_array_equal(ours, X.transpose(3, 0, 2, 1))


def test_lstm_unit(tmp_path):
    """LSTMUnitLayer::Forward_cpu in src/caffe/layers/lstm_unit_layer.cpp of github.com/BVLC/caffe."""

    generator = np.random.default_rng(2)
    cell, gates = generator.standard_normal((1, 3, 4)), generator.standard_normal((1, 3, 16))
    continues = np.array([[0.0, 1, 1]])
    new, hidden = np.empty_like(cell), np.empty_like(cell)
    for n in range(3):
        for d in range(4):
            i, f, o = (sigmoid(gates[0, n, k * 4 + d]) for k in range(3))
            f = 0.0 if continues[0, n] == 0 else continues[0, n] * f
            new[0, n, d] = f * cell[0, n, d] + i * np.tanh(gates[0, n, 12 + d])
            hidden[0, n, d] = o * np.tanh(new[0, n, d])
    inputs = {"c": cell, "g": gates, "cont": continues}
    ours = converted(tmp_path, "LSTMUnit", inputs=inputs, tops=("c_t", "h_t"))
    np.testing.assert_allclose(ours[0], new, rtol=1e-5)
    np.testing.assert_allclose(ours[1], hidden, rtol=1e-5)


def sigmoid(values):
    return 1 / (1 + np.exp(-values))


def iou(one, other):
    """box_iou: of center, width, height; 0 where they do not meet."""
    sides = []
    for axis in range(2):
        low = max(box[axis] - box[axis + 2] / 2 for box in (one, other))
        high = min(box[axis] + box[axis + 2] / 2 for box in (one, other))
        sides.append(high - low)
    common = sides[0] * sides[1] if min(sides) >= 0 else 0.0
    return common / (one[2] * one[3] + other[2] * other[3] - common)


def rows_of(predictions, threshold):
    """ApplyNms over all classes, and the rows that Forward_cpu writes; predictions: (score, class, box)."""
    kept = []
    for score, label, box in sorted(predictions, key=lambda entry: -entry[0]):
        if all(iou(box, other) < threshold for _, _, other in kept):
            kept.append((score, label, box))
    if not kept:
        return np.array([[0.0] + [-1.0] * 6])
    return np.array(
        [[0, label + 1, score, x - w / 2, y - h / 2, x + w / 2, y + h / 2] for score, label, (x, y, w, h) in kept]
    )


def yolo2(x, biases, boxes, classes, threshold, overlap):
    """YoloDetectionOutputLayer::Forward_cpu in src/caffe/layers/yolo_detection_output_layer.cpp
    (github.com/eric612/MobileNet-YOLO, f36b52bc0d1660d22d761a12752838fd4e024da4)."""
    side, found = x.shape[3], []
    for j in range(side):
        for i in range(side):
            for n in range(boxes):
                v = x[0, n * (5 + classes) : (n + 1) * (5 + classes), j, i].astype(np.float64)
                box = ((i + sigmoid(v[0])) / side, (j + sigmoid(v[1])) / side,
                       np.exp(v[2]) * biases[2 * n] / side, np.exp(v[3]) * biases[2 * n + 1] / side)  # fmt: skip
                likely = np.exp(v[5:] - v[5:].max())
                score = sigmoid(v[4]) * (likely / likely.sum()).max()
                if score >= threshold:
                    found.append((score, int(v[5:].argmax()), box))
    return rows_of(found, overlap)


def yolo3(maps, biases, mask, scales, boxes, classes, threshold, overlap):
    """Yolov3DetectionOutputLayer::Forward_cpu in src/caffe/layers/yolov3_detection_output_layer.cpp
    (github.com/eric612/MobileNet-YOLO, 187077622991175e0be785261386b921ff773106)."""
    found = []
    for t, x in enumerate(maps):
        side = x.shape[3]
        for s in range(side * side):
            for n in range(boxes):
                v = x[0, n * (5 + classes) : (n + 1) * (5 + classes), s // side, s % side].astype(np.float64)
                k = mask[n + t * boxes]
                size = side * scales[t]
                box = ((s % side + sigmoid(v[0])) / side, (s // side + sigmoid(v[1])) / side,
                       np.exp(v[2]) * biases[2 * k] / size, np.exp(v[3]) * biases[2 * k + 1] / size)  # fmt: skip
                scores = sigmoid(v[5:]) * sigmoid(v[4])
                found += [(score, c, box) for c, score in enumerate(scores) if score > threshold]
    return rows_of(found, overlap)


@pytest.mark.parametrize("threshold", [0.2, 0.999])
def test_yolo_v2(threshold, tmp_path):
    x = np.random.default_rng(3).standard_normal((1, 2 * 8, 5, 5)).astype(np.float32)
    biases = [1.0, 1.5, 3.0, 2.0]
    body = " ".join(f"biases: {bias}" for bias in biases)
    body = f"num_classes: 3 num_box: 2 coords: 4 side: 5 confidence_threshold: {threshold} nms_threshold: 0.3 {body}"
    (ours,) = converted(
        tmp_path, "YoloDetectionOutput", f"yolo_detection_output_param {{ {body} }}", inputs={"data": x}
    )
    theirs = yolo2(x, biases, 2, 3, threshold, 0.3)
    assert (len(theirs) > 5) == (threshold < 0.5)
    np.testing.assert_allclose(ours[0, 0], theirs, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("threshold", [0.3, 0.999])
def test_yolo_v3(threshold, tmp_path):
    generator = np.random.default_rng(4)
    maps = {name: generator.standard_normal((1, 2 * 8, n, n)).astype(np.float32) for name, n in (("a", 3), ("b", 6))}
    biases, mask, scales = [4.0, 5, 9, 8, 20, 17, 30, 33], [2, 3, 0, 1], [32, 16]
    body = " ".join(
        [*(f"biases: {b}" for b in biases), *(f"mask: {m}" for m in mask), *(f"anchors_scale: {s}" for s in scales)]
    )
    body = f"num_classes: 3 num_box: 2 mask_group_num: 2 confidence_threshold: {threshold} nms_threshold: 0.4 {body}"
    (ours,) = converted(tmp_path, "Yolov3DetectionOutput", f"yolov3_detection_output_param {{ {body} }}", inputs=maps)
    theirs = yolo3(list(maps.values()), biases, mask, scales, 2, 3, threshold, 0.4)
    assert (len(theirs) > 5) == (threshold < 0.5)
    np.testing.assert_allclose(ours[0, 0], theirs, rtol=1e-4, atol=1e-6)
