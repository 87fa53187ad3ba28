"""Straight-line vector code for rules that look at each coordinate alone, written for one n and compiled by LLVM.

A sorting network has no branches, so for a given n all of it can be laid out in the registers: load a few coordinates
of each of the n rows, compare and swap, average, store, go on. Every row is read once and nothing else is; on two cores
the network then hides behind the reading. Compiling takes 50 ms at n = 26 and under a second at n = 128.

Floats are sorted as the integers that their bits are, the lower bits of negative ones flipped. Integers have a total
order, −0 below +0, so no order of the inputs leaves its trace; and bfloat16 sorts twice as many in one register.

Averages are sums in float64, taken in order of rank. Float32 values and their sums of up to 2²⁹ equal values are exact
there, and rounding is monotone: so no average leaves the range of what it averages, equal values stay exactly, and
nothing overflows.
"""

import ctypes
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

import llvmlite.binding as llvm
from llvmlite import ir

from p2pnode.aggregation.network import comparators

PREFETCH = 128
"""Coordinates that reading is ahead of sorting; measured at n = 10, 26, 64, where 512 is no better and 0 is a third
slower."""

type_pointer, type_index = ir.PointerType(), ir.IntType(64)

Value = Any
"""A value in LLVM's representation; llvmlite has no types to tell them apart."""

Mean = Callable[["Lanes", list[Value]], list[Value]]
"""From the bits of n rows to the float64 vectors of the output rows."""


@dataclass(frozen=True, slots=True)
class Format:
    """How floats stand in memory: their width, and how many make one vector register of 256 bits."""

    bits: int
    lanes: int


FLOAT32, BFLOAT16 = Format(32, 8), Format(16, 16)


class Kernel:
    """Compiled code: for coordinates from `start` to `stop`, reads the input rows and writes the output rows.

    A call releases the interpreter's lock, and any number of threads may call at once.
    """

    def __init__(self, assembly: str) -> None:
        llvm.initialize_native_target()
        llvm.initialize_native_asmprinter()
        machine = llvm.Target.from_default_triple().create_target_machine(
            cpu=llvm.get_host_cpu_name(), features=llvm.get_host_cpu_features().flatten(), opt=2
        )
        self._engine = llvm.create_mcjit_compiler(llvm.parse_assembly(assembly), machine)  # owns the code: keep it
        self._engine.finalize_object()
        signature = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * 3, ctypes.c_int64, ctypes.c_int64)
        self._call = signature(self._engine.get_function_address("kernel"))

    def __call__(self, rows: Sequence[int], outs: Sequence[int], weights: Sequence[float], start: int, stop: int) -> None:
        """Run.

        Args:
            rows: addresses of the input rows.
            outs: addresses of the output rows.
            weights: what the kernel's `Mean` reads, if anything.
            start: first coordinate.
            stop: one more than the last; start plus a multiple of the format's lanes.
        """
        if start < stop:
            self._call(_addresses(rows), _addresses(outs), (ctypes.c_double * len(weights))(*weights), start, stop)


def _addresses(rows: Sequence[int]) -> Any:
    return (ctypes.c_void_p * len(rows))(*rows)


def kernel(form: Format, rows: int, outs: int, mean: Mean) -> Kernel:
    """The loop over the coordinates around a `Mean`."""
    module = ir.Module()
    arguments = [type_pointer, type_pointer, type_pointer, type_index, type_index]
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), arguments), "kernel")
    inputs, outputs, weights, start, stop = function.args
    entry, body, end = (function.append_basic_block(name) for name in ("entry", "body", "end"))
    builder = ir.IRBuilder(entry)
    sources = [builder.load(_at(builder, inputs, row, type_index), typ=type_pointer) for row in range(rows)]
    targets = [builder.load(_at(builder, outputs, row, type_index), typ=type_pointer) for row in range(outs)]
    builder.branch(body)
    builder.position_at_end(body)
    position = builder.phi(type_index)
    lanes = Lanes(builder, form, weights)
    results = mean(lanes, [lanes.load(source, position) for source in sources])
    for target, result in zip(targets, results, strict=True):
        lanes.store(result, target, position)
    following = builder.add(position, type_index(form.lanes))
    position.add_incoming(start, entry)
    position.add_incoming(following, body)
    builder.cbranch(builder.icmp_signed("<", following, stop), body, end)
    ir.IRBuilder(end).ret_void()
    return Kernel(str(module))


def mean_of_ranks(first: int, stop: int) -> Mean:
    """The mean of the sorted values first, …, stop − 1."""

    def mean(lanes: "Lanes", bits: list[Value]) -> list[Value]:
        return [lanes.mean(lanes.ranks(bits, first, stop))]

    return mean


def mean_around_ranks(first: int, stop: int, keep: int) -> Mean:
    """The mean of the `keep` values nearest to the mean of the ranks first, …, stop − 1; of two equally near the lower."""

    def mean(lanes: "Lanes", bits: list[Value]) -> list[Value]:
        ordered = lanes.ranks(bits, 0, len(bits))
        return [lanes.mean(lanes.nearest(ordered, lanes.mean(ordered[first:stop]), keep))]

    return mean


def mean_of_all(lanes: "Lanes", bits: list[Value]) -> list[Value]:
    """The mean, added up in the order given."""
    return [lanes.mean([lanes.widen(row) for row in bits])]


def weighted_sums(n: int, outs: int) -> Mean:
    """Σⱼ wᵢⱼ·vⱼ for each output row i; the weights are read at run time, (outs, n) in row order."""

    def mean(lanes: "Lanes", bits: list[Value]) -> list[Value]:
        wide = [lanes.widen(row) for row in bits]
        return [lanes.weighted(wide, [out * n + row for row in range(n)]) for out in range(outs)]

    return mean


class Lanes:
    """Writes code for as many coordinates as one vector register holds."""

    def __init__(self, builder: Value, form: Format, weights: Value) -> None:
        self._builder, self._form, self._weights = builder, form, weights
        self._element = ir.IntType(form.bits)
        self._bits = ir.VectorType(self._element, form.lanes)
        self._word = ir.VectorType(ir.IntType(32), form.lanes)
        self._float = ir.VectorType(ir.FloatType(), form.lanes)
        self._wide = ir.VectorType(ir.DoubleType(), form.lanes)
        prefetch = ir.FunctionType(ir.VoidType(), [type_pointer, *[ir.IntType(32)] * 3])
        self._prefetch = builder.module.declare_intrinsic("llvm.prefetch.p0", fnty=prefetch)

    def load(self, row: Value, position: Value) -> Value:
        """The bits of a row's coordinates, those further on being sent for."""
        here = self._builder.gep(row, [position], source_etype=self._element)
        read, keep_close, data = (ir.IntType(32)(flag) for flag in (0, 3, 1))
        self._builder.call(self._prefetch, [_at(self._builder, here, PREFETCH, self._element), read, keep_close, data])
        return self._builder.load(here, typ=self._bits, align=self._form.bits // 8)

    def store(self, wide: Value, row: Value, position: Value) -> None:
        """Round to the nearest, ties to even, and write."""
        bits = self._builder.bitcast(self._builder.fptrunc(wide, self._float), self._word)
        if self._form.bits == 16:
            odd = self._builder.and_(self._builder.lshr(bits, self._all(self._word, 16)), self._all(self._word, 1))
            nearest = self._builder.add(bits, self._builder.add(odd, self._all(self._word, 0x7FFF)))
            bits = self._builder.trunc(self._builder.lshr(nearest, self._all(self._word, 16)), self._bits)
        here = self._builder.gep(row, [position], source_etype=self._element)
        self._builder.store(bits, here, align=self._form.bits // 8)

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

    def weighted(self, values: list[Value], weights: list[int]) -> Value:
        """The sum of float64 vectors, each times the weight of that index."""
        total = self._all(self._wide, 0.0)
        for value, weight in zip(values, weights, strict=True):
            here = _at(self._builder, self._weights, weight, ir.DoubleType())
            factor = self._spread(self._builder.load(here, typ=ir.DoubleType()))
            total = self._builder.fadd(total, self._builder.fmul(value, factor, flags=("contract",)), flags=("contract",))
        return total

    def widen(self, bits: Value) -> Value:
        """The float64 values that bits in memory mean."""
        if self._form.bits == 16:
            bits = self._builder.shl(self._builder.zext(bits, self._word), self._all(self._word, 16))
        return self._builder.fpext(self._builder.bitcast(bits, self._float), self._wide)

    def _key(self, bits: Value) -> Value:
        """Bits to integers of the same order as the floats; and back."""
        sign = self._builder.ashr(bits, self._all(self._bits, self._form.bits - 1))
        magnitude = self._all(self._bits, (1 << self._form.bits - 1) - 1)
        return self._builder.xor(bits, self._builder.and_(sign, magnitude))

    def _spread(self, scalar: Value) -> Value:
        one = self._builder.insert_element(ir.Constant(self._wide, ir.Undefined), scalar, ir.IntType(32)(0))
        return self._builder.shuffle_vector(one, one, self._all(self._word, 0))

    def _all(self, kind: Value, number: float) -> Value:
        return ir.Constant(kind, [number] * self._form.lanes)


def _at(builder: Value, base: Value, index: int, element: Value) -> Value:
    return builder.gep(base, [type_index(index)], source_etype=element)
