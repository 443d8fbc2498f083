"use strict";
// Fronts: numbers of a mark on pointing, focus or touch; costs by tabs. Without this script every figure is shown, only still.
(() => {
  const tip = document.querySelector("#tip");
  let kept = null; // the mark whose numbers stay until another is chosen or Esc is pressed

  const line = (tag, text) => {
    const element = document.createElement(tag);
    element.textContent = text;
    return element;
  };

  const link = (text, id) => {
    const element = line("a", text);
    element.href = `#${id}`;
    element.addEventListener("click", () => {
      hide();
      document.getElementById(id)?.focus({ preventScroll: true });
    });
    return element;
  };

  const fill = (row) => {
    const heads = [...row.closest("table").tHead.rows[0].cells].map((cell) => cell.textContent.trim());
    const list = document.createElement("dl");
    heads.forEach((head, i) => {
      const text = row.cells[i].textContent.trim();
      if (i > 0 && text && text !== "–" && head !== "status") list.append(line("dt", head), line("dd", text));
    });
    for (const [name, text] of [["made from", row.dataset.origin], ["lineage", row.dataset.lineage]])
      if (text) list.append(line("dt", name), line("dd", text));
    const links = document.createElement("p");
    links.append(link("row in the table", row.id));
    if (document.getElementById(`pictures-${row.dataset.model}`))
      links.append(" · ", link(`pictures of ${row.dataset.model}`, `pictures-${row.dataset.model}`));
    tip.replaceChildren(line("strong", row.cells[0].textContent.trim()), list, links);
  };

  const show = (mark) => {
    const row = document.getElementById(`cell-${mark.dataset.cell}`);
    if (!row) return;
    fill(row);
    tip.hidden = false;
    const box = mark.getBoundingClientRect();
    const width = tip.offsetWidth;
    const left = Math.min(Math.max(8, box.right + 12), document.documentElement.clientWidth - width - 8);
    const below = box.bottom + 12 + tip.offsetHeight < innerHeight || box.top < tip.offsetHeight + 12;
    tip.style.left = `${left + scrollX}px`;
    tip.style.top = `${(below ? box.bottom + 12 : box.top - tip.offsetHeight - 12) + scrollY}px`;
  };

  const hide = () => {
    tip.hidden = true;
    kept = null;
  };

  for (const figure of document.querySelectorAll("figure.front")) {
    const marks = [...figure.querySelectorAll(".pt")];
    const at = (mark) => mark.getBoundingClientRect().left;
    marks.sort((a, b) => at(a) - at(b)).forEach((mark, i) => {
      const row = document.getElementById(`cell-${mark.dataset.cell}`);
      mark.setAttribute("tabindex", i ? "-1" : "0");
      mark.setAttribute("role", "button");
      if (row) mark.setAttribute("aria-label", [0, 1, 4, 5].map((c) => row.cells[c].textContent.trim()).join(", "));
      mark.addEventListener("pointerenter", () => kept || show(mark));
      mark.addEventListener("pointerleave", () => kept || hide());
      mark.addEventListener("focus", () => show(mark));
      mark.addEventListener("blur", () => kept || hide());
      mark.addEventListener("click", () => {
        kept = mark;
        show(mark);
      });
      mark.addEventListener("keydown", (event) => {
        const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
        const next = step && marks[i + step];
        if (next) {
          kept = null;
          mark.setAttribute("tabindex", "-1");
          next.setAttribute("tabindex", "0");
          next.focus();
        } else if (event.key === "Enter" || event.key === " ") {
          kept = mark;
          show(mark);
          tip.querySelector("a").focus();
        }
        if (step || event.key === "Enter" || event.key === " ") event.preventDefault();
      });
    });
  }
  document.addEventListener("keydown", (event) => {
    if (event.key !== "Escape" || tip.hidden) return;
    const back = kept;
    hide();
    back?.focus();
    if (back) hide();
  });
  document.addEventListener("click", (event) => {
    if (kept && !event.target.closest(".pt, #tip")) hide();
  });

  for (const tabs of document.querySelectorAll(".tabs")) {
    const buttons = [...tabs.children];
    const figures = [...tabs.parentElement.querySelectorAll("figure.front")];
    const choose = (chosen) =>
      buttons.forEach((button, i) => {
        button.setAttribute("aria-pressed", String(i === chosen));
        figures[i].hidden = i !== chosen;
      });
    buttons.forEach((button, i) => button.addEventListener("click", () => choose(i)));
    tabs.hidden = false;
    choose(0);
  }
  for (const element of document.querySelectorAll(".needs-script")) element.hidden = false;
})();

// Sorting and filtering of the table of cells. Without this script the page is complete, only still.
(() => {
  const table = document.querySelector("#cells table");
  if (!table) return;
  const body = table.tBodies[0];
  const rows = [...body.rows];
  const texts = new Map(rows.map((row) => [row, row.textContent.toLowerCase()]));
  const form = document.querySelector("form.filters");
  const output = form.querySelector("output");

  const filter = () => {
    const words = form.elements.text.value.toLowerCase().split(/\s+/).filter(Boolean);
    const chosen = [...form.querySelectorAll("select")].filter((select) => select.value);
    let shown = 0;
    for (const row of rows) {
      const text = texts.get(row);
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
