// Draws the two adapted cells as graphs, with those of the meta-model before adaptation: the thickness of lines shows
// their weights; pruned edges are grey.

import { h, percent, svg } from "./dom.js";

const [STEP, HIGH, RADIUS, APART] = [230, 330, 20, 4];
const WORDS = { max_pool_3x3: "max pool", avg_pool_3x3: "avg pool", skip: "skip", conv_3x3: "conv 3×3", conv_1x1: "conv 1×1", sep_conv_3x3: "sep conv 3×3", dil_conv_3x3: "dil conv 3×3", depthwise_3x3: "depthwise 3×3" };
const TITLES = { normal: "Normal cell", reduction: "Reduction cell" };
export const words = (name) => WORDS[name] ?? name.replaceAll("_", " ");
const title = (source) => ({ input0: "cell before last", input1: "last cell" })[source] ?? source.replace("node", "node ");
const weightOf = (edge, name) => edge?.operations.find((each) => each.name === name)?.weight;

/** `nodes`: those of an episode's genotype; `card`: that of its meta-model, null if unknown. */
export function cell(kind, nodes, card) {
  const edges = pairs(kind, nodes, card);
  const names = namesOf(edges, card);
  return h("figure", { class: "cell" },
    h("figcaption", {}, h("h3", {}, TITLES[kind]), h("p", { class: "quiet" }, summary(edges, names))),
    h("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": `${TITLES[kind]}, graph` }, graph(TITLES[kind], nodes.length, edges)),
    h("details", {}, h("summary", {}, "As a table"), h("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": `${TITLES[kind]}, table` }, table(edges, names))));
}

/** In one sentence what the adaptation changed in both cells. */
export function changes(genotype, card) {
  const edges = ["normal", "reduction"].flatMap((kind) => pairs(kind, genotype[kind], card));
  return `Its architecture: ${summary(edges, namesOf(edges, card))}`;
}

/** The legend. */
export function key(card) {
  const line = (name) => svg("svg", { viewBox: "0 0 34 8", class: "graph swatch", "aria-hidden": "true" }, svg("path", { d: "M1 4H33", class: name, "stroke-width": 5 }));
  return h("p", { class: "quiet key" },
    h("span", {}, line("kept"), "adapted"),
    card?.architecture ? h("span", {}, line("was"), "meta-model, before adaptation") : null,
    h("span", {}, line("pruned"), "pruned"),
    h("span", {}, "Thickness shows an edge's weight; the label shows its strongest operation and its share. c₋₁ and c₋₂ are the previous cell and the one before it."));
}

/** All edges that a cell can have: {source, target, kept, was}, the last two null where there is none. */
function pairs(kind, nodes, card) {
  const before = card?.architecture?.[kind];
  return nodes.flatMap((node, at) => candidates(at).map((source) => ({
    source, target: `node${at}`, kept: edgeOf(node, source), was: before ? edgeOf(before[at], source) : null,
  })));
}

const namesOf = (edges, card) =>
  card?.config?.network?.operations ?? [...new Set(edges.flatMap(({ kept }) => kept?.operations.map(({ name }) => name) ?? []))];
const edgeOf = (node, source) => node.inputs.find((edge) => edge.source === source) ?? null;
const candidates = (node) => ["input0", "input1", ...Array.from({ length: node }, (_, at) => `node${at}`)];
const best = (edge) => edge.operations.reduce((a, b) => (b.weight > a.weight ? b : a));

function summary(edges, names) {
  const kept = edges.filter((edge) => edge.kept);
  const chosen = kept.reduce((sum, edge) => sum + edge.kept.operations.length, 0);
  const left = `${kept.length} of ${edges.length} edges and ${chosen} of ${edges.length * names.length} operations kept.`;
  const compared = kept.filter((edge) => edge.was);
  if (!compared.length) return left;
  const moved = Math.max(...compared.flatMap(({ kept, was }) => kept.operations.map(({ name, weight }) => Math.abs(weight - (weightOf(was, name) ?? 0)))));
  const other = compared.filter(({ kept, was }) => best(kept).name !== best(was).name).length;
  return `${left} Adaptation changed the share of an operation by at most ${(100 * moved).toFixed(1)} points; ${other || "no"} edge${other === 1 ? " has" : "s have"} a different strongest operation.`;
}

function places(count) {
  const at = { input0: [40, 60], input1: [40, 270] };
  // Heights at which, with up to three nodes, no edge crosses a node.
  for (let node = 0; node < count; node += 1) at[`node${node}`] = [40 + STEP * (node + 1), [204, 50, 285][node % 3]];
  at.output = [40 + STEP * (count + 1), 165];
  return at;
}

function graph(name, count, edges) {
  const at = places(count);
  const wide = at.output[0] + 40;
  // Pruned edges first, so that the kept ones are drawn over them.
  const ordered = [...edges].sort((a, b) => Number(Boolean(a.kept)) - Number(Boolean(b.kept)));
  const outputs = Array.from({ length: count }, (_, node) => ({ source: `node${node}`, target: "output" }));
  return svg("svg", { viewBox: `0 15 ${wide} ${HIGH - 15}`, class: "graph", role: "img", "aria-label": `${name}; the table below has the same values` },
    outputs.map((edge) => svg("path", { d: path(at, edge, 0), class: "out" })),
    ordered.map((edge) => connection(at, edge)),
    ordered.filter((edge) => edge.kept).map((edge) => tag(at, edge)),
    Object.entries(at).map(([key, [x, y]]) => svg("g", { class: key.startsWith("node") ? "node" : "end-node" },
      svg("circle", { cx: x, cy: y, r: RADIUS }),
      svg("text", { x, y: y + 5 }, key === "output" ? "out" : key.startsWith("input") ? ["c₋₂", "c₋₁"][Number(key.at(-1))] : key.slice(4)))));
}

function connection(at, edge) {
  const { kept, was } = edge;
  const line = (name, weight, down) => svg("path", { d: path(at, edge, down), class: name, "stroke-width": (1 + 5 * weight).toFixed(2) });
  return svg("g", {}, svg("title", {}, description(edge)),
    was ? line("was", was.weight, -APART) : null,
    kept ? line("kept", kept.weight, was ? APART : 0) : line("pruned", 0.2, was ? APART : 0));
}

function description({ source, target, kept }) {
  const from = `${title(source)} → ${title(target)}`;
  if (!kept) return `${from}: pruned`;
  return `${from}: ${percent(kept.weight)}; ${kept.operations.map((each) => `${words(each.name)} ${percent(each.weight)}`).join(", ")}`;
}

function tag(at, edge) {
  const { name, weight } = best(edge.kept);
  const [x, y] = middle(at, edge);
  const text = `${words(name)} ${percent(weight)}`;
  const wide = 6.9 * text.length + 14;
  return svg("g", { class: "tag" },
    svg("rect", { x: x - wide / 2, y: y - 11, width: wide, height: 22, rx: 11 }),
    svg("text", { x, y: y + 4 }, text), svg("title", {}, description(edge)));
}

function path(at, { source, target }, down) {
  const [[ax, ay], [bx, by]] = [at[source], at[target]];
  const bend = (bx - ax) / 2.2;
  return `M${ax} ${ay + down}C${ax + bend} ${ay + down} ${bx - bend} ${by + down} ${bx} ${by + down}`;
}

/** The position of an edge's label on its curve, chosen so that the labels of the longest edges do not overlap. */
function middle(at, { source, target }) {
  const [[ax, ay], [bx, by]] = [at[source], at[target]];
  const bend = (bx - ax) / 2.2;
  const t = bx - ax <= 2 * STEP ? 0.5 : source === "input0" ? 0.62 : 0.4;
  const on = (a, b, c, d) => (1 - t) ** 3 * a + 3 * (1 - t) ** 2 * t * b + 3 * (1 - t) * t ** 2 * c + t ** 3 * d;
  return [on(ax, ax + bend, bx - bend, bx), on(ay, ay, by, by)];
}

function table(edges, names) {
  const head = ["From", "To", "Edge", ...names.map(words)];
  return h("table", { class: "edges" },
    h("caption", {}, edges.some(({ was }) => was) ? "Weights in per cent, before → after adaptation; pruned ones are grey." : "Weights in per cent."),
    h("thead", {}, h("tr", {}, head.map((name) => h("th", { scope: "col" }, name)))),
    h("tbody", {}, edges.map(({ source, target, kept, was }) => h("tr", {},
      h("td", {}, title(source)), h("td", {}, title(target)), change(was?.weight, kept?.weight),
      names.map((name) => change(weightOf(was, name), weightOf(kept, name)))))));
}

/** A cell of a table with a weight before and after the adaptation; undefined: pruned. */
export function change(before, after) {
  const figure = (share) => (100 * share).toFixed(share < 0.0995 ? 1 : 0);
  const then = before === undefined ? "" : `${figure(before)} → `;
  return h("td", { class: after === undefined ? "gone" : null }, after === undefined ? `${then}pruned` : then + figure(after));
}
