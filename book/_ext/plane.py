"""Sphinx extension: the page, and the parts of chapters, where a model trains live.

The modules in `_static/plane` become one classic script, which is its own worker and
also loads where a page was opened as a file. Only pages that hold an element of the
class `plane` name its loader and its style; the loader fetches the script on demand.
"""

import hashlib
import re
from pathlib import Path

from docutils import nodes
from offline import VENDOR
from sphinx.errors import ExtensionError

MODULES = Path(__file__).parents[1] / "_static" / "plane"
IMPORT = re.compile(r'^import \{[^}]*\} from "\./(\w+)\.js";\n', re.MULTILINE)
NAMED = re.compile(
    r"^(?:export )?(?:async )?(?:const|let|class|function\*?) (\w+)", re.MULTILINE
)
EXPORTED = re.compile(r"^export (?:const|class|function\*?) (\w+)", re.MULTILINE)
SCRIPT = """\
// Made of the modules in plane/ by book/_ext/plane.py; it is its own worker.
(function plane() {{
"use strict";
{code}
if (!self.document) serve(self);
else self.plane = {{ {names},
  open: (place) => openPlane(place, `(${{plane}})()`) }};
}})();
"""


def in_order(name: str, seen: dict[str, str]) -> dict[str, str]:
    """Return the modules that one needs, each after those that it imports."""
    if name not in seen:
        code = (MODULES / f"{name}.js").read_text(encoding="utf-8")
        for other in IMPORT.findall(code):
            in_order(other, seen)
        seen[name] = code
    return seen


def bundle() -> str:
    """Return all modules as one classic script.

    Raises ExtensionError where two modules give a name to different things.
    """
    modules = in_order("view", in_order("worker", {}))
    owners: dict[str, str] = {}
    for module, code in modules.items():
        for name in NAMED.findall(code):
            if name in owners:
                raise ExtensionError(
                    f"plane/{module}.js and plane/{owners[name]}.js both define "
                    f"{name}: rename one, since they share one script"
                )
            owners[name] = module
    code = "\n".join(IMPORT.sub("", text) for text in modules.values())
    names = ", ".join(EXPORTED.findall(code))
    return SCRIPT.format(code=re.sub(r"^export ", "", code, flags=re.M), names=names)


def make_script(app, config) -> None:
    """Write the script where pages find it, unless it is there already."""
    script, file = bundle(), VENDOR / "plane.js"
    VENDOR.mkdir(exist_ok=True)
    if not file.is_file() or file.read_text(encoding="utf-8") != script:
        file.write_text(script, encoding="utf-8")
    if str(VENDOR) not in config.html_static_path:
        config.html_static_path.append(str(VENDOR))


def has_plane(doctree: nodes.document | None) -> bool:
    """Whether a page holds an element of the class `plane`."""
    raw = doctree.findall(nodes.raw) if doctree else ()
    return any('class="plane"' in node.astext() for node in raw)


def add_loader(app, pagename, templatename, context, doctree) -> None:
    """Let a page with the plane load its style and its loader, and no other page."""
    if not has_plane(doctree):
        return
    version = hashlib.sha256((VENDOR / "plane.js").read_bytes()).hexdigest()[:8]
    app.add_css_file("plane/plane.css")
    app.add_js_file(
        "plane/loader.js",
        loading_method="defer",
        **{"data-script": f"plane.js?v={version}"},
    )


def setup(app) -> dict:
    """Register the extension with Sphinx."""
    app.connect("config-inited", make_script)
    app.connect("html-page-context", add_loader)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
