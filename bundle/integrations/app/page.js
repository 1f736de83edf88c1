"use strict";
(() => {
  const find = (id) => document.getElementById(id);
  const stage = find("stage");
  const drop = find("drop");
  const problem = find("problem");
  const POLL_MS = 700;

  const phase = () => stage.firstElementChild.dataset.phase;
  const busy = (is) => document.body.setAttribute("aria-busy", is);
  const tell = (text) => {
    problem.textContent = text;
    problem.hidden = !text;
  };

  async function ask(address, options) {
    const answer = await fetch(address, options);
    const text = await answer.text();
    if (!answer.ok) throw new Error(text);
    stage.innerHTML = text;
  }

  async function follow() {
    try {
      while (phase() === "running") {
        await new Promise((done) => setTimeout(done, POLL_MS));
        await ask("/stage");
      }
    } catch {
      tell("The program has ended. Start it again in the terminal.");
    }
  }

  async function post(address, body) {
    busy(true);
    try {
      await ask(address, { method: "POST", body });
      tell("");
    } catch (error) {
      tell(error instanceof TypeError ? "The program does not answer. Start it again in the terminal." : error.message);
    }
    busy(false);
    follow();
  }

  async function inside(entry) {
    if (entry.isFile) return [await new Promise((done, failed) => entry.file(done, failed))];
    const reader = entry.createReader();
    const found = [];
    for (;;) {
      const some = await new Promise((done, failed) => reader.readEntries(done, failed));
      if (!some.length) return found;
      for (const inner of some) found.push(...(await inside(inner)));
    }
  }

  function send(files) {
    if (!files.length) return;
    const limit = Number(drop.dataset.maxBytes);
    const bytes = files.reduce((sum, file) => sum + file.size, 0);
    if (bytes > limit) {
      tell(`These files have ${bytes} bytes, at most ${limit} are accepted; drop only the two films.`);
      return;
    }
    const body = new FormData();
    for (const file of files) body.append("films", file);
    post("/films", body);
  }

  find("files").addEventListener("change", (event) => {
    send([...event.target.files]);
    event.target.value = "";
  });
  addEventListener("dragover", (event) => {
    event.preventDefault();
    drop.classList.add("over");
  });
  addEventListener("dragleave", (event) => {
    if (!event.relatedTarget) drop.classList.remove("over");
  });
  addEventListener("drop", async (event) => {
    event.preventDefault();
    drop.classList.remove("over");
    const entries = [...event.dataTransfer.items].map((item) => item.webkitGetAsEntry()).filter(Boolean);
    const files = [];
    for (const entry of entries) files.push(...(await inside(entry)));
    send(files);
  });
  stage.addEventListener("click", (event) => {
    const button = event.target.closest("button[data-post]");
    if (button) post(button.dataset.post);
  });
  stage.addEventListener("submit", (event) => {
    event.preventDefault();
    post(event.target.dataset.post, new FormData(event.target));
  });
  // One entry is usually meant for both films; the copy is visible before anything reads it.
  stage.addEventListener("change", (event) => {
    const { name, value, form } = event.target;
    if (event.target.localName !== "input" || !form || !name.endsWith(".frontal")) return;
    const other = form.elements[name.replace(".frontal", ".lateral")];
    if (!other.value) other.value = value;
  });
  follow();
})();
