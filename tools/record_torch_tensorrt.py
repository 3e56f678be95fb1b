"""Records which keywords torch-tensorrt knows, for tests where it cannot be imported (it needs TensorRT's libraries and a matching torch).

python tools/record_torch_tensorrt.py torch_tensorrt-2.14.0-...whl, as `pip download --no-deps torch-tensorrt` brings it. Reads the wheel's
source without running it and writes test/torch_tensorrt_signature.json. torch_tensorrt.Input takes **kwargs: recorded is what its source
looks for in them.
"""

from __future__ import annotations

import ast
import json
import sys
import zipfile
from pathlib import Path

RESULT = Path(__file__).parents[1] / "test" / "torch_tensorrt_signature.json"
FUNCTIONS = {
    "dynamo.compile": ("torch_tensorrt/dynamo/_compiler.py", "compile"),
    "save": ("torch_tensorrt/_compile.py", "save"),
    "load": ("torch_tensorrt/_compile.py", "load"),
    "runtime.enable_cudagraphs": ("torch_tensorrt/runtime/_cudagraphs.py", "enable_cudagraphs"),
}


def main(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        trees = {path: ast.parse(archive.read(path)) for path, _ in FUNCTIONS.values()}
        known = {name: parameters(trees[path], function) for name, (path, function) in FUNCTIONS.items()}
        known["Input"] = sorted(looked_for(ast.parse(archive.read("torch_tensorrt/_Input.py"))))
    RESULT.write_text(json.dumps({"origin": wheel.name, "keywords": known}, indent=1) + "\n")


def parameters(tree: ast.Module, function: str) -> list[str]:
    """Names that can be given as keywords; not what **kwargs takes."""
    found = [node.args for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == function][-1]
    return [argument.arg for argument in (*found.args, *found.kwonlyargs)]


def looked_for(tree: ast.Module) -> set[str]:
    """Keys of ``kwargs`` that __init__ of the class Input looks up: ``"key" in kwargs``, ``kwargs["key"]``, ``kwargs.get("key")``."""
    (init,) = [node for cls in tree.body if isinstance(cls, ast.ClassDef) and cls.name == "Input"
               for node in cls.body if isinstance(node, ast.FunctionDef) and node.name == "__init__"]  # fmt: skip
    keys = set()
    for node in ast.walk(init):
        if isinstance(node, ast.Compare) and "kwargs" in ast.unparse(node.comparators[0]) and isinstance(node.left, ast.Constant):
            keys.add(node.left.value)
        elif isinstance(node, ast.Subscript) and ast.unparse(node.value) == "kwargs" and isinstance(node.slice, ast.Constant):
            keys.add(node.slice.value)
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in ("kwargs.get", "kwargs.pop"):
            keys.add(node.args[0].value)
    return keys


if __name__ == "__main__":
    main(Path(sys.argv[1]))
