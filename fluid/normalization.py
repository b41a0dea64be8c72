"""Batch normalisation of sequences and images that are padded to one length."""

from fluid.program import Value, dtype_name

import paddle


def masked_batch_norm(
    x: Value,
    inside: Value,
    *,
    name: str,
    training: bool,
    momentum: float = 0.9,
    epsilon: float = 1e-5,
) -> Value:
    """Batch normalisation (Ioffe and Szegedy, arXiv:1502.03167) that sees only what lies inside each sample.

    The statistics are those of the same samples without padding, as Fluid's sequences were, so that padding changes neither
    the loss nor the running statistics. What is returned outside is not defined: mask it.

    Args:
        x: [N, C, ...].
        inside: 1 where a sample is, 0 where its padding is: [N, 1, ...], any axis but the first may have length 1 (say
            [N, 1, 1, W] for images of different width).
        name: of the parameters: `<name>.w_0` scale, `<name>.b_0` offset, `<name>.w_1` mean, `<name>.w_2` variance, [C].
        training: use the statistics of the batch, and move the running ones towards them.
        momentum: share of the running statistics that is kept.
        epsilon: added to the variance.
    """
    channels, dtype = x.shape[1], dtype_name(x)
    constant = paddle.nn.initializer.Constant

    def variable(suffix: str, start: float, trainable: bool) -> Value:
        attributes = paddle.ParamAttr(name=f"{name}.{suffix}", initializer=constant(start), trainable=trainable)
        return paddle.create_parameter([channels], dtype, attr=attributes)

    scale, offset = variable("w_0", 1.0, True), variable("b_0", 0.0, True)
    mean, variance = variable("w_1", 0.0, False), variable("w_2", 1.0, False)
    by_channel = [1, channels, *[1] * (len(x.shape) - 2)]
    if training:
        axes = [0, *range(2, len(x.shape))]
        share = paddle.cast(inside, dtype)
        # Axes of length 1 in `inside` stand for all of x along them.
        share = share * paddle.ones_like(x[:, :1])
        count = paddle.sum(share)
        batch_mean = paddle.sum(x * share, axis=axes) / count
        batch_variance = paddle.sum(paddle.square(x - batch_mean.reshape(by_channel)) * share, axis=axes) / count
        for running, new in ((mean, batch_mean), (variance, batch_variance)):
            paddle.assign(running * momentum + new.detach() * (1.0 - momentum), running)
        mean, variance = batch_mean, batch_variance
    factor = scale * paddle.rsqrt(variance + epsilon)
    return x * factor.reshape(by_channel) + (offset - mean * factor).reshape(by_channel)
