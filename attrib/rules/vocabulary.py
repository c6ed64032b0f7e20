"""Which torch functions mean which operation: one word per kind, however the model spells it.

LINEAR functions hand relevance on by their ordinary gradient: they are linear in what carries relevance. Kinds
of RULED functions need a rule in the table in force. Anything in neither is unknown, and reported.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from attrib.rules.functions import is_operator

Function = Callable[..., Any]

# of mixtures of experts: the newest torch has a public name for it, older ones a private one or none
_GROUPED: tuple[Function, ...] = tuple(
    getattr(module, name) for module, name in ((F, "grouped_mm"), (torch, "_grouped_mm")) if hasattr(module, name)
)


def elementwise_activation(x: Tensor, function: Function) -> Tensor:
    """`function(x)` as one operation, for activations that a module spells out of primitives."""
    if torch.overrides.has_torch_function_unary(x):
        result: Tensor = torch.overrides.handle_torch_function(elementwise_activation, (x,), x, function)
        return result
    output: Tensor = function(x)
    return output


RULED: dict[str, tuple[Function, ...]] = {
    "conv": (torch.conv1d, torch.conv2d, torch.conv3d),
    "conv_transpose": (torch.conv_transpose1d, torch.conv_transpose2d, torch.conv_transpose3d),
    "linear": (F.linear,),
    "batch_norm": (F.batch_norm, torch.batch_norm),
    "layer_norm": (F.layer_norm, torch.layer_norm),
    "group_norm": (F.group_norm, torch.group_norm),
    "relu": (F.relu, torch.relu, torch.relu_, Tensor.relu, Tensor.relu_),
    "hardtanh": (F.relu6, F.hardtanh, F.hardtanh_, torch.clamp, torch.clamp_, Tensor.clamp, Tensor.clamp_,
                 torch.clamp_min, Tensor.clamp_min, Tensor.clamp_min_, torch.clamp_max, Tensor.clamp_max,
                 Tensor.clamp_max_, torch.clip, torch.clip_, Tensor.clip, Tensor.clip_),
    "leaky_relu": (F.leaky_relu, F.leaky_relu_, torch.prelu, F.prelu, torch.rrelu, F.rrelu),
    "gelu": (F.gelu,),
    "silu": (F.silu,),
    "hardswish": (F.hardswish,),
    "mish": (F.mish,),
    "elu": (F.elu, F.elu_, F.celu, F.selu),
    "tanh": (torch.tanh, torch.tanh_, Tensor.tanh, Tensor.tanh_, F.tanh, F.softsign, torch.erf, Tensor.erf, torch.sin,
             Tensor.sin, torch.cos, Tensor.cos, torch.atan, Tensor.atan, torch.arctan, Tensor.arctan, torch.sinh,
             Tensor.sinh, torch.asinh, Tensor.asinh, torch.exp2, Tensor.exp2, Tensor.__rpow__, F.tanhshrink,
             F.softshrink, F.hardshrink, F.threshold, torch.special.erf),
    "softplus": (F.softplus, F.logsigmoid, torch.exp, Tensor.exp, torch.expm1, Tensor.expm1, torch.log1p,
                 Tensor.log1p, Tensor.exp_, Tensor.expm1_, Tensor.log1p_),
    "sigmoid": (torch.sigmoid, torch.sigmoid_, Tensor.sigmoid, Tensor.sigmoid_, F.sigmoid, F.hardsigmoid,
                torch.special.expit),
    "max_pool": (F.max_pool1d, F.max_pool2d, F.max_pool3d, torch.max_pool1d, torch.max_pool2d, torch.max_pool3d),
    "maximum": (F.adaptive_max_pool1d, F.adaptive_max_pool2d, F.adaptive_max_pool3d, torch.amax, Tensor.amax,
                F.max_pool1d_with_indices, F.max_pool2d_with_indices, F.max_pool3d_with_indices, F.lp_pool1d,
                F.lp_pool2d, torch.amin, Tensor.amin, torch.min, Tensor.min, torch.max, Tensor.max, torch.maximum,
                torch.minimum, torch.abs, Tensor.abs, Tensor.abs_, torch.absolute, Tensor.absolute, torch.fmax,
                Tensor.fmax, torch.fmin, Tensor.fmin),
    "activation": (elementwise_activation,),
    "rms_norm": (F.rms_norm, torch.rms_norm),
    "attention": (F.scaled_dot_product_attention,),
    "multi_head_attention": (F.multi_head_attention_forward,),
    "sum_and_product": (torch.addmm, Tensor.addmm, torch.baddbmm, Tensor.baddbmm, torch.addbmm),
    "reciprocal": (torch.rsqrt, Tensor.rsqrt, torch.reciprocal, Tensor.reciprocal, Tensor.__rtruediv__,
                   Tensor.__rdiv__),
    "root": (torch.sqrt, Tensor.sqrt),
    "length": (torch.std, Tensor.std, torch.norm, Tensor.norm, torch.linalg.vector_norm, torch.linalg.norm),
    "variance": (torch.var, Tensor.var),
    "power": (torch.pow, Tensor.pow, Tensor.__pow__, torch.square, Tensor.square),
    "contraction": (torch.einsum,),
    "composite": (F.normalize, F.glu, F.instance_norm, torch.addcmul, Tensor.addcmul, torch.addcdiv, Tensor.addcdiv,
                  torch.lerp, Tensor.lerp, torch.var_mean, torch.std_mean, F.bilinear, F.local_response_norm,
                  torch.linalg.multi_dot),
    "recurrence": (torch.lstm, torch.gru, torch.rnn_tanh, torch.rnn_relu, torch.lstm_cell, torch.gru_cell,
                   torch.rnn_tanh_cell, torch.rnn_relu_cell),
    "softmax": (F.softmax, torch.softmax, Tensor.softmax),
    "product": (torch.mul, Tensor.mul, Tensor.__mul__, Tensor.__rmul__, Tensor.mul_, Tensor.__imul__, torch.multiply,
                Tensor.multiply, Tensor.multiply_, torch.kron, torch.cross, torch.linalg.cross),
    "quotient": (torch.div, Tensor.div, Tensor.__truediv__, Tensor.div_, Tensor.__itruediv__, torch.true_divide,
                 Tensor.true_divide, torch.divide, Tensor.divide, Tensor.divide_),
    "matrix_product": (torch.matmul, Tensor.matmul, Tensor.__matmul__, torch.bmm, Tensor.bmm, torch.mm, Tensor.mm,
                       Tensor.__rmatmul__, torch.mv, Tensor.mv, torch.dot, Tensor.dot, torch.inner, Tensor.inner,
                       torch.outer, Tensor.outer, torch.ger, torch.linalg.matmul, torch.tensordot, *_GROUPED),
    "sum_of_two": (torch.add, Tensor.add, Tensor.__add__, Tensor.__radd__, Tensor.add_, Tensor.__iadd__),
    "concatenation": (torch.cat, torch.concat, torch.concatenate),
    "difference": (torch.sub, Tensor.sub, Tensor.__sub__, Tensor.sub_, Tensor.__isub__, Tensor.__rsub__, torch.rsub,
                   torch.subtract, Tensor.subtract, Tensor.subtract_),
    "placement": (torch.stack, torch.hstack, torch.vstack, torch.dstack, torch.column_stack, torch.row_stack, F.pad,
                  torch.where, Tensor.where, torch.masked_fill, Tensor.masked_fill, Tensor.masked_fill_,
                  Tensor.__setitem__, torch.index_put, Tensor.index_put, Tensor.index_put_, torch.index_fill,
                  Tensor.index_fill, Tensor.index_fill_, torch.index_copy, Tensor.index_copy, Tensor.index_copy_,
                  torch.index_add, Tensor.index_add, Tensor.index_add_, torch.scatter, Tensor.scatter, Tensor.scatter_,
                  torch.scatter_add, Tensor.scatter_add, Tensor.scatter_add_, torch.masked_scatter,
                  Tensor.masked_scatter, Tensor.masked_scatter_, torch.select_scatter, torch.slice_scatter,
                  Tensor.copy_, Tensor.fill_),
    "resampling": (F.grid_sample,),
}  # fmt: skip

_PROPERTIES: tuple[Any, ...] = (Tensor.mT, Tensor.T, Tensor.H, Tensor.mH, Tensor.data, Tensor.real, Tensor.imag)

LINEAR: tuple[Function, ...] = (
    torch.split, Tensor.split, torch.chunk,
    Tensor.chunk, torch.unbind, Tensor.unbind, torch.sum, Tensor.sum, torch.mean, Tensor.mean, torch.flatten,
    Tensor.flatten, torch.reshape, Tensor.reshape, Tensor.view, Tensor.view_as, torch.permute, Tensor.permute,
    torch.transpose, Tensor.transpose, Tensor.t, torch.t, torch.squeeze, Tensor.squeeze, torch.unsqueeze,
    Tensor.unsqueeze, Tensor.expand, Tensor.expand_as, Tensor.repeat, torch.roll, Tensor.roll, torch.flip,
    Tensor.flip, Tensor.contiguous, Tensor.clone, torch.clone, Tensor.to, Tensor.float, Tensor.double,
    Tensor.half, Tensor.bfloat16, Tensor.type, Tensor.type_as, Tensor.__getitem__, Tensor.select, torch.select,
    Tensor.narrow, torch.narrow, torch.index_select, Tensor.index_select, torch.gather, Tensor.gather,
    F.dropout, F.dropout2d, F.dropout3d, F.alpha_dropout, F.feature_alpha_dropout, torch.dropout,
    F.avg_pool1d, F.avg_pool2d, F.avg_pool3d, F.adaptive_avg_pool1d, F.adaptive_avg_pool2d, F.adaptive_avg_pool3d,
    F.interpolate, F.upsample, torch.neg, Tensor.neg, Tensor.__neg__, F.pixel_shuffle, F.pixel_unshuffle,
    torch.channel_shuffle, F.unfold, F.fold, Tensor.swapaxes, torch.swapaxes, Tensor.reshape_as,
    torch.movedim, Tensor.movedim, torch.moveaxis, Tensor.unflatten, torch.unflatten,
    Tensor.detach, Tensor.cpu, Tensor.cuda, torch.diagonal, Tensor.diagonal,
    torch.broadcast_to, Tensor.broadcast_to, torch.tile, Tensor.tile, *(getter.__get__ for getter in _PROPERTIES),
    Tensor.resolve_conj, Tensor.unfold, Tensor.repeat_interleave,
    torch.repeat_interleave, Tensor.take_along_dim, torch.take_along_dim, torch.cumsum,
    Tensor.cumsum, torch.tril, Tensor.tril, torch.triu, Tensor.triu, torch.rot90, torch.diag, torch.diag_embed,
    torch.trace, torch.negative, Tensor.negative, Tensor.neg_, torch.ravel, Tensor.ravel, torch.tensor_split,
    Tensor.tensor_split, torch.split_with_sizes, Tensor.split_with_sizes, torch.hsplit, torch.vsplit, torch.dsplit,
    Tensor.hsplit, Tensor.vsplit, Tensor.dsplit, torch.unsafe_chunk, torch.unsafe_split, torch.fliplr, Tensor.fliplr,
    torch.flipud, Tensor.flipud, Tensor.rot90, Tensor.diag, torch.diff, Tensor.diff, torch.adjoint, Tensor.adjoint,
    torch.take, Tensor.take, torch.atleast_1d, torch.atleast_2d, torch.atleast_3d, F.dropout1d,
    torch.masked_select, Tensor.masked_select, torch.nan_to_num, Tensor.nan_to_num, torch.topk, Tensor.topk,
    torch.sort, Tensor.sort, F.max_unpool1d, F.max_unpool2d, F.max_unpool3d, torch.real, torch.imag,
    torch.swapdims, Tensor.swapdims, torch.as_strided, Tensor.as_strided, torch.median, Tensor.median, torch.kthvalue,
    Tensor.kthvalue, torch.quantile, Tensor.quantile, torch.cummax, Tensor.cummax, torch.cummin, Tensor.cummin,
    torch.aminmax, Tensor.aminmax, torch.conj, Tensor.conj, torch.complex,
    torch.view_as_real, torch.view_as_complex, torch.fft.fftshift, torch.fft.ifftshift,
    *(getattr(torch.fft, inverse + kind) for inverse in ("", "i") for kind in ("fft", "fft2", "fftn")),
    *(getattr(torch.fft, inverse + kind) for inverse in ("", "i") for kind in ("rfft", "rfft2", "rfftn")),
)  # fmt: skip

KIND: dict[Any, str] = {function: kind for kind, functions in RULED.items() for function in functions}
IS_LINEAR = frozenset(LINEAR)
ACTIVATIONS = frozenset(
    {"relu", "hardtanh", "leaky_relu", "activation", "gelu", "silu", "hardswish", "mish", "elu", "tanh", "softplus"}
    | {"sigmoid"}
)
NONLINEAR = ACTIVATIONS | {"recurrence"}  # what tables that change the gradient are expected to have rules for

_CHANGING = (
    "add sub subtract mul multiply div divide true_divide pow square sqrt rsqrt reciprocal abs neg clamp clamp_min "
    "clamp_max clip absolute relu tanh sigmoid exp expm1 log log1p sin cos sinh cosh atan erf masked_fill addcmul "
    "addcdiv lerp index_add index_put index_fill index_copy scatter_add scatter masked_scatter"
)


def _with_items(x: Tensor, index: Any, value: Any) -> Tensor:
    """x with x[index] = value."""
    x = x.clone()
    x[index] = value
    return x


def _in_its_place(x: Tensor, source: Tensor, *_: Any) -> Tensor:
    """What x holds after x.copy_(source)."""
    return source.to(x.dtype).expand_as(x)


# what changes its first argument in place, and the same without that
OUT_OF_PLACE: dict[Any, Any] = {
    **{getattr(Tensor, f"{name}_"): getattr(Tensor, name) for name in _CHANGING.split()},
    **{getattr(Tensor, f"__i{n}__"): getattr(Tensor, f"__{n}__") for n in ("add", "sub", "mul", "truediv", "pow")},
    Tensor.__setitem__: _with_items,
    Tensor.copy_: _in_its_place,
    Tensor.fill_: torch.full_like,
}


@cache
def usual(function: Any) -> Any:
    """The function that torch offers for an operator of its own called through torch.ops.aten; else itself."""
    name = str(function)
    if not is_operator(function) or not name.startswith("aten."):
        return function
    found = (getattr(module, name.split(".")[1], None) for module in (torch, F, Tensor))
    return next((known for known in found if known in KIND or known in IS_LINEAR), function)


def name_of(function: Any) -> str:
    """How an operation is called in coverage and messages: "softmax", "conv2d"."""
    if is_operator(function):
        return str(function).removesuffix(".default")
    name = getattr(function, "__name__", str(function))
    resolved = torch.overrides.resolve_name(function) if name in ("fn", "__get__") else None
    return (resolved or name).rsplit(".", 1)[-1].strip("_")
