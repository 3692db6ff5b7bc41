"use strict";
// Answers to findings: one for each, by keyboard or by button, kept by the browser, exported as a CSV file.
const {columns, rows, digest} = JSON.parse(document.getElementById("rows").textContent);
const findings = [...document.querySelectorAll(".finding")];
const keys = {w: "wrong", r: "right", c: "cannot tell", u: ""};
const kept = "reprism-clean-" + digest;
let answers = {};
try { answers = JSON.parse(localStorage.getItem(kept)) || {}; } catch { /* a browser that keeps nothing */ }

function show() {
  for (const finding of findings)
    for (const button of finding.querySelectorAll("button"))
      button.setAttribute("aria-pressed", String(answers[finding.dataset.finding] === button.dataset.answer));
  const done = findings.filter(each => answers[each.dataset.finding]).length;
  document.getElementById("count").textContent = `${done} of ${findings.length} answered`;
}

function answer(finding, text) {
  if (text) answers[finding.dataset.finding] = text;
  else delete answers[finding.dataset.finding];
  try { localStorage.setItem(kept, JSON.stringify(answers)); } catch { /* likewise */ }
  show();
}

function go(from, by) {
  const next = from < 0 ? findings[0] : findings[Math.min(findings.length - 1, Math.max(0, from + by))];
  if (next) { next.focus(); next.scrollIntoView({block: "nearest"}); }
}

function exportAnswers() {
  const quoted = text => /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  const lines = rows.filter(row => answers[row[0]]).map(row => [...row, answers[row[0]]]);
  const text = [columns, ...lines].map(line => line.map(quoted).join(",") + "\n").join("");
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], {type: "text/csv"}));
  link.download = "answers.csv";
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

document.addEventListener("keydown", event => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const at = findings.indexOf(document.activeElement.closest(".finding"));
  if (event.key === "j") go(at, 1);
  else if (event.key === "k") go(at, -1);
  else if (event.key === "e") exportAnswers();
  else if (event.key in keys && at >= 0) { answer(findings[at], keys[event.key]); if (keys[event.key]) go(at, 1); }
  else return;
  event.preventDefault();
});
document.addEventListener("click", event => {
  const button = event.target.closest("button[data-answer]");
  if (button) answer(button.closest(".finding"), button.dataset.answer);
});
document.getElementById("export").addEventListener("click", exportAnswers);
show();
