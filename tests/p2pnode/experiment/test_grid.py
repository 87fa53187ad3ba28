"""Experiment files: which cells and trials they ask for, and what is said of mistakes in them."""

from dataclasses import replace
from pathlib import Path

import pytest

from p2pnode.errors import ConfigError
from p2pnode.experiment.grid import TRIALS_MAX, canonical, key_of, read
from tests.trials import RULES, experiment

EXAMPLES = Path(__file__).parents[3] / "examples" / "experiments"


def refusal(tmp_path, text):
    with pytest.raises(ConfigError) as caught:
        experiment(tmp_path, text)
    assert str(caught.value).startswith(f"{tmp_path / 'x.toml'}: ")
    return str(caught.value)


def of_kind(found, kind):
    return [cell for cell in found.cells if cell.kind == kind]


# Which cells and trials.


def test_a_grid_is_each_with_each_in_the_order_of_the_file_the_last_varying_fastest(tmp_path):
    found = experiment(tmp_path)
    assert [tuple(cell.choices.items()) for cell in of_kind(found, "grid")] == [
        (("rule", rule), ("attack", attack))
        for rule in ("median", "trimmed-mean")
        for attack in ("none", "alie", "sign-flip")
    ]
    assert [(trial.rule, trial.attack, trial.seed) for trial in found.trials][:4] == [
        ("median", (), 1),
        ("median", (), 2),
        ("median", ("alie",), 1),
        ("median", ("alie",), 2),
    ]
    assert (found.rows, found.columns) == ("rule", "attack")
    assert found.setting == "digits, trimmed, n = 13, 2 lying, f = 2, 20 steps, 2 seeds"


def test_without_an_attack_nobody_lies_and_where_nobody_lies_there_is_no_attack(tmp_path):
    """So one run has one key, and counts all nodes as honest."""
    for text in ('byzantine = 2\nattack = "none"', 'f = 2\nattack = "alie"'):
        (trial,) = experiment(tmp_path, f'name = "x"\n[base]\nnodes = 9\n{text}').trials
        assert (trial.byzantine, trial.attack, trial.f) == (0, (), 2)


def test_the_reference_has_the_seeds_of_the_cell_and_what_it_shares_with_it(tmp_path):
    text = RULES.replace("[reference]", '[reference]\nsame = ["alpha"]').replace("[grid]", "[grid]\nalpha = [1, 5]")
    found = experiment(tmp_path, text)
    for cell in found.cells:
        assert set(cell.baselines) == set(cell.trials) == {1, 2}
        for seed, baseline in cell.baselines.items():
            trial = cell.trials[seed]
            assert (baseline.seed, baseline.alpha) == (seed, trial.alpha)
            assert (baseline.recipe, baseline.byzantine, baseline.f, baseline.rule) == ("dsgd", 0, 0, None)
    assert [cell.trials[1].alpha for cell in of_kind(found, "reference")] == [1, 5]
    run = {key_of(trial) for trial in found.trials}
    assert all(key_of(baseline) in run for cell in found.cells for baseline in cell.baselines.values())


def test_further_cells_are_the_base_with_their_settings_for_every_seed(tmp_path):
    found = experiment(
        tmp_path, RULES + '[[also]]\nrecipe = "monna"\nattack = "alie"\n[[also]]\nseed = 7\nnodes = 5\nf=1'
    )
    monna, small = of_kind(found, "also")
    assert [(trial.recipe, trial.attack, trial.rule, trial.nodes) for trial in monna.trials.values()] == [
        ("monna", ("alie",), None, 13)
    ] * 2
    assert monna.label == "recipe monna, attack alie"
    assert list(small.trials) == [7]
    assert (monna.choices["rule"], monna.choices["attack"], small.choices["attack"]) == ("default", "alie", "none")


def test_options_vary_as_all_other_keys_and_default_leaves_a_key_out(tmp_path):
    lists = 'options.local_steps = [2, "default"]\nlr = ["default", 0.5]'
    text = f'name = "x"\n[base]\nrecipe = "ce"\noptions.gather = "all"\n[grid]\n{lists}'
    found = experiment(tmp_path, text)
    assert [(trial.options, trial.lr) for trial in found.trials] == [
        ({"gather": "all", "local_steps": 2}, None),
        ({"gather": "all", "local_steps": 2}, 0.5),
        ({"gather": "all"}, None),
        ({"gather": "all"}, 0.5),
    ]
    assert (found.rows, found.columns) == ("options.local_steps", "lr")
    assert found.cells[0].label == "local_steps 2, lr default"


def test_what_is_not_chosen_is_the_tasks_or_follows_from_the_rest(tmp_path):
    (trial,) = experiment(
        tmp_path, 'name = "x"\n[base]\nbyzantine = 1\nattack = "alie, equivocate"\nrule = "NNA"'
    ).trials
    assert (trial.steps, trial.evaluate_every, trial.f, trial.lr) == (200, 10, 1, None)
    assert (trial.attack, trial.rule) == (("alie", "equivocate"), "nearest-neighbour")
    (baseline,) = experiment(
        tmp_path, 'name = "x"\n[base]\nbyzantine = 1\nattack = "alie"\nrecipe = "dsgd"\nbeyond_the_bound = true'
    ).trials
    assert baseline.f == 0


def test_equal_trials_run_once(tmp_path):
    found = experiment(tmp_path, RULES + '[[also]]\nrule = "median"\nattack = "alie"\n')
    assert len(found.trials) == 2 * 3 * 2 + 2
    assert len({key_of(trial) for trial in found.trials}) == len(found.trials)


def test_a_key_is_of_what_is_run_and_not_of_where_the_data_lie(tmp_path):
    first, other = (experiment(tmp_path, data_dir=folder).trials[0] for folder in ("a", "b"))
    assert first.data_dir != other.data_dir
    assert key_of(first) == key_of(other)
    assert "data_dir" not in canonical(first)
    for change in ({"seed": 9}, {"options": {"gather": "all"}}, {"attack": ("alie",)}, {"lr": 0.1}, {"device": "cuda"}):
        assert key_of(replace(first, **change)) != key_of(first)
    assert key_of(first) == "61513db0d82f876c8f95dcc6632f54f4", "results on disks have these keys"


@pytest.mark.parametrize(
    ("plot", "axes"),
    [
        ("", ("rule", "attack")),
        ('rows = "attack"', ("attack", "rule")),
        ('columns = "rule"', ("attack", "rule")),
        ('rows = "lr"\ncolumns = "rule"', ("lr", "rule")),
    ],
)
def test_axes_are_the_files_or_the_first_keys_that_vary(tmp_path, plot, axes):
    text = RULES.replace("[grid]", f"[plot]\n{plot}\n[grid]\nlr = [0.5]")
    found = experiment(tmp_path, text)
    assert (found.rows, found.columns) == axes


# Mistakes.


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("", ["name", "field required", "lower-case"]),
        ("name = x", ["not TOML", "mend that line"]),
        ('name = "x"\ngird = {}', ["gird = '{}'", "mend its spelling"]),
        ('name = "x"\n[base]\nnoodles = 7', ["noodles = '7'", "mend its spelling"]),
        ('name = "x"\n[grid]\nnoodles = [7]', ["noodles = '7'", "mend its spelling"]),
        ('name = "x"\n[base]\nnodes = "7"', ["nodes = '7'", "valid integer", "from 1 to 1024"]),
        ('name = "x"\n[grid]\nnodes = [7, 0]', ["nodes = '0'", "greater than or equal to 1", "from 1 to 1024"]),
        ('name = "x"\n[grid]\nnodes = 7', ["grid.nodes = 7", "no list of values", "move it to [base]"]),
        ('name = "x"\n[grid]\nnodes = []', ["grid.nodes = []", "no list of values"]),
        ('name = "x"\n[grid]\nnodes = [7, 8, 7]', ["grid.nodes", "twice", "remove one"]),
        ('name = "x"\n[base]\nlr = 1\n[grid]\nlr = [1]', ["grid.lr", "in [base] as well", "one of the two"]),
        ('name = "x"\n[grid]\nseed = [-1]', ["seed = '-1'", "an integer from 0"]),
        ('name = "x"\n[grid]\nseed = [[1]]', ["seed = '[1]'", "an integer from 0"]),
        ('name = "x"\n[base]\nattack = "sing-flip"\nbyzantine = 1', ["did you mean 'sign-flip'?"]),
        ('name = "x"\n[base]\nattack = "alie=much"\nbyzantine = 1', ["'much' is no parameter of alie"]),
        ('name = "x"\n[base]\ntask = "digist"', ["task = 'digist'", "did you mean 'digits'?"]),
        ('name = "x"\n[base]\ntask = "mnist"', ["data_dir is missing", "--data-dir"]),
        ('name = "x"\n[base]\nrecipe = "trimed"', ["recipe = 'trimed'", "trimmed"]),
        ('name = "x"\n[base]\nbroadcast = "tv"', ["broadcast = 'tv'", "signed-echo"]),
        ('name = "x"\n[base]\nschedule = "never"', ["schedule = 'never'", "random"]),
        ('name = "x"\n[base]\nbyzantine = 7\nattack = "alie"', ["byzantine = 7", "choose fewer"]),
        ('name = "x"\n[base]\nf = 7', ["f = 7", "choose fewer"]),
        ('name = "x"\n[base]\noptions.gather = "some"', ["options.gather = 'some'", "quorum or all"]),
        ('name = "x"\n[base]\noptions.gathr = "all"', ["options.gathr = 'all'", "mend its spelling"]),
        ('name = "x"\n[base]\noptions.wire = "float8"', ["options.wire = 'float8'", "float32, bfloat16, float16"]),
        ('name = "x"\n[base]\noptions.staleness = 1\nrecipe = "ce"', ["staleness = 1: ce follows 3 gradients"]),
        ('name = "x"\n[base]\noptions.placement = "update"', ["placement = 'update'", "distributed-momentum"]),
        ('name = "x"\n[base]\nf = 2', ["n ≥ 4f+1", "n ≥ 9", "beyond_the_bound = true"]),
        ('name = "x"\n[base]\nf = 0\nbyzantine = 1\nattack = "alie"', ["byzantine = 1", "beyond_the_bound = true"]),
        ('name = "x"\n[base]\noptions = 1', ["options = '1'", "a table of recipe options"]),
        ('name = "x"\n[reference]\nsame = ["lr"]\n[grid]\nseed = [1]', ["reference.same", "lr is no key of [grid]"]),
        ('name = "x"\n[reference]\nsame = "lr"', ["reference.same = 'lr'", "no list of keys"]),
        ('name = "x"\n[reference]\nseed = 1', ["reference.seed", "remove it"]),
        ('name = "x"\n[plot]\nrows = "lr"\n[grid]\nf = [1]', ["plot.rows = 'lr'", "choose from f"]),
        ('name = "x"\n[plot]\nrows = "f"\ncolumns = "f"\n[grid]\nf = [1]', ["plot.columns = 'f'", "another key"]),
    ],
)
def test_a_mistake_is_named_with_file_key_value_and_remedy(tmp_path, text, wanted):
    told = refusal(tmp_path, text)
    for part in [*wanted, "Remedy: "]:
        assert part in told


def test_an_unknown_rule_is_named_with_the_nearest(tmp_path):
    assert "'medain' (did you mean 'median'?)" in refusal(tmp_path, 'name = "x"\n[grid]\nrule = ["mean", "medain"]')


def test_a_grid_too_large_is_refused_before_it_is_built(tmp_path):
    lists = "\n".join(f"{key} = {list(range(1, 1000))}" for key in ("nodes", "steps", "seed"))
    assert f"997,002,999 trials, at most {TRIALS_MAX:,}" in refusal(tmp_path, f'name = "x"\n[grid]\n{lists}')


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"gone.toml: No such file.*Remedy: "):
        read(tmp_path / "gone.toml")


# The examples.


def test_the_example_of_monna_is_its_published_setting(tmp_path):
    found = read(EXAMPLES / "monna-mnist.toml", {"data_dir": str(tmp_path)})
    for trial in (trial for cell in of_kind(found, "grid") for trial in cell.trials.values()):
        assert (trial.nodes, trial.byzantine, trial.f, trial.sub_rounds, trial.alpha) == (26, 5, 5, 1, 1)
        assert (trial.steps, trial.local_batch, trial.lr, trial.lr_decay_every) == (600, 25, 0.75, 50)
    assert {(c.choices["momentum"], c.choices["attack"]) for c in of_kind(found, "grid")} == {
        (momentum, attack)
        for momentum in ("0.99", "0")
        for attack in ("alie=search", "ipm=search", "sign-flip", "label-flip")
    }
    (reference,) = of_kind(found, "reference")
    (trial,) = reference.trials.values()
    assert (trial.recipe, trial.nodes, trial.byzantine, trial.f, trial.seed) == ("dsgd", 26, 0, 0, 1)
    assert len(found.trials) == 2 * 4 + 1


def test_the_example_of_distributed_momentum_is_its_published_setting(tmp_path):
    found = read(EXAMPLES / "momentum-mnist.toml", {"data_dir": str(tmp_path)})
    first, second = of_kind(found, "grid")
    for cell, placement in ((first, "update"), (second, "worker")):
        for trial in cell.trials.values():
            assert (trial.nodes, trial.byzantine, trial.f, trial.rule, trial.attack) == (51, 24, 24, "krum", ("alie",))
            assert (trial.steps, trial.local_batch, trial.clip, trial.momentum) == (300, 83, 2, 0.9)
            assert trial.options == {"gather": "all", "placement": placement}
            assert trial.beyond_the_bound
    assert {(t.nodes, t.byzantine, t.f) for t in first.baselines.values()} == {(27, 0, 0)}


def test_the_quick_example_needs_no_files():
    found = read(EXAMPLES / "rules-digits.toml")
    assert (found.rows, found.columns) == ("rule", "attack")
    assert all(cell.baselines for cell in found.cells)


@pytest.mark.parametrize("file", sorted(EXAMPLES.glob("*.toml")), ids=lambda file: file.stem)
def test_every_example_names_its_results_as_itself_and_can_be_run(file, tmp_path):
    found = read(file, {"data_dir": str(tmp_path)})
    assert found.name == file.stem
    assert found.trials
