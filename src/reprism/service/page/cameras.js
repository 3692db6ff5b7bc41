// The network of cameras: on a circle, with an arrow for each way between two and how long it usually takes.

import { readNetwork } from "./people_api.js";
import { counted, spanOf } from "./words.js";

const SVG = "http://www.w3.org/2000/svg";
const LARGEST = 560; // of the drawing, and of all sizes here in CSS pixels
const RADIUS = 9; // of a camera
const ROOM = 62; // around the circle, for the cameras' names
const BOW = 0.13; // how far a way bows out, as a share of its length: there and back do not lie over each other
const LETTERS = 16; // of a camera's name
const LABELS = 12; // ways at most whose times are written at them; the table has them all

const $ = (id) => document.getElementById(id);

let observer; // of the drawing's width

/** Show the network of cameras. */
export async function showCameras(_, __, ___, signal) {
  const { cameras, ways } = await readNetwork(signal);
  $("cameras-empty").hidden = ways.length > 0;
  const rows = ways.map((way) => row([way.from, way.to, usualOf(way), medianOf(way), way.matches.toLocaleString()]));
  $("cameras-ways").replaceChildren(...rows);
  $("cameras-rows").replaceChildren(...cameras.map(({ camera, rows: count }) => row([camera, count.toLocaleString()])));
  const box = $("cameras-graph");
  let width = 0;
  observer?.disconnect();
  observer = new ResizeObserver(() => {
    const room = Math.min(LARGEST, box.clientWidth - parseFloat(getComputedStyle(box).paddingLeft) * 2);
    if (room === width || room <= 0) return;
    width = room;
    const { svg, arrows } = draw(cameras.map(({ camera }) => camera), ways, width);
    box.replaceChildren(svg);
    rows.forEach((each, place) => {
      each.onmouseenter = () => arrows[place].classList.add("chosen");
      each.onmouseleave = () => arrows[place].classList.remove("chosen");
    });
  });
  observer.observe(box);
}

const usualOf = ({ usual }) => (usual ? spanOf(...usual) : "not known");
const medianOf = ({ median }) => (median === null ? "not known" : spanOf(median));

function row(values) {
  const node = document.createElement("tr");
  for (const value of values) node.insertCell().textContent = value;
  return node;
}

function draw(cameras, ways, size) {
  const svg = element("svg", { width: size, height: size, viewBox: `0 0 ${size} ${size}`, role: "img" });
  svg.classList.add("graph");
  const what = `${counted(cameras.length, "camera")} and ${counted(ways.length, "way")} between them`;
  svg.setAttribute("aria-label", `${what}: the table has the same in words`);
  const head = element("marker", {
    id: "head", viewBox: "0 0 10 10", refX: 9, refY: 5, markerWidth: 12, markerHeight: 12, orient: "auto",
    markerUnits: "userSpaceOnUse",
  });
  head.append(element("path", { d: "M0 0 L10 5 L0 10 z" }));
  const definitions = element("defs", {});
  definitions.append(head);
  svg.append(definitions);
  const [middle, radius] = [size / 2, size / 2 - ROOM];
  const places = new Map(cameras.map((camera, number) => {
    const angle = (2 * Math.PI * number) / cameras.length - Math.PI / 2;
    return [camera, { x: middle + radius * Math.cos(angle), y: middle + radius * Math.sin(angle), angle }];
  }));
  const most = Math.max(1, ...ways.map(({ matches }) => matches));
  const arrows = ways.map((way) => arrow(way, places, most));
  svg.classList.toggle("many", ways.length > LABELS);
  svg.append(...arrows);
  for (const [camera, { x, y, angle }] of places) svg.append(drawCamera(camera, x, y, angle));
  return { svg, arrows };
}

function arrow(way, places, most) {
  const [from, to] = [places.get(way.from), places.get(way.to)];
  const group = element("g", { class: "way" });
  if (!from || !to) return group;
  const [dx, dy] = [to.x - from.x, to.y - from.y];
  // To the left of the way: that of the way back is on the other side.
  const bend = { x: (from.x + to.x) / 2 + 2 * BOW * dy, y: (from.y + to.y) / 2 - 2 * BOW * dx };
  const start = towards(from, bend, RADIUS + 3);
  const end = towards(to, bend, RADIUS + 3);
  const title = `${way.from} to ${way.to}: usual ${usualOf(way)}, ${counted(way.matches, "match", "matches")}`;
  group.append(
    element("title", {}, title),
    element("path", {
      d: `M${start.x} ${start.y} Q${bend.x} ${bend.y} ${end.x} ${end.y}`,
      "stroke-width": 1.5 + (2.5 * way.matches) / most,
      "marker-end": "url(#head)",
    }),
    element("text", {
      x: (from.x + to.x) / 2 + BOW * dy, y: (from.y + to.y) / 2 - BOW * dx + 4, "text-anchor": "middle",
    }, way.usual ? usualOf(way) : ""),
  );
  return group;
}

/** The point that lies so far from the one to the other. */
function towards(one, other, distance) {
  const length = Math.hypot(other.x - one.x, other.y - one.y) || 1;
  return { x: one.x + ((other.x - one.x) * distance) / length, y: one.y + ((other.y - one.y) * distance) / length };
}

/** A camera's mark, and its name outside the circle. */
function drawCamera(name, x, y, angle) {
  const group = element("g", { class: "camera" });
  const [across, down] = [Math.cos(angle), Math.sin(angle)];
  const label = {
    x: x + across * (RADIUS + 6),
    y: y + 4 + down * (RADIUS + 10),
    "text-anchor": Math.abs(across) < 0.3 ? "middle" : across > 0 ? "start" : "end",
  };
  const short = name.length > LETTERS ? `${name.slice(0, LETTERS - 1)}…` : name;
  const mark = element("circle", { cx: x, cy: y, r: RADIUS });
  group.append(element("title", {}, name), mark, element("text", label, short));
  return group;
}

function element(name, attributes, text) {
  const node = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  if (text !== undefined) node.textContent = text;
  return node;
}
