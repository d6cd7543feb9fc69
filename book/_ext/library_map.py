"""The map of `ddpm_core`: its rooms, what each module holds and may import.

This one table is the page 'How the book is made' and the test of the rule: the
directive `library-map` prints it, and tests/test_project.py compares it with the
imports.
"""

from typing import NamedTuple

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.util.docutils import SphinxDirective


class Module(NamedTuple):
    """A module or a room: what it holds, and what it may import of the library."""

    name: str
    holds: str
    imports: str = ""


OPEN = {"types", "checking", "options", "values"}
"""What every module may import."""

CORE = {
    "The process": [
        Module("schedules", "how much signal is left at each timestep: one tensor"),
        Module(
            "diffusion",
            "noising, the targets, the loss, a denoiser from a network",
            "schedules",
        ),
        Module(
            "samplers",
            "from noise to data: steps, spacings, one table of names",
            "schedules",
        ),
    ],
    "Networks": [
        Module("compiling", "compiling for a GPU; group normalisation that compiles"),
        Module("attention", "positions attend to each other and to words", "compiling"),
        Module("unet", "the U-Net and its configuration", "attention compiling"),
        Module("dit", "a diffusion transformer, used like it", "attention unet"),
    ],
    "What steers them": [
        Module("conditioning", "guidance, clipping, classes, dropping a condition"),
        Module("tokens", "captions as numbers"),
        Module(
            "clip",
            "images and captions in one space; encodes prompts",
            "neighbours tokens weights",
        ),
        Module("published_clip", "a published CLIP's text tower in its place"),
        Module("latent", "a small space to diffuse in, and back", "neighbours weights"),
    ],
    "Further views": [
        Module("score", "the score, Langevin's step, the equations", "schedules"),
        Module("mixtures", "data whose best denoiser is a formula", "schedules"),
        Module(
            "editing",
            "inpainting and inversion, around a sampler's step",
            "schedules diffusion samplers",
        ),
        Module(
            "distillation",
            "pairs of image and noise that a teacher makes",
            "schedules diffusion samplers",
        ),
    ],
    "The judge and the loop": [
        Module("metrics", "distances, precision, recall, coverage, texture"),
        Module("training", "the loop, averaged weights, checkpoints"),
    ],
    "A trained model": [
        Module(
            "config",
            "what a model is: images, process, network; saved as JSON",
            "schedules diffusion unet dit",
        ),
        Module("weights", "trained weights on disk, with their card", "datasets"),
        Module(
            "models",
            "trained models, and how to sample from them",
            "config weights schedules diffusion samplers conditioning compiling clip "
            "published_clip latent",
        ),
    ],
    "In every module": [
        Module("types", "names for the shapes of tensors"),
        Module("checking", "checks of what public functions take", "values"),
        Module("values", "checks of plain values, without torch"),
        Module("options", "fields of configurations: help, range, JSON", "values"),
    ],
}
"""The core, one idea a module. It never imports the workshop."""

ROOMS = [
    Module("datasets", "toy cars; packed images; how results are written"),
    Module("datasets.photos", "photos from folders, zips, parquet files and the hub"),
    Module(
        "neighbours",
        "networks beside the diffusion models: VAE, GAN, a classifier of toy cars",
        "datasets weights",
    ),
    Module(
        "display",
        "for the chapters: grids, strips, curves; figures with sliders",
        "datasets diffusion schedules",
    ),
]
"""What lies one door further, and what it may import of the core and other rooms."""

WORKSHOP = [
    Module(
        "workshop",
        "all that has a folder, a command line, a card or a table: presets, runs, "
        "evaluation, cards, tables, side trainings, exercises, commands",
        "the core, the rooms",
    ),
    Module("cli", "the entry points: `ddpm`, `python -m ddpm_core`", "`workshop.cli`"),
]
"""What makes runs and commands of it."""


def allowed() -> dict[str, set[str]]:
    """What each module of the core, and each room, may import of the library."""
    core = [module for part in CORE.values() for module in part]
    modules = core + [room for room in ROOMS if "." not in room.name]
    return {m.name: (set(m.imports.split()) | OPEN) - {m.name} for m in modules}


def rows() -> list[str]:
    """The table as Markdown."""
    lines = ["| module | what it holds | what it may import |", "| --- | --- | --- |"]
    for part, modules in CORE.items():
        lines.append(f"| **{part}** | | |")
        for m in modules:
            names = ", ".join(f"`{name}`" for name in m.imports.split())
            lines.append(f"| `{m.name}` | {m.holds} | {names} |")
    lines.append("| **One door further** | | |")
    for m in ROOMS:
        names = ", ".join(f"`{name}`" for name in m.imports.split())
        lines.append(f"| `{m.name}/` | {m.holds} | {names} |")
    return lines + [f"| `{m.name}` | {m.holds} | {m.imports} |" for m in WORKSHOP]


class LibraryMap(SphinxDirective):
    """`{library-map}`: the table of modules."""

    def run(self) -> list[nodes.Node]:
        section = nodes.section()
        section.document = self.state.document
        self.state.nested_parse(StringList(rows(), "library map"), 0, section)
        return section.children


def setup(app) -> dict:
    """Register the directive with Sphinx."""
    app.add_directive("library-map", LibraryMap)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
