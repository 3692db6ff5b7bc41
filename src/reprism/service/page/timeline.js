// Where and when: one lane for each camera, a mark for each match at its time.

const SVG = "http://www.w3.org/2000/svg";
const RADIUS = 10; // of a mark, and of all sizes here in CSS pixels
const ROW = 2 * RADIUS + 2; // marks at nearly the same time lie below each other
const ROWS = 6; // at most; more lie over each other
const NAME = 20; // a camera's name, above its lane
const GAP = 6;
const FOOT = 22; // the times
const LABEL = 95; // from one written time to the next, at least

const [MINUTE, HOUR, DAY] = [60_000, 3_600_000, 86_400_000];
const STEPS = [
  1000, 5000, 15_000, MINUTE, 5 * MINUTE, 15 * MINUTE, HOUR, 3 * HOUR, 6 * HOUR, 12 * HOUR,
  DAY, 2 * DAY, 7 * DAY, 30 * DAY, 90 * DAY, 365 * DAY, 3650 * DAY,
];

let observer; // of the one timeline that is shown

/**
 * Draw matches, all of known time, into a box, and again whenever its width changes.
 *
 * camera(match) names its lane; label(match) says it in words; preview(match) makes what is shown beside a mark under
 * the pointer or with the focus; open(match) is called when it is pressed. ``each`` is what one is called; the first
 * ``best`` in rank are filled.
 */
export function drawTimeline(box, matches, { camera, label, preview, open, each = "match", best = 5 }) {
  let width = 0;
  observer?.disconnect();
  observer = new ResizeObserver(() => {
    if (box.clientWidth === width) return;
    width = box.clientWidth;
    const { svg, marks } = draw(matches, width, { camera, each, best });
    box.replaceChildren(svg);
    bringToLife(box, marks, { label, preview, open });
  });
  observer.observe(box);
}

function draw(matches, width, { camera, each, best }) {
  const scale = timeScale(matches.map((match) => Date.parse(match.time)), width);
  const lanes = layOut(matches, scale, camera);
  const bottom = lanes.reduce((y, lane) => y + NAME + lane.rows * ROW + GAP, 0);
  const svg = element("svg", { width, height: bottom + FOOT, role: "group" });
  svg.setAttribute("aria-label", `Timeline: the arrow keys go from ${each} to ${each}, Enter opens one`);
  for (const { x, text } of ticks(scale, width)) {
    svg.append(element("line", { class: "tick", x1: x, x2: x, y1: 0, y2: bottom }));
    svg.append(element("text", { x, y: bottom + 15, "text-anchor": "middle" }, text));
  }
  const marks = [];
  let y = 0;
  for (const lane of lanes) {
    svg.append(element("rect", { class: "lane", x: 0, y: y + NAME, width, height: lane.rows * ROW, rx: 4 }));
    svg.append(element("text", { class: "lane-name", x: 0, y: y + NAME - 6 }, `camera ${lane.name}`));
    for (const { match, x, row } of lane.marks) {
      marks.push({ match, x, y: y + NAME + row * ROW + ROW / 2 });
    }
    y += NAME + lane.rows * ROW + GAP;
  }
  // In the order of time, which the arrow keys follow.
  marks.sort((one, other) => one.x - other.x || one.match.rank - other.match.rank);
  for (const mark of marks) {
    mark.node = element("g", { class: mark.match.rank <= best ? "mark first" : "mark", role: "button" });
    mark.node.append(element("circle", { cx: mark.x, cy: mark.y, r: RADIUS }));
    mark.node.append(element("text", { x: mark.x, y: mark.y + 4 }, mark.match.rank));
    svg.append(mark.node);
  }
  return { svg, marks };
}

/** Time to pixels, with room for half a mark at either end. */
function timeScale(times, width) {
  let [start, end] = [Math.min(...times), Math.max(...times)];
  if (start === end) [start, end] = [start - HOUR / 2, end + HOUR / 2];
  const room = Math.max(1, width - 2 * RADIUS - 4);
  return { start, end, room, x: (time) => RADIUS + 2 + (room * (time - start)) / (end - start) };
}

/** Lanes by name, and in each the marks, those that would touch in rows below each other. */
function layOut(matches, scale, camera) {
  const lanes = new Map();
  for (const match of matches.toSorted((one, other) => Date.parse(one.time) - Date.parse(other.time))) {
    const name = camera(match);
    if (!lanes.has(name)) lanes.set(name, { name, marks: [], ends: [] });
    const { marks, ends } = lanes.get(name);
    const x = scale.x(Date.parse(match.time));
    let row = ends.findIndex((end) => end <= x);
    if (row < 0) row = ends.length < ROWS ? ends.length : marks.length % ROWS;
    ends[row] = x + 2 * RADIUS + 2;
    marks.push({ match, x, row });
  }
  const byName = new Intl.Collator(undefined, { numeric: true });
  return [...lanes.values()]
    .sort((one, other) => byName.compare(one.name, other.name))
    .map((lane) => ({ ...lane, rows: lane.ends.length }));
}

/** Round times on the axis, as many as there is room for; round where the reader lives. */
function ticks({ start, end, room, x }, width) {
  const wanted = ((end - start) * LABEL) / room;
  const step = STEPS.find((each) => each >= wanted) ?? STEPS.at(-1);
  const words = new Intl.DateTimeFormat(undefined, {
    day: "numeric",
    month: "short",
    ...(step < DAY ? { hour: "2-digit", minute: "2-digit" } : { year: "2-digit" }),
    ...(step < MINUTE && { second: "2-digit" }),
  });
  const offset = new Date(start).getTimezoneOffset() * MINUTE;
  const found = [];
  for (let time = Math.ceil((start - offset) / step) * step + offset; time <= end; time += step) {
    if (x(time) > LABEL / 2 && x(time) < width - LABEL / 2) found.push({ x: x(time), text: words.format(time) });
  }
  return found;
}

/** One mark is in the tab order; the arrow keys go from there. */
function bringToLife(box, marks, { label, preview, open }) {
  let shown = null;
  const hide = () => shown?.remove();
  const present = (mark) => {
    hide();
    shown = preview(mark.match);
    box.append(shown);
    const left = Math.min(Math.max(0, mark.x - shown.offsetWidth / 2), box.clientWidth - shown.offsetWidth);
    shown.style.left = `${left}px`;
    shown.style.top = `${mark.y + RADIUS + 4}px`;
  };
  const goTo = (mark) => {
    for (const each of marks) each.node.setAttribute("tabindex", each === mark ? 0 : -1);
    mark.node.focus();
  };
  marks.forEach((mark, place) => {
    const { node } = mark;
    node.setAttribute("tabindex", place ? -1 : 0);
    node.setAttribute("aria-label", label(mark.match));
    node.onmouseenter = node.onfocus = () => present(mark);
    node.onmouseleave = node.onblur = hide;
    node.onclick = () => open(mark.match);
    node.onkeydown = (event) => {
      const aim = { ArrowLeft: place - 1, ArrowRight: place + 1, Home: 0, End: marks.length - 1 }[event.key];
      if (event.key === "Escape") hide();
      if (event.key === "Enter" || event.key === " ") open(mark.match);
      else if (marks[aim]) goTo(marks[aim]);
      else return;
      event.preventDefault();
    };
  });
}

function element(name, attributes, text) {
  const node = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  if (text !== undefined) node.textContent = text;
  return node;
}
