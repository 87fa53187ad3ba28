// What the page and the report draw with. All that a peer has a say in becomes text, never markup.
"use strict";

const Draw = (() => {
  const LINES = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9"]; // Okabe and Ito's
  const PHASES = [...LINES, "#999999", "#44aa99", "#aa4499", "#117733"]; // and some of Tol's
  const RECENT = 10; // steps that a peer's state is judged by
  const FAR = 3; // times the median: what lies farther has the last colour
  const TABLE_STEPS = 12;
  const STEPS_MAX = 4000;
  const SILENT_S = 2; // a node that has not answered for so long is said to be silent
  const STATES = {
    good: ["✓", "in step"],
    late: ["…", "late"],
    silent: ["–", "silent"],
    away: ["○", "not connected"],
    accused: ["!", "accused"],
    banned: ["✕", "banned"],
  };
  const SVG = "http://www.w3.org/2000/svg";

  // Elements.

  function element(tag, text, ...classes) {
    const made = document.createElement(tag);
    if (text !== undefined) made.textContent = text;
    made.classList.add(...classes);
    return made;
  }

  function shape(tag, attributes, text) {
    const made = document.createElementNS(SVG, tag);
    for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
    if (text !== undefined) made.textContent = text;
    return made;
  }

  // rows: lists of texts or elements, the first of each its heading. words: columns that are no numbers.
  function table(into, head, rows, words = []) {
    const line = element("tr");
    head.forEach((text, column) => {
      const cell = element("th", text);
      cell.scope = "col";
      if (words.includes(column)) cell.classList.add("words");
      line.append(cell);
    });
    const top = element("thead");
    top.append(line);
    const body = element("tbody");
    for (const row of rows) {
      const made = element("tr");
      row.forEach((content, column) => {
        const cell = element(column ? "td" : "th");
        if (!column) cell.scope = "row";
        if (words.includes(column)) cell.classList.add("words");
        cell.append(content);
        made.append(cell);
      });
      body.append(made);
    }
    into.replaceChildren(top, body);
  }

  function list(into, pairs) {
    into.replaceChildren(...pairs.map(([term, text]) => {
      const pair = element("div");
      pair.append(element("dt", term), element("dd", text));
      return pair;
    }));
  }

  // Numbers.

  const number = (value, digits = 3) => (value === null || value === undefined ? "–" : Number(value.toPrecision(digits)).toString());
  const percent = (value, digits = 0) => (value === null || value === undefined ? "–" : `${(100 * value).toFixed(digits)} %`);
  const times = (value) => (value === null || value === undefined ? "–" : `${value.toFixed(2)} ×`);
  const lines = () => [...LINES, dark() ? "#f0e442" : "#882255"];
  const mean = (values) => (values.length ? values.reduce((sum, value) => sum + value, 0) / values.length : null);

  // A node's history, told in pieces.

  function history() {
    return { about: null, steps: new Map(), measured: new Map(), next: 0 };
  }

  function merge(into, told) {
    into.about = told;
    for (const step of told.steps) into.steps.set(step.step, step);
    for (const one of told.measured) into.measured.set(one.step, one);
    for (const step of into.steps.keys()) {
      if (into.steps.size <= STEPS_MAX) break;
      into.steps.delete(step);
    }
    const last = told.steps.length ? told.steps[told.steps.length - 1].step : into.next;
    into.next = Math.max(0, last - told.revised + 1);
  }

  function stepsOf(from, span) {
    const steps = [...from.steps.values()].sort((one, other) => one.step - other.step);
    return span ? steps.slice(-span) : steps;
  }

  // What is known of member i in one exchange of a step: a ratio and a share, or why there are none.
  function cell(step, exchange, i) {
    const view = step.exchanges[exchange];
    if (!view) return { why: "not seen" };
    if (view.distance[i] === null && view.absent.includes(i)) return { why: "did not come" };
    if (view.distance[i] === null && view.late.includes(i)) return { why: "came too late" };
    if (view.looked === false) return { why: "not looked at" };
    const distance = view.distance[i] ?? Infinity;
    const ratio = view.scale ? distance / view.scale : distance ? Infinity : 1;
    return { distance, ratio, left: view.left_out[i], usual: view.usual };
  }

  // Each member as one node sees it.
  function peers(from, status, exchange) {
    const steps = stepsOf(from, RECENT);
    const looked = lookedAt(stepsOf(from, 0), exchange).slice(-RECENT);
    const convicted = new Set((from.about.evidence ?? []).map((proof) => proof.accused));
    return from.about.members.map((name, i) => {
      const cells = steps.map((step) => cell(step, exchange, i)).filter((one) => one.why !== "not seen");
      const mixed = looked.map((step) => cell(step, exchange, i)).filter((one) => !one.why);
      const came = cells.filter((one) => !one.why || one.why === "not looked at").length;
      const absent = cells.filter((one) => one.why === "did not come").length;
      const late = cells.filter((one) => one.why === "came too late").length;
      const faults = (status.faults ?? []).filter((row) => row.peer === name);
      const waited = (status.late ?? []).find((row) => row.peer === name);
      const me = name === from.about.name;
      let state = "good";
      if (me) state = "me";
      else if ((status.banned ?? []).includes(name)) state = "banned";
      else if (convicted.has(name) || faults.length) state = "accused";
      else if (status.connected && !status.connected.includes(name)) state = "away";
      else if (cells.length > 2 && absent === cells.length) state = "silent";
      else if (waited || late + absent > cells.length / 2) state = "late";
      return {
        name, me, state, waited, faults, convicted: convicted.has(name),
        came: cells.length ? came / cells.length : null,
        ratio: mean(mixed.map((one) => one.ratio)),
        left: mean(mixed.map((one) => one.left)),
      };
    });
  }

  const stateWords = (peer) => (peer.me ? "this node" : peer.convicted ? "accused, with proof" : STATES[peer.state][1]);

  function peerTable(into, known, lies = {}) {
    const rows = known.map((peer) => {
      const name = element("span", lies[peer.name] ? `${peer.name} (lies)` : peer.name);
      const state = element("span", `${peer.me ? "●" : STATES[peer.state][0]} ${stateWords(peer)}`, "state", peer.state);
      const said = peer.faults.map((row) => `${row.fault} (${row.count})`);
      if (peer.waited) said.push(`late by ${number(peer.waited.seconds - peer.waited.deadline, 2)} s`);
      return [name, state, percent(peer.came), times(peer.ratio), percent(peer.left), said.join(", ") || "–"];
    });
    table(into, ["peer", "state", "in time", "distance", "left out", "besides"], rows, [1, 5]);
  }

  // Who is late.

  const seconds = (ms) => Math.max(0, ms / 1000).toFixed(1);
  const clock = (at) => new Date(at).toLocaleTimeString("en-GB");
  const slotName = (told) => `${told.step}.${told.exchange}.${told.sub_round}`;
  const saidWhat = (said) => (said ? said.what + (said.step === undefined ? "" : ` of slot ${slotName(said)}`) : "nothing yet");
  const unanswered = (node) => node.exit === null && node.status.name !== undefined && node.silent > SILENT_S;

  // A row for each that any of the nodes finds late: what it owes first, whom of them it owes it, what they heard of it last.
  function lateness(nodes) {
    const rows = new Map();
    for (const node of nodes) {
      for (const one of node.status.late) {
        const ago = (seconds) => node.told - 1000 * seconds;
        const row = {
          ...one, key: `${one.peer} ${slotName(one)}`, by: [node.name], told: node.told, away: !node.status.connected.includes(one.peer),
          since: ago(one.seconds - one.deadline), heard: one.said && ago(one.said.seconds),
        };
        const known = rows.get(one.peer);
        if (!known) rows.set(one.peer, row);
        else rows.set(one.peer, { ...(row.since < known.since ? row : known), by: [...known.by, node.name] });
      }
    }
    return [...rows.values()].sort((one, other) => one.since - other.since);
  }

  const lateWords = (row) => `${row.peer} is late since ${clock(row.since)}; last heard: ${saidWhat(row.said)}${row.said ? ` at ${clock(row.heard)}` : ""}.`;

  function late(into, rows, net) {
    const parts = rows.map((row) => {
      const part = element("li");
      const ago = row.said ? `, at ${clock(row.heard)}, ${seconds(row.told - row.heard)} s ago` : "";
      const link = row.away ? ", not connected" : "";
      const by = net ? ` Seen by ${row.by.join(", ")}.` : "";
      part.append(
        element("span", `${STATES.late[0]} ${row.peer}`, "state", "late"),
        ` is late since ${clock(row.since)}, for ${seconds(row.told - row.since)} s${link}: it owes slot ${slotName(row)}, expected within ${number(row.deadline, 2)} s. Last heard: ${saidWhat(row.said)}${ago}.${by}`,
      );
      return part;
    });
    into.replaceChildren(...(parts.length ? parts : [element("li", "Nobody is late.", "note")]));
  }

  // links: pairs of names that are connected, as far as that is known of others than the one who looks.
  function graph(svg, known, links = [], lies = {}) {
    const size = Math.max(0.5, Math.min(1, 14 / known.length));
    const place = new Map(known.map((peer, i) => {
      const angle = (2 * Math.PI * i) / known.length - Math.PI / 2;
      return [peer.name, [220 + 150 * Math.cos(angle), 190 + 145 * Math.sin(angle), Math.cos(angle), Math.sin(angle)]];
    }));
    const line = (one, other, kind) => {
      const [[x1, y1], [x2, y2]] = [place.get(one), place.get(other)];
      return shape("line", { x1, y1, x2, y2, class: kind });
    };
    const title = svg.querySelector("title");
    title.textContent = `${known.map((peer) => `${peer.name} ${stateWords(peer)}`).join("; ")}.`;
    const drawn = links.filter(([one, other]) => place.has(one) && place.has(other)).map(([one, other]) => line(one, other, "link"));
    const me = known.find((peer) => peer.me);
    if (me) drawn.push(...known.filter((peer) => !peer.me).map((peer) => line(me.name, peer.name, peer.state)));
    for (const peer of known) {
      const [x, y, across, down] = place.get(peer.name);
      const anchor = Math.abs(across) < 0.2 ? "middle" : across > 0 ? "start" : "end";
      const group = shape("g", { class: peer.state });
      group.append(
        shape("circle", { cx: x, cy: y, r: 17 * size }),
        shape("text", { x, y, class: "sign" }, peer.me ? "●" : STATES[peer.state][0]),
        shape("text", { x: x + (17 * size + 7) * across, y: y + 4 + (17 * size + 12) * down, "text-anchor": anchor }, lies[peer.name] ? `${peer.name} (lies)` : peer.name),
      );
      drawn.push(group);
    }
    svg.replaceChildren(title, ...drawn);
  }

  function legend(into) {
    into.replaceChildren(...Object.entries(STATES).map(([state, [sign, words]]) => element("span", `${sign} ${words}`, "state", state)));
  }

  function evidence(into, proofs, faults) {
    const parts = proofs.map((proof) => {
      const part = element("article");
      const where = `step ${proof.step}` + (proof.exchange ? `, exchange ${proof.exchange}` : "") + (proof.sub_round ? `, sub-round ${proof.sub_round}` : "");
      part.append(element("h3", `${proof.accused} equivocated: it signed two vectors for ${where}`));
      for (const digest of proof.digests) part.append(element("code", digest), element("br"));
      if (proof.holders) part.append(element("p", `Held by ${proof.holders.join(", ")}.`, "note"));
      part.append(element("p", "Anyone who holds the genesis can check it:", "note"), element("code", proof.check));
      return part;
    });
    if (faults.length) {
      const seen = element("table");
      table(seen, ["peer", "fault", "times"], faults.map((row) => [row.peer, row.fault, String(row.count)]), [1]);
      parts.push(seen);
    }
    into.replaceChildren(...(parts.length ? parts : [element("p", "Nothing is held against anybody.")]));
  }

  // Plots. Plotly reads some markup in texts: nothing that comes from elsewhere may be any.

  const plain = (text) => String(text).replace(/&/g, "&amp;").replace(/</g, "&lt;");
  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const dark = () => matchMedia("(prefers-color-scheme: dark)").matches;

  function layout(more) {
    const axis = { gridcolor: colour("--line"), zerolinecolor: colour("--line"), linecolor: colour("--soft"), automargin: true };
    return {
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
      font: { color: colour("--ink"), size: 12, family: 'system-ui, "DejaVu Sans", sans-serif' },
      margin: { l: 48, r: 12, t: 8, b: 40 }, hoverlabel: { align: "left" },
      legend: { orientation: "h", y: 1.02, yanchor: "bottom", x: 0 },
      ...more, xaxis: { ...axis, ...more.xaxis }, yaxis: { ...axis, ...more.yaxis },
    };
  }

  function plot(into, traces, more) {
    if (typeof Plotly === "undefined") {
      into.replaceChildren(element("p", "Plots need the plotly package beside p2pnode; the tables say the same."));
      return;
    }
    Plotly.react(into, traces, layout(more), { displayModeBar: false, responsive: true });
  }

  // One plot for each column, a colour for each row: lists of [name of the column, series, as for curves].
  function multiples(into, columns, what, more) {
    const names = [...new Set(columns.flatMap(([, series]) => series.map((one) => one.name)))];
    const key = element("p", undefined, "key");
    names.forEach((name, i) => {
      const part = element("span");
      const sign = element("span", i < lines().length ? "━" : "┅");
      sign.style.color = lines()[i % lines().length];
      part.append(sign, ` ${name}`);
      key.append(part);
    });
    into.replaceChildren(key, ...columns.map(([name]) => {
      const part = element("div");
      part.append(element("h3", name), element("div", undefined, "chart"));
      return part;
    }));
    columns.forEach(([, series], at) => {
      const placed = names.map((name) => series.find((one) => one.name === name) ?? { name, points: [] });
      curves(into.querySelectorAll(".chart")[at], placed, what, more, false);
    });
  }

  // series: name, points [step, value], faint for what is only context, marked for few points.
  function curves(into, series, what, more = {}, legend = series.length > 1) {
    const traces = series.map(({ name, points, faint, marked }, i) => ({
      type: "scatter", name: plain(name), x: points.map((point) => point[0]), y: points.map((point) => point[1]),
      mode: marked ? "lines+markers" : "lines", opacity: faint ? 0.55 : 1,
      line: { color: faint ? colour("--soft") : lines()[i % lines().length], width: faint ? 1.2 : 2, dash: i < lines().length ? "solid" : "dot" },
      marker: { size: 5 }, hovertext: points.map((point) => `${plain(name)}, step ${point[0]}: ${number(point[1], 4)}`), hoverinfo: "text",
    }));
    plot(into, traces, { xaxis: { title: { text: "step" }, rangemode: "tozero" }, yaxis: { title: { text: what }, ...more }, showlegend: legend });
  }

  const KINDS = {
    distance: {
      value: (one) => Math.min(one.ratio, FAR), top: FAR, bar: "× median", ticks: [[0, 1, 2, FAR], ["0", "1", "2", `≥ ${FAR}`]],
      words: (one) => `distance ${number(one.distance, 4)}, ${number(one.ratio)} × the median`, short: (one) => times(one.ratio),
    },
    left: {
      value: (one) => one.left, top: 1, bar: "left out", ticks: [[0, 0.5, 1], ["0 %", "50 %", "100 %"]],
      words: (one) => `${percent(one.left)} left out, ${percent(one.usual)} of all`, short: (one) => percent(one.left),
    },
  };

  // Where steps are short a node looks at the vectors of some only; where it looks at none, who came is left to show.
  function lookedAt(steps, exchange) {
    const looked = steps.filter((step) => step.exchanges[exchange]?.looked !== false);
    return looked.length ? looked : steps;
  }

  function heat(into, from, exchange, kind, span) {
    const { value, top, bar, ticks, words } = KINDS[kind];
    const steps = lookedAt(stepsOf(from, span), exchange);
    const names = from.about.members;
    const cells = names.map((_, i) => steps.map((step) => cell(step, exchange, i)));
    const hover = cells.map((row, i) => row.map((one, j) => `${plain(names[i])}, step ${steps[j].step}: ${one.why ?? words(one)}`));
    const gap = { "came too late": 0, "did not come": 1 };
    const grey = [[0, colour("--gap-late")], [0.5, colour("--gap-late")], [0.5, colour("--gap-absent")], [1, colour("--gap-absent")]];
    const shared = { type: "heatmap", x: steps.map((step) => step.step), y: names.map(plain), text: hover, hoverinfo: "text", xgap: steps.length < 150 ? 1 : 0, ygap: 1, hoverongaps: false };
    into.style.height = `${Math.min(900, 92 + 22 * names.length)}px`;
    plot(into, [
      { ...shared, z: cells.map((row) => row.map((one) => gap[one.why] ?? null)), zmin: 0, zmax: 1, colorscale: grey, showscale: false },
      {
        ...shared, z: cells.map((row) => row.map((one) => (one.why ? null : value(one)))), zmin: 0, zmax: top,
        colorscale: dark() ? "Viridis" : "YlOrRd", reversescale: !dark(),
        colorbar: { title: { text: bar, side: "right" }, thickness: 12, outlinewidth: 0, tickvals: ticks[0], ticktext: ticks[1] },
      },
    ], { xaxis: { title: { text: "step" }, showgrid: false, zeroline: false }, yaxis: { autorange: "reversed", showgrid: false, type: "category" } });
  }

  // cells: down, column and mean of an experiment, in any order.
  function grid(into, cells, across) {
    const columns = [...new Set(cells.map((cell) => cell.column))];
    const rows = [...new Set(cells.map((cell) => cell.down))];
    const found = rows.map((down) => columns.map((column) => cells.find((cell) => cell.down === down && cell.column === column)?.mean?.[0] ?? null));
    into.style.height = `${Math.min(1200, 110 + 30 * rows.length)}px`;
    plot(into, [{
      type: "heatmap", x: columns.map(plain), y: rows.map(plain), z: found, zmin: 0, zmax: 1, colorscale: "Viridis", xgap: 2, ygap: 2, hoverongaps: false,
      text: found.map((row) => row.map((mean) => (mean === null ? "" : (100 * mean).toFixed(1)))), texttemplate: "%{text}", hoverinfo: "text",
      colorbar: { thickness: 12, outlinewidth: 0, tickformat: ".0%" },
    }], { xaxis: { title: { text: plain(across) }, type: "category", showgrid: false }, yaxis: { type: "category", autorange: "reversed", showgrid: false } });
  }

  function heatTable(into, from, exchange, kind) {
    const steps = lookedAt(stepsOf(from, 0), exchange).slice(-TABLE_STEPS);
    const rows = from.about.members.map((name, i) => [
      name, ...steps.map((step) => { const one = cell(step, exchange, i); return one.why ?? KINDS[kind].short(one); }),
    ]);
    table(into, ["peer", ...steps.map((step) => `step ${step.step}`)], rows);
  }

  function notes(from, exchange, span = 0) {
    const { length, sampled, exchanges, time_share } = from.about;
    const of = exchanges[exchange];
    const estimate = sampled < length ? `estimated from ${sampled.toLocaleString("en")} of ${length.toLocaleString("en")} coordinates` : "exactly";
    const grey = "Grey, who was not mixed: light, came too late; dark, did not come at all.";
    const all = stepsOf(from, span);
    const seen = lookedAt(all, exchange).length;
    const unseen = time_share === 0 ? " This node looks at no vectors: its setting observe is 0." : seen === all.length ? "" : ` Of these ${all.length} steps ${seen} were looked at, so that looking takes ${number(100 * time_share)} % of the time at most.`;
    return [
      `‖x − mixture‖₂ of each peer's ${of.what}, ${estimate}, as multiples of the step's median. ${grey}${unseen}`,
      of.left_out === "coordinates"
        ? `The share of coordinates in which a peer's number is none of those that the rule, ${of.rule}, averages. Some of everybody's is left out: what counts is the difference from the others.`
        : `Whether the rule, ${of.rule}, gives the vector no part in the mixture.`,
    ];
  }

  function phases(into, from, span) {
    const steps = stepsOf(from, span || 240);
    const names = Object.keys(steps.length ? steps[steps.length - 1].seconds : {});
    const colours = new Map(names.map((name, i) => [name, PHASES[i % PHASES.length]]));
    const traces = names.filter((name) => steps.some((step) => step.seconds[name])).map((name) => ({
      type: "bar", name, x: steps.map((step) => step.step), y: steps.map((step) => 1000 * (step.seconds[name] ?? 0)), marker: { color: colours.get(name), line: { width: 0 } },
      hovertext: steps.map((step) => `step ${step.step}: ${name} ${number(1000 * (step.seconds[name] ?? 0))} ms`), hoverinfo: "text",
    }));
    plot(into, traces, { barmode: "stack", bargap: 0, xaxis: { title: { text: "step" } }, yaxis: { title: { text: "ms" } } });
  }

  function phaseTable(into, from) {
    const steps = stepsOf(from, TABLE_STEPS);
    const names = Object.keys(steps.length ? steps[steps.length - 1].seconds : {});
    table(into, ["ms", ...steps.map((step) => `step ${step.step}`)], names.map((name) => [name, ...steps.map((step) => number(1000 * (step.seconds[name] ?? 0)))]));
  }

  return { element, table, list, number, percent, history, merge, stepsOf, peers, peerTable, unanswered, lateness, lateWords, late, graph, legend, evidence, curves, multiples, heat, grid, heatTable, notes, phases, phaseTable };
})();
