"""The elementwise non-linearities as functions for kernels in Triton."""

import triton
import triton.language as tl


@triton.jit
def activated(x, KIND: tl.constexpr):
    """The non-linearity called KIND, a key of the reference's `ACTIVATIONS` or None, of every
    element of x, float32.
    """
    if KIND == "silu" or KIND == "swish":
        x = x * tl.sigmoid(x)
    elif KIND == "quick_gelu":
        x = x * tl.sigmoid(1.702 * x)
    elif KIND == "relu":
        x = tl.maximum(x, 0.0)
    elif KIND == "gelu":
        x = 0.5 * x * (1.0 + tl.erf(x * 0.7071067811865476))
    elif KIND is not None:  # gelu_fast, gelu_new, gelu_pytorch_tanh: tanh by way of the sigmoid
        x = x * tl.sigmoid(1.5957691216057308 * (x + 0.044715 * x * x * x))
    return x
