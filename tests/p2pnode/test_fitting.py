"""One's own model, from one's own code: real networks on loopback, all nodes in one loop."""

import asyncio
import os
import signal
import subprocess
import sys

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import p2pnode
from p2pnode.errors import ConfigError
from p2pnode.fitting import fit, fit_async
from tests.own_code import found_own, written

LOSS = nn.CrossEntropyLoss()


@pytest.fixture(scope="module")
def code(tmp_path_factory):
    return written(tmp_path_factory.mktemp("code"), "code_to_fit")


def data(seed=0):
    x = torch.randn(200, 4, generator=torch.Generator().manual_seed(seed))
    return TensorDataset(x, (x.sum(1) > 0).long())


def net(width=8, seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(4, width), nn.Tanh(), nn.Linear(width, 2))


@pytest.fixture
def homes(tmp_path):
    """Makes the homes of a network whose genesis is of `net()`."""
    (tmp_path / "code_of_net.py").write_text(
        "from torch import nn\n\ndef Net():\n    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2))\n"
    )

    def found(nodes, **settings):
        return found_own(tmp_path / "net", nodes, f"{tmp_path}/code_of_net.py:Net", **settings)[1]

    return found


def test_to_import_it_costs_no_torch():
    done = subprocess.run(
        [sys.executable, "-c", "import sys, p2pnode; print(dir(p2pnode)); print('torch' in sys.modules, p2pnode.task)"],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONPATH": ":".join(sys.path)},
    )
    assert "'fit', 'fit_async', 'task'" in done.stdout
    assert "False <function task" in done.stdout
    assert p2pnode.fit is fit
    with pytest.raises(AttributeError, match="no attribute 'fitt'"):
        _ = p2pnode.fitt


def test_four_that_start_unlike_learn_one_model_each_from_its_own_data(homes):
    models, seen = [net(seed=seed) for seed in range(4)], []
    loaders = [DataLoader(data(seed), batch_size=16, shuffle=True) for seed in range(4)]
    folders = [home.path for home in homes(4)]
    assert len({model[0].weight[0, 0].item() for model in models}) == 4

    async def all_of_them():
        calls = zip(models, loaders, folders, strict=True)
        return await asyncio.gather(
            *(fit_async(*of, LOSS, where, test=data(9), on_step=seen.append) for *of, where in calls)
        )

    fitted = asyncio.run(all_of_them())
    assert [one.finished for one in fitted] == [True] * 4
    assert [one.model for one in fitted] == models
    assert min(one.accuracy for one in fitted) > 0.9
    vectors = [nn.utils.parameters_to_vector(model.parameters()) for model in models]
    assert all(torch.allclose(vector, vectors[0], atol=1e-5) for vector in vectors)
    for model, one in zip(models, fitted, strict=True):
        x, y = data(9).tensors
        assert model.training
        assert float((model(x).argmax(1) == y).double().mean()) == one.accuracy, "the model in place"
        assert all(parameter.grad is None for parameter in model.parameters())
    assert sorted(step.step for step in seen) == sorted([*range(1, 13)] * 4)
    assert {step.of for step in seen} == {12}
    assert all(0 < step.loss < 2 for step in seen)


def test_another_model_than_the_genesis_is_refused_and_left_as_it_was(homes):
    (home,) = homes(1)
    model = net(width=9)
    before = [parameter.clone() for parameter in model.parameters()]
    with pytest.raises(
        ConfigError, match=r"model: it is another than the genesis': 65 parameters are exchanged, .* 58"
    ):
        fit(model, data(), LOSS, home.path)
    assert all(torch.equal(*pair) for pair in zip(before, model.parameters(), strict=True))
    assert not home.pid.exists()


def test_what_the_callers_code_raises_ends_the_fit_and_comes_back(homes):
    (home,) = homes(1)

    def unhappy(step):
        if step.step == 3:
            raise KeyError("enough")

    with pytest.raises(KeyError, match="enough"):
        fit(net(), data(), LOSS, home.path, on_step=unhappy)
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        fit(net(), (torch.ones(20, 5), torch.zeros(20).long()), LOSS, home.path)
    assert not home.pid.exists()
    assert fit(net(), data(), LOSS, home.path).finished, "it goes on from there"


def test_ctrl_c_stops_it_in_good_order_and_the_same_call_goes_on(homes):
    (home,) = homes(1, linger_s=0.1)
    model, steps = net(), []

    def interrupt(step):
        steps.append(step.step)
        if step.step == 4:
            os.kill(os.getpid(), signal.SIGINT)

    before = signal.getsignal(signal.SIGINT)
    fitted = fit(model, data(), LOSS, home.path, on_step=interrupt)
    assert (fitted.finished, fitted.accuracy, fitted.result) == (False, None, None)
    assert home.checkpoint.exists()
    assert signal.getsignal(signal.SIGINT) is before
    stopped = len(steps)
    assert 4 <= stopped <= 12
    again = fit(net(seed=5), data(), LOSS, home.path, on_step=lambda step: steps.append(step.step))
    assert again.finished
    assert steps[stopped:] == list(range(stopped + 1, 13))
    assert steps[-1] == 12


def test_to_cancel_it_stops_the_node_in_good_order(homes):
    (home, _) = homes(2)

    async def cancelled():
        running = asyncio.create_task(fit_async(net(), data(), LOSS, home.path))
        while not home.admin.exists():
            await asyncio.sleep(0.01)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running

    asyncio.run(cancelled())
    assert home.checkpoint.exists()
    assert not home.pid.exists()


def test_in_a_running_loop_the_blocking_form_names_the_other(homes):
    async def blocks():
        fit(net(), data(), LOSS, "nowhere")

    with pytest.raises(ConfigError, match=r"Remedy: await p2pnode.fit_async"):
        asyncio.run(blocks())


def test_a_loader_of_another_batch_size_is_told_in_the_log(homes):
    (home,) = homes(1, linger_s=0.1)
    fit(net(), DataLoader(data(), batch_size=50), LOSS, home.path)
    assert '"of_the_loader":50' in home.log.read_text().replace(": ", ":")
