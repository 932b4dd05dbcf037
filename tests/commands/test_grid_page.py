"""The page of a grid in a real browser, opened from its file."""

import base64
import io
import json
import shlex
from pathlib import Path

import numpy
import pytest
from PIL import Image

from tests.browser import opened

HOSTILE = "</script><script>document.title='hit'</script> <img src=x onerror=alert(1)> <!--title--> \"'&amp;"


@pytest.fixture
def grid(lorakit, base, adapters):
    def run(*arguments, prompt="a red heart"):
        options = ("-l", f"{adapters}/ink.safetensors", "--html", *arguments)
        result = lorakit("grid", "--base", base, "--steps", 2, "--out", "out", *options, prompt)
        assert result.exit_code == 0, result.stderr
        return json.loads(Path("out/index.json").read_text(encoding="utf-8"))["cells"]

    return run


def shown_file(page, selector):
    """Give the bytes of the picture that an element shows."""
    return base64.b64decode(page.locator(selector).first.get_attribute("src").partition(",")[2])


def test_sheet_sliders_and_settings(grid, lorakit):
    cells = grid("--axis", "ink=0,0.5,1", "--axis", "seed=1-2", "--axis", "steps=1,2")
    files = [(Path("out") / cell["file"]).read_bytes() for cell in cells]
    with opened(Path("out/index.html")) as page:
        assert page.locator("#sheet .cell").count() == 12
        assert page.locator("#sheet .group > h2").all_inner_texts() == ["steps 1", "steps 2"]
        heads = page.locator("#sheet thead").first.locator("th").all_inner_texts()
        assert heads == ["seed", "0", "0.5", "1"]
        for number in (0, 7, 11):
            assert shown_file(page, f".cell[data-number='{number}'] img") == files[number]
        page.locator(".cell[data-number='4']").click()
        assert page.locator("#name").inner_text() == "ink 0.5, seed 2, steps 1"
        command = page.locator("#command").inner_text()
        words = shlex.split(command)
        assert lorakit(*words[1:2], "--out", "alone.png", *words[2:]).exit_code == 0
        assert Path("alone.png").read_bytes() == files[4]
        for key, number in (("ArrowRight", 5), ("ArrowUp", 2), ("PageDown", 8), ("ArrowRight", 8), ("ArrowLeft", 7)):
            page.keyboard.press(key)
            assert page.locator(".cell.here").get_attribute("data-number") == str(number)
            assert page.evaluate("document.activeElement.dataset.number") == str(number)
        page.keyboard.press("2")
        assert shown_file(page, "#single img") == files[7]
        assert page.locator("#sheet").is_hidden()
        page.locator("#slider-1").fill("1")
        assert shown_file(page, "#single img") == files[10]
        page.locator("#slider-1").focus()
        page.keyboard.press("ArrowLeft")
        assert shown_file(page, "#single img") == files[7]
        names, values = (page.locator(f"#facts {part}").all_inner_texts() for part in ("dt", "dd"))
        facts = dict(zip(names, values, strict=True))
        assert (facts["adapters"], facts["seed"], facts["steps"]) == ("ink:0.5", "1", "2")


def stage(page):
    return numpy.asarray(Image.open(io.BytesIO(page.locator("#flip .stage").screenshot())).convert("RGB")).astype(int)


def test_two_pictures_flip_wipe_and_zoom(grid):
    cells = grid("--axis", "ink=0,1", "--axis", "seed=1-2")
    with opened(Path("out/index.html")) as page:
        page.keyboard.press("a")
        page.locator(".cell[data-number='1']").click()
        page.keyboard.press("b")
        page.locator("#tab-flip").click()
        assert (page.locator("#pick-a").input_value(), page.locator("#pick-b").input_value()) == ("0", "1")
        page.locator("#flip .stage").focus()
        page.keyboard.press("Space")
        second = stage(page)
        assert page.locator(".tag.left").is_hidden()
        page.keyboard.press("Space")
        first = stage(page)
        colours = [
            numpy.asarray(Image.open(Path("out") / cells[k]["file"]).convert("RGB"))[8, 8].astype(int) for k in (0, 1)
        ]
        middle = tuple(length // 2 + 4 for length in first.shape[:2])
        for seen, colour in zip((first, second), colours, strict=True):
            assert abs(seen[middle] - colour).max() <= 2
        page.locator("#wipe").fill("50")
        both = stage(page)
        half = first.shape[1] // 2
        rows = slice(60, -10)
        assert abs(both[rows, 60 : half - 3] - first[rows, 60 : half - 3]).max() <= 2
        assert abs(both[rows, half + 3 : -60] - second[rows, half + 3 : -60]).max() <= 2
        before = page.locator("#zoom").inner_text()
        page.keyboard.press("0")
        page.locator("#flip .stage").hover()
        page.mouse.wheel(0, -100)
        page.wait_for_function(f"document.getElementById('zoom').textContent !== {json.dumps(before)}")
        page.mouse.down()
        page.mouse.move(500, 500)
        page.mouse.up()
        assert "scale" in page.locator("#flip img").first.get_attribute("style")
        page.keyboard.press("0")
        assert page.locator("#zoom").inner_text() == before


def test_hostile_prompts_are_text(grid):
    grid("--axis", "seed=1-2", prompt=HOSTILE)
    with opened(Path("out/index.html")) as page:
        assert page.locator("h1").inner_text() == HOSTILE
        assert page.title() == HOSTILE
        assert page.locator("#facts dd").first.inner_text() == HOSTILE
        assert page.locator("img[src='x']").count() == 0
        assert page.locator("script").count() == 2


def test_distances_and_a_dark_screen(grid):
    cells = grid("--ablate")
    with opened(Path("out/index.html"), color_scheme="dark") as page:
        texts = page.locator("#sheet td").all_inner_texts()
        assert f"{cells[1]['distances']['base']:.3f} from base" in texts[1]
        page.locator(".cell").nth(1).click()
        assert page.locator("#apart").inner_text().split("\n")[1] == f"{cells[1]['distances']['base']:.4f}"
        assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(20, 23, 27)"
