"""Published backbones: downloaded when asked for, checked, and the very networks of LPIPS's and MONAI's libraries."""

import functools
import hashlib
import http.server
import pickle
import re
import threading
from pathlib import Path

import pytest
import torch
from monai.losses.perceptual import RadImageNetPerceptualSimilarity
from tests.refusal import refused
from torch import Tensor, nn

from scripts.metrics.backbones import PUBLISHED, LpipsAlexNet, RadImageNetResNet50, WeightsFile
from scripts.metrics.perceptual import Backbone, Perceptual, SliceFeatures, backbone_sha256, load_backbone
from scripts.metrics.slices import slices

CHANNELS = (64, 192, 384, 256, 256)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    return tmp_path / "torch" / "hub" / "checkpoints"


class Server(http.server.ThreadingHTTPServer):
    """Serves ``folder`` on this machine and keeps what it was asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.asked = folder, []
        super().__init__(("127.0.0.1", 0), functools.partial(Handler, directory=str(folder)))

    def offer(self, name: str, value: object) -> WeightsFile:
        """Where ``value`` can be downloaded from."""
        torch.save(value, self.folder / name)
        digest = hashlib.sha256((self.folder / name).read_bytes()).hexdigest()
        return WeightsFile(f"http://127.0.0.1:{self.server_port}/{name}", digest)


class Handler(http.server.SimpleHTTPRequestHandler):
    def log_request(self, *_) -> None:
        self.server.asked.append(self.path)


@pytest.fixture
def server(tmp_path):
    (tmp_path / "served").mkdir()
    with Server(tmp_path / "served") as running:
        threading.Thread(target=running.serve_forever, args=(0.01,), daemon=True).start()
        yield running
        running.shutdown()


def volumes(seed: int, shape: tuple[int, int, int]) -> Tensor:
    return torch.rand(1, 1, *shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def random_alexnet() -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """State dicts of torchvision's and LPIPS's names and shapes."""
    generator, widths = torch.Generator().manual_seed(0), (3, *CHANNELS)
    weights: dict[str, Tensor] = {"classifier.1.weight": torch.zeros(2, 2)}
    for i, (layer, kernel) in enumerate(((0, 11), (3, 5), (6, 3), (8, 3), (10, 3))):
        shape = (widths[i + 1], widths[i], kernel, kernel)
        weights[f"features.{layer}.weight"] = 0.05 * torch.randn(shape, generator=generator)
        weights[f"features.{layer}.bias"] = torch.randn(shape[0], generator=generator)
    linear = {f"lin{i}.model.1.weight": torch.rand(1, d, 1, 1, generator=generator) for i, d in enumerate(CHANNELS)}
    return weights, linear


def test_a_file_is_downloaded_once(server, cache):
    file = server.offer("w.pth", {"a": torch.arange(3.0)})
    for _ in range(2):
        assert file.load()["a"].tolist() == [0, 1, 2]
    assert server.asked == ["/w.pth"] and [p.name for p in cache.iterdir()] == [f"{file.sha256[:16]}-w.pth"]


def test_another_content_is_refused_and_not_kept(server, cache):
    file = WeightsFile(server.offer("w.pth", {}).url, "0" * 64)
    with refused(ValueError, file.url, "download failed", "hash", "0" * 64):
        file.load()
    assert list(cache.iterdir()) == []


def test_a_damaged_file_in_the_cache_is_refused(server):
    file = server.offer("w.pth", {})
    file.load()
    file.path.write_bytes(b"x")
    with refused(ValueError, "w.pth", "SHA-256", file.sha256, "got ", "delete"):
        file.load()


def test_without_a_network_the_error_tells_where_a_file_brought_by_hand_belongs_and_there_it_works(server):
    offered = server.offer("w.pth", {"a": torch.ones(2)})
    file = WeightsFile("http://127.0.0.1:9/w.pth", offered.sha256)  # nobody listens on port 9
    with refused(ValueError, file.url, "download failed", "refused", str(file.path)):
        file.load()
    file.path.write_bytes((server.folder / "w.pth").read_bytes())
    assert file.load()["a"].tolist() == [1, 1] and server.asked == []


class Trap:
    """Unpickling it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_weights_are_never_code(server, tmp_path):
    file = server.offer("w.pth", {"a": Trap(tmp_path / "sprung")})
    with pytest.raises(pickle.UnpicklingError):
        file.load()
    assert not (tmp_path / "sprung").exists()


def test_nothing_is_downloaded_unless_a_network_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "download_url_to_file", lambda *_, **__: pytest.fail("a download"))
    torch.jit.script(nn.Identity()).save(tmp_path / "own.ts")
    assert load_backbone(None) is None
    assert isinstance(load_backbone(tmp_path / "own.ts"), Backbone)
    digest = hashlib.sha256((tmp_path / "own.ts").read_bytes()).hexdigest()
    assert backbone_sha256(tmp_path / "own.ts") == digest
    for load in (load_backbone, backbone_sha256):
        with refused(ValueError, "alexnt", "no such backbone", "alexnet, radimagenet_resnet50"):
            load("alexnt")
    assert backbone_sha256("radimagenet_resnet50") == PUBLISHED["radimagenet_resnet50"].files[0].sha256


def test_the_name_alexnet_gives_lpips(server, monkeypatch):
    alexnet, linear = random_alexnet()
    files = server.offer("alexnet.pth", alexnet), server.offer("alex.pth", linear)
    monkeypatch.setitem(PUBLISHED, "alexnet", PUBLISHED["alexnet"]._replace(files=files))
    backbone = load_backbone("alexnet", channels=1)  # the name knows better
    assert server.asked == ["/alexnet.pth", "/alex.pth"]
    assert backbone_sha256("alexnet") == f"{files[0].sha256}+{files[1].sha256}"
    assert [tuple(w.shape) for w in backbone.linear_weights()] == [(d,) for d in CHANNELS]
    assert sum(p.numel() for p in backbone.network.parameters()) == 2_469_696
    lpips, t = Perceptual(backbone), volumes(0, (31, 32, 33))
    assert (lpips(t, t) == 0).all() and (lpips(volumes(1, t.shape[2:]), t) > 0).all()


def test_alexnet_with_lpips_weights_is_the_lpips_library():
    lpips = pytest.importorskip("lpips", reason="an independent LPIPS")
    theirs = lpips.LPIPS(net="alex", pnet_rand=True, verbose=False).eval()
    alexnet = {f"features.{k}": v for part in theirs.net.children() for k, v in part.state_dict().items()}
    ours = Perceptual(Backbone(LpipsAlexNet(alexnet, theirs.state_dict())))
    p, t = (volumes(seed, (40, 31, 35)) for seed in (0, 1))
    with torch.no_grad():
        expected = [theirs(*(slices(v, axis)[0, :, None].expand(-1, 3, -1, -1) for v in (p, t))) for axis in range(3)]
    torch.testing.assert_close(ours(p, t)[0], torch.stack([e.mean() for e in expected]), rtol=1e-5, atol=0)


def test_alexnet_refuses_slices_smaller_than_its_kernels():
    network = LpipsAlexNet(*random_alexnet())
    assert all(len(features) == 1 for features in network(torch.zeros(1, 3, 31, 40)))
    with pytest.raises(ValueError, match=r"at least 31 x 31 pixels, got \(40, 30\)"):
        network(torch.zeros(1, 3, 40, 30))


@pytest.fixture(scope="module")
def radimagenet() -> RadImageNetResNet50:
    torch.manual_seed(0)
    network = RadImageNetResNet50().eval()
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.running_mean.normal_(0, 0.1)
            layer.running_var.uniform_(0.5, 2)
    return network


def test_radimagenets_network_has_the_parameters_of_keras_resnet50(radimagenet):
    trained = sum(p.numel() for p in radimagenet.parameters())
    moving = sum(v.numel() for k, v in radimagenet.state_dict().items() if "running" in k)
    assert (trained, trained + moving) == (23_534_592, 23_587_712)
    assert not radimagenet.state_dict().keys() & {"mean"}


def test_radimagenets_blocks_stride_in_their_first_convolution(radimagenet):
    x = torch.randn(1, 256, 8, 8)
    unseen = torch.ones(8, 8)
    unseen[::2, ::2] = 0  # a 1 x 1 convolution of stride 2 sees every other pixel
    changed = x + unseen * torch.randn(1, 256, 8, 8)
    with torch.no_grad():
        torch.testing.assert_close(radimagenet.layer2(changed), radimagenet.layer2(x), rtol=0, atol=0)


class FromMeanFree(nn.Module):
    """The network behind its own input scaling, as MONAI downloads it."""

    def __init__(self, network: RadImageNetResNet50) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        return self.network((x + self.network.mean) * 2 - 1)


def test_lpips_with_radimagenet_is_monais_perceptual_distance(radimagenet, monkeypatch):
    monkeypatch.setattr(torch.hub, "load", lambda *_, **__: FromMeanFree(radimagenet))
    p, t = (volumes(seed, (2, 34, 2)) for seed in (0, 1))
    with torch.no_grad():
        expected = RadImageNetPerceptualSimilarity()(*((slices(v, 0)[0, :, None] + 1) / 2 for v in (p, t))).mean()
    ours = Perceptual(Backbone(radimagenet))(p, t)[0, 0]
    torch.testing.assert_close(ours, expected, rtol=1e-4, atol=0)


def test_fid_with_radimagenet_is_measured(radimagenet):
    fid = SliceFeatures(Backbone(radimagenet))
    truth, other = (volumes(seed, (4, 4, 4)) for seed in (0, 1))
    fid.add(truth, {"truth": truth, "other": other})
    values = fid.finish()
    assert values["truth"]["fid_w"] == pytest.approx(0, abs=1e-8) and values["other"]["fid_w"] > 0


def test_published_files_are_fetched_safely_and_pinned_entirely():
    files = [file for published in PUBLISHED.values() for file in published.files]
    assert all(file.url.startswith("https://") and re.fullmatch("[0-9a-f]{64}", file.sha256) for file in files)
    named = re.search(r"-([0-9a-f]{8})\.pth", files[0].url)[1]  # PyTorch puts the digest's beginning into the name
    assert files[0].sha256.startswith(named)
