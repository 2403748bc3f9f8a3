"use strict";

const $ = id => document.getElementById(id);
let videos = [], network = false, palette = [], video = 0, frame = 0, state = null, size = null;
let numObjects = 3, shownMask = "none", ticket = 0, polling = 0, playing = 0, wantsSuggestion = false;
const drafts = new Map();  // of this video: frame -> {ids, history, saved}
const pictures = new Map();  // of this video: frame -> promise of an ImageBitmap, the latest last

const view = new MaskCanvas($("canvas"), { before: takeOver, changed: edited, prompted: asked => safely(prompt)(asked) });

async function ask(path, options) {
  let answer;
  try {
    answer = await fetch(path, options);
  } catch {
    throw new Error("ovos-ray label does not answer: start it again, and open the address that it prints");
  }
  if (answer.ok) return answer;
  const { problem, remedy } = await answer.json();
  throw new Error(remedy ? `${problem}: ${remedy}` : problem);
}

const post = (path, body) => ask(path, { method: "POST", body }).then(answer => answer.json());

function tell(text, bad = false) {
  $("status").textContent = text;
  $("status").classList.toggle("bad", bad);
}

const safely = action => (...given) => Promise.resolve().then(() => action(...given)).catch(error => tell(error.message, true));

// Videos

const start = safely(async () => {
  const found = await (await ask("videos")).json();
  ({ videos, palette, network } = found);
  view.palette = palette;
  $("propagate").hidden = !network;
  document.title = `Label ${found.root.split("/").pop()}`;
  listVideos();
  listObjects();
  const open = videos.findIndex(one => !one.labels.length);
  await openVideo(Math.max(open, 0));
});

function listVideos() {
  $("videos").replaceChildren(...videos.map((one, index) => {
    const item = document.createElement("li"), button = document.createElement("button"), name = document.createElement("span");
    name.textContent = one.name;
    button.type = "button";
    button.title = one.problem ?? (one.foreign ? `${one.name}: has a mask that was not written here` : one.name);
    button.className = one.foreign || one.problem ? "foreign" : one.labels.length ? "labelled" : "";
    if (index === video) button.setAttribute("aria-current", "true");
    button.append(name);
    button.onclick = safely(() => openVideo(index));
    item.append(button);
    return item;
  }));
  const done = videos.filter(one => one.labels.length).length;
  $("progress").textContent = `${done} of ${videos.length} labelled`;
  $("meter").style.width = `${100 * done / Math.max(1, videos.length)}%`;
}

async function openVideo(index) {
  if ([...drafts.values()].some(draft => !draft.saved) && !confirm("There are changes that are not saved. Leave them?")) return;
  play(false);
  clearTimeout(polling);
  video = index;
  state = size = null;
  drafts.clear();
  pictures.clear();
  view.reset();
  view.draw();
  listVideos();
  $("loading").hidden = false;
  tell("");
  ticket++;
  await poll();
  wantsSuggestion = !state.labels.length;
  await show(state.labels[0] ?? 0);
  if (wantsSuggestion) await suggest();
}

async function poll() {
  clearTimeout(polling);
  const asked = video, found = await (await ask(`state?video=${asked}`)).json();
  if (asked === video) await update(found);
}

async function update(found) {
  const old = state;
  state = found;
  Object.assign(videos[video], { labels: state.labels, foreign: state.foreign });
  $("frame").max = Math.max(0, state.frames - 1);
  $("suggest").disabled = state.suggestion === null;
  view.locked = Boolean(state.foreign);
  $("banner").hidden = !(state.foreign || state.problem);
  $("banner").textContent = state.problem
    ?? `This video has a mask that was not written here, and is not replaced: ${state.foreign}`;
  if (!old || String(old.labels) !== String(state.labels)) listVideos();
  marks();
  buttons();
  const walk = state.propagation;
  if (walk?.problem) tell(walk.problem, true);
  else if (walk?.running) tell(`predicting: ${walk.frames.length} of ${state.frames} frames, ${walk.fps.toFixed(1)} a second`);
  else if (old?.propagation?.running) tell(`predicted ${walk.frames.length} frames: look through them, and correct where needed`);
  if (shownMask === "none" && walk?.frames.includes(frame) && size) await show(frame);
  if (!state.done || walk?.running) polling = setTimeout(safely(poll), 300);
  if (wantsSuggestion && state.suggestion !== null) await suggest();
}

async function suggest() {
  if (!state || state.suggestion === null) return;
  const first = wantsSuggestion;
  wantsSuggestion = false;
  if (first && drafts.size) return;  // drawing has begun elsewhere
  await show(state.suggestion);
  tell("the suggested frame: the most typical one. Any frame that shows all objects will do");
}

// Frames

function picture(index) {
  let found = pictures.get(index);
  pictures.delete(index);
  found ??= ask(`frame?video=${video}&frame=${index}`).then(answer => answer.blob()).then(createImageBitmap);
  found.catch(() => pictures.delete(index));
  pictures.set(index, found);
  if (pictures.size > 40) pictures.delete(pictures.keys().next().value);
  return found;
}

const ids = async (index, propagated) =>
  new Uint8Array(await (await ask(`mask?video=${video}&frame=${index}&propagated=${Number(propagated)}`)).arrayBuffer());

async function show(index) {
  if (!state?.frames) return;
  index = Math.min(Math.max(0, index), state.frames - 1);
  const mine = ++ticket, draft = drafts.get(index);
  const kind = draft ? "draft" : state.labels.includes(index) ? "label"
    : state.propagation?.frames.includes(index) ? "predicted" : "none";
  const [shown, mask] = await Promise.all([
    picture(index), draft ? draft.ids : kind === "none" ? null : ids(index, kind === "predicted"),
  ]);
  if (mine !== ticket) return;
  frame = index;
  shownMask = kind;
  size = { width: shown.width, height: shown.height };
  $("loading").hidden = true;
  $("frame").value = index;
  $("where").textContent = `${index + 1} of ${state.frames}`;
  view.show(shown, mask, draft?.history);
  buttons();
  if (index + 1 < state.frames) picture(index + 1).catch(() => {});
}

function marks() {
  const at = index => `${100 * index / Math.max(1, state.frames - 1)}%`;
  const points = state.labels.map(index => ["", index, "label"]);
  if (state.suggestion !== null && !state.labels.includes(state.suggestion)) points.push(["suggested", state.suggestion, "suggested"]);
  $("marks").replaceChildren(...points.map(([name, index, title]) => {
    const mark = document.createElement("i");
    Object.assign(mark, { className: name, title });
    mark.style.left = at(index);
    return mark;
  }));
  const known = state.propagation?.frames ?? [];
  const bar = document.createElement("i");
  if (known.length) {
    bar.style.left = at(known[0]);
    bar.style.right = `calc(100% - ${at(known[known.length - 1])})`;
  }
  $("known").replaceChildren(bar);
}

function play(on = !playing) {
  clearTimeout(playing);
  playing = 0;
  $("play").setAttribute("aria-pressed", String(on));
  $("play").textContent = on ? "Pause" : "Play";
  if (!on || !state) return;
  const step = async () => {
    const began = performance.now();
    await show(frame + 1 < state.frames ? frame + 1 : 0);
    if (playing) playing = setTimeout(safely(step), Math.max(0, 80 - performance.now() + began));
  };
  playing = setTimeout(safely(step), 0);
}

// Drawing

// Before an edit: the mask shown becomes a draft of this frame, whoever it is from.
function takeOver() {
  play(false);
  wantsSuggestion = false;
  if (!drafts.has(frame)) drafts.set(frame, { ids: view.ids, history: { past: view.past, future: view.future }, saved: true });
  shownMask = "draft";
}

function edited() {
  Object.assign(drafts.get(frame), { ids: view.ids, saved: false });
  const highest = view.ids.reduce((a, b) => Math.max(a, b), 0);
  if (highest > numObjects) { numObjects = Math.min(highest, 254); listObjects(); }
  buttons();
}

// Asks for the mask of a box and clicks; what was drawn, undone or shown meanwhile counts more.
async function prompt(asked) {
  if (!asked) return tell(`drag a box around object ${view.object} first (X): clicks correct the mask that it gives`);
  const [x0, y0, x1, y1] = asked.box, clicks = new Int32Array(asked.clicks.flatMap(([x, y, positive]) => [x, y, Number(positive)]));
  tell("looking for the object …");
  try {
    const answer = await ask(`prompt?video=${video}&frame=${frame}&x0=${x0}&y0=${y0}&x1=${x1}&y1=${y1}`, { method: "POST", body: clicks });
    view.answer(asked, new Uint8Array(await answer.arrayBuffer()));
    tell("click what is missing (+) or wrong (-), or correct it with the brush");
  } finally {
    if (view.asked === asked) view.asked = null;
    view.draw();
  }
}

function buttons() {
  const draft = drafts.get(frame), unsaved = draft && !draft.saved, mine = !view.locked;
  $("undo").disabled = !view.past.length || !mine;
  $("redo").disabled = !view.future.length || !mine;
  $("save").disabled = !unsaved || !mine;
  $("next").textContent = unsaved && mine ? "Save, next video" : "Next video";
  $("remove").hidden = !state?.labels.includes(frame) || !mine;
  $("propagate").disabled = !state?.labels.length || Boolean(state.propagation?.running);
}

function listObjects() {
  const choices = Array.from({ length: numObjects }, (_, i) => i + 1).map(object => {
    const button = document.createElement("button");
    Object.assign(button, { type: "button", textContent: object, title: `Object ${object}` });
    button.setAttribute("role", "radio");
    button.setAttribute("aria-checked", String(object === view.object));
    button.style.setProperty("--colour", `rgb(${palette[object]})`);
    button.onclick = () => choose(object);
    return button;
  });
  const more = document.createElement("button");
  Object.assign(more, { type: "button", textContent: "+", title: "One more object", className: "more" });
  more.onclick = () => choose(numObjects + 1);
  $("objects").replaceChildren(...choices, more);
}

function choose(object) {
  if (object > 254) return;
  numObjects = Math.max(numObjects, object);
  view.object = object;
  if (view.tool === "eraser") pick("brush");
  listObjects();
  view.draw();
}

function pick(tool) {
  view.tool = tool;
  view.corners = [];
  view.corner = null;
  for (const button of document.querySelectorAll("[data-tool]")) button.setAttribute("aria-pressed", String(button.dataset.tool === tool));
  view.draw();
}

function resize(value) {
  view.size = Math.min(120, Math.max(1, value));
  $("size").value = view.size;
  view.draw();
}

// Saving

async function save() {
  if (view.corners.length > 2) view.closePolygon();
  const draft = drafts.get(frame);
  if (!draft || draft.saved) return true;
  const saved = frame;
  const found = await post(`save?video=${video}&frame=${saved}&width=${size.width}&height=${size.height}`, draft.ids);
  draft.saved = true;
  await update(found);
  buttons();
  tell(`saved the mask of frame ${saved + 1}`
    + (state.labels.length > 1 ? `; ${state.labels.length} frames have one: pack takes the first, unless told otherwise` : ""));
  return true;
}

async function saveAndSee() {
  await save();
  if (network) await propagate();
}

async function propagate() {
  if (network && state?.labels.length) await update(await post(`propagate?video=${video}`));
}

async function remove() {
  await post(`remove?video=${video}&frame=${frame}`).then(update);
  drafts.delete(frame);
  await show(frame);
  tell("removed the label of this frame");
}

async function next() {
  if (!view.locked) await save();
  const order = [...videos.keys()].map(step => (video + 1 + step) % videos.length);
  const open = order.find(index => !videos[index].labels.length && !videos[index].problem);
  if (open !== undefined && open !== video) return openVideo(open);
  if (videos.every(one => one.labels.length)) tell("all videos have a label: end ovos-ray label with Ctrl+C, it says what comes next");
}

// Controls

for (const button of document.querySelectorAll("[data-tool]")) button.onclick = () => pick(button.dataset.tool);
const clicks = {
  undo: () => view.undo(), redo: () => view.redo(), fit: () => view.fit(), play: () => play(), suggest: () => suggest(),
  save: saveAndSee, next, propagate, remove, help: () => $("keys").showModal(),
};
for (const [id, action] of Object.entries(clicks)) $(id).onclick = safely(action);
$("size").oninput = event => resize(Number(event.target.value));
$("tint").oninput = event => {
  view.tint = Number(event.target.value) / 100;
  if (view.ids) view.paint(0, 0, view.width, view.height);
  view.draw();
};
$("frame").oninput = safely(event => { play(false); return show(Number(event.target.value)); });
$("scheme").onclick = () => {
  const dark = matchMedia("(prefers-color-scheme: dark)").matches;
  const now = document.documentElement.style.colorScheme || (dark ? "dark" : "light");
  document.documentElement.style.colorScheme = now === "dark" ? "light" : "dark";
  $("scheme").textContent = now === "dark" ? "Dark" : "Light";
};
if (matchMedia("(prefers-color-scheme: dark)").matches) $("scheme").textContent = "Light";

const keys = {
  x: () => pick("box"), "+": () => pick("add"), "=": () => pick("add"), "-": () => pick("subtract"),
  b: () => pick("brush"), e: () => pick("eraser"), p: () => pick("polygon"), f: () => pick("fill"),
  "[": () => resize(view.size / 1.2), "]": () => resize(view.size * 1.2 + 0.5), 0: () => view.fit(),
  o: () => { view.shown = !view.shown; view.draw(); }, g: suggest, s: saveAndSee, r: propagate, " ": () => play(),
  Enter: () => view.closePolygon(), Backspace: () => { view.corners.pop(); view.draw(); },
  Escape: () => { view.corners = []; view.corner = null; view.draw(); }, "?": () => $("keys").showModal(),
  Home: () => show(0), End: () => show(state.frames - 1),
};
addEventListener("keydown", event => {
  if ($("keys").open) return;
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key, command = event.ctrlKey || event.metaKey;
  const onButton = event.target instanceof HTMLButtonElement && (key === "Enter" || key === " ");
  let action;
  if (command) action = { z: () => event.shiftKey ? view.redo() : view.undo(), y: () => view.redo(), s: saveAndSee, Enter: next }[key];
  else if (onButton || event.altKey) return;
  else if (key >= "1" && key <= "9") action = () => choose(Number(key));
  else if (key === "ArrowLeft" || key === "ArrowRight") {
    action = () => { play(false); return show(frame + (key === "ArrowLeft" ? -1 : 1) * (event.shiftKey ? 10 : 1)); };
  } else action = keys[key];
  if (!action) return;
  event.preventDefault();
  safely(action)();
});
addEventListener("beforeunload", event => {
  if ([...drafts.values()].some(draft => !draft.saved)) event.preventDefault();
});

start();
