// How people changed, and what was answered about them, each with a way back.

import { wordsOfChange } from "./decisions.js";
import { fail, say } from "./notices.js";
import { listAnswers, listChanges, takeBack, undoChange } from "./people_api.js";
import { faces } from "./sights.js";
import { timeOf } from "./words.js";

const MOST = 50; // changes, the newest
const SHOWN = 4; // pictures of a group
const WORDS = { same: "The same person", different: "Not the same person", unsure: "It cannot be told" };
const SIGNS = { same: "=", different: "≠", unsure: "?" };

const $ = (id) => document.getElementById(id);

/** Show how people changed, the latest first. */
export async function showChanges(_, __, ___, signal) {
  const { changes } = await listChanges(MOST, signal);
  $("changes-empty").hidden = changes.length > 0;
  $("changes-list").replaceChildren(...changes.map(changeCard));
}

/** Show what was answered, the latest first. */
export async function showAnswers(_, __, ___, signal) {
  const { answers } = await listAnswers(signal);
  $("answers-empty").hidden = answers.length > 0;
  $("answers-list").replaceChildren(...answers.map(answerCard));
}

/** @param {import("./people_api.js").Change} change */
function changeCard(change) {
  const by = change.answer === null ? "by the cameras' sights" : `by answer ${change.answer}`;
  const words = wordsOfChange(change);
  // Whom they came to; where that is nobody, whom they left.
  const others = change.met.length ? change.met : change.left;
  return card(words, `${timeOf({ time: change.at })}, ${by}`, [change.rows, others], {
    sign: change.met.length ? "=" : "≠",
    label: `Undo: ${words}`,
    undo: () => undoChange(change.number),
    refresh: () => showChanges(),
  });
}

/** @param {import("./people_api.js").Answer} answer */
function answerCard(answer) {
  return card(WORDS[answer.kind], `${timeOf({ time: answer.at })}, by ${answer.by}`, [answer.one, answer.other], {
    sign: SIGNS[answer.kind],
    label: `Take back answer ${answer.number}`,
    undo: () => takeBack(answer.number),
    refresh: () => showAnswers(),
  });
}

function card(title, facts, groups, { sign, label, undo, refresh }) {
  const item = $("history-template").content.cloneNode(true).firstElementChild;
  item.querySelector("h3").textContent = title;
  item.querySelector("p").textContent = facts;
  const [one, other] = groups.map((rows, place) => faces(rows.slice(0, SHOWN), place ? "The others" : title));
  const between = Object.assign(document.createElement("span"), { className: "sign", textContent: sign });
  between.setAttribute("aria-hidden", "true");
  item.querySelector(".pictures").append(one, ...(groups[1].length ? [between, other] : []));
  const button = item.querySelector("button");
  button.textContent = "Undo";
  button.setAttribute("aria-label", label);
  button.onclick = async () => {
    button.disabled = true;
    try {
      const { changes } = await undo();
      await refresh();
      say(["Taken back.", ...changes.map(wordsOfChange)].join(" "));
    } catch (problem) {
      button.disabled = false;
      fail(problem);
    }
  };
  return item;
}
