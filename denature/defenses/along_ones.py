"""Derivatives of a network's logits along the direction of all ones of its parameters.

A `Dual` is a tensor with its derivative, and functions of torch take it as a tensor: in one pass
both are computed. A layer's own share of the derivative is known where its parameters' direction is
ones: that of a convolution is the sum of its windows, the same for all its channels. So a pass
takes two large convolutions a layer, where forward mode takes three. Functions without a rule here
are derived by torch.
"""

import copy
import threading
import warnings
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias, final

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn import functional as F
from torch.utils._pytree import tree_map_only

from denature.core.errors import ConfigError
from denature.core.types import Logits, Pixels

FORWARD_MODE = threading.Lock()
"""Levels of torch's forward mode belong to the process; one thread's end would end another's."""


class Dual(Tensor):
    """A tensor with its derivative, of the same shape."""

    derivative: Tensor

    @classmethod
    def __torch_function__(
        cls, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        with torch._C.DisableTorchFunctionSubclass():
            found = RULES[func](*args, **(kwargs or {})) if func in RULES else None
            return _derived_by_torch(func, args, kwargs or {}) if found is None else found


@final
class Grown(Dual):
    """A parameter, whose derivative is all ones."""


def with_direction(network: nn.Module) -> nn.Module:
    """A copy that shares a network's tensors and whose parameters are `Grown`, made once."""
    if isinstance(next(network.parameters(), None), Grown):
        return network
    shared: dict[int, Any] = {id(buffer): buffer for buffer in network.buffers()}
    for parameter in network.parameters():
        value = parameter.detach()
        shared[id(parameter)] = _dual(value, value.new_ones(()).expand_as(value), Grown)
    return copy.deepcopy(network, shared)


@torch.no_grad()
def derivative(network: nn.Module, pixels: Pixels) -> tuple[Logits, Tensor]:
    """The logits of a network and their derivatives, both batch x classes.

    Any number of threads may ask at the same time.

    Args:
        network: in eval mode; one of `with_direction` is not copied again.
        pixels: images in [0, 1].

    Raises:
        ConfigError: the logits do not follow from the parameters by functions of torch.
    """
    logits = with_direction(network)(pixels)
    if not isinstance(logits, Dual):
        raise ConfigError(
            f"The derivative of {type(network).__name__} by its parameters is unknown: no function "
            "of torch connects them with the logits. Use a network of the catalogue as surrogate."
        )
    return logits.as_subclass(Tensor), logits.derivative


def _dual(value: Tensor, by: Tensor, kind: type[Dual] = Dual) -> Dual:
    dual = value.as_subclass(kind)
    dual.derivative = by
    return dual


def _derived_by_torch(func: Any, args: Any, kwargs: Any) -> Any:
    # torch prepares the forward mode with functions that it deprecates.
    silent = warnings.catch_warnings(action="ignore", category=DeprecationWarning)
    with FORWARD_MODE, silent, forward_ad.dual_level():
        pairs: list[tuple[Dual, Tensor]] = []

        def enter(dual: Dual) -> Tensor:
            parts = map(_unexpanded, (dual.as_subclass(Tensor), dual.derivative))
            pairs.append((dual, forward_ad.make_dual(*parts)))
            return pairs[-1][1]

        def leave(found: Tensor) -> Tensor:
            value, by = forward_ad.unpack_dual(found)
            return value if by is None else _dual(value, by)

        found = func(*tree_map_only(Dual, enter, args), **tree_map_only(Dual, enter, kwargs))
        for dual, pair in pairs:  # the function may have changed its input in place
            if not isinstance(dual, Grown):
                dual.derivative = forward_ad.unpack_dual(pair).tangent
        return tree_map_only(Tensor, leave, found)


def _unexpanded(tensor: Tensor) -> Tensor:
    """The tensor, or a copy where its elements share memory, which a pair must not do."""
    places = zip(tensor.stride(), tensor.shape, strict=True)
    return tensor.clone() if any(not step and size > 1 for step, size in places) else tensor


def _conv2d(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, stride: Any = 1, padding: Any = 0,
    dilation: Any = 1, groups: int = 1,
) -> Dual | None:  # fmt: skip
    if not _grown(weight, bias):
        return None
    value = F.conv2d(x, weight, bias, stride, padding, dilation, groups)
    kernel = weight.new_ones((groups, 1, *weight.shape[2:]))
    ones = None if bias is None else weight.new_ones(groups)
    total = x.sum(1, keepdim=True) if groups == 1 else x.unflatten(1, (groups, -1)).sum(2)
    own = F.conv2d(total, kernel, ones, stride, padding, dilation, groups)
    if groups > 1:
        own = own.repeat_interleave(len(weight) // groups, 1)
    if not isinstance(x, Dual):
        return _dual(value, torch.empty_like(value).copy_(own))
    by = F.conv2d(x.derivative, weight, None, stride, padding, dilation, groups)
    return _dual(value, by.add_(own))


def _linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Dual | None:
    if not _grown(weight, bias):
        return None
    own = x.sum(-1, keepdim=True)
    if bias is not None:
        own += 1
    value = F.linear(x, weight, bias)
    if not isinstance(x, Dual):
        return _dual(value, own.expand_as(value))
    return _dual(value, F.linear(x.derivative, weight).add_(own))


def _batch_norm(
    x: Tensor, mean: Tensor | None, var: Tensor | None, weight: Tensor | None = None,
    bias: Tensor | None = None, training: bool = False, momentum: float = 0.1, eps: float = 1e-5,
) -> Dual | None:  # fmt: skip
    if training or var is None or weight is None or bias is None or not _grown(weight, bias):
        return None
    value = F.batch_norm(x, mean, var, weight, bias, False, momentum, eps)
    by = F.batch_norm(x, mean, var, None, None, False, momentum, eps).add_(1)
    if isinstance(x, Dual):
        scale = weight * (var + eps).rsqrt()
        by.addcmul_(x.derivative, scale.view(-1, *[1] * (x.ndim - 2)))
    return _dual(value, by)


def _grown(weight: Tensor, bias: Tensor | None) -> bool:
    return isinstance(weight, Grown) and (bias is None or isinstance(bias, Grown))


def _relu(x: Dual, inplace: bool = False) -> Dual:
    value = F.relu(x)
    return _dual(value, x.derivative * value.sign())


def _max_pool2d(x: Dual, *args: Any, return_indices: bool = False, **kwargs: Any) -> Dual | None:
    if return_indices:
        return None
    value, places = F.max_pool2d(x, *args, **kwargs, return_indices=True)
    by = x.derivative.flatten(2).gather(2, places.flatten(2))
    return _dual(value, by.view_as(value))


def _same(func: Any) -> "DerivativeRule":
    """The rule of a linear function of its first argument alone."""

    def rule(x: Dual, *args: Any, **kwargs: Any) -> Dual:
        return _dual(func(x, *args, **kwargs), func(x.derivative, *args, **kwargs))

    return rule


LINEAR = (F.avg_pool2d, F.adaptive_avg_pool2d, Tensor.flatten, Tensor.mean)


def _add(x: Any, y: Any) -> Dual | None:
    if not (isinstance(x, Dual) and isinstance(y, Dual)):
        return None
    return _dual(torch.add(x, y), x.derivative + y.derivative)


DerivativeRule: TypeAlias = Callable[..., Any]
"""From the arguments of a function of torch to its value; None for arguments without a rule."""

RULES: dict[Any, DerivativeRule] = {
    F.conv2d: _conv2d,
    F.linear: _linear,
    F.batch_norm: _batch_norm,
    F.relu: _relu,
    F.max_pool2d: _max_pool2d,
    Tensor.add: _add,
    **{func: _same(func) for func in LINEAR},
    **{func: func for func in (Tensor.dim, Tensor.size)},
}
