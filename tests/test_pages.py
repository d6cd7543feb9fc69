"""What single pages of the built book do: terms, search, laboratory, maker."""

import re
from collections.abc import Iterable
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import pytest
import torch
from accessibility import findings
from reader import HTML, ROOT, SIZES, THEMES, Reader

from ddpm_core import editing, samplers, schedules
from ddpm_core.datasets import draw_toy_cars, to_float
from ddpm_core.models import DiffusionModel, load_model
from ddpm_core.tokens import Tokenizer
from ddpm_core.workshop.exercises import all_exercises

# The first page, terms, search ------------------------------------------------------

FILM = "out-of-noise.webp"
PLAYS = "n => document.querySelector('.out-of-noise img').src.endsWith(`?${n}`)"


def test_first_page_plays_noise_into_cars_and_again(reader):
    read = reader("light")
    page = read.open("book/intro")
    assert (HTML / "_static" / FILM).stat().st_size < 500_000
    page.wait_for_function(PLAYS, arg=1)
    page.click(".out-of-noise .play")
    page.wait_for_function(PLAYS, arg=2)
    assert read.complaints == []


def test_first_page_stands_still_for_who_wants_less_motion(reader):
    page = reader("dark", reduced_motion="reduce").open("book/intro")
    picture = page.query_selector(".out-of-noise img")
    assert picture.evaluate("e => e.currentSrc").endswith("cars-drawn.webp")
    page.click(".out-of-noise .play")
    page.wait_for_function(PLAYS, arg=1)


def test_first_page_draws_a_car_on_a_click_and_loads_nothing_before(reader):
    read = reader("light")
    page = read.open("book/intro")
    assert not any("car-maker" in request.url for request in read.loaded)
    page.click(".live .start")
    page.wait_for_function(
        "() => document.querySelector('.said')?.innerText.startsWith('Drew ')"
    )
    assert not page.query_selector(".maker .more[open]")
    assert read.complaints == []


@pytest.mark.parametrize(("theme", "size"), [("light", "desktop"), ("dark", "phone")])
def test_term_shows_its_meaning_to_pointer_and_keyboard(reader, theme, size):
    page = reader(theme).open("chapters/05_forward_diffusion")
    page.set_viewport_size(SIZES[size])
    terms = page.query_selector_all("a.term")
    assert len(terms) > 3
    tip = page.query_selector("#meaning")
    for term in terms:
        term.focus()
        assert tip.inner_text() == term.get_attribute("data-meaning")
        assert term.get_attribute("aria-describedby") == "meaning"
        box = tip.bounding_box()
        assert box["x"] >= 0 and box["x"] + box["width"] <= SIZES[size]["width"]
    assert findings(page, "#meaning") == []
    page.keyboard.press("Escape")
    assert not tip.is_visible()
    terms[0].hover()
    assert tip.is_visible()
    page.mouse.move(0, 0)
    tip.wait_for_element_state("hidden")


SEARCHES = {
    "train on my own photos": "book/own_data",
    "grey samples": "chapters/bug_clinic",
    "pictures too dark": "chapters/bug_clinic",
    "reparameterization": "chapters/02_autoencoders",
}


@pytest.fixture(scope="module")
def search_page(lasting_reader):
    read = lasting_reader("light")
    read.open("search")
    return read


@pytest.mark.parametrize("query", SEARCHES)
def test_search_finds_the_section_among_the_first_three(search_page, query):
    page = search_page.page
    page.goto(f"{search_page.site}search.html?q={query}")
    page.wait_for_selector("ol.results li")
    found = page.query_selector_all("ol.results a")[:3]
    links = [link.get_attribute("href") for link in found]
    assert any(link.startswith(SEARCHES[query]) for link in links), links
    excerpts = [p.inner_text() for p in page.query_selector_all("ol.results p")]
    assert not any(re.search(r"[\\$]", excerpt) for excerpt in excerpts)
    assert page.query_selector("ol.results mark")
    assert search_page.complaints == []


def test_search_leads_into_the_page_and_says_when_nothing_is_found(search_page):
    page = search_page.page
    page.goto(f"{search_page.site}search.html?q=nearest neighbour audit")
    assert "#" in page.wait_for_selector("ol.results a").get_attribute("href")
    page.goto(f"{search_page.site}search.html?q=zzzz")
    said = page.wait_for_selector("p.found:not(:empty)").inner_text()
    assert said.startswith("Nothing was found for “zzzz”")


def test_tap_on_a_term_shows_its_meaning_and_stays_in_the_chapter(reader):
    page = reader("light", has_touch=True).open("chapters/05_forward_diffusion")
    page.set_viewport_size(SIZES["phone"])
    term, before = page.query_selector("a.term"), page.url
    term.tap()
    tip = page.wait_for_selector("#meaning:not([hidden])")
    assert tip.inner_text().startswith(term.get_attribute("data-meaning"))
    assert page.url == before
    link = tip.query_selector("a").get_attribute("href")
    assert link == term.evaluate("e => e.href")


def test_chapter_has_few_tab_stops(chapter_05):
    stops = chapter_05.evaluate(
        """() => [...document.querySelectorAll("a[href], button, input, [tabindex]")]
          .filter(e => e.tabIndex >= 0 && e.checkVisibility()).length"""
    )
    print(f"{stops} tab stops")
    assert stops < 230


SHIFT = """() => new Promise(done => {
  let sum = 0;
  new PerformanceObserver(list => {
    for (const { value } of list.getEntries()) sum += value;
    done(sum);
  }).observe({ type: "layout-shift", buffered: true });
  setTimeout(() => done(sum), 1000);
})"""


def test_head_of_a_chapter_moves_nothing_and_is_not_printed(chapter_05):
    shift = chapter_05.evaluate(SHIFT)
    print(f"layout shift {shift:.3f}")
    assert shift < 0.05
    head = chapter_05.query_selector(".chapter-head")
    assert head.is_visible()
    chapter_05.emulate_media(media="print")
    assert not head.is_visible()
    chapter_05.emulate_media(media="screen")


# The schedule laboratory ------------------------------------------------------------

LABORATORY = [
    ({"family": "linear"}, schedules.linear_schedule(1000)),
    (
        {"family": "linear", "T": "512", "betaStart": "0.002", "betaEnd": "0.03"},
        schedules.linear_schedule(512, 0.002, 0.03),
    ),
    ({"family": "cosine"}, schedules.cosine_schedule(1000)),
    ({"family": "cosine", "T": "2"}, schedules.cosine_schedule(2)),
    ({"family": "sigmoid", "T": "300"}, schedules.sigmoid_schedule(300)),
    (
        {"family": "linear", "T": "512", "zeroSnr": True},
        schedules.rescale_zero_terminal_snr(schedules.linear_schedule(512)),
    ),
]


@pytest.fixture(scope="module")
def chapter_05(lasting_reader):
    """The page of the laboratory; one load serves all tests of it."""
    return lasting_reader("light").open("chapters/05_forward_diffusion")


@pytest.fixture
def laboratory(chapter_05):
    """The laboratory as it is at first, and a function that changes its fields."""
    form = chapter_05.query_selector("form.laboratory")
    form.evaluate("form => { form.reset(); form.dispatchEvent(new Event('input')); }")

    def change(fields: dict) -> None:
        for name, value in fields.items():
            field = form.query_selector(f"[name={name}]")
            if name == "family":
                field.select_option(value)
            elif name == "zeroSnr":
                field.set_checked(value)
            else:
                field.fill(value)

    return form, change


@pytest.mark.parametrize(("fields", "schedule"), LABORATORY)
def test_laboratory_computes_the_librarys_schedules(laboratory, fields, schedule):
    form, change = laboratory
    change(fields)
    computed = torch.tensor(form.evaluate("form => form.alphaBar"), dtype=torch.float64)
    torch.testing.assert_close(computed, schedule.alpha_bar, rtol=1e-6, atol=1e-12)


def test_laboratory_noises_the_car_and_draws_what_is_chosen(laboratory):
    form, change = laboratory
    pixels = """form => { const canvas = form.querySelector("canvas");
      return [...canvas.getContext("2d").getImageData(0, 0, 32, 32).data]; }"""

    def seen(t: str) -> torch.Tensor:
        change({"t": t})
        rgba = torch.tensor(form.evaluate(pixels), dtype=torch.uint8).view(32, 32, 4)
        return rgba[..., :3].numpy()

    van = draw_toy_cars(8, seed=5).images[2]
    assert (seen("0") == van).all()
    noised = to_float(seen("100")[None]) - to_float(van[None])
    a = schedules.cosine_schedule(1000).alpha_bar[100].item()
    inside = to_float(van[None]).abs() < 0.4  # where nothing is cut off at +-1
    spread = (noised[inside] + (1 - a**0.5) * to_float(van[None])[inside]).std().item()
    assert spread == pytest.approx((1 - a) ** 0.5, rel=0.1)
    said = form.query_selector(".said").inner_text()
    assert said.startswith("t = 100 of 1000: ᾱ = ") and f"{a:.4f}" in said
    curves = form.query_selector(".curves").inner_html()
    change({"family": "sigmoid"})
    assert form.query_selector(".curves").inner_html() != curves


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"T": "1"}, "from 2 to 4000"),
        ({"T": ""}, "from 2 to 4000"),
        ({"family": "linear", "betaEnd": "0.00001"}, "0 < β at 1 ≤ β at T < 1"),
    ],
)
def test_laboratory_says_what_it_cannot_compute(laboratory, fields, complaint):
    form, change = laboratory
    change(fields)
    assert complaint in form.query_selector(".said.is-wrong").inner_text()


def test_overview_and_chapters_list_every_exercise(reader, chapter_05):
    found = all_exercises(ROOT / "chapters")
    page = reader("light").open("book/exercises")
    assert len(page.query_selector_all("ol.exercises > li a")) == len(found)
    items = chapter_05.query_selector_all("ol.exercises > li")
    said = [li.inner_text() for li in items]
    own = [e for e in found if e.notebook.stem == "05_forward_diffusion"]
    assert said == [f"{e.title} {'★' * e.stars}" for e in own]


# A car out of noise -----------------------------------------------------------------


class Maker(NamedTuple):
    """The reader of the page that draws cars, and its form."""

    read: Reader
    form: "ElementHandle"

    def draw(self, button: str = "draw", **fields: str) -> str:
        """Fill in the fields and press the button; return what is said then."""
        for name, value in fields.items():
            self.form.query_selector(f"[name={name}]").fill(value)
        self.form.query_selector(f"[name={button}]").click()
        self.read.page.wait_for_function(
            "form => !form.elements.draw.disabled", arg=self.form
        )
        return self.form.query_selector(".said").inner_text()


TOYS, PHOTOS = "toy-cars-text-32", "cars-64"


def maker_of(read: Reader, model: str = TOYS) -> Maker:
    page = read.open("book/browser")
    return Maker(read, page.wait_for_selector(f"[data-model={model}] form.maker"))


@pytest.fixture(scope="module")
def used_maker(lasting_reader):
    """One load of the page, and of its model, for the tests that may share it."""
    maker = maker_of(lasting_reader("light"))
    maker.form.evaluate(  # what the script filled in is what `reset` returns to
        """form => form.querySelectorAll("input").forEach(
          field => field.defaultValue = field.value)"""
    )
    return maker


@pytest.fixture
def maker(used_maker):
    """The page that draws cars, its fields and its mask as they are at first."""
    used_maker.form.evaluate(
        """form => {
          form.reset();
          form.elements.clear.click();
        }"""
    )
    return used_maker


def assert_states_are(
    form, model: DiffusionModel, wanted: Iterable[samplers.State]
) -> None:
    """The form has drawn at each time what the library did."""
    states = form.evaluate(
        """form => form.states.map(({ t, x, x0, picture }) =>
          [t, [...x], [...x0], [...picture]])"""
    )
    for (t, *drawn), state in zip(states, wanted, strict=True):
        assert t == state.t
        shown = model.decode(state.x0_hat)
        for got, want in zip(drawn, (state.x, state.x0_hat, shown), strict=True):
            got = torch.tensor(got).view_as(want)
            torch.testing.assert_close(got, want, rtol=0, atol=1e-3)
            print(f"largest difference {(got - want).abs().max():.1e}")


def noises(form, seed: int, n: int) -> list[torch.Tensor]:
    """The first n tensors of noise that the page draws from a seed."""
    drawn = form.evaluate(
        """(form, [seed, n]) => {
          const draw = gaussians(seed);
          return Array.from({ length: n }, () => [...draw(3 * 32 * 32)]);
        }""",
        [seed, n],
    )
    return list(torch.tensor(drawn).view(n, 1, 3, 32, 32))


@pytest.mark.parametrize(
    ("prompt", "scale", "steps"),
    [("a red van by day", 1.5, 20), ("an orange suv in snow", 4, 7), ("", 1, 3)],
)
def test_page_draws_the_librarys_car_from_the_same_noise(maker, prompt, scale, steps):
    read, form = maker
    said = maker.draw(prompt=prompt, scale=str(scale), steps=str(steps), seed="7")
    assert said.startswith("Drew ") and read.complaints == []
    seconds = float(re.search(r"in ([\d.]+) s", said)[1])
    print(f"{steps} steps in the browser: {seconds} s")
    model = load_model(TOYS)
    (x_T,) = noises(form, 7, 1)
    assert_states_are(
        form, model, model.sample(x_T, steps, prompts=[prompt], scale=scale)
    )
    slider = form.query_selector("[name=step]")
    slider.focus()
    slider.press("Home")
    assert form.query_selector("[name=at]").inner_text() == "t = 1000"


@pytest.mark.parametrize(
    ("part", "wish", "rounds"),
    [("the sky", "a red van at night", 1), ("the left half", "a blue van by day", 3)],
)
def test_page_paints_over_as_the_library_does(maker, monkeypatch, part, wish, rounds):
    read, form = maker
    maker.draw(prompt="a red van by day", steps="7", seed="7")
    car = torch.tensor(form.evaluate("form => [...form.car]")).view(1, 3, 32, 32)
    form.query_selector(f".parts >> text={part}").click()
    mask = torch.tensor(form.evaluate("form => [...form.mask]")).view(1, 1, 32, 32)
    said = maker.draw("paint", wish=wish, rounds=str(rounds), seed="8")
    assert said.startswith(f"Painted over {mask.sum()} pixels with {wish} in ")
    assert read.complaints == []

    model, keep = load_model(TOYS), mask == 0
    denoise = model.denoiser([wish], scale=1.5)
    step = partial(samplers.ddim_step, model.schedule)
    step = editing.replacing(model.schedule, step, car, keep)
    step = editing.resampling(model.schedule, step, denoise, rounds)
    x_T, *rest = noises(form, 8, 1 + 7 + 6 * 2 * (rounds - 1))
    left = iter(rest)
    monkeypatch.setattr(torch, "randn", lambda *size, **options: next(left))
    times = samplers.spaced_times(model.schedule.T, 7)
    assert_states_are(form, model, samplers.sample(denoise, step, x_T, times))
    assert next(left, None) is None

    painted = torch.tensor(form.evaluate("form => [...form.car]")).view_as(car)
    assert torch.equal(painted[keep.expand_as(car)], car[keep.expand_as(car)])
    assert (painted - car).abs()[~keep.expand_as(car)].mean() > 0.1


def test_mask_is_painted_erased_and_cleared(reader):
    read, form = maker = maker_of(reader("light"))
    assert not form.query_selector(".easel").is_visible()
    maker.draw(steps="1")
    mouse, surface = read.page.mouse, form.query_selector(".easel svg")
    surface.scroll_into_view_if_needed()
    box, hatched = surface.bounding_box(), form.query_selector(".hatched")

    def drag(y: float, x1: float, x2: float) -> torch.Tensor:
        """Draw a level line through these pixels, and return the mask."""
        at = [(box["x"] + x * box["width"] / 32, box["y"] + y * box["height"] / 32)
              for x in (x1, x2)]  # fmt: skip
        mouse.move(*at[0])
        mouse.down()
        mouse.move(*at[1])
        mouse.up()
        return torch.tensor(form.evaluate("form => [...form.mask]")).view(32, 32)

    line = torch.zeros(32, 32, dtype=torch.long)
    line[8:12, 4:20] = 1  # a brush of 4, without its round ends
    form.query_selector("[name=brush]").fill("4")
    mask = drag(10, 4, 20)
    assert (mask[:, 4:20] == line[:, 4:20]).all()
    assert mask.sum() - line.sum() == 2 * 6  # a half disc at each end
    assert torch.equal(mask[:, :24], mask[:, :24].flip(1))
    said = form.query_selector("[name=covered]").inner_text()
    assert said == f"{mask.sum()} of 1024 pixels are hatched"
    assert hatched.get_attribute("d").count("M") == mask.sum()
    form.query_selector("[name=erase]").check()
    assert drag(10, 0, 32).sum() == 0
    form.query_selector("[name=erase]").uncheck()
    drag(10, 4, 20)
    form.query_selector("[name=clear]").click()
    assert hatched.get_attribute("d") == ""
    assert maker.draw("paint").startswith("The mask is empty")
    assert form.query_selector(".said").get_attribute("class") == "said is-wrong"


def test_easel_is_used_by_keyboard(maker):
    read, form = maker
    maker.draw(steps="1")
    part = form.query_selector(".parts button")
    part.focus()
    part.press("Enter")
    wish = form.query_selector("[name=wish]")
    wish.fill("a blue van at night")
    wish.press("Enter")
    read.page.wait_for_function(
        "() => document.querySelector('.said').innerText.startsWith('Painted over ')"
    )
    assert read.complaints == []


@pytest.mark.parametrize("theme", THEMES)
def test_easel_can_be_read_by_everyone(reader, theme):
    read, form = maker = maker_of(reader(theme))
    maker.draw(steps="1")
    form.query_selector(".parts button").click()
    for size in SIZES:
        read.resize(size)
        assert read.faults() == []
        assert findings(read.page, ".maker") == []


@pytest.mark.parametrize("word", ["vann", "grey", "zzz", "truk"])
def test_page_names_the_nearest_words_as_the_library_does(maker, word):
    words = maker.form.evaluate(
        "() => loadSettings('toy-cars-text-32').then(s => s.prompts.words)"
    )
    with pytest.raises(ValueError) as error:
        Tokenizer(tuple(words), 16)([f"a {word}"])
    advice = str(error.value).split(": ", 1)[1]
    said = maker.draw(prompt=f"a {word}")
    assert said == f"Unknown word “{word}”: {advice}"


@pytest.mark.parametrize(
    ("break_it", "said"),
    [
        ("() => { window.WebAssembly = undefined; }", "WebAssembly"),
        ("() => { window.fetch = () => Promise.reject(new TypeError()); }", "Is there"),
    ],
)
def test_page_says_plainly_why_it_cannot_draw(reader, break_it, said):
    maker = maker_of(reader("light"))
    maker.read.page.evaluate(break_it)
    assert said in maker.draw()
    assert maker.form.query_selector(".said.is-wrong")


def test_drawing_shows_its_progress_and_can_be_stopped(maker):
    read, form = maker
    maker.draw(steps="1")
    form.query_selector("[name=steps]").fill("100")
    form.query_selector("[name=draw]").click()
    read.page.wait_for_function(
        "() => { const p = document.querySelector('.maker progress');"
        "return p.checkVisibility() && p.max === 100 && p.value >= 2; }"
    )
    form.query_selector("[name=stop]").click()
    read.page.wait_for_function(
        "() => document.querySelector('.said').innerText.startsWith('Stopped at t = ')"
    )
    assert not form.query_selector("[name=stop]").is_visible()


@pytest.fixture(scope="module")
def photo_maker(lasting_reader):
    """The form that draws photographs, after one load of the page."""
    return maker_of(lasting_reader("light"), PHOTOS)


@pytest.mark.parametrize(
    ("sampler", "steps"), [("ancestral", 30), ("ddim", 20), ("ancestral", 2)]
)
def test_page_draws_the_librarys_photograph_from_the_same_noise(
    photo_maker, monkeypatch, sampler, steps
):
    read, form = photo_maker
    form.query_selector("[name=sampler]").select_option(sampler)
    said = photo_maker.draw(steps=str(steps), seed="7")
    assert re.fullmatch(rf"Drew a photograph in [\d.]+ s: {steps} steps\.", said)
    assert read.complaints == []
    model = load_model(PHOTOS)
    x_T, *rest = noises(form, 7, steps)
    left = iter([*rest, torch.zeros_like(x_T)])  # the step to 0 has no noise
    monkeypatch.setattr(torch, "randn", lambda *size, **options: next(left))
    assert_states_are(form, model, model.sample(x_T, steps, sampler))
    *_, (t, u) = pairwise(form.evaluate("form => form.states.map(({ t }) => t)"))
    assert (t, u) == (200, 0)


def test_slider_goes_back_through_the_photographs(photo_maker):
    form = photo_maker.form
    photo_maker.draw(steps="3", seed="7")
    slider = form.query_selector("[name=step]")
    clean = form.query_selector("canvas.clean")
    assert clean.evaluate("c => [c.width, c.height]") == [64, 64]
    pixels = "c => c.toDataURL()"
    seen = []
    for key in ("Home", "ArrowRight", "ArrowRight", "ArrowRight"):
        slider.press(key)
        at = form.query_selector("[name=at]").inner_text()
        seen.append((at, clean.evaluate(pixels)))
    assert [at for at, _ in seen] == ["t = 1000", "t = 600", "t = 200", "t = 0"]
    assert len({picture for _, picture in seen}) == 3  # the last step is a jump to x0
    assert clean.get_attribute("aria-label").endswith("at t = 0: a photograph")


def test_photographs_load_on_a_click_and_share_the_runtime(reader):
    read = reader("light")
    photos = maker_of(read, PHOTOS)
    toys = Maker(read, read.page.query_selector(f"[data-model={TOYS}] form.maker"))

    def loaded() -> list[str]:
        names = [Path(urlsplit(request.url).path).name for request in read.loaded]
        return sorted(name for name in names if name.endswith((".onnx", ".wasm")))

    assert loaded() == []
    toys.draw(steps="1")
    runtime, text, unet = loaded()
    assert runtime.endswith(".wasm") and (text, unet) == ("text.onnx", "unet.onnx")
    photos.draw(steps="2")
    assert len(loaded()) == 5 and "decoder.onnx" in loaded()
    toys.draw(steps="1")
    photos.draw(steps="2")
    assert len(loaded()) == 5 and read.complaints == []


@pytest.mark.parametrize("theme", THEMES)
def test_photographs_can_be_read_by_everyone(reader, theme):
    read = reader(theme)
    maker_of(read, PHOTOS).draw(steps="2")
    for size in SIZES:
        read.resize(size)
        assert read.faults() == []
        assert findings(read.page, f"[data-model={PHOTOS}]") == []


def test_page_opened_from_its_file_says_what_to_do(browser):
    page = browser.new_page()
    page.goto((HTML / "book" / "browser.html").as_uri())
    assert "make serve" in page.wait_for_selector(".car-maker p").inner_text()
