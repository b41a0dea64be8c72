"""How rules are written for a platform where several ways give the same result at different speeds."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Tuning:
    """One field per choice; `for_platform` holds the measured ones (benchmarks/xla_step.py measures them)."""

    pointwise_as_matmul: bool = False
    """Write 1 x 1 convolutions of stride 1 as matrix products."""
    shifted_depthwise: bool = False
    """Write depthwise convolutions as k * k shifted multiplications."""
    kernel_axes: str = "OHWI"
    """The order of axes in which the platform reads the kernels of channels-last convolutions."""
    convolutions_in_loops: bool = True
    """Whether convolutions inside a compiled loop are as fast as outside of one.

    XLA's CPU code for them is not: an update of the Nature network at batch 32 took 315 ms of CPU in a loop of four and 29
    ms by itself.
    """
    small_convolution: float = 0
    """Multiplications below which a convolution becomes matrix products, or, depthwise and without gradient, shifted ones.

    XLA leaves cuDNN's convolutions out of its CUDA graphs, and launches bound the small ones: the Nature network makes
    2,639 updates/s at batch 64 instead of 1,800 on an H100 (TF32, batches from device memory).
    The gradient of the shifted form by its kernel sums all pixels once for each element: MobileNetV1 trained a fifth slower
    that way than with cuDNN's depthwise convolutions (H100, bf16, batch 256).
    """
    wide_convolution: int = 0
    """Channels that a convolution of few (an image's, in bfloat16) should make: of so many columns together.

    cuDNN has no fast kernel for three channels. With 256 VGG16 trains 9 % faster, 5,361 instead of 4,912 images/s, and the
    recogniser of speech 3.8 % (H100, bf16, batches of 256 and 128), though seven eighths of the kernel are zeros.
    """
    overlaps_apart: bool = False
    """Make the gradient of overlapping max pooling apart for pixels that lie in different offsets of windows.

    Of a window of 3 at every second pixel, 9 offsets are read for a pixel otherwise, and 2.25 on average so: the recogniser
    of speech trains 3.9 % faster (H100, bf16, batch 128). XLA's code for CPUs takes half as long again.
    """
    widened_sums: bool = False
    """Turn the operands of a loop's sums of products to the type of the sum.

    XLA's CPU code lacks some products of bfloat16 that are added up in float32.
    """
    steps_in_a_turn: int = 1
    """Steps of a loop over a known number of them that are written one after the other in a turn of the compiled loop.

    XLA fuses what lies between two products across the steps, and the host starts fewer turns. With four instead of one,
    the recogniser of speech trains 1.22 times as fast (H100, bf16, batch 64) and the reader of words 1.23 times; a layer
    of the former gained nothing more from eight.
    """
    kernels: bool = False
    """Use our own kernels (fluid/engine/xla/kernels) where they fit."""
    searched_at_once: int = 0
    """Numbers of which the first few largest are found by one search; of more, by one of the maxima of chunks and one of
    what the best chunks hold. 0: always by one.

    XLA's CPU code for that goes through all numbers one by one: of 8,000 words it took 6 % of the time of a beam search.
    """
    quick_code: bool = False
    """Let evaluations be compiled to code that XLA writes in half of the time, and that runs more slowly.

    From an empty cache the translator's first sentence is there after 3.5 CPU seconds instead of 5.7.
    """


DEFAULT = Tuning()


def for_platform(platform: str) -> Tuning:
    """The choice for `cpu` or `gpu`."""
    if platform == "cpu":
        return Tuning(
            pointwise_as_matmul=True,
            shifted_depthwise=True,
            kernel_axes="HWIO",
            convolutions_in_loops=False,
            widened_sums=True,
            searched_at_once=1024,
        )
    return Tuning(small_convolution=5e8, wide_convolution=256, overlaps_apart=True, steps_in_a_turn=4, kernels=True)
