"use strict";
// Draws the slices of the volumes that the page carries. One canvas pixel is one voxel; the browser does the scaling.
(() => {
  const viewer = document.getElementById("viewer");
  const find = (selector, within = viewer) => within.querySelector(selector);
  const state = JSON.parse(find("#state").textContent);
  const { shape, affine, sides } = state;
  const strides = [shape[1] * shape[2], shape[2], 1];
  const spacing = [0, 1, 2].map((axis) => Math.hypot(affine[0][axis], affine[1][axis], affine[2][axis]));
  const cross = shape.map((count) => count >> 1); // the voxel [u, v, w] that all slices pass through
  const grey = { low: 0, high: 1, table: table(Array.from({ length: 256 }, (_, i) => [i, i, i, 255]).flat()) };
  const error = { low: -state.error.limit, high: state.error.limit, table: table(state.error.colours) };
  let volumes; // by name, once they are unpacked
  const overlays = Object.fromEntries(
    Object.entries(state.overlays).map(([name, { limit, colours }]) => [name, { low: 0, high: limit, table: table(colours) }]),
  );

  function table(bytes) {
    return new Uint32Array(Uint8Array.from(bytes).buffer);
  }

  /** A volume as the page carries it: base64 of gzip of all low bytes, then all high bytes. */
  async function unpacked(element) {
    const packed = Uint8Array.from(atob(element.textContent), (letter) => letter.charCodeAt(0));
    const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
    const bytes = new Uint8Array(await new Response(stream).arrayBuffer());
    const volume = new Int16Array(bytes.length / 2);
    for (let i = 0; i < volume.length; i++) volume[i] = bytes[i] | (bytes[volume.length + i] << 8);
    return state.step === 1 ? volume : volume.map((steps) => steps * state.step);
  }

  /** The slice of a volume through the cross-hair, in the order of pixels: both axes run against the picture's. */
  function slice(volume, { cut, across, up }) {
    const rows = shape[up];
    const columns = shape[across];
    const values = new Int32Array(rows * columns);
    let i = 0;
    for (let row = rows - 1; row >= 0; row--) {
      const start = cross[cut] * strides[cut] + row * strides[up];
      for (let column = columns - 1; column >= 0; column--) values[i++] = volume[start + column * strides[across]];
    }
    return values;
  }

  function paint(canvas, values, { low, high, table }) {
    const context = canvas.getContext("2d");
    const image = context.createImageData(canvas.width, canvas.height);
    const pixels = new Uint32Array(image.data.buffer);
    for (let i = 0; i < values.length; i++) {
      pixels[i] = table[Math.min(255, Math.max(0, Math.round(((values[i] - low) / (high - low)) * 255)))];
    }
    context.putImageData(image, 0, 0);
  }

  /** Where a voxel is, in words: a letter says the direction, so that no sign can be misread. */
  function place(voxel, axes = [0, 1, 2]) {
    return axes
      .map((axis) => {
        const mm = affine[axis].reduce((sum, factor, i) => sum + factor * (i < 3 ? voxel[i] : 1), 0);
        return `${sides[axis][mm < 0 ? 0 : 1]} ${Math.abs(mm).toFixed(1)}`;
      })
      .join(" · ") + " mm";
  }

  function read(voxel) {
    if (!volumes) return;
    const i = voxel.reduce((sum, index, axis) => sum + index * strides[axis], 0);
    const hu = volumes.ct[i];
    const words = [place(voxel), `${hu} HU` + (volumes.std ? ` ± ${volumes.std[i]}` : "")];
    if (volumes.support) words.push(`support ${volumes.support[i]} %`);
    if (volumes.truth) words.push(`truth ${volumes.truth[i]} HU`, `error ${hu - volumes.truth[i]} HU`);
    find("#readout").textContent = words.join("  |  ").replaceAll("-", "−");
  }

  const planes = state.planes.map((plane) => {
    const element = find(`[data-plane="${plane.name}"]`);
    const { cut, across, up } = plane;
    const slider = find("input", element);
    const tiles = [...element.querySelectorAll(".tile")];
    slider.max = shape[cut] - 1;
    element.style.setProperty("--ratio", (shape[across] * spacing[across]) / (shape[up] * spacing[up]));
    for (const canvas of element.querySelectorAll("canvas")) {
      canvas.width = shape[across];
      canvas.height = shape[up];
    }

    function draw() {
      if (!volumes) return;
      const hu = slice(volumes.ct, plane);
      const truth = volumes.truth && slice(volumes.truth, plane);
      const painted = {
        ct: () => [hu, grey],
        truth: () => [truth, grey],
        error: () => [hu.map((value, i) => value - truth[i]), error],
      };
      for (const canvas of element.querySelectorAll("canvas")) {
        const part = canvas.dataset.part;
        paint(canvas, ...(painted[part]?.() ?? [slice(volumes[part], plane), overlays[part]]));
      }
    }

    function label() {
      const words = `${place(cross, [cut])}, slice ${cross[cut] + 1} of ${shape[cut]}`;
      slider.value = cross[cut];
      slider.setAttribute("aria-valuetext", words);
      find("output", element).textContent = words;
      element.style.setProperty("--x", 1 - (cross[across] + 0.5) / shape[across]);
      element.style.setProperty("--y", 1 - (cross[up] + 0.5) / shape[up]);
    }

    function step(by) {
      const index = Math.min(shape[cut] - 1, Math.max(0, cross[cut] + by));
      const moved = index !== cross[cut];
      move({ [cut]: index });
      return moved;
    }

    /** The voxel under the pointer. */
    function under(event) {
      const box = event.currentTarget.getBoundingClientRect();
      const index = (fraction, count) => Math.min(count - 1, Math.max(0, Math.floor((1 - fraction) * count)));
      const voxel = [...cross];
      voxel[across] = index((event.clientX - box.left) / box.width, shape[across]);
      voxel[up] = index((event.clientY - box.top) / box.height, shape[up]);
      return voxel;
    }

    let travel = 0;
    slider.addEventListener("input", () => move({ [cut]: Number(slider.value) }));
    element.addEventListener(
      "wheel",
      (event) => {
        // A page that is being scrolled past the slices goes on scrolling.
        if (event.ctrlKey || event.timeStamp - scrolled < 250) return;
        travel += event.deltaY * (event.deltaMode ? 40 : 1);
        if (Math.abs(travel) < 50) return event.preventDefault();
        if (step(-Math.sign(travel))) event.preventDefault();
        travel = 0;
      },
      { passive: false },
    );
    for (const tile of tiles) {
      tile.addEventListener("click", (event) => {
        move(under(event));
        slider.focus({ preventScroll: true });
      });
      tile.addEventListener("pointermove", (event) => {
        if (event.buttons === 1 && event.pointerType !== "touch") move(under(event));
        else read(under(event));
      });
      tile.addEventListener("pointerleave", () => read(cross));
    }
    return { cut, draw, label };
  });

  let scrolled = -Infinity;
  addEventListener("scroll", (event) => (scrolled = event.timeStamp), { passive: true });

  /** Put the cross-hair elsewhere: indices by axis. Only slices that pass through another plane now are drawn. */
  function move(indices) {
    const before = [...cross];
    Object.assign(cross, indices);
    for (const plane of planes) {
      plane.label();
      if (cross[plane.cut] !== before[plane.cut]) plane.draw();
    }
    read(cross);
    viewer.dispatchEvent(new CustomEvent("moved", { detail: cross }));
  }

  function setWindow(centre, width) {
    grey.low = centre - width / 2;
    grey.high = centre + width / 2;
    const ends = viewer.querySelectorAll("#grey b");
    [grey.low, grey.high].forEach((hu, i) => (ends[i].textContent = String(hu).replace("-", "−")));
    for (const plane of planes) plane.draw();
  }

  const centre = find("#centre");
  const width = find("#width");
  const presets = [...viewer.querySelectorAll("[name=preset]")];
  for (const preset of presets) {
    preset.addEventListener("change", () => {
      centre.value = preset.dataset.centre;
      width.value = preset.dataset.width;
      setWindow(Number(centre.value), Number(width.value));
    });
  }
  for (const field of [centre, width]) {
    field.addEventListener("input", () => {
      if (!(Number(width.value) >= 1) || centre.value === "") return;
      for (const preset of presets) {
        preset.checked = preset.dataset.centre === centre.value && preset.dataset.width === width.value;
      }
      setWindow(Number(centre.value), Number(width.value));
    });
  }
  for (const name of ["cross", "smooth"]) {
    const box = find(`#${name}`);
    const apply = () => viewer.classList.toggle(`with-${name}`, box.checked);
    box.addEventListener("change", apply);
    apply();
  }
  const overlay = find("#overlay");
  const lay = () => {
    for (const part of viewer.querySelectorAll("[data-overlay]")) part.hidden = part.dataset.overlay !== overlay.value;
  };
  overlay.addEventListener("change", lay);
  lay();
  const opacity = find("#opacity");
  const fade = () => viewer.style.setProperty("--opacity", opacity.value);
  opacity.addEventListener("input", fade);
  fade();

  let loads = 0;

  /** Unpack volumes, given as elements by name, and show them, unless others have been asked for since. */
  async function load(elements) {
    const number = ++loads;
    viewer.setAttribute("aria-busy", "true");
    try {
      if (!("DecompressionStream" in window)) throw new Error("it has no DecompressionStream");
      const entries = Object.entries(elements).map(async ([name, element]) => [name, await unpacked(element)]);
      const found = Object.fromEntries(await Promise.all(entries));
      if (number !== loads) return;
      volumes = found;
    } catch (reason) {
      const failure = find("#failure");
      failure.textContent =
        `This browser cannot unpack the volumes (${reason.message}). Open the page in Chrome or Edge 80, Firefox 113, ` +
        "Safari 16.4 or newer, or look at ct.nii.gz beside it.";
      failure.hidden = false;
      viewer.classList.add("failed");
      viewer.setAttribute("aria-busy", "false");
      return;
    }
    viewer.dispatchEvent(new CustomEvent("unpacked", { detail: { volumes, state, cross } }));
    move({});
    setWindow(Number(centre.value), Number(width.value));
    viewer.setAttribute("aria-busy", "false");
  }

  viewer.addEventListener("load", ({ detail }) => load(detail));
  const carried = [...viewer.querySelectorAll("script[data-volume]")].map((element) => [element.dataset.volume, element]);
  if (carried.length) load(Object.fromEntries(carried));
})();
