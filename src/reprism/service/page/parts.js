// How well the parts of a match agree, as a list of bars. A part has its percentile among strangers and a verdict.

const SIGNS = { agrees: "✓", differs: "✗", unclear: "?" };

/** Say what a part's name stands for: p2s1 is the uppermost stripe of branch p2. */
function meaningOf(part) {
  const [, branch, kind, number, of] = /^(p\d+)(?:([sc])(\d+)(?:of(\d+))?)?$/.exec(part) ?? [];
  if (!branch) return part;
  if (!kind) return `the whole picture, branch ${branch}`;
  const count = of ? ` of ${of}` : "";
  return kind === "s"
    ? `stripe ${number}${count} from the top, branch ${branch}`
    : `channel group ${number}${count}, branch ${branch}`;
}

/** Say how near a part is: of 100 strangers, how many are farther. */
const nearness = ({ strangers }) => `nearer than ${Math.floor(100 - strangers)} of 100 strangers`;

/** A bar that is full at 1. */
export function bar(fraction) {
  const outer = document.createElement("span");
  const inner = document.createElement("span");
  outer.className = "bar";
  outer.setAttribute("aria-hidden", "true");
  inner.style.width = `${100 * fraction}%`;
  outer.append(inner);
  return outer;
}

/** A number with a bar beside it that is full at 1. */
export function withBar(text, fraction) {
  const outer = document.createElement("span");
  const number = document.createElement("span");
  outer.className = "with-bar";
  number.className = "number";
  number.textContent = text;
  outer.append(number, bar(fraction));
  return outer;
}

/** Say in a line how many parts agree, and how many differ. */
export function partsNote(parts) {
  const count = (verdict) => Object.values(parts).filter((part) => part.verdict === verdict).length;
  const note = document.createElement("p");
  note.className = "parts-note";
  note.textContent = `Parts: ${count("agrees")} of ${Object.keys(parts).length} agree, ${count("differs")} differ`;
  return note;
}

/** List the parts with their bars; ``spoken``: with words beside each bar, where there is room. */
export function partsList(parts, spoken = false) {
  const list = document.createElement("ul");
  list.className = spoken ? "parts spoken" : "parts";
  list.setAttribute("aria-label", "How well each part agrees with your picture");
  for (const [name, part] of Object.entries(parts)) {
    const item = document.getElementById("part-template").content.cloneNode(true).firstElementChild;
    const words = `${part.verdict}, ${nearness(part)}`;
    item.classList.add(part.verdict);
    item.title = `${meaningOf(name)}: ${words}`;
    item.querySelector(".part-name").textContent = name;
    item.querySelector(".bar > span").style.width = `${part.strangers}%`;
    item.querySelector(".sign").textContent = SIGNS[part.verdict];
    item.querySelector(".words").textContent = words;
    item.querySelector(".words").classList.toggle("unseen", !spoken);
    list.append(item);
  }
  return list;
}
