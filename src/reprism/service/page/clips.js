// The seconds of a video in which somebody was seen, played in a dialog.

import { Problem, ask } from "./service.js";
import { cameraOf, timeOf } from "./words.js";

const NEAR = 0.3; // seconds within which a box is shown before it is left, or after it was entered
const PROBLEMS = {
  404: "The video is not at hand any more.",
  415: "This video cannot be played here.",
};

const $ = (id) => document.getElementById(id);
const video = $("clip-video");
const still = matchMedia("(prefers-reduced-motion: reduce)");

let running = new AbortController();
let shown = null; // the row that is played

/** Open the dialog, fetch a row's clip, and play it. */
export async function playClip(row) {
  const mine = (running = new AbortController());
  shown = row;
  $("clip-title").textContent = `Camera ${cameraOf(row)}, ${timeOf(row)}`;
  $("clip-status").textContent = "Fetching the clip …";
  $("clip-stage").hidden = true;
  if (!$("clip").open) $("clip").showModal();
  try {
    // Not simply the address: a <video> sends no token.
    const path = row.clip.address.replace(/^\//, "");
    const blob = await (await ask(path, { signal: mine.signal, problems: PROBLEMS })).blob();
    if (mine.signal.aborted) return;
    video.src = URL.createObjectURL(blob);
  } catch (problem) {
    if (mine.signal.aborted) return;
    $("clip-status").textContent = problem instanceof Problem ? problem.message : `The page failed: ${problem.message}`;
  }
}

/** Draw the box of the first sight until it is there, and that of the last one after it. */
function showBox() {
  const { clip, first_box, last_box } = shown;
  const [box, words] = video.currentTime <= clip.first + NEAR
    ? [first_box, "first seen here"]
    : video.currentTime >= clip.last - NEAR ? [last_box, "last seen here"] : [null, ""];
  const frame = $("clip-box");
  frame.hidden = !box;
  if (!box) return;
  const [left, top, right, bottom] = box.map((share) => 100 * share);
  Object.assign(frame.style, {
    left: `${left}%`, top: `${top}%`, width: `${right - left}%`, height: `${bottom - top}%`,
  });
  frame.dataset.words = words;
}

video.onloadedmetadata = () => {
  const ratio = video.videoWidth / video.videoHeight;
  $("clip-stage").style.aspectRatio = ratio;
  $("clip-stage").style.width = `min(100%, ${65 * ratio}dvh)`;
  $("clip-stage").hidden = false;
  $("clip-status").textContent = "";
  showBox();
  if (!still.matches) video.play().catch(() => {}); // the reader may do it
};
video.ontimeupdate = video.onseeking = () => shown && showBox();
video.onerror = () => {
  if (!video.src) return;
  $("clip-stage").hidden = true;
  $("clip-status").textContent = "This browser cannot play the clip: it may lack H.264.";
};
$("clip").onclose = () => {
  running.abort();
  shown = null;
  const { src } = video;
  video.pause();
  video.removeAttribute("src");
  video.load();
  if (src) URL.revokeObjectURL(src);
};
