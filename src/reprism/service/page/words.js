// What is known of a row, in words and in pieces of the page.

const MOMENT = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium" });
const CLOCK = new Intl.DateTimeFormat(undefined, { timeStyle: "medium" });

export const identityOf = (row) => row.pid ?? "unknown";
export const cameraOf = (row) => row.camid ?? "unknown";
export const counted = (number, one, many = `${one}s`) => `${number.toLocaleString()} ${number === 1 ? one : many}`;

/** Say how probable something is, and never that it is certain where it is not. */
export function percent(fraction) {
  if (fraction > 0 && fraction < 0.01) return "< 1 %";
  if (fraction < 1 && fraction > 0.99) return "> 99 %";
  return `${Math.round(100 * fraction)} %`;
}

const UNITS = [[86_400, "days", 2], [3600, "h", 2], [60, "min", 2], [1, "s", -Infinity]];

/** Say how long something takes, from the one number of seconds to the other: in the largest unit of which it has two. */
export function spanOf(low, high = low) {
  const [size, name] = UNITS.find(([seconds, , least]) => high >= least * seconds);
  const [first, last] = [low, high].map((seconds) => (seconds / size).toFixed(0));
  return first === last ? `${last} ${name}` : `${first} to ${last} ${name}`;
}

/** Say when somebody was seen; of a tracklet from when to when. */
export function timeOf(row) {
  if (!row.time) return "unknown";
  const first = new Date(row.time);
  const said = MOMENT.format(first);
  if (!row.until) return said;
  const last = new Date(row.until);
  if (MOMENT.format(last) === said) return said;
  const sameDay = first.toDateString() === last.toDateString();
  return `${said} to ${(sameDay ? CLOCK : MOMENT).format(last)}`;
}

/** Say what the clock shows, here, at a moment. */
export const clockOf = (moment) => CLOCK.format(moment);

/** Fill a list of names and values; a value is text or a node. */
export function fillFacts(list, facts) {
  list.replaceChildren(
    ...facts.flatMap(([name, value]) => {
      const term = document.createElement("dt");
      const definition = document.createElement("dd");
      term.textContent = name;
      definition.append(value);
      return [term, definition];
    }),
  );
}

const SVG = "http://www.w3.org/2000/svg";

/** Draw the outline of a person, where there is no picture. */
export function placeholder() {
  const svg = document.createElementNS(SVG, "svg");
  const outline = document.createElementNS(SVG, "path");
  svg.setAttribute("viewBox", "0 0 20 40");
  svg.setAttribute("aria-hidden", "true");
  outline.setAttribute("d", "M10 3a4 4 0 1 1 0 8 4 4 0 0 1 0-8zM5 13h10l2 12h-3l-1 13H7L6 25H3z");
  svg.append(outline);
  return svg;
}
