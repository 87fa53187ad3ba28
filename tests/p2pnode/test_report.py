"""A report is one file that needs nothing else, and in which no text is more than text."""

import asyncio
import base64
import json
import re
from hashlib import sha256

import pytest
from typer.testing import CliRunner

from p2pnode import cli, report
from p2pnode.errors import ConfigError
from p2pnode.experiment.store import Record
from tests.browser import chromium, tab
from tests.p2pnode.observe.test_history import NAMES, a_history, take, vectors

EVIL = "</script><img src=x onerror=window.owned=1>"

SUMMARY = {
    "nodes": 7,
    "byzantine": 1,
    "f": 1,
    "recipe": "trimmed",
    "exchanges": [{"what": "model", "broadcast": "signed-echo", "rule": "trimmed-mean"}],
    "task": EVIL,
    "attack": "alie",
    "seed": 0,
    "steps": 20,
    "seconds": 4.0,
    "steps_per_second": None,
    "accuracy_min": 0.9,
    "accuracy_mean": 0.95,
    "disagreement": 0.001,
    "honest": [
        {"name": name, "accuracy": 0.9, "loss": None, "steps": 20, "exit": 0}
        | {"bytes_sent": 2**20, "bytes_received": None, "peak_rss_mib": 200.0}
        for name in NAMES[:3]
    ],
}
PROOF = {"accused": "node6", "step": 3, "exchange": 0, "sub_round": 0, "digests": ["aa", "bb"], "check": "p2pnode …"}


def a_testnet(folder):
    """What a testnet leaves of which the third node was killed."""
    folder.mkdir()
    (folder / "summary.json").write_text(json.dumps(SUMMARY))
    for name in NAMES[:3]:
        (folder / name).mkdir()
    for name in NAMES[:2]:
        history = a_history()
        for step in range(20):
            take(history, step, vectors(7, seed=step))
        history.measured(20, 0.5, 0.9)
        (folder / name / "history.json").write_text(json.dumps({**history.told(), "name": name, "evidence": [PROOF]}))
    return folder


def record(rule, attack, seed, mean):
    trial = {
        "rule": rule,
        "attack": attack,
        "byzantine": int(attack != "none"),
        "seed": seed,
        "nodes": 6,
        "options": {"wire": "float32"},
    }
    outcome = {"accuracies": {}, "mean": mean, "worst": mean, "honest_diameter": None, "seconds": 1.0}
    outcome |= {"deliveries": 1, "violations": None, "curve": [[10, mean / 2, mean / 2], [20, mean, mean]]}
    told = {"key": f"{rule}{attack}{seed}", "trial": trial, "outcome": outcome if mean else None, "error": None}
    return Record.model_validate_json(json.dumps(told)).model_dump_json()


def an_experiment(folder):
    folder.mkdir()
    lines = [record("mean", "alie", 1, 0.2), record("mean", "alie", 2, 0.4), record(EVIL, "alie", 1, 0.9)]
    lines += [record("mean", "none", 1, 0), record("mean", "alie", 2, 0.6), '{"key": "dam']
    (folder / "results.jsonl").write_text("\n".join(lines))
    return folder


def data_of(html):
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', html, re.DOTALL)[1])


@pytest.mark.parametrize("make", [a_testnet, an_experiment])
def test_it_is_one_file_whose_scripts_alone_may_run(tmp_path, make):
    folder = make(tmp_path / "run")
    html = report.write(folder).read_text()
    scripts = re.findall(r"<script>(.*?)</script>", html, re.DOTALL)
    hashes = [f"'sha256-{base64.b64encode(sha256(text.encode()).digest()).decode()}'" for text in scripts]
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', html)[1]
    assert len(hashes) >= 2
    assert f"script-src {' '.join(hashes)};" in policy
    assert policy.startswith("default-src 'none';")
    assert not re.search(r"<(link|img|script[^>]* src)|@[A-Z]{3,}@", html.replace("".join(scripts), "")[:200_000])
    assert EVIL not in html


def test_of_an_experiment_each_cell_is_told_over_its_seeds_by_the_last_good_line(tmp_path):
    told = data_of(report.write(an_experiment(tmp_path / "run")).read_text())
    assert told["across"] == "attack"
    assert told["setting"] == {"nodes": "6", "options.wire": "float32"}
    assert not any("byzantine" in cell["down"] for cell in told["cells"])  # it follows from the attack
    cells = {(cell["down"], cell["column"]): cell for cell in told["cells"]}
    assert cells["rule mean", "alie"]["mean"] == pytest.approx([0.4, 0.2 * 2**0.5])
    assert cells[f"rule {EVIL}", "alie"]["mean"] == [0.9, None]
    failed = cells["rule mean", "none"]
    assert (failed["seeds"], failed["failed"], failed["mean"]) == (0, 1, None)


def test_the_command_says_where_the_report_lies(tmp_path):
    folder = a_testnet(tmp_path / "run")
    done = CliRunner().invoke(cli.app, ["report", str(folder), "--out", str(tmp_path / "a.html"), "--json"])
    assert (done.exit_code, json.loads(done.stdout)) == (0, {"report": str(tmp_path / "a.html")})
    assert (tmp_path / "a.html").exists()
    assert set(data_of((tmp_path / "a.html").read_text())["histories"]) == {"node0", "node1"}


def test_a_folder_of_something_else_is_refused_with_the_remedy(tmp_path):
    with pytest.raises(ConfigError, match="Remedy: give the --out of one of them"):
        report.write(tmp_path)
    (tmp_path / "summary.json").write_text("{")
    with pytest.raises(ConfigError, match="no JSON"):
        report.write(tmp_path)
    (tmp_path / "summary.json").write_text("[]")
    with pytest.raises(ConfigError, match="no table"):
        report.write(tmp_path)
    with pytest.raises(ConfigError, match="choose another file"):
        report.write(an_experiment(tmp_path / "run"), tmp_path / "none" / "x.html")


def test_a_browser_shows_it_without_asking_anybody(tmp_path):
    (tmp_path / "chromium").mkdir()
    files = [report.write(make(tmp_path / make.__name__)) for make in (a_testnet, an_experiment)]

    async def work(browser):
        for file, expected in zip(files, (["node0", "90.0 %"], [f"rule {EVIL}", "alie"]), strict=True):
            async with tab(browser, file.as_uri()) as page:
                await page.until("document.readyState === 'complete'")
                cells = "[...document.querySelector('#rows').rows[1].cells]"
                assert await page.js(f"{cells}.slice(0, 2).map(one => one.innerText)") == expected
                assert await page.js("document.querySelectorAll(':is(#accuracy, #courses) .main-svg').length") > 0
                assert await page.js("document.querySelectorAll('img, [onerror]').length") == 0
                assert await page.js("window.owned") is None
                assert page.errors == []
                assert {one for one in page.requests if not one.startswith(("data:", "blob:"))} == {file.as_uri()}
        async with tab(browser, files[0].as_uri()) as page:
            await page.until("document.readyState === 'complete'")
            assert "Held by node0, node1." in await page.text("#evidence")
            await page.choose("#observer", "node1")
            assert await page.js("document.querySelector('#distance').data[1].x.length") == 20

    with chromium(tmp_path / "chromium") as browser:
        asyncio.run(work(browser))
