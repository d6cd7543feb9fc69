"""Formulas as docstrings write them, in ASCII, turned into LaTeX.

A formula is found by what only formulas have, such as a sign of equality, and grows
from there over the symbols of the book's notation. What cannot be read stays as it is.
"""

import re
from collections.abc import Iterator

GREEK = {"alpha", "beta", "eps", "eta", "pi", "sigma"}
WORDS = {
    "cond", "cov", "degree", "end", "fake", "keep", "mean", "mix", "net", "noise",
    "offset", "real", "scale", "score", "start", "std", "step", "target", "uncond",
    "var", "variance", "weight",
}  # fmt: skip
FUNCTIONS = {"cos", "exp", "log", "sin"}
NAMES = {
    "ab": r"\bar\alpha", "alpha_bar": r"\bar\alpha", "eps": r"\epsilon",
    "N": r"\mathcal N", "KL": r"\mathrm{KL}", "tr": r"\operatorname{tr}",
    "softmax": r"\operatorname{softmax}", "diag": r"\operatorname{diag}",
    "grad": r"\nabla", "sum": r"\sum", "prod": r"\prod", "log_var": r"\log\sigma^2",
}  # fmt: skip
RELATIONS = {"=": "=", "~": r"\sim", "<": "<", ">": ">", "<=": r"\le", ">=": r"\ge"}
CERTAIN = {"^", "*", "sqrt(", "KL(", "sin(", "softmax("} | set(
    RELATIONS
)  # only formulas have them

TOKEN = re.compile(
    r"(?P<dot>\s\.\s)|(?P<space>\s+)|(?P<range>\d\.\.[A-Za-z])|(?P<rest>\.\.\.)"
    r"|(?P<number>\d+(?:[.,]\d+)*)|(?P<name>[A-Za-z]\w*(?:-tilde)?'?\(?)"
    r"|(?P<op>->|<=|>=|\|\||[-=~<>+*/^()|,;{}])|(?P<other>.)",
    re.DOTALL,
)


def symbol(name: str) -> str | None:
    """Return the LaTeX of a name of the notation; None for any other word."""
    name = name.rstrip("_")
    if name in NAMES or name in FUNCTIONS:
        return NAMES.get(name, rf"\{name}")
    if name.endswith("-tilde"):
        return rf"\tilde{symbol(name.removesuffix('-tilde'))}"
    if name.endswith("'"):
        return f"{symbol(name[:-1])}'"
    if name.endswith("_hat"):
        return rf"\hat {symbol(name.removesuffix('_hat'))}"
    stem, _, index = name.rpartition("_") if "_" in name else (name, "", "")
    if re.fullmatch(r"[a-z]0", stem):
        return f"{stem[0]}_0"
    if stem in NAMES:
        letter = NAMES[stem]
    elif stem in WORDS:
        letter = rf"\mathrm{{{stem}}}"
    elif stem in GREEK:
        letter = rf"\{stem}"
    else:
        letter = stem if re.fullmatch(r"[A-Za-z]", stem) else None
    if letter is None or len(index) > 1:
        return None
    return f"{letter}_{index}" if index else letter


class Parser:
    """Reads one formula, by descent: relations, sums, products, powers, atoms."""

    def __init__(self, tokens: list[str]):
        self.tokens, self.at = tokens, 0

    def peek(self) -> str:
        return self.tokens[self.at] if self.at < len(self.tokens) else ""

    def take(self, wanted: str = "") -> str:
        token = self.peek()
        if not token or (wanted and token != wanted):
            raise ValueError(f"expected {wanted or 'more'}, got {token!r}")
        self.at += 1
        return token

    def whole(self) -> str:
        latex = self.relation()
        if self.peek():
            raise ValueError(f"left over: {self.tokens[self.at :]}")
        return latex

    def relation(self) -> str:
        latex = self.sum()
        while self.peek() in RELATIONS:
            latex += f" {RELATIONS[self.take()]} {self.sum()}"
        return latex

    def sum(self) -> str:
        latex = self.take() if self.peek() == "-" else ""
        latex += self.product()
        while self.peek() in ("+", "-"):
            latex += f" {self.take()} {self.product()}"
        return latex

    def product(self) -> str:
        latex = self.power()
        while True:
            if self.peek() == "/":
                self.take()
                latex = rf"\frac{{{bare(latex)}}}{{{bare(self.power())}}}"
            elif self.peek() in ("*", "."):
                latex += r" \cdot " * (self.take() == ".") + self.power()
            elif re.match(r"\w|\(", self.peek()):
                latex += r"\, " + self.power()
            else:
                return latex

    def power(self) -> str:
        latex = self.atom()
        while self.peek() == "^":
            self.take()
            sign = self.take() if self.peek() == "-" else ""
            raised = self.atom()
            if re.fullmatch(r"/ \d", " ".join(self.tokens[self.at :][:2])):  # ^1/2
                raised += self.take() + self.take()
            latex += f"^{{{sign}{raised}}}"
        return latex

    def atom(self) -> str:
        token = self.take()
        if token == "(":
            return f"({self.sum()}{self.take(')')}"
        if token == "|":
            return rf"\lVert {self.until('|')}\rVert"
        if token == "sqrt(":
            return rf"\sqrt{{{self.until(')')}}}"
        if re.match(r"[\d.]", token):  # a number, a range, or the rest
            number = token.replace(",", "{,}")
            return re.sub(r"\.{2,3}", r"\\dots ", number)
        latex = symbol(token.removesuffix("("))
        if latex is None:
            raise ValueError(f"no symbol: {token}")
        if token.endswith("("):
            return f"{latex}({self.until(')')})"
        if self.peek() == "{":
            self.take()
            latex += f"_{{{self.until('}')}}}"
        return latex

    def until(self, end: str) -> str:
        marks = {",": ",\\ ", ";": ";\\ ", "|": r" \mid ", "||": r" \,\Vert\, "}
        latex = self.relation()
        while self.peek() != end:
            latex += marks[self.take()] + self.relation()
        self.take(end)
        return latex


def bare(latex: str) -> str:
    """Drop the parentheses around a whole numerator or denominator."""
    inner = latex[1:-1]
    depths = [inner[:i].count("(") - inner[:i].count(")") for i in range(len(inner))]
    whole = (
        latex.startswith("(") and latex.endswith(")") and min(depths, default=0) >= 0
    )
    return inner if whole else latex


def grown(latex: str) -> str:
    """Let parentheses grow with the fractions between them."""
    opened, tall = [], {}
    for i, sign in enumerate(latex):
        if sign == "(":
            opened.append(i)
        elif sign == ")":
            start = opened.pop()
            if r"\frac" in latex[start:i]:
                tall |= {start: r"\left(", i: r"\right)"}
    return "".join(tall.get(i, sign) for i, sign in enumerate(latex))


def to_latex(formula: str) -> str:
    """Turn one formula into LaTeX. Raises ValueError for what is none."""
    found = TOKEN.finditer(formula)
    tokens = [match[0].strip() for match in found if match.lastgroup != "space"]
    try:
        return grown(Parser(tokens).whole())
    except KeyError as error:
        raise ValueError(f"not expected here: {error}") from error


# Finding them in a text -----------------------------------------------------------


def known(match: re.Match, depth: int) -> bool:
    """Whether a token may belong to a formula, within `depth` parentheses."""
    kind, token = match.lastgroup, match[0]
    if kind == "name":
        return token == "sqrt(" or symbol(token.removesuffix("(")) is not None
    if kind == "op":
        return token != "->" and (depth > 0 or token not in ",;")
    return kind in ("number", "range", "dot") or (kind == "rest" and depth > 0)


def runs(text: str) -> Iterator[list[re.Match]]:
    """Yield the longest rows of tokens that may belong to one formula."""
    run: list[re.Match] = []
    depth = 0
    for match in TOKEN.finditer(text):
        if match.lastgroup == "space" and run:
            run.append(match)
        elif known(match, depth):
            run.append(match)
            depth = max(0, depth + match[0].endswith("(") - (match[0] == ")"))
        else:
            yield run
            run, depth = [], 0
    yield run


def certain(run: list[re.Match]) -> bool:
    """Whether a row of tokens has what only formulas have."""
    return not CERTAIN.isdisjoint(match[0] for match in run)


def readings(run: list[re.Match]) -> Iterator[tuple[int, int]]:
    """Yield parts of a row of tokens, longest first, that may be the formula in it."""
    for length in range(len(run), 2, -1):
        for start in range(len(run) - length + 1):
            part = run[start : start + length]
            if "space" not in (part[0].lastgroup, part[-1].lastgroup) and certain(part):
                yield part[0].start(), part[-1].end()


def article(text: str, end: int) -> bool:
    """Whether a part of a text ends in the article 'a', not in the symbol."""
    return bool(
        re.search(r"[\s)]a$", text[:end]) and re.match(r"\s+[a-z]{2}", text[end:])
    )


def formulas(text: str) -> Iterator[tuple[int, int, str]]:
    """Yield the formulas of a text: where each begins and ends, and its LaTeX."""
    for run in runs(text):
        if not certain(run):
            continue
        for start, end in readings(run):
            if article(text, end):
                continue
            try:
                yield start, end, to_latex(text[start:end])
                break
            except ValueError:
                continue
