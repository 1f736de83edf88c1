"use strict";
// Shows the method and the case that the reader chooses, and marks their row of the table.
(() => {
  const viewer = document.getElementById("viewer");
  const choice = document.getElementById("choice");
  const { method, exam } = choice.elements;
  const rows = [...document.querySelectorAll(".comparison tbody tr")];
  const packed = [...document.querySelectorAll("script[data-case]")];
  const volume = (name) => packed.find(({ dataset }) => dataset.case === exam.value && dataset.method === name);

  function show() {
    for (const row of rows) {
      row.hidden = row.dataset.case !== exam.value;
      row.ariaCurrent = row.dataset.method === method.value ? "true" : null;
    }
    viewer.dispatchEvent(new CustomEvent("load", { detail: { ct: volume(method.value), truth: volume("truth") } }));
  }

  choice.addEventListener("submit", (event) => event.preventDefault());
  choice.addEventListener("change", show);
  for (const row of rows) {
    row.querySelector("button").addEventListener("click", () => {
      method.value = row.dataset.method;
      show();
    });
  }
  show();
})();
