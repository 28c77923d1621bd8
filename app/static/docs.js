// The API reference, generated from /openapi.json.

import { h, showError } from "./dom.js";

const METHODS = ["get", "post", "put", "patch", "delete"];
const main = document.getElementById("main");

async function start() {
  try {
    const answer = await fetch("openapi.json");
    if (!answer.ok) throw new Error(`/openapi.json responded with status ${answer.status}`);
    show(await answer.json());
    // The browser looked for the address's fragment before its element existed.
    document.getElementById(decodeURIComponent(location.hash.slice(1)))?.scrollIntoView();
  } catch (error) {
    showError(main, error);
  }
}

function show(description) {
  const { info, paths, components } = description;
  const operations = Object.entries(paths).flatMap(([path, methods]) =>
    METHODS.filter((method) => methods[method]).map((method) => ({ path, method, ...methods[method], id: `${method} ${path}` })));
  const tags = [...new Set(operations.map(tagOf))];
  main.replaceChildren(h("div", { class: "page reference" },
    h("div", { class: "lead" }, h("h1", {}, `${info.title} API `, h("small", { class: "quiet" }, info.version)), h("p", {}, words(info.description ?? ""))),
    h("nav", { class: "card contents", "aria-label": "Operations" }, tags.map((tag) => h("div", {}, h("h2", {}, tag),
      h("ul", {}, operations.filter((each) => tagOf(each) === tag).map((each) => h("li", {}, h("a", { href: `#${encodeURIComponent(each.id)}` }, name(each)))))))),
    h("section", { class: "card" }, h("h2", {}, "Authentication"), h("dl", {}, Object.values(components.securitySchemes ?? {}).map((scheme) => [h("dt", {}, schemeName(scheme)), h("dd", {}, words(scheme.description ?? ""))]))),
    tags.map((tag) => h("section", { class: "card", "aria-label": tag }, h("h2", {}, tag), operations.filter((each) => tagOf(each) === tag).map(operation))),
    h("section", { class: "card" }, h("h2", {}, "Schemas"), Object.entries(components.schemas).map(([title, schema]) =>
      h("article", { id: `schema ${title}` }, h("h3", {}, title), schema.description ? h("p", {}, words(schema.description)) : null, fields(schema))))));
}

const tagOf = ({ tags }) => tags?.[0] ?? "other";
const name = ({ method, path }) => [h("code", { class: "method" }, method.toUpperCase()), " ", h("code", {}, path)];
const schemeName = (scheme) => (scheme.in === "cookie" ? `Cookie ${scheme.name}` : "Authorization: Bearer <token>");

function operation(each) {
  const { id, summary, description, parameters = [], requestBody, responses } = each;
  const bodies = Object.entries(requestBody?.content ?? {});
  return h("article", { id }, h("h3", {}, name(each)), h("p", {}, h("strong", {}, summary)), description ? h("p", {}, words(description)) : null,
    parameters.length ? rows("Parameters", parameters.map((parameter) => [
      [h("code", {}, parameter.name), parameter.required ? " *" : ""], parameter.in, type(parameter.schema), words(parameter.description ?? parameter.schema?.description ?? "")])) : null,
    bodies.map(([media, { schema, example }]) => h("div", {}, h("h4", {}, "Body: ", h("code", {}, media)), schema.$ref ? h("p", {}, type(schema)) : fields(schema),
      example ? h("details", {}, h("summary", {}, "Example"), h("pre", { tabindex: 0 }, JSON.stringify(example, null, 2))) : null)),
    rows("Responses", Object.entries(responses).map(([status, { description: text, content = {} }]) => [
      h("code", {}, status), Object.keys(content).join(", "), type(Object.values(content)[0]?.schema), words(text ?? "")])));
}

/** A table without a header row: each row is [name, location, type, description]. */
function rows(title, lines) {
  return h("table", {}, h("caption", {}, title),
    h("tbody", {}, lines.map(([first, ...rest]) => h("tr", {}, h("th", { scope: "row" }, first), rest.map((cell) => h("td", {}, cell))))));
}

function fields(schema) {
  const entries = Object.entries(schema.properties ?? {});
  if (!entries.length) return h("p", {}, type(schema));
  const needed = new Set(schema.required ?? []);
  return rows("Fields", entries.map(([field, each]) => [[h("code", {}, field), needed.has(field) ? " *" : ""], type(each), limits(each), words(each.description ?? "")]));
}

function type(schema) {
  if (!schema) return "";
  if (schema.$ref) {
    const title = schema.$ref.split("/").at(-1);
    return h("a", { href: `#${encodeURIComponent(`schema ${title}`)}` }, title);
  }
  const choices = schema.anyOf ?? schema.oneOf ?? schema.allOf;
  if (choices) return choices.flatMap((each, at) => [at ? " or " : null, type(each)]);
  if (schema.enum) return schema.enum.map((value) => JSON.stringify(value)).join(", ");
  if (schema.const !== undefined) return JSON.stringify(schema.const);
  if (schema.type === "array") return ["list of ", type(schema.items)];
  if (schema.type === "object" && schema.additionalProperties) return ["object of ", schema.additionalProperties === true ? "anything" : type(schema.additionalProperties)];
  return schema.format ? `${schema.type} (${schema.format})` : (schema.type ?? "anything");
}

const LIMITS = { minimum: "from", maximum: "to", minLength: "length from", maxLength: "length to", minItems: "items from", maxItems: "items to", pattern: "pattern" };

function limits(schema) {
  const all = [schema, ...(schema.anyOf ?? [])];
  const parts = Object.entries(LIMITS).flatMap(([key, word]) => all.filter((each) => each[key] !== undefined).map((each) => `${word} ${each[key]}`));
  if (schema.default !== undefined && schema.default !== null) parts.push(`default ${JSON.stringify(schema.default)}`);
  return parts.join(", ");
}

/** Text with `code` in backticks. */
const words = (text) => text.split("`").map((part, at) => (at % 2 ? h("code", {}, part) : part));

start();
