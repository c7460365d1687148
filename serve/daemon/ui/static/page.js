"use strict";

// Sends the forms of tiles in place, presses their buttons by keys, and updates figures every two
// seconds.

const POLL = 2000;
const VERDICTS = { labeled: "labeled", skipped: "skipped", taken: "somebody else has it now" };
const message = document.getElementById("message");
const list = document.querySelector(".tiles");
const keys = document.getElementById("keys");
const tiles = Array.from(document.querySelectorAll(".tile"));
const marked = []; // tiles that were marked, the latest last
let timer = 0;

function say(text) {
  message.textContent = text;
  clearTimeout(timer);
  timer = setTimeout(() => { message.textContent = ""; }, 4000);
}

function put(selector, text) {
  const element = document.querySelector(selector);
  if (element) element.textContent = text;
}

function element(tag, className, text) {
  const made = document.createElement(tag);
  made.className = className;
  made.textContent = text;
  return made;
}

// Tiles

const isOpen = (tile) => ["free", "pending"].includes(tile.dataset.state);
const isBusy = (tile) => tile.classList.contains("busy");
const current = () => document.activeElement && document.activeElement.closest(".tile");

function press(tile, action) {
  const button = tile.querySelector(`button[name="do"][value="${action}"]`);
  if (button && button.offsetParent !== null) button.form.requestSubmit(button);
}

function focusTile(tile) {
  if (!tile) return;
  for (const other of tiles) other.tabIndex = other === tile ? 0 : -1;
  tile.focus({ preventScroll: true });
  tile.scrollIntoView({ block: "nearest" });
}

function show(tile, reply) {
  tile.dataset.state = reply.state;
  const verdict = tile.querySelector(".verdict");
  verdict.textContent = VERDICTS[reply.state] || "";
  if (reply.state === "labeled" && reply.label) verdict.append(" ", element("b", "", reply.label));
  for (const [name, count] of Object.entries(reply.counts)) {
    put(`[data-count="${name}"]`, count.toLocaleString("en"));
  }
  if (document.querySelector("[data-waiting]")) {
    const waiting = tiles.filter((other) => other.dataset.state === "pending").length;
    put("[data-waiting]", waiting.toLocaleString("en"));
    if (waiting === 0) say("All of this batch is done.");
  }
}

function report(tile, action, reply) {
  const name = tile.getAttribute("aria-label");
  const state = VERDICTS[reply.state] || `${reply.state} again`;
  if (action === "undo") say(`${name}: ${state}`);
  else if (action === "return") say(`${name} returned`);
  else say(`${name} ${state}${reply.label ? ` ${reply.label}` : ""}. u undoes.`);
}

async function post(form, action, newClass) {
  const fields = new URLSearchParams(new FormData(form));
  fields.set("do", action);
  if (newClass) fields.set("allow_new_classes", "true");
  const headers = { Accept: "application/json" };
  const answer = await fetch(form.action, { method: "POST", body: fields, headers });
  if (answer.status === 401) return void location.reload();
  const reply = await answer.json();
  if (answer.ok) return reply;
  const error = new Error(reply.error || `the daemon answered ${answer.status}`);
  throw Object.assign(error, { newClass: reply.new_class });
}

// The next image gets the focus at once, before the reply.
async function send(form, button, newClass = false) {
  const tile = form.closest(".tile"), action = button.value;
  if (isBusy(tile)) return;
  tile.classList.add("busy");
  if (action === "label" || action === "skip") marked.push(tile);
  if (action !== "undo" && tile.contains(document.activeElement)) {
    const later = tiles.slice(tiles.indexOf(tile) + 1);
    focusTile(later.find((other) => isOpen(other) && !isBusy(other)) || tile);
  }
  for (const old of tile.querySelectorAll(".wrong")) old.remove();
  try {
    const reply = await post(form, action, newClass);
    if (!reply) return;
    show(tile, reply);
    report(tile, action, reply);
  } catch (error) {
    if (marked.includes(tile)) marked.splice(marked.lastIndexOf(tile), 1);
    const unreachable = error instanceof TypeError;
    const line = element("p", "wrong", unreachable ? "The daemon cannot be reached." : error.message);
    line.setAttribute("role", "alert");
    form.append(line);
    if (error.newClass) {
      const add = element("button", "", `Add the class ${error.newClass}`);
      add.type = "button";
      add.addEventListener("click", () => send(form, button, true));
      line.append(" ", add);
    }
  } finally {
    tile.classList.remove("busy");
  }
}

document.addEventListener("submit", (event) => {
  if (!event.target.matches(".tile form.mark")) return;
  event.preventDefault();
  send(event.target, event.submitter || event.target.querySelector('button[value="label"]'));
});

// Replaces the browser's own message.
document.addEventListener("invalid", (event) => {
  if (!event.target.matches(".tile [name=label]")) return;
  event.preventDefault();
  say("Choose a class first (or skip).");
  event.target.focus();
}, true);

// The picture for an image that cannot be shown is smaller than any thumbnail.
async function explain(image) {
  if (!image.complete || image.naturalWidth === 0 || image.closest(".failed")) return;
  if (Math.max(image.naturalWidth, image.naturalHeight) > 128) return;
  image.parentElement.classList.add("failed");
  const answer = await fetch(image.src);
  const reason = decodeURIComponent(answer.headers.get("X-Lloss-Error") || "");
  if (!reason) return;
  image.alt = `cannot be shown: ${reason}`;
  image.title = reason;
  image.after(element("span", "why", reason));
}

for (const image of document.querySelectorAll(".thumb img")) {
  image.addEventListener("load", () => explain(image));
  explain(image);
}

// Keys

const beside = (tile, step) => tiles[tiles.indexOf(tile) + step];

function below(tile, step) {
  const here = tile.getBoundingClientRect();
  const places = tiles.map((other) => ({ other, place: other.getBoundingClientRect() }));
  const onSide = places.filter(({ place }) =>
    step > 0 ? place.top >= here.bottom - 1 : place.bottom <= here.top + 1);
  const tops = onSide.map(({ place }) => place.top);
  const top = step > 0 ? Math.min(...tops) : Math.max(...tops);
  const row = onSide.filter(({ place }) => Math.abs(place.top - top) < 2);
  const distance = ({ place }) => Math.abs(place.left - here.left);
  row.sort((a, b) => distance(a) - distance(b));
  return row.length ? row[0].other : null;
}

// Where classes are digits, a key is the class of that name, not the class in that place.
function choose(tile, key) {
  const select = tile.querySelector("select[name=label]");
  if (!select || !isOpen(tile)) return;
  const names = [...select.options].map((option) => option.value);
  const digits = names.some((name) => /^[0-9]$/.test(name));
  const place = digits ? names.indexOf(key) : Number(key);
  if (place < 1 || place >= names.length) return;
  select.selectedIndex = place;
  press(tile, "label");
}

const MOVES = {
  ArrowRight: (tile) => beside(tile, 1), j: (tile) => beside(tile, 1),
  ArrowLeft: (tile) => beside(tile, -1), k: (tile) => beside(tile, -1),
  ArrowDown: (tile) => below(tile, 1), ArrowUp: (tile) => below(tile, -1),
  Home: () => tiles[0], End: () => tiles.at(-1),
};
const ACTIONS = {
  l: (tile) => press(tile, "label"),
  s: (tile) => press(tile, "skip"),
  r: (tile) => press(tile, "return"),
  o: (tile) => tile.querySelector(".thumb").click(),
  c: (tile) => { if (isOpen(tile)) tile.querySelector("[name=label]").focus(); },
};

function undo(tile) {
  const isMarked = (other) => !isOpen(other) && other.dataset.state !== "taken";
  while (marked.length > 0 && !isBusy(marked.at(-1)) && !isMarked(marked.at(-1))) marked.pop();
  const wanted = tile && isMarked(tile) ? tile : marked.at(-1);
  if (!wanted) return say("There is nothing to undo.");
  if (isBusy(wanted)) return say("One moment: the last one is still being marked.");
  focusTile(wanted);
  press(wanted, "undo");
}

function help() {
  if (!keys) return;
  if (keys.open) keys.close(); else keys.showModal();
}

function handle(key, target, tile) {
  if (key === "?") return help;
  if (keys && keys.open) return null;
  if (key === "u") return () => undo(tile);
  if (!tile) {
    const start = target === document.body && ["j", "k", "ArrowRight", "ArrowDown"].includes(key);
    return start ? () => focusTile(tiles[0]) : null;
  }
  if (key === "Enter") return target === tile ? () => ACTIONS.o(tile) : null;
  if (key in MOVES) return () => focusTile(MOVES[key](tile));
  if (key in ACTIONS) return () => ACTIONS[key](tile);
  return /^[0-9]$/.test(key) ? () => choose(tile, key) : null;
}

document.addEventListener("keydown", (event) => {
  if (!list || event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return;
  const tile = current();
  const typing = event.target.closest("input, select, textarea");
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  const leave = key === "Escape" && tile ? () => focusTile(tile) : null;
  const action = typing ? leave : handle(key, event.target, tile);
  if (!action) return;
  event.preventDefault();
  action();
});

for (const button of document.querySelectorAll("[data-keys]")) {
  button.hidden = false;
  button.addEventListener("click", help);
}
if (tiles.length) tiles[0].tabIndex = 0;

// Figures

const live = document.querySelector("[data-live]");
let outdated = false;

async function update() {
  const answer = await fetch("/page/status", { headers: { Accept: "application/json" } });
  if (answer.status === 401) return location.reload();
  if (!answer.ok) return;
  const status = await answer.json();
  put("[data-queue]", status.queue);
  put("[data-jobs]", Object.keys(status.jobs).length.toLocaleString("en"));
  const shown = new Set();
  for (const place of document.querySelectorAll("[data-job]")) {
    const name = place.dataset.job;
    if (!Object.hasOwn(status.jobs, name)) return reload();
    const job = status.jobs[name], bar = place.querySelector("progress");
    place.querySelector("[data-text]").textContent = job.text;
    if (job.total !== null) { bar.max = Math.max(job.total, 1); bar.value = job.done; }
    shown.add(name);
  }
  const isHere = (name) => live.dataset.pool === name || document.querySelector(`[data-row="${name}"]`);
  if (Object.keys(status.jobs).some((name) => !shown.has(name) && isHere(name))) return reload();
  const problem = live.dataset.wasProblem;
  if (problem !== undefined && (status.problem !== "") !== (problem === "1")) reload();
}

// Not while somebody is at work on this page.
function reload() {
  if (marked.length === 0 && !(current() && list)) return location.reload();
  if (!outdated) say("This page is out of date: reload it when you like.");
  outdated = true;
}

if (live) {
  const tick = async () => {
    if (!document.hidden) await update().catch(() => {}); // the daemon may be restarting
    setTimeout(tick, POLL);
  };
  setTimeout(tick, POLL);
}
