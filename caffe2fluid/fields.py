"""Which fields of a prototxt the converter looked at, and which it does not know: those are reported, never dropped silently."""

from __future__ import annotations

from collections.abc import Iterator

from .prototxt import Message

# Fields that say how a layer trains or which code runs it: nothing that a forward pass depends on.
WITHOUT_EFFECT = {
    "engine", "force_nd_im2col", "stable_prod_grad", "moving_average_fraction", "momentum", "visualize",
    "visualize_threshold", "save_output_param", "debug_info", "frozen", "do_all_reduce", "icnet", "module",
    "share_in_parallel", "dropout_scaling",
}  # fmt: skip
# Fields of every layer, also of NVIDIA's fork.
OF_LAYERS = {
    "name", "type", "bottom", "top", "phase", "loss_weight", "propagate_down", "blobs", "blobs_lr", "weight_decay",
    "blob_share_mode", "transform_param", "loss_param", "forward_type", "backward_type", "forward_math",
    "backward_math", "debug", "cudnn_math_override",
}  # fmt: skip
OF_NETS = {
    "name", "input", "input_shape", "input_dim", "layer", "layers", "state", "force_backward", "debug_info",
    "default_forward_type", "default_backward_type", "default_forward_math", "default_backward_math",
    "reduce_buckets", "global_grad_scale", "quantize", "eltwise_mem_sharing", "profile_info", "profile_iter",
    "profile_warmup",
}  # fmt: skip
_RULE = {"phase", "min_level", "max_level", "stage", "not_stage"}
RULES = {"include", "exclude"}
_INNER = {"param": {"name", "lr_mult", "decay_mult", "share_mode"}, "include": _RULE, "exclude": _RULE}
_FILLER = {"type", "value", "min", "max", "mean", "std", "sparse", "variance_norm"}


def of_layer(message: Message) -> list[str]:
    """Paths of the fields of a layer that nothing looked at after its translation, at every depth."""
    return [path for path in _unread(message, "") if path not in OF_LAYERS]


def unknown(message: Message, known: set[str]) -> list[str]:
    """Names of the fields of a message that are not among the known."""
    return [name for name in message.fields if name not in known]


def _unread(message: Message, prefix: str) -> Iterator[str]:
    for name, values in message.fields.items():
        inner = [value for value in values if isinstance(value, Message)]
        known = _FILLER if name.endswith("filler") else _INNER.get(name)
        if known is not None:
            yield from (f"{prefix}{name}.{field}" for value in inner for field in unknown(value, known))
        elif name in WITHOUT_EFFECT or (not prefix and name in OF_LAYERS):
            continue
        elif name not in message.used:
            yield prefix + name
        else:
            for value in inner:
                yield from _unread(value, f"{prefix}{name}.")
