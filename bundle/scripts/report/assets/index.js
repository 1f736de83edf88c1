"use strict";
// Sorts and filters the table. Cells without a value stay last in both directions.
(() => {
  const body = document.querySelector("tbody");
  const collator = new Intl.Collator("en", { numeric: true });
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
    return direction * (typeof one === "number" ? one - other : collator.compare(one, other));
  }

  const form = document.querySelector("form");
  const chosen = form.elements;
  const texts = new Map(rows.map((row) => [row, row.textContent.toLowerCase()]));
  const byWarnings = { some: (count) => Number(count) > 0, none: (count) => count === "0" };

  function matches(row) {
    const { status, warnings } = row.dataset;
    return (
      texts.get(row).includes(chosen.words.value.toLowerCase()) &&
      (!chosen.status.value || chosen.status.value === status) &&
      (!chosen.warnings.value || byWarnings[chosen.warnings.value](warnings))
    );
  }

  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("input", () => {
    for (const row of rows) row.hidden = !matches(row);
    const shown = rows.filter((row) => !row.hidden).length;
    chosen.shown.value = shown < rows.length ? `${shown} shown` : "";
  });
})();
