"""Kernels for the CPU, each beside the plain operations that it stands for: ``conv_relu`` beside ``plain_conv_relu``.

Both take the same arguments and agree up to rounding; tests/core/test_fast.py compares every pair. A kernel goes to its
reference itself where it cannot be used: with gradients, on another device, inside torch's compiler.
"""

from zoo.nn.fast.fused import conv_relu, fusible, plain_conv_relu
from zoo.nn.fast.inverse import plain_symmetric_inverse, symmetric_inverse
from zoo.nn.fast.matching import Matches, best_patches, plain_best_patches
from zoo.nn.fast.normalize import instance_norm, plain_instance_norm
from zoo.nn.fast.phases import (
    in_phases,
    plain_in_phases,
    plain_upsampled,
    plain_upsampled_twice_convolved,
    upsampled,
    upsampled_twice_convolved,
)
from zoo.nn.fast.pooling import max_pool_relu, plain_max_pool_relu
from zoo.nn.fast.products import channel_products, plain_channel_products
from zoo.nn.fast.reflection import plain_reflected, reflect, reflected
from zoo.nn.fast.sorting import in_order, plain_in_order, plain_ranked, ranked

# Every kernel and its reference.
KERNELS = {
    best_patches: plain_best_patches,
    channel_products: plain_channel_products,
    conv_relu: plain_conv_relu,
    in_order: plain_in_order,
    in_phases: plain_in_phases,
    instance_norm: plain_instance_norm,
    max_pool_relu: plain_max_pool_relu,
    ranked: plain_ranked,
    reflected: plain_reflected,
    symmetric_inverse: plain_symmetric_inverse,
    upsampled: plain_upsampled,
    upsampled_twice_convolved: plain_upsampled_twice_convolved,
}

__all__ = ["KERNELS", "Matches", "fusible", "reflect", *(kernel.__name__ for kernel in KERNELS)]  # pyright: ignore[reportUnsupportedDunderAll]  # nobody imports *
