"""What Caffe computes and Paddle has no single call for.

The converter copies the source of the functions that a net needs into the module it generates, so each function stands
on its own: it uses ``np``, ``paddle``, ``F`` and the functions named in ``DEPENDENCIES`` only. All of them build static
graphs and run eagerly, with any batch size.
"""

from __future__ import annotations

import numpy as np
import paddle
import paddle.nn.functional as F

DEPENDENCIES = {
    "spatial_size": ["size_of"],
    "crop_like": ["size_of"],
    "resize_by": ["size_of", "spatial_size", "resize_bilinear"],
    "prior_boxes": ["prior_box_ratios", "prior_box_sizes"],
    "prior_boxes_of": ["prior_box_ratios", "prior_box_sizes", "grid"],
    "anchor_boxes_of": ["anchors_of_cell", "grid"],
    "anchor_boxes": ["anchors_of_cell"],
    "detection_output": ["decode_boxes"],
    "yolo2_detections": ["yolo_boxes", "suppressed"],
    "yolo3_detections": ["yolo_boxes", "suppressed"],
    "roi_pooling": ["group_rois"],
    "psroi_pooling": ["group_rois"],
    "roi_align": ["group_rois"],
    "roi_corners": ["group_rois"],
    "scaled_size": ["size_of"],
    "resize_from_corner": ["size_of"],
    "resize_nearest": ["size_of", "scaled_size"],
    "deformable_convolution": ["grid", "size_of"],
}


def lrn_within_channel(x, size, alpha, beta):
    """Local response normalisation over a size x size window of each channel; x: [N, C, H, W]."""
    mean_square = F.avg_pool2d(x * x, size, 1, size // 2, exclusive=False)
    return x * paddle.pow(mean_square * alpha + 1.0, -beta)


def lrn_across_channels(x, size, alpha, beta, k):
    """Local response normalisation over ``size`` neighbouring channels of [N, C, H, W].

    Not F.local_response_norm, which Paddle 3.3 refuses to build for images of any size.
    """
    square = F.pad(paddle.unsqueeze(x * x, 1), [0, 0, 0, 0, size // 2, size // 2], data_format="NCDHW")
    mean = paddle.squeeze(F.avg_pool3d(square, [size, 1, 1], 1), 1)
    return x / paddle.pow(mean * alpha + k, beta)


def mean_variance_norm(x, axes, epsilon):
    """Subtracts the mean over the axes; divides by standard deviation + epsilon unless None."""

    def mean(values):  # not paddle.mean, about which oneDNN prints lines
        count = paddle.sum(paddle.ones_like(values[:1]), axes, keepdim=True)
        return paddle.sum(values, axes, keepdim=True) / count

    x = x - mean(x)
    return x if epsilon is None else x / (paddle.sqrt(mean(x * x)) + epsilon)


def l2_norm(x, scale, axes, epsilon):
    """Divides [N, C, H, W] by its L2 norm over the axes and multiplies by the scale [C or 1, 1, 1]."""
    return x / paddle.sqrt(paddle.sum(x * x, axes, keepdim=True) + epsilon) * scale


def unit_length(x, axes, least):
    """x divided by its L2 norm over the axes; unchanged where the sum of squares is not above ``least``."""
    square = paddle.sum(x * x, axes, keepdim=True)
    return x / paddle.sqrt(paddle.where(square > least, square, paddle.ones_like(square)))


def caffe_argmax(x, top_k, axis, size):
    """The indices (float32) and values of the top_k largest along the axis of that size; the last of equal
    values counts first."""
    backward = paddle.flip(x, axis)
    if top_k == 1:
        index, value = paddle.argmax(backward, axis, keepdim=True), paddle.max(x, axis, keepdim=True)
        return paddle.cast(size - 1 - index, "float32"), value
    order = paddle.argsort(backward, axis, descending=True, stable=True)
    order = paddle.slice(order, [axis], [0], [top_k])
    return paddle.cast(size - 1 - order, "float32"), paddle.take_along_axis(backward, order, axis)


def size_of(x, axis):
    """A number, or a tensor where the graph takes any size."""
    return x.shape[axis] if x.shape[axis] > 0 else paddle.shape(x)[axis]


def spatial_size(x):
    """Height and width of [N, C, H, W]."""
    return [size_of(x, 2), size_of(x, 3)]


def crop_like(x, like, axis, offsets):
    """Cuts the sizes of ``like`` out of x, in the axes from ``axis`` on, starting at the offsets."""
    for place, offset in enumerate(offsets, axis):
        x = paddle.slice(x, [place], [offset], [offset + size_of(like, place)])
    return x


def resize_bilinear(x, size):
    """[N, C, H, W] -> [N, C, *size] with aligned corners.

    As a volume of depth 1, because the CPU predictor of Paddle 3.3 with oneDNN refuses the two-dimensional operator.
    """
    volume = F.interpolate(
        paddle.unsqueeze(x, 2), [1, *size], mode="trilinear", align_corners=True, data_format="NCDHW"
    )
    return paddle.squeeze(volume, 2)


def resize_by(x, shrink, zoom):
    """Bilinear resizing of [N, C, H, W] with aligned corners, by whole numbers."""
    sizes = [(size - 1) // shrink + 1 for size in spatial_size(x)]
    return resize_bilinear(x, [size + (size - 1) * (zoom - 1) for size in sizes])


def scaled_size(x, scale):
    """The whole parts of height and width of [N, C, H, W] times scale [vertical, horizontal]."""
    sizes = [size_of(x, 2), size_of(x, 3)]
    return [
        int(np.float32(size) * np.float32(factor))
        if isinstance(size, int)
        else paddle.cast(paddle.cast(size, "float32") * factor, "int64")
        for size, factor in zip(sizes, scale)
    ]


def resize_from_corner(x, size):
    """Bilinear resizing of [N, C, H, W] to [N, C, *size]: row i is at i * H / size[0], and beyond the last one is 0."""
    for axis, wanted in zip((2, 3), size):
        length = size_of(x, axis)
        step = length / wanted if isinstance(length, int) else paddle.cast(length, "float32") / wanted
        place = paddle.cast(paddle.arange(wanted), "float32") * step
        stored = paddle.cast(paddle.arange(length), "float32")
        weights = F.relu(1.0 - paddle.abs(paddle.unsqueeze(place, 1) - paddle.unsqueeze(stored, 0)))
        x = paddle.matmul(weights, x) if axis == 2 else paddle.matmul(x, weights, transpose_y=True)
    return x


def resize_nearest(x, ratio):
    """[N, C, H, W] enlarged by the ratio: row i is row i / ratio, rounded down."""
    for axis, length in zip((2, 3), scaled_size(x, [ratio, ratio])):
        index = paddle.cast(paddle.cast(paddle.arange(length), "float32") / ratio, "int64")
        x = paddle.index_select(x, index, axis)
    return x


def correlation(x, y, kernel, reach, stride, step, pad, difference):
    """FlowNet's comparison of each patch of x with the patches of y around it: [N, displacements, H, W].

    Displacements go from -reach to reach by ``step``, row by row; a value is the mean over patch and channels of products,
    or of absolute differences. Fischer et al., https://arxiv.org/abs/1504.06852
    """
    channels, radius = x.shape[1], reach // step
    x, y = F.pad(x, [pad] * 4), F.pad(y, [pad] * 4)
    x, maps = x[:, :, reach : -reach or None, reach : -reach or None], []
    for down in range(-radius, radius + 1):
        for right in range(-radius, radius + 1):
            top, left = reach + down * step, reach + right * step
            other = y[:, :, top : top - 2 * reach or None, left : left - 2 * reach or None]
            maps.append(paddle.sum(paddle.abs(x - other) if difference else x * other, 1, keepdim=True))
    return F.avg_pool2d(paddle.concat(maps, 1), kernel, stride) / float(channels)


def deformable_convolution(x, offset, weight, bias, stride, pad, dilation, groups, offset_groups):
    """A convolution whose taps are moved by offset [N, offset groups * taps * (down, right), h, w].

    A tap outside of x counts as 0, and one behind the last row or column as that one.
    Dai et al., https://arxiv.org/abs/1703.06211
    """
    kernel = weight.shape[2:]
    channels, taps = x.shape[1] // offset_groups, kernel[0] * kernel[1]
    places, inside = [], 1.0
    for axis, start in enumerate(grid(offset)):
        tap = np.indices(kernel)[axis].ravel() * dilation[axis] - float(pad[axis])
        tap = paddle.assign(np.tile(tap, offset_groups)[:, None, None].astype("float32"))
        place = offset[:, axis::2] + start * float(stride[axis]) + tap
        size = paddle.cast(paddle.shape(x)[axis + 2], "float32")
        inside = inside * paddle.cast(place >= 0, "float32") * paddle.cast(place < size, "float32")
        places.append(place * 2.0 / paddle.clip(size - 1.0, min=1.0) - 1.0)
    places, columns = paddle.stack(places[::-1], 4), []
    for group in range(offset_groups):
        own = slice(group * taps, (group + 1) * taps)
        part, points = x[:, group * channels : (group + 1) * channels], paddle.flatten(places[:, own], 1, 2)
        values = F.grid_sample(part, points, padding_mode="border", align_corners=True)
        columns.append(values * paddle.unsqueeze(paddle.flatten(inside[:, own], 1, 2), 1))
    columns = paddle.reshape(paddle.concat(columns, 1), [0, x.shape[1] * taps, -1, size_of(offset, 3)])
    return F.conv2d(columns, paddle.reshape(weight, [weight.shape[0], -1, 1, 1]), bias, groups=groups)


def unpool(x, mask, size):
    """Puts each value of [N, C, h, w] where the mask says in a plane of zeros: [N, C, *size]."""
    height, width = x.shape[2:]
    strides = [max(size[0] // height, 1), max(size[1] // width, 1)]
    kernel = [size[0] - (height - 1) * strides[0], size[1] - (width - 1) * strides[1]]
    return F.max_unpool2d(x, paddle.cast(mask, "int32"), kernel, strides, output_size=size)


def caffe_lstm(x, continues, steps, units, w_x, bias, w_hidden, x_static=None, w_static=None):
    """Caffe's LSTM: outputs [T, N, units] and the last hidden and cell state [1, N, units].

    x: [T, N, features]; continues: [T, N], 0 where a sequence starts. Rows of the weights: gates i, f, o, g.
    Donahue et al., https://arxiv.org/abs/1411.4389

    One operation for all steps, which knows no starts inside. So each unit is there twice, with the same gates and cell: one
    is read back, and its output gate is shut before a start; the other one is the output. Starts shut the forget gates.
    """
    shut = -1e4  # the sigmoid of it is 0
    start = paddle.unsqueeze(1.0 - paddle.cast(continues, x.dtype), 2)
    before_start = paddle.concat([start[1:], paddle.zeros_like(start[:1])], 0)
    inputs, w_inputs = [x, start, before_start], [w_x]
    if x_static is not None:
        fixed = paddle.flatten(x_static, 1)
        inputs.insert(1, paddle.expand(paddle.unsqueeze(fixed, 0), [steps, -1, -1]))
        w_inputs.append(w_static)

    def twice(weights):
        i, f, o, g = paddle.split(weights, 4, 0)
        return paddle.concat([i, i, f, f, g, g, o, o], 0)

    gates = np.zeros((8 * units, 2), "float32")
    gates[2 * units : 4 * units, 0] = shut
    gates[6 * units : 7 * units, 1] = shut
    w_input = paddle.concat([twice(paddle.concat(w_inputs, 1)), paddle.assign(gates)], 1)
    w_back = twice(w_hidden)
    w_back = paddle.concat([w_back, paddle.zeros_like(w_back)], 1)
    zero = paddle.zeros_like(paddle.matmul(x[:1], w_x, transpose_y=True)[:, :, :units])
    zero = paddle.concat([zero, zero], 2)
    bias = twice(bias)
    outputs, _, last = paddle._C_ops.rnn(
        paddle.concat(inputs, 2), [zero, zero], [w_input, w_back, bias, paddle.zeros_like(bias)], None,
        paddle.zeros([1], "uint8"), 0.0, False, w_input.shape[1], 2 * units, 1, "LSTM", 0, False,
    )  # fmt: skip
    return outputs[:, :, units:], last[0][:, :, units:], last[1][:, :, units:]


def caffe_lstm_from(x, continues, steps, units, w_x, bias, w_hidden, hidden, cell, x_static=None, w_static=None):
    """The same as ``caffe_lstm`` from a state on, step by step.

    With states from outside the operation for all steps never ends in the CPU predictor of Paddle 3.3 with oneDNN.
    """
    projected = paddle.matmul(x, w_x, transpose_y=True) + bias
    static = 0.0 if x_static is None else paddle.matmul(paddle.flatten(x_static, 1), w_static, transpose_y=True)
    h, c, outputs = hidden[0], cell[0], []
    for t in range(steps):
        keep = paddle.unsqueeze(continues[t], 1)
        gates = projected[t] + static + paddle.matmul(h * keep, w_hidden, transpose_y=True)
        i, f, o, g = paddle.split(gates, 4, 1)
        c = F.sigmoid(f) * (c * keep) + F.sigmoid(i) * paddle.tanh(g)
        h = F.sigmoid(o) * paddle.tanh(c)
        outputs.append(h)
    return paddle.stack(outputs), paddle.unsqueeze(h, 0), paddle.unsqueeze(c, 0)


def lstm_unit(cell, gates, continues):
    """The next cell state and output of an LSTM: [1, N, units] each; gates i, f, o, g."""
    i, f, o, g = paddle.split(gates, 4, 2)
    kept = F.sigmoid(f) * paddle.unsqueeze(continues, 2)
    cell = kept * cell + F.sigmoid(i) * paddle.tanh(g)
    return cell, F.sigmoid(o) * paddle.tanh(cell)


def caffe_rnn(
    x, continues, steps, units, w_x, bias, w_hidden, w_output, bias_output, x_static=None, w_static=None, hidden=None
):
    """Caffe's RNN: outputs [T, N, units] and the last hidden state [1, N, units]; tanh at both places."""
    projected = paddle.matmul(x, w_x, transpose_y=True) + bias
    static = 0.0 if x_static is None else paddle.matmul(paddle.flatten(x_static, 1), w_static, transpose_y=True)
    h = paddle.zeros_like(projected[0]) if hidden is None else hidden[0]
    outputs = []
    for t in range(steps):
        keep = paddle.unsqueeze(continues[t], 1)
        h = paddle.tanh(projected[t] + static + paddle.matmul(h * keep, w_hidden, transpose_y=True))
        outputs.append(paddle.tanh(paddle.matmul(h, w_output, transpose_y=True) + bias_output))
    return paddle.stack(outputs), paddle.unsqueeze(h, 0)


def prior_box_ratios(aspect_ratios, flip):
    """1, then each new ratio and, with flip, its inverse."""
    ratios = [np.float32(1)]
    for ratio in map(np.float32, aspect_ratios):
        if all(abs(ratio - other) >= 1e-6 for other in ratios):
            ratios += [ratio, np.float32(1) / ratio] if flip else [ratio]
    return ratios


def prior_box_sizes(min_sizes, max_sizes, aspect_ratios, flip):
    """Width and height of each prior box of a place, pixels: [boxes, 2].

    For each min_size: its square, the square of sqrt(min_size * max_size), the other aspect ratios.
    """
    sizes = []
    for index, size in enumerate(min_sizes):
        sizes.append((size, size))
        if max_sizes:
            sizes.append((np.sqrt(np.float32(size * max_sizes[index])),) * 2)
        for ratio in prior_box_ratios(aspect_ratios, flip)[1:]:
            sizes.append((size * np.sqrt(ratio), size / np.sqrt(ratio)))
    return np.array(sizes, np.float32)


def prior_boxes(layer_size, image_size, min_sizes, max_sizes, aspect_ratios, flip, clip, variances, steps, offset):
    """SSD's prior boxes and their variances: [1, 2, H * W * boxes * 4], float32; sizes and steps are [height, width]."""
    half = prior_box_sizes(min_sizes, max_sizes, aspect_ratios, flip).astype(np.float64) / 2
    centers_y, centers_x = np.meshgrid(
        *((np.arange(n, dtype=np.float32) + np.float32(offset)) * np.float32(s) for n, s in zip(layer_size, steps)),
        indexing="ij",
    )
    centers = np.stack([centers_x, centers_y], -1)[:, :, None]  # [H, W, 1, (x, y)]
    boxes = np.concatenate([centers - half, centers + half], -1) / np.array(image_size[::-1] * 2, np.float64)
    boxes = boxes.clip(0, 1) if clip else boxes
    spread = np.broadcast_to(np.array(variances), boxes.shape)
    return np.stack([boxes.ravel(), spread.ravel()])[None].astype(np.float32)


def grid(x):
    """Row and column of each place of [N, C, H, W]: two of [H, W], float32."""
    ones = paddle.ones_like(x[0, 0])
    return paddle.cumsum(ones, 0) - 1.0, paddle.cumsum(ones, 1) - 1.0


def prior_boxes_of(x, image, image_size, min_sizes, max_sizes, aspect_ratios, flip, clip, variances, steps, offset):
    """The same as ``prior_boxes`` for a feature map of any size; image_size and steps may be None: those of the blobs."""
    half = prior_box_sizes(min_sizes, max_sizes, aspect_ratios, flip) / 2
    edges = []
    for axis, position in enumerate(grid(x)):
        size = image_size[axis] if image_size else paddle.cast(paddle.shape(image)[axis + 2], "float32")
        step = steps[axis] if steps else size / paddle.cast(paddle.shape(x)[axis + 2], "float32")
        center, reach = paddle.unsqueeze((position + offset) * step, 2), paddle.assign(half[:, 1 - axis])
        edges.append([(center - reach) / size, (center + reach) / size])
    boxes = paddle.stack([edges[1][0], edges[0][0], edges[1][1], edges[0][1]], 3)  # [H, W, boxes, 4]
    boxes = paddle.clip(boxes, 0.0, 1.0) if clip else boxes
    spread = paddle.ones_like(boxes) * paddle.assign(np.array(variances, np.float32))
    return paddle.unsqueeze(paddle.stack([paddle.flatten(boxes), paddle.flatten(spread)]), 0)


def decode_boxes(location, priors, code_type, variance_encoded):
    """Boxes [N, P, 4 or classes, 4] as corners, from offsets [N, P, .., 4] and priors [1, 2, P * 4]."""
    prior, variance = paddle.unsqueeze(paddle.reshape(priors, [2, 1, -1, 1, 4]), 0).unbind(1)
    prior, variance = prior[0], variance[0]
    offset = location if variance_encoded else location * variance
    low, high = prior[:, :, :, :2], prior[:, :, :, 2:]
    size = high - low
    if code_type == "CORNER":
        return prior + offset
    if code_type == "CORNER_SIZE":
        return prior + offset * paddle.concat([size, size], 3)
    center = (low + high) * 0.5 + offset[:, :, :, :2] * size
    half = paddle.exp(offset[:, :, :, 2:]) * size * 0.5
    return paddle.concat([center - half, center + half], 3)


def detection_output(
    location,
    confidence,
    priors,
    num_classes,
    code_type,
    variance_encoded,
    share_location,
    background,
    threshold,
    nms_threshold,
    nms_top_k,
    nms_eta,
    keep_top_k,
):
    """SSD's detections in Caffe's form: [1, 1, rows, 7] of image, label, score, xmin, ymin, xmax, ymax.

    location: [N, P * 4]; confidence: [N, P * classes]; priors: [1, 2, P * 4]. If nothing is found in the whole batch
    there is one row per image: its index, then -1.
    """
    groups = 1 if share_location else num_classes
    location = paddle.reshape(location, [0, -1, groups, 4])
    boxes = decode_boxes(location, priors, code_type, variance_encoded)
    scores = paddle.reshape(confidence, [0, -1, num_classes])
    image = paddle.cumsum(paddle.ones_like(scores[:, :1, 0]), 0) - 1.0  # [N, 1]: 0, 1, ...
    nms = (threshold, nms_top_k, keep_top_k, nms_threshold, True, nms_eta, background)
    if share_location:
        boxes, scores, per_image = boxes[:, :, 0], paddle.transpose(scores, [0, 2, 1]), None
    else:
        per_image = paddle.cast(paddle.sum(paddle.ones_like(scores[:, :, 0]), 1), "int32")
        boxes, scores = paddle.flatten(boxes, 0, 1), paddle.flatten(scores, 0, 1)
    rows, _, found = paddle._C_ops.multiclass_nms3(boxes, scores, per_image, *nms)
    # In double precision, because oneDNN's kernels (single precision) crash on tensors without rows.
    rows, found, image = (paddle.cast(value, "float64") for value in (rows, found, image))
    position = paddle.cumsum(paddle.ones_like(rows[:, :1]), 0)
    before = paddle.unsqueeze(paddle.cumsum(found, 0), 0)
    owner = paddle.sum(paddle.cast(position > before, "float64"), 1, keepdim=True)
    if not share_location:  # this operator then leaves the rows of a label unordered
        by_score = paddle.argsort(rows[:, 1], descending=True, stable=True)
        label = paddle.gather(owner[:, 0] * num_classes + rows[:, 0], by_score)
        order = paddle.gather(by_score, paddle.argsort(label, stable=True))
        rows, owner = paddle.gather(rows, order), paddle.gather(owner, order)
    rows = paddle.concat([owner, rows], 1)
    nothing = paddle.concat([image, paddle.tile(-paddle.ones_like(image), [1, 6])], 1)
    none_found = paddle.cast(paddle.sum(found) == 0, "float64")
    wanted = paddle.concat([paddle.ones_like(rows[:, 0]), paddle.ones_like(image[:, 0]) * none_found], 0)
    rows = paddle.gather(
        paddle.concat([rows, nothing], 0), paddle.flatten(paddle.nonzero(paddle.cast(wanted, "int32")))
    )
    rows = paddle.cast(rows, "float32")
    return paddle.reshape(rows, [1, 1, -1, 7])


def group_rois(x, rois):
    """Boxes [R, 4] ordered by image, how many belong to each image, and the order's inverse; rois: [R, 5]."""
    rois = paddle.reshape(rois, [-1, 5])
    order = paddle.argsort(rois[:, 0], stable=True)
    images = paddle.cumsum(paddle.ones_like(x[:, :1, 0, 0]), 0) - 1.0
    counts = paddle.sum(paddle.cast(images == paddle.unsqueeze(rois[:, 0], 0), "int32"), 1)
    return paddle.gather(rois[:, 1:], order), paddle.cast(counts, "int32"), paddle.argsort(order)


def roi_pooling(x, rois, size, scale):
    """Max pooling of each region into size bins: [R, C, *size]."""
    boxes, counts, inverse = group_rois(x, rois)
    return paddle.gather(paddle.vision.ops.roi_pool(x, boxes, counts, tuple(size), scale), inverse)


def psroi_pooling(x, rois, size, scale):
    """Position-sensitive average pooling of each region: [R, C / bins, *size]."""
    boxes, counts, inverse = group_rois(x, rois)
    return paddle.gather(paddle.vision.ops.psroi_pool(x, boxes, counts, tuple(size), scale), inverse)


def roi_align(x, rois, size, scale, sampling):
    """The mean of sampling x sampling values in each of size bins of each region, 0: as many as it is large; [R, C, *size]."""
    boxes, counts, inverse = group_rois(x, rois)
    pooled = paddle.vision.ops.roi_align(x, boxes, counts, tuple(size), scale, sampling or -1, aligned=False)
    return paddle.gather(pooled, inverse)


def roi_corners(x, rois, size, scale, margin):
    """The values at the corners of size bins of each region, which is enlarged by margin: [R, C, size[0] + 1, size[1] + 1].

    Corners outside of x, and of regions without an area, are 0. Each is the middle of a bin of a region larger by half a bin.
    """
    rois = paddle.reshape(rois, [-1, 5])
    border = (rois[:, 3:] - rois[:, 1:3] + 1.0) * margin
    low, high = (rois[:, 1:3] - border) * scale, (rois[:, 3:] + border) * scale
    step = (high - low) / paddle.assign(np.array(size[::-1], "float32"))
    boxes = paddle.concat([rois[:, :1], low - step * 0.5, high + step * 0.5], 1)
    inside = paddle.cast(paddle.min(step, 1) > 0, "float32")
    for axis in (0, 1):
        corner = paddle.assign(np.arange(size[axis] + 1, dtype="float32"))
        place = low[:, 1 - axis, None] + step[:, 1 - axis, None] * corner
        limit = paddle.cast(paddle.shape(x)[axis + 2], "float32")
        found = paddle.cast(place >= 0, "float32") * paddle.cast(place <= limit, "float32")
        inside = paddle.unsqueeze(inside, -1) * (paddle.unsqueeze(found, 1) if axis else found)
    boxes, counts, inverse = group_rois(x, boxes)
    bins = (size[0] + 1, size[1] + 1)
    values = paddle.gather(paddle.vision.ops.roi_align(x, boxes, counts, bins, 1.0, 1, aligned=True), inverse)
    return values * paddle.unsqueeze(inside, 1)


def anchors_of_cell(base_size, ratios, scales):
    """Anchors of the first place: [ratios * scales, 4], pixels."""
    anchors = []
    for ratio in ratios:
        width = np.sqrt(base_size * base_size / ratio)
        width, height = np.floor(width + 0.5), np.floor(np.floor(width + 0.5) * ratio + 0.5)
        for scale in scales:
            half = (np.array([width, height]) * scale - 1) / 2
            anchors.append(np.concatenate([(base_size - 1) / 2 - half, (base_size - 1) / 2 + half]))
    return np.array(anchors)


def anchor_boxes(base_size, ratios, scales, stride, layer_size):
    """Anchors of every place of the feature map: [H * W * ratios * scales, 4], pixels."""
    y, x = np.meshgrid(np.arange(layer_size[0]) * stride, np.arange(layer_size[1]) * stride, indexing="ij")
    shifts = np.stack([x, y, x, y], -1)[:, :, None]
    return (shifts + anchors_of_cell(base_size, ratios, scales)).reshape(-1, 4).astype(np.float32)


def anchor_boxes_of(x, base_size, ratios, scales, stride):
    """The same as ``anchor_boxes`` for a feature map of any size."""
    rows, columns = grid(x)
    shifts = paddle.unsqueeze(paddle.stack([columns, rows, columns, rows], 2) * float(stride), 2)
    anchors = paddle.assign(anchors_of_cell(base_size, ratios, scales).astype(np.float32))
    return paddle.reshape(shifts + anchors, [-1, 4])


def region_proposals(scores, deltas, info, anchors, min_size, nms_threshold, before_nms, after_nms):
    """Rows [image, x1, y1, x2, y2] and their scores; info: [.., height, width, scale] of the image."""
    count = deltas.shape[1] // 4
    objectness = paddle.reshape(paddle.transpose(scores[:, count:], [0, 2, 3, 1]), [0, 1, -1])
    delta = paddle.reshape(paddle.transpose(deltas, [0, 2, 3, 1]), [0, -1, 4])
    objectness = paddle.reshape(objectness, [0, -1])
    size = anchors[:, 2:] - anchors[:, :2] + 1.0
    center = anchors[:, :2] + size * 0.5 + delta[:, :, :2] * size
    half = paddle.exp(delta[:, :, 2:]) * size * 0.5
    info = paddle.flatten(info)
    limit = paddle.concat([info[1:2], info[:1]]) - 1.0
    low = paddle.minimum(F.relu(center - half), limit)
    high = paddle.minimum(F.relu(center + half), limit)
    large = paddle.cast(paddle.min(high - low + 1.0, 2) >= info[2:3] * min_size, "float32")
    rows, _, found = paddle._C_ops.multiclass_nms3(
        paddle.concat([low, high], 2),
        paddle.unsqueeze(objectness * large, 1),
        None,
        -1.0,
        before_nms,
        after_nms,
        nms_threshold,
        False,
        1.0,
        -1,
    )
    position = paddle.cumsum(paddle.ones_like(rows[:, :1]), 0)
    before = paddle.unsqueeze(paddle.cumsum(paddle.cast(found, "float32"), 0), 0)
    owner = paddle.sum(paddle.cast(position > before, "float32"), 1, keepdim=True)
    return paddle.concat([owner, rows[:, 2:]], 1), rows[:, 1]


def yolo_boxes(x, anchors):
    """Corners [P, 4] in fractions of the image and the other values [P, 1 + classes] of one image [1, boxes * .., S, S].

    anchors: width and height of each box, in cells.
    """
    side, boxes = x.shape[3], len(anchors)
    values = paddle.reshape(
        paddle.transpose(paddle.reshape(x, [boxes, -1, side, side]), [2, 3, 0, 1]), [side, side, boxes, -1]
    )
    row, column = np.meshgrid(np.arange(side), np.arange(side), indexing="ij")
    cells = paddle.assign(np.stack([column, row], 2)[:, :, None].astype("float32"))
    center = (F.sigmoid(values[:, :, :, :2]) + cells) / float(side)
    half = paddle.exp(values[:, :, :, 2:4]) * paddle.assign(np.array(anchors, "float32")) / (2.0 * side)
    corners = paddle.concat([center - half, center + half], 3)
    return paddle.flatten(corners, 0, 2), paddle.flatten(values[:, :, :, 4:], 0, 2)


def suppressed(boxes, scores, labels, threshold, overlap):
    """SSD's rows [1, 1, rows, 7] of the boxes [M, 4] that are left, whatever their labels; one of -1 if none is."""
    rows, index, _ = paddle._C_ops.multiclass_nms3(
        paddle.unsqueeze(boxes, 0), paddle.reshape(scores, [1, 1, -1]), None, threshold, -1, -1, overlap, True, 1.0, -1
    )
    # In double precision, because oneDNN's kernels (single precision) crash on tensors without rows.
    rows = paddle.cast(rows, "float64")
    label = paddle.gather(paddle.cast(labels, "float64"), paddle.flatten(index))
    rows = paddle.concat([paddle.zeros_like(rows[:, :1]), paddle.unsqueeze(label, 1) + 1.0, rows[:, 1:]], 1)
    nothing = paddle.assign(np.array([[0.0] + [-1.0] * 6]))
    none_found = paddle.cast(paddle.sum(paddle.ones_like(rows)) == 0, "int32")
    wanted = paddle.concat([paddle.cast(paddle.ones_like(rows[:, 0]), "int32"), paddle.reshape(none_found, [1])], 0)
    rows = paddle.gather(paddle.concat([rows, nothing], 0), paddle.flatten(paddle.nonzero(wanted)))
    return paddle.reshape(paddle.cast(rows, "float32"), [1, 1, -1, 7])


def yolo2_detections(maps, anchors, num_classes, threshold, overlap):
    """YOLOv2's boxes, each with its likeliest class: [1, 1, rows, 7] of 0, label from 1, score, xmin, ymin, xmax, ymax."""
    pairs = [yolo_boxes(x, pairs) for x, pairs in zip(maps, anchors)]
    boxes, values = (paddle.concat(parts, 0) for parts in zip(*pairs))
    classes = F.softmax(values[:, 1:], 1)
    scores = F.sigmoid(values[:, 0]) * paddle.max(classes, 1)
    return suppressed(boxes, scores, paddle.argmax(classes, 1), threshold, overlap)


def yolo3_detections(maps, anchors, num_classes, threshold, overlap):
    """YOLOv3's boxes of all its maps, each with every class: rows as those of ``yolo2_detections``."""
    pairs = [yolo_boxes(x, pairs) for x, pairs in zip(maps, anchors)]
    boxes, values = (paddle.concat(parts, 0) for parts in zip(*pairs))
    scores = F.sigmoid(values[:, :1]) * F.sigmoid(values[:, 1:])
    labels = paddle.cumsum(paddle.ones_like(scores), 1) - 1.0
    boxes = paddle.tile(paddle.unsqueeze(boxes, 1), [1, num_classes, 1])
    return suppressed(paddle.flatten(boxes, 0, 1), paddle.flatten(scores), paddle.flatten(labels), threshold, overlap)
