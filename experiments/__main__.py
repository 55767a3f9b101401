"""``python -m experiments``: the recipes by family, one line each, and how to start one."""

import ast
from pathlib import Path

ROOT = Path(__file__).parent


def recipes(*, all_commands: bool = False) -> dict[str, dict[str, str]]:
    """By family, module name and first docstring line of every recipe, read without importing it.

    A recipe builds networks of its own. ``all_commands`` has those that compare several recipes, too.
    """
    found: dict[str, dict[str, str]] = {}
    for path in sorted(ROOT.glob("*/*.py")):
        if path.name != "__init__.py" and path.parent.name not in ("bench", "launch"):
            tree = ast.parse(path.read_text())
            builds = any(isinstance(node, ast.FunctionDef) and node.name == "build" for node in tree.body)
            if builds or all_commands:
                module, doc = f"experiments.{path.parent.name}.{path.stem}", ast.get_docstring(tree) or ""
                found.setdefault(path.parent.name, {})[module] = doc.split("\n")[0]
    return found


def main() -> None:
    """Print the list."""
    for family, members in recipes(all_commands=True).items():
        print(family)
        for module, line in members.items():
            print(f"  {module:<36} {line}")
    print("\nStart or resume one:  python -m MODULE [PRESET] --workdir DIR    (options: python -m MODULE --help)")


if __name__ == "__main__":
    main()
