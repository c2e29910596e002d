"""Sizes of the source: `python tests/figures.py [CHECKOUT]` prints files, functions, parameters and comments.

What `docs/log.md` and closing notes quote; nothing is asserted here, since a limit invites code to fit it.
"""

import ast
import io
import statistics
import sys
import tokenize
from collections import Counter
from pathlib import Path

PACKAGES = ("early_exit", "db", "tasks", "orchestrator", "workers")
LONG_FILE, LONG_FUNCTION, MANY_PARAMETERS = 300, 40, 4


def functions(path):
    """(name, lines, parameters without self and cls) of every function and method of a file."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            names = [a.arg for a in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)]
            own = [name for name in names if name not in ("self", "cls")]
            yield f"{path}:{node.name}", node.end_lineno - node.lineno + 1, len(own)


def comments(path):
    """How many comments a file has, those for tools (noqa, type: ignore) left out."""
    tokens = tokenize.generate_tokens(io.StringIO(path.read_text()).readline)
    texts = [token.string for token in tokens if token.type == tokenize.COMMENT]
    return sum(not text.startswith(("# noqa", "# type:")) for text in texts)


def spread(numbers):
    """Median, 95th percentile and largest."""
    ordered = sorted(numbers)
    return f"{statistics.median(ordered):g} / {ordered[int(0.95 * len(ordered))]} / {ordered[-1]}"


def main(root):
    """Print all figures of the checkout ``root``."""
    paths = [
        path.relative_to(root)
        for package in PACKAGES
        for path in sorted((root / package).rglob("*.py"))
        if "versions" not in path.parts
    ]
    lines = {path: len((root / path).read_text().splitlines()) for path in paths}
    code = [path for path in paths if path.name != "__init__.py"]
    found = [function for path in code for function in functions(root / path)]
    folders = Counter(str(path.parent) for path in code)
    print(f"files: {len(code)}, lines: {sum(lines.values()):,}")
    print(f"lines per file, median / 95th percentile / most: {spread(lines[path] for path in code)}")
    print(f"functions: {len(found)}; lines each: {spread(length for _, length, _ in found)}")
    print(f"parameters each: {spread(count for _, _, count in found)}")
    print(
        f"comments per 1,000 lines: {1000 * sum(comments(root / p) for p in code) / sum(lines.values()):.0f}"
    )
    print("files per folder: " + ", ".join(f"{folder} {count}" for folder, count in folders.most_common()))
    for what, named in (
        (f"files over {LONG_FILE} lines", {str(p): n for p, n in lines.items() if n > LONG_FILE}),
        (
            f"functions over {LONG_FUNCTION} lines",
            {n: length for n, length, _ in found if length > LONG_FUNCTION},
        ),
        (
            f"functions of over {MANY_PARAMETERS} parameters",
            {n: c for n, _, c in found if c > MANY_PARAMETERS},
        ),
    ):
        print(f"{what}: {len(named)}")
        for name, number in sorted(named.items(), key=lambda item: -item[1])[:12]:
            print(f"  {number:4} {name.removeprefix(str(root) + '/')}")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else ".").resolve())
