// A tracklet's small pictures in the order of time: played in a card's picture, or side by side as a film.

const STEP = 400; // milliseconds that a picture is shown
const still = matchMedia("(prefers-reduced-motion: reduce)");

/**
 * Play a strip in the box of a card's picture, again and again while the pointer is over the card or the focus in it.
 *
 * Who wants little motion sees the still picture; the film is in the opened match, for them and for touch.
 */
export function playOnAttention(card, box, strip, pictures) {
  if (strip.length < 2) return;
  let playing = null; // a token of the present run
  const frame = Object.assign(document.createElement("img"), { className: "strip-frame", alt: "" });
  const rest = () => {
    playing = null;
    frame.remove();
    box.dataset.strip = `▸ ${strip.length}`;
  };
  const play = async () => {
    if (playing || still.matches) return;
    const mine = (playing = {});
    for (let number = 0; playing === mine && card.isConnected; number = (number + 1) % strip.length) {
      const address = await pictures.at(strip[number]);
      if (playing !== mine) return;
      if (address) {
        frame.src = address;
        box.append(frame); // again: the still picture may have come meanwhile, in place of all
        box.dataset.strip = `${number + 1} / ${strip.length}`;
      }
      await new Promise((done) => setTimeout(done, STEP));
    }
  };
  const restUnlessAttended = () => {
    if (!card.matches(":hover") && !card.contains(document.activeElement)) rest();
  };
  card.addEventListener("mouseenter", play);
  card.addEventListener("focusin", play);
  card.addEventListener("mouseleave", restUnlessAttended);
  card.addEventListener("focusout", () => setTimeout(restUnlessAttended));
  rest();
}

const seen = new IntersectionObserver((entries) => {
  for (const { isIntersecting, target } of entries) {
    if (!isIntersecting) continue;
    seen.unobserve(target);
    target.load();
  }
}, { rootMargin: "200px" });

/** Call ``load`` once a node comes into view. */
export function whenSeen(node, load) {
  node.load = load;
  seen.observe(node);
}

/**
 * Lay a strip out as a film: a list of pictures, each fetched once it comes into view.
 *
 * With ``choose(number, address)`` each is a button that calls it.
 */
export function film(strip, pictures, choose = null) {
  const list = document.createElement("ul");
  list.className = "film";
  list.setAttribute("aria-label", "Pictures of this track, in the order of time");
  strip.forEach((path, number) => {
    const item = document.createElement("li");
    const image = Object.assign(document.createElement("img"), { alt: `Picture ${number + 1} of ${strip.length}` });
    image.hidden = true;
    if (choose) {
      const button = Object.assign(document.createElement("button"), { type: "button" });
      button.setAttribute("aria-label", image.alt);
      button.onclick = async () => choose(number, await pictures.at(path));
      button.append(image);
      item.append(button);
    } else {
      item.append(image);
    }
    list.append(item);
    whenSeen(item, async () => {
      const address = await pictures.at(path);
      if (!address) return;
      image.onload = () => { image.hidden = false; };
      image.src = address;
    });
  });
  return list;
}
