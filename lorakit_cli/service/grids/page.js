"use strict";
const grid = JSON.parse(document.getElementById("data").textContent);
const byId = (id) => document.getElementById(id);
const counts = grid.axes.map((axis) => axis.values.length);
const make = (name, text, kind) => {
  const element = document.createElement(name);
  if (text !== undefined) element.textContent = text;
  if (kind) element.className = kind;
  return element;
};

let view = "sheet", here = 0, pair = [0, grid.cells.length - 1], flipped = false, blinking = false;
const zoom = { factor: 1, x: 0, y: 0, fitted: true };
const buttons = [];

/* The first axis runs fastest. */
const placeOf = (number) => counts.map((count, k) => Math.floor(number / counts.slice(0, k).reduce((a, b) => a * b, 1)) % count);
const numberOf = (place) => place.reduceRight((number, at, k) => number * counts[k] + at, 0);

function picture(element, cell) {
  element.onload = () => { element.classList.toggle("tiny", element.naturalWidth <= 256); placePictures(); };
  element.src = cell.picture;
  element.alt = cell.name;
}

function buildSheet() {
  const [across, down, deep] = grid.axes;
  const perRow = across.values.length, rows = down ? down.values.length : 1;
  for (let section = 0; section < (deep ? deep.values.length : 1); section++) {
    const group = make("div", undefined, "group");
    if (deep) group.append(make("h2", `${deep.name} ${deep.values[section]}`));
    group.append(make("p", across.name, "across"));
    const table = make("table"), head = make("thead"), body = make("tbody"), top = make("tr");
    if (down) top.append(make("th", down.name));
    for (const value of across.values) { const th = make("th", value); th.scope = "col"; th.title = value; top.append(th); }
    head.append(top);
    for (let row = 0; row < rows; row++) {
      const line = make("tr");
      if (down) { const th = make("th", down.values[row]); th.scope = "row"; th.title = down.values[row]; line.append(th); }
      for (let column = 0; column < perRow; column++) {
        const number = (section * rows + row) * perRow + column, cell = grid.cells[number];
        const td = make("td"), button = make("button", undefined, "cell"), image = make("img");
        button.dataset.number = number;
        button.setAttribute("aria-label", cell.name);
        button.onclick = () => select(number);
        button.ondblclick = () => show("single");
        picture(image, cell);
        button.append(image);
        td.append(button);
        for (const [name, distance] of Object.entries(cell.apart)) td.append(make("div", `${distance.toFixed(3)} from ${name}`));
        line.append(td);
        buttons[number] = button;
      }
      body.append(line);
    }
    table.append(head, body);
    group.append(table);
    byId("sheet").append(group);
  }
}

function buildControls() {
  grid.axes.forEach((axis, k) => {
    const label = make("label", axis.name), slider = make("input"), value = make("b");
    slider.type = "range"; slider.min = 0; slider.max = axis.values.length - 1; slider.id = `slider-${k}`;
    slider.oninput = () => { const place = placeOf(here); place[k] = Number(slider.value); select(numberOf(place)); };
    label.append(slider, value);
    byId("sliders").append(label);
  });
  for (const [k, id] of [[0, "pick-a"], [1, "pick-b"]]) {
    grid.cells.forEach((cell, number) => byId(id).append(new Option(cell.name, number)));
    byId(id).onchange = (event) => take(k, Number(event.target.value));
  }
}

function select(number) {
  here = number;
  const cell = grid.cells[number], place = placeOf(number);
  buttons.forEach((button, k) => { button.classList.toggle("here", k === number); button.tabIndex = k === number ? 0 : -1; });
  grid.axes.forEach((axis, k) => {
    const slider = byId(`slider-${k}`);
    slider.value = place[k];
    slider.setAttribute("aria-valuetext", axis.values[place[k]]);
    slider.nextSibling.textContent = axis.values[place[k]];
  });
  picture(document.querySelector("#single img"), cell);
  byId("name").textContent = cell.name;
  fill("facts", cell.facts);
  fill("apart", Object.fromEntries(Object.entries(cell.apart).map(([name, distance]) => [`from ${name}`, distance.toFixed(4)])));
  byId("command").textContent = cell.command;
  byId("copy").textContent = "Copy command";
}

function fill(id, facts) {
  byId(id).replaceChildren(...Object.entries(facts).flatMap(([name, fact]) => [make("dt", name), make("dd", fact)]));
}

function take(which, number) {
  pair[which] = number;
  byId(which ? "pick-b" : "pick-a").value = number;
  picture(document.querySelectorAll("#flip img")[which], grid.cells[number]);
  wipe();
}

function wipe() {
  const [stage, over] = [document.querySelector("#flip .stage"), document.querySelector("#flip .over")];
  const at = blinking ? (flipped ? 0 : 100) : Number(byId("wipe").value);
  /* The seam is at a place of the stage, the picture moves under it. */
  const edge = stage.clientWidth * at / 100;
  const inside = (edge - zoom.x) / zoom.factor;
  over.style.clipPath = `inset(0 0 0 ${Math.min(Math.max(inside, 0), over.naturalWidth || 0)}px)`;
  over.style.visibility = at === 100 ? "hidden" : "visible";
  document.querySelector("#flip .seam").style.left = `${at}%`;
  document.querySelector("#flip .seam").hidden = blinking;
  document.querySelector("#flip .left").hidden = blinking && flipped;
  document.querySelector("#flip .right").hidden = blinking && !flipped;
  byId("blink").setAttribute("aria-pressed", String(blinking));
}

function flip() {
  flipped = blinking ? !flipped : true;
  blinking = true;
  wipe();
}

function stageOf() { return view === "sheet" ? null : document.querySelector(`#${view} .stage`); }

function placePictures() {
  const stage = stageOf();
  if (!stage) return;
  const images = [...stage.querySelectorAll("img")], first = images[0];
  if (!first.naturalWidth) return;
  if (zoom.fitted) {
    const fit = Math.min(stage.clientWidth / first.naturalWidth, stage.clientHeight / first.naturalHeight) * 0.96;
    zoom.factor = fit > 1 ? Math.max(Math.floor(fit), 1) : fit;
    zoom.x = (stage.clientWidth - first.naturalWidth * zoom.factor) / 2;
    zoom.y = (stage.clientHeight - first.naturalHeight * zoom.factor) / 2;
  }
  for (const image of images) image.style.transform = `translate(${zoom.x}px, ${zoom.y}px) scale(${zoom.factor})`;
  byId("zoom").textContent = `${Math.round(zoom.factor * 100)} %`;
  wipe();
}

function zoomBy(times, x, y) {
  const stage = stageOf();
  if (!stage) return;
  const factor = Math.min(Math.max(zoom.factor * times, 0.05), 64), ratio = factor / zoom.factor;
  x = x ?? stage.clientWidth / 2; y = y ?? stage.clientHeight / 2;
  Object.assign(zoom, { factor, x: x - (x - zoom.x) * ratio, y: y - (y - zoom.y) * ratio, fitted: false });
  placePictures();
}

function fit() { zoom.fitted = true; placePictures(); }

function show(name) {
  view = name;
  for (const tab of document.querySelectorAll("nav button")) {
    const chosen = tab.dataset.view === name;
    tab.setAttribute("aria-selected", String(chosen));
    tab.tabIndex = chosen ? 0 : -1;
    byId(tab.dataset.view).hidden = !chosen;
  }
  byId("size-label").hidden = name !== "sheet";
  byId("zooms").hidden = name === "sheet";
  fit();
}

function move(axis, by) {
  if (axis >= counts.length) return;
  const place = placeOf(here), to = place[axis] + by;
  if (to < 0 || to >= counts[axis]) return;
  place[axis] = to;
  select(numberOf(place));
  if (view === "sheet") { buttons[here].focus({ preventScroll: true }); buttons[here].scrollIntoView({ block: "nearest", inline: "nearest" }); }
}

const MOVES = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [1, -1], ArrowDown: [1, 1], PageUp: [2, -1], PageDown: [2, 1] };
const KEYS = {
  "1": () => show("sheet"), "2": () => show("single"), "3": () => show("flip"), a: () => take(0, here), b: () => take(1, here),
  "+": () => zoomBy(1.25), "=": () => zoomBy(1.25), "-": () => zoomBy(0.8), "0": fit,
};

document.addEventListener("keydown", (event) => {
  const on = event.target;
  if (event.ctrlKey || event.metaKey || event.altKey || on.tagName === "SELECT") return;
  if (on.getAttribute("role") === "tab" && event.key.startsWith("Arrow")) {
    const tabs = [...document.querySelectorAll("nav button")];
    const next = tabs[(tabs.indexOf(on) + (event.key === "ArrowLeft" || event.key === "ArrowUp" ? tabs.length - 1 : 1)) % tabs.length];
    show(next.dataset.view); next.focus(); event.preventDefault();
    return;
  }
  if (event.key === " " && view === "flip" && (on.tagName !== "BUTTON" || on.id === "blink")) { flip(); event.preventDefault(); return; }
  if (on.tagName === "INPUT" && (event.key in MOVES || event.key === " ")) return;
  if (event.key in MOVES && !(on.id === "command")) { move(...MOVES[event.key]); event.preventDefault(); return; }
  const act = KEYS[event.key.toLowerCase()];
  if (act) { act(); event.preventDefault(); }
});
document.addEventListener("keyup", (event) => { if (event.key === " " && event.target.id === "blink") event.preventDefault(); });

for (const stage of document.querySelectorAll(".stage")) {
  let last = null;
  stage.addEventListener("wheel", (event) => {
    const box = stage.getBoundingClientRect();
    zoomBy(event.deltaY < 0 ? 1.15 : 1 / 1.15, event.clientX - box.left, event.clientY - box.top);
    event.preventDefault();
  }, { passive: false });
  stage.onpointerdown = (event) => { last = [event.clientX, event.clientY]; stage.setPointerCapture(event.pointerId); stage.classList.add("held"); };
  stage.onpointermove = (event) => {
    if (!last) return;
    Object.assign(zoom, { x: zoom.x + event.clientX - last[0], y: zoom.y + event.clientY - last[1], fitted: false });
    last = [event.clientX, event.clientY];
    placePictures();
  };
  stage.onpointerup = stage.onpointercancel = () => { last = null; stage.classList.remove("held"); };
}

for (const tab of document.querySelectorAll("nav button")) tab.onclick = () => show(tab.dataset.view);
byId("size").oninput = (event) => document.documentElement.style.setProperty("--size", `${event.target.value}px`);
byId("wipe").oninput = () => { blinking = false; wipe(); };
byId("blink").onclick = flip;
byId("as-a").onclick = () => take(0, here);
byId("as-b").onclick = () => take(1, here);
byId("zoom-in").onclick = () => zoomBy(1.25);
byId("zoom-out").onclick = () => zoomBy(0.8);
byId("zoom-fit").onclick = fit;
byId("copy").onclick = async () => {
  const text = byId("command").textContent;
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    /* A page from a file may have no clipboard; then the text is selected for the user's own key. */
    getSelection().selectAllChildren(byId("command"));
    if (!document.execCommand("copy")) { byId("copy").textContent = "Selected; press Ctrl+C"; return; }
  }
  byId("copy").textContent = "Copied";
};
addEventListener("resize", placePictures);

buildSheet();
buildControls();
byId("size").value = 160;
take(0, pair[0]);
take(1, pair[1]);
select(0);
show("sheet");
