"use strict";
// Draws the points of a corpus; everything it shows of a document is set as text, never as markup.
const data = JSON.parse(document.getElementById("data").textContent);
const bytes = Uint8Array.from(atob(data.points), (char) => char.charCodeAt(0));
const points = new Uint16Array(bytes.buffer); // x, y of each document, then of each question; y grows upwards
const documents = data.titles.length;
const at = (id) => document.getElementById(id);
const canvas = at("map"), pen = canvas.getContext("2d"), tip = at("tip");
const WORLD = 65536, GRID = 256, LISTED = 100, REACH = 8; // REACH: pixels around the pointer
const view = { x: WORLD / 2, y: WORLD / 2, scale: 1 };
let ratio = 1, width = 0, height = 0, image, pixels, hits, dirty = false;
let found = [], chosen = -1, lower = null;

// ---------------------------------------------------------------- which points are where: a grid, sorted by cell
const starts = new Uint32Array(GRID * GRID + 1), order = new Uint32Array(documents);
const cellOf = (i) => (points[2 * i + 1] >> 8) * GRID + (points[2 * i] >> 8);
for (let i = 0; i < documents; i++) starts[cellOf(i) + 1]++;
for (let c = 0; c < GRID * GRID; c++) starts[c + 1] += starts[c];
const next = starts.slice();
for (let i = 0; i < documents; i++) order[next[cellOf(i)]++] = i;

function nearest(px, py) {
  const x = view.x + (px * ratio - width / 2) / view.scale, y = view.y - (py * ratio - height / 2) / view.scale;
  const reach = (REACH * ratio) / view.scale, clamp = (v) => Math.max(0, Math.min(GRID - 1, v >> 8));
  let best = -1, least = reach * reach;
  for (let row = clamp(y - reach); row <= clamp(y + reach); row++) {
    for (let k = starts[row * GRID + clamp(x - reach)]; k < starts[row * GRID + clamp(x + reach) + 1]; k++) {
      const i = order[k], dx = points[2 * i] - x, dy = points[2 * i + 1] - y, far = dx * dx + dy * dy;
      if (far <= least) { least = far; best = i; }
    }
  }
  return best;
}

// ---------------------------------------------------------------- drawing
const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const dark = () => matchMedia("(prefers-color-scheme: dark)").matches;

function shades() { // by how many documents share a pixel
  const table = new Uint32Array(64), [few, many] = dark() ? [[58, 96, 150], [205, 228, 255]] : [[164, 196, 235], [8, 48, 107]];
  for (let n = 1; n < 64; n++) {
    const part = Math.log(n) / Math.log(63), mix = (k) => Math.round(few[k] + (many[k] - few[k]) * part);
    table[n] = (255 << 24) | (mix(2) << 16) | (mix(1) << 8) | mix(0);
  }
  return table;
}

function draw() {
  dirty = false;
  const table = shades(), dot = Math.max(1, Math.min(7, Math.round(ratio * Math.sqrt(view.scale / fit()) * (documents > 20000 ? 1 : 2.5))));
  const sx = view.scale, ox = width / 2 - view.x * sx, oy = height / 2 + view.y * sx, half = dot >> 1;
  hits.fill(0);
  for (let i = 0; i < documents; i++) {
    const px = (points[2 * i] * sx + ox - half) | 0, py = (oy - points[2 * i + 1] * sx - half) | 0;
    if (px < 0 || py < 0 || px + dot > width || py + dot > height) continue;
    for (let row = 0; row < dot; row++) {
      for (let k = (py + row) * width + px, end = k + dot; k < end; k++) if (hits[k] < 63) hits[k]++;
    }
  }
  for (let k = 0; k < hits.length; k++) pixels[k] = hits[k] ? table[hits[k]] : 0;
  pen.putImageData(image, 0, 0);
  const place = (i) => [points[2 * i] * sx + ox, oy - points[2 * i + 1] * sx];
  pen.fillStyle = colour("--found");
  for (const i of found) {
    const [x, y] = place(i);
    pen.fillRect(x - 2 * ratio, y - 2 * ratio, 4 * ratio, 4 * ratio);
  }
  pen.font = `600 ${11 * ratio}px system-ui, sans-serif`;
  pen.textAlign = "center";
  pen.textBaseline = "middle";
  data.questions.forEach((question, n) => {
    const [x, y] = place(documents + n), r = 10 * ratio;
    pen.fillStyle = colour("--asked");
    pen.beginPath();
    pen.moveTo(x, y - r); pen.lineTo(x + r, y); pen.lineTo(x, y + r); pen.lineTo(x - r, y);
    pen.fill();
    pen.fillStyle = colour("--paper");
    pen.fillText(String(n + 1), x, y);
  });
  if (chosen >= 0) {
    const [x, y] = place(chosen);
    pen.strokeStyle = colour("--ink");
    pen.lineWidth = 2.5 * ratio;
    pen.beginPath();
    pen.arc(x, y, 9 * ratio, 0, 2 * Math.PI);
    pen.stroke();
  }
  canvas.dataset.drawn = String(Number(canvas.dataset.drawn || 0) + 1);
}

function soon() {
  if (!dirty) { dirty = true; requestAnimationFrame(draw); }
}

const fit = () => (0.94 * Math.min(width, height)) / WORLD;

function resize() {
  const box = at("place").getBoundingClientRect();
  const before = width ? view.scale / fit() : 1;
  ratio = Math.min(2, window.devicePixelRatio || 1);
  width = canvas.width = Math.max(1, Math.round(box.width * ratio));
  height = canvas.height = Math.max(1, Math.round(box.height * ratio));
  image = pen.createImageData(width, height);
  pixels = new Uint32Array(image.data.buffer);
  hits = new Uint8Array(width * height);
  view.scale = before * fit();
  soon();
}

function zoom(by, px, py) { // the place under the pointer stays there
  const scale = Math.max(fit() / 2, Math.min(fit() * 4000, view.scale * by));
  const dx = (px === undefined ? 0 : px * ratio - width / 2), dy = (py === undefined ? 0 : py * ratio - height / 2);
  view.x += dx / view.scale - dx / scale;
  view.y -= dy / view.scale - dy / scale;
  view.scale = scale;
  soon();
}

function move(dx, dy) {
  view.x -= (dx * ratio) / view.scale;
  view.y += (dy * ratio) / view.scale;
  soon();
}

function everything() {
  Object.assign(view, { x: WORLD / 2, y: WORLD / 2, scale: fit() });
  soon();
}

// ---------------------------------------------------------------- what is chosen
const named = (i) => data.titles[i] || `row ${i}`;
const full = (i) => `${named(i)} (row ${i.toLocaleString("en")}${data.ids[i] === undefined || data.ids[i] === "" ? "" : `, id ${data.ids[i]}`})`;

function choose(i, go) {
  chosen = i;
  at("chosen").textContent = i < documents ? `Chosen: ${full(i)}` : `Chosen: question ${i - documents + 1}: ${data.questions[i - documents].question}`;
  if (go) {
    view.x = points[2 * i];
    view.y = points[2 * i + 1];
    view.scale = Math.max(view.scale, fit() * 6);
  }
  for (const button of document.querySelectorAll("button[data-point]")) button.setAttribute("aria-current", String(Number(button.dataset.point) === i));
  soon();
}

function button(i, words) {
  const made = document.createElement("button");
  made.type = "button";
  made.dataset.point = String(i);
  made.textContent = words;
  made.addEventListener("click", () => choose(i, true));
  const item = document.createElement("li");
  item.append(made);
  return item;
}

function search() {
  const words = at("search").value.trim().toLowerCase();
  lower = lower || data.titles.map((title) => title.toLowerCase());
  found = [];
  if (words) for (let i = 0; i < documents; i++) if (lower[i].includes(words)) found.push(i);
  at("results").replaceChildren(...found.slice(0, LISTED).map((i) => button(i, named(i))));
  const more = found.length > LISTED ? `; the first ${LISTED} are listed` : "";
  at("count").textContent = words ? `${found.length.toLocaleString("en")} of ${documents.toLocaleString("en")} titles${more}` : "";
  soon();
}

// ---------------------------------------------------------------- a person
let waiting = 0, held = null, moved = 0;
at("search").addEventListener("input", () => { clearTimeout(waiting); waiting = setTimeout(search, 120); });
at("in").addEventListener("click", () => zoom(1.6));
at("out").addEventListener("click", () => zoom(1 / 1.6));
at("all").addEventListener("click", everything);
canvas.addEventListener("wheel", (event) => {
  event.preventDefault();
  zoom(Math.exp(-event.deltaY * (event.deltaMode ? 0.05 : 0.0015)), event.offsetX, event.offsetY);
}, { passive: false });
canvas.addEventListener("pointerdown", (event) => { held = event; moved = 0; canvas.setPointerCapture(event.pointerId); });
canvas.addEventListener("pointermove", (event) => {
  if (held) {
    moved += Math.abs(event.clientX - held.clientX) + Math.abs(event.clientY - held.clientY);
    move(event.clientX - held.clientX, event.clientY - held.clientY);
    held = event;
    tip.hidden = true;
    return;
  }
  const i = nearest(event.offsetX, event.offsetY);
  tip.hidden = i < 0;
  if (i >= 0) {
    tip.textContent = full(i);
    tip.style.left = `${Math.min(event.offsetX + 14, Math.max(0, width / ratio - 330))}px`;
    tip.style.top = `${event.offsetY + (event.offsetY > height / ratio - 80 ? -60 : 14)}px`;
  }
});
canvas.addEventListener("pointerup", (event) => {
  if (moved < 4) {
    const i = nearest(event.offsetX, event.offsetY);
    if (i >= 0) choose(i, false);
  }
  held = null;
});
canvas.addEventListener("pointercancel", () => { held = null; });
canvas.addEventListener("pointerleave", () => { tip.hidden = true; });
canvas.addEventListener("keydown", (event) => {
  const steps = { ArrowLeft: [60, 0], ArrowRight: [-60, 0], ArrowUp: [0, 60], ArrowDown: [0, -60] };
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (steps[event.key]) move(...steps[event.key]);
  else if (event.key === "+" || event.key === "=") zoom(1.6);
  else if (event.key === "-") zoom(1 / 1.6);
  else if (event.key === "0") everything();
  else return;
  event.preventDefault();
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", soon);
new ResizeObserver(resize).observe(at("place"));

document.title = `Map of ${data.name}`;
at("name").textContent = `Map of ${data.name}`;
at("about").textContent = data.about;
at("asked").hidden = !data.questions.length;
data.questions.forEach((question, n) => {
  const item = button(documents + n, question.question), nearby = document.createElement("ol");
  nearby.append(...question.nearest.map(([i, cosine]) => button(i, `${named(i)} ${cosine.toFixed(3)}`)));
  item.append(nearby);
  at("questions").append(item);
});
