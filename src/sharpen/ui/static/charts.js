"use strict";
// Charts of the page. Data come from the server's answers; nothing is fetched here.
const charts = (() => {
  const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  // Plotly reads a little HTML in its labels; names and values are text.
  const text = (value) => String(value).replace(/&/g, "&amp;").replace(/</g, "&lt;");
  const config = { responsive: true, displaylogo: false, modeBarButtonsToRemove: ["lasso2d", "select2d"] };

  function layout(more) {
    const ink = css("--ink"), line = css("--line");
    const axis = { gridcolor: line, zerolinecolor: line, automargin: true };
    const base = {
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", font: { color: ink, size: 12 },
      margin: { l: 55, r: 15, t: 35, b: 45 }, legend: { orientation: "h", y: 1.02, yanchor: "bottom" },
    };
    const found = { ...base, ...more };
    for (const key of Object.keys(found).filter((k) => /^[xy]axis/.test(k))) found[key] = { ...axis, ...found[key] };
    found.xaxis = found.xaxis || { ...axis };
    found.yaxis = found.yaxis || { ...axis };
    return found;
  }

  function draw(node, traces, more) {
    return Plotly.react(node, traces, layout(more), config);
  }

  function history(node, objective, rows) {
    const few = rows.number.length < 20 && Math.max(...rows.number) < 20;
    const ticks = few ? { dtick: 1 } : {};  // no half trials
    return draw(node, [
      { x: rows.number, y: rows.best, mode: "lines", name: "best so far", line: { color: css("--blue"), width: 2, shape: "hv" } },
      { x: rows.number, y: rows.value, mode: "markers", name: "trials", marker: { size: few ? 8 : 5, opacity: few ? 0.9 : 0.55, color: css("--soft") } },
    ], { xaxis: { title: { text: "trial" }, ...ticks }, yaxis: { title: { text: text(objective) } } });
  }

  // A number for any value: itself, or its place among the values seen.
  function scale(parameter, values) {
    const numeric = ["float", "int"].includes(parameter.type);
    if (numeric) {
      const log = parameter.log === true;
      const f = log ? Math.log10 : (v) => v;
      const low = f(parameter.low), high = f(parameter.high);
      return { place: (v) => (f(v) - low) / (high - low), ends: [parameter.low, parameter.high] };
    }
    const texts = [...new Set(values.map((v) => JSON.stringify(v)))].sort();
    const count = Math.max(texts.length - 1, 1);
    return { place: (v) => texts.indexOf(JSON.stringify(v)) / count, ends: [texts[0], texts[texts.length - 1]] };
  }

  function shade(t) {
    const from = [31, 95, 168], to = [224, 160, 48];
    return `rgb(${from.map((a, i) => Math.round(a + (to[i] - a) * t)).join(",")})`;
  }

  // Lines over all parameters, in colours by rank: blue is best. Drawn without WebGL.
  function parallel(node, study, rows) {
    const objective = study.objectives[0], sign = objective.direction === "min" ? 1 : -1;
    const names = Object.keys(study.space).filter((n) => study.space[n].type !== "fixed");
    const scales = Object.fromEntries(names.map((n) => [n, scale(study.space[n], rows.map((r) => r.config[n]).filter((v) => v !== undefined))]));
    const ranked = [...rows].sort((a, b) => sign * (b.values[objective.name] - a.values[objective.name]));
    const bins = 12, traces = [];
    for (let bin = 0; bin < bins; bin++) {
      const x = [], y = [];
      const part = ranked.slice(Math.floor((bin * ranked.length) / bins), Math.floor(((bin + 1) * ranked.length) / bins));
      for (const row of part) {
        names.forEach((n, i) => {
          x.push(i);
          y.push(row.config[n] === undefined ? null : scales[n].place(row.config[n]));
        });
        x.push(null);
        y.push(null);
      }
      traces.push({ x, y, mode: "lines", hoverinfo: "skip", showlegend: false, opacity: 0.25 + (0.55 * bin) / bins, line: { width: 1, color: shade(1 - bin / (bins - 1)) } });
    }
    const marks = names.flatMap((n, i) => scales[n].ends.map((end, k) => ({ x: i, y: k ? 1.06 : -0.06, text: text(end), showarrow: false, font: { size: 10 } })));
    return draw(node, traces, {
      xaxis: { tickvals: names.map((_, i) => i), ticktext: names.map(text), range: [-0.3, names.length - 0.7] },
      yaxis: { showticklabels: false, range: [-0.12, 1.12] }, annotations: marks,
    });
  }

  function slice(node, study, rows, name) {
    const objective = study.objectives[0], parameter = study.space[name];
    const used = rows.filter((r) => r.config[name] !== undefined);
    const numeric = ["float", "int"].includes(parameter.type);
    return draw(node, [{
      x: used.map((r) => (numeric ? r.config[name] : text(JSON.stringify(r.config[name])))), y: used.map((r) => r.values[objective.name]),
      mode: "markers", marker: { size: 5, opacity: 0.6, color: used.map((r) => r.number), colorscale: [[0, "#e0a030"], [1, "#1f5fa8"]] },
      text: used.map((r) => `trial ${r.number}`),
    }], { xaxis: { title: { text: text(name) }, type: parameter.log ? "log" : numeric ? "linear" : "category" }, yaxis: { title: { text: text(objective.name) } } });
  }

  function front(rows, objectives) {
    const signs = objectives.map((o) => (o.direction === "min" ? 1 : -1));
    const loss = rows.map((r) => objectives.map((o, i) => signs[i] * r.values[o.name]));
    return rows.filter((_, i) => !loss.some((other, k) => k !== i && other.every((v, m) => v <= loss[i][m]) && other.some((v, m) => v < loss[i][m])));
  }

  function pareto(node, study, rows) {
    const [a, b] = study.objectives;
    const best = new Set(front(rows, study.objectives));
    const part = (name, chosen, color, size) => ({
      x: chosen.map((r) => r.values[a.name]), y: chosen.map((r) => r.values[b.name]), text: chosen.map((r) => `trial ${r.number}`),
      mode: "markers", name, marker: { color, size, opacity: 0.7 },
    });
    return draw(node, [part("trials", rows.filter((r) => !best.has(r)), css("--soft"), 5), part("Pareto set", [...best], css("--blue"), 8)],
      { xaxis: { title: { text: text(a.name) } }, yaxis: { title: { text: text(b.name) } } });
  }

  function bars(node, labels, values, title) {
    return draw(node, [{ type: "bar", orientation: "h", y: labels.map(text).reverse(), x: [...values].reverse(), marker: { color: css("--blue") } }],
      { xaxis: { title: { text: text(title) }, tickformat: ".0%", rangemode: "tozero" } });
  }

  function timeline(node, rows) {
    const colors = { ok: css("--blue"), failed: css("--bad"), timeout: "#b06a00", pruned: "#e0a030", running: "#55a868", queued: css("--soft") };
    const now = Date.now() / 1000;
    const states = [...new Set(rows.map((r) => r.state))];
    return draw(node, states.map((state) => {
      const mine = rows.filter((r) => r.state === state);
      return {
        type: "bar", orientation: "h", name: state, base: mine.map((r) => new Date(r.started_s * 1000)),
        x: mine.map((r) => Math.max(((r.finished_s || now) - r.started_s) * 1000, 1)), y: mine.map((r) => r.number), width: 0.8, marker: { color: colors[state] || css("--soft") },
      };
    }), { barmode: "overlay", xaxis: { type: "date", title: { text: "time" } }, yaxis: { title: { text: "trial" } } });
  }

  function lines(node, series, labels) {
    const small = series.every((s) => s.y.every((v) => Math.abs(v) < 1e-2));
    const fromZero = labels.zero && series.every((s) => s.y.every((v) => v === null || v >= 0));
    return draw(node, series.map((s) => ({ x: s.x, y: s.y, name: text(s.name), mode: s.x.length < 30 ? "lines+markers" : "lines", marker: { size: 4 }, line: s.line || {} })),
      { xaxis: { title: { text: text(labels.x) } }, yaxis: { title: { text: text(labels.y) }, type: labels.log ? "log" : "linear", exponentformat: small ? "power" : "SI", rangemode: fromZero ? "tozero" : "normal" } });
  }

  return { history, parallel, slice, pareto, bars, timeline, lines, front };
})();
