"""Sphinx extension: models as files for the page that draws cars by itself.

They are made from the weights in the repository, and made anew only when these or the
code have changed; they lie beside what npm fetches, and are not committed.
"""

import hashlib
import json
from pathlib import Path

from offline import VENDOR

MODELS = ("toy-cars-text-32", "cars-64")
ROOT = Path(__file__).parents[2]


def ingredients(name: str) -> dict[str, str]:
    """What a model's files are made from: weights, how they are drawn, and the code.

    The weights are the model's own, and those of its text encoder or its decoder, by
    their hashes.
    """

    def card(name: str) -> dict:
        folder = ROOT / "data" / "weights" / name
        return json.loads((folder / "card.json").read_text(encoding="utf-8"))

    code = Path(__file__).with_name("browser_export.py").read_bytes()
    own = card(name)
    parts = [own["config"][part] for part in ("text", "latent")]
    weights = {part: card(part)["sha256"] for part in (name, *filter(None, parts))}
    drawn = "{steps} steps of {sampler}".format_map(own["measured"])
    return {**weights, "drawn": drawn, "code": hashlib.sha256(code).hexdigest()}


def make_files(app, config) -> None:
    """Export each model whose files are missing or old, then let the pages use them."""
    for name in MODELS:
        folder = VENDOR / "models" / name
        stamp, wanted = folder / "made_from.json", json.dumps(ingredients(name))
        if not stamp.is_file() or stamp.read_text(encoding="utf-8") != wanted:
            from browser_export import export_for_browser  # torch takes seconds to load

            export_for_browser(name, folder)
            # Last: it says that all is there.
            stamp.write_text(wanted, encoding="utf-8")
    if str(VENDOR) not in config.html_static_path:
        config.html_static_path.append(str(VENDOR))


def setup(app) -> dict:
    """Register the extension with Sphinx."""
    app.connect("config-inited", make_files)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
