// The list of people: faces of each, where and when they were seen, and how sure it is that they are one.

import { listPeople } from "./people_api.js";
import { betweenTimes, faces, surenessOf } from "./sights.js";
import { fillFacts } from "./words.js";

const PAGE = 60; // people, as many as one scrolls through before "Show more"

const $ = (id) => document.getElementById(id);
const form = $("people-form");

let filters = new URLSearchParams(); // of those that are shown
let count = 0; // of those that are shown

/** Show the people whom the address asks for: ``#people&camera=gate&after=…&before=…``. */
export async function showPeople(_, place, session, signal) {
  const { camera } = form.elements;
  camera.replaceChildren(new Option("any camera", ""), ...session.cameras.map((name) => new Option(name, name)));
  filters = new URLSearchParams();
  for (const name of ["camera", "after", "before"]) {
    const value = place.get(name) ?? "";
    form.elements[name].value = value;
    // The address has the reader's own time; the service wants one with its zone.
    const moment = name !== "camera" && value ? new Date(value) : null;
    if (moment && Number.isNaN(moment.getTime())) continue;
    if (value) filters.set(name, moment ? moment.toISOString() : value);
  }
  $("people-filters-set").textContent = filters.size ? `(${filters.size} set)` : "";
  if (filters.size) $("people-filters").open = true;
  await load(0, signal);
}

async function load(offset, signal) {
  const asked = new URLSearchParams([...filters, ["offset", offset], ["limit", PAGE]]);
  const found = await listPeople(asked, signal);
  const cards = found.people.map(card);
  if (offset) $("people-cards").append(...cards);
  else $("people-cards").replaceChildren(...cards);
  count = offset + cards.length;
  $("people-count").textContent = found.total ? `${found.total.toLocaleString()}, those seen most first` : "";
  $("people-more").hidden = count >= found.total || !cards.length;
  $("people-empty").hidden = found.total > 0;
  $("people-empty").textContent = filters.size
    ? "Nobody was seen there and then. Loosen the filters to look further."
    : "Nobody was found yet. Whoever runs the service can link the rows of the gallery: reprism link run.";
}

/** @param {import("./people_api.js").Person} person */
function card(person) {
  const item = $("person-template").content.cloneNode(true).firstElementChild;
  const title = item.querySelector(".open");
  title.textContent = `Person ${person.id}`;
  title.href = `#person=${person.id}`;
  item.onclick = (event) => event.target.closest("a") || title.click();
  item.querySelector(".pictures").append(faces(person.faces, `Person ${person.id}`));
  fillFacts(item.querySelector(".facts"), [
    ["Cameras", person.cameras.join(", ")],
    ["Seen", betweenTimes(person.first, person.last)],
    ["Sights", person.rows.toLocaleString()],
    ["How sure", surenessOf(person)],
  ]);
  return item;
}

form.onsubmit = (event) => {
  event.preventDefault();
  const chosen = [...new FormData(form)].filter(([, value]) => value);
  location.hash = ["people", ...chosen.map((pair) => pair.map(encodeURIComponent).join("="))].join("&");
};
$("people-all").onclick = () => { location.hash = "people"; };

/** Have "Show more" bring the next ones; ``fail(problem)`` tells of what went wrong. */
export function onMore(fail) {
  $("people-more").onclick = () => load(count).catch(fail);
}
