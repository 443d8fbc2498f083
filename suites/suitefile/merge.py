"""From suite files to one tree: environment variables where they are declared, ``extends``, ``defaults``. Imports no torch."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import replace
from importlib import resources
from pathlib import Path

from depthbench.suites.names import unknown
from depthbench.suites.suitefile.reading import Fault, Node, Place, SuiteError, plain_value, read_yaml

CATALOG = "depthbench.suites.catalog"

_VARIABLE = re.compile(r"\$\{([^}]*)\}")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def catalogue() -> list[str]:
    """Names of the suites that ship with the package, sorted."""
    return sorted(f.name.removesuffix(".yaml") for f in resources.files(CATALOG).iterdir() if f.name.endswith(".yaml"))


def catalogue_text(name: str) -> str:
    """The YAML text of a catalogue suite."""
    return resources.files(CATALOG).joinpath(f"{name}.yaml").read_text("utf-8")


def inside(base: Path, text: str) -> Path:
    """The file that a suite below ``base`` names; ``ValueError`` when it leads outside, also by a symbolic link."""
    if not text.isprintable() or len(text) > 255:
        raise ValueError(f"{text!r:.80} is not a file name")
    path = base / text
    if Path(text).is_absolute() or not path.resolve().is_relative_to(base.resolve()):
        raise ValueError(f"{text} leads outside the suite's folder; name a file below it")
    return path


def whole_tree(text: str, source: str, base: Path) -> tuple[Node, list[Fault]]:
    """A suite's one tree and the faults found on the way; :class:`SuiteError` for what leaves nothing to read."""
    tree, faults = _file(text, source, base, base, [source])
    return _with_defaults(tree), faults


def _file(text: str, source: str, folder: Path, root: Path, chain: list[str]) -> tuple[Node, list[Fault]]:
    """A file's tree with what it extends; ``folder``: of the file, ``root``: of the suite that the user named."""
    tree, faults = read_yaml(text, source)
    declared = _declared(tree, faults)
    if "${" in text:
        tree = _expanded(tree, declared, os.environ, faults, ())
    parent_name = tree.value.pop("extends", None)
    tree.value.pop("env", None)
    if parent_name is None or parent_name.value is None:
        return tree, faults
    file, line = tree.keys["extends"]
    try:
        parent, more = _parent(parent_name, folder, root, chain)
    except SuiteError as error:
        raise SuiteError([*faults, *error.faults]) from None
    except ValueError as error:
        raise SuiteError([*faults, Fault(file, line, ("extends",), str(error))]) from None
    parent.value.pop("name", None)  # a suite has a name of its own
    return _merged(tree, parent), [*faults, *more]


def _parent(name: Node, folder: Path, root: Path, chain: list[str]) -> tuple[Node, list[Fault]]:
    text = name.value
    if not isinstance(text, str):
        raise ValueError("the name of a catalogue suite, or of a file, is expected")
    if text in catalogue():
        source, content, place = f"{text}.yaml", catalogue_text(text), folder
    elif text.endswith((".yaml", ".yml")):
        place = inside(root, os.path.relpath(folder / text, root) if not Path(text).is_absolute() else text)
        source, content, place = str(folder / text), read_text(place), (folder / text).parent
    else:
        raise ValueError(unknown("suite", text, catalogue()) + "; a .yaml file beside this one is also accepted")
    seen = {os.path.realpath(one) for one in chain}
    if os.path.realpath(source) in seen:
        raise ValueError(f"{' → '.join([*chain, source])} is a circle")
    tree, faults = _file(content, source, place, root, [*chain, source])
    return _moved(tree, os.path.relpath(place, root)), faults


def read_text(path: Path) -> str:
    """A suite file's text; ``ValueError`` when there is none or it cannot be read."""
    if not path.is_file():
        raise ValueError(f"{path}: no such suite file")
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: cannot be read ({error})") from None


def _moved(node: Node, folder: str) -> Node:
    """A parent's tree with the names of its files as they are from the suite's own folder."""
    if folder == ".":
        return node
    if isinstance(node.value, dict):
        return replace(node, value={key: _moved(child, folder) for key, child in node.value.items()})
    if isinstance(node.value, list):
        return replace(node, value=[_moved(child, folder) for child in node.value])
    if isinstance(node.value, str) and node.value.endswith((".onnx", ".safetensors")):
        return replace(node, value=str(Path(folder) / node.value))
    return node


def _declared(tree: Node, faults: list[Fault]) -> set[str]:
    names = tree.value.get("env")
    if names is None or names.value is None:
        return set()
    if not isinstance(names.value, list):
        faults.append(
            Fault(names.file, names.line, ("env",), "a list of the names of environment variables is expected")
        )
        return set()
    for i, name in enumerate(names.value):
        if not isinstance(name.value, str) or not _NAME.fullmatch(name.value):
            message = f"{name.data()!r:.60} is not the name of an environment variable"
            faults.append(Fault(name.file, name.line, ("env", i), message))
    return {name.value for name in names.value if isinstance(name.value, str)}


def _expanded(node: Node, declared: set[str], variables: Mapping[str, str], faults: list[Fault], place: Place) -> Node:
    """The tree with each ``${NAME}`` replaced; the value is then read again, so that a number is one."""
    if isinstance(node.value, dict):
        inner = {key: _expanded(child, declared, variables, faults, (*place, key)) for key, child in node.value.items()}
        return replace(node, value=inner)
    if isinstance(node.value, list):
        several = [_expanded(child, declared, variables, faults, (*place, i)) for i, child in enumerate(node.value)]
        return replace(node, value=several)
    if not isinstance(node.value, str) or "${" not in node.value or place[:1] == ("env",):
        return node
    for name in _VARIABLE.findall(node.value):
        if name not in declared:
            message = f"${{{name}}} is not declared; list it in env"
        elif name not in variables:
            message = f"the environment variable {name} is not set"
        else:
            continue
        faults.append(Fault(node.file, node.line, place, message))
        return replace(node, value=None)
    text = _VARIABLE.sub(lambda match: variables[match[1]], node.value)
    try:
        return replace(node, value=plain_value(text))
    except ValueError:  # a date, say: text
        return replace(node, value=text)


def _merged(node: Node, under: Node) -> Node:
    """``node`` with what only ``under`` has: mappings are merged key by key, anything else is the node's own."""
    if not isinstance(node.value, dict) or not isinstance(under.value, dict):
        return node
    value = dict(node.value)
    for key, child in under.value.items():
        value[key] = _merged(value[key], child) if key in value else child
    return replace(node, value=value, keys=under.keys | node.keys)


def _with_defaults(tree: Node) -> Node:
    defaults = tree.value.get("defaults")
    if defaults is None or not isinstance(defaults.value, dict):
        return tree
    section = {key: child for key, child in defaults.value.items() if isinstance(child.value, dict)}
    value = dict(tree.value)
    if "data" in section and "data" in value:
        value["data"] = _merged(value["data"], section["data"])
    if "matrix" in value and isinstance(value["matrix"].value, list):
        blocks = [_block(block, section) for block in value["matrix"].value]
        value["matrix"] = replace(value["matrix"], value=blocks)
    return replace(tree, value=value)


def _block(block: Node, section: Mapping[str, Node]) -> Node:
    if "matrix" in section:
        block = _merged(block, section["matrix"])
    if not isinstance(block.value, dict):
        return block
    value = dict(block.value)
    for key in ("models", "data"):
        if key in section and key in value and isinstance(value[key].value, list):
            items = [_merged(item, section[key]) for item in value[key].value]
            value[key] = replace(value[key], value=items)
    return replace(block, value=value)
