"use strict";
// The page: what its address names is asked of the server and drawn; open studies and runs are
// asked again while they change.
(() => {
  const main = document.getElementById("main"), path = document.getElementById("path"), live = document.getElementById("live");
  let timer = 0, opened = 0;

  function make(tag, attributes = {}, ...children) {
    const node = document.createElement(tag);
    for (const [key, value] of Object.entries(attributes)) {
      if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
      else node.setAttribute(key, value);
    }
    node.append(...children.map((c) => (c instanceof Node ? c : document.createTextNode(String(c)))));
    return node;
  }

  async function get(url) {
    const answer = await fetch(url);
    const body = await answer.json();
    if (!answer.ok) throw new Error(body.error || body.detail || answer.statusText);
    return body;
  }

  function show(value) {
    if (value === null || value === undefined) return "";
    if (typeof value === "number") return Number.isInteger(value) ? String(value) : Number(value.toPrecision(6)).toString();
    return typeof value === "object" ? JSON.stringify(value) : String(value);
  }

  function table(heads, rows) {
    const body = make("tbody", {}, ...rows.map((row) => make("tr", {}, ...row.map((cell) => make("td", {}, cell instanceof Node ? cell : show(cell))))));
    return make("div", { class: "wide" }, make("table", {}, make("thead", {}, make("tr", {}, ...heads.map((h) => make("th", {}, h)))), body));
  }

  const when = (seconds) => (seconds ? new Date(seconds * 1000).toLocaleString() : "");
  const counted = (counts) => Object.entries(counts).map(([state, n]) => `${n} ${state}`).join(", ") || "none";
  const card = (label, value) => make("div", { class: "card" }, make("b", {}, show(value)), make("span", {}, label));
  const chart = (parent, id) => parent.appendChild(make("div", { class: "chart", id }));

  function tell(error) {
    main.append(make("p", { class: "error", role: "alert" }, error.message));
  }

  // -- pages ------------------------------------------------------------------------------------

  // A page that was left while its answers were under way must not be drawn over the next one.
  async function home(mine) {
    const [studies, runs] = await Promise.all([get("api/studies"), get("api/runs")]);
    if (mine !== opened) return;
    path.replaceChildren();
    const picked = new Set();
    const rows = studies.map((s) => {
      const key = `${s.store}/${s.name}`;
      const box = make("input", { type: "checkbox", "aria-label": `compare ${s.name}`, onchange: (e) => (e.target.checked ? picked.add(key) : picked.delete(key)) });
      return [box, make("a", { href: `#/study/${s.store}/${encodeURIComponent(s.name)}` }, s.name), Object.entries(s.objectives).map(([n, d]) => `${d} ${n}`).join(", "), s.optimizer, counted(s.trials), when(s.created_s), s.url];
    });
    const compare = make("button", { class: "plain", id: "compare", onclick: () => { if (picked.size > 1) location.hash = `#/compare/${[...picked].map(encodeURIComponent).join("&")}`; } }, "Compare the marked");
    main.replaceChildren(make("h1", {}, "Studies"),
      rows.length ? table(["", "study", "objectives", "optimizer", "trials", "begun", "store"], rows) : make("p", { class: "empty" }, "No study yet."),
      rows.length > 1 ? compare : "", make("h1", {}, "Runs"),
      runs.length ? table(["run", "changed", ""], runs.map((r) => [make("a", { href: `#/run/${encodeURIComponent(r.id)}` }, r.id), when(r.changed_s), r.done ? "done" : "under way"])) : make("p", { class: "empty" }, "No run yet."));
  }

  const TABS = ["History", "Parameters", "Parallel", "Importance", "Pareto", "Timeline", "Trials"];

  async function study(store, name, tab, mine) {
    const base = `api/studies/${store}/${encodeURIComponent(name)}`;
    const [found, history] = await Promise.all([get(base), get(`${base}/history`)]);
    if (mine !== opened) return;
    const tabs = TABS.filter((t) => t !== "Pareto" || found.objectives.length > 1);
    const open = tabs.includes(tab) ? tab : "History";
    path.replaceChildren(make("a", { href: "#/" }, "studies"), ` / ${name}`);
    const cards = make("div", { class: "cards", id: "cards" });
    const bar = make("div", { class: "tabs", role: "tablist" }, ...tabs.map((t) => make("button", { role: "tab", "aria-selected": t === open, onclick: () => (location.hash = `#/study/${store}/${encodeURIComponent(name)}/${t}`) }, t)));
    const body = make("div", { id: "body" });
    main.replaceChildren(make("h1", {}, name), cards, bar, body);
    cards.append(card("trials", counted(found.counts)), ...found.objectives.filter((o) => history[o.name].best.length).map((o) => card(`best ${o.name} (${o.direction})`, history[o.name].best[history[o.name].best.length - 1])), ...found.constraints.map((c) => card("constraint", c)));
    await ({ History: () => drawHistory(body, found, history), Parameters: () => drawSlices(body, found, base), Parallel: () => drawParallel(body, found, base), Importance: () => drawImportance(body, base, found), Pareto: () => drawPareto(body, found, base), Timeline: () => drawTimeline(body, base), Trials: () => drawTrials(body, base, found) })[open]();
    if (mine === opened) watch(`${base}/version`, found.version, mine);
  }

  async function drawHistory(body, found, history) {
    for (const [i, o] of found.objectives.entries()) {
      if (history[o.name].number.length) await charts.history(chart(body, `history-${i}`), o.name, history[o.name]);
      else body.append(make("p", { class: "empty" }, `No trial ended well yet (${o.name}).`));
    }
  }

  async function drawSlices(body, found, base) {
    const rows = await get(`${base}/sample`);
    const grid = body.appendChild(make("div", { class: "grid" }));
    for (const name of Object.keys(found.space).filter((n) => found.space[n].type !== "fixed")) await charts.slice(chart(grid, `slice-${name}`), found, rows, name);
  }

  async function drawParallel(body, found, base) {
    await charts.parallel(chart(body, "parallel"), found, await get(`${base}/sample`));
    body.append(make("p", { class: "note" }, "Blue lines are the best."));
  }

  async function drawImportance(body, base, found) {
    const note = body.appendChild(make("p", { class: "note" }, "Working ..."));
    for (const [i, o] of found.objectives.entries()) {
      const answer = await get(`${base}/importance?objective=${encodeURIComponent(o.name)}`);
      if (answer.why) {
        body.append(make("p", { class: "empty" }, answer.why));
        continue;
      }
      const pairs = answer.pairs.filter((p) => p.share >= 0.01);
      const labels = [...Object.keys(answer.parameters), ...pairs.map((p) => p.of.join(" x "))];
      await charts.bars(chart(body, `importance-${i}`), labels, [...Object.values(answer.parameters), ...pairs.map((p) => p.share)], `share of the variance of ${o.name}`);
      body.append(make("p", { class: "note" }, `From ${answer.trials} trials; R² on unseen ones ${answer.fit.toFixed(2)}.`));
    }
    note.remove();
  }

  async function drawPareto(body, found, base) {
    const rows = await get(`${base}/sample?points=2000`);
    await charts.pareto(chart(body, "pareto"), found, rows);
    const best = charts.front(rows, found.objectives);
    body.append(table(["trial", ...found.objectives.map((o) => o.name), ...Object.keys(found.space)], best.map((r) => [r.number, ...found.objectives.map((o) => r.values[o.name]), ...Object.keys(found.space).map((n) => r.config[n])])));
  }

  async function drawTimeline(body, base) {
    const rows = await get(`${base}/timeline`);
    if (rows.length) await charts.timeline(chart(body, "timeline"), rows);
  }

  async function drawTrials(body, base, found) {
    let offset = 0, state = "";
    const size = 50, list = make("div"), detail = make("div", { id: "detail" });
    const names = Object.keys(found.space), goals = found.objectives.map((o) => o.name);
    async function fill() {
      const rows = await get(`${base}/trials?offset=${offset}&limit=${size}${state ? `&state=${state}` : ""}`);
      list.replaceChildren(table(["trial", "state", ...goals, ...names], rows.map((r) => [make("button", { class: "plain", onclick: () => one(r.number) }, r.number), r.state, ...goals.map((g) => r.values[g]), ...names.map((n) => r.config[n])])));
      older.disabled = rows.length < size;
      newer.disabled = offset === 0;
    }
    async function one(number) {
      const row = await get(`${base}/trials/${number}`);
      detail.replaceChildren(make("h2", {}, `Trial ${number}`), make("pre", {}, JSON.stringify({ ...row, trace: undefined, error: undefined }, null, 1)));
      if (row.error) detail.append(make("div", { class: "error" }, row.error));
      if (row.trace.length) await charts.lines(chart(detail, "trace"), [{ name: goals[0], x: row.trace.map((p) => p[0]), y: row.trace.map((p) => p[1]) }], { x: "step", y: goals[0] });
      detail.scrollIntoView({ block: "nearest" });
    }
    const newer = make("button", { class: "plain", onclick: () => { offset = Math.max(offset - size, 0); fill().catch(tell); } }, "Newer");
    const older = make("button", { class: "plain", id: "older", onclick: () => { offset += size; fill().catch(tell); } }, "Older");
    const choose = make("select", { id: "state", "aria-label": "state", onchange: (e) => { state = e.target.value; offset = 0; fill().catch(tell); } }, ...["", ...Object.keys(found.counts)].map((s) => make("option", { value: s }, s || "all states")));
    body.append(make("p", {}, choose, " ", newer, " ", older), list, detail);
    await fill();
  }

  async function compare(keys, mine) {
    const found = await get(`api/compare?${keys.map((k) => `of=${encodeURIComponent(k)}`).join("&")}`);
    if (mine !== opened) return;
    path.replaceChildren(make("a", { href: "#/" }, "studies"), " / compare");
    main.replaceChildren(make("h1", {}, "Compare"));
    const goal = Object.keys(found.objectives)[0];
    await charts.lines(chart(main, "compare"), found.curves.map((c) => ({ name: c.name, x: c.number, y: c.best, line: { shape: "hv" } })), { x: "trial", y: `best ${goal}` });
    main.append(table(["study", "optimizers", "trials", "best", "seconds"], found.studies.map((s) => [s.name, s.optimizers.join(", "), s.trials, s.best === undefined ? `Pareto set of ${s.pareto}` : s.best, s.seconds])));
  }

  // -- a run ------------------------------------------------------------------------------------

  // What is drawn stays while the run goes on; new numbers go into the charts that are there.
  async function run(id, mine) {
    const url = `api/runs/${id.split("/").map(encodeURIComponent).join("/")}`;
    const found = await get(url);
    if (mine !== opened) return;
    path.replaceChildren(make("a", { href: "#/" }, "runs"), ` / ${id}`);
    const parts = { remarks: make("div", { id: "remarks" }), panels: make("div", { id: "panels" }), samples: make("div", { id: "samples" }), others: make("div"), rest: make("div") };
    main.replaceChildren(make("h1", {}, id), ...Object.values(parts));
    const nodes = new Map(), groups = new Map(), shown = new Map();

    function place(parent, key, caption) {
      if (!nodes.has(key)) {
        if (!parent.querySelector(".grid")) parent.append(make("div", { class: "grid" }));
        const figure = make("figure", {}, ...(caption ? [make("figcaption", {}, caption)] : []));
        parent.querySelector(".grid").append(figure);
        nodes.set(key, chart(figure, key));
      }
      return nodes.get(key);
    }

    async function refresh(now) {
      const remarks = Object.entries(now.stages).flatMap(([stage, s]) => s.remarks.map((r) => make("p", { class: "remark" }, make("b", {}, `${stage}: ${r.signal} `), r.text)));
      parts.remarks.replaceChildren(...remarks);
      const drawn = new Set();
      for (const [stage, health] of Object.entries(now.stages)) {
        if (health.panels.length && !groups.has(stage)) {
          groups.set(stage, make("div", {}, make("h2", {}, `${stage}: how it goes`)));
          parts.panels.append(groups.get(stage));
        }
        for (const panel of health.panels) {
          const lines = Object.keys(panel.lines).filter((name) => now.series[`${stage}/${name}`]);
          lines.forEach((name) => drawn.add(`${stage}/${name}`));
          await charts.lines(place(groups.get(stage), `panel-${stage}-${panel.title}`, panel.title), lines.map((name) => ({ name: panel.lines[name], x: now.series[`${stage}/${name}`].step, y: now.series[`${stage}/${name}`].value })), { x: "step", y: panel.unit, zero: true });
        }
      }
      for (const [stage, steps] of Object.entries(now.samples)) {
        if (!shown.has(stage)) {
          shown.set(stage, samplesOf(id, stage));
          parts.samples.append(shown.get(stage).node);
        }
        await shown.get(stage).update(steps);
      }
      const names = Object.keys(now.series).filter((n) => now.series[n].value.length > 1 && !drawn.has(n));
      if (names.length && drawn.size && !parts.others.firstChild) parts.others.append(make("h2", {}, "Other numbers"));
      for (const name of names) await charts.lines(place(parts.others, `series-${name}`), [{ name, x: now.series[name].step, y: now.series[name].value }], { x: "step", y: name });
      const single = Object.keys(now.series).filter((n) => now.series[n].value.length === 1 && !drawn.has(n));
      parts.rest.replaceChildren();
      if (single.length) parts.rest.append(make("h2", {}, "Values"), table(["name", "value"], single.map((n) => [n, now.series[n].value[0]])));
      for (const part of ["summary", "plan", "environment"]) if (now[part]) parts.rest.append(make("h2", {}, part), make("pre", {}, JSON.stringify(now[part], null, 1)));
      parts.rest.append(make("h2", {}, "Files"), table(["file", "bytes"], now.artifacts.map((a) => [a.name, a.bytes])));
    }

    await refresh(found);
    if (!found.done && mine === opened) follow(url, mine, refresh);
  }

  // Samples of a stage: a slider over the steps that have some, and what was written at one.
  function samplesOf(id, stage) {
    let steps = [], at = -1, asked = 0;
    const body = make("div"), label = make("output", {});
    const slider = make("input", { type: "range", min: 0, max: 0, value: 0, "aria-label": `step of the samples of ${stage}`, oninput: () => { at = Number(slider.value); fill().catch(tell); } });
    const node = make("div", {}, make("h2", {}, `${stage}: samples`), make("p", { class: "slider" }, slider, label), body);

    async function fill() {
      const mine = ++asked, step = steps[at];
      const rows = await get(`api/samples?run=${encodeURIComponent(id)}&stage=${encodeURIComponent(stage)}&step=${step}`);
      if (mine !== asked) return;  // the slider has moved on
      label.textContent = `step ${step}: ${at + 1} of ${steps.length}`;
      const text = (value) => make("div", { class: "sample" }, value);
      body.replaceChildren(table(["reward", "version", "prompt", "completion"], rows.map((r) => [r.reward === null ? "none" : r.reward, r.version, text(r.prompt), text(r.completion)])));
    }

    async function update(now) {
      const follows = at === steps.length - 1, before = steps[at];
      steps = now;
      slider.max = steps.length - 1;
      at = follows ? steps.length - 1 : Math.max(steps.indexOf(before), 0);
      slider.value = at;
      if (steps[at] !== before) await fill();
      else label.textContent = `step ${before}: ${at + 1} of ${steps.length}`;
    }

    return { node, update };
  }

  // -- going on ---------------------------------------------------------------------------------

  // Ask every two seconds; done() says whether that was the last time.
  function repeat(mine, done) {
    live.textContent = "live";
    timer = setTimeout(async () => {
      if (mine !== opened) return;
      try {
        if (!(await done()) && mine === opened) repeat(mine, done);
      } catch (error) {
        if (mine !== opened) return;
        live.textContent = "the server does not answer";
        timer = setTimeout(() => mine === opened && draw(), 3000);
      }
    }, 2000);
  }

  function watch(url, version, mine) {
    repeat(mine, async () => {
      const changed = (await get(url)).version !== version;
      if (changed && mine === opened) draw();
      return changed;
    });
  }

  function follow(url, mine, refresh) {
    repeat(mine, async () => {
      const now = await get(url);
      if (mine !== opened) return true;
      await refresh(now);
      if (now.done && mine === opened) live.textContent = "";
      return now.done;
    });
  }

  async function draw() {
    clearTimeout(timer);
    const mine = ++opened, parts = location.hash.replace(/^#\/?/, "").split("/");
    live.textContent = "";
    try {
      if (parts[0] === "study") await study(parts[1], decodeURIComponent(parts[2]), parts[3], mine);
      else if (parts[0] === "run") await run(decodeURIComponent(parts.slice(1).join("/")), mine);
      else if (parts[0] === "compare") await compare(parts.slice(1).join("/").split("&").map(decodeURIComponent), mine);
      else await home(mine);
    } catch (error) {
      if (mine === opened) {
        main.replaceChildren();
        tell(error);
      }
    }
  }

  window.addEventListener("hashchange", draw);
  draw();
})();
