// The live tab. One frame is on its way at a time: the next is taken from the camera when the last
// one's answer is here, so a slow device drops frames and the labels are never late.
const find = (selector) => element.querySelector(selector);
const root = find(".ee-live"), video = find("video"), overlay = find(".ee-overlay");
const timeline = find(".ee-timeline canvas"), chips = find(".ee-chips"), panel = find(".ee-panel");
const status = find(".ee-status"), select = find(".ee-model");
const SPAN = 30, WIDTH = 640;
const frame = document.createElement("canvas");

let stream = null, socket = null, facing = "user", sentAt = 0;
let answers = [], delays = [], history = new Map(), chosen = null, faces = [], firstShown = null, shown = 0, looked = 0, waiting = false, fresh = false;

for (const name of MODELS) select.add(new Option(name, name));
select.closest("label").hidden = MODELS.length < 2;

const emoji = (label) => EMOJI[label] ?? "🙂";
const colour = (label) => COLOURS[label] ?? OTHER;
const say = (text, bad = false) => { status.textContent = text; status.classList.toggle("ee-bad", bad); };

async function start() {
  if (!navigator.mediaDevices) {
    say("Browsers give a page the camera only over https or on the very machine. From another one: "
      + `ssh -L ${location.port || 80}:localhost:${location.port || 80} USER@${location.hostname}, then open http://localhost:${location.port || 80}; or start with --certificate and --key.`, true);
    return;
  }
  say("Waiting for the camera…");
  try {
    stream = await navigator.mediaDevices.getUserMedia({ video: { width: { ideal: WIDTH }, height: { ideal: 480 }, facingMode: facing } });
  } catch (error) {
    say(error.name === "NotAllowedError" ? "The browser was not allowed to use the camera." : `No camera answers (${error.name}).`, true);
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
  address.search = new URLSearchParams({ model: select.value });
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
  mine.onclose = (event) => { if (mine === socket) stop(event.reason || "The connection to the device was lost.", true); };
}

// Runs for every frame the camera shows; sends it if the last answer is here.
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
  delays = [...delays.slice(-30), now - sentAt];
  faces = record.faces;
  for (const face of faces) {
    if (!history.has(face.track)) history.set(face.track, []);
    history.get(face.track).push([now, face.probabilities]);
  }
  for (const [track, points] of history) {
    while (points.length && now - points[0][0] > SPAN * 1000) points.shift();
    if (!points.length) history.delete(track);
  }
  if (!faces.some((face) => face.track === chosen) && faces.length) {
    chosen = faces.reduce((a, b) => (a.box[2] * a.box[3] >= b.box[2] * b.box[3] ? a : b)).track;
  }
  draw(record);
  describe();
  plot(now);
  const perSecond = answers.length > 1 ? (answers.length - 1) / ((now - answers[0]) / 1000) : 0;
  const typical = [...delays].sort((a, b) => a - b)[delays.length >> 1];
  find(".ee-fps").textContent = `${perSecond.toFixed(0)} frames/s`;
  find(".ee-latency").textContent = `${typical.toFixed(0)} ms there and back, ${record.timings_ms.age.toFixed(0)} ms on the device`;
  find(".ee-kept").textContent = shown > looked ? `${shown - looked} of ${shown} frames dropped to keep up` : "no frame dropped";
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
  for (const face of record.faces) {
    let [x, y, w, h] = face.box.map((n) => n * scale);
    x += left; y += top;
    if (root.classList.contains("ee-mirror")) x = width - x - w;
    pen.lineJoin = "round";
    for (const [style, line] of [["rgba(15, 23, 42, .75)", 6], [colour(face.label), face.track === chosen ? 3.5 : 2]]) {
      pen.strokeStyle = style; pen.lineWidth = line;
      pen.beginPath(); pen.roundRect(x, y, w, h, 10); pen.stroke();
    }
    const text = `${emoji(face.label)} ${face.label} ${Math.round(face.confidence * 100)}%`;
    const wide = pen.measureText(text).width + 18;
    const tagY = y > 34 ? y - 32 : Math.min(y + h + 6, height - 28);
    const tagX = Math.max(4, Math.min(x, width - wide - 4));
    pen.fillStyle = colour(face.label);
    pen.beginPath(); pen.roundRect(tagX, tagY, wide, 26, 8); pen.fill();
    pen.fillStyle = "#101418";
    pen.fillText(text, tagX + 9, tagY + 14);
  }
}

function describe() {
  const face = faces.find((face) => face.track === chosen);
  chips.replaceChildren(...(faces.length > 1 ? [...faces].sort((a, b) => a.track - b.track).map((one) => {
    const chip = document.createElement("button");
    chip.type = "button"; chip.className = "ee-chip"; chip.dataset.track = one.track;
    chip.setAttribute("aria-pressed", String(one.track === chosen));
    chip.textContent = `${emoji(one.label)} face ${one.track}`;
    return chip;
  }) : []));
  panel.hidden = !face;
  if (!face) { if (!status.classList.contains("ee-bad")) say("No face in view."); return; }
  if (!status.classList.contains("ee-bad")) say("");
  find(".ee-who").textContent = `face ${face.track}`;
  const mark = document.createElement("span"), sure = document.createElement("small");
  mark.className = "ee-emoji"; mark.textContent = emoji(face.label);
  sure.textContent = `${Math.round(face.confidence * 100)}%`;
  find(".ee-verdict").replaceChildren(mark, ` ${face.label} `, sure);
  const list = find(".ee-bars");
  const labels = Object.keys(face.probabilities);
  if (list.children.length !== labels.length) {
    list.innerHTML = labels.map(() => '<li><span class="ee-name"></span><span class="ee-track"><i></i></span><span class="ee-value"></span></li>').join("");
  }
  labels.forEach((label, i) => { // a fixed order: bars that swap places cannot be read
    const [name, track, value] = list.children[i].children, p = face.probabilities[label];
    name.textContent = `${emoji(label)} ${label}`;
    track.firstChild.style.width = `${100 * p}%`;
    track.firstChild.style.background = colour(label);
    value.textContent = `${(100 * p).toFixed(0)}%`;
  });
}

// The labels' colours are light, to be written on; as lines on white they need more ink.
const INK = { angry: "#c8321e", disgust: "#2e7d32", fear: "#8e3fa8", happy: "#a87400", sad: "#1f6fc0", surprise: "#d0620b", neutral: "#5f6b76" };
const DASHES = [[], [9, 4], [2, 4], [], [12, 3, 2, 3], [6, 3], [1, 3]]; // told apart in gray, too

function plot(now) {
  const ratio = devicePixelRatio || 1, width = timeline.clientWidth, height = timeline.clientHeight;
  timeline.width = width * ratio; timeline.height = height * ratio;
  const pen = timeline.getContext("2d"), style = getComputedStyle(timeline);
  pen.scale(ratio, ratio);
  const line = document.body.classList.contains("dark") ? COLOURS : INK;
  const ink = style.color, left = 40, right = width - 92, top = 8, bottom = height - 22;
  const atX = (t) => right - ((now - t) / 1000 / SPAN) * (right - left), atY = (p) => bottom - p * (bottom - top);
  pen.font = "12px system-ui, sans-serif";
  pen.fillStyle = ink; pen.strokeStyle = ink; pen.lineWidth = 1;
  pen.textBaseline = "middle"; pen.textAlign = "right";
  for (const p of [0, 0.5, 1]) {
    pen.globalAlpha = 0.18; pen.beginPath(); pen.moveTo(left, atY(p)); pen.lineTo(right, atY(p)); pen.stroke();
    pen.globalAlpha = 0.75; pen.fillText(`${100 * p}%`, left - 6, atY(p));
  }
  pen.textAlign = "center";
  for (const ago of [0, 10, 20, 30]) pen.fillText(ago ? `−${ago} s` : "now", atX(now - ago * 1000), bottom + 13);
  pen.globalAlpha = 1;
  const points = history.get(chosen) ?? [];
  if (!points.length) return;
  const labels = Object.keys(points[0][1]), last = points[points.length - 1][1];
  const ends = [];
  labels.forEach((label, i) => {
    const strong = last[label] >= 0.1 || points.some(([, p]) => p[label] >= 0.25);
    pen.strokeStyle = line[label] ?? ink;
    pen.globalAlpha = strong ? 1 : 0.35; pen.lineWidth = strong ? 2.2 : 1;
    pen.setLineDash(DASHES[i % DASHES.length]);
    pen.beginPath();
    points.forEach(([t, p], j) => (j && t - points[j - 1][0] < 1500 ? pen.lineTo(atX(t), atY(p[label])) : pen.moveTo(atX(t), atY(p[label]))));
    pen.stroke();
    if (strong) ends.push([atY(last[label]), label]);
  });
  pen.setLineDash([]); pen.globalAlpha = 1; pen.textAlign = "left";
  ends.sort((a, b) => a[0] - b[0]);
  let free = top;
  for (const [y, label] of ends) {
    const at = Math.max(y, free);
    free = at + 15;
    pen.fillStyle = line[label] ?? ink;
    pen.fillText(`${label}`, right + 8, at);
  }
}

function stop(why = "", bad = false) {
  const old = socket;
  socket = null; // first, so that its onclose knows it was meant
  old?.close();
  stream?.getTracks().forEach((track) => track.stop());
  stream = video.srcObject = null;
  faces = [];
  overlay.getContext("2d").clearRect(0, 0, overlay.width, overlay.height);
  root.dataset.state = "idle";
  panel.hidden = true;
  chips.replaceChildren();
  for (const button of [".ee-stop", ".ee-turn"]) find(button).hidden = true;
  for (const item of element.querySelectorAll(".ee-readout span")) item.textContent = "";
  say(why, bad);
}

find(".ee-start").addEventListener("click", start);
find(".ee-stop").addEventListener("click", () => stop());
find(".ee-turn").addEventListener("click", () => { facing = facing === "user" ? "environment" : "user"; stop(); start(); });
select.addEventListener("change", () => { if (stream) connect(); });
chips.addEventListener("click", (event) => { const chip = event.target.closest("[data-track]"); if (chip) { chosen = Number(chip.dataset.track); describe(); } });
new IntersectionObserver(([seen]) => { if (!seen.isIntersecting && root.offsetParent === null && stream) stop(); }).observe(root);
