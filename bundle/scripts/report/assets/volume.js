"use strict";
// Turns the volumes in three dimensions with vtk.js. Without WebGL, and on paper, still pictures stand in their place.
(() => {
  const DEGREES_PER_SECOND = 30;
  const FRAME_MS = 250;
  const COARSEST = 0.4;
  const viewer = document.getElementById("viewer"); // the slices: page.js unpacks the volumes and moves the cross-hair
  const section = document.getElementById("volume");
  const tile = section.querySelector(".scene");
  const controls = section.querySelector("form").elements;
  const { bone, skin, window: greys } = JSON.parse(document.getElementById("volume-state").textContent);
  const eye = { azimuth: 0, elevation: 0 }; // degrees from the front of the patient to the left, and upwards
  let scene; // what vtk.js has opened

  viewer.addEventListener("unpacked", async ({ detail }) => {
    try {
      section.classList.add("live");
      scene ??= await opened(detail.state);
      scene.show(detail);
    } catch (reason) {
      const failure = section.querySelector(".failure");
      failure.textContent = `This browser cannot show the volume in three dimensions (${reason.message}).`;
      failure.hidden = false;
      section.classList.remove("live");
    }
    section.setAttribute("aria-busy", "false");
  });

  /** Run the library that the page carries as base64 of gzip; the page's policy names its digest. */
  async function library() {
    const { textContent } = document.querySelector("[data-library]");
    const packed = Uint8Array.from(atob(textContent), (letter) => letter.charCodeAt(0));
    const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
    const script = document.createElement("script");
    script.textContent = await new Response(stream).text();
    document.head.append(script);
    return globalThis.vtk;
  }

  /** Open vtk.js in the tile: a renderer for each volume, all with one camera. */
  async function opened(state) {
    if (!document.createElement("canvas").getContext("webgl2")) throw new Error("it has no WebGL 2");
    const vtk = await library();
    const { affine, shape, sides } = state;
    const spacing = [0, 1, 2].map((axis) => Math.hypot(affine[0][axis], affine[1][axis], affine[2][axis]));
    const place = (voxel) => [0, 1, 2].map((row) => dot(affine[row], [...voxel, 1]));
    const centre = place(shape.map((count) => (count - 1) / 2));
    const [width, depth, height] = shape.map((count, axis) => count * spacing[axis]);

    const renderWindow = vtk.vtkRenderWindow.newInstance();
    const canvas = vtk.vtkOpenGLRenderWindow.newInstance();
    const animator = vtk.vtkRenderWindowInteractor.newInstance();
    renderWindow.addView(canvas);
    canvas.setContainer(tile);
    animator.setView(canvas);
    animator.initialize();
    const parts = [...tile.querySelectorAll(".half")].map((half) => part(half));
    const camera = parts[0].renderer.getActiveCamera();
    camera.setParallelProjection(true);
    for (const { renderer } of parts) renderer.setActiveCamera(camera);
    const reasons = new Set(); // why there are frames
    let density = COARSEST; // pixels drawn for each pixel of the style sheet
    let shown; // the volumes by name, and the cross-hair

    /** A renderer with what may be seen of one volume: the surfaces of bone and skin, and the volume itself. */
    function part(half) {
      const renderer = vtk.vtkRenderer.newInstance({ background: [0, 0, 0] });
      const rays = { mapper: vtk.vtkVolumeMapper.newInstance(), prop: vtk.vtkVolume.newInstance() };
      const surfaces = { bone: actor(bone), skin: actor(skin) };
      const colours = vtk.vtkColorTransferFunction.newInstance();
      const opacities = vtk.vtkPiecewiseFunction.newInstance();
      greys.forEach((hu, grey) => colours.addRGBPoint(hu, grey, grey, grey));
      for (const hu of greys) opacities.addPoint(hu, 1);
      rays.mapper.setBlendModeToMaximumIntensity();
      rays.mapper.setSampleDistance(Math.min(...spacing) / 2);
      rays.mapper.setMaximumSamplesPerRay(4000);
      rays.prop.setMapper(rays.mapper);
      rays.prop.getProperty().setRGBTransferFunction(0, colours);
      rays.prop.getProperty().setScalarOpacity(0, opacities);
      rays.prop.getProperty().setInterpolationTypeToLinear();
      surfaces.skin.prop.getProperty().setOpacity(0.25);
      renderWindow.addRenderer(renderer);
      return { half, renderer, rays, ...surfaces };
    }

    function actor({ colour, gloss }) {
      const mapper = vtk.vtkMapper.newInstance();
      const prop = vtk.vtkActor.newInstance();
      prop.setMapper(mapper);
      prop.getProperty().setColor(...colour);
      prop.getProperty().setAmbient(0.15);
      prop.getProperty().setDiffuse(0.85);
      prop.getProperty().setSpecular(gloss);
      prop.getProperty().setSpecularPower(24);
      return { mapper, prop };
    }

    /** A volume [u, v, w] for vtk.js, in units of voxels. */
    function image(values) {
      const data = vtk.vtkImageData.newInstance();
      data.setDimensions(shape[2], shape[1], shape[0]);
      data.getPointData().setScalars(vtk.vtkDataArray.newInstance({ values }));
      return data;
    }

    /** The surface where a volume crosses a threshold, in mm, and for each of its points the nearest voxel. */
    function surface(values, threshold) {
      const cubes = vtk.vtkImageMarchingCubes.newInstance({ computeNormals: true, mergePoints: true });
      cubes.setContourValue(threshold);
      cubes.setInputData(image(values));
      const mesh = cubes.getOutputData();
      const points = mesh.getPoints().getData();
      const normals = mesh.getPointData().getNormals().getData();
      const nearest = new Uint32Array(points.length / 3);
      for (let i = 0; i < points.length; i += 3) {
        const voxel = [points[i + 2], points[i + 1], points[i]];
        nearest[i / 3] = voxel.reduce((sum, index, axis) => sum * shape[axis] + Math.round(index), 0);
        points.set(place(voxel), i);
        const normal = [0, 1, 2].map((axis) => normals[i + 2 - axis] / spacing[axis]);
        const length = Math.hypot(...normal) || 1;
        normals.set(normal.map((x) => x / length), i);
      }
      // Points in the order w, v, u turn clockwise where those in the order u, v, w do not.
      const triangles = mesh.getPolys().getData();
      for (let i = 0; i < triangles.length; i += 4) {
        [triangles[i + 2], triangles[i + 3]] = [triangles[i + 3], triangles[i + 2]];
      }
      return { mesh, nearest };
    }

    /** Lay the colours of an overlay over those of bone. */
    function paint({ mesh, nearest }, name) {
      const { limit, colours } = state.overlays[name];
      const overlay = shown.volumes[name];
      const values = new Uint8ClampedArray(3 * nearest.length);
      const opacity = Number(controls.opacity.value) / 255;
      nearest.forEach((voxel, i) => {
        const at = 4 * Math.min(255, Math.round((overlay[voxel] / limit) * 255));
        const over = opacity * colours[at + 3];
        for (let c = 0; c < 3; c++) values[3 * i + c] = 255 * bone.colour[c] * (1 - over) + colours[at + c] * over;
      });
      const bytes = new Uint8Array(values.buffer);
      mesh.getPointData().setScalars(vtk.vtkDataArray.newInstance({ numberOfComponents: 3, values: bytes }));
      mesh.modified();
    }

    /** Show the volumes as the reader has chosen. */
    function fill() {
      const rendering = controls.rendering.value;
      const threshold = Number(controls.threshold.value);
      const overlay = rendering === "mip" ? "" : (controls.overlay?.value ?? "");
      controls.hu.value = `${threshold} HU`;
      for (const key of section.querySelectorAll("[data-overlay]")) key.hidden = key.dataset.overlay !== overlay;
      for (const { half, renderer, rays, ...surfaces } of parts) {
        const hu = shown.volumes[half.dataset.part];
        renderer.removeAllViewProps();
        if (rendering === "mip") {
          const data = image(hu);
          data.setSpacing(...[2, 1, 0].map((axis) => spacing[axis]));
          data.setOrigin(...place([0, 0, 0]));
          data.setDirection(...[2, 1, 0].flatMap((axis) => [0, 1, 2].map((row) => affine[row][axis] / spacing[axis])));
          rays.mapper.setInputData(data);
          renderer.addVolume(rays.prop);
          continue;
        }
        const bones = surface(hu, threshold);
        const coloured = overlay !== "" && half.dataset.part === "ct";
        if (coloured) paint(bones, overlay);
        surfaces.bone.mapper.setScalarVisibility(coloured);
        surfaces.bone.mapper.setInputData(bones.mesh);
        renderer.addActor(surfaces.bone.prop);
        if (rendering === "skin") {
          surfaces.skin.mapper.setInputData(surface(hu, skin.threshold_hu).mesh);
          renderer.addActor(surfaces.skin.prop);
        }
      }
      draw();
    }

    /** Cut away what lies to one side of the cross-hair. */
    function cut() {
      const [axis, sign] = controls.cut.value.split(" ").map(Number);
      for (const { mapper } of parts.flatMap(({ rays, bone, skin }) => [rays, bone, skin])) {
        mapper.removeAllClippingPlanes();
        if (!controls.cut.value) continue;
        const normal = [0, 0, 0].map((_, i) => (i === axis ? -sign : 0));
        mapper.addClippingPlane(vtk.vtkPlane.newInstance({ normal, origin: place(shown.cross) }));
      }
      draw();
    }

    /** Put the eye where it is to be, and write the letters of the sides. */
    function look(tries) {
      const [a, e] = [eye.azimuth, eye.elevation].map((degrees) => (degrees * Math.PI) / 180);
      const towards = [-Math.sin(a) * Math.cos(e), Math.cos(a) * Math.cos(e), Math.sin(e)];
      const up = [Math.sin(a) * Math.sin(e), -Math.cos(a) * Math.sin(e), Math.cos(e)];
      const right = [-Math.cos(a), -Math.sin(a), 0];
      const far = Math.hypot(width, depth, height);
      const { clientWidth, clientHeight } = parts[0].half;
      const half = Math.max(height / 2, (Math.hypot(width, depth) / 2) * (clientHeight / clientWidth));
      camera.setFocalPoint(...centre);
      camera.setPosition(...centre.map((mm, i) => mm + far * towards[i]));
      camera.setViewUp(...up);
      camera.setParallelScale((1.02 * half) / Number(controls.zoom.value));
      camera.setClippingRange(far / 4, far * 2);
      const letters = { left: right.map((x) => -x), right, top: up, bottom: up.map((x) => -x) };
      for (const [side, direction] of Object.entries(letters)) {
        for (const mark of tile.querySelectorAll(`.mark.${side}`)) mark.textContent = lettered(direction);
      }
      draw(tries);
    }

    function lettered(direction) {
      return [0, 1, 2]
        .filter((axis) => Math.abs(direction[axis]) > 0.4)
        .sort((one, other) => Math.abs(direction[other]) - Math.abs(direction[one]))
        .map((axis) => sides[axis][direction[axis] < 0 ? 0 : 1])
        .join("");
    }

    /** Give each volume its half of the tile, side by side or one above the other. */
    function arrange(tries) {
      const box = tile.getBoundingClientRect();
      if (!box.width || !box.height) return;
      canvas.setSize(Math.ceil(box.width * density), Math.ceil(box.height * density));
      for (const { half, renderer } of parts) {
        const { left, right, top, bottom } = half.getBoundingClientRect();
        const [x, y] = [(mm) => (mm - box.left) / box.width, (mm) => (box.bottom - mm) / box.height];
        renderer.setViewport(x(left), y(bottom), x(right), y(top));
      }
      look(tries);
    }

    /** Draw as finely as the machine can within the time for a frame; it may take two tries to find that out. */
    function draw(tries = 2) {
      if (animator.isAnimating() || !shown) return;
      const started = performance.now();
      renderWindow.render();
      const context = canvas.getContext();
      context.readPixels(0, 0, 1, 1, context.RGBA, context.UNSIGNED_BYTE, new Uint8Array(4)); // waits for the frame
      const share = FRAME_MS / (performance.now() - started);
      const fits = Math.min(devicePixelRatio, 2, Math.max(COARSEST, density * Math.sqrt(share)));
      if (tries && Math.abs(Math.log(fits / density)) > 0.3) {
        density = fits;
        arrange(tries - 1);
      }
    }

    /** Draw frame after frame while a reason holds; vtk.js then draws as coarsely as the machine needs. */
    function animate(reason, holds) {
      if (holds === reasons.has(reason)) return;
      if (holds) {
        reasons.add(reason);
        animator.requestAnimation(reason);
      } else {
        reasons.delete(reason);
        animator.cancelAnimation(reason);
        draw();
      }
    }

    let visible = false;
    let before;
    const turn = () => {
      before = undefined;
      animate("turn", controls.turn.checked && visible);
    };
    animator.onAnimation(() => {
      if (!controls.turn.checked) return;
      const now = performance.now();
      eye.azimuth += ((now - (before ?? now)) / 1000) * DEGREES_PER_SECOND;
      before = now;
      look();
    });
    function turnTo(azimuth, elevation) {
      controls.turn.checked = false;
      turn();
      eye.azimuth = azimuth;
      eye.elevation = Math.min(90, Math.max(-90, elevation));
      look();
    }

    tile.addEventListener("pointerdown", (event) => {
      if (event.button) return;
      tile.setPointerCapture(event.pointerId);
      animate("drag", true);
    });
    tile.addEventListener("pointermove", (event) => {
      if (!tile.hasPointerCapture(event.pointerId)) return;
      turnTo(eye.azimuth - event.movementX / 2, eye.elevation + event.movementY / 2);
    });
    tile.addEventListener("lostpointercapture", () => animate("drag", false));
    const zoomed = (by) => () => {
      controls.zoom.value = Number(controls.zoom.value) + by;
      look();
    };
    const keys = {
      ArrowLeft: () => turnTo(eye.azimuth + 5, eye.elevation),
      ArrowRight: () => turnTo(eye.azimuth - 5, eye.elevation),
      ArrowUp: () => turnTo(eye.azimuth, eye.elevation - 5),
      ArrowDown: () => turnTo(eye.azimuth, eye.elevation + 5),
      Home: () => turnTo(0, 0),
      "+": zoomed(0.2),
      "-": zoomed(-0.2),
      " ": () => controls.turn.click(),
    };
    tile.addEventListener("keydown", (event) => {
      if (!(event.key in keys) || event.ctrlKey || event.altKey || event.metaKey) return;
      event.preventDefault();
      keys[event.key]();
    });
    controls.from.addEventListener("change", () => {
      if (controls.from.value) turnTo(...controls.from.value.split(" ").map(Number));
      controls.from.value = "";
    });
    controls.turn.addEventListener("change", turn);
    controls.zoom.addEventListener("input", () => look());
    controls.threshold.addEventListener("input", fill);
    controls.cut.addEventListener("change", cut);
    controls.opacity?.addEventListener("change", fill);
    controls.overlay?.addEventListener("change", fill);
    for (const choice of controls.rendering) choice.addEventListener("change", fill);
    viewer.addEventListener("moved", () => controls.cut.value && cut());
    new ResizeObserver(() => arrange()).observe(tile);
    new IntersectionObserver(([{ isIntersecting }]) => {
      visible = isIntersecting;
      turn();
    }).observe(tile);
    controls.turn.checked = !matchMedia("(prefers-reduced-motion: reduce)").matches;

    return {
      show(detail) {
        shown = detail;
        fill();
        cut();
      },
    };
  }

  function dot(one, other) {
    return one.reduce((sum, x, i) => sum + x * other[i], 0);
  }
})();
