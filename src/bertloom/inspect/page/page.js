"use strict";
// The data, arrays unpacked when they are first asked for.
let data = JSON.parse(document.getElementById("data").textContent);
let unpacked = new Map();
const state = { view: "heads", layer: 0, head: 0, joined: false, special: true, floor: 0.05, part: "all", from: null, query: 1, key: 1, place: null, reason: 0, way: "added" };

const TYPES = { u1: Uint8Array, i1: Int8Array, u2: Uint16Array, u4: Uint32Array, f4: Float32Array };

function array(name) {
  if (!unpacked.has(name)) unpacked.set(name, unpack(data.arrays[name]));
  return unpacked.get(name);
}

async function unpack({ type, data }) {
  const bytes = Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new TYPES[type](await new Response(stream).arrayBuffer());
}

// Elements: make("p", { class: "note" }, "text", child, …)
function make(name, given = {}, ...children) {
  const svg = ["svg", "g", "path", "text", "rect", "title"].includes(name);
  const made = svg ? document.createElementNS("http://www.w3.org/2000/svg", name) : document.createElement(name);
  for (const [key, value] of Object.entries(given)) {
    if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else if (value !== false && value !== null && value !== undefined) made.setAttribute(key, value === true ? "" : value);
  }
  made.append(...children);
  return made;
}

const percent = (share) => share >= 0.0995 ? `${(100 * share).toFixed(0)} %` : share >= 0.00095 ? `${(100 * share).toFixed(1)} %` : `${(100 * share).toPrecision(1)} %`;
const colour = (name, alpha) => `rgba(${getComputedStyle(document.documentElement).getPropertyValue(name)}, ${alpha})`;
const note = (text) => make("p", { class: "note" }, text);
const spelt = (text) => make("bdi", { dir: "auto" }, text);

function strip(values, most, width) {
  // A row of cells, blue above zero and orange below.
  const canvas = make("canvas", { width: values.length, height: 1, style: `width:${width}px` });
  const pen = canvas.getContext("2d");
  values.forEach((value, index) => {
    pen.fillStyle = colour(value < 0 ? "--other" : "--accent", Math.min(1, Math.abs(value) / most));
    pen.fillRect(index, 0, 1, 1);
  });
  return canvas;
}

// What lines and rows stand for: tokens, or words, with or without those that are special.
function units() {
  const found = [];
  data.tokens.forEach((token, index) => {
    if (data.special[index] && !state.special) return;
    const last = found[found.length - 1];
    if (state.joined && last && last.word === data.words[index]) {
      last.of.push(index);
      last.name += data.spellings[index];
    } else {
      found.push({ word: data.words[index], of: [index], segment: data.segments[index], name: state.joined ? data.spellings[index] : token });
    }
  });
  return found;
}

// Weights of one head between units: to a word the sum over its pieces, from a word their mean.
async function weights(shown) {
  const size = data.tokens.length;
  const all = await array(`attention-${state.layer}`);
  const own = all.subarray(state.head * size * size, (state.head + 1) * size * size);
  const value = Float32Array.from({ length: 256 }, (_, byte) => (byte / data.steps) ** 2);
  const column = new Int32Array(size).fill(-1);
  shown.forEach((unit, index) => unit.of.forEach((token) => { column[token] = index; }));
  const made = new Float32Array(shown.length * shown.length);
  shown.forEach((unit, row) => {
    for (const token of unit.of) {
      for (let other = 0; other < size; other += 1) {
        if (column[other] >= 0) made[row * shown.length + column[other]] += value[own[token * size + other]] / unit.of.length;
      }
    }
  });
  return made;
}

const PARTS = { all: "all", "0-0": "A → A", "0-1": "A → B", "1-0": "B → A", "1-1": "B → B" };
const seen = (from, to) => state.part === "all" || state.part === `${from.segment}-${to.segment}`;

const VIEWS = {};

// Heads

VIEWS.heads = async (root) => {
  const grid = make("table", { class: "grid", "aria-label": "Every layer and head" });
  const top = make("tr", {}, make("th", {}, ""));
  for (let head = 0; head < data.heads; head += 1) top.append(make("th", { scope: "col" }, String(head + 1)));
  grid.append(top);
  const thumbnails = await array("thumbnails");
  const side = data.arrays.thumbnails.shape[2];
  for (let layer = 0; layer < data.layers; layer += 1) {
    const row = make("tr", {}, make("th", { scope: "row" }, String(layer + 1)));
    for (let head = 0; head < data.heads; head += 1) {
      const canvas = make("canvas", { width: side, height: side });
      const start = (layer * data.heads + head) * side * side;
      paint(canvas, thumbnails.subarray(start, start + side * side), side, 255);
      row.append(make("td", {}, make("button", {
        type: "button", "data-layer": layer, "data-head": head, "aria-label": `Layer ${layer + 1}, head ${head + 1}`,
        title: `Layer ${layer + 1}, head ${head + 1}`, onclick: () => choose(layer, head), onkeydown: walk,
      }, canvas)));
    }
    grid.append(row);
  }
  const large = make("div", { id: "large" });
  root.append(make("div", { class: "sides" }, make("div", { class: "scroll" }, grid, note("Rows are layers, columns heads.")), large));
  await drawHead();

  async function choose(layer, head) {
    Object.assign(state, { layer, head });
    await drawHead();
  }
  function walk(event) {
    const moves = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] };
    if (!moves[event.key]) return;
    event.preventDefault();
    const layer = (state.layer + moves[event.key][0] + data.layers) % data.layers;
    const head = (state.head + moves[event.key][1] + data.heads) % data.heads;
    choose(layer, head);
    grid.querySelector(`[data-layer="${layer}"][data-head="${head}"]`).focus();
  }
};

function paint(canvas, bytes, side, steps) {
  // Bytes are square roots of weights: as an opacity they let small ones be seen.
  const pen = canvas.getContext("2d");
  const picture = pen.createImageData(side, side);
  const [red, green, blue] = getComputedStyle(document.documentElement).getPropertyValue("--accent").split(",").map(Number);
  for (let cell = 0; cell < side * side; cell += 1) picture.data.set([red, green, blue, Math.min(255, (255 * bytes[cell]) / steps)], 4 * cell);
  pen.putImageData(picture, 0, 0);
}

let drawing = 0;
async function drawHead() {
  const mine = (drawing += 1);
  for (const one of document.querySelectorAll(".grid button")) {
    const chosen = Number(one.dataset.layer) === state.layer && Number(one.dataset.head) === state.head;
    one.setAttribute("aria-pressed", chosen);
    one.tabIndex = chosen ? 0 : -1;
  }
  const large = document.getElementById("large");
  const shown = units();
  const matrix = await weights(shown);
  if (mine !== drawing || !large.isConnected) return;
  const change = (key, value) => { state[key] = value; drawHead(); };
  const check = (key, text) => make("label", {}, make("input", { type: "checkbox", checked: state[key], id: key, onchange: (event) => change(key, event.target.checked) }), ` ${text}`);
  const floor = make("input", { type: "range", id: "floor", min: 0, max: 0.5, step: 0.005, value: state.floor, "aria-label": "Weakest line", oninput: (event) => { state.floor = Number(event.target.value); lines(); } });
  const floorSaid = make("span", {});
  const controls = make("div", { class: "row" }, check("joined", "whole words"), check("special", "[CLS] and [SEP]"), make("label", {}, "lines over ", floor, " ", floorSaid));
  if (data.second !== null) {
    const parts = Object.entries(PARTS).map(([value, text]) => make("option", { value, selected: value === state.part }, text));
    controls.append(make("label", {}, "texts ", make("select", { id: "part", onchange: (event) => change("part", event.target.value) }, ...parts)));
  }
  const said = make("output", { id: "weight", role: "status" }, "Point at a token, a line or a square.");
  // On a phone's width everything still has its place.
  const width = Math.max(280, Math.min(520, large.clientWidth - 4)), edge = Math.round(width * 0.3);
  const svg = drawLines();
  const save = make("div", { class: "row" },
    make("button", { type: "button", onclick: () => download(`head-${state.layer + 1}-${state.head + 1}.svg`, new Blob([plainSvg(svg)], { type: "image/svg+xml" })) }, "Save lines as SVG"),
    make("button", { type: "button", onclick: () => heat.toBlob((blob) => download(`head-${state.layer + 1}-${state.head + 1}.png`, blob)) }, "Save map as PNG"));
  const heat = drawHeat();
  large.replaceChildren(make("h2", {}, `Layer ${state.layer + 1}, head ${state.head + 1}`), controls, said, make("div", { class: "row", style: "align-items:start" }, make("div", { class: "scroll", style: "max-height:78vh" }, svg), heat), save);
  if (data.floor) large.append(note(`Weights up to ${percent(data.floor)} are left out, to keep the page small.`));
  lines();

  function tell(row, column) {
    const share = matrix[row * shown.length + column];
    said.replaceChildren("from ", make("b", {}, spelt(shown[row].name)), " to ", make("b", {}, spelt(shown[column].name)), ": ", make("b", {}, percent(share)));
  }

  function drawLines() {
    const height = 22;
    const made = make("svg", { width, height: height * shown.length + 8, viewBox: `0 0 ${width} ${height * shown.length + 8}`, xmlns: "http://www.w3.org/2000/svg", role: "group", "aria-label": "Lines from each token, left, to those it attends to, right" });
    made.append(make("g", { class: "lines" }));
    shown.forEach((unit, row) => {
      const middle = row * height + height / 2 + 4;
      const left = make("g", { class: "unit", tabindex: 0, role: "button", "data-row": row, "aria-label": `from ${unit.name}`, onpointerenter: () => pick(row, false), onclick: () => pick(row, true), onfocus: () => pick(row, false), onkeydown: step });
      left.append(make("rect", { x: 0, y: middle - 11, width: edge, height }), make("text", { x: edge - 8, y: middle + 4, "text-anchor": "end", direction: "auto" }, unit.name));
      const right = make("g", { class: "unit", "data-to": row, onpointerenter: () => { if (state.from !== null && state.from < shown.length) tell(state.from, row); } });
      right.append(make("rect", { x: width - edge, y: middle - 11, width: edge, height }), make("text", { x: width - edge + 8, y: middle + 4 }, unit.name), make("text", { class: "to", x: width - 4, y: middle + 4, "text-anchor": "end" }, ""));
      made.append(left, right);
    });
    made.addEventListener("pointerleave", () => { if (!state.kept) { state.from = null; lines(); } });
    return made;
  }

  function pick(row, keep) {
    if (state.kept && !keep) return;
    state.kept = keep && !(state.kept && state.from === row);
    state.from = row;
    lines();
    const own = matrix.subarray(row * shown.length, (row + 1) * shown.length);
    tell(row, own.indexOf(Math.max(...own)));
  }

  function step(event) {
    const to = { ArrowUp: -1, ArrowDown: 1 }[event.key];
    if (event.key === "Enter" || event.key === " ") pick(Number(event.currentTarget.dataset.row), true);
    else if (event.key === "Escape") { state.kept = false; state.from = null; lines(); }
    else if (to) svg.querySelector(`[data-row="${Number(event.currentTarget.dataset.row) + to}"]`)?.focus();
    else return;
    event.preventDefault();
  }

  function lines() {
    floorSaid.textContent = percent(state.floor);
    const height = 22, from = state.from === null || state.from >= shown.length ? null : state.from;
    let found = [];
    for (let row = 0; row < shown.length; row += 1) {
      if (from !== null && from !== row) continue;
      for (let column = 0; column < shown.length; column += 1) {
        const share = matrix[row * shown.length + column];
        if (share >= state.floor && share > 0 && seen(shown[row], shown[column])) found.push([share, row, column]);
      }
    }
    found.sort((one, other) => other[0] - one[0]);
    found = found.slice(0, 3000);
    svg.querySelector(".lines").replaceChildren(...found.map(([share, row, column]) => {
      const start = row * height + height / 2 + 4, end = column * height + height / 2 + 4;
      const line = make("path", { d: `M${edge},${start} C${1.5 * edge},${start} ${width - 1.5 * edge},${end} ${width - edge},${end}`, "stroke-opacity": Math.max(0.06, Math.sqrt(share)).toFixed(3), "stroke-width": (0.6 + 2.6 * share).toFixed(2), onpointerenter: () => tell(row, column) });
      line.append(make("title", {}, `${shown[row].name} → ${shown[column].name}: ${percent(share)}`));
      return line;
    }));
    for (const one of svg.querySelectorAll("[data-row]")) one.classList.toggle("chosen", Number(one.dataset.row) === from);
    for (const one of svg.querySelectorAll("[data-to]")) {
      const column = Number(one.dataset.to), share = from === null || !seen(shown[from], shown[column]) ? 0 : matrix[from * shown.length + column];
      one.querySelector("rect").style.fill = share ? colour("--accent", (0.7 * Math.sqrt(share)).toFixed(3)) : "";
      one.querySelector(".to").textContent = share >= 0.005 ? percent(share) : "";
    }
  }

  function drawHeat() {
    const side = shown.length;
    const cell = Math.max(1, Math.min(22, Math.floor(440 / side)));
    const canvas = make("canvas", { id: "heat", width: side * cell, height: side * cell, tabindex: 0, role: "img", "aria-label": "Heat map: rows attend to columns; arrow keys walk over it" });
    const small = make("canvas", { width: side, height: side });
    const roots = Float32Array.from(matrix, (share, index) => (seen(shown[Math.floor(index / side)], shown[index % side]) ? Math.sqrt(share) : 0));
    paint(small, roots, side, 1);
    const pen = canvas.getContext("2d");
    pen.imageSmoothingEnabled = false;
    pen.drawImage(small, 0, 0, side * cell, side * cell);
    const at = (event) => {
      const box = canvas.getBoundingClientRect();
      return [(event.clientY - box.top) / box.height, (event.clientX - box.left) / box.width].map((share) => Math.max(0, Math.min(side - 1, Math.floor(share * side))));
    };
    canvas.addEventListener("pointermove", (event) => tell(...at(event)));
    canvas.addEventListener("pointerdown", (event) => { const [row, column] = at(event); pick(row, true); tell(row, column); });
    let cursor = [0, 0];
    canvas.addEventListener("keydown", (event) => {
      const move = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[event.key];
      if (!move) return;
      event.preventDefault();
      cursor = cursor.map((place, axis) => Math.max(0, Math.min(side - 1, place + move[axis])));
      tell(...cursor);
    });
    return canvas;
  }
}

function plainSvg(svg) {
  // Colours of the page's style are written into the picture.
  const copy = svg.cloneNode(true), ink = getComputedStyle(document.documentElement).getPropertyValue("--ink"), paper = getComputedStyle(document.documentElement).getPropertyValue("--paper");
  for (const one of copy.querySelectorAll("path")) { one.setAttribute("stroke", colour("--accent", 1)); one.setAttribute("fill", "none"); }
  for (const one of copy.querySelectorAll("text")) { one.setAttribute("fill", ink); one.setAttribute("font-family", "sans-serif"); one.setAttribute("font-size", one.classList.contains("to") ? 11 : 13); }
  for (const one of copy.querySelectorAll("rect")) one.setAttribute("fill", one.style.fill || "none");
  copy.insertBefore(make("rect", { width: "100%", height: "100%", fill: paper }), copy.firstChild);
  return new XMLSerializer().serializeToString(copy);
}

function download(name, blob) {
  const link = make("a", { href: URL.createObjectURL(blob), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

// Neurons

VIEWS.neurons = async (root) => {
  const pickToken = (key) => make("select", { id: key, onchange: (event) => { state[key] = Number(event.target.value); again(); } },
    ...data.tokens.map((token, index) => make("option", { value: index, selected: index === state[key] }, `${index} ${token}`)));
  const pickNumber = (key, most) => make("select", { id: `neuron-${key}`, onchange: (event) => { state[key] = Number(event.target.value); again(); } },
    ...Array.from({ length: most }, (_, index) => make("option", { value: index, selected: index === state[key] }, String(index + 1))));
  for (const key of ["query", "key"]) state[key] = Math.min(state[key], data.tokens.length - 1);
  const [queries, keys, attention] = await Promise.all([array(`queries-${state.layer}`), array(`keys-${state.layer}`), array(`attention-${state.layer}`)]);
  const [queryScale, keyScale] = data.scales[state.layer];
  const size = data.size, count = data.tokens.length;
  const vector = (all, scale, token) => Array.from(all.subarray((token * data.heads + state.head) * size, (token * data.heads + state.head + 1) * size), (byte) => byte * scale);
  const query = vector(queries, queryScale, state.query);
  const rows = data.tokens.map((token, index) => {
    const key = vector(keys, keyScale, index), product = query.map((one, cell) => one * key[cell]);
    const byte = attention[(state.head * count + state.query) * count + index];
    return { token, index, key, product, score: product.reduce((sum, one) => sum + one, 0) / Math.sqrt(size), weight: (byte / data.steps) ** 2 };
  });
  const chosen = rows[state.key], most = (values) => Math.max(1e-9, ...values.map(Math.abs));
  const mostProduct = most(rows.flatMap((row) => row.product));
  const wide = Math.min(512, Math.max(256, 4 * size)), said = make("output", { id: "cell", role: "status" }, "Point at a cell.");
  const big = (name, values) => {
    const canvas = strip(values, most(values), wide);
    canvas.style.height = "22px";
    canvas.addEventListener("pointermove", (event) => {
      const cell = Math.min(size - 1, Math.max(0, Math.floor((event.offsetX / canvas.clientWidth) * size)));
      said.textContent = `${name}, neuron ${cell + 1} of ${size}: ${values[cell].toFixed(3)}`;
    });
    return make("tr", {}, make("th", { scope: "row" }, name), make("td", {}, canvas));
  };
  root.append(
    make("div", { class: "row" }, make("label", {}, "layer ", pickNumber("layer", data.layers)), make("label", {}, "head ", pickNumber("head", data.heads)), make("label", {}, "query of ", pickToken("query")), make("label", {}, "key of ", pickToken("key"))),
    make("div", { class: "scroll" }, make("table", { class: "strips" }, big("query", query), big("key", chosen.key), big("query × key", chosen.product))),
    make("output", { id: "score" }, `Their sum over √${size}: ${chosen.score.toFixed(2)}; softmax over all keys gives `, make("b", {}, percent(chosen.weight))), said,
    note("Blue is above zero, orange below. Below, the product with the key of every token."),
    make("div", { class: "scroll", style: "max-height:60vh" }, make("table", { class: "strips", id: "products" }, ...rows.map((row) =>
      make("tr", { class: row.index === state.key ? "chosen" : false }, make("td", {}, make("button", { type: "button", class: "token", onclick: () => { state.key = row.index; again(); } }, spelt(row.token))),
        make("td", {}, strip(row.product, mostProduct, wide)), make("td", { class: "number" }, row.score.toFixed(2)), make("td", { class: "number" }, percent(row.weight)))))));
  function again() { open("neurons"); }
};

// Layers

VIEWS.layers = async (root) => {
  const [ids, shares] = await Promise.all([array("layer_ids"), array("layer_shares")]);
  const [layers, places, top] = data.arrays.layer_ids.shape;
  const said = make("output", { id: "layer-said", role: "status" }, "Point at a square.");
  const head = make("tr", {}, make("th", {}, "layer"), ...data.places.map((place) => make("th", { scope: "col" }, spelt(data.tokens[place]))));
  const body = make("tbody");
  for (let layer = layers - 1; layer >= 0; layer -= 1) {
    const row = make("tr", {}, make("th", { scope: "row" }, layer ? String(layer) : "embeddings"));
    for (let place = 0; place < places; place += 1) {
      const start = (layer * places + place) * top;
      const tell = () => said.replaceChildren(`layer ${layer}, `, spelt(data.tokens[data.places[place]]), ": ", ...best(start));
      row.append(make("td", { tabindex: 0, style: `background:${colour("--accent", (0.75 * shares[start]).toFixed(3))}`, onpointerenter: tell, onfocus: tell }, spelt(data.named[ids[start]])));
    }
    body.append(row);
  }
  function best(start) {
    return Array.from({ length: top }, (_, rank) => make("span", {}, rank ? ", " : "", make("b", {}, spelt(data.named[ids[start + rank]])), ` ${percent(shares[start + rank])}`));
  }
  root.append(note("What the language head makes of every layer's state, the likeliest token of each; the deeper its colour, the surer."), said,
    make("div", { class: "scroll", style: "max-height:74vh" }, make("table", { class: "said" }, make("thead", {}, head), body)));
};

// Mask

VIEWS.mask = async (root) => {
  const chips = make("div", { class: "tokens", role: "group", "aria-label": "Tokens to hide" });
  const hidden = data.live ? data.places : data.hidden;
  const answer = make("div", { id: "answer", "aria-live": "polite" });
  data.tokens.forEach((token, index) => {
    const can = hidden.includes(index);
    chips.append(make("button", { type: "button", class: data.special[index] ? "token special" : "token", disabled: !can, "aria-pressed": state.place === index, "data-place": index, onclick: () => hide(index) }, spelt(token)));
  });
  root.append(note("Click a token to hide it from the model."), chips, answer);
  if (state.place !== null && hidden.includes(state.place)) await hide(state.place);

  async function hide(place) {
    state.place = place;
    for (const chip of chips.children) {
      const chosen = Number(chip.dataset.place) === place;
      chip.setAttribute("aria-pressed", chosen);
      chip.firstChild.textContent = chosen ? "[MASK]" : data.tokens[chip.dataset.place];
    }
    const found = await asked(place);
    if (state.place !== place) return;
    const best = make("ol", { class: "best" });
    found.best.forEach(([token, share], rank) => best.append(make("li", {}, make("span", { class: "number" }, String(rank + 1)), make("b", {}, spelt(token)), make("span", {}, make("div", { class: "bar", style: `width:${(100 * share) / found.best[0][1]}%` })), make("span", { class: "number" }, percent(share)))));
    const rank = make("output", { id: "rank", role: "status" });
    const wanted = make("input", { id: "wanted", type: "text", dir: "auto", autocomplete: "off", placeholder: "a wanted word", oninput: async () => {
      const word = wanted.value.trim();
      const told = word ? await ranked(place, word) : "";
      if (wanted.value.trim() === word) rank.textContent = told;
    } });
    answer.replaceChildren(
      make("p", {}, make("b", {}, spelt(data.tokens[place])), ` itself is number ${found.rank.toLocaleString("en")}, with ${percent(found.share)}.`), best,
      make("div", { class: "row", style: "margin-top:12px" }, make("label", {}, "Where is ", wanted, " ?")), rank, ...reasons(place));
  }
};

// Of a fill that is explained, or can be, a button that shows why.
function reasons(place) {
  if (!data.live && !(data.task === false && data.reasons?.some((one) => one.places.includes(place)))) return [];
  const root = make("div", { id: "why-hidden" });
  const button = make("button", { type: "button", id: "ask-why", onclick: async () => {
    button.disabled = true;
    const one = await reasonsOf(place);
    root.replaceChildren();
    explain(root, one, make("span", {}, "why ", make("b", {}, spelt(one.name))));
  } }, "Why the first?");
  root.append(button);
  return [root];
}

async function asked(place) {
  if (data.live && !data.hidden?.includes(place)) return post("hidden", { place });
  const [ids, shares, ranks, own] = await Promise.all(["hidden_ids", "hidden_shares", "own_rank", "own_share"].map(array));
  const row = data.hidden.indexOf(place), top = data.arrays.hidden_ids.shape[1];
  return { best: Array.from({ length: top }, (_, rank) => [data.named[ids[row * top + rank]], shares[row * top + rank]]), rank: ranks[row], share: own[row] };
}

async function ranked(place, word) {
  if (data.live) return (await post("ranked", { place, word })).said;
  const ids = Object.keys(data.named), spellings = [word, word.toLowerCase(), `▁${word}`, `▁${word.toLowerCase()}`];
  const id = spellings.map((one) => ids.find((key) => data.named[key] === one)).find((one) => one !== undefined);
  if (!data.points) {
    const { best } = await asked(place), rank = best.findIndex(([token]) => spellings.includes(token));
    return rank >= 0 ? `number ${rank + 1}, ${percent(best[rank][1])}` : `not among the best ${best.length}; bertloom view --port knows its place`;
  }
  if (id === undefined) return "is no token of the vocabulary";
  const [ranks, curve] = await Promise.all([array("ranks"), array("curve")]);
  const row = data.hidden.indexOf(place), size = data.arrays.ranks.shape[1], rank = ranks[row * size + Number(id)] + 1;
  // Between the ranks whose probabilities are known, logarithms lie on a line.
  let above = data.points.findIndex((one) => one >= rank);
  const own = curve.subarray(row * data.points.length, (row + 1) * data.points.length);
  let share = own[above];
  if (data.points[above] > rank) {
    const [low, high] = [data.points[above - 1], data.points[above]].map(Math.log), part = (Math.log(rank) - low) / (high - low);
    share = Math.exp((1 - part) * Math.log(own[above - 1]) + part * Math.log(own[above]));
  }
  return `number ${rank.toLocaleString("en")} of ${size.toLocaleString("en")}, ${percent(share)}`;
}

// Why

VIEWS.why = async (root) => {
  const [added, rollout] = await Promise.all([array("added"), array("rollout")]);
  const size = data.tokens.length, one = data.reasons[state.reason] ?? data.reasons[(state.reason = 0)];
  const own = (values) => values.subarray(state.reason * size, (state.reason + 1) * size);
  const where = ({ places, hidden }) => `${[...new Set(places)].map((place) => `${place} ${data.tokens[place]}`).join(" to ")}${hidden ? ", hidden" : ""}`;
  const targets = make("select", { id: "target", onchange: (event) => { state.reason = Number(event.target.value); open("why"); } },
    ...data.reasons.map((reason, index) => make("option", { value: index, selected: index === state.reason }, `${reason.name}, at ${where(reason)}`)));
  explain(root, { ...one, added: own(added), rollout: own(rollout) }, make("label", {}, "why ", targets));
};

// What each token adds to one thing that the model says.
function explain(root, one, ...before) {
  const ways = { added: "integrated gradients", rollout: "attention rollout" };
  const way = make("select", { id: "way", onchange: (event) => { state.way = event.target.value; show(); } }, ...Object.entries(ways).map(([value, text]) => make("option", { value, selected: value === state.way }, text)));
  const said = make("output", { id: "why-said", role: "status" }), chips = make("div", { class: "tokens", id: "reasons" }), sum = note("");
  root.append(make("div", { class: "row" }, ...before, make("label", {}, "by ", way)), said, chips, sum);
  show();

  function show() {
    const values = one[state.way], most = Math.max(1e-9, ...Array.from(values, Math.abs));
    const told = (value) => (state.way === "added" ? (value > 0 ? "+" : "") + value.toFixed(3) : percent(value));
    said.replaceChildren("Point at a token.");
    chips.replaceChildren(...data.tokens.map((token, index) => {
      const name = one.hidden && one.places.includes(index) ? "[MASK]" : token;
      const tell = () => said.replaceChildren(make("b", {}, spelt(name)), ` ${told(values[index])}`);
      return make("span", { class: "token", tabindex: 0, title: told(values[index]), style: `background:${colour(values[index] < 0 ? "--other" : "--accent", (0.8 * Math.abs(values[index]) / most).toFixed(3))}`, onpointerenter: tell, onfocus: tell }, spelt(name));
    }));
    sum.textContent = state.way === "added"
      ? `With every word hidden the model's score of this is ${one.before.toFixed(3)}, of the text as it is ${one.after.toFixed(3)}; the tokens add ${values.reduce((total, value) => total + value, 0).toFixed(3)}. Blue speaks for it, orange against it.`
      : "How much of the state at the answer's place comes from each token, if attention is all that moves it.";
  }
}

async function reasonsOf(place) {
  if (data.live) return { ...(await post("why", { place })), hidden: true };
  const number = (data.reasons ?? []).findIndex((one) => one.places.includes(place)), size = data.tokens.length;
  if (number < 0) return null;
  const [added, rollout] = (await Promise.all(["added", "rollout"].map(array))).map((values) => values.subarray(number * size, (number + 1) * size));
  return { ...data.reasons[number], added, rollout };
}

// The page

const NAMES = { heads: "Heads", neurons: "Neurons", layers: "Layers", mask: "Mask", why: "Why" };

async function open(name) {
  state.view = name;
  for (const tab of document.querySelectorAll("[role=tab]")) {
    const chosen = tab.dataset.view === name;
    tab.setAttribute("aria-selected", chosen);
    tab.tabIndex = chosen ? 0 : -1;
  }
  const root = make("section", { role: "tabpanel", id: "panel", "aria-labelledby": `tab-${name}` });
  document.querySelector("main").replaceChildren(root);
  if (data.missing[name]) root.append(note(data.missing[name]));
  else await VIEWS[name](root);
  document.documentElement.dataset.ready = name;
}

async function post(where, given) {
  const answer = await fetch(where, { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify({ text: data.text, second: data.second, ...given }) });
  const found = await answer.json();
  if (!answer.ok) throw new Error(found.detail);
  return found;
}

function begin() {
  document.getElementById("model").textContent = data.model;
  const part = document.getElementById("part-of");
  part.hidden = data.parts < 2;
  part.textContent = `Part ${data.part} of ${data.parts} of a text that is longer than the model reads at once; --part shows another.`;
  document.title = `bertloom view: ${data.model}`;
  const tabs = document.querySelector("[role=tablist]");
  const names = Object.keys(NAMES);
  tabs.replaceChildren(...names.map((name) => make("button", { type: "button", role: "tab", id: `tab-${name}`, "data-view": name, "aria-controls": "panel", onclick: () => open(name) }, NAMES[name])));
  open(state.view);
}

document.querySelector("[role=tablist]").addEventListener("keydown", (event) => {
  const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
  if (!step) return;
  const names = Object.keys(NAMES), next = names[(names.indexOf(state.view) + step + names.length) % names.length];
  open(next);
  document.getElementById(`tab-${next}`).focus();
});

document.getElementById("theme").addEventListener("click", () => {
  const dark = document.documentElement.dataset.theme ? document.documentElement.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  document.documentElement.dataset.theme = dark ? "light" : "dark";
  open(state.view);
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => open(state.view));

if (data.live) {
  const form = document.getElementById("texts"), said = document.getElementById("said");
  form.hidden = false;
  form.elements.text.value = data.text;
  form.elements.second.value = data.second ?? "";
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    said.textContent = "Looking …";
    try {
      data = { ...(await post("look", { text: form.elements.text.value, second: form.elements.second.value || null })), live: true };
      unpacked = new Map();
      Object.assign(state, { layer: Math.min(state.layer, data.layers - 1), from: null, kept: false, place: null, reason: 0, part: "all" });
      said.textContent = "";
      begin();
    } catch (error) {
      said.textContent = error.message;
    }
  });
}
begin();
