// Draws what a testnet or an experiment left.
"use strict";

(() => {
  const at = (id) => document.getElementById(id);
  const data = JSON.parse(at("data").textContent);
  const { percent, number } = Draw;

  function options(select, wanted) {
    select.replaceChildren(...wanted.map(([value, text]) => { const one = Draw.element("option", text); one.value = value; return one; }));
    select.closest("label").hidden = wanted.length < 2;
    at("choices").hidden = false;
  }

  // A testnet.

  const histories = new Map(Object.entries(data.histories ?? {}).map(([name, told]) => {
    const known = Draw.history();
    Draw.merge(known, told);
    return [name, known];
  }));

  function testnet() {
    const { summary } = data;
    const lying = summary.byzantine ? `${summary.byzantine} lying (${summary.attack})` : "all honest";
    at("setting").textContent = `${summary.recipe} on ${summary.task}: ${summary.nodes} nodes, ${lying}, f = ${summary.f}; `
      + summary.exchanges.map((one) => `${one.what} by ${one.rule} over ${one.broadcast}`).join(", then ");
    Draw.list(at("came"), [
      ["accuracy, at least", percent(summary.accuracy_min, 1)], ["accuracy, mean", percent(summary.accuracy_mean, 1)],
      ["disagreement", number(summary.disagreement)], ["steps", String(summary.steps)],
      ["steps a second", number(summary.steps_per_second)], ["seconds", number(summary.seconds)], ["seed", String(summary.seed)],
    ]);
    const mib = (bytes) => number(bytes === null ? null : bytes / 2 ** 20, 3);
    Draw.table(at("rows"), ["node", "accuracy", "loss", "steps", "MiB out", "MiB in", "MiB peak", "exit code"], summary.honest.map((node) => [
      node.name, percent(node.accuracy, 1), number(node.loss), String(node.steps), mib(node.bytes_sent), mib(node.bytes_received), number(node.peak_rss_mib), String(node.exit ?? "–"),
    ]));
    const course = (what) => [...histories].map(([name, known]) => ({
      name, marked: true, points: [...known.measured.values()].map((one) => [one.step, one[what]]).filter((point) => point[1] !== null),
    }));
    Draw.curves(at("loss"), course("loss"), "loss", { rangemode: "tozero" });
    Draw.curves(at("accuracy"), course("accuracy"), "accuracy", { range: [0, 1.02] });
    Draw.evidence(at("evidence"), proofs(), []);
    if (at("observer").options.length === 0) options(at("observer"), [...histories.keys()].map((name) => [name, name]));
    if (histories.size) seen();
  }

  // Each proof once, with all who hold one against the same member.
  function proofs() {
    const held = new Map();
    for (const [name, known] of histories) {
      for (const proof of known.about.evidence) {
        if (!held.has(proof.accused)) held.set(proof.accused, { ...proof, holders: [] });
        held.get(proof.accused).holders.push(name);
      }
    }
    return [...held.values()];
  }

  function seen() {
    const from = histories.get(at("observer").value);
    if (at("exchange").options.length === 0) options(at("exchange"), from.about.exchanges.map((one, i) => [String(i), `${i + 1}: ${one.what} by ${one.rule}`]));
    const exchange = Number(at("exchange").value);
    [at("distance-note").textContent, at("left-note").textContent] = Draw.notes(from, exchange);
    for (const kind of ["distance", "left"]) {
      Draw.heat(at(kind), from, exchange, kind, 0);
      Draw.heatTable(at(`${kind}-table`), from, exchange, kind);
    }
    Draw.phases(at("time"), from, 0);
    Draw.phaseTable(at("time-table"), from);
  }

  // An experiment.

  function experiment() {
    at("setting").textContent = Object.entries(data.setting).map(([name, value]) => `${name} ${value}`).join(", ");
    const spread = (pair) => (pair ? percent(pair[0], 1) + (pair[1] === null ? "" : ` ± ${(100 * pair[1]).toFixed(1)}`) : "–");
    Draw.table(at("rows"), ["setting", data.across || "besides", "seeds", "failed", "mean", "worst"], data.cells.map((cell) => [
      cell.down || "–", cell.column || "–", String(cell.seeds), String(cell.failed), spread(cell.mean), spread(cell.worst),
    ]), [1]);
    Draw.grid(at("map"), data.cells, data.across);
    const learned = data.cells.filter((cell) => cell.curves.some((curve) => curve.length));
    Draw.multiples(at("courses"), [...new Set(learned.map((cell) => cell.column))].map((column) => [
      [data.across, column].filter(Boolean).join(" "),
      learned.filter((cell) => cell.column === column).map((cell) => ({ name: cell.down || "all", points: course(cell.curves) })),
    ]), "accuracy", { range: [0, 1.02] });
  }

  // Mean accuracy over the seeds, at the steps that all of them have.
  function course(curves) {
    const [first, ...others] = curves.map((curve) => new Map(curve.map(([step, mean]) => [step, mean])));
    return [...first.keys()].filter((step) => others.every((one) => one.has(step)))
      .map((step) => [step, [first, ...others].reduce((sum, one) => sum + one.get(step), 0) / curves.length]);
  }

  function draw() {
    if (data.kind === "testnet") testnet();
    else experiment();
  }

  document.title = `${data.title}: p2pnode report`;
  at("title").textContent = data.title;
  for (const part of document.querySelectorAll("[data-for]")) part.hidden = part.dataset.for !== data.kind;
  at("observer").addEventListener("change", seen);
  at("exchange").addEventListener("change", seen);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  draw();
})();
