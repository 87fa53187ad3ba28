// Asks the node, or the testnet, once a second, and draws what it says.
"use strict";

(() => {
  const EVERY_MS = 1000;
  const PATIENCE_MS = 4000;
  const at = (id) => document.getElementById(id);

  let nodes = []; // what is known of each: name, honest, exit, status
  let histories = new Map();
  let net = false;
  let heard = null;
  let ran = 0;
  let turn = 0;
  let paused = false;

  async function ask(path) {
    const answer = await fetch(path, { cache: "no-store", signal: AbortSignal.timeout(PATIENCE_MS) });
    if (!answer.ok) throw new Error(`${path}: ${answer.status}`);
    return answer.json();
  }

  async function askHistory(name) {
    if (!histories.has(name)) histories.set(name, Draw.history());
    const known = histories.get(name);
    const whose = net ? `&node=${encodeURIComponent(name)}` : "";
    Draw.merge(known, await ask(`history?since=${known.next}${whose}`));
  }

  // The chosen node every time, and in a testnet one of the others in turn, whose curves are drawn beside its own.
  async function poll() {
    const status = await ask("status");
    net = Array.isArray(status.nodes);
    nodes = net ? status.nodes : [{ name: status.name, honest: null, exit: null, status }];
    const seconds = net ? status.seconds : status.seconds ?? 0;
    if (seconds < ran) histories = new Map(); // it was started anew
    ran = seconds;
    chooseObserver();
    const others = nodes.map((node) => node.name).filter((name) => name !== at("observer").value);
    await askHistory(at("observer").value).catch((error) => { if (!net) throw error; });
    if (!net || !others.length) return;
    const unknown = others.filter((name) => !histories.get(name)?.about);
    await Promise.allSettled([...unknown, others[turn++ % others.length]].map(askHistory));
  }

  function options(select, wanted) {
    const chosen = select.value;
    if ([...select.options].map((one) => one.textContent).join("\n") !== wanted.map((one) => one[1]).join("\n")) {
      select.replaceChildren(...wanted.map(([value, text]) => { const one = Draw.element("option", text); one.value = value; return one; }));
      if (wanted.some(([value]) => value === chosen)) select.value = chosen;
    }
    select.closest("label").hidden = wanted.length < 2;
  }

  function chooseObserver() {
    const sane = nodes.filter((node) => node.honest !== false);
    options(at("observer"), sane.map((node) => [node.name, node.name]));
  }

  const seen = () => histories.get(at("observer").value);
  const observer = () => nodes.find((node) => node.name === at("observer").value);
  const lies = () => Object.fromEntries(nodes.map((node) => [node.name, node.honest === false]));

  function drawNow(status) {
    document.title = `${status.name}: step ${status.step} of ${status.steps}`;
    at("title").textContent = net ? `A testnet of ${nodes.length} nodes` : status.name;
    at("setting").textContent = `Recipe ${status.recipe}, network ${status.network.slice(0, 16)}…`;
    at("progress").max = status.steps;
    at("progress").value = status.step;
    at("progress").textContent = `step ${status.step} of ${status.steps}`;
    Draw.list(at("now"), [
      ["step", `${status.step} of ${status.steps}`],
      ["phase", status.phase],
      ["waits for", status.waits_for.join(", ") || "nobody"],
      ["connected", `${status.connected.length} peers`],
      ["accuracy", Draw.percent(status.accuracy, 1)],
      ["loss", Draw.number(status.loss)],
    ]);
  }

  function drawNodes() {
    at("nodes-section").hidden = !net;
    if (!net) return;
    const rows = nodes.map((node) => {
      const name = Draw.element("span", node.honest ? node.name : `${node.name} (lies)`, "state", node.honest ? "good" : "lies");
      const does = node.exit !== null ? `ended, exit code ${node.exit}` : node.status.phase ?? "starting";
      return [name, does, String(node.status.step ?? "–"), Draw.percent(node.status.accuracy, 1), Draw.number(node.status.loss), (node.status.waits_for ?? []).join(", ") || "nobody"];
    });
    Draw.table(at("nodes"), ["node", "does", "step", "accuracy", "loss", "waits for"], rows, [1, 5]);
  }

  function drawCourse() {
    const chosen = nodes.filter((node) => histories.has(node.name) && histories.get(node.name).about && node.honest !== false);
    const series = (what) => chosen.map((node) => ({
      name: node.name, marked: true,
      points: [...histories.get(node.name).measured.values()].map((one) => [one.step, one[what]]).filter((point) => point[1] !== null).sort((one, other) => one[0] - other[0]),
    })).filter((one) => one.points.length);
    const batches = Draw.stepsOf(seen(), 0).filter((step) => step.loss !== null).map((step) => [step.step + 1, step.loss]);
    const own = { name: `${at("observer").value}, last batch`, faint: true, points: batches };
    Draw.curves(at("loss"), [...series("loss"), own], "loss", { rangemode: "tozero" });
    Draw.curves(at("accuracy"), series("accuracy"), "accuracy", { range: [0, 1.02] });
    const last = [...seen().measured.values()].pop();
    at("measured").textContent = last ? `${at("observer").value} measured its model last after ${last.step} steps: accuracy ${Draw.percent(last.accuracy, 1)}, loss ${Draw.number(last.loss)}.` : "No model was measured yet; the loss is that of the batches.";
  }

  function drawPeers(status, exchange) {
    const known = Draw.peers(seen(), status, exchange);
    const links = net ? nodes.filter((node) => node.exit === null).flatMap((node) => (node.status.connected ?? []).filter((name) => name > node.name).map((name) => [node.name, name])) : [];
    Draw.graph(at("graph"), known, links, lies());
    Draw.peerTable(at("peers"), known, lies());
  }

  function draw() {
    drawNodes();
    const node = observer();
    const status = node?.status;
    if (!status?.name) return;
    at("main").hidden = false;
    drawNow(status);
    const from = seen();
    if (!from?.about) return;
    options(at("exchange"), from.about.exchanges.map((one, i) => [String(i), `${i + 1}: ${one.what} by ${one.rule}`]));
    const exchange = Number(at("exchange").value || 0);
    const span = Number(at("span").value);
    drawPeers(status, exchange);
    Draw.evidence(at("evidence"), from.about.evidence ?? [], status.faults);
    if (!from.steps.size) return;
    drawCourse();
    [at("distance-note").textContent, at("left-note").textContent] = Draw.notes(from, exchange);
    for (const kind of ["distance", "left"]) {
      Draw.heat(at(kind), from, exchange, kind, span);
      Draw.heatTable(at(`${kind}-table`), from, exchange, kind);
    }
    Draw.phases(at("time"), from, span);
    Draw.phaseTable(at("time-table"), from);
  }

  function say(words, kind = "") {
    if (at("answer").textContent !== words) at("answer").textContent = words;
    at("answer").className = kind;
  }

  async function round() {
    const who = net ? "the testnet" : nodes.length ? nodes[0].name : "the node";
    if (!paused) {
      try {
        await poll();
        heard = new Date();
        say(nodes.every((node) => node.status.finished) ? "Finished." : "Live.");
        draw();
      } catch (error) {
        if (!(error instanceof TypeError || error instanceof DOMException || /^(status|history)/.test(error.message))) console.error(error);
        say(heard ? `No answer from ${who} since ${heard.toLocaleTimeString("en-GB")}: it ended, or cannot be reached. Below is its last word.` : "Nobody answers.", "lost");
      }
    }
    setTimeout(round, EVERY_MS);
  }

  at("pause").addEventListener("click", () => {
    paused = !paused;
    at("pause").setAttribute("aria-pressed", String(paused));
    at("pause").textContent = paused ? "Go on" : "Pause";
    if (paused) say("Paused.", "paused");
  });
  for (const id of ["observer", "exchange", "span"]) at(id).addEventListener("change", draw);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  Draw.legend(at("legend"));
  round();
})();
