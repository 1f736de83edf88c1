"""As much of MONAI Label 0.8.5 as a bundle meets, emulated: what its ``monaibundle`` app does with ``inference.json``.

Modules of the same names, with the steps of ``tasks/infer/bundle.py``, ``tasks/infer/basic_infer.py``,
``transform/post.py`` and ``transform/writer.py`` that decide a result; ``make test-label`` runs the real ones.
"""

import copy
import json
import shutil
import tempfile
from pathlib import Path
from types import ModuleType, SimpleNamespace

import nibabel as nib
import numpy as np
import torch
from monai.bundle import ConfigItem, ConfigParser
from monai.data import MetaTensor


class BundleInferTask:
    """Serves a bundle; the defaults are those with which the stock app calls it."""

    def __init__(self, path, conf, type="", add_post_restore=True, load_strict=False):
        self.path = Path(path) / "models" / "model.pt"
        self.valid = self.path.is_file()
        if not self.valid:
            return
        self.add_post_restore, self.load_strict = add_post_restore, load_strict
        self.bundle_config = ConfigParser()
        self.bundle_config.read_config(f"{path}/configs/inference.json")
        self.bundle_config.config["bundle_root"] = path
        self.network = self.parsed("network_def")
        declared = json.loads(Path(path, "configs", "metadata.json").read_text())["network_data_format"]
        (self.key_image, _), (self.key_pred, _) = (next(iter(declared[side].items())) for side in ("inputs", "outputs"))
        self.displayable = self.bundle_config.get_parsed_content("displayable_configs")
        files = sorted((p.name for p in Path(path, "models").glob("*.pt")), key=len)
        self._config = {"device": ["cpu"], "model_filename": files} | self.displayable

    def parsed(self, key):
        """An entry, newly made, with the device as a plain string; the real one imports the bundle's code anew."""
        self.bundle_config.config["device"] = "cpu"
        if "device" in self.bundle_config.ref_resolver.items:
            self.bundle_config.ref_resolver.items["device"] = ConfigItem(config="cpu", id="device")
        return self.bundle_config.get_parsed_content(key, instantiate=True)

    def __call__(self, request, callbacks=None):
        """Answers a request: the result's file and JSON."""
        data = copy.deepcopy(self._config | request | {"device": "cpu"})
        self.bundle_config["displayable_configs"].update({key: data[key] for key in self.displayable})
        self.bundle_config.parse()
        data = self.run_pre_transforms(data, self.parsed("preprocessing").transforms)
        inferer = self.parsed("inferer")
        with torch.no_grad():
            data["pred"] = inferer(data["image"][None].to(torch.device("cpu")), self.loaded())[0]
        for transform in self.parsed("postprocessing").transforms:
            data = transform(data)
        if self.add_post_restore:
            data = self.restored(data)
        return self.writer(data)

    def run_pre_transforms(self, data, transforms):
        for transform in transforms:
            data = transform(data)
        return data

    def loaded(self):
        network = copy.deepcopy(self.network)
        network.load_state_dict(torch.load(self.path), strict=self.load_strict)
        return network.eval()

    def restored(self, data):
        """``Restored``: to the spatial shape that the image's ``meta`` names, if any; one channel is dropped."""
        volume, meta = data[self.key_pred], data[self.key_image].meta
        assert tuple(meta.get("spatial_shape", volume.shape[1:]))[-3:] == tuple(volume.shape[1:])
        data[self.key_pred] = volume[0] if len(volume) == 1 else volume
        data["pred_meta_dict"] = {"affine": meta.get("original_affine")}
        return data

    def writer(self, data, extension=None, dtype=None):
        """``Writer``: casts without rounding, with the affine of ``pred_meta_dict`` or that of the tensor."""
        volume, affine = data["pred"], data["pred_meta_dict"]["affine"]
        if affine is None and isinstance(volume, MetaTensor):
            affine = volume.affine
        with tempfile.NamedTemporaryFile(suffix=data["result_extension"], delete=False) as file:
            nib.save(nib.Nifti1Image(np.asarray(volume).astype(data["result_dtype"]), np.asarray(affine)), file.name)
        return file.name, {}


class HTTPException(Exception):
    """Of FastAPI: the answer to a request that fails."""

    def __init__(self, status_code, detail):
        super().__init__(f"{status_code}: {detail}")


class Server:
    """Of FastAPI: what is served under which address."""

    def __init__(self):
        self.router = SimpleNamespace(routes=["/docs", "/datastore", "/model", "/session"])

    def include_router(self, router, prefix):
        self.router.routes.append(f"{prefix}/{router}")


class Sessions:
    """Where uploads lie."""

    def __init__(self, store_path="", expiry=3600):
        self.store_path = store_path

    def add_session(self, data_file, expiry=0, uncompress=False, session_id=None):
        folder = Path(self.store_path, session_id or "new")
        folder.mkdir(parents=True)
        return folder.name, SimpleNamespace(image=shutil.move(data_file, folder))


class MONAILabelApp:
    """Makes the models, then the sessions."""

    def __init__(self, app_dir, studies, conf, name, description, version):
        self.conf = conf
        self.models = self.init_infers()
        self._sessions = Sessions()

    def sessions(self):
        return self._sessions


def remove_file(path):
    Path(path).unlink()


def modules(session_path):
    """The emulated modules by their names, for a server that keeps uploads in a folder."""
    settings = {
        "MONAI_LABEL_SESSION_PATH": str(session_path),
        "MONAI_LABEL_SESSION_EXPIRY": 3600,
        "MONAI_LABEL_API_STR": "/api",
    }
    contents = {
        "fastapi": {"HTTPException": HTTPException},
        "monailabel": {},
        "monailabel.app": {"app": Server()},
        "monailabel.config": {"settings": SimpleNamespace(**settings)},
        "monailabel.endpoints": {name: SimpleNamespace(router=name) for name in ("infer", "info", "session", "model")},
        "monailabel.interfaces": {},
        "monailabel.interfaces.app": {"MONAILabelApp": MONAILabelApp},
        "monailabel.tasks": {},
        "monailabel.tasks.infer": {},
        "monailabel.tasks.infer.bundle": {"BundleInferTask": BundleInferTask},
        "monailabel.utils": {},
        "monailabel.utils.others": {},
        "monailabel.utils.others.generic": {"remove_file": remove_file},
        "monailabel.utils.sessions": {"Sessions": Sessions},
    }
    made = {}
    for name, content in contents.items():
        made[name] = module = ModuleType(name)
        vars(module).update(content)
    return made
