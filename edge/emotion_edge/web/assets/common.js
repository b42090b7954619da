// What several tabs share: requests, tags in images, dropped files, the theme, keys between tabs.
window.emotionEdge ??= (() => {
  const TIMEOUT_S = 60, ATTEMPTS = 5;
  const wait = (seconds) => new Promise((done) => setTimeout(done, 1000 * seconds));

  // Posts an image and returns the response's text. Throws an Error with a sentence for the
  // visitor, or an AbortError when the caller's signal ends the request.
  async function post(path, blob, signal, say) {
    for (let attempt = 1; ; attempt++) {
      let response;
      try {
        response = await fetch(path, { method: "POST", body: blob, signal: AbortSignal.any([signal, AbortSignal.timeout(1000 * TIMEOUT_S)]) });
      } catch (error) {
        if (signal.aborted) throw error;
        if (error.name === "TimeoutError") throw new Error(`No answer within ${TIMEOUT_S} seconds. The device may be busy: try again.`);
        throw new Error("The server cannot be reached. Check that emotion-edge web is still running, then try again.");
      }
      const text = await response.text();
      if (response.ok) return text;
      if (response.status === 503 && attempt < ATTEMPTS) {
        say("The device is busy with other images. Waiting…");
        await wait(Number(response.headers.get("retry-after") ?? 2) * (0.5 + Math.random()));
        if (signal.aborted) throw signal.reason;
        continue;
      }
      let why;
      try { why = JSON.parse(text).error; } catch { why = `the server answered with status ${response.status}`; }
      throw new Error(why[0].toUpperCase() + why.slice(1) + ".");
    }
  }

  const overlap = (a, b) => a.x < b.x + b.w && b.x < a.x + a.w && a.y < b.y + b.h && b.y < a.y + a.h;

  // Finds a place for a tag of w x h pixels at a box, clear of the other tags and of the other
  // boxes; loose: clear of the tags only. Returns null where every place is taken.
  function place(box, tag, frame, tags, boxes, loose) {
    const w = tag.offsetWidth, h = tag.offsetHeight, width = frame.clientWidth, height = frame.clientHeight;
    const right = box.x + box.w - w, below = box.y + box.h + 4, above = box.y - h - 4;
    return [
      [box.x, above], [right, above], [box.x, below], [right, below],
      [box.x + 4, box.y + 4], [right - 4, box.y + 4], [box.x + 4, box.y + box.h - h - 4], [right - 4, box.y + box.h - h - 4],
    ].map(([x, y]) => ({ x: Math.max(0, Math.min(x, width - w)), y, w, h })).find((spot) => spot.y >= 0
      && spot.y + h <= height
      && !tags.some((other) => overlap(spot, other))
      && (loose || !boxes.some((other) => other !== box && overlap(spot, other)))) ?? null;
  }

  // Places the tags of an answer's faces so that none hides another tag or face; a tag without
  // room is shortened to its number, which is the number of the chip.
  function placeTags(figure) {
    const frame = figure.firstElementChild;
    if (!frame.clientWidth) return;
    const buttons = [...frame.querySelectorAll(".ee-box")], tags = [];
    const boxes = buttons.map((b) => ({ x: b.offsetLeft, y: b.offsetTop, w: b.offsetWidth, h: b.offsetHeight }));
    buttons.forEach((button, i) => {
      const tag = button.querySelector(".ee-tag");
      if (!tag) return;
      const attempt = (short, loose) => {
        tag.classList.toggle("ee-short", short);
        return place(boxes[i], tag, frame, tags, boxes, loose);
      };
      const several = buttons.length > 1;
      const spot = attempt(false, false) ?? (several ? attempt(true, false) ?? attempt(true, true) : attempt(false, true))
        ?? { x: boxes[i].x, y: boxes[i].y, w: tag.offsetWidth, h: tag.offsetHeight };
      tags.push(spot);
      tag.style.left = `${spot.x - boxes[i].x - button.clientLeft}px`;
      tag.style.top = `${spot.y - boxes[i].y - button.clientTop}px`;
    });
  }

  // A file dropped anywhere on the page goes to the tab that takes images; the browser must not
  // leave the page to show it.
  for (const kind of ["dragenter", "dragover"]) {
    addEventListener(kind, (event) => { event.preventDefault(); document.body.classList.add("ee-dragging"); });
  }
  addEventListener("dragleave", (event) => { if (!event.relatedTarget) document.body.classList.remove("ee-dragging"); });
  addEventListener("drop", (event) => {
    event.preventDefault();
    document.body.classList.remove("ee-dragging");
    document.dispatchEvent(new CustomEvent("ee-file", { detail: event.dataTransfer?.files[0] ?? null }));
  });

  // Arrow keys, Home and End move between tabs, as in every tab list.
  addEventListener("keydown", (event) => {
    const tab = event.target.closest?.("[role=tab]");
    if (!tab) return;
    const tabs = [...tab.closest("[role=tablist]").querySelectorAll("[role=tab]")].filter((one) => one.offsetParent);
    const here = tabs.indexOf(tab), last = tabs.length - 1;
    const next = { ArrowRight: here === last ? 0 : here + 1, ArrowLeft: here === 0 ? last : here - 1, Home: 0, End: last }[event.key];
    if (next === undefined) return;
    event.preventDefault();
    tabs[next].focus();
    tabs[next].click();
  });

  const remembered = () => { try { return localStorage.getItem("ee-theme"); } catch { return null; } };
  const setDark = (dark) => {
    document.body.classList.toggle("dark", dark);
    try { localStorage.setItem("ee-theme", dark ? "dark" : "light"); } catch { /* private browsing */ }
  };
  addEventListener("click", (event) => {
    if (event.target.closest?.(".ee-theme")) setDark(!document.body.classList.contains("dark"));
  });
  // Gradio sets the theme of the system once it has started; the visitor's choice comes after.
  if (remembered()) new MutationObserver((_, observer) => {
    if (!document.querySelector(".ee-theme")) return;
    observer.disconnect();
    setDark(remembered() === "dark");
  }).observe(document, { childList: true, subtree: true });

  return { post, placeTags };
})();
