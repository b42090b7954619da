// Chooses among the faces of an answer, and tells the picker of this tab that it has come.
element.addEventListener("click", (event) => {
  const button = event.target.closest("[data-face]");
  if (!button) return;
  const face = button.dataset.face;
  for (const one of element.querySelectorAll("[data-face]")) {
    one.setAttribute("aria-pressed", String(one.dataset.face === face));
  }
  for (const panel of element.querySelectorAll("[data-panel]")) {
    panel.hidden = panel.dataset.panel !== face;
  }
});
watch("value", () => {
  for (const picker of document.querySelectorAll(".ee-picker")) {
    picker.dispatchEvent(new CustomEvent("ee-answered", { bubbles: true }));
  }
  if (matchMedia("(max-width: 720px)").matches) {
    requestAnimationFrame(() => element.scrollIntoView({ behavior: "smooth", block: "start" }));
  }
});
