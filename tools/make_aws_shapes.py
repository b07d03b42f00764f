"""Write the table of AWS KMS request shapes from botocore's model of the service: `python tools/make_aws_shapes.py`.

Only facts go in: operations, members, types, constraints and what is required. No documentation. Shapes that no request
reaches are left out. The runtime reads the table (src/keyvault_lite/wire/aws/shapes.json) and never botocore.
"""

import json
from pathlib import Path
from typing import Any

import botocore.loaders

TABLE = Path(__file__).parents[1] / "src" / "keyvault_lite" / "wire" / "aws" / "shapes.json"
FACTS = ("type", "min", "max", "pattern", "enum", "required")


def _shape(raw: dict[str, Any]) -> dict[str, Any]:
    shape = {name: raw[name] for name in FACTS if name in raw}
    if raw["type"] == "structure":
        shape["members"] = {name: member["shape"] for name, member in raw["members"].items()}
    elif raw["type"] == "list":
        shape["member"] = raw["member"]["shape"]
    elif raw["type"] == "map":
        shape["key"], shape["value"] = raw["key"]["shape"], raw["value"]["shape"]
    if raw.get("sensitive"):
        shape["sensitive"] = True
    return shape


def _inside(shape: dict[str, Any]) -> list[str]:
    return [*shape.get("members", {}).values(), *(shape[name] for name in ("member", "key", "value") if name in shape)]


def table(model: dict[str, Any]) -> dict[str, Any]:
    """The table of one service model."""
    operations = {name: raw["input"]["shape"] for name, raw in sorted(model["operations"].items())}
    shapes: dict[str, Any] = {}
    waiting = list(operations.values())
    while waiting:
        name = waiting.pop()
        if name not in shapes:
            shapes[name] = _shape(model["shapes"][name])
            waiting += _inside(shapes[name])
    return {
        "api": model["metadata"]["apiVersion"],
        "target": model["metadata"]["targetPrefix"],
        "operations": operations,
        "shapes": dict(sorted(shapes.items())),
    }


def written(made: dict[str, Any]) -> str:
    """The table as text: one shape a line."""
    lines = [f'"{name}": {json.dumps(made[name])}' for name in ("api", "target")]
    for part in ("operations", "shapes"):
        rows = ",\n".join(f'  "{name}": {json.dumps(value)}' for name, value in made[part].items())
        lines.append(f'"{part}": {{\n{rows}\n}}')
    return "{\n" + ",\n".join(lines) + "\n}\n"


if __name__ == "__main__":
    TABLE.write_text(written(table(botocore.loaders.Loader().load_service_model("kms", "service-2"))))
    print(f"wrote {TABLE.name}")
