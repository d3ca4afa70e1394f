// On a phone, a table that is wider than the screen shows each row as a card of labelled cells. A matrix scrolls.
const phone = matchMedia("(max-width: 40rem)");

function fit(box) {
  const table = box.querySelector("table");
  box.classList.remove("cards");
  if (!phone.matches || box.classList.contains("matrix") || table.scrollWidth <= box.clientWidth) return;
  const labels = [...table.tHead.rows[0].cells].map((header) => header.textContent);
  for (const row of table.tBodies[0].rows) {
    [...row.cells].forEach((cell, i) => (cell.dataset.label = labels[i]));
  }
  box.classList.add("cards");
}

function fitAll(parent) {
  parent.querySelectorAll(".table").forEach(fit);
}

// Folded tables have no width: they are fitted when they appear.
document.addEventListener("toggle", (event) => event.target.open && fitAll(event.target), true);
window.addEventListener("resize", () => fitAll(document));
fitAll(document);
