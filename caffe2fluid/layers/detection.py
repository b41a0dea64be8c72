"""Layers of detectors: SSD (PriorBox, DetectionOutput), Faster R-CNN and R-FCN (Proposal, ROIPooling, PSROIPooling)."""

from __future__ import annotations

import math
from typing import Any

from .. import operators
from ..errors import number_of
from ..names import quoted
from ..param_str import parse_param_str
from ..prototxt import Message
from .node import Node, Parameter, arguments, register_layer

MAX_CONSTANT = 1 << 26  # values of a constant computed at conversion time


def _constant(node: Node, suffix: str, shape: list[int], function: str, keywords: dict[str, Any]) -> str:
    """A parameter that never trains, filled by a helper from the numbers in ``keywords``."""
    if math.prod(shape) > MAX_CONSTANT:
        raise node.error(f"{math.prod(shape):,} values of prior boxes")
    name = f"{node.id}_{suffix}"
    node.helper(function)
    node.parameters[name] = Parameter(shape, lambda: getattr(operators, function)(**keywords))
    attribute = node.attribute(name)
    node.init.append(
        f"self.{attribute} = self.create_parameter({shape}, attr=paddle.ParamAttr(name={quoted(name)}, trainable=False), "
        f"default_initializer=nn.initializer.Assign({function}({arguments(**keywords)})))"
    )
    return f"self.{attribute}"


@register_layer("PriorBox")
def prior_box(node: Node) -> None:
    """Computed once, at conversion, unless images of any size are wanted; Caffe truncates min_size and max_size to int."""
    node.needs_bottoms(2, 2)
    params = node.params("prior_box_param")
    if any(len(shape) != 4 for shape in node.shapes):
        raise node.error(f"bottoms of shapes {node.shapes}; wanted are a feature map and an image")
    minima, maxima = params.numbers("min_size"), params.numbers("max_size")
    if not minima or (maxima and len(maxima) != len(minima)):
        raise node.error(f"{len(minima)} min_size and {len(maxima)} max_size")
    if any(not 0 < size < 1 << 24 for size in minima + maxima):
        raise node.error(f"min_size {minima}, max_size {maxima}")
    ratios = params.numbers("aspect_ratio")
    if any(not 0 < ratio < math.inf for ratio in ratios):
        raise node.error(f"aspect_ratio {ratios}")
    fixed_image, fixed_steps = (
        _by_axis(node, params, *names, None) for names in (("img", "img_size"), ("step", "step"))
    )
    image, layer = fixed_image or node.shapes[1][2:], node.shape[2:]
    steps = fixed_steps or [size / n for size, n in zip(image, layer, strict=True)]
    variances = params.numbers("variance") or [0.1]
    if len(variances) not in (1, 4):
        raise node.error(f"{number_of(len(variances), 'value')} of variance; wanted 1 or 4")
    keywords = {
        "image_size": image,
        "min_sizes": [int(size) for size in minima],
        "max_sizes": [int(size) for size in maxima],
        "aspect_ratios": ratios,
        "flip": params.flag("flip", True),
        "clip": params.flag("clip", False),
        "variances": variances * 4 if len(variances) == 1 else variances,
        "steps": steps,
        "offset": params.number("offset", 0.5),
    }
    boxes = operators.prior_box_ratios(ratios, keywords["flip"])
    count = math.prod(layer) * (len(boxes) * len(minima) + len(maxima))
    shape = [1, 2, count * 4]
    if node.any_size:
        call = arguments(
            *node.inputs, **keywords | {"image_size": fixed_image or "None", "steps": fixed_steps or "None"}
        )
        node.output(f"{node.helper('prior_boxes_of')}({call})", shape)
        return
    priors = _constant(node, "priors", shape, "prior_boxes", {"layer_size": layer, **keywords})
    node.output(f"paddle.assign({priors})", shape)


def _by_axis(node: Node, params: Message, prefix: str, both: str, default: list | None) -> list | None:
    """[height, width] from PREFIX_h and PREFIX_w, or from one field for both."""
    if f"{prefix}_h" in params or f"{prefix}_w" in params:
        values = [params.number(f"{prefix}_h"), params.number(f"{prefix}_w")]
    elif both in params:
        values = [params.number(both)] * 2
    else:
        return default
    if values == [0, 0]:
        return default
    if min(values) <= 0:
        raise node.error(f"{prefix} {values}")
    return [int(value) if value == int(value) else value for value in values]


@register_layer("DetectionOutput")
def detection_output(node: Node) -> None:
    """Rows [image, label, score, xmin, ymin, xmax, ymax] as [1, 1, rows, 7]; a row of -1 per image if there are none."""
    node.needs_bottoms(3, 3)
    params = node.params("detection_output_param")
    nms = params.message("nms_param")
    classes = params.integer("num_classes")
    location, confidence, priors = node.shapes
    count = priors[-1] // 4 if len(priors) == 3 else 0
    shared = params.flag("share_location", True)
    if not 1 <= classes < 1 << 20 or (
        priors != [1, 2, count * 4]
        or math.prod(location[1:]) != count * 4 * (1 if shared else classes)
        or math.prod(confidence[1:]) != count * classes
    ):
        raise node.error(f"bottoms of shapes {node.shapes} for {classes} classes")
    keywords = {
        "num_classes": classes,
        "code_type": quoted(params.choice("code_type", ["", "CORNER", "CENTER_SIZE", "CORNER_SIZE"], "CORNER")),
        "variance_encoded": params.flag("variance_encoded_in_target", False),
        "share_location": shared,
        "background": params.integer("background_label_id", 0),
        "threshold": params.number("confidence_threshold", -3.4e38),
        "nms_threshold": nms.number("nms_threshold", 0.3),
        "nms_top_k": nms.integer("top_k", -1),
        "nms_eta": nms.number("eta", 1.0),
        "keep_top_k": params.integer("keep_top_k", -1),
    }
    call = arguments(*node.inputs, **keywords)
    rows = keywords["keep_top_k"] if keywords["keep_top_k"] > 0 else 1
    node.output(f"{node.helper('detection_output')}({call})", [1, 1, rows * location[0], 7])


def _pooled_rois(
    node: Node, function: str, params: Message, channels: int, size: list[int], *more: float, corners: int = 0
) -> None:
    """``more``: arguments of the function after the scale; ``corners`` more of rows and columns than bins."""
    scale = params.number("spatial_scale", 1.0)
    rois = node.shapes[1]
    rows = rois[0] if math.prod(rois[1:]) == 5 else math.prod(rois) // 5 if rois[-1:] == [5] else 0
    if len(node.shape) != 4 or not rows or not 1 <= min(size) <= max(size) < 1 << 16 or not 0 < scale < math.inf:
        raise node.error(f"bottoms of shapes {node.shapes} into {size} bins at scale {scale}")
    call = f"{node.helper(function)}({arguments(*node.inputs, size, scale, *more)})"
    node.output(call, [rows, channels, *(n + corners for n in size)])


@register_layer("ROIPooling")
def roi_pooling(node: Node) -> None:
    """Fast R-CNN (Girshick, https://arxiv.org/abs/1504.08083); rois are rows [image, x1, y1, x2, y2]."""
    node.needs_bottoms(2, 2)
    params = node.params("roi_pooling_param")
    size = [params.integer("pooled_h"), params.integer("pooled_w")]
    _pooled_rois(node, "roi_pooling", params, node.shape[1], size)


@register_layer("ROIAlign")
def roi_align(node: Node) -> None:
    """Mask R-CNN (He et al., https://arxiv.org/abs/1703.06870): the mean of points in each bin; or, with ``pad_ratio``,
    the corners of the bins (Cascade R-CNN, https://arxiv.org/abs/1712.00726). Other forks' layers of that name differ."""
    node.needs_bottoms(2, 2)
    own = "roi_align_param" in node.layer.params
    params = node.params("roi_align_param" if own else "roi_pooling_param")
    size = [params.integer("pooled_h", 0), params.integer("pooled_w", 0)]
    if "aligned_h" in params or params.integer("roi_end_mode", 0) or not (own or "pad_ratio" in params):
        raise node.unsupported(
            "forks compute different things by its fields; known are roi_align_param { pooled_h, pooled_w, spatial_scale, "
            "sampling_ratio } (Mask R-CNN) and roi_pooling_param { pooled_h, pooled_w, spatial_scale, pad_ratio } "
            "(Cascade R-CNN; write pad_ratio: 0 if it is that one)"
        )
    if own:
        _pooled_rois(node, "roi_align", params, node.shape[1], size, max(params.integer("sampling_ratio", 0), 0))
    else:
        _pooled_rois(node, "roi_corners", params, node.shape[1], size, params.number("pad_ratio"), corners=1)


@register_layer("PSROIPooling")
def psroi_pooling(node: Node) -> None:
    """R-FCN (Dai et al., https://arxiv.org/abs/1605.06409)."""
    node.needs_bottoms(2, 2)
    params = node.params("psroi_pooling_param")
    channels, group = params.integer("output_dim"), params.integer("group_size")
    if channels < 1 or group < 1 or node.shape[1] != channels * group**2:
        raise node.error(f"{node.shape[1]} channels, not output_dim {channels} times group_size {group} squared")
    _pooled_rois(node, "psroi_pooling", params, channels, [group, group])


_PROPOSAL_SETTINGS = {
    "feat_stride": "feat_stride", "base_size": "base_size", "anchor_base_size": "base_size", "scales": "scales",
    "anchor_scales": "scales", "ratios": "ratios", "anchor_ratios": "ratios",
}  # fmt: skip


def _proposal_settings(node: Node) -> dict[str, Any]:
    """What ``param_str`` of rpn.proposal_layer sets: whole numbers, and lists of numbers for scales and ratios."""
    text = node.layer.params.message("python_param").text("param_str", "")
    try:
        entries = parse_param_str(text)
    except ValueError as error:
        raise node.error(f"param_str {text[:60]!r}: {error}") from None
    result: dict[str, Any] = {}
    for name, value in entries.items():
        known = _PROPOSAL_SETTINGS.get(name)
        if known is None:
            raise node.error(
                f"param_str has {name!r}, which has no translation; known are {', '.join(_PROPOSAL_SETTINGS)}"
            )
        several = known in ("scales", "ratios")
        values = value if isinstance(value, list) and several else [value]
        kinds = (int, float) if several else int
        if not values or any(isinstance(item, bool) or not isinstance(item, kinds) for item in values):
            raise node.error(
                f"param_str: {name} is {value!r}, not {'a list of numbers' if several else 'a whole number'}"
            )
        result[known] = [float(item) for item in values] if several else value
    return result


@register_layer("Proposal", "ProposalLayer")
def proposal(node: Node) -> None:
    """Region proposals of Faster R-CNN (Ren et al., https://arxiv.org/abs/1506.01497): rows [image, x1, y1, x2, y2].

    The field names of the C++ layers; those of the Python layer rpn.proposal_layer, and its fixed settings for the rest.
    """
    node.needs_bottoms(3, 3)
    params = node.params("proposal_param")
    python = _proposal_settings(node)
    stride = params.integer("feat_stride", python.get("feat_stride", 16))
    base_size = params.integer("base_size", python.get("base_size", 16))
    ratios = params.numbers("ratio") or python.get("ratios", [0.5, 1.0, 2.0])
    scales = params.numbers("scale") or python.get("scales", [8.0, 16.0, 32.0])
    scores, deltas, info = node.shapes
    count = len(ratios) * len(scales)
    if (
        len(scores) != 4
        or scores[1] != 2 * count
        or deltas != [scores[0], 4 * count, *scores[2:]]
        or math.prod(info) < 3
    ):
        raise node.error(f"bottoms of shapes {node.shapes} for {count} anchors")
    if any(not 0 < value < 1 << 16 for value in ratios + scales):
        raise node.error(f"ratio {ratios}, scale {scales}")
    if not 0 < stride < 1 << 16 or not 0 < base_size < 1 << 16:
        raise node.error(f"feat_stride {stride}, base_size {base_size}")
    keywords = {
        "base_size": base_size,
        "ratios": ratios,
        "scales": scales,
        "stride": stride,
    }
    if node.any_size:
        anchors = f"{node.helper('anchor_boxes_of')}({arguments(node.x, **keywords)})"
    else:
        keywords["layer_size"] = scores[2:]
        anchors = _constant(node, "anchors", [math.prod(scores[2:]) * count, 4], "anchor_boxes", keywords)
    keep = params.integer("post_nms_topn", 300)
    call = arguments(
        *node.inputs,
        anchors,
        min_size=params.number("min_size", 16),
        nms_threshold=params.number("nms_thresh", 0.7),
        before_nms=params.integer("pre_nms_topn", 6000),
        after_nms=keep,
    )
    function = node.helper("region_proposals")
    node.output(f"{function}({call})[0]", [scores[0] * keep, 5])
    if len(node.layer.tops) > 1:
        node.output(f"{function}({call})[1]", [scores[0] * keep])


@register_layer("YoloDetectionOutput")
def yolo_detection_output(node: Node) -> None:
    """Boxes of YOLOv2 (https://arxiv.org/abs/1612.08242): each of its likeliest class, one suppression for all classes.

    A second map has the same anchors, in its own cells.
    """
    params = node.params("yolo_detection_output_param")
    node.needs_bottoms(1, 2)
    params.integer("side", 13)
    params.text("label_map_file", "")
    coordinates = params.integer("coords", 4)
    boxes = params.integer("num_box", 5)
    anchors = _yolo_anchors(node, params, boxes)
    _yolo_output(node, params, "yolo2_detections", boxes, coordinates, [anchors[:boxes]] * len(node.inputs))


@register_layer("Yolov3DetectionOutput")
def yolov3_detection_output(node: Node) -> None:
    """Boxes of YOLOv3 (https://arxiv.org/abs/1804.02767): with each class above the threshold, one suppression for all."""
    params = node.params("yolov3_detection_output_param")
    boxes, mask = params.integer("num_box", 3), params.integers("mask")
    groups, scales = params.integer("mask_group_num", 2), params.integers("anchors_scale")
    fitting = len(node.inputs) == groups == len(scales) and len(mask) == groups * boxes
    if not fitting or min(scales, default=0) < 1 or min(mask, default=0) < 0:
        raise node.error(
            f"{len(node.inputs)} bottoms, mask_group_num {groups}, {len(mask)} mask, {len(scales)} anchors_scale"
        )
    known = _yolo_anchors(node, params, max(mask) + 1)
    anchors = []
    for index, scale in enumerate(scales):  # pixels a cell, in which the anchors are
        chosen = mask[index * boxes : (index + 1) * boxes]
        anchors.append([[size / scale for size in known[k]] for k in chosen])
    _yolo_output(node, params, "yolo3_detections", boxes, 4, anchors)


def _yolo_anchors(node: Node, params: Message, least: int) -> list[list[float]]:
    """Pairs of width and height."""
    biases = params.numbers("biases")
    if least < 1 or len(biases) % 2 or len(biases) < 2 * least:
        raise node.error(f"{len(biases)} biases for {least} boxes")
    return [biases[index : index + 2] for index in range(0, len(biases), 2)]


def _yolo_output(
    node: Node, params: Message, function: str, boxes: int, coordinates: int, anchors: list[list[list[float]]]
) -> None:
    """``anchors`` by bottom, in cells."""
    classes = params.integer("num_classes")
    for shape in node.shapes:
        if (
            len(shape) != 4
            or shape[0] != 1
            or shape[1] != boxes * (5 + classes)
            or shape[2] != shape[3]
            or coordinates != 4
        ):
            raise node.error(
                f"bottoms of shapes {node.shapes} for {boxes} boxes and {classes} classes; wanted are squares of one image"
            )
    threshold, overlap = params.number("confidence_threshold", 0.01), params.number("nms_threshold", 0.45)
    call = arguments(f"[{', '.join(node.inputs)}]", anchors, classes, threshold, overlap)
    node.output(f"{node.helper(function)}({call})", [1, 1, 1, 7])
