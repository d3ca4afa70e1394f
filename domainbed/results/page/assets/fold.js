// A link to a part opens it, and closes the menu it was chosen from.
function openPart(hash) {
  const part = hash.length > 1 && document.getElementById(decodeURIComponent(hash.slice(1)));
  if (!part) return;
  const fold = part.querySelector(":scope > details");
  if (fold) fold.open = true;
  for (let each = part.closest("details"); each; each = each.parentElement.closest("details")) each.open = true;
  part.scrollIntoView();
}

const menu = document.querySelector(".menu");
for (const link of document.querySelectorAll('a[href^="#"]')) {
  link.addEventListener("click", () => {
    openPart(link.hash);
    if (menu.contains(link)) menu.open = false;
  });
}
document.addEventListener("click", (event) => {
  if (!menu.contains(event.target)) menu.open = false;
});
menu.addEventListener("keydown", (event) => {
  if (event.key !== "Escape") return;
  menu.open = false;
  menu.querySelector("summary").focus();
});
window.addEventListener("hashchange", () => openPart(location.hash));
openPart(location.hash);

// Open folded parts for printing, except those that are useful on a screen only, and fold them again.
let folded = [];
window.addEventListener("beforeprint", () => {
  folded = [...document.querySelectorAll("details:not(.screen, .menu, [open])")];
  for (const each of folded) each.open = true;
});
window.addEventListener("afterprint", () => {
  for (const each of folded) each.open = false;
});
