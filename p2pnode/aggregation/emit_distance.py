"""Loops over the differences of whole rows, for any number of rows, compiled by LLVM.

Of all pairs, one row is compared with four others at a time, so that most numbers are read from registers; and block by
block, so that the rest are read from the cache. A difference and its square cost half a cycle each for eight
coordinates: less than one might fear of q·(q−1)/2 pairs.
"""

from functools import cache

from llvmlite import ir

from p2pnode.aggregation.emit import (
    SIGNATURE,
    Format,
    Kernel,
    Lanes,
    Value,
    at,
    load_at,
    loop,
    type_answer,
    type_index,
    type_pointer,
)

LANES = 16
"""Coordinates at a time. Four sums of two registers each keep both multipliers busy, whose results take four cycles."""

BLOCK = 1024
"""Coordinates whose squares are summed in float32 and then on in float64. Each lane adds up 64 of them, so the relative
error of the sum is 4e-6 at most, and of the whole no more. Measured at q = 10, 26, 64: the second cache holds the rows
of a block."""

OTHERS = 4

LEAST, MOST = 1e-30, 1e38
"""Between these a float32 sum of BLOCK squares lost nothing that counts to underflow (each is off by 7e-46 at most) and
nothing to overflow. Others are summed again, scaled."""

SHRINK, GROW = 2.0**-70, 2.0**100
"""Scales by which no sum leaves these bounds for any float32: twice the largest, shrunk, and the least, grown, have
squares of 6e34 and 3e-30. Shrinking rounds numbers below 1e-17, which count nothing in a sum above MOST."""

type_number, type_scale = ir.DoubleType(), ir.FloatType()


@cache
def pairs(bits: int) -> Kernel:
    """Adds ‖vᵢ − vⱼ‖² to number i·(q + OTHERS) + j of the first output row, for i < j < q; others are left undefined.

    For q ≥ 2 rows. Every pair goes through the same operations, wherever its rows stand.
    """
    module = ir.Module()
    rescaled = _rescaled(module, bits)
    function = ir.Function(module, ir.FunctionType(type_answer, SIGNATURE), "kernel")
    inputs, outputs, _, q, start, stop = function.args
    builder = ir.IRBuilder(function.append_basic_block())
    sums, last = load_at(builder, outputs, 0, type_pointer), builder.sub(q, type_index(1))

    def one_block(begin: Value, _: list[Value]) -> list[Value]:
        end = _lesser(builder, builder.add(begin, type_index(BLOCK)), stop)

        def one_row(one: Value, _: list[Value]) -> list[Value]:
            line = builder.mul(one, builder.add(q, type_index(OTHERS)))
            mine = load_at(builder, inputs, one, type_pointer)

            def four_others(first: Value, _: list[Value]) -> list[Value]:
                # At the end the last row stands in for those that are not there.
                others = [builder.add(first, type_index(place)) for place in range(OTHERS)]
                rows = [load_at(builder, inputs, _lesser(builder, other, last), type_pointer) for other in others]
                totals = _quickly(builder, bits, mine, rows, begin, end)
                for other, row, total in zip(others, rows, totals, strict=True):
                    sure = _surely(builder, total, rescaled, [mine, row, begin, end])
                    _add(builder, at(builder, sums, builder.add(line, other), type_number), sure)
                return []

            loop(builder, builder.add(one, type_index(1)), q, OTHERS, four_others)
            return []

        loop(builder, type_index(0), last, 1, one_row)
        return []

    loop(builder, start, stop, BLOCK, one_block)
    builder.ret(type_answer(0))
    return Kernel(str(module))


@cache
def from_first(bits: int) -> Kernel:
    """Adds ‖vⱼ − v₀‖² to number j of the first output row, for 1 ≤ j < q, in float64. For q ≥ 2 rows."""
    module = ir.Module()
    exactly = _squared_distance(module, bits)
    function = ir.Function(module, ir.FunctionType(type_answer, SIGNATURE), "kernel")
    inputs, outputs, _, q, start, stop = function.args
    builder = ir.IRBuilder(function.append_basic_block())
    sums, mine = load_at(builder, outputs, 0, type_pointer), load_at(builder, inputs, 0, type_pointer)

    def one_block(begin: Value, _: list[Value]) -> list[Value]:
        end = _lesser(builder, builder.add(begin, type_index(BLOCK)), stop)

        def one_row(row: Value, _: list[Value]) -> list[Value]:
            total = builder.call(exactly, [load_at(builder, inputs, row, type_pointer), mine, begin, end])
            _add(builder, at(builder, sums, row, type_number), total)
            return []

        loop(builder, type_index(1), q, 1, one_row)
        return []

    loop(builder, start, stop, BLOCK, one_block)
    builder.ret(type_answer(0))
    return Kernel(str(module))


@cache
def norms(bits: int) -> Kernel:
    """Adds ‖vⱼ‖² to number j of the first output row, in float64."""
    module = ir.Module()
    function = ir.Function(module, ir.FunctionType(type_answer, SIGNATURE), "kernel")
    inputs, outputs, _, q, start, stop = function.args
    builder = ir.IRBuilder(function.append_basic_block())
    sums, lanes = load_at(builder, outputs, 0, type_pointer), Lanes(builder, Format(bits, LANES))

    def one_row(row: Value, _: list[Value]) -> list[Value]:
        mine = load_at(builder, inputs, row, type_pointer)

        def body(position: Value, totals: list[Value]) -> list[Value]:
            return [lanes.add_square(totals[0], lanes.widen(lanes.load(mine, position)))]

        (total,) = loop(builder, start, stop, LANES, body, [lanes.zero()])
        _add(builder, at(builder, sums, row, type_number), lanes.sum(total))
        return []

    loop(builder, type_index(0), q, 1, one_row)
    builder.ret(type_answer(0))
    return Kernel(str(module))


def _squared_distance(module: ir.Module, bits: int) -> ir.Function:
    """‖v − w‖² over some coordinates, in float64: neither overflows nor underflows, whatever the float32 values."""
    arguments = [type_pointer, type_pointer, type_index, type_index]
    function = ir.Function(module, ir.FunctionType(type_number, arguments), "squared_distance")
    one, other, start, stop = function.args
    builder = ir.IRBuilder(function.append_basic_block())
    lanes = Lanes(builder, Format(bits, LANES))

    def body(position: Value, totals: list[Value]) -> list[Value]:
        mine, its = (lanes.widen(lanes.load(row, position)) for row in (one, other))
        return [lanes.add_square(totals[0], builder.fsub(mine, its))]

    (total,) = loop(builder, start, stop, LANES, body, [lanes.zero()])
    builder.ret(lanes.sum(total))
    return function


def _quickly(builder: Value, bits: int, mine: Value, rows: list[Value], start: Value, stop: Value) -> list[Value]:
    """‖v − w‖² of one row and some others over at most BLOCK coordinates, summed in float32."""
    lanes = Lanes(builder, Format(bits, LANES))

    def body(position: Value, totals: list[Value]) -> list[Value]:
        here = lanes.floats(lanes.load(mine, position, ahead=False))
        there = [lanes.floats(lanes.load(row, position, ahead=False)) for row in rows]
        return [lanes.add_square(total, builder.fsub(here, other)) for total, other in zip(totals, there, strict=True)]

    totals = loop(builder, start, stop, LANES, body, [lanes.zero(wide=False)] * len(rows))
    return [lanes.sum(total) for total in totals]


def _surely(builder: Value, total: Value, rescaled: Value, arguments: list[Value]) -> Value:
    """The float32 sum where it is between LEAST and MOST, or else the rescaled one."""
    small = builder.fcmp_ordered("<", total, type_number(LEAST))
    before = builder.block
    with builder.if_then(builder.or_(small, builder.fcmp_ordered(">", total, type_number(MOST))), likely=False):
        early = builder.select(small, type_scale(1), type_scale(SHRINK))
        late = builder.select(small, type_scale(GROW), type_scale(1))
        again, other = builder.call(rescaled, [*arguments, early, late]), builder.block
    result = builder.phi(type_number)
    result.add_incoming(total, before)
    result.add_incoming(again, other)
    return result


def _rescaled(module: ir.Module, bits: int) -> ir.Function:
    """‖v − w‖² over at most BLOCK coordinates, with both rows scaled `early` and their difference `late`."""
    arguments = [type_pointer, type_pointer, type_index, type_index, type_scale, type_scale]
    function = ir.Function(module, ir.FunctionType(type_number, arguments), "rescaled")
    one, other, start, stop, early, late = function.args
    builder = ir.IRBuilder(function.append_basic_block())
    lanes = Lanes(builder, Format(bits, LANES))
    before, after = lanes.spread(early), lanes.spread(late)

    def body(position: Value, totals: list[Value]) -> list[Value]:
        rows = [lanes.floats(lanes.load(row, position, ahead=False)) for row in (one, other)]
        mine, its = (builder.fmul(row, before) for row in rows)
        return [lanes.add_square(totals[0], builder.fmul(builder.fsub(mine, its), after))]

    (total,) = loop(builder, start, stop, LANES, body, [lanes.zero(wide=False)])
    scale = builder.fpext(builder.fmul(early, late), type_number)
    builder.ret(builder.fdiv(lanes.sum(total), builder.fmul(scale, scale)))
    return function


def _lesser(builder: Value, one: Value, other: Value) -> Value:
    return builder.select(builder.icmp_signed("<", one, other), one, other)


def _add(builder: Value, place: Value, number: Value) -> None:
    builder.store(builder.fadd(builder.load(place, typ=type_number), number), place)
