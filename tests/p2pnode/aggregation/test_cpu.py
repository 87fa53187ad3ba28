"""Compiled code against float64 NumPy, and against the torch code that it stands for."""

import multiprocessing
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import numpy as np
import pytest
import torch

from p2pnode.aggregation import coordinate, cpu, cpu_distance, dispatch, distance

SPECIAL = [0.0, -0.0, 1.0, -1.0, 1e-45, -1e-45, 1e-39, 3e38, -3e38, 1e4, 1e4 + 1e-3]
COUNTS = [1, 2, 3, 4, 5, 7, 8, 9, 10, 16, 26]


@pytest.fixture(autouse=True)
def _little_work_is_shared_too(monkeypatch):
    monkeypatch.setattr(cpu, "ALONE", 0)


@pytest.fixture(params=[1, 2])
def threads(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


@pytest.fixture
def reference(monkeypatch):
    """Call a function with no compiled code to be had."""

    def call(function, *arguments):
        with monkeypatch.context() as patch:
            patch.setattr(dispatch, "ROWS_MAX", 0)
            return function(*arguments)

    return call


def fuzzed(n, d, dtype=torch.float32, seed=0):
    """(n, d): a third of the numbers special, a third of few values and so tied, the rest of all magnitudes."""
    rng = np.random.default_rng((seed, n, d))
    numbers = rng.standard_normal((n, d)) * 10.0 ** rng.integers(-44, 38, (n, d))
    numbers = np.where(rng.random((n, d)) < 1 / 3, rng.choice(SPECIAL, (n, d)), numbers)
    numbers = np.where(rng.random((n, d)) < 1 / 3, rng.integers(-2, 3, (n, d)), numbers)
    return torch.from_numpy(numbers.astype(np.float32)).to(dtype)


def rounded(exact, dtype):
    return torch.from_numpy(exact).float().to(dtype)


def mean_in_order(rows):
    return np.add.reduce(rows, axis=0) / len(rows)


def nearest(ordered, centre, keep):
    """Per coordinate the mean of the nearest, found one by one."""
    out = []
    for column, middle in zip(ordered.T, centre, strict=True):
        low = 0
        while low + keep < len(column) and middle - column[low] > column[low + keep] - middle:
            low += 1
        out.append(mean_in_order(column[low : low + keep, None])[0])
    return np.array(out)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("n", COUNTS)
def test_every_rule_agrees_with_numpy(n, dtype):
    vectors = fuzzed(n, 1001, dtype)
    ordered, f = np.sort(vectors.double().numpy(), axis=0), (n - 1) // 3
    middle = mean_in_order(ordered[(n - 1) // 2 : n // 2 + 1])
    assert torch.equal(cpu.mean_of_ranks(vectors, f, n - f), rounded(mean_in_order(ordered[f : n - f]), dtype))
    assert torch.equal(cpu.mean(vectors), rounded(mean_in_order(vectors.double().numpy()), dtype))
    for keep in {1, (n + 1) // 2, n - f}:
        off = cpu.mean_around_median(vectors, keep).double().numpy() - nearest(ordered, middle, keep)
        assert (np.abs(off) <= torch.finfo(dtype).eps * np.abs(ordered).max(0) + torch.finfo(dtype).tiny / 64).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("n", [1, 2, 5, 10, 26, 64])
def test_the_bits_are_those_of_the_reference(reference, n, dtype):
    vectors, f = fuzzed(n, dispatch.NUMBERS_MIN // n + 5, dtype), (n - 1) // 4
    for function, *arguments in (
        (coordinate.mean, vectors),
        (coordinate.median, vectors),
        (coordinate.trimmed_mean, vectors, f),
        (coordinate.mean_around_median, vectors, n - f),
        (coordinate.mean_around_trimmed_mean, vectors, f),
    ):
        assert torch.equal(function(*arguments), reference(function, *arguments))


@pytest.mark.parametrize("n", [2, 9, 26])
def test_no_order_of_the_rows_leaves_a_trace(n):
    vectors, f = fuzzed(n, 999), (n - 1) // 3
    order = torch.randperm(n, generator=torch.Generator().manual_seed(n))
    for rule in (
        lambda v: cpu.mean_of_ranks(v, f, n - f),
        lambda v: cpu.mean_of_ranks(v, n // 2, n // 2 + 1),
        lambda v: cpu.mean_around_median(v, n - f),
        lambda v: cpu.mean_around_trimmed_mean(v, f),
    ):
        assert torch.equal(rule(vectors).view(torch.int32), rule(vectors[order]).view(torch.int32))


def test_the_most_rows_are_mixed_too():
    vectors = fuzzed(dispatch.ROWS_MAX, 600)
    ordered = np.sort(vectors.double().numpy(), axis=0)
    assert torch.equal(coordinate.trimmed_mean(vectors, 60), rounded(mean_in_order(ordered[60:68]), torch.float32))


@pytest.mark.parametrize("d", [1, 7, 8, 9, 15, 16, 17, 255, 4096 + 5])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_no_coordinate_is_lost_at_an_edge_and_none_beyond_is_touched(d, dtype):
    wide = fuzzed(3, d + 40, dtype)
    view = wide[:, 3 : 3 + d]
    before = wide.clone()
    exact = mean_in_order(np.sort(view.double().numpy(), axis=0)[1:2])
    assert torch.equal(cpu.mean_of_ranks(view, 1, 2), rounded(exact, dtype))
    norms = (view.double() ** 2).sum(1)
    assert torch.allclose(cpu_distance.squared_norms(view), norms, rtol=1e-12, atol=0)
    assert torch.equal(wide, before)


def test_every_kth_row_is_read_where_it_is():
    rows = fuzzed(9, 30_000)[::3]
    assert dispatch.serves_cpu(rows)
    assert torch.equal(coordinate.median(rows), rows.sort(dim=0).values[1])


def test_columns_that_lie_apart_are_left_to_torch():
    vectors = torch.randn(30_000, 5).T
    assert not dispatch.serves_cpu(vectors)
    assert torch.equal(coordinate.median(vectors), vectors.sort(dim=0).values[2])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("q", [2, 3, 5, 6, 26])
def test_distances_agree_with_numpy_at_every_magnitude(q, dtype):
    for seed, scale in enumerate((1.0, 1e-44, 1e-25, 1e-18, 1e-12, 1e12, 1e18, 1e38)):
        rng = np.random.default_rng(seed)
        numbers = np.clip(rng.standard_normal((q, 2101)) * scale, -3e38, 3e38)
        check_distances(torch.from_numpy(numbers.astype(np.float32)).to(dtype))
    check_distances(fuzzed(q, 2101, dtype))


def check_distances(vectors):
    wide = vectors.double().numpy()
    exact = torch.from_numpy(((wide[:, None] - wide[None]) ** 2).sum(-1))
    pairs = cpu_distance.pairwise_squared_distances(vectors)
    assert torch.allclose(pairs, exact, rtol=1e-5, atol=0)
    assert torch.equal(pairs, pairs.T)
    assert torch.equal(pairs == 0, exact == 0)
    assert torch.allclose(cpu_distance.squared_distances(vectors, vectors[1]), exact[1], rtol=1e-12, atol=0)
    assert torch.allclose(cpu_distance.squared_norms(vectors), torch.from_numpy((wide**2).sum(-1)), rtol=1e-12, atol=0)


def test_pairs_far_from_the_origin_and_near_each_other_keep_their_distance():
    generator = torch.Generator().manual_seed(0)
    vectors = 1e4 * torch.randn(1, 70_000, generator=generator) + torch.randn(6, 70_000, generator=generator)
    check_distances(vectors)


def test_the_distance_of_a_pair_does_not_depend_on_where_it_stands():
    vectors = torch.randn(11, 150_001)
    vectors[6] = vectors[2]
    vectors[7] *= 1e30
    order = torch.randperm(11)
    pairs = distance.pairwise_squared_distances(vectors)
    assert torch.equal(pairs[2], pairs[6])
    assert torch.equal(distance.pairwise_squared_distances(vectors[order]), pairs[order][:, order])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("m", "q"), [(1, 1), (3, 7), (7, 3), (26, 26)])
def test_mixed_rows_agree_with_numpy(m, q, dtype):
    vectors = torch.randn(q, 5003).to(dtype)
    weights = np.random.default_rng(m).random((m, q)) * (np.arange(q) <= np.arange(m)[:, None])
    out = cpu.mix_rows(vectors, weights).double().numpy()
    exact = weights @ vectors.double().numpy()
    assert (np.abs(out - exact) <= torch.finfo(dtype).eps * np.abs(exact) + 1e-12).all()


def test_equal_rows_stay_exactly_whatever_the_weights():
    vectors = fuzzed(1, 9001).repeat(26, 1)
    weights = np.random.default_rng(0).random((26, 26))
    assert torch.equal(coordinate.mix_rows(vectors, weights / weights.sum(axis=1, keepdims=True)), vectors)
    assert torch.equal(coordinate.weighted_mean(vectors, weights[0].tolist()), vectors[0])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("m", "q"), [(1, 3), (5, 9), (9, 9), (26, 26)])
def test_rules_of_mixtures_are_the_same_mixed_on_the_way_or_before(m, q, dtype):
    vectors, f = fuzzed(q, 8003, dtype), (m - 1) // 3
    shares = np.random.default_rng(m).random((m, q)) + 0.1
    weights = shares / shares.sum(axis=1, keepdims=True)
    mixtures = cpu.mix_rows(vectors, weights)
    for rule in (
        lambda *rows: cpu.mean_of_ranks(rows[0], f, m - f, *rows[1:]),
        lambda *rows: cpu.mean_around_median(rows[0], m - f, *rows[1:]),
        lambda *rows: cpu.mean_around_trimmed_mean(rows[0], f, *rows[1:]),
    ):
        assert torch.equal(rule(vectors, weights), rule(mixtures))


def test_rows_that_are_chosen_are_not_mixed_with_others():
    vectors, weights = fuzzed(6, 9001), np.eye(6)[[4, 0, 2]]
    vectors[5] = torch.inf  # times 0 it would be no number
    expected = vectors[[4, 0, 2]].sort(dim=0).values[1]
    assert torch.equal(cpu.mean_of_ranks(vectors, 1, 2, weights), expected)


def test_what_is_not_finite_is_met_in_mixtures_too():
    vectors = torch.ones(4, 20_003)
    for row, coordinate_ in ((0, 5), (3, 20_002)):
        spoiled = vectors.clone()
        spoiled[row, coordinate_] = torch.nan
        with pytest.raises(dispatch.Suspicion):
            cpu.mean_of_ranks(spoiled, 1, 3, np.full((4, 4), 1 / 4))


def everything(vectors):
    n = len(vectors)
    return [
        cpu.mean_of_ranks(vectors, 1, n - 1),
        cpu.mean_around_median(vectors, n - 1),
        cpu.mix_rows(vectors, np.random.default_rng(0).random((5, n))),
        cpu_distance.pairwise_squared_distances(vectors),
        cpu_distance.squared_norms(vectors),
    ]


def test_any_number_of_threads_gives_the_same_bits(threads):
    vectors = torch.randn(6, 200_003, generator=torch.Generator().manual_seed(1))
    found = everything(vectors)
    torch.set_num_threads(3)
    assert all(map(torch.equal, found, everything(vectors)))


def test_two_callers_at_once_do_not_disturb_each_other():
    vectors = [torch.randn(6, 150_000) for _ in range(2)]
    expected, start = [everything(each) for each in vectors], Barrier(2)

    def call(each):
        start.wait()
        return [everything(each) for _ in range(5)]

    with ThreadPoolExecutor(2) as pool:
        for results, wanted in zip(pool.map(call, vectors), expected, strict=True):
            assert all(all(map(torch.equal, result, wanted)) for result in results)


def test_a_forked_child_computes_after_its_parent_has():
    vectors = torch.randn(6, 150_000)
    expected = everything(vectors)
    parent, child = multiprocessing.Pipe()

    def compare():
        # By NumPy: torch's own threads, unlike those of the rules, do not survive a fork.
        child.send([np.array_equal(found, wanted) for found, wanted in zip(everything(vectors), expected, strict=True)])

    process = multiprocessing.get_context("fork").Process(target=compare)
    process.start()
    assert parent.poll(60)
    assert all(parent.recv())
    process.join()
    assert process.exitcode == 0


def test_the_compiler_is_not_loaded_for_few_numbers():
    few = torch.zeros(4, dispatch.NUMBERS_MIN // 4 - 1)
    assert not dispatch.serves_cpu(few)
    assert dispatch.serves_cpu(torch.zeros(4, dispatch.NUMBERS_MIN // 4))
    assert not dispatch.serves_cpu(torch.zeros(dispatch.ROWS_MAX + 1, 600))
    assert not dispatch.serves_cpu(torch.zeros(4, 20_000, dtype=torch.float64))
