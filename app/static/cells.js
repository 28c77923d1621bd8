// The two adapted cells as graphs: what was kept, as thick as its weight, and what was pruned, in grey.

import { h, percent, svg } from "./dom.js";

const [STEP, HIGH, RADIUS] = [230, 320, 20];
const WORDS = { max_pool_3x3: "max pool", avg_pool_3x3: "avg pool", skip: "skip", conv_3x3: "conv 3×3", conv_1x1: "conv 1×1", sep_conv_3x3: "sep conv 3×3" };
const words = (name) => WORDS[name] ?? name.replaceAll("_", " ");
const title = (source) => ({ input0: "cell before last", input1: "last cell" })[source] ?? source.replace("node", "node ");

/** `nodes` as an episode's genotype has them; `operations`: the names that the search space has, null if not known. */
export function cell(name, nodes, operations) {
  const edges = nodes.flatMap((node, at) => candidates(at).map((source) => ({
    source, target: `node${at}`, kept: node.inputs.find((edge) => edge.source === source) ?? null,
  })));
  return h("figure", { class: "cell" },
    h("figcaption", {}, h("h3", {}, `${name} cell`), h("p", { class: "quiet" }, summary(edges, operations))),
    h("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": `${name} cell, graph` }, graph(name, nodes.length, edges)),
    h("details", {}, h("summary", {}, "As a table"), table(edges, operations)));
}

const candidates = (node) => ["input0", "input1", ...Array.from({ length: node }, (_, at) => `node${at}`)];

function summary(edges, operations) {
  const kept = edges.filter((edge) => edge.kept);
  const chosen = kept.reduce((sum, edge) => sum + edge.kept.operations.length, 0);
  const all = operations ? ` and ${chosen} of ${edges.length * operations.length} operations` : "";
  return `${kept.length} of ${edges.length} edges${all} kept.`;
}

function places(count) {
  const at = { input0: [40, 60], input1: [40, 260] };
  // Heights at which no edge of three nodes runs through a node.
  for (let node = 0; node < count; node += 1) at[`node${node}`] = [40 + STEP * (node + 1), [197, 50, 275][node % 3]];
  at.output = [40 + STEP * (count + 1), 160];
  return at;
}

function graph(name, count, edges) {
  const at = places(count);
  const wide = at.output[0] + 40;
  // Pruned ones first, so that the kept lie over them.
  const ordered = [...edges].sort((a, b) => Number(Boolean(a.kept)) - Number(Boolean(b.kept)));
  const outputs = Array.from({ length: count }, (_, node) => ({ source: `node${node}`, target: "output" }));
  return svg("svg", { viewBox: `0 15 ${wide} ${HIGH - 15}`, class: "graph", role: "img", "aria-label": `${name} cell; the table below says the same` },
    outputs.map((edge) => svg("path", { d: path(at, edge), class: "out" })),
    ordered.map((edge) => connection(at, edge)),
    ordered.filter((edge) => edge.kept).map((edge) => tag(at, edge)),
    Object.entries(at).map(([key, [x, y]]) => svg("g", { class: key.startsWith("node") ? "node" : "end-node" },
      svg("circle", { cx: x, cy: y, r: RADIUS }),
      svg("text", { x, y: y + 5 }, key === "output" ? "out" : key.startsWith("input") ? ["c₋₂", "c₋₁"][Number(key.at(-1))] : key.slice(4)))));
}

function connection(at, edge) {
  const width = edge.kept ? 1.5 + 6 * edge.kept.weight : 1.5;
  return svg("path", { d: path(at, edge), class: edge.kept ? "kept" : "pruned", "stroke-width": width.toFixed(2) },
    svg("title", {}, told(edge)));
}

function told({ source, target, kept }) {
  const from = `${title(source)} → ${title(target)}`;
  if (!kept) return `${from}: pruned`;
  return `${from}: ${percent(kept.weight)}; ${kept.operations.map((each) => `${words(each.name)} ${percent(each.weight)}`).join(", ")}`;
}

function tag(at, edge) {
  const best = edge.kept.operations.reduce((a, b) => (b.weight > a.weight ? b : a));
  const more = edge.kept.operations.length - 1;
  const [x, y] = middle(at, edge);
  const text = words(best.name) + (more ? ` +${more}` : "");
  const wide = 6.9 * text.length + 16;
  return svg("g", { class: "tag" },
    svg("rect", { x: x - wide / 2, y: y - 11, width: wide, height: 22, rx: 11 }),
    svg("text", { x, y: y + 4 }, text), svg("title", {}, told(edge)));
}

function path(at, { source, target }) {
  const [[ax, ay], [bx, by]] = [at[source], at[target]];
  const bend = (bx - ax) / 2.2;
  return `M${ax} ${ay}C${ax + bend} ${ay} ${bx - bend} ${by} ${bx} ${by}`;
}

/** Where on its curve an edge's tag stands, so that those of the longest ones stand apart. */
function middle(at, { source, target }) {
  const [[ax, ay], [bx, by]] = [at[source], at[target]];
  const bend = (bx - ax) / 2.2;
  const t = bx - ax <= 2 * STEP ? 0.5 : source === "input0" ? 0.62 : 0.4;
  const on = (a, b, c, d) => (1 - t) ** 3 * a + 3 * (1 - t) ** 2 * t * b + 3 * (1 - t) * t ** 2 * c + t ** 3 * d;
  return [on(ax, ax + bend, bx - bend, bx), on(ay, ay, by, by)];
}

function table(edges, operations) {
  return h("table", { class: "edges" },
    h("thead", {}, h("tr", {}, ["From", "To", "Weight", "Operations"].map((name) => h("th", { scope: "col" }, name)))),
    h("tbody", {}, edges.map((edge) => h("tr", { class: edge.kept ? null : "gone" },
      h("td", {}, title(edge.source)), h("td", {}, title(edge.target)),
      h("td", {}, edge.kept ? percent(edge.kept.weight) : "pruned"),
      h("td", {}, edge.kept ? listed(edge.kept.operations, operations) : "")))));
}

function listed(kept, operations) {
  const names = new Set(kept.map((each) => each.name));
  const pruned = (operations ?? []).filter((name) => !names.has(name));
  return [kept.map((each) => `${words(each.name)} ${percent(each.weight)}`).join(", "),
    pruned.length ? h("span", { class: "quiet" }, `; pruned: ${pruned.map(words).join(", ")}`) : null];
}
