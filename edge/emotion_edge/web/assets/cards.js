// Shows the card of the chosen model.
element.querySelector("select").addEventListener("change", (event) => {
  for (const card of element.querySelectorAll("[data-card]")) card.hidden = card.dataset.card !== event.target.value;
});
