"use strict";
// Tables that sort by a click or a key on a heading. Cells without a number come last, both ways.
for (const table of document.querySelectorAll("table.sorts")) {
  const heads = [...table.tHead.rows[0].cells];
  const number = (text) => /^[+-]?[\d,.]*\d/.test(text) ? parseFloat(text.replaceAll(",", "")) : NaN;
  heads.forEach((head, column) => head.querySelector("button").addEventListener("click", () => {
    const up = head.getAttribute("aria-sort") !== "ascending";
    heads.forEach((other) => other.setAttribute("aria-sort", "none"));
    head.setAttribute("aria-sort", up ? "ascending" : "descending");
    const text = (row) => row.cells[column].textContent.trim();
    const numeric = head.classList.contains("number");
    const order = (a, b) => {
      const [x, y] = [number(text(a)), number(text(b))];
      if (!numeric || (isNaN(x) && isNaN(y))) return (up ? 1 : -1) * text(a).localeCompare(text(b));
      if (isNaN(x) || isNaN(y)) return isNaN(x) ? 1 : -1;
      return up ? x - y : y - x;
    };
    table.tBodies[0].append(...[...table.tBodies[0].rows].sort(order));
  }));
}
// Titles as a box that fingers reach too; without this script browsers show them beside a mouse.
const box = document.createElement("div");
box.className = "tip";
box.hidden = true;
document.body.append(box);
for (const title of document.querySelectorAll("figure svg g > title")) {
  title.parentNode.dataset.tip = title.textContent;
  title.remove();
}
for (const cell of document.querySelectorAll(".heat td[title]")) {
  cell.dataset.tip = cell.title;
  cell.setAttribute("aria-description", cell.title);
  cell.removeAttribute("title");
}
const show = (event) => {
  const mark = event.target.closest?.("[data-tip]");
  box.hidden = !mark;
  if (!mark) return;
  box.textContent = mark.dataset.tip;
  const pointed = event.type === "pointerover";
  const at = pointed ? { left: event.clientX, bottom: event.clientY } : mark.getBoundingClientRect();
  const edge = document.documentElement.clientWidth - box.offsetWidth - 8;
  box.style.left = `${Math.max(8, Math.min(at.left + 12, edge))}px`;
  const below = at.bottom + 14;
  const above = Math.max(8, at.bottom - box.offsetHeight - 14);
  box.style.top = `${below + box.offsetHeight > innerHeight ? above : below}px`;
};
for (const kind of ["pointerover", "focusin"]) document.addEventListener(kind, show);
document.addEventListener("scroll", () => { box.hidden = true; }, { passive: true, capture: true });
document.addEventListener("keydown", (event) => { if (event.key === "Escape") box.hidden = true; });
