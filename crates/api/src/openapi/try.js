// A page to try the API. What the server says is only ever shown as text.
"use strict";

const byId = (id) => document.getElementById(id);
const make = (tag, text, more = {}) => Object.assign(document.createElement(tag), { textContent: text }, more);
let api = null;

const follow = (schema) =>
  schema && schema.$ref
    ? schema.$ref.slice(2).split("/").reduce((at, part) => at[part], api)
    : schema;

// An example of a schema: what is required, with values of the right type.
function example(given) {
  const schema = follow(given) || {};
  if (schema.oneOf) return example(schema.oneOf[0]);
  if (schema.enum) return schema.enum[0];
  const type = [].concat(schema.type || "object")[0];
  if (type === "object") {
    const made = {};
    for (const name of schema.required || []) made[name] = example(schema.properties[name]);
    return made;
  }
  return { array: [], integer: schema.minimum || 0, boolean: false, string: "" }[type];
}

async function ask(method, path, body) {
  const headers = { "content-type": "application/json", prefer: "wait=30, handling=strict" };
  const session = byId("session").value.trim();
  if (session) headers.authorization = "OAuth " + session;
  const answer = await fetch(path, { method, headers, body: body || undefined });
  const text = await answer.text();
  let shown = text;
  try { shown = JSON.stringify(JSON.parse(text), null, 2); } catch { /* plain text */ }
  return { status: answer.status + " " + answer.statusText, shown, text };
}

function fields(operation) {
  return (operation.parameters || []).map((parameter) => {
    const label = make("label", parameter.name + (parameter.required ? " *" : ""));
    const input = make("input", "", { placeholder: [].concat(follow(parameter.schema).type || "").join(" ") });
    label.append(input, make("small", parameter.description || ""));
    return { parameter, input, label };
  });
}

function target(path, all) {
  const query = new URLSearchParams();
  let at = path;
  for (const { parameter, input } of all) {
    const value = input.value.trim();
    if (parameter.in === "path") at = at.replace("{" + parameter.name + "}", encodeURIComponent(value));
    // Several conditions are written with " & " between them.
    else if (parameter.name === "q") value.split(" & ").filter(Boolean).forEach((one) => query.append("q", one));
    else if (value) query.append(parameter.name, value);
  }
  const text = query.toString();
  return api.servers[0].url + at + (text ? "?" + text : "");
}

function show(path, method, operation) {
  const main = byId("main");
  const all = fields(operation);
  const form = make("form", "");
  const schema = operation.requestBody && operation.requestBody.content["application/json"].schema;
  const body = schema && make("textarea", "", { rows: 12, spellcheck: false });
  if (body) body.value = JSON.stringify(example(schema), null, 2);
  const result = make("pre", "");
  form.append(...all.map((field) => field.label));
  if (body) form.append(make("p", "Body"), body);
  form.append(make("p", ""), make("button", "Send"));
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    result.textContent = "...";
    try {
      const answer = await ask(method.toUpperCase(), target(path, all), body && body.value);
      result.textContent = answer.status + "\n\n" + answer.shown;
    } catch (error) { result.textContent = String(error); }
  });
  const what = (schema && follow(schema)) || {};
  const messages = (what.oneOf || [what]).flatMap((one) => Object.values(one.properties || {}));
  const known = messages.filter((one) => one.$ref).map(follow).flatMap((one) => Object.entries(one.properties));
  const list = make("ul", "");
  for (const [name, field] of known) list.append(make("li", name + ": " + (field.description || "")));
  main.replaceChildren(
    make("h2", operation.summary), make("code", method.toUpperCase() + " " + api.servers[0].url + path),
    make("p", operation.description || ""), form, list, result);
}

function index(wanted) {
  const items = [];
  for (const [path, methods] of Object.entries(api.paths))
    for (const [method, operation] of Object.entries(methods)) {
      if (!(operation.summary + path).toLowerCase().includes(wanted.toLowerCase())) continue;
      const button = make("button", operation.summary);
      button.append(make("small", method.toUpperCase() + " " + path));
      button.addEventListener("click", () => show(path, method, operation));
      items.push([operation.summary, button]);
    }
  items.sort(([a], [b]) => a.localeCompare(b));
  byId("list").replaceChildren(...items.map(([, button]) => { const li = make("li", ""); li.append(button); return li; }));
}

byId("login").addEventListener("submit", async (event) => {
  event.preventDefault();
  const told = byId("told");
  // Browsers have SHA-512 on https and on localhost only.
  if (!window.crypto.subtle) { told.textContent = "open this page by https or on localhost, or paste a session"; return; }
  const bytes = await window.crypto.subtle.digest("SHA-512", new TextEncoder().encode(byId("password").value));
  const password = [...new Uint8Array(bytes)].map((byte) => byte.toString(16).padStart(2, "0")).join("");
  const body = JSON.stringify({ logInByAccount: { accountName: byId("account").value, password } });
  const answer = await ask("PUT", api.servers[0].url + "/accounts/login", body);
  const said = JSON.parse(answer.text);
  if (said.inventory) { byId("session").value = said.inventory.uuid; byId("password").value = ""; }
  told.textContent = said.inventory ? "logged in" : said.error.details;
});
byId("filter").addEventListener("input", (event) => index(event.target.value));
fetch("/openapi.json").then((answer) => answer.json()).then((read) => { api = read; index(""); });
