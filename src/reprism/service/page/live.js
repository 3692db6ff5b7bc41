// The live view: tracklets as they come into the gallery, newest first.

import { playClip } from "./clips.js";
import { Pictures, Problem, ask } from "./service.js";
import { film } from "./strips.js";
import { cameraOf, clockOf, counted, fillFacts, identityOf, timeOf } from "./words.js";

const MOST = 200; // cards
const SILENCE = 45_000; // milliseconds, after which the connection is dead: the service sends something every 15 s
const LONGEST_WAIT = 30; // seconds between two attempts to connect

const $ = (id) => document.getElementById(id);

let openRow = () => {}; // shows a row's details
let wanted = null; // an AbortController while the view is open
let since = null; // when listening began, in this browser's time
let lastId = null; // of the last event
let held = []; // rows that came while paused
let missed = 0; // rows that were too many to be shown
let count = 0; // of the rows that came in
let isPaused = false;

/** Begin to listen and to show; ``open(row)`` is called for a card that is opened. */
export function showLive(cameras, open) {
  openRow = open;
  offerCameras(cameras);
  if (wanted) return;
  since ??= new Date();
  tell();
  listen();
}

/** Stop listening; what was shown stays, and what comes meanwhile is asked for when the view is shown again. */
export function hideLive() {
  wanted?.abort();
  wanted = null;
}

/** Forget everything, for another token is used. */
export function clearLive() {
  hideLive();
  [since, lastId, held, missed, count] = [null, null, [], 0, 0];
  for (const card of [...$("live-cards").children]) remove(card);
  pause(false);
}

/** Take rows off the view that were erased. */
export function dropLive(isErased) {
  held = held.filter((row) => !isErased(row));
  for (const card of [...$("live-cards").children]) if (isErased(card.row)) remove(card);
  tell();
}

// ---- the stream ------------------------------------------------------------------------------------------

async function listen() {
  const mine = (wanted = new AbortController());
  let wait = 1;
  while (!mine.signal.aborted) {
    try {
      state("Connecting …");
      const chosen = $("live-camera").value;
      const path = chosen ? `events?${new URLSearchParams({ camera: chosen })}` : "events";
      const headers = lastId ? { "Last-Event-ID": lastId } : {};
      const response = await ask(path, { headers, signal: mine.signal });
      state("Listening");
      for await (const event of eventsOf(response.body)) {
        wait = 1;
        take(event);
      }
    } catch (problem) {
      if (mine.signal.aborted) return;
      // A token that is not enough, or too many who listen with it: waiting does not help.
      if (problem instanceof Problem && problem.status >= 400 && problem.status < 500) {
        state(problem.message);
        wanted = null;
        return;
      }
    }
    if (mine.signal.aborted) return;
    state(`The connection was lost. Trying again in ${counted(wait, "second")} …`);
    await new Promise((done) => setTimeout(done, 1000 * wait));
    wait = Math.min(LONGEST_WAIT, 2 * wait);
  }
}

/** The events of a stream. Not by EventSource, which sends no token. */
async function* eventsOf(body) {
  let event = { type: "message", data: [] };
  for await (const line of linesOf(body)) {
    const [, field, value] = /^([^:]*):? ?(.*)$/s.exec(line);
    if (line === "") {
      if (event.data.length) yield { ...event, data: JSON.parse(event.data.join("\n")) };
      event = { type: "message", data: [] };
    } else if (field === "event") event.type = value;
    else if (field === "data") event.data.push(value);
    else if (field === "id") lastId = value;
  }
}

async function* linesOf(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  const read = async () => {
    const watch = setTimeout(() => reader.cancel(), SILENCE);
    try {
      return await reader.read();
    } finally {
      clearTimeout(watch);
    }
  };
  let rest = "";
  for (let { done, value } = await read(); !done; { done, value } = await read()) {
    const lines = (rest + value).split("\n"); // as the service ends them
    rest = lines.pop();
    yield* lines;
  }
}

function take({ type, data }) {
  if (type === "skipped") missed += data.rows;
  if (type === "row") {
    count += 1;
    if (isPaused) held = [...held, data].slice(-MOST);
    else add(data);
  }
  tell();
}

// ---- what is shown ---------------------------------------------------------------------------------------

function add(row) {
  const item = $("live-template").content.cloneNode(true).firstElementChild;
  const pictures = new Pictures();
  item.row = row;
  item.pictures = pictures;
  const button = item.querySelector(".open");
  button.textContent = row.pid === null ? `camera ${cameraOf(row)}` : identityOf(row);
  button.setAttribute("aria-label", `Open: camera ${cameraOf(row)}, ${timeOf(row)}`);
  button.onclick = () => openRow(row);
  const facts = [["Camera", cameraOf(row)], ["Time", timeOf(row)]];
  fillFacts(item.querySelector(".facts"), row.pid === null ? facts.slice(1) : facts);
  const strip = row.strip.length ? row.strip : row.thumbnail ? [row.thumbnail] : [];
  if (strip.length) item.prepend(film(strip, pictures));
  const play = item.querySelector(".play");
  play.hidden = !row.clip;
  play.onclick = () => playClip(row);
  $("live-cards").prepend(item);
  if (row.camid !== null) offerCameras([row.camid]);
  while ($("live-cards").children.length > MOST) remove($("live-cards").lastElementChild);
}

function remove(card) {
  card.pictures.forget();
  card.remove();
}

function state(words) {
  $("live-state").textContent = words;
}

function tell() {
  const isEmpty = !$("live-cards").children.length && !held.length;
  $("live-empty").hidden = !isEmpty;
  $("live-since").textContent = since ? clockOf(since) : "";
  $("live-count").textContent = isEmpty ? "" : `${counted(count, "track or picture", "tracks and pictures")} since ${
    clockOf(since)}.${missed ? ` ${missed.toLocaleString()} more came in than can be shown.` : ""}`;
  $("live-pause").textContent = isPaused ? `Go on${held.length ? ` (${held.length} new)` : ""}` : "Pause";
}

function pause(value) {
  isPaused = value;
  if (!isPaused) {
    held.forEach(add);
    held = [];
  }
  $("live-pause").setAttribute("aria-pressed", isPaused);
  tell();
}

/** Add cameras to the choice, which stays sorted. */
function offerCameras(cameras) {
  const select = $("live-camera");
  const known = new Set([...select.options].map((option) => option.value));
  for (const camera of cameras.filter((each) => !known.has(each))) {
    const option = new Option(camera, camera);
    const next = [...select.options].slice(1).find((each) => each.value.localeCompare(camera) > 0);
    select.add(option, next ?? null);
  }
}

$("live-pause").onclick = () => pause(!isPaused);
$("live-camera").onchange = () => {
  const chosen = $("live-camera").value;
  dropLive((row) => chosen && row.camid !== chosen);
  hideLive();
  listen();
};
