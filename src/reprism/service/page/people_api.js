// What the service is asked about people, and what it answers.

import { ask } from "./service.js";

/**
 * @typedef {{id: number, rows: number, cameras: string[], first: string, last: string, confidence: number | null,
 *   faces: string[]}} Person  ``faces``: ids of rows
 * @typedef {{id: string, camera: string, time: string, until: string | null, strip: number, thumbnail: boolean}} Sight
 *   ``strip``: how many pictures it has
 * @typedef {{one: string, other: string, sentence: string, probability: number | null}} Link  of two sights in a row
 * @typedef {{from: string, to: string, usual: [number, number] | null, median: number | null, matches: number}} Way
 *   in seconds
 * @typedef {{one: string[], other: string[], probability: number, doubt: number, people: number[], sentence: string}}
 *   Question  of two groups of rows, of one person now or of two
 * @typedef {"same" | "different" | "unsure"} Kind
 * @typedef {{number: number, kind: Kind, one: string[], other: string[], by: string, at: string}} Answer
 * @typedef {{number: number, kind: "merge" | "split" | "move", at: string, before: number, after: number,
 *   rows: string[], left: string[], met: string[], answer: number | null}} Change
 * @typedef {{answer: Answer, changes: Change[]}} Decided
 */

const UNSHOWN = { 404: "Nobody has this number any more.", 409: "This cannot be shown." };
const REFUSED = { 404: "There is no such thing any more.", 409: "That cannot be." };

const read = async (path, signal, problems = UNSHOWN) => (await ask(path, { signal, problems })).json();
const write = async (path, method, body) => {
  const headers = body ? { "Content-Type": "application/json" } : {};
  return (await ask(path, { method, headers, body: body && JSON.stringify(body), problems: REFUSED })).json();
};

/** @returns {Promise<{total: number, people: Person[]}>} */
export const listPeople = (filters, signal) => read(`people?${filters}`, signal);

/** @returns {Promise<Person & {sights: Sight[], links: Link[]}>} */
export const readPerson = (number, signal) => read(`people/${encodeURIComponent(number)}`, signal);

/** @returns {Promise<{cameras: {camera: string, rows: number}[], ways: Way[]}>} */
export const readNetwork = (signal) => read("people/network", signal);

/** @returns {Promise<{questions: Question[], left: number}>} */
export const readQuestions = (limit, signal) => read(`people/questions?limit=${limit}`, signal);

/** @returns {Promise<{answers: Answer[]}>} */
export const listAnswers = (signal) => read("people/answers", signal);

/** @returns {Promise<{changes: Change[]}>} */
export const listChanges = (limit, signal) => read(`people/changes?limit=${limit}`, signal);

/** What is known of a row, its camera, time and strip among it. */
export const readRow = (row) => read(`images/${row}`, undefined, {});

/**
 * Say of two groups of rows whether they are one person.
 *
 * @param {Kind} kind
 * @returns {Promise<Decided>}
 */
export const answer = (kind, one, other) => write("people/answers", "POST", { kind, one, other });

/** @returns {Promise<Decided>} */
export const takeBack = (number) => write(`people/answers/${number}`, "DELETE");

/** @returns {Promise<{answers: Answer[], changes: Change[]}>} */
export const undoChange = (number) => write(`people/changes/${number}/undo`, "POST");
