// The search page: a picture goes to the service, its matches are shown. What the service says, names of people and
// files included, enters the page as text only (textContent, setAttribute), never as markup.

import { playClip } from "./clips.js";
import { clearLive, dropLive, hideLive, showLive } from "./live.js";
import { fail, say } from "./notices.js";
import { partsList, partsNote, withBar } from "./parts.js";
import { Pictures, Problem, ask } from "./service.js";
import { film, playOnAttention } from "./strips.js";
import { drawTimeline } from "./timeline.js";
import { askForToken, offerToken, onToken } from "./tokens.js";
import { cameraOf, counted, fillFacts, identityOf, percent, placeholder, timeOf } from "./words.js";

const $ = (id) => document.getElementById(id);
const form = $("search-form");

let session = { scopes: [], tokens: false, cameras: [], times: [] };
let picture = null; // the file that is searched for
let matches = [];
let filled = false; // whether where and when the picture was taken come from a row
let opened = null; // the match in the dialog
let running = new AbortController(); // of the latest search
const pictures = new Pictures(); // of its matches

// ---- pieces ----------------------------------------------------------------------------------------------

/** Put a match's picture into a box: the placeholder until it has come, and if it never does. */
async function showPicture(box, match) {
  box.replaceChildren(placeholder());
  const address = await pictures.at(match.thumbnail);
  if (!address) return;
  const image = document.createElement("img");
  image.alt = titleOf(match);
  image.onload = () => box.replaceChildren(image);
  image.src = address;
}

// ---- searching -------------------------------------------------------------------------------------------

const TIMES = new Set(["after", "before", "query_time"]);

/** The form's filters as the service's query parameters; what is left at its default is left out. */
function parameters() {
  const given = new URLSearchParams();
  for (const [name, value] of new FormData(form)) {
    if (!value || (name === "top" && value === "20") || (name === "group_by" && value === "none")) continue;
    // The reader's own time; the service wants one with its zone.
    given.append(name, TIMES.has(name) ? new Date(value).toISOString() : value);
  }
  // Of looks alone: the service refuses them beside times.
  if (given.has("times")) for (const name of ["threshold", "group_by", "rerank"]) given.delete(name);
  return given;
}

async function search() {
  running.abort();
  running = new AbortController();
  pictures.forget();
  const mine = running;
  const asked = parameters();
  const body = new FormData();
  body.append("image", picture, picture.name || "picture");
  busy("Searching …");
  try {
    const problems = asked.has("times") ? { 409: "Times between cameras cannot be used for this." } : {};
    const response = await ask(`search?${asked}`, { method: "POST", body, signal: mine.signal, problems });
    const found = await response.json();
    show(found.matches);
    say(summary(found, asked));
  } catch (problem) {
    if (mine.signal.aborted) return; // another search has begun
    show([]);
    fail(problem, () => form.requestSubmit());
  } finally {
    if (mine === running) $("results").removeAttribute("aria-busy");
  }
}

function summary(found, asked) {
  if (!found.matches.length) {
    const remedy = asked.size ? "Loosen the filters to look further." : "The gallery may be empty.";
    return `No match. Nobody in the gallery passes what was asked for. ${remedy}`;
  }
  const cameras = new Set(found.matches.map(cameraOf)).size;
  const seconds = (found.seconds.embed + found.seconds.search).toFixed(2);
  const order = asked.has("rerank") ? " Re-ranked: the order need not be that of the distances."
    : asked.has("times") ? " In the order of the probability by looks and times together." : "";
  const count = counted(found.matches.length, "match", "matches");
  return `${count} from ${counted(cameras, "camera")}, in ${seconds} s.${order}`;
}

/** Offer times between cameras where they are known, to those who may use them; what was chosen stays so. */
function showTimes() {
  const chosen = $("query-camera").value;
  $("by-times").hidden = !session.times.length;
  if (!session.times.length) $("use-times").checked = false;
  $("query-camera").replaceChildren(...["", ...session.times].map((camera) => new Option(camera || "choose", camera)));
  $("query-camera").value = session.times.includes(chosen) ? chosen : "";
  askForTimes();
}

/** Ask where and when the picture was taken, if times are to be used. */
function askForTimes() {
  const used = $("use-times").checked;
  $("taken").hidden = !used;
  for (const input of [$("query-camera"), $("query-time")]) input.disabled = !used;
}

/** Fill in where and when a picture was taken: that of a row that is searched for. */
function takenAt({ camid, time }) {
  if (!session.times.length) return;
  $("query-camera").value = session.times.includes(camid) ? camid : "";
  $("query-time").value = "";
  if (!time) return;
  // The input shows the reader's own time, which has no zone.
  const taken = new Date(time);
  $("query-time").value = new Date(taken - 60_000 * taken.getTimezoneOffset()).toISOString().slice(0, 19);
}

/** Search for a picture; of a row, where and when that was taken is known too. */
function choose(file, row = null) {
  if (!file) return;
  if (row || filled) takenAt(row ?? {}); // another picture was taken elsewhere
  filled = Boolean(row);
  picture = file;
  const shown = $("query");
  if (shown.src) URL.revokeObjectURL(shown.src);
  shown.hidden = true;
  shown.onload = () => { shown.hidden = false; };
  shown.src = URL.createObjectURL(file);
  $("picture-name").textContent = file.name || "The pasted picture";
  form.requestSubmit();
}

// ---- what is shown ---------------------------------------------------------------------------------------

function busy(words) {
  say(words);
  $("results").setAttribute("aria-busy", "true");
}

function show(found) {
  matches = found;
  $("matches").replaceChildren(...matches.map(card));
  const compared = matches.some((match) => match.parts);
  $("parts-caption").hidden = !compared;
  $("parts-missing").hidden = compared || !matches.some((match) => match.shares);
  showTimeline();
}

function card(match) {
  const item = $("card-template").content.cloneNode(true).firstElementChild;
  const rank = document.createElement("span");
  rank.className = "rank";
  rank.textContent = match.rank;
  const button = item.querySelector(".open");
  button.append(rank, `${identityOf(match)}`);
  button.setAttribute("aria-label", `Open match ${match.rank}: ${identityOf(match)}`);
  item.onclick = () => openMatch(match);
  const facts = [["Camera", cameraOf(match)], ["Time", timeOf(match)], ["Distance", match.distance.toFixed(3)]];
  if (match.probability !== null) facts.push(["Probability", withBar(percent(match.probability), match.probability)]);
  fillFacts(item.querySelector(".facts"), facts);
  if (match.reason) item.querySelector(".about").append(whyNote(match.reason));
  if (match.parts) item.querySelector(".about").append(partsNote(match.parts), partsList(match.parts));
  showPicture(item.querySelector(".picture"), match);
  playOnAttention(item, item.querySelector(".picture"), match.strip, pictures);
  return item;
}

/** Say why a match may be of the same person: what times say, and apart where they speak against. */
function whyNote(reason) {
  const note = document.createElement("p");
  note.className = `why ${reason.verdict}`;
  note.textContent = reason.text;
  return note;
}

function preview(match) {
  const box = document.createElement("div");
  const image = document.createElement("div");
  const words = document.createElement("div");
  box.className = "preview";
  image.className = "picture";
  for (const line of [`${match.rank}. ${identityOf(match)}`, `camera ${cameraOf(match)}`, timeOf(match)]) {
    words.append(Object.assign(document.createElement("div"), { textContent: line }));
  }
  showPicture(image, match);
  box.append(image, words);
  return box;
}

function showTimeline() {
  const timed = matches.filter((match) => match.time);
  $("timeline").hidden = !timed.length;
  if (!timed.length) return;
  drawTimeline($("lanes"), timed, {
    camera: cameraOf,
    label: (match) => `Match ${match.rank}: ${identityOf(match)}, camera ${cameraOf(match)}, ${timeOf(match)}`,
    preview,
    open: openMatch,
  });
  const without = matches.length - timed.length;
  $("timeless").textContent = without ? `${counted(without, "match", "matches")} of unknown time not shown here.` : "";
  timed.sort((one, other) => new Date(one.time) - new Date(other.time));
  $("sightings").replaceChildren(...timed.map((match) => {
    const row = document.createElement("tr");
    for (const value of [timeOf(match), cameraOf(match), identityOf(match), match.rank]) {
      row.insertCell().textContent = value;
    }
    return row;
  }));
}

// ---- a match, opened -------------------------------------------------------------------------------------

function openMatch(match) {
  opened = match;
  const place = matches.indexOf(match);
  $("match-title").textContent = titleOf(match);
  fillFacts($("match-facts"), factsOf(match));
  $("match-parts").hidden = !match.parts;
  $("match-parts").querySelector(".parts")?.remove();
  if (match.parts) $("match-parts").append(partsList(match.parts, true));
  showPicture($("match-picture"), match);
  $("match-film").hidden = !match.strip.length;
  $("match-film").querySelector(".film")?.remove();
  if (match.strip.length) $("match-film").append(film(match.strip, pictures, showInstead));
  const erasable = session.scopes.includes("erase");
  $("previous").hidden = $("next").hidden = place < 0;
  $("previous").disabled = place <= 0;
  $("next").disabled = place >= matches.length - 1;
  $("play-clip").hidden = !match.clip;
  $("search-again").hidden = !match.thumbnail;
  $("erase-image").hidden = !erasable;
  $("erase-identity").hidden = !erasable || match.pid === null;
  $("erase-image").textContent = match.frames > 1 ? "Erase this track" : "Erase this image";
  if (!$("match").open) $("match").showModal();
}

/** Put a picture of the opened match's film in the place of its best one. */
function showInstead(number, address) {
  if (!address) return;
  const alt = `Picture ${number + 1} of ${opened.strip.length}`;
  $("match-picture").replaceChildren(Object.assign(document.createElement("img"), { src: address, alt }));
}

/** Name a match, or a row of the live view, which has no rank. */
function titleOf(row) {
  return row.rank ? `Match ${row.rank}: ${identityOf(row)}` : `Camera ${cameraOf(row)}: ${identityOf(row)}`;
}

function step(by) {
  if (!matches.includes(opened)) return;
  const next = matches[matches.indexOf(opened) + by];
  if (next) openMatch(next);
}

function factsOf(match) {
  const facts = [["Identity", identityOf(match)], ["Camera", cameraOf(match)], ["Time", timeOf(match)]];
  if (match.rank) {
    facts.unshift(["Rank", String(match.rank)]);
    facts.push(["Distance", match.distance.toFixed(4)]);
    facts.push(["Probability", match.probability === null
      ? "not known: the service has no calibration"
      : withBar(percent(match.probability), match.probability)]);
    if (match.reason) facts.push(["By looks alone", percent(match.by_looks)], ["Why", match.reason.text]);
  }
  if (match.tracklet !== null) facts.push(["Track", match.tracklet]);
  if (match.frames > 1) facts.push(["Frames", match.frames.toLocaleString()]);
  if (match.source !== null) facts.push(["Source", match.source]);
  return [...facts, ["File", match.path], ["Id", match.id]];
}

async function searchAgain() {
  const match = opened;
  $("match").close();
  go("search");
  busy("Fetching the picture …");
  try {
    const blob = await (await ask(`images/${match.id}/thumbnail`)).blob();
    choose(new File([blob], titleOf(match), { type: blob.type }), match);
  } catch (problem) {
    $("results").removeAttribute("aria-busy");
    fail(problem);
  }
}

/** Ask, naming what will be erased; then erase it, and take it off the page. */
function erase(title, what, path, isErased) {
  $("confirm-title").textContent = title;
  $("confirm-what").textContent = what;
  $("confirm").returnValue = "keep"; // which Escape leaves as it is
  $("confirm").onclose = async () => {
    if ($("confirm").returnValue !== "erase") return;
    $("match").close();
    busy("Erasing …");
    try {
      const { erased } = await (await ask(path, { method: "DELETE" })).json();
      show(matches.filter((match) => !isErased(match)));
      dropLive(isErased);
      say(`Erased: ${counted(erased, "row")} of the gallery.`);
      $("results").focus();
      enter();
    } catch (problem) {
      fail(problem);
    } finally {
      $("results").removeAttribute("aria-busy");
    }
  };
  $("confirm").showModal();
}

function eraseImage() {
  const { id, path, frames } = opened;
  const kind = frames > 1 ? "track" : "image";
  const what = `The ${kind} ${path} (${identityOf(opened)}, camera ${cameraOf(opened)}, time ${timeOf(opened)}).`;
  erase(`Erase this ${kind}?`, what, `images/${id}`, (match) => match.id === id);
}

function eraseIdentity() {
  const { pid } = opened;
  const here = matches.filter((match) => match.pid === pid).length;
  const what = `Every image and track of identity “${pid}”: the ${here} shown here, and all others in the gallery.`;
  erase("Erase this identity?", what, `identities/${encodeURIComponent(pid)}`, (match) => match.pid === pid);
}

// ---- the session -----------------------------------------------------------------------------------------

async function enter() {
  try {
    session = await (await ask("session")).json();
  } catch (problem) {
    fail(problem, enter);
    return;
  }
  showCameras();
  showTimes();
  $("to-people").hidden = !session.people;
  offerToken(session);
  if (session.tokens && !session.scopes.length) askForToken();
  $("stats").textContent = "";
  if (!session.scopes.includes("search")) return;
  const stats = await ask("stats").then((response) => response.json(), () => null);
  if (!stats) return;
  const rows = counted(stats.rows, "picture or track", "pictures and tracks");
  $("stats").textContent = `${rows}, ${counted(session.cameras.length, "camera")}`;
}

onToken((words) => {
  say(words);
  show([]);
  clearLive();
  enter().then(() => $("live-view").hidden || go("live"));
});

/** Show one of the views, ``search`` or ``live``. */
function go(view) {
  for (const name of ["search", "live"]) {
    $(`${name}-view`).hidden = name !== view;
    if (name === view) $(`to-${name}`).setAttribute("aria-current", "page");
    else $(`to-${name}`).removeAttribute("aria-current");
  }
  if (view === "live") showLive(session.cameras, openMatch);
  else hideLive();
}

/** A tick for every camera, to want it or not; what was ticked stays so. */
function showCameras() {
  const [only, not] = [["only-cameras", "camera"], ["not-cameras", "not_camera"]];
  for (const [[box, name], [, other]] of [[only, not], [not, only]]) {
    const ticked = new Set(new FormData(form).getAll(name));
    $(box).replaceChildren(...session.cameras.map((camera) => {
      const label = document.createElement("label");
      const input = Object.assign(document.createElement("input"), {
        type: "checkbox", name, value: camera, checked: ticked.has(camera),
      });
      input.onchange = () => {
        for (const twin of form.elements) {
          if (input.checked && twin.name === other && twin.value === camera) twin.checked = false;
        }
      };
      label.append(input, camera);
      return label;
    }));
    $(box).parentElement.hidden = !session.cameras.length;
  }
}

function countFilters() {
  const set = [...new Set(parameters().keys())].filter((name) => !/^(times|query_)/.test(name)).length;
  $("filters-set").textContent = set ? `(${set} set)` : "";
}

// ---- events ----------------------------------------------------------------------------------------------

form.onsubmit = (event) => {
  event.preventDefault();
  if (picture) search();
  else fail(new Problem("There is no picture yet: choose, drop or paste one."));
};
form.onchange = () => { askForTimes(); countFilters(); };
form.onreset = () => setTimeout(form.onchange);

$("picture").onchange = (event) => {
  choose(event.target.files[0]);
  event.target.value = ""; // so that the same file can be chosen again
};
document.addEventListener("paste", (event) => choose(event.clipboardData.files[0]));
document.addEventListener("dragover", (event) => {
  event.preventDefault();
  $("drop").classList.add("over");
});
document.addEventListener("dragleave", (event) => {
  if (!event.relatedTarget) $("drop").classList.remove("over");
});
document.addEventListener("drop", (event) => {
  event.preventDefault(); // or the browser would open it
  $("drop").classList.remove("over");
  choose(event.dataTransfer.files[0]);
});

$("to-search").onclick = () => go("search");
$("to-live").onclick = () => go("live");
$("play-clip").onclick = () => playClip(opened);
$("previous").onclick = () => step(-1);
$("next").onclick = () => step(1);
$("match").onkeydown = (event) => {
  if (event.key === "ArrowLeft") step(-1);
  if (event.key === "ArrowRight") step(1);
};
$("search-again").onclick = searchAgain;
$("erase-image").onclick = eraseImage;
$("erase-identity").onclick = eraseIdentity;

$("zone").textContent = Intl.DateTimeFormat().resolvedOptions().timeZone;
$("filters").open = matchMedia("(min-width: 60rem)").matches;
enter();
