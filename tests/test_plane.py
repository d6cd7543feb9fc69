"""The plane: what its scripts compute against PyTorch and the library, and its page."""

import re
from collections.abc import Iterator
from pathlib import Path

import nbformat
import plane
import pytest
import torch
import torch.nn.functional as F
from accessibility import findings
from reader import HTML, ROOT, SIZES, THEMES, Reader
from torch import nn

from ddpm_core import diffusion, mixtures, samplers, schedules, unet

T = 100
SCHEDULES = {
    "linear": schedules.linear_schedule(T, 1e-3, 0.2),
    "cosine": schedules.cosine_schedule(T),
    "sigmoid": schedules.sigmoid_schedule(T),
    "flow": schedules.flow_schedule(T),
}
BUDGET = 150_000  # bytes


@pytest.fixture(scope="module")
def script(browser) -> Iterator:
    """A page with the script alone: a function that evaluates JavaScript there."""
    page = browser.new_page()
    page.set_default_timeout(300_000)
    page.add_script_tag(content=plane.bundle())
    yield page.evaluate
    page.close()


def tensor(numbers) -> torch.Tensor:
    """Return a row of numbers from the page as points, (n, 2)."""
    return torch.tensor(numbers, dtype=torch.float64).view(-1, 2)


# The process ------------------------------------------------------------------------


@pytest.mark.parametrize("name", SCHEDULES)
def test_schedules_are_the_librarys(script, name):
    computed = script("name => plane.SCHEDULES[name](100)", name)
    computed = torch.tensor(computed, dtype=torch.float64)
    wanted = SCHEDULES[name].alpha_bar
    torch.testing.assert_close(computed, wanted, rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("t", [1, 40, 100])
def test_exact_answer_and_density_are_the_librarys(script, t):
    data, x, x0_hat, density = script(
        """t => {
          const data = plane.SHAPES.moons(50, 0), x = plane.gaussians(1)(60);
          const density = new Float64Array(30);
          const denoise = plane.idealDenoiser(data, plane.SCHEDULES.linear(100));
          return [data, x, denoise(x, t, density), density].map(row => [...row]);
        }""",
        t,
    )
    data, x = tensor(data), tensor(x)
    schedule, times = SCHEDULES["linear"], torch.full((30,), t)
    wanted = mixtures.ideal_denoiser(data, schedule)(x, times)
    torch.testing.assert_close(tensor(x0_hat), wanted, rtol=0, atol=1e-9)
    a, s = schedule.scales(times[:1], like=x)
    wanted = mixtures.blobs(data, 0.0).log_density(x, a[0], s[0]).exp()
    density = torch.tensor(density, dtype=torch.float64)
    torch.testing.assert_close(density, wanted, rtol=1e-7, atol=1e-9)


CALLS = [1, 2, 5, 20, 99, 100]


@pytest.mark.parametrize("schedule", ["linear", "flow"])
@pytest.mark.parametrize("name", samplers.SAMPLERS)
@pytest.mark.parametrize("calls", CALLS)
def test_samplers_are_the_librarys(script, monkeypatch, schedule, name, calls):
    data, noise, states = script(
        """([name, schedule, calls]) => {
          const alphaBar = plane.SCHEDULES[schedule](100);
          const data = plane.SHAPES.car(40, 0);
          const gaussian = plane.gaussians(3), noise = [];
          const draw = n => {
            noise.push([...gaussian(n)]);
            return Float64Array.from(noise.at(-1));
          };
          const denoise = plane.idealDenoiser(data, alphaBar);
          const run = plane.sample(name, alphaBar, denoise, draw(20), calls, draw);
          const states = [...run].map(({ t, x, x0Hat }) => [t, [...x], [...x0Hat]]);
          return [[...data], noise, states];
        }""",
        [name, schedule, calls],
    )
    x_T, *rest = map(tensor, noise)
    left = iter(rest)
    monkeypatch.setattr(torch, "randn", lambda *size, **options: next(left))
    denoise = mixtures.ideal_denoiser(tensor(data), SCHEDULES[schedule])
    run = samplers.sample_by_name(name, SCHEDULES[schedule], denoise, x_T, calls)
    for (t, x, x0_hat), state in zip(states, run, strict=True):
        assert t == state.t
        torch.testing.assert_close(tensor(x), state.x, rtol=0, atol=1e-5)
        torch.testing.assert_close(tensor(x0_hat), state.x0_hat, rtol=0, atol=1e-5)
    assert next(left, None) is None


# The network ------------------------------------------------------------------------


def plane_net(width: int) -> nn.Module:
    """The network of chapter 07, from its cell, in float64."""
    notebook = nbformat.read(ROOT / "chapters" / "07_training.ipynb", 4)
    (cell,) = [c.source for c in notebook.cells if "class PlaneNet" in c.source]
    names = {"torch": torch, "nn": nn, "F": F, "unet": unet}
    exec(cell, names)
    return names["PlaneNet"](width).double()


def parameters(net: nn.Module) -> list[nn.Parameter]:
    """Its parameters in the order in which the page keeps them."""
    layers = [net.enter, net.time[1], *net.hidden, net.leave]
    return [p for layer in layers for p in (layer.weight, layer.bias)]


def flat(tensors) -> torch.Tensor:
    return torch.cat([t.flatten() for t in tensors])


STEP = """({ width, target, schedule, weights, x0, t, eps, steps }) => {
  const net = new plane.PlaneNet({ width, T: 100 });
  net.weights.set(weights);
  const adam = new plane.Adam(net.weights), losses = [], gradients = [];
  const alphaBar = plane.SCHEDULES[schedule](100);
  for (let step = 0; step < steps; step++) {
    const [loss, g] = plane.lossAndGradients(net, alphaBar, target,
      Float64Array.from(x0), Int32Array.from(t), Float64Array.from(eps));
    losses.push(loss);
    gradients.push([...g]);
    adam.step(g, 0.01);
  }
  return { losses, gradients, weights: [...net.weights] };
}"""


@pytest.mark.parametrize(
    ("target", "schedule", "n"),
    [
        ("eps", "linear", 37),
        ("x0", "cosine", 1),
        ("v", "flow", 64),
        ("flow", "flow", 6),
    ],
)
def test_gradients_and_adam_are_pytorchs(script, generator, target, schedule, n):
    torch.manual_seed(0)
    net = plane_net(width=24)
    nn.init.normal_(net.leave.weight, std=0.2)  # zero would hide the layers before it
    x0, eps = torch.randn(2, n, 2, generator=generator, dtype=torch.float64)
    t = torch.randint(1, T + 1, (n,), generator=generator)
    batch = {
        "x0": x0.flatten().tolist(),
        "eps": eps.flatten().tolist(),
        "t": t.tolist(),
    }
    own = {"width": 24, "target": target, "schedule": schedule, "steps": 3, **batch}
    got = script(STEP, {**own, "weights": flat(parameters(net)).tolist()})

    adam = torch.optim.Adam(net.parameters(), lr=0.01)
    for loss, gradients in zip(got["losses"], got["gradients"], strict=True):
        each = diffusion.diffusion_loss(
            net, SCHEDULES[schedule], diffusion.TARGETS[target], x0, t=t, eps=eps
        )
        adam.zero_grad()
        each.mean().backward()
        wanted = flat(p.grad for p in parameters(net))
        gradients = torch.tensor(gradients, dtype=torch.float64)
        assert loss == pytest.approx(each.mean().item(), abs=1e-5)
        assert wanted.abs().max() > 0.1
        torch.testing.assert_close(gradients, wanted, rtol=0, atol=1e-5)
        print(f"largest difference {(gradients - wanted).abs().max():.1e}")
        adam.step()
    weights = torch.tensor(got["weights"], dtype=torch.float64)
    torch.testing.assert_close(weights, flat(parameters(net)), rtol=0, atol=1e-4)


def test_network_without_the_timestep_does_not_depend_on_it(script):
    timed, untimed = script(
        """() => [true, false].map(timed => {
          const net = new plane.PlaneNet({ timed, width: 16 });
          net.weights.fill(0.1);
          const answer = t => [...net.forward(plane.gaussians(1)(2), Int32Array.of(t))];
          return [answer(1), answer(90)];
        })"""
    )
    assert timed[0] != timed[1] and untimed[0] == untimed[1]


RUN = """([target, schedule, steps]) => {
  const data = plane.SHAPES.moons(500, 0);
  const run = new plane.Run({ data, schedule, target, width: 64, timed: true });
  while (run.step < steps) run.train();
  const { x, t, answer } = run.evaluated;
  return { data: [...data], x: [...x], t: [...t], answer: [...answer], floor: run.floor,
    averaged: run.evaluate(true), raw: run.evaluate(false) };
}"""


@pytest.mark.parametrize(
    ("target", "schedule", "steps"),
    [("eps", "linear", 300), ("x0", "linear", 100), ("v", "cosine", 150),
     ("flow", "flow", 200)],
)  # fmt: skip
def test_training_reaches_the_exact_floor(script, target, schedule, steps):
    """Within 15 % of the loss of the library's exact answer on the same points."""
    run = script(RUN, [target, schedule, steps])
    x, t = tensor(run["x"]), torch.tensor(run["t"])
    process = SCHEDULES[schedule]
    x0_hat = mixtures.ideal_denoiser(tensor(run["data"]), process)(x, t)
    a, s = process.scales(t, like=x)
    best = diffusion.TARGETS[target].from_clean(x0_hat, (x - a * x0_hat) / s, a, s)
    floor = (best - tensor(run["answer"])).square().mean().item()
    assert run["floor"] == pytest.approx(floor, rel=1e-6)
    print(f"{target}: {run['averaged'] / floor:.3f} of the floor after {steps} steps")
    assert 0.98 < run["averaged"] / floor < 1.15


def test_noise_cannot_be_learned_where_no_signal_is_left(script):
    with pytest.raises(Exception, match="ends in pure noise"):
        script(RUN, ["eps", "flow", 1])


@pytest.mark.parametrize("shape", ["moons", "spiral", "car", "points"])
def test_shapes_fit_the_window(script, shape):
    points = tensor(script("shape => [...plane.SHAPES[shape](1000, 0)]", shape))
    assert points.shape == (1000, 2) and 1 < points.abs().max() < 2.3
    assert points.mean(0).abs().max() < 0.3


def test_copies_are_counted(script):
    count = (
        "points => plane.copies(Float64Array.from(points), Float64Array.of(0, 0, 4, 0))"
    )
    assert script(count, [1, 0, 1.1, 0, 3.5, 0, 2, 9]) == 0.5


# The page ---------------------------------------------------------------------------


def test_scripts_and_style_are_small():
    parts = ("plane.js", "plane/loader.js", "plane/plane.css")
    if not (HTML / "_static" / "plane.js").is_file():
        pytest.skip("the book is not built: make book")
    sizes = {part: (HTML / "_static" / part).stat().st_size for part in parts}
    print(f"{sum(sizes.values()) / 1e3:.0f} kB: {sizes}")
    assert sum(sizes.values()) < BUDGET


def test_page_shows_the_lines_that_it_runs():
    page = (ROOT / "book" / "plane.md").read_text(encoding="utf-8")
    shown = re.findall(r"```javascript\n(.*?)```", page, re.S)
    lines = [line for block in shown for line in block.splitlines()]
    assert lines and [line for line in lines if line not in plane.bundle()] == []


def test_two_modules_may_not_share_a_name(tmp_path, monkeypatch):
    (tmp_path / "view.js").write_text('import { a } from "./other.js";\nconst a = 1;\n')
    (tmp_path / "worker.js").write_text("")
    (tmp_path / "other.js").write_text("export const a = 2;\n")
    monkeypatch.setattr(plane, "MODULES", tmp_path)
    with pytest.raises(plane.ExtensionError, match="both define a"):
        plane.bundle()


def open_plane(read: Reader):
    """Open the page; return it when the first films have come from the worker."""
    page = read.open("book/plane")
    page.wait_for_selector(".plane-form")
    wait_for_films(page)
    return page


def wait_for_films(page) -> None:
    """Wait until the films that were asked for last have come."""
    page.wait_for_function(
        """() => {
          const { films, asked } = document.querySelector(".plane").plane;
          const come = kind => films[kind]?.number === asked[kind].number;
          return come("exact") && come("learned");
        }"""
    )


STILL = {"reduced_motion": "reduce"}  # no film plays by itself


@pytest.fixture(scope="module")
def used_plane(lasting_reader):
    """One load of the page, for the tests that may share it."""
    read = lasting_reader("light", **STILL)
    open_plane(read)
    return read


NEAR = """() => {
  const { films, data } = document.querySelector(".plane").plane;
  const last = films.learned.film.samples.at(-1);
  const near = i => data.some((x, k) => k % 2 === 0 &&
    Math.hypot(last[i] - x, last[i + 1] - data[k + 1]) < 0.25);
  const firsts = [...last.keys()].filter(i => i % 2 === 0);
  return firsts.filter(near).length / firsts.length;
}"""


def share_near_data(page) -> float:
    """The share of the network's samples that lie within 0.25 of a point of data."""
    return page.evaluate(NEAR)


def test_pressing_train_brings_the_network_near_the_floor(reader):
    read = reader("light", **STILL)
    page = open_plane(read)
    assert share_near_data(page) < 0.1
    page.focus("[name=train]")
    page.keyboard.press("Enter")
    said = page.wait_for_selector(".plane-said:not(:empty)").inner_text()
    steps = int(re.fullmatch(r"Within 15 % of the floor after (\d+) steps\.", said)[1])
    print(said, page.inner_text("[name=count]"))
    assert steps <= 400
    page.wait_for_function(  # the same training on any machine, before it is judged
        "/\\d+/.exec(document.querySelector('[name=count]').innerText)[0] >= 400"
    )
    page.keyboard.press("Enter")
    assert page.inner_text("[name=train]") == "Train on"
    page.focus("[name=averaged]")
    page.keyboard.press("Space")
    wait_for_films(page)
    assert share_near_data(page) > 0.75
    assert read.complaints == []


def test_page_works_from_its_file(browser):
    page = browser.new_page(**STILL)
    page.set_default_timeout(300_000)  # for what hangs, not for what is slow
    errors = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto((HTML / "book" / "plane.html").as_uri())
    page.wait_for_selector(".plane-form")
    page.click("[name=train]")
    page.wait_for_function("() => document.querySelector('.plane').plane.step > 0")
    page.close()
    assert [e for e in errors if "THEBE" not in e] == []


def test_film_is_moved_by_keyboard(used_plane):
    page = used_plane.page
    page.focus("[name=moment]")
    seen = []
    for key in ("Home", "ArrowRight", "End"):
        page.keyboard.press(key)
        value = page.get_attribute("[name=moment]", "aria-valuetext")
        page.wait_for_function(
            """() => {
              const form = document.querySelector(".plane-form").elements;
              const { films } = document.querySelector(".plane").plane;
              const { times } = films.exact.film;
              const at = Math.round(form.moment.value / 100 * (times.length - 1));
              return Math.abs(parseInt(form.at.value.slice(4)) - times[at]) <= 5;
            }"""
        )
        seen.append(page.inner_text("[name=at]"))
    assert seen[0] == "t = 100" and seen[2] == "t = 0" and value.startswith("t = ")
    page.focus("[name=play]")
    page.keyboard.press("Enter")
    assert page.get_attribute("[name=play]", "aria-label") == "Pause the film"
    page.keyboard.press("Enter")


def state(page, expression: str):
    return page.evaluate(
        "() => { const p = document.querySelector('.plane').plane;"
        f"return {expression}; }}"
    )


def test_controls_change_what_they_name(used_plane):
    page = used_plane.page
    page.select_option("[name=sampler]", "heun")
    page.focus("[name=steps]")
    page.keyboard.press("Home")
    wait_for_films(page)
    assert state(page, "p.films.exact.film.times") == [100, 0]
    page.fill("[name=steps]", "8")
    assert page.inner_text("[name=stepsIs]") == "20"
    page.check("input[value=points]", force=True)
    wait_for_films(page)
    assert state(page, "p.data.length") == 6
    assert "100 %" in page.inner_text(".plane-exact + .plane-copies")
    page.select_option("[name=schedule]", "flow")
    said = page.wait_for_selector(".plane-said.is-wrong").inner_text()
    assert said.startswith("This schedule ends in pure noise")
    page.select_option("[name=target]", "v")
    page.wait_for_selector(".plane-said:empty", state="attached")
    wait_for_films(page)
    assert used_plane.complaints == []


def drag(page, selector: str, places) -> None:
    box = page.query_selector(selector).bounding_box()
    at = [
        (box["x"] + u * box["width"], box["y"] + v * box["height"]) for u, v in places
    ]
    page.mouse.move(*at[0])
    page.mouse.down()
    for place in at[1:]:
        page.mouse.move(*place)
    page.mouse.up()


def test_data_is_drawn_by_mouse(reader):
    read = reader("dark", **STILL)
    page = open_plane(read)
    page.check("input[value=drawn]", force=True)
    assert page.is_disabled("[name=use]")
    page.query_selector(".plane-pad canvas").scroll_into_view_if_needed()
    drag(page, ".plane-pad canvas", [(0.3, 0.5), (0.7, 0.5)])
    page.click("[name=use]")
    wait_for_films(page)
    data = tensor(list(state(page, "[...p.data]")))
    assert len(data) == 500 and -1.2 < data[:, 0].min() < -0.9 < 0.9 < data[:, 0].max()
    assert data[:, 1].abs().max() < 0.25
    assert page.is_visible(".plane-learned") and read.complaints == []


def test_data_is_drawn_by_keyboard_and_cleared(used_plane):
    page = used_plane.page
    page.check("input[value=drawn]", force=True)
    page.focus(".plane-pad canvas")
    for key in ("ArrowUp", "Space", *["ArrowRight"] * 5, "Space", "ArrowDown"):
        page.keyboard.press(key)
    (line,) = state(page, "p.pad.lines")
    assert line[0] == pytest.approx([0, 0.1]) and line[-1] == pytest.approx([0.5, 0.1])
    for button in ("clear", "again"):
        page.click(f"[name={button}]")
        assert state(page, "p.pad.lines") == []
    page.click("[name=train]")
    assert "Draw something" in page.inner_text(".plane-said")
    page.check("input[value=moons]", force=True)


def test_finger_draws_on_the_pad_and_scrolls_elsewhere(reader):
    read = reader("light", has_touch=True, **STILL)
    page = open_plane(read)
    read.resize("phone")
    page.check("input[value=drawn]", force=True)
    pad = page.query_selector(".plane-pad canvas")
    pad.scroll_into_view_if_needed()
    box = pad.bounding_box()
    assert box["width"] > 300
    page.touchscreen.tap(box["x"] + box["width"] / 2, box["y"] + box["height"] / 4)
    (line,) = state(page, "p.pad.lines")
    assert line[0] == pytest.approx([0, 1.25], abs=0.05)
    own = "e => getComputedStyle(e).touchAction"
    assert page.eval_on_selector(".plane-pad canvas", own) == "none"
    for other in (".plane-form", ".plane-learned", ".plane-exact", ".plane-chart"):
        assert page.eval_on_selector(other, own) == "auto"


def test_training_pauses_out_of_sight(reader):
    read = reader("light", **STILL)
    page = open_plane(read)
    page.click("[name=train]")
    page.wait_for_function("() => document.querySelector('.plane').plane.step > 0")
    page.evaluate("scrollTo(0, document.body.scrollHeight)")
    page.wait_for_function("() => !document.querySelector('.plane').plane.training")
    counts = []
    for _ in range(2):  # a film that comes back was asked for after the pause
        state(page, "p.requestFilm('learned')")
        wait_for_films(page)
        counts.append(state(page, "p.step"))
    assert counts[0] == counts[1]
    page.evaluate("scrollTo(0, 0)")
    page.query_selector("[name=train]").scroll_into_view_if_needed()
    page.wait_for_function(
        "step => document.querySelector('.plane').plane.step > step", arg=counts[1]
    )


def test_button_of_the_text_sets_up_its_experiment(reader):
    page = open_plane(reader("light", **STILL))
    page.click("text=Five points")
    page.wait_for_function("() => document.querySelector('.plane').plane.step > 0")
    assert state(page, "p.data.length") == 10


def without_open(route) -> None:
    """Serve the page with a plane that waits for a click, and shows one control."""
    page = (HTML / "book" / "plane.html").read_text(encoding="utf-8")
    body = page.replace(
        'data-open="sight"', 'data-controls="schedule" data-points="50"'
    )
    assert body != page
    route.fulfill(body=body, content_type="text/html")


def test_part_of_a_chapter_waits_for_a_click(reader):
    read = reader("light", **STILL)
    read.context.route("**/book/plane.html", without_open)
    page = read.open("book/plane")
    assert not any("_static/plane.js" in request.url for request in read.loaded)
    page.click(".plane-poster button")
    page.wait_for_selector(".plane-form")
    assert page.is_visible("[name=schedule]") and not page.is_visible("[name=width]")
    page.click(".plane-more summary")
    assert page.is_visible("[name=width]") and state(page, "p.data.length") == 100


@pytest.mark.parametrize("theme", THEMES)
def test_plane_can_be_read_by_everyone(reader, theme):
    read = reader(theme, **STILL)
    page = open_plane(read)
    for shape in ("moons", "drawn"):
        page.check(f"input[value={shape}]", force=True)
        for size in SIZES:
            read.resize(size)
            assert read.faults() == []
            assert findings(page, ".plane") == []


def test_other_pages_do_without_its_scripts():
    holds = 'class="plane"'
    pages = [*HTML.glob("book/*.html"), *HTML.glob("chapters/*.html")]
    if not pages:
        pytest.skip("the book is not built: make book")
    for page in map(Path.read_text, pages):
        assert ("plane/loader.js" in page) == (holds in page) == ("plane.css" in page)
