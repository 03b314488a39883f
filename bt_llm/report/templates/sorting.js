"use strict";
// Tables that are sorted by the column whose head is pressed: numbers by size, words by letter.
document.querySelectorAll("table.sorted").forEach((table) =>
  table.querySelectorAll("th button").forEach((button, column) => {
    button.addEventListener("click", () => {
      const head = button.parentElement,
        up = head.getAttribute("aria-sort") === "descending";
      const key = (row) => row.cells[column].dataset.value ?? row.cells[column].textContent;
      const compare = (a, b) =>
        a === "" || b === ""
          ? (a === "") - (b === "")
          : (isNaN(a) || isNaN(b) ? a.localeCompare(b) : a - b) * (up ? 1 : -1);
      const body = table.tBodies[0];
      [...body.rows].sort((a, b) => compare(key(a), key(b))).forEach((row) => body.appendChild(row));
      table.querySelectorAll("th").forEach((one) => one.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
    });
  }),
);
