"""Layers of Caffe's forks against NumPy, each written from the public source that its docstring names."""

from __future__ import annotations

from caffe2fluid.convert import convert
from caffe2fluid.converted import Predictor, open_converted, run_blobs
from caffe2fluid.errors import ConvertError
from caffe2fluid.tests.tools import caffemodel, random_weights, relative, run, translate_files

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


def test_reorg_moves_what_the_forks_tests_move(tmp_path):
    """The entries that src/caffe/test/test_reorg_layer.cpp of two forks compare: github.com/Cambricon/caffe,
    77445b2d2b31a943a4d0479dd1993801e71a96fa, and, reversed, github.com/lwplw/caffe_yolov2,
    52c108a8d7d3446fba6288517b228e542421a09b."""
    x = np.arange(32, dtype=np.float32).reshape(2, 4, 2, 2)
    (ours,) = converted(tmp_path, "Reorg", "reorg_param { stride: 2 }", inputs={"data": x})
    moved = [(c + up, h, w) for c in (0, 1) for w in (0, 1) for up in (0, 2) for h in (0, 1)]
    assert ours.shape == (2, 16, 1, 1)
    for n in range(2):
        assert ours[n].ravel().tolist() == [x[n][place] for place in moved]
    x = np.arange(64, dtype=np.float32).reshape(2, 8, 2, 2)
    (ours,) = converted(tmp_path, "Reorg", "reorg_param { stride: 2 reverse: true }", inputs={"data": x})
    assert ours.shape == (2, 2, 4, 4)
    for n, c, h, w in np.ndindex(ours.shape):
        assert ours[n, c, h, w] == x[n, c + (w % 2 + 2 * (h % 2)) * 2, h // 2, w // 2]


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


def test_segnet_accuracy_is_dropped(tmp_path):
    """SegAccuracy of SegNet's and PSPNet's forks only counts: it goes, and its labels with it."""
    text = 'input: "data" input_shape { dim: 1 dim: 3 dim: 4 dim: 4 }\ninput: "label"\n'
    text += 'layer { name: "r" type: "ReLU" bottom: "data" top: "r" }\n'
    text += 'layer { name: "a" type: "SegAccuracy" bottom: "r" bottom: "label" top: "a" seg_accuracy_param { ignore_label: 255 } }'
    (tmp_path / "net.prototxt").write_text(text)
    translation = translate_files(tmp_path / "net.prototxt")
    assert translation.outputs == ["r"] and list(translation.network.inputs) == ["data"]
    assert any("SegAccuracy" in note for note in translation.notes)


@pytest.mark.parametrize("shape", [(2, 192, 1, 1), X.shape])
def test_l2_normalization(shape, tmp_path):
    """L2NormalizationLayer::Forward_cpu of the forks for metric learning, src/caffe/layers/l2normalization_layer.cpp
    (github.com/binLearning/caffe-tea, 0b51b07b687d94436354fdd22f7f0157e9e5b2d0; so does antonymarion/caffe, and hyphhh/mycaffe
    takes no maps): each item times the power -0.5 of the sum of its squares."""
    (ours,) = converted(tmp_path, "L2Normalization", inputs={"data": X.reshape(shape)})
    expected = np.stack([item * (item.astype(np.float64) ** 2).sum() ** -0.5 for item in X])
    np.testing.assert_allclose(ours, expected.reshape(shape), rtol=1e-5)
    notes = translate_files(tmp_path / "net.prototxt").notes
    assert any("normalises each place over its channels" in note for note in notes) == (shape == X.shape)


@pytest.mark.parametrize(
    ("body", "axes"), [("is_global: false axis: 1", 1), ("", None), ("is_global: false axis: -1", 3)]
)
def test_l2_normalization_along_an_axis(body, axes, tmp_path):
    """L2NormalizationLayer::Forward_cpu in src/caffe/layers/l2_normalization_layer.cpp (github.com/1095560081/caffe,
    3d42ec54eade6243fe84b068ba049340acd3b687): copied where the sum of squares is not above eps."""
    x = X.copy()
    x[:, :, 1, 2] *= 1e-4
    (ours,) = converted(tmp_path, "L2Normalization", f"l2n_param {{ {body} eps: 1e-5 }}", inputs={"data": x})
    square = (x.astype(np.float64) ** 2).sum(axes, keepdims=True)
    np.testing.assert_allclose(ours, x / np.sqrt(np.where(square > 1e-5, square, 1)), rtol=1e-5)


@pytest.mark.parametrize(
    ("body", "item", "rows"),
    [
        ("is_global: true", 0, {0: [0.03974643, 0.07949287, 0.1192393, 0.15898573]}),
        ("is_global: false axis: 0", 0, {1: [1, 0, 0.96152395, 0.99227786]}),
        ("is_global: false axis: 1", 0, {0: [0.09667365, 0.19611613, 0.22423053, 0.26726124]}),
        ("is_global: false axis: 1", 1, {2: [0, -1, 0.70710677, 0.94868326]}),
        ("is_global: false axis: 2", 0, {0: [0.18257418, 0.36514837, 0.54772252, 0.73029673]}),
        ("is_global: false axis: 2", 1, {2: [0, -0.26726124, 0.53452247, 0.80178368]}),
    ],
)
def test_l2_normalization_gives_the_numbers_of_the_forks_test(body, item, rows, tmp_path):
    """src/caffe/test/test_l2_normalization_layer.cpp (github.com/1095560081/caffe,
    3d42ec54eade6243fe84b068ba049340acd3b687): its bottom, and what it wants of it."""
    x = [[[1, 2, 3, 4], [5, 0, 7, 8], [9, 10, 11, 12]], [[0, 0, 0, 0], [0, 0, 2, 1], [0, -1, 2, 3]]]
    (ours,) = converted(
        tmp_path, "L2Normalization", f"l2n_param {{ {body} }}", inputs={"data": np.array(x, np.float32)}
    )
    for row, numbers in rows.items():
        np.testing.assert_allclose(ours[item][row], numbers, atol=1e-5)


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


def yolo2(maps, biases, boxes, classes, threshold, overlap):
    """YoloDetectionOutputLayer::Forward_cpu in src/caffe/layers/yolo_detection_output_layer.cpp
    (github.com/eric612/MobileNet-YOLO, 092f8df01181d611be0462384d9add3915c8d0ac)."""
    found = []
    for x in maps:
        side = x.shape[3]
        for j, i, n in np.ndindex(side, side, boxes):
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


@pytest.mark.parametrize(("threshold", "sides"), [(0.2, [5]), (0.999, [5]), (0.2, [3, 6])])
def test_yolo_v2(threshold, sides, tmp_path):
    generator = np.random.default_rng(3)
    maps = {f"x{n}": generator.standard_normal((1, 2 * 8, n, n)).astype(np.float32) for n in sides}
    biases = [1.0, 1.5, 3.0, 2.0]
    body = " ".join(f"biases: {bias}" for bias in biases)
    body = f"num_classes: 3 num_box: 2 coords: 4 side: 5 confidence_threshold: {threshold} nms_threshold: 0.3 {body}"
    (ours,) = converted(tmp_path, "YoloDetectionOutput", f"yolo_detection_output_param {{ {body} }}", inputs=maps)
    theirs = yolo2(maps.values(), biases, 2, 3, threshold, 0.3)
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
    with pytest.raises(ConvertError, match="4 mask"):
        body = f"yolov3_detection_output_param {{ {body.replace('mask: 2', 'mask: -1')} }}"
        converted(tmp_path, "Yolov3DetectionOutput", body, inputs=maps)


def lower_right_zero(row, n):
    """The two values that a linear interpolation at ``row`` reads, and their weights; none behind the last one."""
    low = int(np.floor(row))
    return [(k, w) for k, w in ((low, 1 - (row - low)), (low + 1, row - low)) if k < n]


def resize_bilinear(x, height, width):
    """BiLinearResizeMat_cpu in src/caffe/util/util_img.cpp, called by ResizeLayer::Forward_cpu (github.com/happynear/
    caffe-windows, 3937c98c87b3083ae1ebe7df362986b691bb08f5; the same in DenseBox and in the package brocolli-caffe)."""
    out = np.zeros((*x.shape[:2], height, width))
    for h in range(height):
        for w in range(width):
            for y, weight_y in lower_right_zero(h * x.shape[2] / height, x.shape[2]):
                for column, weight_x in lower_right_zero(w * x.shape[3] / width, x.shape[3]):
                    out[:, :, h, w] += weight_y * weight_x * x[:, :, y, column]
    return out


@pytest.mark.parametrize(
    ("body", "size"),
    [
        ("height: 9 width: 5", (9, 5)),
        ("is_pyramid_test: true out_height_scale: 1.7 out_width_scale: 0.5", (6, 3)),
    ],
)
def test_resize_from_the_corner(body, size, tmp_path):
    (ours,) = converted(tmp_path, "Resize", f"resize_param {{ {body} }}")
    np.testing.assert_allclose(ours, resize_bilinear(X, *size), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("ratio", [2.0, 1.6, 0.5])
def test_resize_nearest(ratio, tmp_path):
    """ResizeLayer::Forward_cpu in src/caffe/layers/resize_layer.cpp (github.com/Lamply/caffe,
    c29405d438b37620e7a6933f21c4e5bd48365b9a): row int(h / resize_ratio) for each of int(height * resize_ratio)."""
    (ours,) = converted(tmp_path, "Resize", f"resize_param {{ type: NEAREST resize_ratio: {ratio} }}")
    rows, columns = ([int(np.float32(i) / np.float32(ratio)) for i in range(int(n * ratio))] for n in X.shape[2:])
    np.testing.assert_array_equal(ours, X[:, :, rows][:, :, :, columns])


def test_resize_to_a_multiple(tmp_path):
    """ResizeLayer::Forward_cpu in src/caffe/layers/resize_layer.cpp (github.com/piiswrong/caffe,
    d8f676d85eb9b84221c74d0efc5ed0b34d78d3ac): row h / factor, the factor is a whole number."""
    (ours,) = converted(tmp_path, "Resize", "resize_param { top_height: 8 top_width: 18 }")
    np.testing.assert_array_equal(ours, X[:, :, np.arange(8) // 2][:, :, :, np.arange(18) // 3])
    with pytest.raises(ConvertError, match="9 is no multiple of 4"):
        converted(tmp_path, "Resize", "resize_param { top_height: 9 top_width: 18 }")
    with pytest.raises(ConvertError, match="those of no fork that is known"):
        converted(tmp_path, "Resize", "resize_param { function_type: SIZE_GIVEN output_size: 8 }")


def correlation(a, b, kernel, pad, reach, stride, step, subtract):
    """CorrelateData and CorrelateDataSubtract in src/caffe/layers/correlation_layer.cu, sizes by correlation_layer.cpp
    (github.com/lmb-freiburg/flownet2, 476d400834d96337165d8561a8ef469ecfea77cd)."""
    a, b = (np.pad(x.astype(np.float64), [(0, 0), (0, 0), (pad, pad), (pad, pad)]) for x in (a, b))
    border = reach + (kernel - 1) // 2
    height, width = (int(np.ceil((n - 2 * border) / stride)) for n in a.shape[2:])
    radius = reach // step
    grid = 2 * radius + 1
    out = np.zeros((len(a), grid * grid, height, width))
    for channel in range(grid * grid):
        down, right = (channel // grid - radius) * step, (channel % grid - radius) * step
        for h in range(height):
            for w in range(width):
                y, x = h * stride + reach, w * stride + reach
                one = a[:, :, y : y + kernel, x : x + kernel]
                other = b[:, :, y + down : y + down + kernel, x + right : x + right + kernel]
                terms = np.abs(one - other) if subtract else one * other
                out[:, channel, h, w] = terms.reshape(len(a), -1).mean(1)
    return out


@pytest.mark.parametrize("subtract", [False, True])
@pytest.mark.parametrize(
    ("shape", "kernel", "pad", "reach", "stride", "step"),
    [
        ((1, 1, 1, 1), 3, 1, 0, 2, 3),
        ((1, 1, 3, 3), 1, 1, 0, 2, 1),
        ((1, 3, 1, 1), 1, 1, 1, 1, 1),
        ((1, 1, 9, 16), 3, 1, 4, 1, 1),
        ((2, 3, 17, 20), 7, 2, 5, 2, 3),
    ],
)
def test_correlation(shape, kernel, pad, reach, stride, step, subtract, tmp_path):
    """The settings of src/caffe/test/test_correlation_layer.cpp (github.com/haeusser/caffe,
    3f0dbacf69b2f86f6d5ba21e9e962ce404e276a3), whose numbers are drawn at random; one image is smaller here."""
    a, b = np.random.default_rng(5).standard_normal((2, *shape)).astype(np.float32)
    body = f"kernel_size: {kernel} pad: {pad} max_displacement: {reach} stride_1: {stride} stride_2: {step}"
    body += " correlation_type: SUBTRACT" if subtract else ""
    try:
        expected = correlation(a, b, kernel, pad, reach, stride, step, subtract)
        assert min(expected.shape) > 0
    except (ValueError, AssertionError):
        with pytest.raises(ConvertError, match="do not fit"):
            converted(tmp_path, "Correlation", f"correlation_param {{ {body} }}", inputs={"a": a, "b": b})
        return
    (ours,) = converted(tmp_path, "Correlation", f"correlation_param {{ {body} }}", inputs={"a": a, "b": b})
    np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-6)


def deformable_columns(x, offset, kernel, stride, pad, dilation, groups):
    """deformable_im2col_kernel in src/caffe/util/deformable_im2col.cu (github.com/fallingdust/caffe-fast-rcnn,
    0a100ad0b07fc8aa1e6b06de1361df440a99be49): [channels, taps, h, w] of one image."""
    channels, height, width = x.shape
    out = np.zeros((channels, kernel**2, *offset.shape[1:]))
    for c, tap, h, w in np.ndindex(out.shape):
        moved = offset[2 * (kernel**2 * (c // (channels // groups)) + tap) :][:2, h, w]
        y = h * stride - pad + tap // kernel * dilation + moved[0]
        z = w * stride - pad + tap % kernel * dilation + moved[1]
        if 0 <= y < height and 0 <= z < width:
            low_y, low_z = int(y), int(z)
            high_y, y = (low_y + 1, y) if low_y < height - 1 else (low_y, low_y)
            high_z, z = (low_z + 1, z) if low_z < width - 1 else (low_z, low_z)
            part_y, part_z = y - low_y, z - low_z
            out[c, tap, h, w] = (
                (1 - part_y) * ((1 - part_z) * x[c, low_y, low_z] + part_z * x[c, low_y, high_z])
                + part_y * ((1 - part_z) * x[c, high_y, low_z] + part_z * x[c, high_y, high_z])
            )  # fmt: skip
    return out


@pytest.mark.parametrize(
    ("stride", "pad", "dilation", "group", "moved"), [(1, 1, 1, 1, 1), (2, 2, 2, 1, 4), (1, 0, 1, 2, 2)]
)
def test_deformable_convolution(stride, pad, dilation, group, moved, tmp_path):
    """DeformableConvolutionLayer::Forward_cpu in src/caffe/layers/deformable_conv_layer.cpp of that repository: weights
    [filters, channels / group, kernel, kernel] times those columns. Other ports divide the channels by the height."""
    generator = np.random.default_rng(6)
    height, width = ((n + 2 * pad - 2 * dilation - 1) // stride + 1 for n in X.shape[2:])
    offset = generator.uniform(-3, 3, (2, 18 * moved, height, width)).astype(np.float32)
    offset[0] = 0  # what networks start with
    weights, bias = generator.standard_normal((6, 8 // group, 3, 3)), generator.standard_normal(6)
    body = f"num_output: 6 kernel_size: 3 stride: {stride} pad: {pad} dilation: {dilation} group: {group} "
    body = f"deformable_convolution_param {{ {body} deformable_group: {moved} }}"
    (ours,) = converted(tmp_path, "DeformableConvolution", body, [weights, bias], {"x": X, "o": offset})
    expected = []
    for x, moves in zip(X, offset, strict=True):
        columns = deformable_columns(x, moves, 3, stride, pad, dilation, moved).reshape(group, -1, height * width)
        rows = [w @ c for w, c in zip(weights.reshape(group, 6 // group, -1), columns, strict=True)]
        expected.append(np.concatenate(rows).reshape(6, height, width) + bias[:, None, None])
    np.testing.assert_allclose(ours, np.stack(expected), rtol=1e-4, atol=1e-4)


def interpolated(image, y, x):
    """At a place that was brought into the image; image: [C, H, W]."""
    height, width = image.shape[1:]
    y, x = min(max(y, 0.0), height - 1.0), min(max(x, 0.0), width - 1.0)
    low_y, low_x = int(y), int(x)
    high_y, high_x = min(low_y + 1, height - 1), min(low_x + 1, width - 1)
    upper = image[:, low_y, low_x] * (1 - x + low_x) + image[:, low_y, high_x] * (x - low_x)
    lower = image[:, high_y, low_x] * (1 - x + low_x) + image[:, high_y, high_x] * (x - low_x)
    return upper * (1 - y + low_y) + lower * (y - low_y)


ROIS = np.array([[1, 3, 2, 21, 14], [0, -6, -4, 9, 40], [1, 12, 9, 12, 9], [0, 5, 3, 70, 13]], np.float32)


@pytest.mark.parametrize("ratio", [0, 2])
def test_roi_align(ratio, tmp_path):
    """ROIAlignLayer::Forward_cpu in src/caffe/layers/roi_align_layer.cpp (github.com/Cambricon/caffe,
    a38d6abeb1b96cbad0dffce347cb8a0f0d50ff57; Ascend's documentation of its Caffe operators says the same)."""
    expected = np.zeros((4, 8, 3, 2))
    for n, (image, *corners) in enumerate(ROIS.astype(np.float64)):
        left, top, right, bottom = (corner * 0.25 for corner in corners)
        bins = max(bottom - top, 1.0) / 3, max(right - left, 1.0) / 2
        points = [ratio or int(np.ceil(size)) for size in bins]
        for row, column in np.ndindex(3, 2):
            for i, j in np.ndindex(*points):
                y = top + (row + (i + 0.5) / points[0]) * bins[0]
                x = left + (column + (j + 0.5) / points[1]) * bins[1]
                if -1 <= y <= 4 and -1 <= x <= 6:
                    expected[n, :, row, column] += interpolated(X[int(image)], y, x) / np.prod(points)
    body = f"roi_align_param {{ pooled_h: 3 pooled_w: 2 spatial_scale: 0.25 sampling_ratio: {ratio} }}"
    (ours,) = converted(tmp_path, "ROIAlign", body, inputs={"data": X, "rois": ROIS})
    np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("margin", [0, 0.3])
def test_roi_align_of_cascade_rcnn(margin, tmp_path):
    """ROIAlignLayer::Forward_cpu in src/caffe/layers/roi_align_layer.cpp (github.com/zhaoweicai/cascade-rcnn,
    5569ed6c010084a87b423a88cbcce8249b18dda1): the corners of the bins."""
    expected = np.zeros((5, 8, 4, 3))
    rois = np.concatenate([ROIS, [[0, 9, 9, 3, 12]]]).astype(np.float32)
    for n, (image, left, top, right, bottom) in enumerate(rois.astype(np.float64)):
        wide, high = (right - left + 1) * margin, (bottom - top + 1) * margin
        left, top, right, bottom = (v * 0.25 - 0.5 for v in (left - wide, top - high, right + wide, bottom + high))
        for row, column in np.ndindex(4, 3):
            y, x = top + row * (bottom - top) / 3, left + column * (right - left) / 2
            if bottom > top and right > left and -0.5 <= y <= 3.5 and -0.5 <= x <= 5.5:
                expected[n, :, row, column] = interpolated(X[int(image)], y, x)
    body = f"roi_pooling_param {{ pooled_h: 3 pooled_w: 2 spatial_scale: 0.25 pad_ratio: {margin} }}"
    (ours,) = converted(tmp_path, "ROIAlign", body, inputs={"data": X, "rois": rois})
    np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-5)
    for body in ("roi_pooling_param { pooled_h: 3 pooled_w: 2 }", "roi_align_param { aligned_h: 3 aligned_w: 2 }"):
        with pytest.raises(ConvertError, match="forks compute different things"):
            converted(tmp_path, "ROIAlign", body, inputs={"data": X, "rois": rois})


EVERYWHERE = {
    "Resize": ("data", "resize_param { height: 9 width: 5 }"),
    "Correlation": ("data small", "correlation_param { kernel_size: 3 pad: 2 max_displacement: 2 stride_2: 2 }"),
    "DeformableConvolution": ("data offset", "deformable_convolution_param { num_output: 6 kernel_size: 3 pad: 1 }"),
    "ROIAlign": ("data rois", "roi_align_param { pooled_h: 3 pooled_w: 2 spatial_scale: 0.25 sampling_ratio: 2 }"),
}


@pytest.mark.parametrize("kind", EVERYWHERE)
def test_inference_models(kind, tmp_path):
    """paddle.inference with and without oneDNN gives what the code gives."""
    bottoms, body = EVERYWHERE[kind]
    offset = np.random.default_rng(7).uniform(-2, 2, (2, 18, 4, 6)).astype(np.float32)
    arrays = {"data": X, "small": X[::-1].copy(), "offset": offset, "rois": ROIS}
    feed = {name: arrays[name] for name in bottoms.split()}
    text = "".join(f'input: "{name}" input_shape {{ dim: {list(array.shape)} }}\n' for name, array in feed.items())
    text += (
        f'layer {{ name: "l" type: "{kind}" {" ".join(f"""bottom: "{name}" """ for name in feed)} top: "l" {body} }}'
    )
    (tmp_path / "net.prototxt").write_text(text)
    weights = random_weights(translate_files(tmp_path / "net.prototxt")) or {"none": ("ReLU", [np.zeros(1)])}
    (tmp_path / "net.caffemodel").write_bytes(caffemodel(weights))
    convert(tmp_path / "net.prototxt", tmp_path / "net.caffemodel", tmp_path / "out")
    net = open_converted(tmp_path / "out")
    expected = dict(run_blobs(net, feed, ["l"]))["l"]
    for onednn in (True, False):
        assert relative(Predictor(net, onednn)(feed)["l"], expected) < 1e-5


def test_resized_and_compared_maps_of_any_size(tmp_path):
    """Converted for 4x6 images, run on 7x9 ones."""
    text = 'input: "data" input_shape { dim: 2 dim: 8 dim: 4 dim: 6 }\n'
    for kind, bottoms, body in (
        ("Correlation", "data data", "correlation_param { kernel_size: 1 pad: 1 max_displacement: 1 }"),
        ("Convolution", "data", "convolution_param { num_output: 18 kernel_size: 3 pad: 1 bias_term: false }"),
        ("DeformableConvolution", "data Convolution", EVERYWHERE["DeformableConvolution"][1]),
        ("Resize", "data", "resize_param { is_pyramid_test: true out_height_scale: 1.7 out_width_scale: 0.5 }"),
    ):
        reads = " ".join(f'bottom: "{blob}"' for blob in bottoms.split())
        text += f'layer {{ name: "{kind}" type: "{kind}" {reads} top: "{kind}" {body} }}\n'
    (tmp_path / "net.prototxt").write_text(text)
    weights = random_weights(translate_files(tmp_path / "net.prototxt"))
    (tmp_path / "net.caffemodel").write_bytes(caffemodel(weights))
    convert(tmp_path / "net.prototxt", tmp_path / "net.caffemodel", tmp_path / "out")
    feed = {"data": np.random.default_rng(8).standard_normal((1, 8, 7, 9)).astype(np.float32)}
    ours = Predictor(open_converted(tmp_path / "out"))(feed)
    sizes = {"data": [1, 8, 7, 9]}
    theirs = run(translate_files(tmp_path / "net.prototxt", tmp_path / "net.caffemodel", input_shapes=sizes), feed)
    assert {blob: array.shape[2:] for blob, array in ours.items()} == {
        "Correlation": (7, 9),
        "DeformableConvolution": (7, 9),
        "Resize": (11, 4),
    }
    for blob, array in ours.items():
        assert relative(array, theirs[blob]) < 1e-5
