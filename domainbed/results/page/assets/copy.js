// The texts of a table, tab-separated. A column of "mean ± error" becomes two columns.
function asTsv(table) {
  const rows = [...table.rows].map((row) => [...row.cells]);
  const kept = rows[0].map((header, i) => (header.dataset.copy === "no" ? -1 : i)).filter((i) => i >= 0);
  const text = (cell) => (cell?.textContent ?? "").replaceAll("\u2212", "-").replace(/\s+/g, " ").trim();
  const cells = rows.map((row) => kept.map((i) => text(row[i])));
  const divided = kept.map((_, i) => cells.slice(1).some((row) => row[i].includes(" ± ")));
  const lines = cells.map((row, r) =>
    row.flatMap((cell, i) => {
      if (!divided[i]) return [cell];
      return r === 0 ? [cell, `${cell} ±`] : [...cell.split(" ± "), ""].slice(0, 2);
    }),
  );
  return lines.map((line) => line.join("\t")).join("\n") + "\n";
}

// Some browsers allow the clipboard only on pages from a server: there, copy from a text field.
function copyFromField(text) {
  const field = document.createElement("textarea");
  field.value = text;
  field.style.position = "fixed";
  document.body.append(field);
  field.select();
  const copied = document.execCommand("copy");
  field.remove();
  return copied;
}

async function copyText(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    return copyFromField(text);
  }
}

function addCopyButton(table) {
  const box = table.closest(".table") ?? table;
  const button = document.createElement("button");
  button.type = "button";
  button.className = "copy";
  button.textContent = "Copy";
  const name = table.getAttribute("aria-label") ?? box.getAttribute("aria-label") ?? "this table";
  button.setAttribute("aria-label", `Copy: ${name}`);
  button.title = "Copy the table, tab-separated, for a spreadsheet";
  button.addEventListener("click", async () => {
    const copied = await copyText(asTsv(table));
    button.focus();
    button.textContent = copied ? "Copied" : "Not allowed here";
    document.getElementById("status").textContent = copied ? "Table copied" : "The browser does not allow copying";
    setTimeout(() => (button.textContent = "Copy"), 2000);
  });
  // Beside the heading above, else beside the legend below, else in a line of its own.
  const [above, below] = [box.previousElementSibling, box.nextElementSibling];
  const line = document.createElement("div");
  line.className = "titled";
  if (/^H[23]$/.test(above?.tagName)) {
    above.replaceWith(line);
    line.append(above, button);
  } else if (below?.classList.contains("legend")) {
    below.replaceWith(line);
    line.append(below, button);
  } else {
    box.before(line);
    line.append(button);
  }
}

document.querySelectorAll("table").forEach(addCopyButton);
