"""Bilinear resizing as two products with constant matrices, or as two sums of gathered rows and columns.

Paddle's own operation does not run in `paddle.inference` with oneDNN, and takes positions from a ratio rounded to float32.
Here positions are ratios of whole numbers; products and gathers run on both engines, in exported models and in ONNX.
"""

from fluid.program import Value, dtype_name

import paddle


def resize_bilinear(image: Value, size: tuple[int, int], *, align_corners: bool = True, align_mode: int = 1) -> Value:
    """`image` [N, C, h, w], h and w known, in another size: [N, C, *size]; as Fluid's `resize_bilinear`.

    Pixel i of an axis resized from n to m pixels is taken from the place i (n - 1) / (m - 1) if `align_corners`, else from
    (i + 1/2) n / m - 1/2 (`align_mode` 0) or i n / m (1), and from the border where that lies outside. A single pixel is the
    first one.

    Raises ValueError if the height or the width of `image` is not known while the Program is built.
    """
    height, width = image.shape[2:]
    if height < 0 or width < 0:
        raise ValueError(f"an image of known height and width is needed to resize it, not {list(image.shape)}")
    dtype = dtype_name(image)
    rows = _weights(height, size[0], align_corners, align_mode, dtype)
    columns = _weights(width, size[1], align_corners, align_mode, dtype)
    rows_first = size[0] * width * (height + size[1]) <= size[1] * height * (width + size[0])
    if rows_first:
        return paddle.matmul(paddle.matmul(rows, image), columns, transpose_y=True)
    return paddle.matmul(rows, paddle.matmul(image, columns, transpose_y=True))


def gather_bilinear(image: Value, size: tuple[int, int], *, dense_rows: bool = False) -> Value:
    """`image` [N, C, h, w] in another size, as `resize_bilinear` with `align_corners`: for large maps that need no gradient.

    Each column, then each row, is the weighted sum of two that are gathered: 4 products a pixel, where those with matrices
    take h + w. Columns, which are gathered number by number, come first, while there are few rows. The gradient would be
    scattered, which takes long on GPUs.

    Args:
        dense_rows: compute rows as a product with a matrix, in spite of the work: CPUs take half the time, an H100 in bfloat16 a
            quarter (19 classes of 1024 x 2048 from a quarter of that, and the largest of them: 8 in 1.1 ms instead of 4.9).

    Raises ValueError if the height or the width of `image` is not known while the Program is built.
    """
    for axis, after in ((3, size[1]), (2, size[0])):
        before = image.shape[axis]
        if before < 0:
            raise ValueError(f"an image of known height and width is needed to resize it, not {list(image.shape)}")
        if before == after:
            continue
        if axis == 2 and dense_rows:
            return paddle.matmul(_weights(before, after, True, 1, dtype_name(image)), image)
        if before == 2 * after:
            image = _halved(image, axis)
            continue
        place, unit = paddle.arange(after, dtype="int64") * (before - 1), max(after - 1, 1)
        low = paddle.floor_divide(place, paddle.full([1], unit, "int64"))
        high = paddle.clip(low + 1, max=before - 1)
        share = paddle.cast(place - low * unit, dtype_name(image)) / paddle.full([1], unit, dtype_name(image))
        image = _between(paddle.gather(image, low, axis=axis), paddle.gather(image, high, axis=axis), share, axis)
    return image


def _halved(image: Value, axis: int) -> Value:
    """Half as many rows (axis 2) or columns (3), corners on corners: pixel i lies between 2 i and 2 i + 1, at the end on that.

    Every second pixel is a view, where gathered ones are fetched number by number.
    """
    after, dtype = image.shape[axis] // 2, dtype_name(image)
    share = paddle.cast(paddle.arange(after), dtype) / paddle.full([1], max(after - 1, 1), dtype)
    if axis == 2:
        return _between(image[:, :, ::2], image[:, :, 1::2], share, axis)
    return _between(image[..., ::2], image[..., 1::2], share, axis)


def _between(below: Value, above: Value, share: Value, axis: int) -> Value:
    """What lies at `share` [rows or columns] of the way from `below` to `above`."""
    if axis == 2:  # as wide as the rows: a column that is broadcast takes Paddle's CPU kernels 15 times as long
        share = paddle.expand(share.reshape([-1, 1]), below.shape[2:])
    return below + share * (above - below)


def _weights(before: int, after: int, align_corners: bool, align_mode: int, dtype: str) -> Value:
    """How much each of `before` pixels gives to each of `after`, [after, before].

    Computed in the Program, since a large constant would be an attribute of many numbers.
    """
    target = paddle.arange(after, dtype="int64")
    if align_corners or after == 1:
        place, unit = target * (before - 1), max(after - 1, 1)
    elif align_mode == 0:
        place, unit = (2 * target + 1) * before - after, 2 * after
    else:
        place, unit = target * before, after
    place = paddle.clip(place, 0, unit * (before - 1))
    # In floats: oneDNN drops `abs` after a difference of whole numbers.
    distance = paddle.cast(place.unsqueeze(1) - paddle.arange(before, dtype="int64") * unit, dtype)
    # A tensor, since Paddle divides by a number as by its reciprocal in float32.
    pixel = paddle.full([1], unit, dtype)
    return paddle.clip(1.0 - paddle.abs(distance) / pixel, min=0.0)
