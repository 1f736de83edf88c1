"use strict";
// Sorts and filters the table. Cells without a value stay last in both directions.
(() => {
  const body = document.querySelector("tbody");
  const rows = [...body.rows];
  const heads = [...document.querySelectorAll("thead th")];

  heads.forEach((head, column) => {
    head.querySelector("button").addEventListener("click", () => {
      const direction = head.getAttribute("aria-sort") === "ascending" ? -1 : 1;
      for (const other of heads) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", direction === 1 ? "ascending" : "descending");
      const keys = new Map(rows.map((row) => [row, key(row.cells[column])]));
      rows.sort((one, other) => compare(keys.get(one), keys.get(other), direction));
      body.append(...rows);
    });
  });

  function key(cell) {
    return cell.dataset.number === undefined ? cell.textContent : Number(cell.dataset.number);
  }

  function compare(one, other, direction) {
    if (one === "" || other === "") return (one === "") - (other === "");
    return direction * (typeof one === "number" ? one - other : one.localeCompare(other, "en", { numeric: true }));
  }

  const filter = document.getElementById("filter");
  filter.addEventListener("input", () => {
    const words = filter.value.toLowerCase();
    for (const row of rows) row.hidden = !row.textContent.toLowerCase().includes(words);
    document.getElementById("shown").textContent = words && `${rows.filter((row) => !row.hidden).length} shown`;
  });
})();
