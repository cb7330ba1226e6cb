"""Size and shape of the code: what a reader of package and notebooks has to hold in mind.

    python benchmarks/structure.py [CHECKOUT]

Prints, for this checkout or another one, lines and their density, the lengths of functions, public
signatures of more than five arguments, packages that import each other, tests for the span outside
`models/`, and what the notebooks import of giblet.
"""

import argparse
import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np

MANY = 5  # arguments
WIDTH = 100  # columns
DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef)
COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)


def code_lines(text: str) -> list[str]:
    """Lines that are no docstring, no comment and not empty."""
    inside = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, DOCUMENTED) and ast.get_docstring(node, clean=False) is not None:
            inside |= set(range(node.body[0].lineno, node.body[0].end_lineno + 1))
    numbered = enumerate(text.splitlines(), start=1)
    lines = [line.strip() for number, line in numbered if number not in inside]
    return [line for line in lines if line and not line.startswith("#")]


def imported(tree: ast.Module) -> Iterator[str]:
    """First parts of what a file imports of giblet, also in functions; not for its types alone."""
    stack: list[ast.AST] = [tree]
    while stack:
        node = stack.pop()
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "giblet":
            inner = node.module.split(".")[1:]
            yield from inner[:1] or [alias.name for alias in node.names]
        stack += ast.iter_child_nodes(node)


def circles(trees: dict[Path, ast.Module]) -> list[tuple[str, str]]:
    """Pairs of packages, or of modules at the top, that import each other."""
    needs: dict[str, set[str]] = {}
    for path, tree in trees.items():
        name = path.parts[0].removesuffix(".py")
        needs.setdefault(name, set()).update(imported(tree))
    both = [(a, b) for a in needs for b in needs[a] if a < b and a in needs.get(b, set())]
    return sorted(both)


def long_signatures(trees: dict[Path, ast.Module]) -> list[str]:
    """Public functions of more than five arguments."""
    found = []
    for path, tree in trees.items():
        for node in ast.walk(tree):
            if not isinstance(node, ast.FunctionDef) or node.name.startswith("_"):
                continue
            given = node.args.posonlyargs + node.args.args + node.args.kwonlyargs
            n_arguments = sum(argument.arg not in ("self", "cls") for argument in given)
            if n_arguments > MANY:
                found.append(f"{path}:{node.name} ({n_arguments})")
    return found


def notebook_imports(folder: Path) -> dict[str, list[str]]:
    """Lines of each notebook that import giblet."""
    found = {}
    for path in sorted(folder.glob("*.ipynb")):
        cells = json.loads(path.read_text())["cells"]
        code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
        lines = re.findall(r"^(?:from|import) giblet.*$", "\n".join(code), re.MULTILINE)
        found[path.stem] = lines
    return found


def report(checkout: Path) -> None:
    """Print all of it."""
    package = checkout / "giblet"
    texts = {path.relative_to(package): path.read_text() for path in package.rglob("*.py")}
    trees = {path: ast.parse(text) for path, text in texts.items()}
    nodes = [node for tree in trees.values() for node in ast.walk(tree)]
    lines = [line for text in texts.values() for line in code_lines(text)]
    every = [line for text in texts.values() for line in text.splitlines()]
    functions = [n.end_lineno - n.lineno + 1 for n in nodes if isinstance(n, ast.FunctionDef)]
    density = sum(map(len, lines)) / len(lines)
    comprehensions = sum(isinstance(node, COMPREHENSIONS) for node in nodes)
    median, ninth = np.quantile(functions, [0.5, 0.9])
    print(f"{len(texts)} modules, {len(every):,} lines, {len(lines):,} of them code")
    print(f"{density:.1f} characters per code line")
    print(f"{sum(len(line) > WIDTH for line in every)} lines over {WIDTH} columns")
    print(f"{100 * comprehensions / len(lines):.1f} comprehensions per 100 code lines")
    print(f"{len(functions)} functions, median {median:.0f} lines, nine in ten under {ninth:.0f}")
    long = long_signatures(trees)
    print(f"{len(long)} public signatures over {MANY} arguments: {', '.join(sorted(long))}")
    print(f"packages that import each other: {circles(trees) or 'none'}")
    asked = [path for path, text in texts.items() if path.parts[0] != "models"]
    tests = [len(re.findall(r"isinstance\([^)]*SpanAutoencoder", texts[path])) for path in asked]
    print(f"{sum(tests)} tests for the span outside models/")
    imports = notebook_imports(checkout / "notebooks")
    print(f"imports of giblet per notebook: { {name: len(x) for name, x in imports.items()} }")


def main() -> None:
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=formatter)
    here = Path(__file__).parents[1]
    parser.add_argument("checkout", type=Path, nargs="?", default=here)
    report(parser.parse_args().checkout)


if __name__ == "__main__":
    main()
