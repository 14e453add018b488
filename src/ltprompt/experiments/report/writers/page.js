"use strict";
// Sorts a table by the column whose heading is pressed: first upwards, then downwards; what is empty stays last.
// A cell sorts by its data-value, else by its text; by its leading number where it has one ("40.6 ± 1.2" by 40.6).
function key(row, column) {
  const cell = row.cells[column];
  const text = cell.dataset.value ?? cell.textContent.trim();
  const value = parseFloat(text.replace(/,/g, ""));
  return Number.isNaN(value) ? text : value;
}
function compare(first, second) {
  if (typeof first === "number" && typeof second === "number") return first - second;
  if (typeof first !== typeof second) return typeof first === "number" ? -1 : 1;
  return first.localeCompare(second, "en", { numeric: true });
}
function sort(heading) {
  const table = heading.closest("table");
  const sign = heading.getAttribute("aria-sort") === "ascending" ? -1 : 1;
  const rows = Array.from(table.tBodies[0].rows, (row) => [key(row, heading.cellIndex), row]);
  rows.sort(([first], [second]) => {
    if (first === "" || second === "") return (first === "") - (second === "");
    return sign * compare(first, second);
  });
  for (const other of heading.parentNode.cells) other.setAttribute("aria-sort", "none");
  heading.setAttribute("aria-sort", sign === 1 ? "ascending" : "descending");
  table.classList.add("sorted");
  table.tBodies[0].append(...rows.map(([, row]) => row));
}
for (const button of document.querySelectorAll("th[aria-sort] button")) {
  button.addEventListener("click", () => sort(button.parentNode));
}
