// Shows a series in three planes, and tells what stands where.
import * as core from "@cornerstonejs/core";
import { init as initLoader } from "@cornerstonejs/dicom-image-loader";

const VOLUME = "cornerstoneStreamingImageVolume:ct";
const PLANES = ["axial", "sagittal", "coronal"];

window.show = async (files) => {
  await core.init();
  initLoader({ maxWebWorkers: 1 });
  const imageIds = files.map((file) => `wadouri:${location.origin}/${file}`);
  await Promise.all(imageIds.map((id) => core.imageLoader.loadAndCacheImage(id)));
  const volume = await core.volumeLoader.createAndCacheVolume(VOLUME, { imageIds });
  const loaded = new Promise((done) => {
    core.eventTarget.addEventListener(core.Enums.Events.IMAGE_VOLUME_LOADING_COMPLETED, done, { once: true });
  });
  volume.load();
  await loaded;
  const engine = new core.RenderingEngine("engine");
  engine.setViewports(
    PLANES.map((name) => ({
      viewportId: name,
      type: core.Enums.ViewportType.ORTHOGRAPHIC,
      element: document.getElementById(name),
      defaultOptions: { orientation: core.Enums.OrientationAxis[name.toUpperCase()] },
    })),
  );
  await core.setVolumesForViewports(engine, [{ volumeId: VOLUME }], PLANES);
  engine.renderViewports(PLANES);
  window.hounsfield = (points) =>
    points.map((point) => {
      const index = core.utilities.transformWorldToIndex(volume.imageData, point);
      return volume.voxelManager.getAtIJK(...index);
    });
  window.onScreen = (name, point) => [...engine.getViewport(name).worldToCanvas(point)];
};
