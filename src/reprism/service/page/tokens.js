// The form for the access token, which is kept until the browser's tab is closed.

const $ = (id) => document.getElementById(id);

/** Show the form where the service wants tokens. */
export function offerToken(session) {
  $("token-form").hidden = !session.tokens;
  $("token-form").toggleAttribute("data-used", session.scopes.length > 0);
  $("forget-token").hidden = !sessionStorage.getItem("token");
}

/** Show the form, and wait in it for a token. */
export function askForToken() {
  $("token-form").hidden = false;
  $("token-form").removeAttribute("data-used");
  $("forget-token").hidden = !sessionStorage.getItem("token");
  $("token").focus();
}

/** Call ``used(words)`` whenever a token was given, or forgotten; ``words`` say which. */
export function onToken(used) {
  const use = (token) => {
    if (token) sessionStorage.setItem("token", token);
    else sessionStorage.removeItem("token");
    $("token").value = "";
    used(token ? "The token is used from now on." : "The token is forgotten.");
  };
  $("token-form").onsubmit = (event) => {
    event.preventDefault();
    use($("token").value);
  };
  $("forget-token").onclick = () => use(null);
}
