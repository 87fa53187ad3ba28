"""The Triton kernels behind `gpu`; importing this module needs Triton.

A thread holds all n values of its coordinates in registers, orders them by a sorting network and averages what is kept.
So each input is read once, nothing but the result is written, and neither shared memory nor barriers are used.

Loops run at compile time: a tuple of values stands for registers, and to replace one of them is to make a new tuple.
No step is contracted or approximate, so a result is the same to the bit on every device.
"""
# Triton knows no starred tuples.
# ruff: noqa: RUF005

import triton
import triton.language as tl


@triton.jit  # type: ignore[untyped-decorator]
def mean_of_ranks(
    vectors: tl.tensor,
    out: tl.tensor,
    d: tl.tensor,
    row_stride: tl.tensor,
    column_stride: tl.tensor,
    n: tl.constexpr,
    plan: tl.constexpr,
    first: tl.constexpr,
    stop: tl.constexpr,
    block: tl.constexpr,
) -> None:
    """out ← per coordinate the mean of the ranks first, …, stop − 1, which `plan` brings to those wires."""
    coordinates = _coordinates(block)
    wires = _ordered(_load(vectors, coordinates, d, row_stride, column_stride, n), plan)
    _store(out, coordinates, d, _running_mean(wires[first:stop], stop - first))


@triton.jit  # type: ignore[untyped-decorator]
def mean_around(
    vectors: tl.tensor,
    out: tl.tensor,
    d: tl.tensor,
    row_stride: tl.tensor,
    column_stride: tl.tensor,
    n: tl.constexpr,
    plan: tl.constexpr,
    first: tl.constexpr,
    stop: tl.constexpr,
    keep: tl.constexpr,
    block: tl.constexpr,
) -> None:
    """out ← per coordinate the mean of the `keep` values nearest to the centre: the mean of ranks first, …, stop − 1.

    `plan` sorts all n.
    """
    coordinates = _coordinates(block)
    ordered = _ordered(_load(vectors, coordinates, d, row_stride, column_stride, n), plan)
    nearest = _nearest(ordered, _centre(ordered[first:stop], stop - first), n, keep)
    _store(out, coordinates, d, _running_mean(nearest, keep))


@triton.jit  # type: ignore[untyped-decorator]
def _coordinates(block: tl.constexpr) -> tl.tensor:
    return tl.program_id(0).to(tl.int64) * block + tl.arange(0, block)


@triton.jit  # type: ignore[untyped-decorator]
def _load(
    vectors: tl.tensor,
    coordinates: tl.tensor,
    d: tl.tensor,
    row_stride: tl.tensor,
    column_stride: tl.tensor,
    n: tl.constexpr,
) -> tl.tuple:
    wires: tl.tuple = ()
    offsets = coordinates * column_stride
    for _ in tl.static_range(n):
        wires = wires + (tl.load(vectors + offsets, mask=coordinates < d).to(tl.float32),)
        # From row to row in 64 bits, which row · row_stride may need where both factors come in 32.
        offsets += row_stride
    return wires


@triton.jit  # type: ignore[untyped-decorator]
def _store(out: tl.tensor, coordinates: tl.tensor, d: tl.tensor, values: tl.tensor) -> None:
    tl.store(out + coordinates, values, mask=coordinates < d)  # rounds to the type of `out`


@triton.jit  # type: ignore[untyped-decorator]
def _ordered(wires: tl.tuple, plan: tl.constexpr) -> tl.tuple:
    """The wires after all comparators (low, high, wants_low, wants_high) of the plan."""
    # By number, not by name: there are releases of Triton to which a named tuple is a tuple.
    for step in tl.static_range(len(plan)):
        a, b = wires[plan[step][0]], wires[plan[step][1]]
        if plan[step][2]:
            wires = wires[: plan[step][0]] + (tl.minimum(a, b),) + wires[plan[step][0] + 1 :]
        if plan[step][3]:
            wires = wires[: plan[step][1]] + (tl.maximum(a, b),) + wires[plan[step][1] + 1 :]
    return wires


@triton.jit  # type: ignore[untyped-decorator]
def _running_mean(values: tl.tuple, count: tl.constexpr) -> tl.tensor:
    """m ← m + (x − m)/k: never leaves the range of the values."""
    mean = values[0]
    for index in tl.static_range(1, count):
        # Halves, since x − m may be beyond the largest number. Where halving rounds, far below 1e-37, the step is still
        # no longer than x − m.
        mean += (values[index] * 0.5 - mean * 0.5) * (2 / (index + 1))
    return mean


@triton.jit  # type: ignore[untyped-decorator]
def _centre(ordered: tl.tuple, count: tl.constexpr) -> tl.tensor:
    """The mean of at most 128 sorted values: that of whole numbers, and of two, is rounded but once, so ties are seen.

    Exact to 1e-43 at best: the scale that keeps the sum finite takes the last digits of what is below 1e-36. Close to
    the largest number it may round to infinity; then too the highest values are the nearest.
    """
    total = ordered[0] / 128
    for index in tl.static_range(1, count):
        total += ordered[index] / 128
    return tl.math.div_rn(total, tl.full(total.shape, count, tl.float32)) * 128


@triton.jit  # type: ignore[untyped-decorator]
def _nearest(ordered: tl.tuple, centre: tl.tensor, n: tl.constexpr, keep: tl.constexpr) -> tl.tuple:
    """The `keep` sorted values nearest to the centre, of two at one distance the lower; in the order of a ring.

    They are neighbours. As long as the lowest of them is farther away than the one above them, that one takes its place
    in the ring. Distances to what is lower fall from step to step and those to what is higher rise, even if rounded,
    so after one step that changes nothing no other does.
    """
    ring = ordered[:keep]
    for start in tl.static_range(n - keep):
        farther = centre - ordered[start] > ordered[start + keep] - centre
        lowest = tl.where(farther, ordered[start + keep], ring[start % keep])
        ring = ring[: start % keep] + (lowest,) + ring[start % keep + 1 :]
    return ring
