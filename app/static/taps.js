// What was adapted of the backbone for photos: the operations on its maps, and how much each map counts.

import { change, words } from "./cells.js";
import { h } from "./dom.js";

/** `nodes`: those of an episode's genotype, a map each and last the backbone's next layer if it has one; `card`: the meta-model's, null if
 * unknown. */
export function taps(nodes, card) {
  const rows = nodes.map(({ inputs: [edge] }, at) => ({ edge, was: card?.architecture?.normal[at]?.inputs[0] }));
  const names = [...new Set(rows.flatMap(({ edge }) => edge.operations.map(({ name }) => name)))].filter((name) => name !== "skip");
  const weight = (edge, name) => edge?.operations.find((each) => each.name === name)?.weight;
  return h("figure", { class: "cell" },
    h("figcaption", {}, h("h3", {}, "Maps of the backbone"), h("p", { class: "quiet" },
      "A pretrained network turns each image into maps. The adaptation adds operations to them, and decides how much each map counts.")),
    h("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Maps of the backbone" }, h("table", { class: "edges" },
      h("caption", {}, rows.some(({ was }) => was) ? "Weights in per cent, before → after adaptation." : "Weights in per cent."),
      h("thead", {}, h("tr", {}, ["Map", "Counts", ...names.map(words)].map((name) => h("th", { scope: "col" }, name)))),
      h("tbody", {}, rows.map(({ edge, was }) => h("tr", {}, h("th", { scope: "row" }, title(edge.source)), change(was?.weight, edge.weight),
        names.map((name) => (edge.operations.some((each) => each.name === "skip") ? h("td", {}, "–") : change(weight(was, name), weight(edge, name))))))))));
}

/** In one sentence which map counts most. */
export function mostCounted(nodes, card) {
  const edges = nodes.map(({ inputs: [edge] }) => edge);
  const at = edges.reduce((best, { weight }, here) => (weight > edges[best].weight ? here : best), 0);
  const was = card?.architecture?.normal[at]?.inputs[0].weight;
  const weight = edges[at].weight.toFixed(2);
  const before = was === undefined ? "" : was.toFixed(2) === weight ? ", as before the adaptation" : `, ${was.toFixed(2)} before the adaptation`;
  return `Of what its pretrained network sees, the ${title(edges[at].source)} ${edges[at].source.startsWith("map") ? "map " : ""}counts most: its weight is ${weight}${before}.`;
}

const title = (source) => (source.startsWith("map") ? `${source.slice(3)} × ${source.slice(3)}` : "next layer");
