// Takes a picture from a file, the clipboard, a drop or the camera, and hands it to Python inside
// the event: Gradio's own upload would leave a file on the server.
const find = (selector) => element.querySelector(selector);
const picker = find(".ee-picker"), drop = find(".ee-drop"), camera = find(".ee-camera");
const video = find("video"), status = find(".ee-status");
let stream = null;

const say = (text, bad = false) => {
  status.textContent = text;
  status.classList.toggle("ee-bad", bad);
};

async function send(blob) {
  if (blob.size > LIMIT) {
    say(`That file has ${(blob.size / 1e6).toFixed(1)} MB, at most ${LIMIT / 1e6} MB are taken: send a smaller copy.`, true);
    return;
  }
  picker.classList.add("ee-busy");
  say("Looking…");
  const reader = new FileReader();
  reader.onload = () => trigger("submit", { picture: reader.result.slice(reader.result.indexOf(",") + 1) });
  reader.onerror = () => say("The browser could not read that file.", true);
  reader.readAsDataURL(blob);
}

element.addEventListener("ee-answered", () => {
  picker.classList.remove("ee-busy");
  say("");
});

find(".ee-choose").addEventListener("click", () => find(".ee-file").click());
for (const input of element.querySelectorAll("input[type=file]")) {
  input.addEventListener("change", () => {
    if (input.files[0]) send(input.files[0]);
    input.value = ""; // the same file may be chosen again
  });
}

for (const kind of ["dragenter", "dragover"]) {
  picker.addEventListener(kind, (event) => { event.preventDefault(); picker.classList.add("ee-over"); });
}
for (const kind of ["dragleave", "drop"]) {
  picker.addEventListener(kind, (event) => { event.preventDefault(); picker.classList.remove("ee-over"); });
}
picker.addEventListener("drop", (event) => {
  const file = event.dataTransfer.files[0];
  if (file) send(file);
  else say("That was no file: save the picture first, then drop the file.", true);
});

document.addEventListener("paste", (event) => {
  if (picker.offsetParent === null) return; // another tab is in front
  const item = [...event.clipboardData.items].find((item) => item.type.startsWith("image/"));
  if (item) { event.preventDefault(); send(item.getAsFile()); }
});

function close() {
  stream?.getTracks().forEach((track) => track.stop());
  stream = video.srcObject = null;
  camera.hidden = true;
  drop.hidden = false;
}

find(".ee-shoot").addEventListener("click", async () => {
  if (!navigator.mediaDevices) { // plain http from another machine: a phone still has its camera app
    find(".ee-capture").click();
    return;
  }
  try {
    stream = await navigator.mediaDevices.getUserMedia({ video: { width: { ideal: 1280 }, facingMode: "user" } });
  } catch (error) {
    say(error.name === "NotAllowedError" ? "The browser was not allowed to use the camera." : "No camera answers.", true);
    return;
  }
  say("");
  video.srcObject = stream;
  drop.hidden = true;
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
  canvas.toBlob(send, "image/jpeg", 0.92);
});
new IntersectionObserver(([seen]) => { if (!seen.isIntersecting && stream) close(); }).observe(picker);
