"""The explorers: their numbers are the library's, their data say where they come from, keys do."""

import json
import math
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page

from cxrlib.explorers.__main__ import main
from cxrlib.explorers.packing import case_of, outline, pack, pack_outline, picture, unpack
from cxrlib.explorers.thresholds import SHARES, at_threshold, own_scores
from cxrlib.metrics import conventions
from cxrlib.pooling import lse_pool

STATIC = Path(__file__).parents[1] / "book" / "_static" / "explorers"
NAMES = ("r0", "conventions")
MOST = 400_000  # bytes


def committed(name: str) -> dict:
    text = (STATIC / f"{name}.js").read_text()
    return json.loads(text.removeprefix(f"(window.cxrlib ||= {{}}).{name} = ").removesuffix(";\n"))


@pytest.fixture(scope="module")
def data() -> dict[str, dict]:
    return {name: committed(name) for name in NAMES}


@pytest.fixture
def tab(browser: Browser) -> Iterator[Page]:
    """An empty page with the explorers' arithmetic and data."""
    with browser.new_page() as page:
        for name in ("numbers", *NAMES):
            page.add_script_tag(path=STATIC / f"{name}.js")
        yield page


@pytest.mark.parametrize("name", NAMES)
def test_data_are_small_and_say_where_they_come_from(data, name):
    held = data[name]
    assert (STATIC / f"{name}.js").stat().st_size < MOST
    assert (STATIC / f"{name}.png").stat().st_size < MOST
    assert len(held["findings"]) == 14
    for scene in held["findings"]:
        assert picture(held["images"][scene["image"]]).shape == (held["size"], held["size"])
        (x0, y0, x1, y1) = np.array(scene["boxes"]).T
        assert (x0 >= 0).all() and (x0 < x1).all() and (y0 < y1).all() and (x1 <= 96).all()
        assert 0 < outline(scene, held["size"]).mean() < 0.5
    for named in held["about"]["runs"].values():
        assert re.fullmatch(r"[0-9a-f]{12}", named["run"])
        assert re.fullmatch(r"[0-9a-f]{40}", named["commit"])  # of a clean checkout


def test_all_networks_of_the_r0_explorer_are_asked_about_the_same_images(data):
    held = data["r0"]
    assert [run["r0"] for run in held["runs"]] == [0, 1, 2, 5, 10, 20]
    for run in held["runs"]:
        assert run["r"] > run["r0"]  # r = r0 + exp(beta)
        for scene, numbers in zip(held["findings"], run["findings"], strict=True):
            assert scene["image"] != scene["negative"]
            maps = [unpack(text) for text in numbers["maps"]]
            for S, p in zip(maps, numbers["p"], strict=True):
                assert np.ptp(S) > 0 and np.diff(p).min() >= -1e-5  # p rises with r
                assert p[0] == pytest.approx(S.mean(), abs=1e-5)
                assert p[-1] == pytest.approx(S.max(), abs=1e-5)


def test_a_slider_at_an_origins_threshold_gives_that_origins_number(data):
    held = data["conventions"]
    own = held["own"]
    for method in held["methods"]:
        for scene, numbers in zip(held["findings"], method["findings"], strict=True):
            case = case_of(unpack(numbers["map"]), scene, held["size"])
            its = own_scores(case)
            assert np.ptp(case.map) > 0
            assert {name: its[name] for name in numbers["own"]} == pytest.approx(
                numbers["own"], abs=1e-5
            )
            half = at_threshold(case, "maximum", own["pylon"])
            assert half["pylon_iou"] == its["pylon_iou"]
            assert at_threshold(case, "range", own["ham"])["ham_iou"] == its["ham_iou"]
            wang = [at_threshold(case, "range", share)["wang_iou"] for share in own["wang"]]
            assert max(wang) == its["wang_iou"]
    assert own["ham"] == conventions.HAM_THRESHOLD


def test_the_questions_of_the_pages_have_answers(data):
    numbers = [found for method in data["conventions"]["methods"] for found in method["findings"]]
    cuts = [at for found in numbers for kind in found["reference"].values() for at in kind]
    assert any((at["pylon_iou"] > 0.3) != (at["clarity"] >= 0.3) for at in cuts)
    own = [found["own"] for found in numbers]
    assert any(0 < 2 * its["ham_iou"] < its["wang_iou"] for its in own)
    assert any(its["pointing"] == 1 and its["pylon_iou"] < 0.1 for its in own)
    dice = {
        scene["name"]: [run["findings"][row]["continuous_dice"] for run in data["r0"]["runs"]]
        for row, scene in enumerate(data["r0"]["findings"])
    }
    assert dice["Hernia"][0] < dice["Hernia"][-1] - 0.1
    assert dice["Cardiomegaly"][0] > dice["Cardiomegaly"][-1] + 0.1
    masses = [run["findings"][4]["p"] for run in data["r0"]["runs"]]
    higher = np.greater(*np.moveaxis(np.array(masses), 1, 0))  # (runs, sharpnesses)
    assert higher.any() and not higher.all()


def test_the_page_pools_as_the_library_does(tab: Page, data):
    found = tab.evaluate(
        """() => cxrlib.r0.runs.map(run => run.findings.map(({maps}) => maps.map(map =>
            cxrlib.r0.sharpnesses.map(r => cxrlib.numbers.lse(
                cxrlib.numbers.unpack(map), r === "inf" ? Infinity : Number(r))))))"""
    )
    for run, pooled in zip(data["r0"]["runs"], found, strict=True):
        stored = [numbers["p"] for numbers in run["findings"]]
        assert np.abs(np.array(pooled) - np.array(stored)).max() < 1e-3


@pytest.mark.parametrize("r", [0.0, 3.0, 50.0, math.inf])
def test_the_page_says_who_learns_as_autograd_does(tab: Page, r):
    text = pack(np.random.default_rng(0).integers(0, 9, (6, 6)) / 8)  # with tied maxima
    S = torch.from_numpy(unpack(text).copy()).requires_grad_()
    lse_pool(S, r).backward()
    share = tab.evaluate(
        "([map, r]) => [...cxrlib.numbers.gradient(cxrlib.numbers.unpack(map), Number(r))]",
        [text, "Infinity" if math.isinf(r) else str(r)],
    )
    assert np.abs(np.array(share) - S.grad.numpy().ravel()).max() < 1e-3


def test_the_page_measures_as_the_library_does(tab: Page, data):
    """Every method and finding, each at one share of either kind, so that all shares come up."""
    found = tab.evaluate(
        """() => { const {numbers, conventions: held} = cxrlib;
        return held.methods.map((method, m) => method.findings.map(({map, own, reference}, f) => {
            const one = numbers.caseOf(numbers.unpack(map), held.findings[f], held.size);
            const at = (kind, k) => [
                numbers.atThreshold(one, kind, held.shares[k]), reference[kind][k]];
            const n = held.shares.length;
            const whole = {pointing: numbers.pointing(one.frame, one.boxes, held.size),
                           continuous_dice: numbers.continuousDice(one.frame, one.truth)};
            return [at("range", (m + f) % n), at("maximum", (m + 2 * f) % n), [whole, own]];
        }))}"""
    )
    compared = [pair for method in found for finding in method for pair in finding]
    assert len(compared) == 5 * 14 * 3
    for ours, stored in compared:
        assert ours == pytest.approx({name: stored[name] for name in ours}, abs=1e-3)


@pytest.mark.parametrize("seed", range(4))
def test_the_page_measures_regions_with_holes_and_many_boxes_as_the_library_does(tab: Page, seed):
    rng = np.random.default_rng(seed)
    size, text = 24, pack(rng.random((12, 12)) ** 2 / 2 + 0.2)
    covered = np.zeros((size, size), bool)
    covered[4:13, 2:11] = covered[15:20, 14:22] = True
    scene = {
        "boxes": [[2.3, 4.1, 10.6, 12.9], [14, 15, 22, 20]],
        "outline": pack_outline(covered),
    }
    case = case_of(unpack(text), scene, size)
    for kind in ("range", "maximum"):
        for share in SHARES:
            found = tab.evaluate(
                """([map, scene, size, kind, share]) => { const n = cxrlib.numbers;
                return n.atThreshold(n.caseOf(n.unpack(map), scene, size), kind, share) }""",
                [text, scene, size, kind, share],
            )
            assert found == pytest.approx(at_threshold(case, kind, share), abs=1e-3)


def test_the_command_says_what_it_wants(capsys):
    with pytest.raises(SystemExit):
        main(["r0"])
    assert "the following arguments are required: runs, out" in capsys.readouterr().err


def faultless(browser: Browser, address: str, name: str, **options) -> tuple[Page, list[str]]:
    """The explorer's page once it has started, and where its faults are collected."""
    page, faults = browser.new_page(**options), []
    page.on("console", lambda m: faults.append(m.text) if m.type == "error" else None)
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("requestfailed", lambda request: faults.append(request.url))
    here = address.split("/book/")[0]
    page.on(
        "request",
        lambda r: None if r.url.startswith((here, "data:", "blob:")) else faults.append(r.url),
    )
    page.goto(address)
    page.wait_for_selector(f"#explorer-{name} canvas[aria-label]")
    return page, faults


def seen(page: Page) -> dict[str, list[str]]:
    """What a reader sees or hears of an explorer."""
    return {
        "numbers": page.locator(".explorer td").all_inner_texts(),
        "spoken": [
            c.get_attribute("aria-label") for c in page.locator(".explorer [role=img]").all()
        ],
        "drawn": page.locator(".explorer canvas").evaluate_all(
            "all => all.map(c => c.toDataURL())"
        ),
        "slider": [page.locator("input[type=range]").get_attribute("aria-valuetext")],
    }


@pytest.fixture(params=["opened from a disk", "served"])
def address(request: pytest.FixtureRequest) -> str:
    if request.param == "served":
        return f"{request.getfixturevalue('site')}/book"
    return f"{request.getfixturevalue('html').as_uri()}/book"


def test_the_r0_explorer_is_driven_by_keys(browser: Browser, address: str, data):
    page, faults = faultless(browser, f"{address}/explore_r0.html", "r0")
    before = seen(page)
    page.focus("select[name=r0]")
    page.keyboard.press("ArrowDown")  # r0 = 10
    other = seen(page)
    assert other["numbers"] != before["numbers"] and other["drawn"] != before["drawn"]
    page.focus("input[name=r]")
    marker = page.locator(".chart circle.with").get_attribute("cx")
    page.keyboard.press("ArrowRight")
    after = seen(page)
    assert page.locator(".chart circle.with").get_attribute("cx") != marker
    assert after["numbers"][:3] != other["numbers"][:3]
    assert after["numbers"][3:] == other["numbers"][3:]  # the map is the same
    assert after["slider"] != other["slider"] and after["spoken"] != other["spoken"]
    held = data["r0"]["runs"][4]["findings"][1]
    for key, place in (("Home", 0), ("End", -1)):
        page.keyboard.press(key)
        p = [float(number) for number in seen(page)["numbers"][:2]]
        assert p == pytest.approx([pooled[place] for pooled in held["p"]], abs=1e-3)
    assert float(seen(page)["numbers"][4]) == pytest.approx(held["continuous_dice"], abs=1e-3)
    page.close()
    assert faults == []


def test_the_convention_explorer_is_driven_by_keys(browser: Browser, address: str, data):
    page, faults = faultless(browser, f"{address}/explore_conventions.html", "conventions")
    before = seen(page)
    page.focus("input[name=share]")
    page.keyboard.press("ArrowLeft")
    assert page.input_value("input[name=share]") == "49"
    after = seen(page)
    assert after["numbers"] != before["numbers"] and after["drawn"] != before["drawn"]
    page.focus("select[name=method]")
    page.keyboard.press("ArrowDown")
    page.focus(".own button >> nth=1")
    page.keyboard.press("Enter")  # HAM's own threshold
    assert page.input_value("select[name=kind]") == "range"
    own = data["conventions"]["methods"][1]["findings"][4]["own"]
    ham = page.locator("tr", has=page.locator("th", has_text="HAM")).locator("td")
    shown = ham.all_inner_texts()
    assert float(shown[0]) == pytest.approx(own["ham_iou"], abs=1e-3)
    assert float(shown[1]) == pytest.approx(own["ham_ior"], abs=1e-3)
    assert shown[3].startswith(shown[0])
    boxes = seen(page)["drawn"]
    page.select_option("select[name=boxes]", "all")
    assert page.locator(".explorer datalist option").count() == 5
    assert (seen(page)["drawn"] != boxes) == (", in one region" not in seen(page)["spoken"][1])
    page.close()
    assert faults == []


@pytest.mark.parametrize("name", NAMES)
def test_without_javascript_the_still_picture_is_there(browser: Browser, address: str, name):
    with browser.new_context(java_script_enabled=False) as context:
        page = context.new_page()
        page.goto(f"{address}/explore_{name}.html")
        image = page.locator(f"#explore-{name} img")
        assert image.is_visible() and image.bounding_box()["height"] > 200
        assert len(image.get_attribute("alt")) > 100
        assert page.locator(".explorer").count() == 0


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("width", [390, 1280])
def test_an_explorer_fits_the_screen(browser: Browser, site: str, name, width):
    size = {"width": width, "height": 844}
    page, faults = faultless(browser, f"{site}/book/explore_{name}.html", name, viewport=size)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    for part in page.locator(".explorer select, .explorer input, .explorer canvas").all():
        box = part.bounding_box()
        assert box["x"] >= 0 and box["x"] + box["width"] <= width
    page.close()
    assert faults == []


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_an_explorer_has_no_serious_violation_of_accessibility(browser, site, name, theme):
    page, _ = faultless(browser, f"{site}/book/explore_{name}.html", name)
    page.evaluate("theme => { document.documentElement.dataset.theme = theme }", theme)
    found = Axe().run(page, context=".explorer").response["violations"]
    page.close()
    assert [v["id"] for v in found if v["impact"] in ("serious", "critical")] == []
