"use strict";
// Sorting and filtering of the table of cells. Without this script the page is complete, only still.
(() => {
  const table = document.querySelector("#cells table");
  if (!table) return;
  const body = table.tBodies[0];
  const rows = [...body.rows];
  const form = document.querySelector("form.filters");
  const output = form.querySelector("output");

  const filter = () => {
    const words = form.elements.text.value.toLowerCase().split(/\s+/).filter(Boolean);
    const chosen = [...form.querySelectorAll("select")].filter((select) => select.value);
    let shown = 0;
    for (const row of rows) {
      const text = row.textContent.toLowerCase();
      const fits =
        chosen.every((select) => row.dataset[select.name] === select.value) &&
        words.every((word) => text.includes(word)) &&
        (!form.elements.front.checked || row.dataset.front === "1") &&
        (!form.elements.slower.checked || row.dataset.slower === "1");
      row.hidden = !fits;
      shown += fits;
    }
    output.textContent = `${shown} of ${rows.length} cells`;
  };

  const sort = (header, column) => {
    const up = header.getAttribute("aria-sort") !== "ascending";
    for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
    header.setAttribute("aria-sort", up ? "ascending" : "descending");
    const key = (row) => row.cells[column].dataset.v;
    const numeric = header.classList.contains("n");
    const compare = (a, b) => {
      const [x, y] = [key(a), key(b)];
      if (x === "" || y === "") return (x === "") - (y === ""); // what has no value stays last
      const order = numeric ? Number(x) - Number(y) : x.localeCompare(y, "en", { numeric: true });
      return up ? order : -order;
    };
    body.append(...rows.sort(compare));
  };

  [...table.tHead.rows[0].cells].forEach((header, column) => {
    header.querySelector("button").addEventListener("click", () => sort(header, column));
  });
  form.addEventListener("input", filter);
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("reset", () => setTimeout(filter));
  form.hidden = false;
  filter();
})();
