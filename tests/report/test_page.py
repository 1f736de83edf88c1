"""The report of one case, as a file: what it holds, and that nothing from outside can act in it."""

import base64
import gzip
import hashlib
import io
import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from scripts.report.document import ASSETS
from scripts.report.mip import BONE_WINDOW, PROJECTIONS
from scripts.report.page import PAGE_FILE, write_light_page, write_page
from scripts.report.planes import as_displayed

AFFINE = np.array([[3.0, 0, 0, -9], [0, 2, 0, -8], [0, 0, 5, 100], [0, 0, 0, 1]])
EVIL = (
    "</script><script>alert(1)</script><!-- <img src=x onerror=alert(1)> \" onload='x' ]]> &amp; \x00 \u202e "
    "{{ exam }} {% x %} {# y #}"
)


class Elements(HTMLParser):
    """Elements in order, each with its attributes, and the text in it."""

    def __init__(self, text):
        super().__init__()
        self.found = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.found.append([tag, dict(attrs), ""])

    def handle_data(self, data):
        if self.found:
            self.found[-1][2] += data

    def all(self, tag, **attributes):
        return [e for e in self.found if e[0] == tag and attributes.items() <= e[1].items()]


def record(word=""):
    return {
        "exam": f"exam{word}",
        "notice": f"notice{word}",
        "warnings": [f"one{word}", f"two{word}"],
        "reprojection_error": {"frontal": 0.0451, "lateral": 0.25},
        "metrics": {"mae_hu": 49.98765, "mae_bone_hu": float("nan")},
        "inputs": {"frontal": {"path": f"path{word}", "steps": [f"first step{word}", "second step"]}},
        "inputs_sha256": {f"film{word}.dcm": "ab12"},
        "geometry": {"source_to_isocentre_mm": 785.0, "volume_shape": [3, 4, 5], "source_to_detector_mm": float("inf")},
        "bundle": {"name": f"bundle{word}", "version": "0.2.0"},
        "samples": 4,
        "std_temperature": 1.5,
        f"key{word}": f"value{word}",
    }


def arrays(shape=(3, 4, 5), **more):
    rng = np.random.default_rng(0)
    images = {"measured": rng.random((2, 6, 6)), "reprojected": rng.random((2, 6, 6))}
    return images, {"ct": rng.normal(0, 500, shape), **more}


def page(tmp_path, facts=None, images=None, volumes=None, affine=AFFINE):
    default_images, default_volumes = arrays()
    write_page(tmp_path, facts or record(), images or default_images, volumes or default_volumes, affine)
    return (tmp_path / PAGE_FILE).read_text(encoding="utf-8")


def full(tmp_path, word=""):
    images, volumes = arrays()
    images |= {"frontal_film": np.eye(7, 9), "lateral_film": np.eye(700, 900)}
    volumes |= {"std": abs(volumes["ct"]) / 9, "support": volumes["ct"].clip(0, 100), "truth": volumes["ct"] + 7}
    return page(tmp_path, record(word), images, volumes)


def unpacked(text, name, shape):
    (element,) = Elements(text).all("script", **{"data-volume": name})
    low, high = np.frombuffer(gzip.decompress(base64.b64decode(element[2])), np.uint8).reshape(2, -1).astype(np.uint16)
    return (low | high << 8).view(np.int16).reshape(shape)


def test_volumes_come_back_as_whole_hounsfield_units(tmp_path):
    images, volumes = arrays(std=np.full((3, 4, 5), 255.6), truth=np.full((3, 4, 5), -32768.0))
    text = page(tmp_path, volumes=volumes)
    for name, volume in volumes.items():
        assert (unpacked(text, name, (3, 4, 5)) == np.rint(volume)).all()


def test_the_same_input_gives_the_same_bytes(tmp_path):
    assert full(tmp_path) == full(tmp_path)


def test_the_policy_allows_nothing_but_this_style_this_script_and_embedded_pictures(tmp_path):
    text = full(tmp_path)
    (policy,) = Elements(text).all("meta", **{"http-equiv": "Content-Security-Policy"})
    found = [
        re.search("<style>(.*?)</style>", text, re.DOTALL)[1],
        *re.findall("<script>(.*?)</script>", text, re.DOTALL),
    ]
    (library,) = Elements(text).all("script", **{"data-library": "vtk.min.js"})
    found.append(gzip.decompress(base64.b64decode(library[2])).decode())
    style, *scripts = (
        f"'sha256-{base64.b64encode(hashlib.sha256(code.encode()).digest()).decode()}'" for code in found
    )
    assert policy[1]["content"].split("; ") == [
        "default-src 'none'",
        "img-src data:",
        f"style-src {style}",
        f"script-src {' '.join(scripts)}",
        "base-uri 'none'",
        "form-action 'none'",
    ]


def test_the_library_is_the_one_that_its_licence_names():
    stated = re.search("sha256 of vtk.min.js: ([0-9a-f]{64})\n", (ASSETS / "vtk.LICENSE.txt").read_text())[1]
    assert hashlib.sha256((ASSETS / "vtk.min.js").read_bytes()).hexdigest() == stated


def test_the_light_page_has_the_still_pictures_and_no_library(tmp_path):
    images, volumes = arrays()
    whole = Elements(page(tmp_path, images=images, volumes=volumes))
    write_light_page(tmp_path, record(), images, volumes, AFFINE)
    light = Elements((tmp_path / PAGE_FILE).read_text())
    assert light.all("img") == whole.all("img")
    assert {name for element in light.all("script") for name in element[1]} == {"id", "type", "data-volume"}
    assert not light.all("div", **{"class": "tile scene"}) and whole.all("div", **{"class": "tile scene"})


def test_still_pictures_are_projections_of_the_skeleton_with_square_pixels(tmp_path):
    images, volumes = arrays((3, 4, 5))
    volumes["ct"] *= 2
    found = {e[1]["alt"]: e[1] for e in Elements(page(tmp_path, images=images, volumes=volumes)).all("img")}
    for projection, size in zip(PROJECTIONS, ((4, 12), (4, 12)), strict=True):
        shown = found[f"Reconstruction, {projection.name}"]
        assert (int(shown["width"]), int(shown["height"])) == size  # 9 by 25 mm, and 8 by 25 mm, of 2 mm each
        grey = np.asarray(Image.open(io.BytesIO(base64.b64decode(shown["src"].partition(",")[2]))))[..., 0]
        hu = as_displayed(projection.of(volumes["ct"]))
        assert (grey[-1, 0], grey[-1, -1]) == pytest.approx([expected(hu[-1, i]) for i in (0, -1)], abs=2)


def expected(hu):
    low, high = BONE_WINDOW
    return np.clip((hu - low) / (high - low), 0, 1) * 255


def test_the_thumbnail_has_the_film_the_skeleton_and_the_middle_plane_side_by_side(tmp_path):
    images, volumes = arrays((8, 8, 8))
    images["measured"] = np.zeros((2, 6, 6))
    images["measured"][0, :3] = 1  # the low end of u is the patient's left, on the right of the picture
    volumes["ct"] = np.full((8, 8, 8), -1000.0)
    volumes["ct"][:4] = 1000.0
    page(tmp_path, images=images, volumes=volumes, affine=np.diag([2.0, 2, 2, 1]))
    small = np.asarray(Image.open(tmp_path / "thumbnail.jpg"))
    assert small.shape == (96, 288)
    film, bone, sagittal = (small[8:88, start : start + 96] for start in (0, 96, 192))
    for half in (film, bone):
        assert half[:, :40].max() < 30 and half[:, 56:].min() > 225
    assert sagittal.max() < 30  # it cuts the air


def test_nothing_in_the_file_points_outside_it(tmp_path):
    text = full(tmp_path)
    for _, attributes, _ in Elements(text).found:
        assert all(attributes.get(name, "data:").startswith("data:") for name in ("src", "href", "action", "srcset"))
        assert not any(name.startswith("on") or name == "style" for name in attributes)
    assert not re.search(r"https?:|url\(|@import|//\w+\.\w", re.sub(r"[\w+/=]{200,}", "", text))


def test_strings_from_outside_add_no_element_and_no_attribute(tmp_path):
    def skeleton(text):
        return [(tag, sorted(attributes)) for tag, attributes, _ in Elements(text).found]

    assert skeleton(full(tmp_path, EVIL)) == skeleton(full(tmp_path))


def test_strings_from_outside_are_shown_as_they_are(tmp_path):
    odd = " <b> & '\" {{ x }}"
    texts = " ".join(text for _, _, text in Elements(full(tmp_path, odd)).found)
    for word in ("exam", "notice", "one", "two", "path", "first step", "film", "bundle", "key", "value"):
        assert word + odd in texts


def test_a_name_that_is_not_text_can_be_written(tmp_path):
    assert "exam?" in page(tmp_path, record("\udc80"))


def test_every_entry_of_the_record_is_on_the_page(tmp_path):
    texts = [text for _, _, text in Elements(page(tmp_path)).found]
    shown = dict(zip(texts, texts[1:], strict=False))
    for label, value in {
        "Re-projection error, frontal": "4.5%",
        "MAE (HU)": "49.99",
        "MAE bone (HU)": "–",
        "Source to isocentre (mm)": "785",
        "Source to detector (mm)": "∞",
        "Volume shape": "3, 4, 5",
        "film.dcm": "ab12",
        "Bundle: Version": "0.2.0",
        "Samples": "4",
        "Key": "value",
        "Voxel": "3 × 2 × 5 mm",
        "first step": "second step",
    }.items():
        assert shown[label].strip() == value


def test_a_record_may_say_no_more_than_the_name(tmp_path):
    text = page(tmp_path, {"exam": "bare"})
    assert "No warnings." in text
    assert 'class="details"' not in text


@pytest.mark.parametrize("warnings, title", [(["a"], "1 warning"), (["a", "b"], "2 warnings")])
def test_warnings_stand_at_the_top(tmp_path, warnings, title):
    text = page(tmp_path, record() | {"warnings": warnings})
    assert 0 < text.index(f"<h2>{title}</h2>") < text.index("<canvas")


def test_the_notice_is_the_first_thing_of_the_page(tmp_path):
    assert re.search(
        r"<body>\s*<p class=\"notice\" role=\"note\">Research only: NOT FOR DIAGNOSTIC USE</p>", full(tmp_path)
    )


def test_only_what_is_given_is_drawn(tmp_path):
    def parts(text):
        return {element[1]["data-part"] for element in Elements(text).all("canvas")}

    assert parts(page(tmp_path)) == {"ct"}
    assert parts(full(tmp_path)) == {"ct", "std", "support", "truth", "error"}


def test_radiographs_are_shown_superior_up_with_the_right_or_anterior_on_the_left(tmp_path):
    images, _ = arrays()
    pictures = {e[1]["alt"]: e[1]["src"] for e in Elements(page(tmp_path, images=images)).all("img")}
    for view, name in enumerate(("Frontal", "Lateral")):
        data = base64.b64decode(pictures[f"{name} network input"].partition(",")[2])
        grey = np.asarray(Image.open(io.BytesIO(data)))[..., 0]
        expected = as_displayed(images["measured"][view]) / images["measured"].max() * 255
        np.testing.assert_allclose(grey, expected, atol=1.5)


@pytest.mark.parametrize(("number", "name"), [(0, "Frontal"), (1, "Lateral")])
def test_a_view_that_was_not_given_is_named_and_not_shown(tmp_path, number, name):
    def pictures(text):
        return {e[1]["alt"]: e[1]["src"] for e in Elements(text).all("img") if e[1].get("alt")}

    images, _ = arrays()
    images["reprojected"][number] *= 100
    alone = {what: image.copy() for what, image in images.items()}
    alone["measured"][number] = 0
    text = page(tmp_path, images=alone)
    assert f"{name} radiograph: not given." in text and text.count("not given") == 1
    assert not any(alt.startswith(name) for alt in pictures(text))
    alone["reprojected"][number] = 0
    assert pictures(text) == pictures(page(tmp_path, images=alone)), "what is not shown sets no scale"


def test_a_metric_without_a_value_is_a_dash(tmp_path):
    texts = [text for _, _, text in Elements(page(tmp_path, record() | {"metrics": {"mae_bone_hu": None}})).found]
    assert texts[texts.index("MAE bone (HU)") + 1].strip() == "–"


def test_pictures_have_words_and_controls_have_labels(tmp_path):
    elements = Elements(full(tmp_path))
    assert all("alt" in attributes for _, attributes, _ in elements.all("img"))
    assert all(
        attributes.get("aria-label") or "aria-hidden" in attributes for _, attributes, _ in elements.all("canvas")
    )
    labelled = {attributes.get("for") for _, attributes, _ in elements.all("label")}
    previous = [None, *elements.found]
    for before, (tag, attributes, _) in zip(previous, elements.found, strict=False):
        assert tag not in ("input", "select") or before[0] == "label" or attributes["id"] in labelled


def test_a_page_carries_every_second_voxel_of_a_large_volume_and_each_stays_where_it_is(tmp_path):
    volume = np.arange(3 * 4 * 257.0).reshape(3, 4, 257)
    text = page(tmp_path, volumes={"ct": volume})
    (state,) = Elements(text).all("script", id="state")
    state = json.loads(state[2])
    assert state["shape"] == [2, 2, 129]
    assert (unpacked(text, "ct", (2, 2, 129)) == volume[::2, ::2, ::2]).all()
    np.testing.assert_array_equal(np.array(state["affine"]) @ [1, 1, 128, 1], AFFINE @ [2, 2, 256, 1])
    assert "one voxel in 2 along each axis" in text


@pytest.mark.parametrize(
    "change, message",
    [
        ({"volumes": {"ct": np.zeros((3, 4))}}, r"'ct' must be a volume \[U, V, W\]"),
        ({"volumes": {"ct": np.full((3, 4, 5), 4e4)}}, "'ct' .*40000 to 40000.*16 bits"),
        ({"volumes": {"ct": np.zeros((3, 4, 5)), "std": np.zeros((3, 4, 4))}}, "'std' has shape"),
        ({"volumes": {"ct": np.full((3, 4, 5), np.nan)}}, "60 NaN"),
        (
            {"images": {"measured": np.zeros((2, 6, 6)), "reprojected": np.zeros((2, 7, 7))}},
            "'reprojected' must be .2, 6, 6",
        ),
        ({"images": {"measured": np.zeros((6, 6)), "reprojected": np.zeros((6, 6))}}, "'measured' must be"),
        ({"images": arrays()[0] | {"frontal_film": np.zeros((1, 2, 2))}}, r"must be \[rows, columns\]"),
        ({"images": arrays()[0] | {"frontal_film": np.full((2, 2), np.inf)}}, "4 NaN or infinite"),
        ({"affine": np.diag([-3.0, 2, 5, 1])}, "affine turns or mirrors"),
        ({"affine": AFFINE[[1, 0, 2, 3]]}, "affine turns or mirrors"),
        ({"affine": np.eye(3)}, r"affine must be \[4, 4\]"),
    ],
)
def test_arrays_that_a_page_would_show_wrongly_are_refused(tmp_path, change, message):
    with pytest.raises(ValueError, match=message):
        page(tmp_path, **change)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "facts, words",
    [
        ({"std_temperature": 1}, "Standard deviation of 4 samples (HU)"),
        ({"std_temperature": 2.5}, "Standard deviation of 4 samples, times 2.5 (HU)"),
        ({"samples": 1, "intervals_sha256": "0" * 64}, "Predicted standard deviation of the error (HU)"),
    ],
)
def test_the_page_says_what_its_standard_deviation_is(tmp_path, facts, words):
    images = dict.fromkeys(("measured", "reprojected"), np.ones((2, 8, 8)))
    volumes = {"ct": np.zeros((4, 5, 6)), "std": np.ones((4, 5, 6))}
    write_light_page(tmp_path, record() | facts, images, volumes, AFFINE)
    assert words in (tmp_path / PAGE_FILE).read_text()
