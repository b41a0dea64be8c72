"""Update rules and learning rates by flags. Imports Paddle only when an optimizer is made."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

from fluid import schedule as schedules
from fluid.config import AverageFlags, Count, Decay, Natural, NotNegative, Positive, Share, Was, WasSwitch
from fluid.errors import UserError
from fluid.schedule import Schedule

if TYPE_CHECKING:
    import paddle

Strategy = Literal[
    "piecewise_decay",
    "cosine_decay",
    "cosine_decay_by_epoch",
    "cosine_decay_warmup",
    "linear_decay",
    "polynomial_decay",
    "exponential_decay_warmup",
    "noam",
    "inverse_sqrt",
    "constant",
]


@dataclass
class OptimizerFlags(AverageFlags):
    """How parameters follow their gradients."""

    optimizer: Literal["momentum", "sgd", "adam", "adamw", "rmsprop", "adadelta"] = "momentum"
    """Update rule."""
    lr: NotNegative = 0.1
    """Learning rate: the largest; noam: the factor of its formula."""
    lr_strategy: Strategy = "cosine_decay"
    """How the learning rate changes; *_warmup, noam and inverse_sqrt let it rise first."""
    warmup_steps: Natural | None = None
    """Updates over which the learning rate rises; by default the task's own number."""
    warmup_epochs: Annotated[NotNegative | None, Was("warm_up_epochs")] = None
    """Epochs over which the learning rate rises, instead of --warmup_steps."""
    step_epochs: tuple[Count, ...] = (30, 60, 90)
    """piecewise_decay: epochs after which the rate is multiplied by 0.1."""
    decay_epochs: Positive = 2.4
    """exponential_decay_warmup: epochs between decays."""
    decay_rate: Positive = 0.97
    """exponential_decay_warmup: factor of a decay."""
    lr_power: Positive = 2.0
    """polynomial_decay: exponent."""
    momentum_rate: Decay = 0.9
    """Momentum of momentum and rmsprop."""
    nesterov: bool = False
    """Momentum looks a step ahead (Nesterov)."""
    beta1: Decay = 0.9
    """Adam: decay of the first moment."""
    beta2: Decay = 0.999
    """Adam: decay of the second moment."""
    adam_epsilon: Annotated[Positive, Was("eps")] = 1e-8
    """Adam: added to the denominator."""
    l2_decay: NotNegative = 0.0
    """L2 decay of all parameters, as in 2018; adamw: decay of the parameters themselves (Loshchilov & Hutter,
    arXiv:1711.05101)."""
    decay_vectors: bool = True
    """Decay biases and the scales and offsets of normalisation, too."""
    grad_clip: Positive | None = None
    """Clip the global norm of the gradients to this."""
    accumulate_batches: Count = 1
    """Batches whose gradients are averaged for one update."""
    label_smoothing: Annotated[
        Share, Was("label_smoothing_epsilon", "label_smooth_eps"), WasSwitch("use_label_smoothing", 0.1)
    ] = 0.0
    """Share of the target spread over all classes or words (Szegedy et al., arXiv:1512.00567)."""


def optimizer(flags: OptimizerFlags) -> "paddle.optimizer.Optimizer":
    """The update rule; its learning rate is the Program's schedule."""
    import paddle

    vectors = set() if flags.decay_vectors else _undecayed_vectors()
    common = {
        "learning_rate": flags.lr,
        "weight_decay": flags.l2_decay or None,
        "grad_clip": paddle.nn.ClipGradByGlobalNorm(flags.grad_clip) if flags.grad_clip else None,
    }
    match flags.optimizer:
        case "momentum":
            return paddle.optimizer.Momentum(momentum=flags.momentum_rate, use_nesterov=flags.nesterov, **common)
        case "sgd":
            return paddle.optimizer.SGD(**common)
        case "adam":
            return paddle.optimizer.Adam(beta1=flags.beta1, beta2=flags.beta2, epsilon=flags.adam_epsilon, **common)
        case "adamw":
            common["weight_decay"] = flags.l2_decay
            rates = {"beta1": flags.beta1, "beta2": flags.beta2, "epsilon": flags.adam_epsilon}
            return paddle.optimizer.AdamW(apply_decay_param_fun=lambda name: name not in vectors, **rates, **common)
        case "adadelta":
            return paddle.optimizer.Adadelta(rho=0.95, epsilon=1e-6, **common)
        case _:
            return paddle.optimizer.RMSProp(momentum=flags.momentum_rate, **common)


def _undecayed_vectors() -> set[str]:
    """The names of the vectors among the parameters of the Program being built, which are freed of decay."""
    import paddle

    parameters = paddle.static.default_main_program().global_block().all_parameters()
    vectors = [parameter for parameter in parameters if len(parameter.shape) < 2]
    for parameter in vectors:
        parameter.regularizer = paddle.regularizer.L2Decay(0.0)
    return {parameter.name for parameter in vectors}


def schedule(
    flags: OptimizerFlags,
    *,
    steps_per_epoch: int,
    num_epochs: int,
    warmup_steps: int = 0,
    width: int | None = None,
) -> Schedule:
    """The learning rate by update.

    Args:
        flags: of the command line.
        steps_per_epoch: updates in an epoch.
        num_epochs: length of the run, at whose end the falling schedules arrive.
        warmup_steps: where the flags do not say it.
        width: of the network, for `noam` (Vaswani et al., arXiv:1706.03762, section 5.3).

    Raises UserError if the warm-up is given in two units, and for `noam` without a width.
    """
    total = num_epochs * steps_per_epoch
    warmup = _warmup(flags, steps_per_epoch, warmup_steps)
    match flags.lr_strategy:
        case "piecewise_decay":
            boundaries = tuple(epoch * steps_per_epoch for epoch in flags.step_epochs)
            return schedules.Piecewise(boundaries, tuple(flags.lr * 0.1**power for power in range(len(boundaries) + 1)))
        case "cosine_decay":
            return schedules.Cosine(flags.lr, total)
        case "cosine_decay_by_epoch":
            return schedules.CosineByEpoch(flags.lr, steps_per_epoch, num_epochs)
        case "cosine_decay_warmup":
            return schedules.Warmup(warmup, schedules.Cosine(flags.lr, max(total - warmup, 1)))
        case "linear_decay":
            return schedules.Polynomial(flags.lr, total)
        case "polynomial_decay":
            return schedules.Polynomial(flags.lr, total, power=flags.lr_power)
        case "exponential_decay_warmup":
            every = flags.decay_epochs * steps_per_epoch
            return schedules.Warmup(warmup, schedules.Exponential(flags.lr, every, flags.decay_rate))
        case "noam":
            if width is None:
                raise UserError("--lr_strategy noam: this network has no width to scale by; use inverse_sqrt")
            return schedules.Noam(width, max(warmup, 1), flags.lr)
        case "inverse_sqrt":
            # The formula of noam, scaled so that its largest value is the learning rate.
            size, rising = width or 1, max(warmup, 1)
            return schedules.Noam(size, rising, flags.lr * (size * rising) ** 0.5)
        case _:
            return schedules.Constant(flags.lr)


def counts_epochs(flags: OptimizerFlags) -> bool:
    """Whether the schedule depends on how many updates an epoch has."""
    return flags.warmup_epochs is not None or flags.lr_strategy not in ("noam", "inverse_sqrt", "constant")


def _warmup(flags: OptimizerFlags, steps_per_epoch: int, usual: int) -> int:
    if flags.warmup_epochs is None:
        return usual if flags.warmup_steps is None else flags.warmup_steps
    if flags.warmup_steps is not None:
        raise UserError("--warmup_steps and --warmup_epochs are the same in two units; give one of them")
    return round(flags.warmup_epochs * steps_per_epoch)
