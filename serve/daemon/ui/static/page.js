"use strict";

// Everything here can be done without it as well: forms are sent in place, keys press buttons, and
// figures are renewed every two seconds.

const POLL = 2000;
const said = document.getElementById("said");
const list = document.querySelector(".tiles");
const keys = document.getElementById("keys");
const tiles = () => Array.from(document.querySelectorAll(".tile"));
const done = []; // tiles that were marked, the latest last
let silence = 0;

function say(words) {
  said.textContent = words;
  clearTimeout(silence);
  silence = setTimeout(() => { said.textContent = ""; }, 4000);
}

// Tiles

function isOpen(tile) {
  return tile.dataset.state === "free" || tile.dataset.state === "pending";
}

function isBusy(tile) {
  return tile.classList.contains("busy");
}

function press(tile, action) {
  const button = tile.querySelector(`button[name="do"][value="${action}"]`);
  if (button && button.offsetParent !== null) button.form.requestSubmit(button);
}

function go(tile) {
  if (!tile) return;
  for (const other of tiles()) other.tabIndex = other === tile ? 0 : -1;
  tile.focus({ preventScroll: true });
  tile.scrollIntoView({ block: "nearest" });
}

function current() {
  return document.activeElement ? document.activeElement.closest(".tile") : null;
}

const VERDICTS = { labeled: "labeled", skipped: "skipped", taken: "somebody else has it now" };

function show(tile, told) {
  tile.dataset.state = told.state;
  const verdict = tile.querySelector(".verdict");
  verdict.textContent = VERDICTS[told.state] || "";
  if (told.state === "labeled" && told.label) {
    const name = document.createElement("b");
    name.textContent = told.label;
    verdict.append(" ", name);
  }
  for (const [name, count] of Object.entries(told.counts)) {
    const figure = document.querySelector(`[data-count="${name}"]`);
    if (figure) figure.textContent = count.toLocaleString("en");
  }
  const waiting = document.querySelector("[data-waiting]");
  if (waiting) {
    const left = tiles().filter((other) => other.dataset.state === "pending").length;
    waiting.textContent = left.toLocaleString("en");
    if (left === 0) say("All of this batch is done.");
  }
}

// Who is quick need not wait for the answer: the next image is in focus at once.
async function send(form, button, newClass = false) {
  const tile = form.closest(".tile");
  if (isBusy(tile)) return;
  tile.classList.add("busy");
  const action = button.value;
  if (action === "label" || action === "skip") done.push(tile);
  if (action !== "undo" && tile.contains(document.activeElement)) goOn(tile);
  const wrong = tile.querySelector(".wrong");
  if (wrong) wrong.remove();
  try {
    const fields = new URLSearchParams(new FormData(form));
    fields.set("do", action);
    if (newClass) fields.set("allow_new_classes", "true");
    const headers = { Accept: "application/json" };
    const answer = await fetch(form.action, { method: "POST", body: fields, headers });
    if (answer.redirected || answer.status === 401) return void location.reload();
    const told = await answer.json();
    if (!answer.ok) throw Object.assign(new Error(told.error || `the daemon answered ${answer.status}`), { newClass: told.new_class });
    show(tile, told);
    tell(tile, action, told);
  } catch (error) {
    if (done.includes(tile)) done.splice(done.lastIndexOf(tile), 1);
    const line = document.createElement("p");
    line.className = "wrong";
    line.setAttribute("role", "alert");
    line.textContent = error instanceof TypeError ? "The daemon cannot be reached." : error.message;
    form.append(line);
    if (error.newClass) line.append(" ", offer(form, button, error.newClass));
  } finally {
    tile.classList.remove("busy");
  }
}

function offer(form, button, name) {
  const more = document.createElement("button");
  more.type = "button";
  more.textContent = `Add the class ${name}`;
  more.addEventListener("click", () => send(form, button, true));
  return more;
}

function tell(tile, action, told) {
  const name = tile.getAttribute("aria-label");
  const state = VERDICTS[told.state] || `${told.state} again`;
  if (action === "undo") say(`${name}: ${state}`);
  else if (action === "return") say(`${name} returned`);
  else say(`${name} ${state}${told.label ? ` ${told.label}` : ""}. u undoes.`);
}

function goOn(tile) {
  const all = tiles();
  const next = all.slice(all.indexOf(tile) + 1).find((other) => isOpen(other) && !isBusy(other));
  go(next || tile);
}

document.addEventListener("submit", (event) => {
  if (!event.target.matches(".tile form.mark")) return;
  event.preventDefault();
  const button = event.submitter || event.target.querySelector('button[value="label"]');
  send(event.target, button);
});

// Instead of the browser's own bubble, whose words are not ours.
document.addEventListener("invalid", (event) => {
  if (!event.target.matches(".tile [name=label]")) return;
  event.preventDefault();
  say("Choose a class first (or skip).");
  event.target.focus();
}, true);

// An image that cannot be shown comes as a picture smaller than any thumbnail.
async function explain(image) {
  if (!image.complete || image.naturalWidth === 0 || image.closest(".failed")) return;
  if (Math.max(image.naturalWidth, image.naturalHeight) > 128) return;
  const answer = await fetch(image.src);
  const why = decodeURIComponent(answer.headers.get("X-Lloss-Error") || "");
  if (!why) return;
  image.alt = `cannot be shown: ${why}`;
  image.title = why;
  const line = document.createElement("span");
  line.className = "why";
  line.textContent = why;
  image.parentElement.classList.add("failed");
  image.after(line);
}
for (const image of document.querySelectorAll(".thumb img")) {
  image.addEventListener("load", () => explain(image));
  explain(image);
}

// Keys

function beside(tile, by) {
  const all = tiles();
  return all[all.indexOf(tile) + by];
}

function below(tile, by) {
  const here = tile.getBoundingClientRect();
  const rows = tiles().filter((other) => {
    const there = other.getBoundingClientRect();
    return by > 0 ? there.top >= here.bottom - 1 : there.bottom <= here.top + 1;
  });
  if (rows.length === 0) return null;
  const edge = (other) => other.getBoundingClientRect();
  const nearest = by > 0 ? Math.min(...rows.map((o) => edge(o).top)) : Math.max(...rows.map((o) => edge(o).top));
  const row = rows.filter((other) => Math.abs(edge(other).top - nearest) < 2);
  return row.reduce((best, other) =>
    Math.abs(edge(other).left - here.left) < Math.abs(edge(best).left - here.left) ? other : best);
}

// Where classes are digits a key is the class of that name, not the class in that place.
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
  Home: () => tiles()[0], End: () => tiles().at(-1),
};
const ACTIONS = {
  l: (tile) => press(tile, "label"),
  s: (tile) => press(tile, "skip"),
  r: (tile) => press(tile, "return"),
  o: (tile) => tile.querySelector(".thumb").click(),
  c: (tile) => { const field = tile.querySelector("[name=label]"); if (isOpen(tile)) field.focus(); },
};

function undo(tile) {
  const undoes = (some) => !isOpen(some) && some.dataset.state !== "taken";
  while (done.length > 0 && !isBusy(done.at(-1)) && !undoes(done.at(-1))) done.pop();
  const wanted = tile && undoes(tile) ? tile : done.at(-1);
  if (!wanted) return say("There is nothing to undo.");
  if (isBusy(wanted)) return say("One moment: the last one is still being marked.");
  go(wanted);
  press(wanted, "undo");
}

function help() {
  if (!keys) return;
  if (keys.open) keys.close(); else keys.showModal();
}

document.addEventListener("keydown", (event) => {
  if (!list || event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return;
  const typing = event.target.closest("input, select, textarea");
  const tile = current();
  if (typing) {
    if (event.key === "Escape" && tile) { event.preventDefault(); go(tile); }
    return;
  }
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  if (key === "?") { event.preventDefault(); return help(); }
  if (keys && keys.open) return;
  if (key === "u") { event.preventDefault(); return undo(tile); }
  if (!tile) {
    if (event.target === document.body && ["j", "k", "ArrowRight", "ArrowDown"].includes(key)) {
      event.preventDefault();
      go(tiles()[0]);
    }
    return;
  }
  if (key === "Enter" && event.target === tile) { event.preventDefault(); return ACTIONS.o(tile); }
  if (key in MOVES) { event.preventDefault(); return go(MOVES[key](tile)); }
  if (key in ACTIONS) { event.preventDefault(); return ACTIONS[key](tile); }
  if (/^[0-9]$/.test(key)) { event.preventDefault(); choose(tile, key); }
});

for (const button of document.querySelectorAll("[data-keys]")) {
  button.hidden = false;
  button.addEventListener("click", help);
}
const first = tiles()[0];
if (first) first.tabIndex = 0;

// Figures

const number = (value) => Math.round(value).toLocaleString("en");
const rate = (value) => value === null ? "–" : value >= 10 || value === 0 ? number(value) : value.toFixed(1);

function duration(seconds) {
  if (seconds < 90) return `${Math.max(0, Math.round(seconds))} s`;
  const minutes = Math.round(seconds / 60);
  if (minutes < 90) return `${minutes} min`;
  const hours = Math.floor(minutes / 60);
  if (hours >= 48) return `${Math.floor(hours / 24)} d`;
  return minutes % 60 ? `${hours} h ${minutes % 60} min` : `${hours} h`;
}

function toldOf(job) {
  if (job.state === "queued") return "waits for its turn";
  const words = [`${number(job.done)}${job.total === null ? "" : ` of ${number(job.total)}`} images`];
  if (job.rate) words.push(`${rate(job.rate)} a second`);
  if (job.left !== null) words.push(`${duration(job.left)} left`);
  return words.join(" · ");
}

function put(selector, words) {
  const place = document.querySelector(selector);
  if (place) place.textContent = words;
}

async function renew(live) {
  const answer = await fetch("/page/status", { headers: { Accept: "application/json" } });
  if (answer.redirected || answer.status === 401) return location.reload();
  if (!answer.ok) return;
  const status = await answer.json();
  put("[data-rate]", rate(status.rate));
  put("[data-queue]", number(status.queue));
  put("[data-jobs]", number(Object.keys(status.jobs).length));
  const shown = Array.from(document.querySelectorAll("[data-job]"));
  for (const place of shown) {
    if (!Object.hasOwn(status.jobs, place.dataset.job)) return ended();
    const job = status.jobs[place.dataset.job];
    place.querySelector("[data-told]").textContent = toldOf(job);
    const bar = place.querySelector("progress");
    if (job.total !== null) { bar.max = Math.max(job.total, 1); bar.value = job.done; }
  }
  const here = live.dataset.pool;
  const named = new Set(shown.map((place) => place.dataset.job));
  if (here ? Object.hasOwn(status.jobs, here) && !named.has(here) : Object.keys(status.jobs).some((name) => !named.has(name) && document.querySelector(`[data-row="${name}"]`))) return ended();
  if ("wasProblem" in live.dataset && (status.problem !== "") !== (live.dataset.wasProblem === "1")) ended();
}

// A page whose figures are others now is fetched anew, but not from under somebody's hands.
let news = false;

function ended() {
  if (done.length > 0 || (current() && list)) {
    if (!news) say("This page has news: reload it when you like.");
    news = true;
  } else {
    location.reload();
  }
}

const live = document.querySelector("[data-live]");
if (live) {
  const tick = async () => {
    if (!document.hidden) await renew(live).catch(() => {}); // the daemon may be restarting
    setTimeout(tick, POLL);
  };
  setTimeout(tick, POLL);
}
