"""Sphinx extension: the reference of the library, made from its docstrings.

The directive `api-reference` reads the source without importing it, so that a build
needs no PyTorch. Modules come in the order of the table in contributing.md. Names in
backticks lead to what they name, and the sentence with the chapters stands by itself,
so that `auto_links` can lead there.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from docutils import nodes
from repository import source_url
from sphinx import addnodes
from sphinx.util.docutils import SphinxDirective

from library_map import CORE, ROOMS, WORKSHOP

PACKAGE = "ddpm_core"
CHAPTERS = re.compile(r"\s*\bChapters?\s+(\d\d(?:(?:,|\s+and|\s+to)\s+\d\d)*)\.$")


class Member(NamedTuple):
    """A function, a class, or a name with a docstring under it."""

    name: str  # as it is imported: ddpm_core.schedules.Schedule.scales
    kind: str
    signature: str
    docstring: str
    line: int
    members: list["Member"]


# From source to members -------------------------------------------------------------


def signature(node: ast.FunctionDef) -> str:
    """Return a function's parameters and result as they are written, without self."""
    result = f" -> {ast.unparse(node.returns)}" if node.returns else ""
    parameters = re.sub(r"^(self|cls)(, |$)", "", ast.unparse(node.args))
    return f"({parameters}){result}"


def public_members(body: list[ast.stmt], prefix: str) -> Iterator[Member]:
    """Yield what a module or a class offers: no underscore, and a docstring."""
    for node, following in zip(body, [*body[1:], None], strict=True):
        name, kind, said, doc, inner = "", "", "", "", []
        if isinstance(node, ast.FunctionDef):
            decorators = {ast.unparse(d).split(".")[-1] for d in node.decorator_list}
            plain = decorators.isdisjoint({"property", "cached_property"})
            name, kind, doc = node.name, "function", ast.get_docstring(node)
            said = signature(node) if plain else ""
        elif isinstance(node, ast.ClassDef):
            name, kind, doc = node.name, "class", ast.get_docstring(node)
            inner = list(public_members(node.body, f"{prefix}.{name}"))
        elif isinstance(node, ast.Assign) and isinstance(following, ast.Expr):
            name, kind = ast.unparse(node.targets[0]), "data"
            doc = getattr(following.value, "value", None)
        if doc and isinstance(doc, str) and re.fullmatch(r"[A-Za-z]\w*", name):
            yield Member(f"{prefix}.{name}", kind, said, doc, node.lineno, inner)


def files_of(root: Path, module: str) -> list[Path]:
    """Return the files of a module, those of a package with its own first."""
    alone = root / PACKAGE / f"{module}.py"
    if alone.is_file():
        return [alone]
    folder = root / PACKAGE / module
    own = folder / "__init__.py"
    return [own, *(path for path in sorted(folder.rglob("*.py")) if path != own)]


def all_modules() -> list[str]:
    """The modules and rooms of the map, in its order."""
    core = [module.name for part in CORE.values() for module in part]
    return core + [m.name for m in (*ROOMS, *WORKSHOP) if "." not in m.name]


def dotted(root: Path, path: Path) -> str:
    """Return the name by which a file is imported."""
    parts = path.relative_to(root).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


# From members to the page -----------------------------------------------------------


class APIReference(SphinxDirective):
    """All that the library offers, module by module."""

    def run(self) -> list[nodes.Node]:
        """Return a section for each module of the table."""
        self.root = Path(self.env.srcdir)
        trees = {}
        for path in (p for m in all_modules() for p in files_of(self.root, m)):
            self.env.note_dependency(str(path))
            trees[path] = ast.parse(path.read_text(encoding="utf-8"))
        found = {
            path: list(public_members(tree.body, dotted(self.root, path)))
            for path, tree in trees.items()
        }
        self.known = [m.name for path in found for m in flattened(found[path])]
        self.env.note_dependency(str(Path(__file__).with_name("library_map.py")))
        return [
            self.section(path, ast.get_docstring(trees[path]) or "", members)
            for path, members in found.items()
        ]

    def section(self, path: Path, docstring: str, members: list[Member]) -> nodes.Node:
        """Return what a file has to say of itself, and its members."""
        name = dotted(self.root, path)
        title = nodes.title("", name.removeprefix(f"{PACKAGE}."))
        section = nodes.section("", title, ids=[name], names=[name])
        section += self.prose(docstring, name)
        section += [self.entry(member, path) for member in members]
        return section

    def entry(self, member: Member, path: Path) -> addnodes.desc:
        """Return one member: its name and signature, its docstring, its own members."""
        short = member.name.rpartition(".")[2]
        head = addnodes.desc_signature("", "", ids=[member.name])
        if member.kind == "class":
            head += addnodes.desc_annotation("", "class ")
        head += addnodes.desc_name("", short)
        head += nodes.inline("", member.signature, classes=["parameters"])
        where = source_url(
            self.env.app, path.relative_to(self.root).as_posix(), member.line
        )
        if where:
            head += nodes.reference("", "source", refuri=where, classes=["source"])
        content = addnodes.desc_content("", *self.prose(member.docstring, member.name))
        content += [self.entry(inner, path) for inner in member.members]
        listed = addnodes.index(
            entries=[("single", f"{short} ({PACKAGE})", member.name, "", None)]
        )
        kinds = {"domain": "py", "objtype": member.kind, "classes": ["py", member.kind]}
        return nodes.container("", listed, addnodes.desc("", head, content, **kinds))

    # Docstrings

    def prose(self, docstring: str, scope: str) -> list[nodes.Node]:
        """Return a docstring as paragraphs and lists; the chapters come last."""
        chapters = CHAPTERS.search(docstring)
        if chapters:
            docstring = docstring[: chapters.start()]
        blocks = []
        for block in re.split(r"\n\s*\n", docstring):
            items = re.split(r"(?:^|\n)- ", block)
            if items[0].strip():
                blocks.append(self.paragraph(items[0], scope))
            if items[1:]:
                listed = (self.paragraph(item, scope) for item in items[1:])
                blocks.append(
                    nodes.bullet_list("", *(nodes.list_item("", i) for i in listed))
                )
        if chapters:
            word = "chapters" if len(chapters[1]) > 2 else "chapter"
            said = f"Explained in {word} {' '.join(chapters[1].split())}."
            blocks.append(nodes.paragraph("", said, classes=["explained"]))
        return blocks

    def paragraph(self, text: str, scope: str) -> nodes.paragraph:
        """Return words, and what stands in backticks as code."""
        found = nodes.paragraph()
        for i, part in enumerate(" ".join(text.split()).split("`")):
            found += self.named(part, scope) if i % 2 else words(part)
        return found

    def named(self, text: str, scope: str) -> nodes.Node:
        """Return code; where it names one member of the library, as a link to it."""
        code = nodes.literal("", text)
        for depth in range(scope.count(".") + 1, 0, -1):
            near = ".".join([*scope.split(".")[:depth], text])
            if near in self.known and near != scope:
                return nodes.reference("", "", code, internal=True, refuri=f"#{near}")
        found = [name for name in self.known if name.endswith(f".{text}")]
        if len(found) == 1 and found[0] != scope:
            return nodes.reference("", "", code, internal=True, refuri=f"#{found[0]}")
        return code


def words(text: str) -> nodes.Text:
    """Return plain text, its arrows as such."""
    return nodes.Text(text.replace("->", "→"))


def flattened(members: list[Member]) -> Iterator[Member]:
    """Yield the members and theirs."""
    for member in members:
        yield member
        yield from flattened(member.members)


def setup(app) -> dict:
    """Register the extension with Sphinx."""
    app.add_directive("api-reference", APIReference)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
