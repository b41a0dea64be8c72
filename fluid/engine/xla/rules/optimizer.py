"""Optimizers: float32 whatever the policy. Each returns the new parameter and accumulators."""

from typing import Any

from fluid.engine.xla.precision import Kind
from fluid.engine.xla.rules.registry import Call, rule

import jax
import jax.numpy as jnp

Array = jax.Array


def _rate(rate: Array, parameter: Array) -> Array:
    return rate.reshape(()).astype(parameter.dtype)


def _scalar(op: Call, value: Any, parameter: Array) -> Array:
    return jnp.asarray(value).reshape(()).astype(parameter.dtype)


@rule("sgd_", kind=Kind.FULL)
def sgd(op: Call, param: Array, rate: Array, grad: Array, master: Any = None) -> tuple[Any, ...]:
    return param - _rate(rate, param) * grad, None


@rule("momentum_", kind=Kind.FULL)
def momentum(op: Call, param: Array, grad: Array, velocity: Array, rate: Array, master: Any = None) -> tuple[Any, ...]:
    """v = mu v + g, then p -= lr v; Nesterov: p -= lr (g + mu v). Sutskever et al., ICML 2013."""
    grad = grad * op["rescale_grad"] if op["rescale_grad"] != 1.0 else grad
    if op["regularization_method"] == "l2_decay":
        grad = grad + op["regularization_coeff"] * param
    mu, rate = op["mu"], _rate(rate, param)
    velocity = mu * velocity + grad
    direction = grad + mu * velocity if op["use_nesterov"] else velocity
    return param - rate * direction, velocity, None


@rule("adam_", kind=Kind.FULL)
def adam(op: Call, param: Array, grad: Array, rate: Array, *others: Any) -> tuple[Any, ...]:
    """Kingma and Ba, arXiv:1412.6980, with epsilon as in the paper's section 2 (scaled by the bias correction)."""
    return _adam(op, param, grad, _rate(rate, param), *others)


@rule("adamw_", kind=Kind.FULL)
def adamw(op: Call, param: Array, grad: Array, rate: Array, *others: Any) -> tuple[Any, ...]:
    """Loshchilov and Hutter, arXiv:1711.05101: the decay is applied to the parameter, not added to the gradient."""
    rate = _rate(rate, param) * op["lr_ratio"]
    if op["with_decay"]:
        param = param * (1 - rate * op["coeff"])
    return _adam(op, param, grad, rate, *others)


def _adam(
    op: Call,
    param: Array,
    grad: Array,
    rate: Array,
    first: Array,
    second: Array,
    largest: Array | None,
    power1: Array,
    power2: Array,
    master: Any,
    skip: Any,
    beta1: Any,
    beta2: Any,
    epsilon: Any,
) -> tuple[Any, ...]:
    beta1, beta2, epsilon = (_scalar(op, value, param) for value in (beta1, beta2, epsilon))
    first = beta1 * first + (1 - beta1) * grad
    second = beta2 * second + (1 - beta2) * grad * grad
    correction = jnp.sqrt(1 - power2.reshape(()))
    rate = rate * correction / (1 - power1.reshape(()))
    bound = second
    if op["amsgrad"]:
        largest = bound = jnp.maximum(jnp.asarray(largest), second)
    denominator = jnp.sqrt(bound) + epsilon * correction
    param = param - rate * first / denominator
    return param, first, second, largest, power1 * beta1, power2 * beta2, None


@rule("rmsprop_", kind=Kind.FULL)
def rmsprop(
    op: Call,
    param: Array,
    mean_square: Array,
    grad: Array,
    moment: Array,
    rate: Array,
    mean_grad: Array | None = None,
    master: Any = None,
) -> tuple[Any, ...]:
    """Tieleman and Hinton, Coursera lecture 6.5, 2012; `centered` subtracts the squared mean gradient."""
    decay = op["decay"]
    mean_square = decay * mean_square + (1 - decay) * grad * grad
    if op["centered"]:
        mean_grad = decay * mean_grad + (1 - decay) * grad
        variance = mean_square - mean_grad * mean_grad
    else:
        variance = mean_square
    moment = op["momentum"] * moment + _rate(rate, param) * grad / jnp.sqrt(variance + op["epsilon"])
    return param - moment, moment, mean_square, mean_grad, None


@rule("adagrad_", kind=Kind.FULL)
def adagrad(op: Call, param: Array, grad: Array, moment: Array, rate: Array, master: Any = None) -> tuple[Any, ...]:
    """Duchi et al., JMLR 2011."""
    moment = moment + grad * grad
    return param - _rate(rate, param) * grad / (jnp.sqrt(moment) + op["epsilon"]), moment, None


@rule("adadelta_", kind=Kind.FULL)
def adadelta(
    op: Call, param: Array, grad: Array, squares: Array, updates: Array, rate: Array, master: Any = None
) -> tuple[Any, ...]:
    """Zeiler, arXiv:1212.5701."""
    rho, epsilon = op["rho"], op["epsilon"]
    squares = rho * squares + (1 - rho) * grad * grad
    update = jnp.sqrt((updates + epsilon) / (squares + epsilon)) * grad
    updates = rho * updates + (1 - rho) * update * update
    return param - _rate(rate, param) * update, squares, updates, None
