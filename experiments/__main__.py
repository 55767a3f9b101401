"""``python -m experiments``: the recipes by family, one line each, and how to start one."""

import ast
from pathlib import Path

ROOT = Path(__file__).parent


def recipes() -> dict[str, dict[str, str]]:
    """By family, module name and first docstring line of every recipe, read without importing it."""
    found: dict[str, dict[str, str]] = {}
    for path in sorted(ROOT.glob("*/*.py")):
        if path.name != "__init__.py" and path.parent.name not in ("bench", "launch"):
            doc = ast.get_docstring(ast.parse(path.read_text())) or ""
            found.setdefault(path.parent.name, {})[f"experiments.{path.parent.name}.{path.stem}"] = doc.split("\n")[0]
    return found


def main() -> None:
    """Print the list."""
    for family, members in recipes().items():
        print(family)
        for module, line in members.items():
            print(f"  {module:<36} {line}")
    print("\nStart or resume one:  python -m MODULE [PRESET] --workdir DIR    (options: python -m MODULE --help)")


if __name__ == "__main__":
    main()
