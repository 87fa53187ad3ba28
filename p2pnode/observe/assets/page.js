// Asks the node, or the testnet, what it does, and less often what it saw, and draws what it says.
"use strict";

(() => {
  const LOOK_MS = 400; // from an answer to the next question: who is late is named within a second
  const HISTORY_MS = 1000;
  const PATIENCE_MS = 4000;
  const SAID_AGAIN_MS = 10000; // who was late so recently is not read out anew
  const at = (id) => document.getElementById(id);

  let nodes = []; // what is known of each: name, honest, exit, silent, status, and when that was told
  let histories = new Map();
  let since = new Map(); // who is late and owes what → since when, so that a clock's second does not go to and fro
  let readOut = new Map(); // who is late → when it was seen to be, last
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

  // What all do now. Nothing that takes long is waited for: a node that is stopped answers no question.
  async function look() {
    const status = await ask("status");
    net = Array.isArray(status.nodes);
    const found = net ? status.nodes : [{ name: status.name, honest: null, exit: null, silent: 0, status }];
    nodes = found.map((node) => ({ ...node, told: Date.now() - 1000 * node.silent }));
    const seconds = net ? status.seconds : status.seconds ?? 0;
    if (seconds < ran) histories = new Map(); // it was started anew
    ran = seconds;
    chooseObserver();
  }

  // The chosen node every time, and in a testnet one of the others in turn, whose curves are drawn beside its own.
  async function lookBack() {
    const told = nodes.filter((node) => "step" in node.status).map((node) => node.name); // who starts has no history yet
    const others = net ? told.filter((name) => name !== at("observer").value) : [];
    const unknown = others.filter((name) => !histories.get(name)?.about);
    const inTurn = others.length ? [others[turn++ % others.length]] : [];
    const wanted = new Set([at("observer").value, ...unknown, ...inTurn]);
    await Promise.allSettled(told.filter((name) => wanted.has(name)).map(askHistory));
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

  // One row for each that is late, as those see it who are in step, and not as one who was stopped saw it once.
  function drawLate() {
    const awake = nodes.filter((node) => node.honest !== false && node.exit === null && node.status.late && !Draw.unanswered(node));
    const rows = Draw.lateness(awake).map((row) => ({ ...row, since: since.get(row.key) ?? row.since }));
    since = new Map(rows.map((row) => [row.key, row.since]));
    Draw.late(at("late"), rows, net);
    readOutLate(rows);
    return rows;
  }

  function readOutLate(rows) {
    const now = Date.now();
    const fresh = rows.filter((row) => !readOut.has(row.peer));
    for (const row of rows) readOut.set(row.peer, now);
    const over = [...readOut].filter(([, seen]) => now - seen > SAID_AGAIN_MS);
    for (const [peer] of over) readOut.delete(peer);
    if (fresh.length) at("late-said").textContent = fresh.map(Draw.lateWords).join(" ");
    else if (over.length && !readOut.size) at("late-said").textContent = "Nobody is late any more.";
  }

  function drawNow(status, late) {
    const waiting = late.length ? `${late.map((row) => row.peer).join(", ")} late. ` : "";
    document.title = `${waiting}${status.name}: step ${status.step} of ${status.steps}`;
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
      const silent = Draw.unanswered(node) ? `no answer for ${Math.floor(node.silent)} s` : null;
      const does = node.exit !== null ? `ended, exit code ${node.exit}` : silent ?? node.status.phase ?? "starting";
      return [name, does, String(node.status.step ?? "–"), Draw.percent(node.status.accuracy, 1), Draw.number(node.status.loss), (node.status.waits_for ?? []).join(", ") || "nobody"];
    });
    Draw.table(at("nodes"), ["node", "does", "step", "accuracy", "loss", "waits for"], rows, [1, 5]);
  }

  const curvesOf = (what) => nodes.filter((node) => histories.get(node.name)?.about && node.honest !== false).map((node) => ({
    name: node.name, marked: true,
    points: [...histories.get(node.name).measured.values()].map((one) => [one.step, one[what]]).filter((point) => point[1] !== null).sort((one, other) => one[0] - other[0]),
  })).filter((one) => one.points.length);

  function drawLoss(from) {
    const batches = Draw.stepsOf(from, 0).filter((step) => step.loss !== null).map((step) => [step.step + 1, step.loss]);
    const own = { name: `${at("observer").value}, last batch`, faint: true, points: batches };
    Draw.curves(at("loss"), [...curvesOf("loss"), own], "loss", { rangemode: "tozero" });
  }

  function drawAccuracy(from) {
    Draw.curves(at("accuracy"), curvesOf("accuracy"), "accuracy", { range: [0, 1.02] });
    const last = [...from.measured.values()].pop();
    at("measured").textContent = last ? `${at("observer").value} measured its model last after ${last.step} steps: accuracy ${Draw.percent(last.accuracy, 1)}, loss ${Draw.number(last.loss)}.` : "No model was measured yet; the loss is that of the batches.";
  }

  function drawHeat(kind, from, exchange, span) {
    at(`${kind}-note`).textContent = Draw.notes(from, exchange, span)[kind === "distance" ? 0 : 1];
    Draw.heat(at(kind), from, exchange, kind, span);
    Draw.heatTable(at(`${kind}-table`), from, exchange, kind);
  }

  function drawTime(from, span) {
    Draw.phases(at("time"), from, span);
    Draw.phaseTable(at("time-table"), from);
  }

  function drawPeers(status, exchange) {
    const known = Draw.peers(seen(), status, exchange);
    const links = net ? nodes.filter((node) => node.exit === null).flatMap((node) => (node.status.connected ?? []).filter((name) => name > node.name).map((name) => [node.name, name])) : [];
    Draw.graph(at("graph"), known, links, lies());
    Draw.peerTable(at("peers"), known, lies());
  }

  const exchangeShown = () => Number(at("exchange").value || 0);

  function drawState() {
    drawNodes();
    const status = observer()?.status;
    if (!status?.name) return;
    at("main").hidden = false;
    drawNow(status, drawLate());
    drawMembers(status);
  }

  function drawMembers(status) {
    const from = seen();
    if (!from?.about) return;
    options(at("exchange"), from.about.exchanges.map((one, i) => [String(i), `${i + 1}: ${one.what} by ${one.rule}`]));
    drawPeers(status, exchangeShown());
    Draw.evidence(at("evidence"), from.about.evidence ?? [], status.faults);
  }

  // What the node saw, a piece at a time: each plot takes some 100 ms, in which the page does nothing else.
  const PIECES = [
    () => drawMembers(observer().status),
    (from) => drawLoss(from),
    (from) => drawAccuracy(from),
    (from, exchange, span) => drawHeat("distance", from, exchange, span),
    (from, exchange, span) => drawHeat("left", from, exchange, span),
    (from, exchange, span) => drawTime(from, span),
  ];

  function drawPiece(piece) {
    const from = seen();
    if (from?.steps.size && observer()?.status.name) piece(from, exchangeShown(), Number(at("span").value));
  }

  function draw() {
    drawState();
    PIECES.forEach(drawPiece);
  }

  function say(words, kind = "") {
    if (at("answer").textContent !== words) at("answer").textContent = words;
    at("answer").className = kind;
  }

  // What fetch, its patience and an answer that is none fail with: no mistakes of this page.
  const unreached = (error) => error instanceof TypeError || error instanceof DOMException || /^(status|history)/.test(error.message);

  async function state() {
    const who = net ? "the testnet" : nodes.length ? nodes[0].name : "the node";
    if (!paused) {
      try {
        await look();
        heard = new Date();
        say(nodes.every((node) => node.status.finished) ? "Finished." : "Live.");
        drawState();
      } catch (error) {
        if (!unreached(error)) console.error(error);
        say(heard ? `No answer from ${who} since ${heard.toLocaleTimeString("en-GB")}: it ended, or cannot be reached. Below is its last word.` : "Nobody answers.", "lost");
      }
    }
    setTimeout(state, LOOK_MS);
  }

  async function past() {
    if (!paused) {
      try {
        await lookBack();
        for (const piece of PIECES) {
          drawPiece(piece);
          await new Promise((goOn) => setTimeout(goOn)); // an answer on who is late comes first
        }
      } catch (error) {
        console.error(error);
      }
    }
    setTimeout(past, histories.size ? HISTORY_MS : LOOK_MS); // nobody has begun yet
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
  state().then(past);
})();
