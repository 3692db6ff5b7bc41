// What the page asks of the service, always with the token, if there is one.

/** What went wrong, in words for the reader. */
export class Problem extends Error {
  constructor(message, { status = 0, retry = false } = {}) {
    super(message);
    this.status = status;
    this.retry = retry;
  }
}

const PROBLEMS = {
  401: "The service wants an access token, or does not know this one. Enter one at the top of the page.",
  403: "This token does not allow that.",
  404: "It is not in the gallery any more.",
  408: "The picture took too long to arrive.",
  409: "The service does not know how sure its matches are.",
  413: "The picture is too large.",
  415: "This file is not a picture of a kind that the service reads.",
  422: "The service cannot use what it was given.",
  503: "The service cannot answer now.",
};

/** Ask the service; ``problems`` are words for some of its errors, in place of the usual ones. */
export async function ask(path, { headers = {}, problems = {}, ...options } = {}) {
  const token = sessionStorage.getItem("token");
  const authorization = token ? { Authorization: `Bearer ${token}` } : {};
  let response;
  try {
    response = await fetch(path, { ...options, headers: { ...headers, ...authorization } });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem("The service cannot be reached. Is it running, and this machine connected?", { retry: true });
  }
  if (!response.ok) throw await problemOf(response, problems);
  return response;
}

async function problemOf(response, problems) {
  const words = [problems[response.status] ?? PROBLEMS[response.status] ?? `The service failed (${response.status}).`];
  const detail = await response.json().then((body) => body.detail, () => null);
  if (typeof detail === "string") words.push(detail);
  if (Array.isArray(detail)) words.push(...detail.map((one) => `${(one.loc ?? []).at(-1)}: ${one.msg}`));
  const seconds = response.headers.get("Retry-After");
  if (seconds) words.push(`Try again in ${seconds} s.`);
  const retry = response.status >= 500;
  return new Problem(words.join(" "), { status: response.status, retry });
}

/** Pictures of the service, each fetched once; ``forget`` lets go of all that were fetched, and of those under way. */
export class Pictures {
  #running = new AbortController();
  #fetched = new Map(); // path -> promise of a blob's address, or of null

  /** The address of a picture as this page may show it; null if it cannot be had. */
  at(path) {
    if (!path) return Promise.resolve(null);
    if (!this.#fetched.has(path)) {
      // Not simply the address: an <img> sends no token.
      const address = ask(path.replace(/^\//, ""), { signal: this.#running.signal })
        .then((response) => response.blob())
        .then(URL.createObjectURL, () => null);
      this.#fetched.set(path, address);
    }
    return this.#fetched.get(path);
  }

  forget() {
    this.#running.abort();
    this.#running = new AbortController();
    for (const address of this.#fetched.values()) address.then((url) => url && URL.revokeObjectURL(url));
    this.#fetched = new Map();
  }
}
