// Pictures of sights, and people in a line.

import { Pictures } from "./service.js";
import { playOnAttention, whenSeen } from "./strips.js";
import { percent, placeholder } from "./words.js";

export const pictures = new Pictures(); // of all views

const MOMENT = new Intl.DateTimeFormat(undefined, { day: "numeric", month: "short", hour: "2-digit", minute: "2-digit" });
const CLOCK = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit" });

/** Say from when to when, to the minute; the year is left out. */
export function betweenTimes(first, last = first) {
  const [from, to] = [new Date(first), new Date(last)];
  const said = MOMENT.format(from);
  if (MOMENT.format(to) === said) return said;
  return `${said} to ${(from.toDateString() === to.toDateString() ? CLOCK : MOMENT).format(to)}`;
}

/** Say how sure it is that all sights are of one person. */
export function surenessOf({ rows, confidence }) {
  if (rows === 1) return "seen once";
  return confidence === null ? "not known since sights were erased" : percent(confidence);
}

export const thumbnailOf = (row) => `images/${row}/thumbnail`;
export const stripOf = (row, count) => Array.from({ length: count }, (_, number) => `images/${row}/strip/${number}`);

/** A box with a picture of the service, fetched once it comes into view; an outline until then, and if it never comes. */
export function face(path, alt, strip = []) {
  const box = Object.assign(document.createElement("div"), { className: "picture" });
  box.append(placeholder());
  whenSeen(box, async () => {
    const address = await pictures.at(path);
    if (!address) return;
    const image = Object.assign(document.createElement("img"), { alt });
    image.onload = () => box.querySelector("svg")?.replaceWith(image);
    image.src = address;
  });
  playOnAttention(box, box, strip, pictures);
  return box;
}

/**
 * Pictures of rows in a line, as many as there is room for in a card.
 *
 * With ``choose(place)`` each is a button that calls it.
 */
export function faces(rows, words, choose = null) {
  const list = Object.assign(document.createElement("ul"), { className: "faces" });
  list.setAttribute("aria-label", words);
  list.append(...rows.map((row, place) => {
    const item = document.createElement("li");
    const box = face(thumbnailOf(row), choose ? "" : `${words}, ${place + 1} of ${rows.length}`);
    if (choose) {
      const button = Object.assign(document.createElement("button"), { type: "button" });
      button.setAttribute("aria-label", `Picture ${place + 1} of ${rows.length}`);
      button.onclick = () => choose(place);
      button.append(box);
      item.append(button);
    } else {
      item.append(box);
    }
    return item;
  }));
  return list;
}
