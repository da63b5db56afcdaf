"""The code version of a stage: what its function reaches in first-party code, without comments and docstrings.

Sources are read, never imported, so that planning stays fast and a version can be told of code whose
libraries are heavy. From a function's syntax tree every name that leads to first-party code is followed:
functions, classes, module constants, decorators, imports at the top or inside a function. Each one reached
is a *unit*, named by file and definition, with a hash of a serialisation that is our own and stable over
Python versions. What is only chosen at run time cannot be seen here and is named in a stage's `code_deps`.
"""

import ast
import contextlib
import hashlib
import json
import os
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from pipeline.engine.store import caches, read_object, write_atomically

ROOT = Path(__file__).resolve().parents[2]
FIRST_PARTY = ("flows", "model", "pipeline")
INFRASTRUCTURE = ("pipeline.config", "pipeline.engine", "flows")
"""Modules that run stages without shaping their bytes: they stay out of every code version."""

UNIT_LENGTH = 16
MODULE_ATTRIBUTES = frozenset({"__file__", "__name__", "__doc__"})
"""Of a module these tell where it is, not what it does."""
EXECUTION_FIELD = "execution"
"""A config field declared with a call to this cannot change what a stage writes."""
_SKIPPED_FIELDS = frozenset({"ctx", "kind", "type_comment", "lineno", "col_offset", "end_lineno", "end_col_offset"})


@dataclass
class _Module:
    """One parsed source file: what its top level defines and imports."""

    name: str
    path: Path
    definitions: dict[str, list[ast.stmt]] = field(default_factory=dict)
    imports: dict[str, set[str]] = field(default_factory=dict)
    effects: list[ast.stmt] = field(default_factory=list)


def code_units(entries: Iterable[str], root: Path = ROOT) -> dict[str, str]:
    """Hashes of all units that the entries ("package.module:function" or "package.module") reach, by "file definition".

    Raises LookupError where an entry names nothing.
    """
    units: dict[str, str] = {}
    seen: set[tuple[str, str]] = set()
    todo: list[tuple[str, str]] = []
    for entry in entries:
        module_name, _, name = entry.partition(":")
        module = _parse(module_name, root)
        if module is None or (name and name not in module.definitions):
            raise LookupError(f"there is no {entry} to take a code version of")
        todo += [(module_name, name)] if name else [(module_name, each) for each in module.definitions]
    while todo:
        place = todo.pop()
        if place in seen:
            continue
        seen.add(place)
        found = _unit(*place, root)
        if found is not None:
            unit, digest, reached = found
            units[unit] = digest
            todo += reached
    return dict(sorted(units.items()))


def kept_units(entries: Iterable[str], root: Path = ROOT) -> dict[str, str]:
    """`code_units`, kept in the user's cache as long as no source file changes: to read them takes half a second."""
    sources, asked = _sources(root, FIRST_PARTY), " ".join(entries)
    place = hashlib.sha256(os.fsencode(root) + repr(FIRST_PARTY).encode()).hexdigest()[:UNIT_LENGTH]
    file = caches() / f"code-{place}.json"
    kept = read_object(file)
    if kept.get("sources") != sources:
        kept = {"sources": sources, "units": {}}
    units: dict[str, dict[str, str]] = kept["units"]
    if asked not in units:
        units[asked] = code_units(asked.split(), root)
        if _hash_of_sources(root, FIRST_PARTY) == sources:  # some were parsed long after they were hashed
            with contextlib.suppress(OSError):
                write_atomically(file, json.dumps(kept))
    return units[asked]


def _hash_of_sources(root: Path, packages: tuple[str, ...]) -> str:
    """A hash of all source files of these packages, and of the Python that parses them."""
    digest = hashlib.sha256(sys.version.encode())
    for package in packages:
        for path in sorted((root / package).rglob("*.py")):
            if path.is_file():  # an editor's lock is a link to nowhere
                source = path.read_bytes()
                digest.update(f"{path.relative_to(root)} {len(source)}\n".encode() + source)
    return digest.hexdigest()


_sources = cache(_hash_of_sources)


@cache
def _unit(module_name: str, name: str, root: Path) -> tuple[str, str, list[tuple[str, str]]] | None:
    """A unit, its hash, and what it reaches; `name` is a definition, or empty for what a module does when imported."""
    module = _parse(module_name, root)
    if module is None:
        return None
    statements = module.definitions[name] if name else module.effects
    reached = [(module_name, "")] if module.effects else []
    reached += [place for statement in statements for place in _references(statement, module, root)]
    return f"{module.path.relative_to(root).as_posix()} {name or '(top level)'}", _hash(statements), reached


@cache
def _parse(name: str, root: Path) -> _Module | None:
    """The module of that dotted name, or None where it is not first-party code or counts as infrastructure."""
    if name.split(".")[0] not in FIRST_PARTY or any(name == i or name.startswith(f"{i}.") for i in INFRASTRUCTURE):
        return None
    base = root / Path(*name.split("."))
    path = next((p for p in (base.with_suffix(".py"), base / "__init__.py") if p.is_file()), None)
    if path is None:
        return None
    module = _Module(name, path)
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    for statement in ast.parse(path.read_text(encoding="utf-8")).body:
        for bound_name, targets in _imported(statement, package, root).items():
            module.imports.setdefault(bound_name, set()).update(targets)
        if isinstance(statement, (ast.Import, ast.ImportFrom)) or _is_docstring(statement):
            continue
        bound = list(_bound(statement))
        for each in bound:
            module.definitions.setdefault(each, []).append(statement)
        if not bound:
            module.effects.append(statement)
    return module


def _imported(tree: ast.AST, package: str, root: Path) -> dict[str, set[str]]:
    """Names that import statements anywhere in `tree` bind, in functions too, with all dotted targets they may have."""
    names: dict[str, set[str]] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                first = alias.name.split(".")[0]
                names.setdefault(alias.asname or first, set()).add(alias.name if alias.asname else first)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*parents, *([node.module] if node.module else [])])
            for alias in node.names:
                if alias.name == "*" and _parse(base, root) is not None:
                    raise LookupError(
                        f"{package} imports * from {base}: name what it takes, or its code cannot be told"
                    )
                names.setdefault(alias.asname or alias.name, set()).add(f"{base}.{alias.name}")
    return names


def _bound(statement: ast.stmt) -> Iterator[str]:
    """Names that a top-level statement defines; those under `if`, `try` and the like belong to the whole statement."""
    if isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
        yield statement.name
        return
    for child in ast.iter_child_nodes(statement):
        if isinstance(child, ast.stmt):
            yield from _bound(child)
        elif isinstance(child, ast.ExceptHandler):
            for inner in child.body:
                yield from _bound(inner)
        else:
            yield from (n.id for n in ast.walk(child) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store))


def _references(statement: ast.stmt, module: _Module, root: Path) -> Iterator[tuple[str, str]]:
    """Places (module, definition) of first-party code that the statement's names lead to.

    A name that is both defined and imported in a module may mean either: both are followed.
    """
    nodes = list(ast.walk(statement))
    inner = {id(node.value) for node in nodes if isinstance(node, ast.Attribute)}
    for node in nodes:
        chain = [] if id(node) in inner else _chain(node)
        if not chain:
            continue
        if chain[0] in module.definitions:
            yield module.name, chain[0]
        for target in module.imports.get(chain[0], set()):
            yield from _resolve([*target.split("."), *chain[1:]], root)


def _chain(node: ast.AST) -> list[str]:
    """`a.b.c` as ["a", "b", "c"], a plain name as one item, anything else as none."""
    attributes: list[str] = []
    while isinstance(node, ast.Attribute):
        attributes.append(node.attr)
        node = node.value
    return [node.id, *reversed(attributes)] if isinstance(node, ast.Name) else []


def _resolve(dotted: list[str], root: Path) -> Iterator[tuple[str, str]]:
    """Follow a dotted path: the longest prefix that is a module, then the definition in it, through re-exports.

    A module that is used as a value, or asked for a name that it does not define, counts with all it defines.
    """
    for length in range(len(dotted), 0, -1):
        module = _parse(".".join(dotted[:length]), root)
        if module is None:
            continue
        name = dotted[length] if length < len(dotted) else None
        if name in MODULE_ATTRIBUTES:
            return
        if name in module.definitions:
            yield module.name, str(name)
        elif name in module.imports:
            for target in module.imports[str(name)]:
                yield from _resolve([*target.split("."), *dotted[length + 1 :]], root)
        else:
            yield from ((module.name, each) for each in module.definitions)
        return


def _is_docstring(node: ast.AST) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def _is_execution_field(node: ast.AST) -> bool:
    value = node.value if isinstance(node, ast.AnnAssign) else None
    return isinstance(value, ast.Call) and isinstance(value.func, ast.Name) and value.func.id == EXECUTION_FIELD


def _hash(statements: list[ast.stmt]) -> str:
    text = repr([_serialise(statement) for statement in statements])
    return hashlib.sha256(text.encode()).hexdigest()[:UNIT_LENGTH]


def _serialise(node: Any) -> Any:
    """A syntax tree as nested tuples: no positions, docstrings or empty fields: the same on every Python."""
    if isinstance(node, ast.Constant):
        return "Constant", type(node.value).__name__, repr(node.value)
    if isinstance(node, ast.AST):
        fields = []
        for name in sorted(node._fields):
            value = getattr(node, name, None)
            if name in _SKIPPED_FIELDS or value is None or value == []:
                continue
            fields.append((name, _serialise(value)))
        return type(node).__name__, fields
    if isinstance(node, list):
        return [_serialise(item) for item in node if not _is_docstring(item) and not _is_execution_field(item)]
    return repr(node)
