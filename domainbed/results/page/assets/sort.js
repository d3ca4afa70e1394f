"use strict";

// The number at the start of a cell, or null for text and missing results (X, -).
function numberOf(text) {
  const match = text.replace("\u2212", "-").match(/^[[+<]?(-?(?:\d[\d,]*)?\.?\d+(?:e[+-]?\d+)?)/i);
  return match ? parseFloat(match[1].replaceAll(",", "")) : null;
}

// Compare two cells. Cells without a number come last in either direction.
function compare(one, other, sign) {
  const [a, b] = [numberOf(one), numberOf(other)];
  if (a !== null && b !== null) return sign * (a - b);
  if ((a === null) !== (b === null)) return a === null ? 1 : -1;
  return sign * one.localeCompare(other);
}

// Sort the rows of each group; a row that names its group stays on top.
function sortBy(table, column, header) {
  const before = header.getAttribute("aria-sort");
  // The first click shows the largest number, or the first letter, on top.
  const first = header.classList.contains("number") ? "descending" : "ascending";
  const order = { ascending: "descending", descending: "ascending" }[before] ?? first;
  for (const each of table.tHead.rows[0].cells) each.removeAttribute("aria-sort");
  header.setAttribute("aria-sort", order);
  const sign = order === "ascending" ? 1 : -1;
  const text = (row) => row.cells[column].textContent.trim();
  for (const body of table.tBodies) {
    const rows = [...body.rows].filter((row) => !row.classList.contains("group"));
    rows.sort((one, other) => compare(text(one), text(other), sign));
    body.append(...rows);
  }
}

for (const table of document.querySelectorAll("table")) {
  [...table.tHead.rows[0].cells].forEach((header, column) => {
    if (header.dataset.sort === "no") return;
    const button = document.createElement("button");
    button.type = "button";
    button.title = "Sort by this column";
    button.textContent = header.textContent;
    button.addEventListener("click", () => sortBy(table, column, header));
    header.replaceChildren(button);
  });
}
