// Takes an image from a file, the clipboard, a drop, the camera or an example, posts it to this
// page's own path and shows the answer. KIND: "faces" or "compare"; LIMIT: bytes.
const find = (selector) => element.querySelector(selector);
const picker = find(".ee-picker"), answer = find(".ee-answer"), camera = find(".ee-camera");
const video = find("video"), spinner = find(".ee-spinner"), announced = find(".ee-announce");
const empty = answer.innerHTML;
let stream = null, request = null, last = null;

const inFront = () => picker.offsetParent !== null;
const announce = (text) => { announced.textContent = ""; requestAnimationFrame(() => { announced.textContent = text; }); };
const wait = (text) => { spinner.querySelector("span").textContent = text; };

function fail(why) {
  answer.innerHTML = empty;
  const error = document.createElement("div");
  error.className = "ee-error";
  error.setAttribute("role", "alert");
  error.textContent = why;
  answer.querySelector(".ee-side").replaceChildren(error);
}

async function send(blob, whole = false) {
  request?.abort();
  last = { blob, whole };
  if (blob.size > LIMIT) {
    last = request = null;
    spinner.hidden = true;
    fail(`The file has ${(blob.size / 1e6).toFixed(1)} MB; the limit is ${LIMIT / 1e6} MB. Send a smaller copy.`);
    return;
  }
  const mine = (request = new AbortController());
  picker.setAttribute("aria-busy", "true");
  wait("Looking for faces…");
  spinner.hidden = false;
  const query = new URLSearchParams({ model: find(".ee-model").value, whole });
  if (KIND === "compare") query.set("other", find(".ee-other").value);
  try {
    const html = await emotionEdge.post(`page/${KIND}?${query}`, blob, mine.signal, wait);
    if (mine !== request) return;
    answer.innerHTML = html;
    const result = answer.firstElementChild;
    result.querySelector(".ee-whole")?.addEventListener("click", () => send(blob, true));
    const figure = result.querySelector(".ee-figure"), image = figure.querySelector("img");
    await image.decode().catch(() => {});
    new ResizeObserver(() => emotionEdge.placeTags(figure)).observe(figure);
    emotionEdge.placeTags(figure);
    announce(result.dataset.summary);
    if (matchMedia("(max-width: 720px)").matches) result.scrollIntoView({ behavior: "smooth", block: "start" });
  } catch (error) {
    if (mine === request) fail(error.message);
  } finally {
    if (mine === request) {
      request = null;
      spinner.hidden = true;
      picker.removeAttribute("aria-busy");
    }
  }
}

answer.addEventListener("click", (event) => {
  const face = event.target.closest("[data-face]")?.dataset.face;
  if (face === undefined) return;
  for (const one of answer.querySelectorAll("[data-face]")) one.setAttribute("aria-pressed", String(one.dataset.face === face));
  for (const panel of answer.querySelectorAll("[data-panel]")) panel.hidden = panel.dataset.panel !== face;
});

for (const select of element.querySelectorAll("select")) {
  select.addEventListener("change", () => { if (last) send(last.blob, last.whole); });
}

for (const button of element.querySelectorAll(".ee-example")) {
  button.addEventListener("click", async () => {
    try {
      const response = await fetch(button.dataset.example);
      if (!response.ok) throw new Error();
      send(await response.blob());
    } catch {
      fail("The example could not be loaded. Check that emotion-edge web is still running.");
    }
  });
}

find(".ee-choose").addEventListener("click", () => find(".ee-file").click());
for (const input of element.querySelectorAll("input[type=file]")) {
  input.addEventListener("change", () => {
    if (input.files[0]) send(input.files[0]);
    input.value = ""; // so that the same file can be chosen again
  });
}

document.addEventListener("ee-file", (event) => {
  if (!inFront()) return;
  if (event.detail) send(event.detail);
  else fail("That was not a file. Save the image first, then drop the file.");
});

document.addEventListener("paste", (event) => {
  if (!inFront()) return;
  const item = [...event.clipboardData.items].find((item) => item.type.startsWith("image/"));
  if (item) { event.preventDefault(); send(item.getAsFile()); }
});

function close() {
  stream?.getTracks().forEach((track) => track.stop());
  stream = video.srcObject = null;
  camera.hidden = true;
  answer.hidden = false;
}

find(".ee-shoot").addEventListener("click", async () => {
  // Without https a browser gives a page no camera, but a phone still has its camera app.
  if (!navigator.mediaDevices || matchMedia("(hover: none) and (pointer: coarse)").matches) {
    find(".ee-capture").click();
    return;
  }
  try {
    stream = await navigator.mediaDevices.getUserMedia({ video: { width: { ideal: 1280 }, facingMode: "user" } });
  } catch (error) {
    fail(error.name === "NotAllowedError" ? "The browser was not allowed to use the camera." : `No camera was found (${error.name}).`);
    return;
  }
  video.srcObject = stream;
  answer.hidden = true;
  camera.hidden = false;
  await video.play();
});
find(".ee-cancel").addEventListener("click", close);
find(".ee-snap").addEventListener("click", () => {
  const canvas = document.createElement("canvas");
  canvas.width = video.videoWidth;
  canvas.height = video.videoHeight;
  canvas.getContext("2d").drawImage(video, 0, 0);
  close();
  canvas.toBlob((blob) => send(blob), "image/jpeg", 0.92);
});
new IntersectionObserver(([seen]) => { if (!seen.isIntersecting && !inFront() && stream) close(); }).observe(picker);
