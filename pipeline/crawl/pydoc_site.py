"""The running Python's standard-library documentation as a web site: a page a module, and an index.

Run by path in a process of its own (`python -S -P pydoc_site.py FOLDER [MODULE…]`), because it imports the whole
library. It imports nothing else, so that installed packages and the environment cannot change a page: the same Python
writes the same bytes wherever it lies, without paths of the machine or addresses in memory.
"""

import html
import importlib
import inspect
import io
import os
import pkgutil
import pydoc
import re
import sys
import warnings
from collections.abc import Iterable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from types import ModuleType
from typing import Any

EXCLUDED = re.compile(
    r"(antigravity|this|turtledemo|idlelib|lib2to3|test|ensurepip|xx.*|msilib|winreg|winsound|msvcrt|nt)(\..*)?"
    r"|(.*\.)?(?!__future__)_.*|.*\.(tests?|idle_test)(\..*)?"
)
"""Modules that do something when imported, are private or no part of the library proper, or exist on Windows only."""

_ADDRESS = re.compile(r"(?:\s|&nbsp;)at(?:\s|&nbsp;)0x[0-9A-Fa-f]{4,16}\b|, handle [0-9a-f]+(?=&gt;)")
_LOCAL_LINK = re.compile(r'<a href="([\w.]+)\.html(?:#[^"]*)?"[^>]*>(.*?)</a>', re.DOTALL)
_SUMMARY_CHARACTERS = 200


class PlainHTMLDoc(pydoc.HTMLDoc):
    """pydoc's HTML without anything that belongs to this machine."""

    def __init__(self, machine: re.Pattern[str]) -> None:
        super().__init__()
        self._machine = machine

    def filelink(self, url: str, path: str) -> str:  # noqa: ARG002 (pydoc's signature)
        """No link to the source file: it is a path of this machine."""
        return ""

    def docother(self, object: Any, name: Any = None, mod: Any = None, *ignored: Any) -> str:  # noqa: A002
        """A constant's value, unless it speaks of this machine."""
        text: str = super().docother(object, name, mod, *ignored)
        volatile = isinstance(object, dict) and object is sys.modules
        return f"<strong>{name}</strong>" if name and (volatile or self._machine.search(text)) else text


def module_names(roots: Iterable[str] = sys.stdlib_module_names) -> list[str]:
    """Every importable module of `roots` that `EXCLUDED` leaves, packages' contents included, sorted."""
    names = []
    waiting = sorted(roots, reverse=True)
    while waiting:
        name = waiting.pop()
        if EXCLUDED.fullmatch(name):
            continue
        module = _imported(name)
        if module is None:
            continue
        names.append(name)
        found = pkgutil.iter_modules(getattr(module, "__path__", []))
        waiting += sorted((f"{name}.{child.name}" for child in found), reverse=True)
    return sorted(names)


def write_site(folder: Path, roots: Iterable[str] = sys.stdlib_module_names) -> int:
    """Write the site of `roots`; returns how many pages it has. The index comes last: a site that has one is whole."""
    os.environ.clear()  # `os.environ` is on the page of `os`
    folder.mkdir(parents=True, exist_ok=True)
    names = module_names(roots)
    machine = _machine_pattern()
    writer = PlainHTMLDoc(machine)
    summaries = {}
    for name in names:
        module = sys.modules[name]
        page = writer.page(pydoc.describe(module), writer.docmodule(module))
        (folder / f"{name}.html").write_text(_portable(page, machine, set(names)), encoding="utf-8", errors="replace")
        summaries[name] = (inspect.getdoc(module) or "").strip().split("\n")[0][:_SUMMARY_CHARACTERS]
    (folder / "index.html").write_text(_index(summaries), encoding="utf-8", errors="replace")
    return len(names) + 1


def _imported(name: str) -> ModuleType | None:
    """The module; None where this platform lacks it. What it prints on import goes nowhere."""
    try:
        with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return importlib.import_module(name)
    except (Exception, SystemExit):
        return None


def _machine_pattern() -> re.Pattern[str]:
    """Matches the start of any path of this machine that a value may hold."""
    roots = {sys.prefix, sys.base_prefix, sys.exec_prefix, sys.executable, os.__file__, __file__}
    roots |= {str(Path.cwd()), str(Path.home()), *sys.path}
    tops = {Path(root).parts[1] for root in roots if Path(root).is_absolute() and len(Path(root).parts) > 1}
    # A repr cuts long paths short, so any path below the same top folder counts; those of every system stay.
    paths = [rf"/{re.escape(top)}/[\w.@+-]+[\w./@+-]*" for top in sorted(tops - {"bin", "etc", "usr"})]
    return re.compile("|".join(paths) or "(?!)")


def _portable(page: str, machine: re.Pattern[str], names: set[str]) -> str:
    page = _ADDRESS.sub("", page)
    page = machine.sub("...", page)
    return _LOCAL_LINK.sub(lambda link: link[0] if link[1] in names else link[2], page)


def _index(summaries: dict[str, str]) -> str:
    version = ".".join(map(str, sys.version_info[:2]))
    items = "\n".join(
        f'<li><a href="{name}.html">{name}</a> {html.escape(summary)}</li>' for name, summary in summaries.items()
    )
    title = f"The standard library of Python {version}"
    return (
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{title}</title>\n</head>\n<body>\n'
        f"<h1>{title}</h1>\n<ul>\n{items}\n</ul>\n</body>\n</html>\n"
    )


if __name__ == "__main__":
    sys.stdout.write(f"{write_site(Path(sys.argv[1]), sys.argv[2:] or sys.stdlib_module_names)}\n")
