// The live tab. One frame is in flight at a time: the next one is taken from the camera when the
// answer to the last one has arrived. A slow device therefore drops frames, and labels are never late.
const find = (selector) => element.querySelector(selector);
const root = find(".ee-live"), video = find("video"), overlay = find(".ee-overlay");
const timeline = find(".ee-timeline canvas"), chips = find(".ee-chips"), panel = find(".ee-panel");
const status = find(".ee-status"), select = find(".ee-model"), other = find(".ee-other");
const LONGEST = 30, SHORTEST = 10; // seconds of the timeline
const WIDTH = 640;
const frame = document.createElement("canvas");

let stream = null, socket = null, facing = "user", sentAt = 0;
let answers = [], delays = [], history = new Map(), chosen = null, faces = [], second = null, firstShown = null, shown = 0, looked = 0, waiting = false, fresh = false;

for (const name of MODELS) select.add(new Option(name, name));
other.add(new Option("none", ""));
for (const name of MODELS) other.add(new Option(name, name));
for (const one of [select, other]) one.closest("label").hidden = MODELS.length < 2;

const shownAs = (label) => (label === UNSURE ? "not sure" : label);
// "Not sure" has no percentage: the greatest probability is another label's.
const percent = (face) => (face.label === UNSURE ? "" : ` ${Math.round(face.confidence * 100)}%`);
const emoji = (label) => EMOJI[label] ?? "🙂";
const colour = (label) => COLOURS[label] ?? OTHER;
const say = (text, bad = false) => { status.textContent = text; status.classList.toggle("ee-bad", bad); };

async function start() {
  if (!navigator.mediaDevices) {
    say("Browsers give a page the camera only over https or on the same machine. From another machine: "
      + `ssh -L ${location.port || 80}:localhost:${location.port || 80} USER@${location.hostname}, then open http://localhost:${location.port || 80}; or start with --certificate and --key.`, true);
    return;
  }
  say("Waiting for the camera…");
  try {
    stream = await navigator.mediaDevices.getUserMedia({ video: { width: { ideal: WIDTH }, height: { ideal: 480 }, facingMode: facing } });
  } catch (error) {
    say(error.name === "NotAllowedError" ? "The browser was not allowed to use the camera." : `No camera was found (${error.name}).`, true);
    return;
  }
  video.srcObject = stream;
  await video.play();
  root.dataset.state = "running";
  root.classList.toggle("ee-mirror", facing === "user");
  find(".ee-stop").hidden = false;
  const devices = await navigator.mediaDevices.enumerateDevices();
  find(".ee-turn").hidden = devices.filter((device) => device.kind === "videoinput").length < 2;
  connect();
}

function connect() {
  const address = new URL("api/live", document.baseURI);
  address.protocol = location.protocol === "https:" ? "wss:" : "ws:";
  const query = new URLSearchParams({ model: select.value });
  if (other.value && other.value !== select.value) query.set("other", other.value);
  address.search = query;
  socket?.close();
  const mine = (socket = new WebSocket(address));
  answers = []; delays = []; history = new Map(); chosen = null; firstShown = null; looked = 0;
  waiting = fresh = false;
  mine.onopen = () => { say(""); watchCamera(mine); };
  mine.onmessage = (message) => {
    if (mine !== socket) return;
    const record = JSON.parse(message.data);
    if (record.type === "error") say(record.message, true);
    else take(record);
    waiting = false;
    pump(mine);
  };
  mine.onclose = (event) => { if (mine === socket) stop(event.reason || "The connection to the device was lost. Check that emotion-edge web is still running.", true); };
}

// Runs for every frame the camera shows; sends it if the last answer has arrived.
function watchCamera(mine) {
  const look = (_, meta) => {
    if (mine !== socket || !stream) return;
    if (meta) { firstShown ??= meta.presentedFrames; shown = meta.presentedFrames - firstShown + 1; }
    fresh = true;
    pump(mine);
    watchCamera(mine);
  };
  if (video.requestVideoFrameCallback) video.requestVideoFrameCallback(look);
  else requestAnimationFrame(() => look(0, null));
}

function pump(mine) {
  if (waiting || !fresh || mine.readyState !== WebSocket.OPEN) return;
  waiting = true;
  fresh = false;
  const scale = Math.min(1, WIDTH / video.videoWidth);
  frame.width = Math.round(video.videoWidth * scale);
  frame.height = Math.round(video.videoHeight * scale);
  frame.getContext("2d", { willReadFrequently: true }).drawImage(video, 0, 0, frame.width, frame.height);
  sentAt = performance.now();
  frame.toBlob((blob) => { if (mine === socket && blob) mine.send(blob); }, "image/jpeg", 0.85);
}

function take(record) {
  const now = performance.now();
  looked += 1;
  answers = [...answers.filter((at) => now - at < 2000), now];
  const { detect = 0, classify = 0, track = 0 } = record.timings_ms;
  delays = [...delays.slice(-30), [now - sentAt, detect + classify + track]];
  faces = record.faces;
  second = record.other ?? null;
  for (const face of faces) {
    if (!history.has(face.track)) history.set(face.track, []);
    history.get(face.track).push([now, face.probabilities, face.label]);
  }
  for (const [track, points] of history) {
    while (points.length && now - points[0][0] > LONGEST * 1000) points.shift();
    if (!points.length) history.delete(track);
  }
  if (!faces.some((face) => face.track === chosen) && faces.length) {
    chosen = faces.reduce((a, b) => (a.box[2] * a.box[3] >= b.box[2] * b.box[3] ? a : b)).track;
  }
  draw(record);
  describe();
  plot(now);
  const perSecond = answers.length > 1 ? (answers.length - 1) / ((now - answers[0]) / 1000) : 0;
  // Both medians are over the same frames, so that the part never exceeds the whole.
  const [whole, device] = [0, 1].map((k) => delays.map((pair) => pair[k]).sort((a, b) => a - b)[delays.length >> 1]);
  find(".ee-fps").textContent = `${perSecond.toFixed(0)} frames/s`;
  find(".ee-latency").textContent = `${whole.toFixed(0)} ms per frame, ${Math.min(device, whole).toFixed(0)} ms of it on the device`;
  find(".ee-kept").textContent = shown > looked ? `${shown - looked} of ${shown} frames skipped` : "no frame skipped";
}

function draw(record) {
  const ratio = devicePixelRatio || 1, width = overlay.clientWidth, height = overlay.clientHeight;
  overlay.width = width * ratio; overlay.height = height * ratio;
  const pen = overlay.getContext("2d");
  pen.scale(ratio, ratio);
  const scale = Math.min(width / record.width, height / record.height);
  const left = (width - record.width * scale) / 2, top = (height - record.height * scale) / 2;
  pen.font = '600 15px "ee emoji", system-ui, sans-serif';
  pen.textBaseline = "middle";
  const tags = [];
  for (const face of record.faces) {
    let [x, y, w, h] = face.box.map((n) => n * scale);
    x += left; y += top;
    if (root.classList.contains("ee-mirror")) x = width - x - w;
    pen.lineJoin = "round";
    for (const [style, line] of [["rgba(15, 23, 42, .75)", 6], [colour(face.label), face.track === chosen ? 3.5 : 2]]) {
      pen.strokeStyle = style; pen.lineWidth = line;
      pen.beginPath(); pen.roundRect(x, y, w, h, 10); pen.stroke();
    }
    const text = `${record.faces.length > 1 ? `${face.track} ` : ""}${emoji(face.label)} ${shownAs(face.label)}${percent(face)}`;
    const wide = pen.measureText(text).width + 18;
    const tagX = Math.max(4, Math.min(x, width - wide - 4));
    const free = (at) => at >= 2 && at + 28 <= height && !tags.some(([left, top, w]) => tagX < left + w && left < tagX + wide && at < top + 28 && top < at + 28);
    const tagY = [y - 32, y + h + 6, y + 4, y + h - 30].find(free) ?? Math.max(2, y + 4);
    tags.push([tagX, tagY, wide]);
    pen.fillStyle = colour(face.label);
    pen.beginPath(); pen.roundRect(tagX, tagY, wide, 26, 8); pen.fill();
    pen.fillStyle = "#101418";
    pen.fillText(text, tagX + 9, tagY + 14);
  }
}

function describe() {
  const face = faces.find((face) => face.track === chosen);
  const several = faces.length > 1 ? [...faces].sort((a, b) => a.track - b.track) : [];
  const drawn = several.map((one) => `${one.track} ${one.label} ${one.track === chosen}`).join();
  if (chips.dataset.drawn !== drawn) { // not for every frame: a focused button must stay
    const focused = document.activeElement?.dataset.track;
    chips.dataset.drawn = drawn;
    chips.replaceChildren(...several.map((one) => {
      const chip = document.createElement("button");
      chip.type = "button"; chip.className = "ee-chip"; chip.dataset.track = one.track;
      chip.setAttribute("aria-pressed", String(one.track === chosen));
      chip.textContent = `${one.track} ${emoji(one.label)}`;
      chip.setAttribute("aria-label", `Face ${one.track}`);
      return chip;
    }));
    if (focused) chips.querySelector(`[data-track="${focused}"]`)?.focus();
  }
  panel.hidden = !face;
  if (!face) { if (!status.classList.contains("ee-bad")) say("No face in view."); return; }
  if (!status.classList.contains("ee-bad")) say("");
  find(".ee-who").textContent = `face ${face.track}`;
  const rival = second?.faces.find((one) => one.track === face.track);
  const verdict = (one, letter) => {
    const said = document.createElement("span"), mark = document.createElement("span"), sure = document.createElement("small");
    mark.className = "ee-emoji"; mark.textContent = emoji(one.label); mark.setAttribute("aria-hidden", "true");
    sure.textContent = percent(one);
    if (letter) { const square = document.createElement("i"); square.className = `ee-mark ee-${letter}`; said.append(square, " "); }
    said.append(mark, ` ${shownAs(one.label)}`, sure);
    return said;
  };
  const heading = find(".ee-verdict");
  heading.classList.toggle("ee-two", Boolean(rival));
  heading.replaceChildren(...(rival ? [verdict(face, "a"), verdict(rival, "b")] : [verdict(face)]));
  const list = find(".ee-bars"), labels = Object.keys(face.probabilities);
  const kind = `${labels.length} ${Boolean(rival)}`;
  if (list.dataset.kind !== kind) {
    list.dataset.kind = kind;
    const track = rival ? '<span class="ee-track ee-double"><i class="ee-a"></i><i class="ee-b"></i></span>' : '<span class="ee-track"><i></i></span>';
    list.innerHTML = labels.map(() => `<li><span class="ee-name"></span>${track}<span class="ee-value"></span></li>`).join("");
  }
  labels.forEach((label, i) => { // a fixed order: bars that change places cannot be read
    const [name, track, value] = list.children[i].children, p = face.probabilities[label], q = rival?.probabilities[label] ?? 0;
    name.textContent = `${emoji(label)} ${label}`;
    track.firstChild.style.width = `${100 * p}%`;
    if (rival) track.lastChild.style.width = `${100 * q}%`;
    else track.firstChild.style.background = colour(label);
    value.textContent = rival ? `${(100 * p).toFixed(0)} | ${(100 * q).toFixed(0)}%` : `${(100 * p).toFixed(0)}%`;
  });
}

// The labels' colours are light, to be written on; lines on white need darker ones.
const INK = { angry: "#c8321e", disgust: "#2e7d32", fear: "#8e3fa8", happy: "#946400", sad: "#1f6fc0", surprise: "#b8540a", neutral: "#5f6b76" };
const DASHES = [[], [9, 4], [2, 4], [], [12, 3, 2, 3], [6, 3], []]; // told apart without colours, too
const LEAST = 0.2; // probability a label must have reached in the last 30 s to get a line

function plot(now) {
  const ratio = devicePixelRatio || 1, width = timeline.clientWidth, height = timeline.clientHeight;
  timeline.width = width * ratio; timeline.height = height * ratio;
  const pen = timeline.getContext("2d"), style = getComputedStyle(timeline);
  pen.scale(ratio, ratio);
  const line = document.body.classList.contains("dark") ? COLOURS : INK;
  const ink = style.color, left = 44, right = width - 84, top = 10, bottom = height - 44;
  const points = history.get(chosen) ?? [];
  const span = Math.min(LONGEST, Math.max(SHORTEST, points.length ? (now - points[0][0]) / 1000 : 0));
  const atX = (t) => right - ((now - t) / 1000 / span) * (right - left), atY = (p) => bottom - p * (bottom - top);
  pen.font = "13px system-ui, sans-serif";
  pen.fillStyle = ink; pen.strokeStyle = ink; pen.lineWidth = 1;
  pen.textBaseline = "middle"; pen.textAlign = "right";
  for (const p of [0, 0.5, 1]) {
    pen.globalAlpha = 0.2; pen.beginPath(); pen.moveTo(left, atY(p)); pen.lineTo(right, atY(p)); pen.stroke();
    pen.globalAlpha = 0.85; pen.fillText(`${100 * p}%`, left - 8, atY(p));
  }
  pen.textAlign = "center";
  const step = span > 15 ? 10 : 5;
  for (let ago = 0; ago <= span; ago += step) pen.fillText(ago ? `${ago} s ago` : "now", atX(now - ago * 1000), height - 8);
  pen.globalAlpha = 1;
  if (!points.length) return;
  const labels = Object.keys(points[0][1]), latest = points[points.length - 1][1];
  const joined = (i) => i > 0 && points[i][0] - points[i - 1][0] < 1500;

  // The strip: the label that was shown, in its colour.
  for (let i = 0; i < points.length; ) {
    let end = i + 1;
    while (end < points.length && points[end][2] === points[i][2] && joined(end)) end++;
    const from = atX(points[i][0]), to = atX(end < points.length && joined(end) ? points[end][0] : points[end - 1][0]);
    pen.fillStyle = colour(points[i][2]);
    pen.fillRect(from, bottom + 8, Math.max(2, to - from), 16);
    const text = shownAs(points[i][2]);
    if (to - from > pen.measureText(text).width + 8) { pen.fillStyle = "#101418"; pen.fillText(text, (from + to) / 2, bottom + 16.5); }
    i = end;
  }

  const ends = [];
  labels.forEach((label, i) => {
    if (!points.some(([, p]) => p[label] >= LEAST)) return;
    pen.strokeStyle = line[label] ?? ink;
    pen.lineWidth = 2.4;
    pen.setLineDash(DASHES[i % DASHES.length]);
    pen.beginPath();
    points.forEach(([t, p], j) => (joined(j) ? pen.lineTo(atX(t), atY(p[label])) : pen.moveTo(atX(t), atY(p[label]))));
    pen.stroke();
    ends.push({ at: atY(latest[label]), label });
  });
  pen.setLineDash([]); pen.textAlign = "left";
  // End labels are moved apart, and stay within the plot.
  const STEP = 16;
  ends.sort((a, b) => a.at - b.at);
  ends.forEach((end, i) => { end.at = Math.max(end.at, i ? ends[i - 1].at + STEP : top); });
  for (let i = ends.length - 1; i >= 0; i--) ends[i].at = Math.min(ends[i].at, i === ends.length - 1 ? bottom : ends[i + 1].at - STEP);
  for (const { at, label } of ends) {
    pen.fillStyle = line[label] ?? ink;
    pen.fillText(label, right + 8, at);
  }
}

function stop(why = "", bad = false) {
  const old = socket;
  socket = null; // first, so that onclose does not report it
  old?.close();
  stream?.getTracks().forEach((track) => track.stop());
  stream = video.srcObject = null;
  faces = [];
  overlay.getContext("2d").clearRect(0, 0, overlay.width, overlay.height);
  root.dataset.state = "idle";
  second = null;
  panel.hidden = true;
  chips.replaceChildren();
  chips.dataset.drawn = "";
  for (const button of [".ee-stop", ".ee-turn"]) find(button).hidden = true;
  for (const item of element.querySelectorAll(".ee-readout span")) item.textContent = "";
  say(why, bad);
}

find(".ee-start").addEventListener("click", start);
find(".ee-stop").addEventListener("click", () => stop());
find(".ee-turn").addEventListener("click", () => { facing = facing === "user" ? "environment" : "user"; stop(); start(); });
for (const one of [select, other]) one.addEventListener("change", () => { if (stream) connect(); });
chips.addEventListener("click", (event) => { const chip = event.target.closest("[data-track]"); if (chip) { chosen = Number(chip.dataset.track); describe(); } });
new IntersectionObserver(([seen]) => { if (!seen.isIntersecting && root.offsetParent === null && stream) stop(); }).observe(root);
