"""On a CUDA device the compiled kernels are tested; elsewhere the same kernels in Triton's interpreter, if installed.

The interpreter differs in one thing: it rounds float32 to bfloat16 towards zero.
"""

import sys
from itertools import pairwise

import pytest
import torch

from p2pnode.aggregation import coordinate, gpu

EPS = torch.finfo(torch.float32).eps
TINY = 1e-45
MAX = torch.finfo(torch.float32).max
SIZES = [*range(1, 11), 26, 64, 128]
COLUMNS = 11
"""Of each kind: all kinds together are less than one block, of which each costs the interpreter the same time."""

# In the interpreter NumPy tells where a distance from the centre is infinite, which is right: never are two compared.
pytestmark = pytest.mark.filterwarnings("ignore:overflow encountered:RuntimeWarning")


@pytest.fixture(scope="module")
def device():
    if not gpu.available():
        pytest.skip("Triton is not installed")
    if torch.cuda.is_available():
        yield "cuda"
        return
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRITON_INTERPRET", "1")
        yield "cpu"


@pytest.fixture
def random():
    return torch.Generator().manual_seed(0)


def chosen(values, n, random):
    """(n, COLUMNS) of the values given, each equally often."""
    return torch.tensor(values)[torch.randint(len(values), (n, COLUMNS), generator=random)]


def whole(n, random):
    """Few whole numbers: ties everywhere, and no rounding before the mean."""
    return torch.randint(-4, 5, (n, COLUMNS), generator=random).float()


def normal(n, random):
    return torch.randn(n, COLUMNS, generator=random)


def hard(n, random):
    """Columns of every kind that breaks careless arithmetic."""
    neighbours = [(x, torch.tensor(x).nextafter(torch.tensor(MAX)).item()) for x in (1.0, -0.3, 1e-39, TINY, 3e38)]
    kinds = [
        *(chosen(pair, n, random) for pair in neighbours),
        chosen([MAX, -MAX], n, random),
        chosen([3e38, 3.1e38, 3.2e38], n, random),
        chosen([3e38, -3e38, 3.1e38, 1.0, 0.0, -0.0], n, random),
        chosen([0.0, -0.0, TINY, -TINY, 3 * TINY, 1e-39, -1e-38], n, random),
        normal(n, random) * torch.logspace(-44, 37, n)[torch.randperm(n, generator=random)][:, None],
    ]
    return torch.cat(kinds, dim=1)


def rounding(ordered):
    """What a running mean of the float64 rows may be off by."""
    return len(ordered) * (EPS * ordered.abs().amax(0) + TINY)


def assert_mean_of_ranks(out, vectors, first, stop):
    kept = vectors.double().sort(dim=0).values[first:stop]
    assert ((out.double() - kept.mean(0)).abs() <= rounding(kept)).all()
    assert (out >= kept[0]).all()
    assert (out <= kept[-1]).all()


def assert_mean_around(out, vectors, first, stop, keep):
    """`out` is the mean of `keep` neighbours, none farther from the centre than need be, but for rounding."""
    ordered = vectors.double().sort(dim=0).values
    centre = ordered[first:stop].mean(0)
    windows = ordered.unfold(0, keep, 1)
    radius = (windows - centre[:, None]).abs().amax(-1)
    nearest = radius <= radius.amin(0) + rounding(ordered) + 128 * TINY
    right = (windows.mean(-1) - out.double()).abs() <= rounding(ordered)
    within = (windows[..., 0] <= out) & (out <= windows[..., -1])
    assert (nearest & right & within).any(0).all()


def around_whole_numbers(vectors, first, stop, keep):
    """The mean around the centre of whole numbers, in whole numbers: ties are exact, and the lower value is taken."""
    count, out = stop - first, []
    for column in vectors.long().sort(dim=0).values.T.tolist():
        total = sum(column[first:stop])
        start = 0
        while start + keep < len(column) and total - count * column[start] > count * column[start + keep] - total:
            start += 1
        out.append(sum(column[start : start + keep]) / keep)
    return torch.tensor(out)


def cuts(n):
    """Values of f to try: none, one, about n/4, and the most."""
    return sorted({0, min(1, (n - 1) // 2), n // 4 if n > 3 else 0, (n - 1) // 2}) if n < 64 else [n // 5]


def settings_around(n):
    """Each rule around a centre, as (its call, first and stop of its centre, keep)."""
    for f in cuts(n):
        yield lambda vectors, f=f: gpu.mean_around_trimmed_mean(vectors, f), f, n - f, n - f
        yield lambda vectors, f=f: gpu.mean_around_median(vectors, n - f), (n - 1) // 2, n // 2 + 1, n - f
    if n < 64:
        # Fewer than half are kept, as in the second phase of Bulyan; one alone is one of the values.
        for keep in {1, (n + 2) // 3}:
            yield lambda vectors, keep=keep: gpu.mean_around_median(vectors, keep), (n - 1) // 2, n // 2 + 1, keep


def test_it_is_available_only_where_triton_is(monkeypatch):
    monkeypatch.setitem(sys.modules, "triton", None)
    assert not gpu.available()


@pytest.mark.parametrize("n", SIZES)
def test_means_of_ranks_agree_with_sorting_in_float64(device, random, n):
    vectors = torch.cat([whole(n, random), normal(n, random), hard(n, random)], dim=1)
    bounds = {(f, n - f) for f in cuts(n)} | {((n - 1) // 2, n // 2 + 1)}
    for first, stop in bounds | ({(0, 1), (n - 1, n)} if n < 64 else set()):
        out = gpu.mean_of_ranks(vectors.to(device), first, stop)
        assert out.isfinite().all()
        assert_mean_of_ranks(out.cpu(), vectors, first, stop)


@pytest.mark.parametrize("n", SIZES)
def test_means_around_a_centre_agree_with_sorting_in_float64(device, random, n):
    vectors = torch.cat([whole(n, random), normal(n, random), hard(n, random)], dim=1)
    for rule, first, stop, keep in settings_around(n):
        out = rule(vectors.to(device)).cpu()
        assert out.isfinite().all()
        assert_mean_around(out, vectors, first, stop, keep)
        exact = around_whole_numbers(vectors[:, :COLUMNS], first, stop, keep)
        assert torch.allclose(out[:COLUMNS], exact, rtol=0, atol=n * 4 * EPS), (first, stop, keep)


@pytest.mark.parametrize("n", [1, 2, 5, 10, 26])
def test_they_agree_with_the_reference(device, random, n):
    vectors = torch.cat([whole(n, random), normal(n, random)], dim=1)
    there = vectors.to(device)
    for f in cuts(n):
        for ours, reference in (
            (gpu.mean_of_ranks(there, f, n - f), coordinate.trimmed_mean(vectors, f)),
            (gpu.mean_around_median(there, n - f), coordinate.mean_around_median(vectors, n - f)),
            (gpu.mean_around_trimmed_mean(there, f), coordinate.mean_around_trimmed_mean(vectors, f)),
        ):
            assert ours.dtype == reference.dtype
            assert ours.device == there.device
            assert torch.allclose(ours.cpu(), reference, rtol=n * EPS, atol=n * 4 * EPS)


def test_a_tie_goes_to_the_lower_value(device):
    vectors = torch.tensor([[-1.0, 0.0, 1.0], [4.0, 5.0, 6.0], [0.0, 3.0, 6.0]]).T.contiguous().to(device)
    assert gpu.mean_around_median(vectors, 2).tolist() == [-0.5, 4.5, 1.5]
    assert gpu.mean_around_trimmed_mean(vectors, 1).tolist() == [-0.5, 4.5, 1.5]
    # The mean of the inner seven is 3, but not if 21 is multiplied by 1/7.
    sevenths = torch.tensor([[0.0, 1.0, 2.0, 2.0, 3.0, 4.0, 4.0, 5.0, 6.0]]).T.to(device)
    assert gpu.mean_around_trimmed_mean(sevenths, 1).item() == 21 / 8


@pytest.mark.parametrize("value", [0.0, 1 / 3, -TINY, 3 * TINY, 1e-39, MAX, -MAX])
def test_equal_vectors_are_a_fixed_point_exactly(device, value):
    vectors = torch.full((9, 2), value, device=device)
    for out in (
        gpu.mean_of_ranks(vectors, 0, 9),
        gpu.mean_of_ranks(vectors, 2, 7),
        gpu.mean_around_median(vectors, 7),
        gpu.mean_around_trimmed_mean(vectors, 2),
    ):
        assert torch.equal(out, vectors[0])


@pytest.mark.parametrize("n", [7, 10])
def test_the_order_of_the_rows_makes_no_difference(device, random, n):
    vectors = torch.cat([whole(n, random), normal(n, random), hard(n, random)], dim=1)
    order = torch.randperm(n, generator=random)
    one, other = vectors.to(device), vectors[order].to(device)
    # Zeros of both signs are one value: either may come first.
    for rule, *_ in settings_around(n):
        assert torch.equal(rule(one), rule(other))
    # Where ranks are averaged that need no order among them, they are taken as they come.
    assert_mean_of_ranks(gpu.mean_of_ranks(other, 2, n - 2).cpu(), vectors, 2, n - 2)
    assert torch.equal(gpu.mean_of_ranks(one, 2, 3), gpu.mean_of_ranks(other, 2, 3))


@pytest.mark.parametrize("n", [3, 10])
def test_bfloat16_is_averaged_in_float32(device, random, n):
    vectors = torch.cat([whole(n, random), normal(n, random), 3e38 * (2 * whole(n, random).sign() - 1)], dim=1)
    vectors = vectors.clamp(-3e38, 3e38).bfloat16()
    there = vectors.to(device)
    digit = 2.0**-8 if device == "cuda" else 2.0**-7
    f = n // 4
    ordered = vectors.double().sort(dim=0).values
    out = gpu.mean_of_ranks(there, f, n - f)
    assert out.dtype == torch.bfloat16
    mean = ordered[f : n - f].mean(0)
    assert ((out.cpu().double() - mean).abs() <= digit * mean.abs() + n * EPS * ordered.abs().amax(0)).all()
    for rule, first, stop, keep in settings_around(n):
        precise = rule(there.float()).double().cpu()
        assert ((rule(there).cpu().double() - precise).abs() <= digit * precise.abs()).all(), (first, stop, keep)
    ones = torch.ones(33, 2, dtype=torch.bfloat16, device=device)
    ones[0] = 0
    assert gpu.mean_of_ranks(ones, 0, 33)[0].item() == pytest.approx(32 / 33, rel=digit)


def test_any_strides_will_do(device, random):
    wide = torch.randn(20, 320, generator=random).to(device)
    tall = torch.randn(100, 10, generator=random).to(device)
    for view in (wide[::2, 16:272], wide[1::2, 3:204], wide[::2, 5:300:2], tall.T, wide[:1, :48].expand(10, 48)):
        for rule in (
            lambda vectors: gpu.mean_of_ranks(vectors, 2, 8),
            lambda vectors: gpu.mean_around_median(vectors, 8),
        ):
            out = rule(view)
            assert out.is_contiguous()
            assert torch.equal(out, rule(view.contiguous()))
            assert torch.equal(out[-1:], rule(view[:, -1:].contiguous()))


@pytest.mark.parametrize("n", [3, 10])
def test_blocks_join_without_a_seam(device, random, n):
    """Whatever the number of coordinates: less than a block, whole blocks, or a rest, in vectors or one by one."""
    vectors = torch.randn(n, 1025, generator=random).to(device)
    everything = gpu.mean_around_median(vectors, n - 1)
    lengths = (1, 16, 127, 128, 129, 512, 528, 1024)
    for d in lengths:
        guarded = torch.cat([vectors[:, :d], vectors.new_full((n, 16), torch.nan)], dim=1)
        assert torch.equal(gpu.mean_around_median(guarded[:, :d], n - 1), everything[:d])
    for start, end in pairwise(lengths):
        assert torch.equal(gpu.mean_around_median(vectors[:, start:end], n - 1), everything[start:end])


def test_wide_loads_only_where_memory_and_registers_allow(random):
    def per_thread(n, d, dtype=torch.float32):
        return gpu._coordinates_per_thread(torch.empty(n, d, dtype=dtype))

    assert [per_thread(n, 160) for n in (1, 8, 9, 16, 17, 128)] == [4, 4, 2, 2, 1, 1]
    assert [per_thread(n, 160, torch.bfloat16) for n in (1, 4, 5, 128)] == [8, 8, 4, 1]
    assert per_thread(4, 161) == 1
    assert gpu._coordinates_per_thread(torch.empty(4, 176)[:, :161]) == 1
    assert gpu._coordinates_per_thread(torch.empty(4, 320)[:, 1:161]) == 1
    assert gpu._coordinates_per_thread(torch.empty(4, 328)[:, :160]) == 1
    assert gpu._coordinates_per_thread(torch.empty(4, 320)[:, ::2]) == 1


def test_rows_may_be_farther_apart_than_32_bits_tell(device):
    """Row 2 begins 2³¹ numbers after row 0, yet the stride itself is less. Only what is read gets memory on a CPU."""
    need_memory(device, 5 * 2**30)
    vectors = torch.empty(2**31 + 8, dtype=torch.bfloat16, device=device).as_strided((3, 5), (2**30, 1))
    vectors.copy_(torch.tensor([[1.0], [2.0], [6.0]]).expand(3, 5))
    assert gpu.mean_of_ranks(vectors, 0, 3).tolist() == [3.0] * 5
    assert gpu.mean_around_median(vectors, 2).tolist() == [1.5] * 5


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("rule", [lambda v: gpu.mean_of_ranks(v, 0, 2), lambda v: gpu.mean_around_median(v, 2)])
def test_vectors_may_be_longer_than_32_bits_tell(device, rule):
    need_memory(device, 14 * 2**30)
    vectors = torch.ones(2, 2**31 + 5, dtype=torch.bfloat16, device=device)
    vectors[:, -3:] = torch.tensor([[2.0], [4.0]])
    out = rule(vectors)
    assert out[-5:].tolist() == [1.0, 1.0, 3.0, 3.0, 3.0]
    assert out[:: 2**20].eq(1).all()


def need_memory(device, least):
    if device == "cuda" and torch.cuda.mem_get_info()[0] < least:
        pytest.skip(f"needs {least >> 30} GiB of free GPU memory")
