"""Straight-line vector code for rules that look at each coordinate alone, written for one n and compiled by LLVM.

A sorting network has no branches, so for a given n all of it can be laid out in the registers: load a few coordinates
of each of the n rows, compare and swap, average, store, go on. Every row is read once and nothing else is; on two cores
the network then hides behind the reading. Compiling takes 0.1 s at n = 26, and a second or two at n = 128.

Floats are sorted as the integers that their bits are, the lower bits of negative ones flipped. Integers have a total
order, −0 below +0, so no order of the inputs leaves its trace; and bfloat16 sorts twice as many in one register.

Averages are sums in float64, taken in order of rank. Float32 values and their sums of up to 2²⁹ equal values are exact
there, and rounding is monotone: so no average leaves the range of what it averages, equal values stay exactly, and
nothing overflows.
"""

import ctypes
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial, reduce
from typing import Any

import llvmlite.binding as llvm
from llvmlite import ir

from p2pnode.aggregation.network import comparators

PREFETCH = 128
"""Coordinates that reading is ahead of sorting; measured at n = 10, 26, 64, where 512 is no better and 0 is a third
slower."""

MIXED_AT_ONCE = 32
"""Coordinates of mixtures that are summed beside each other: in float64 eight registers of sums, which keep both
multipliers busy and leave registers for what is added."""

type_pointer, type_index = ir.PointerType(), ir.IntType(64)

Value = Any
"""A value in LLVM's representation; llvmlite has no types to tell them apart."""

Mean = Callable[["Lanes", list[Value]], list[Value]]
"""From the bits of n rows, or of n mixtures of rows, to the float64 vectors of the output rows."""


@dataclass(frozen=True, slots=True)
class Format:
    """How floats stand in memory: their width, and how many make one vector register of 256 bits."""

    bits: int
    lanes: int


FLOAT32, BFLOAT16 = Format(32, 8), Format(16, 16)
SIGNATURE = [type_pointer, type_pointer, type_pointer, type_index, type_index, type_index]
"""Of every kernel: table of input rows, of output rows, weights; number of input rows; first coordinate, one past the
last."""

type_answer = ir.IntType(8)
"""Of every kernel: whether it has met NaN or infinity, where it looks for them."""


class Kernel:
    """Compiled code: for coordinates from `start` to `stop`, reads the input rows and writes the output rows.

    Calling it releases the interpreter's lock, and any number of threads may call at once.
    """

    def __init__(self, assembly: str) -> None:
        llvm.initialize_native_target()
        llvm.initialize_native_asmprinter()
        machine = llvm.Target.from_default_triple().create_target_machine(
            cpu=llvm.get_host_cpu_name(), features=llvm.get_host_cpu_features().flatten(), opt=2
        )
        self._engine = llvm.create_mcjit_compiler(llvm.parse_assembly(assembly), machine)  # owns the code: keep it
        self._engine.finalize_object()
        signature = ctypes.CFUNCTYPE(ctypes.c_bool, *[ctypes.c_void_p] * 3, *[ctypes.c_int64] * 3)
        self._call = signature(self._engine.get_function_address("kernel"))

    def bind(
        self, rows: Sequence[int], outs: Sequence[int], weights: Sequence[float] = ()
    ) -> Callable[[int, int], bool]:
        """Calls with these arguments: takes the first coordinate, and one more than the last.

        The difference of the two is a positive multiple of the format's lanes. Answers whether it has met NaN or
        infinity, where it looks for them.

        Args:
            rows: addresses of the input rows.
            outs: addresses of the output rows.
            weights: what the kernel's `Mean` reads, if anything.
        """
        arrays = _addresses(rows), _addresses(outs), (ctypes.c_double * len(weights))(*weights)
        return partial(self._call, *arrays, len(rows))


def _addresses(rows: Sequence[int]) -> ctypes.Array[ctypes.c_void_p]:
    return (ctypes.c_void_p * len(rows))(*rows)


def kernel(
    form: Format, rows: int, outs: int, mean: Mean, *, points: int | None = None, watchful: bool = False
) -> Kernel:
    """The loop over the coordinates around a `Mean`.

    Args:
        form: of the rows.
        rows, outs: how many are read, and written.
        mean: what is written between.
        points: how many mixtures Σⱼ wᵢⱼ·vⱼ of the rows `mean` takes in their place, each rounded as a row would be. The
            weights are read at run time, (points, rows) in row order. None: it takes the rows.
        watchful: whether to look for NaN and infinity, for a `Mean` whose results may not show them.
    """
    module = ir.Module()
    function = ir.Function(module, ir.FunctionType(type_answer, SIGNATURE), "kernel")
    inputs, outputs, weights, _, start, stop = function.args
    builder = ir.IRBuilder(function.append_basic_block())
    sources = [load_at(builder, inputs, row, type_pointer) for row in range(rows)]
    targets = [load_at(builder, outputs, row, type_pointer) for row in range(outs)]
    lanes = Lanes(builder, form, weights)

    def body(position: Value, seen: list[Value]) -> list[Value]:
        bits = [lanes.load(source, position) for source in sources]
        taken = bits if points is None else lanes.mixtures(bits, points)
        for target, result in zip(targets, mean(lanes, taken), strict=True):
            lanes.store(result, target, position)
        return [reduce(lanes.watch, bits[turn :: len(seen)], one) for turn, one in enumerate(seen)]

    # Two sums, added to in turn: each waits for its own last addition.
    seen = loop(builder, start, stop, form.lanes, body, [lanes.zero(wide=False)] * 2 if watchful else [])
    builder.ret(lanes.is_nan(reduce(builder.fadd, seen)) if watchful else type_answer(0))
    return Kernel(str(module))


def loop(
    builder: Value,
    start: Value,
    stop: Value,
    step: int,
    body: Callable[[Value, list[Value]], list[Value]],
    carried: Sequence[Value] = (),
) -> list[Value]:
    """Write a loop over range(start, stop, step), which must not be empty.

    Args:
        builder: where to write; stands behind the loop afterwards.
        start: the first index.
        stop: an end that the index stays below.
        step: what it grows by.
        body: writes one turn: takes the index and the carried values, returns these for the next turn.
        carried: the values that the first turn takes.

    Returns:
        The carried values after the last turn.
    """
    before, turn = builder.block, builder.append_basic_block()
    builder.branch(turn)
    builder.position_at_end(turn)
    index = builder.phi(type_index)
    values = [builder.phi(value.type) for value in carried]
    results = body(index, values)
    following = builder.add(index, type_index(step))
    for phi, first, later in zip([index, *values], [start, *carried], [following, *results], strict=True):
        phi.add_incoming(first, before)
        phi.add_incoming(later, builder.block)
    after = builder.append_basic_block()
    builder.cbranch(builder.icmp_signed("<", following, stop), turn, after)
    builder.position_at_end(after)
    return results


def mean_of_ranks(first: int, stop: int) -> Mean:
    """The mean of the sorted values first, …, stop − 1."""

    def mean(lanes: "Lanes", bits: list[Value]) -> list[Value]:
        return [lanes.mean(lanes.ranks(bits, first, stop))]

    return mean


def mean_around_ranks(first: int, stop: int, keep: int) -> Mean:
    """The mean of the `keep` values nearest to the mean of ranks first, …, stop − 1; of two as near the lower."""

    def mean(lanes: "Lanes", bits: list[Value]) -> list[Value]:
        ordered = lanes.ranks(bits, 0, len(bits))
        return [lanes.mean(lanes.nearest(ordered, lanes.mean(ordered[first:stop]), keep))]

    return mean


def mean_of_all(lanes: "Lanes", bits: list[Value]) -> list[Value]:
    """The mean, added up in the order given."""
    return [lanes.mean([lanes.widen(row) for row in bits])]


def all_as_they_are(lanes: "Lanes", bits: list[Value]) -> list[Value]:
    """Each of them."""
    return [lanes.widen(row) for row in bits]


class Lanes:
    """Writes code for as many coordinates as one vector register holds."""

    def __init__(self, builder: Value, form: Format, weights: Value = None) -> None:
        self._builder, self._form, self._weights = builder, form, weights
        self._element = ir.IntType(form.bits)
        self._bits = ir.VectorType(self._element, form.lanes)
        self._word = ir.VectorType(ir.IntType(32), form.lanes)
        self._float = ir.VectorType(ir.FloatType(), form.lanes)
        self._wide = ir.VectorType(ir.DoubleType(), form.lanes)
        prefetch = ir.FunctionType(ir.VoidType(), [type_pointer, *[ir.IntType(32)] * 3])
        self._prefetch = builder.module.declare_intrinsic("llvm.prefetch.p0", fnty=prefetch)

    def load(self, row: Value, position: Value, *, ahead: bool = True) -> Value:
        """The bits of a row's coordinates; unless told otherwise, those further ahead are sent for."""
        here = at(self._builder, row, position, self._element)
        if ahead:
            arguments = [ir.IntType(32)(flag) for flag in (0, 3, 1)]  # to read, to keep close, as data
            self._builder.call(self._prefetch, [at(self._builder, here, PREFETCH, self._element), *arguments])
        return self._builder.load(here, typ=self._bits, align=self._form.bits // 8)

    def store(self, wide: Value, row: Value, position: Value) -> None:
        """Round, and write."""
        here = at(self._builder, row, position, self._element)
        self._builder.store(self.rounded(wide), here, align=self._form.bits // 8)

    def rounded(self, wide: Value) -> Value:
        """The bits of the nearest, of two as near the even ones."""
        bits = self._builder.bitcast(self._builder.fptrunc(wide, self._float), self._word)
        if self._form.bits == 16:
            odd = self._builder.and_(self._builder.lshr(bits, self._all(self._word, 16)), self._all(self._word, 1))
            nearest = self._builder.add(bits, self._builder.add(odd, self._all(self._word, 0x7FFF)))
            bits = self._builder.trunc(self._builder.lshr(nearest, self._all(self._word, 16)), self._bits)
        return bits

    def mixtures(self, bits: list[Value], points: int) -> list[Value]:
        """The bits of so many mixtures of the rows, summed in float64."""
        n, at_once = len(bits), MIXED_AT_ONCE // self._form.lanes
        if points <= at_once:  # laid out, so that one turn of the loop over the coordinates begins before the last ends
            totals = [self.zero()] * points
            for row, each in enumerate(bits):
                totals = self._add_row(
                    totals, self.widen(each), [type_index(point * n + row) for point in range(points)]
                )
            return [self.rounded(total) for total in totals]
        with self._builder.goto_entry_block():
            table = self._builder.alloca(self._wide, n)
        for row, each in enumerate(bits):
            self._builder.store(self.widen(each), at(self._builder, table, row, self._wide))
        mixed = []
        for first in range(0, points, at_once):
            some = range(first, min(first + at_once, points))

            def add_row(row: Value, totals: list[Value], some: range = some) -> list[Value]:
                places = [self._builder.add(row, type_index(point * n)) for point in some]
                return self._add_row(totals, load_at(self._builder, table, row, self._wide), places)

            totals = loop(self._builder, type_index(0), type_index(n), 1, add_row, [self.zero()] * len(some))
            mixed += [self.rounded(total) for total in totals]
        return mixed

    def _add_row(self, totals: list[Value], wide: Value, places: list[Value]) -> list[Value]:
        """To each total the row times the weight at its place."""
        return [self.add(total, wide, place) for total, place in zip(totals, places, strict=True)]

    def watch(self, seen: Value, bits: Value) -> Value:
        """Zeros, as long as all numbers that were seen are finite: times zero, they are; NaN and infinity are NaN."""
        product = self._builder.fmul(self.floats(bits), self._all(self._float, 0.0), flags=("contract",))
        return self._builder.fadd(seen, product, flags=("contract",))

    def is_nan(self, values: Value) -> Value:
        """Whether one of these float32 values is."""
        found = self._builder.fcmp_unordered("uno", values, values)
        lanes = [self._builder.extract_element(found, ir.IntType(32)(lane)) for lane in range(self._form.lanes)]
        return self._builder.zext(reduce(self._builder.or_, lanes), type_answer)

    def ranks(self, bits: list[Value], first: int, stop: int) -> list[Value]:
        """The sorted values first, …, stop − 1, in float64."""
        wires = [self._key(row) for row in bits]
        for low, high, wants_low, wants_high in comparators(len(bits), first, stop, ordered=True):
            one, other = wires[low], wires[high]
            below = self._builder.icmp_signed("<", one, other)
            if wants_low:
                wires[low] = self._builder.select(below, one, other)
            if wants_high:
                wires[high] = self._builder.select(below, other, one)
        return [self.widen(self._key(wire)) for wire in wires[first:stop]]

    def nearest(self, ordered: list[Value], centre: Value, keep: int) -> list[Value]:
        """Of sorted values the `keep` nearest to the centre: those of a window, which moves up while that is nearer."""
        values, moves = list(ordered), None
        for low in range(len(values) - keep):
            high = low + keep
            below, above = self._builder.fsub(centre, values[low]), self._builder.fsub(values[high], centre)
            nearer = self._builder.fcmp_ordered(">", below, above)
            moves = nearer if moves is None else self._builder.and_(moves, nearer)
            # A window that stays hands its value up: in the end its values are the last ones.
            values[high] = self._builder.select(moves, values[high], values[low])
        return values[-keep:]

    def mean(self, values: list[Value]) -> Value:
        """The mean of float64 vectors, added up in the order given."""
        total = reduce(self._builder.fadd, values)
        return self._builder.fdiv(total, self._all(self._wide, float(len(values))))

    def spread(self, scalar: Value) -> Value:
        """The vector of one float32 or float64 number."""
        kind = self._float if scalar.type == self._float.element else self._wide
        one = self._builder.insert_element(ir.Constant(kind, ir.Undefined), scalar, ir.IntType(32)(0))
        return self._builder.shuffle_vector(one, one, self._all(self._word, 0))

    def zero(self, *, wide: bool = True) -> Value:
        """A vector of zeros in float64, or else float32."""
        return self._all(self._wide if wide else self._float, 0.0)

    def add(self, total: Value, wide: Value, weight: Value) -> Value:
        """The float64 vector `total` and another times the weight of that index."""
        factor = self.spread(load_at(self._builder, self._weights, weight, ir.DoubleType()))
        return self._builder.fadd(total, self._builder.fmul(wide, factor, flags=("contract",)), flags=("contract",))

    def widen(self, bits: Value) -> Value:
        """The float64 values that bits in memory mean."""
        return self._builder.fpext(self.floats(bits), self._wide)

    def add_square(self, total: Value, root: Value) -> Value:
        """The vector `total` and the square of another."""
        square = self._builder.fmul(root, root, flags=("contract",))
        return self._builder.fadd(total, square, flags=("contract",))

    def sum(self, values: Value) -> Value:
        """The sum of all lanes, in float64: of halves, of quarters, and so on."""
        if values.type == self._float:
            values = self._builder.fpext(values, self._wide)
        while (count := values.type.count) > 1:
            low, high = (
                self._builder.shuffle_vector(
                    values, values, ir.Constant(ir.VectorType(ir.IntType(32), count // 2), half)
                )
                for half in (list(range(count // 2)), list(range(count // 2, count)))
            )
            values = self._builder.fadd(low, high)
        return self._builder.extract_element(values, ir.IntType(32)(0))

    def floats(self, bits: Value) -> Value:
        """The float32 values that bits in memory mean."""
        if self._form.bits == 16:
            bits = self._builder.shl(self._builder.zext(bits, self._word), self._all(self._word, 16))
        return self._builder.bitcast(bits, self._float)

    def _key(self, bits: Value) -> Value:
        """Bits to integers of the same order as the floats; and back."""
        sign = self._builder.ashr(bits, self._all(self._bits, self._form.bits - 1))
        magnitude = self._all(self._bits, (1 << self._form.bits - 1) - 1)
        return self._builder.xor(bits, self._builder.and_(sign, magnitude))

    def _all(self, kind: Value, number: float) -> Value:
        return ir.Constant(kind, [number] * self._form.lanes)


def at(builder: Value, base: Value, index: Value, element: Value) -> Value:
    """The address of an element of an array; the index is a number known now or at run time."""
    return builder.gep(base, [type_index(index) if isinstance(index, int) else index], source_etype=element)


def load_at(builder: Value, base: Value, index: Value, element: Value) -> Value:
    """That element."""
    return builder.load(at(builder, base, index, element), typ=element)
