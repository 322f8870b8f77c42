"use strict";
const $ = id => document.getElementById(id);
const model = document.querySelector("main").dataset.model;
const colours = [[230, 159, 0], [86, 180, 233], [0, 158, 115], [240, 228, 66], [0, 114, 178], [213, 94, 0], [204, 121, 167]];
let newest = 0, shown = "";

// Texts come from the model and the server: they are set as text, never as HTML.
function add(parent, tag, text = "", classes = "") {
  const child = document.createElement(tag);
  child.textContent = text;
  if (classes) child.className = classes;
  parent.append(child);
  return child;
}

async function request(action, body) {
  const headers = {"Content-Type": "application/json"};
  if ($("token")) headers.Authorization = `Bearer ${$("token").value}`;
  const options = body ? {method: "POST", headers, body: JSON.stringify(body)} : {headers};
  const response = await fetch(`v1/models/${encodeURIComponent(model)}${action}`, options);
  const value = await response.json();
  if (!response.ok) throw new Error(value.error);
  return value;
}

// Asked with each image: a new version may have others.
async function findNames() {
  try {
    return (await request(":predict", {signature_name: "class_names", inputs: {}})).outputs;
  } catch { return []; }  // a model of somebody else
}

// The protocol leaves out the name of a single output.
async function nameOutput(output) {
  if (typeof output === "object" && !Array.isArray(output) && !("b64" in output)) return output;
  const {signature_def: signatures} = (await request("/metadata")).metadata.signature_def;
  return {[Object.keys(signatures.serve_bytes.outputs)[0]]: output};
}

function encode(file) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result.slice(reader.result.indexOf(",") + 1));
    reader.onerror = () => reject(reader.error);
    reader.readAsDataURL(file);
  });
}

async function show(file) {
  const number = ++newest;
  $("fault").textContent = "";
  $("state").textContent = "Asking the model …";
  $("answer").hidden = true;
  try {
    const start = performance.now();
    const bytes = {b64: await encode(file)};
    const answer = await request(":predict", {signature_name: "serve_bytes", instances: [{bytes}]});
    const seconds = (performance.now() - start) / 1000;
    const classes = await findNames(), output = await nameOutput(answer.predictions[0]);
    if (number !== newest) return;  // another image came meanwhile
    await render(file, output, classes);
    $("state").textContent = `Answered in ${seconds.toFixed(2)} s.`;
    $("answer").hidden = false;
  } catch (error) {
    if (number !== newest) return;
    $("state").textContent = "";
    $("fault").textContent = error.message;
  }
}

async function render(file, output, classes) {
  if (shown) URL.revokeObjectURL(shown);
  shown = URL.createObjectURL(file);
  $("image").src = shown;
  $("image").alt = `The image ${file.name}`;
  $("details").replaceChildren();
  const maps = Object.keys(output).filter(key => key.endsWith("_bytes") && output[key]?.b64);
  const used = new Set([...maps, "index", "height", "width", "label", "labels"]);
  $("heading").textContent = [output.label, output.labels, maps.length ? "Each pixel" : "Answer"].find(text => text) ?? "";
  $("overlay").hidden = true;
  if (maps.length) await renderMaps(output, maps, classes);
  for (const key of ["probabilities", "values"]) {
    if (Array.isArray(output[key])) tabulate(key, output, classes);
    used.add(key);
  }
  if (output.probabilities) used.add("predicted").add("label_set");
  renderNotes(output, used, classes);
}

function renderNotes(output, used, classes) {
  const notes = [];
  if (Array.isArray(output.label_set)) {
    const members = classes.filter((_, place) => output.label_set[place]);
    notes.push(`Label set: ${members.join(", ") || "empty"}`);
  }
  if ("abstain" in output) notes.push(output.abstain ? "The model abstains: it is not sure of this image" : "The model does not abstain");
  if ("ood_score" in output) notes.push(`Distance from known images (ood_score): ${output.ood_score.toFixed(3)}`);
  for (const [key, value] of Object.entries(output)) {
    if (!used.has(key) && !["abstain", "ood_score"].includes(key)) notes.push(`${key}: ${JSON.stringify(value).slice(0, 300)}`);
  }
  if (!notes.length) return;
  const list = add($("details"), "ul", "", "notes");
  notes.forEach(note => add(list, "li", note));
}

function tabulate(key, output, classes) {
  const values = output[key], chosen = output.predicted ?? output.label_set ?? [];
  const order = [...values.keys()];
  if (key === "probabilities") order.sort((a, b) => values[b] - values[a]);
  const nameOf = place => classes[place] ?? `${place}`;
  const table = add($("details"), "table");
  const kept = order.slice(0, key === "probabilities" ? 10 : 100);
  add(table, "caption", kept.length < order.length ? `The ${kept.length} highest of ${order.length} ${key}` : key[0].toUpperCase() + key.slice(1));
  const body = add(table, "tbody");
  kept.forEach(place => {
    const row = add(body, "tr");
    const head = add(row, "th", nameOf(place) + (output.predicted?.[place] ? " ✓" : ""), chosen[place] ? "top" : "");
    head.scope = "row";
    if (key === "probabilities") add(head, "div", "", "bar").style.width = `${100 * Math.min(Math.max(values[place], 0), 1)}%`;
    add(row, "td", key === "probabilities" ? values[place].toFixed(4) : `${values[place]}`, "number");
  });
}

function colourOf(index) {
  if (index < colours.length) return colours[index];
  const hue = index * 137.508 % 360, at = shift => {  // the golden angle keeps neighbours apart
    const k = (shift + hue / 30) % 12;
    return Math.round(255 * (0.5 - 0.4 * Math.max(-1, Math.min(k - 3, 9 - k, 1))));
  };
  return [at(0), at(8), at(4)];
}

async function readPixels(encoded) {
  const bytes = Uint8Array.from(atob(encoded), char => char.charCodeAt(0));
  const bitmap = await createImageBitmap(new Blob([bytes], {type: "image/png"}), {colorSpaceConversion: "none", premultiplyAlpha: "none"});
  const canvas = new OffscreenCanvas(bitmap.width, bitmap.height), context = canvas.getContext("2d");
  context.drawImage(bitmap, 0, 0);
  return context.getImageData(0, 0, bitmap.width, bitmap.height);
}

const painters = {
  mask: (data, at) => {
    const index = data[at];
    if (index === 255) return data.fill(0, at, at + 4);  // the model has not seen it
    data.set([...colourOf(index), 255], at);
  },
  probability: (data, at) => { data.set([213, 94, 0, data[at]], at); },
};

async function renderMaps(output, maps, classes) {
  const controls = add($("details"), "div", "", "controls");
  if (maps.length > 1) {
    const group = add(controls, "fieldset");
    add(group, "legend", "Map");
    for (const map of maps) {
      const label = add(group, "label"), radio = add(label, "input");
      Object.assign(radio, {type: "radio", name: "map", checked: map === maps[0]});
      radio.addEventListener("change", () => paint(output, map, legend, classes));
      label.append(` ${map.replace(/_bytes$/, "")}`);
    }
  }
  const label = add(controls, "label", "Overlay "), slider = add(label, "input");
  Object.assign(slider, {type: "range", min: 0, max: 100, value: 60, id: "opacity"});
  const fade = () => { $("overlay").style.opacity = slider.value / 100; };
  slider.addEventListener("input", fade);
  fade();
  const legend = add($("details"), "div");
  await paint(output, maps[0], legend, classes);
}

async function paint(output, map, legend, classes) {
  const pixels = await readPixels(output[map].b64), kind = map.replace(/_bytes$/, ""), counts = new Map();
  for (let at = 0; at < pixels.data.length; at += 4) {
    if (kind === "mask") counts.set(pixels.data[at], (counts.get(pixels.data[at]) ?? 0) + 1);
    painters[kind]?.(pixels.data, at);
  }
  const canvas = $("overlay");
  canvas.width = pixels.width;
  canvas.height = pixels.height;
  canvas.getContext("2d").putImageData(pixels, 0, 0);
  canvas.setAttribute("aria-label", `${kind} of each pixel`);
  canvas.hidden = false;
  legend.replaceChildren();
  if (kind !== "mask") return;
  counts.delete(255);
  const total = [...counts.values()].reduce((sum, count) => sum + count, 0), table = add(legend, "table");
  add(table, "caption", "Share of the pixels");
  const body = add(table, "tbody");
  for (const [index, count] of [...counts].sort((a, b) => b[1] - a[1])) {
    const row = add(body, "tr"), head = add(row, "th");
    head.scope = "row";
    add(head, "span", "", "swatch").style.background = `rgb(${colourOf(index)})`;
    head.append(classes[index] ?? `${index}`);
    add(row, "td", `${(100 * count / total).toFixed(1)} %`, "number");
  }
}

const take = files => { if (files.length) show(files[0]); };
$("file").addEventListener("change", event => { take(event.target.files); });
for (const kind of ["dragenter", "dragover", "dragleave", "drop"]) {
  document.addEventListener(kind, event => {
    event.preventDefault();
    $("drop").classList.toggle("over", kind === "dragenter" || kind === "dragover");
    if (kind === "drop") take(event.dataTransfer.files);
  });
}
