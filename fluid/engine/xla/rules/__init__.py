"""Rules of Paddle's operations, one module per family; `registry.py` says how to add one."""

from fluid.engine.xla.rules import (  # noqa: F401  (importing a family registers its rules)
    conv,
    index,
    loss,
    norm,
    optimizer,
    pointwise,
    pool,
    product,
    random,
    reduce,
    rnn,
    shape,
)
from fluid.engine.xla.rules.registry import ALL, RULES, Call, Rule, rule

__all__ = ["ALL", "RULES", "Call", "Rule", "rule"]
