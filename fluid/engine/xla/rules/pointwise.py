"""Operations on each element by itself, with NumPy's broadcasting.

Where a function has a corner (relu, clip, maximum), its rule is written so that the gradient in the corner is Paddle's.
"""

import operator
from collections.abc import Callable

from fluid.engine.xla.precision import Kind
from fluid.engine.xla.rules.registry import ALL, Call, numbers, rule

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

Array = jax.Array


def _simple(names: str, function: Callable[..., Array], kind: Kind = Kind.FOLLOW) -> None:
    """Rules of operations without attributes."""
    rule(*names.split(), kind=kind, images=ALL)(lambda op, *operands: function(*operands))


def _spread(x: Array, y: Array) -> tuple[Array, Array]:
    """Both in one shape: the gradient of what was smaller, of a bias say, is then a sum in float32 also for bfloat16."""
    shape = np.broadcast_shapes(x.shape, y.shape)

    def spread(array: Array) -> Array:
        if array.dtype != jnp.bfloat16 or array.shape == shape:
            return array
        return jnp.broadcast_to(array.astype(jnp.float32), shape).astype(array.dtype)

    return spread(x), spread(y)


_simple("add add_ grad_add", lambda x, y: operator.add(*_spread(x, y)))
_simple("subtract subtract_", lambda x, y: operator.sub(*_spread(x, y)))
_simple("multiply multiply_", lambda x, y: operator.mul(*_spread(x, y)))
_simple("divide divide_", lambda x, y: operator.truediv(*_spread(x, y)))
_simple("maximum", lambda x, y: numbers(x, y).maximum(x, y))
_simple("minimum", lambda x, y: numbers(x, y).minimum(x, y))
_simple("fmax", lambda x, y: jnp.where((x >= y) | (y != y), x, y))
_simple("fmin", lambda x, y: jnp.where((x <= y) | (y != y), x, y))
_simple("floor_divide", operator.floordiv)
_simple("remainder", jnp.remainder)
_simple("atan2", jnp.arctan2, Kind.FULL)

_simple("equal", lambda x, y: x == y)
_simple("not_equal", lambda x, y: x != y)
_simple("less_than", lambda x, y: x < y)
_simple("less_equal", lambda x, y: x <= y)
_simple("greater_than", lambda x, y: x > y)
_simple("greater_equal", lambda x, y: x >= y)
_simple("logical_and", lambda x, y: numbers(x, y).logical_and(x, y))
_simple("logical_or", lambda x, y: numbers(x, y).logical_or(x, y))
_simple("logical_xor", lambda x, y: jnp.logical_xor(x, y))
_simple("logical_not", lambda x: numbers(x).logical_not(x))
_simple("bitwise_and", jnp.bitwise_and)
_simple("bitwise_or", jnp.bitwise_or)
_simple("bitwise_xor", jnp.bitwise_xor)
_simple("bitwise_not", jnp.bitwise_not)
_simple("isfinite", jnp.isfinite)
_simple("isnan", jnp.isnan)
_simple("isinf", jnp.isinf)

_simple("abs", lambda x: x * numbers(x).sign(x))
_simple("sign", jnp.sign)
_simple("floor", jnp.floor)
_simple("ceil", jnp.ceil)
_simple("trunc", jnp.trunc)
_simple("square", lambda x: x * x)
_simple("relu relu_", jax.nn.relu)
_simple("sigmoid sigmoid_", jax.nn.sigmoid)
_simple("silu swish", jax.nn.silu)
_simple("tanh tanh_", jnp.tanh)
_simple("softsign", lambda x: x / (1 + jnp.abs(x)))
_simple("tanh_shrink", lambda x: x - jnp.tanh(x), Kind.FULL)
_simple("logsigmoid", jax.nn.log_sigmoid)
_simple("mish", lambda x: x * jnp.tanh(jax.nn.softplus(x)), Kind.FULL)
_simple("assign assign_ share_data_", lambda x: x)
_simple("exp", jnp.exp, Kind.FULL)
_simple("expm1", jnp.expm1, Kind.FULL)
_simple("log", jnp.log, Kind.FULL)
_simple("log2", jnp.log2, Kind.FULL)
_simple("log10", jnp.log10, Kind.FULL)
_simple("log1p", jnp.log1p, Kind.FULL)
_simple("sqrt", jnp.sqrt, Kind.FULL)
_simple("rsqrt", lax.rsqrt, Kind.FULL)
_simple("reciprocal", lambda x: 1 / x, Kind.FULL)
_simple("sin", jnp.sin, Kind.FULL)
_simple("cos", jnp.cos, Kind.FULL)
_simple("tan", jnp.tan, Kind.FULL)
_simple("asin", jnp.arcsin, Kind.FULL)
_simple("acos", jnp.arccos, Kind.FULL)
_simple("atan", jnp.arctan, Kind.FULL)
_simple("sinh", jnp.sinh, Kind.FULL)
_simple("cosh", jnp.cosh, Kind.FULL)
_simple("asinh", jnp.arcsinh, Kind.FULL)
_simple("acosh", jnp.arccosh, Kind.FULL)
_simple("atanh", jnp.arctanh, Kind.FULL)
_simple("erf", lax.erf, Kind.FULL)
_simple("lerp", lambda x, y, weight: x + weight * (y - x))
_simple("where", lambda condition, x, y: jnp.where(condition, x, y))
_simple("masked_fill", lambda x, mask, value: jnp.where(mask, value.astype(x.dtype), x))


@rule("round", images=ALL)
def round_to_even(op: Call, x: Array) -> Array:
    """Halves to the even neighbour, as Paddle's CPU kernel."""
    factor = 10.0 ** op.get("decimals", 0)
    return jnp.round(x * factor) / factor


@rule("scale", "scale_", images=ALL)
def scale(op: Call, x: Array, factor: Array) -> Array:
    factor = factor.reshape(()).astype(x.dtype)
    bias = np.asarray(op["bias"]).astype(x.dtype)
    return x * factor + bias if op["bias_after_scale"] else (x + bias) * factor


@rule("increment_", "increment")
def increment(op: Call, x: Array) -> Array:
    return x + np.asarray(op["value"]).astype(x.dtype)


@rule("assign_out_")
def assign_out(op: Call, x: Array, output: Array) -> Array:
    return x


@rule("cast", "cast_", kind=Kind.OWN, images=ALL)
def cast(op: Call, x: Array) -> Array:
    """To float32 is the identity for activations that the policy holds in bfloat16."""
    wanted = jnp.dtype(op["dtype"])
    if op.policy.reduced and x.dtype == jnp.bfloat16 and wanted == jnp.float32:
        return x
    if wanted == jnp.bool_:
        return x != 0
    return x.astype(wanted)


@rule("elementwise_pow", kind=Kind.FULL, images=ALL)
def elementwise_power(op: Call, x: Array, y: Array) -> Array:
    """0 to the power of 0 is 1, with no gradient."""
    return jnp.power(jnp.where((x == 0) & (y == 0), jnp.ones_like(x), x), y)


@rule("pow", kind=Kind.FULL, images=ALL)
def power(op: Call, x: Array) -> Array:
    exponent = float(op["y"])
    return x ** (int(exponent) if exponent.is_integer() else exponent)


@rule("clip", "clip_", images=ALL)
def clip(op: Call, x: Array, low: Array, high: Array) -> Array | np.ndarray:
    low, high = low.reshape(()).astype(x.dtype), high.reshape(()).astype(x.dtype)
    if numbers(x, low, high) is np:
        return np.clip(x, low, high)
    return jnp.where((x >= low) & (x <= high), x, lax.stop_gradient(jnp.clip(x, low, high)))


@rule("logit", kind=Kind.FULL, images=ALL)
def logit(op: Call, x: Array) -> Array:
    """The inverse of the sigmoid, of x kept `eps` away from 0 and 1."""
    low, high = op["eps"], 1 - op["eps"]
    kept = jnp.where((x >= low) & (x <= high), x, lax.stop_gradient(jnp.clip(x, low, high))) if low else x
    return jnp.log(kept / (1 - kept))


@rule("isclose")
def is_close(op: Call, x: Array, y: Array, relative: Array, absolute: Array) -> Array:
    """No finite number is close to infinity; to Paddle's kernel all are."""
    return jnp.isclose(x, y, relative.reshape(()), absolute.reshape(()), op["equal_nan"])


@rule("allclose")
def all_close(op: Call, x: Array, y: Array, relative: Array, absolute: Array) -> Array:
    return jnp.all(is_close(op, x, y, relative, absolute))


@rule("swiglu")
def swiglu(op: Call, x: Array, y: Array | None) -> Array:
    """Shazeer, arXiv:2002.05202; without y, x holds both halves."""
    gate, value = jnp.split(x, 2, -1) if y is None else (x, y)
    return jax.nn.silu(gate) * value


@rule("relu6", images=ALL)
def relu6(op: Call, x: Array) -> Array:
    return jnp.where((x > 0) & (x < 6), x, lax.stop_gradient(jnp.clip(x, 0, 6)))


@rule("leaky_relu", "leaky_relu_", images=ALL)
def leaky_relu(op: Call, x: Array) -> Array:
    return jnp.where(x >= 0, x, x * np.asarray(op["negative_slope"]).astype(x.dtype))


@rule("prelu")
def prelu(op: Call, x: Array, alpha: Array) -> Array:
    if op["mode"] == "channel" and x.ndim > 1:
        shape = [1] * x.ndim
        shape[-1 if op["data_format"] == "NHWC" else 1] = -1
        alpha = alpha.reshape(shape)
    elif op["mode"] == "element":
        alpha = alpha.reshape(1, *x.shape[1:])
    return jnp.where(x > 0, x, alpha * x)


@rule("elu", "elu_", kind=Kind.FULL, images=ALL)
def elu(op: Call, x: Array) -> Array:
    return jax.nn.elu(x, op["alpha"])


@rule("celu", kind=Kind.FULL, images=ALL)
def celu(op: Call, x: Array) -> Array:
    """Barron, arXiv:1704.07483."""
    return op["alpha"] * jax.nn.elu(x / op["alpha"])


@rule("selu", kind=Kind.FULL, images=ALL)
def selu(op: Call, x: Array) -> Array:
    """Klambauer et al., arXiv:1706.02515."""
    return op["scale"] * jax.nn.elu(x, op["alpha"])


@rule("stanh", kind=Kind.FULL, images=ALL)
def scaled_tanh(op: Call, x: Array) -> Array:
    return op["scale_b"] * jnp.tanh(op["scale_a"] * x)


@rule("softplus", kind=Kind.FULL, images=ALL)
def softplus(op: Call, x: Array) -> Array:
    scaled = x * op["beta"]
    linear = scaled > op["threshold"]
    return jnp.where(linear, x, jax.nn.softplus(jnp.where(linear, 0, scaled)) / op["beta"])


@rule("gelu", images=ALL)
def gelu(op: Call, x: Array) -> Array:
    return jax.nn.gelu(x, approximate=op["approximate"])


@rule("hardsigmoid", images=ALL)
def hardsigmoid(op: Call, x: Array) -> Array:
    y = x * op["slope"] + op["offset"]
    return jnp.where((y > 0) & (y < 1), y, lax.stop_gradient(jnp.clip(y, 0, 1)))


@rule("hardswish", images=ALL)
def hardswish(op: Call, x: Array) -> Array:
    return jnp.where(x <= -3, 0 * x, jnp.where(x < 3, x * (x + 3) / 6, x))


@rule("hardtanh", images=ALL)
def hardtanh(op: Call, x: Array) -> Array:
    return jnp.where((x > op["t_min"]) & (x < op["t_max"]), x, lax.stop_gradient(jnp.clip(x, op["t_min"], op["t_max"])))


@rule("softshrink", images=ALL)
def softshrink(op: Call, x: Array) -> Array:
    edge = op["threshold"]
    return jnp.where(x > edge, x - edge, jnp.where(x < -edge, x + edge, 0 * x))


@rule("hardshrink", images=ALL)
def hardshrink(op: Call, x: Array) -> Array:
    """The edges stay, as in Paddle's kernel; its documentation has them go."""
    return jnp.where((x >= op["threshold"]) | (x <= -op["threshold"]), x, 0 * x)


@rule("thresholded_relu", images=ALL)
def thresholded_relu(op: Call, x: Array) -> Array:
    return jnp.where(x > op["threshold"], x, op["value"] + 0 * x)


@rule("add_n", images=ALL)
def add_n(op: Call, inputs: list[Array]) -> Array:
    """Their sum, the last ones first.

    So XLA on GPUs joins all that devices have of a gradient before they exchange it. A table of words that is read and multiplied
    by was exchanged twice the other way round, as float32 and as bfloat16: 187 MB a step of Transformer-base in place of 154.
    """
    *others, total = inputs
    for item in reversed(others):
        total = total + item
    return total


@rule("label_smooth")
def label_smooth(op: Call, label: Array, prior: Array | None) -> Array:
    """Szegedy et al., arXiv:1512.00567, section 7."""
    epsilon = op["epsilon"]
    uniform = 1.0 / label.shape[-1] if prior is None else prior
    return (1 - epsilon) * label + epsilon * uniform
