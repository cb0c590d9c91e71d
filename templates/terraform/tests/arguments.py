"""Checks that every argument of a resource exists in version 6 of the provider, too; 5.100 itself checks its own.

provider-6.json holds the names of each resource that we use. It was taken from the documentation links in the bindings
that the CDK for Terraform generates of the provider: npm package @cdktf/provider-aws, unpacked, then
`arguments.py FOLDER` to write it anew.
"""

import json
import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
NAMES = pathlib.Path(__file__).resolve().parent / "provider-6.json"
HEAD = re.compile(r'^(resource|data) "(aws_\w+)" "\w+" \{$')
BLOCK = re.compile(r'^\s*(?:dynamic "(\w+)"|(\w+)) \{$')
ARGUMENT = re.compile(r"^\s*(\w+)\s+=|^\s*(\w+)=")
# What Terraform itself reads, whatever the resource.
META = {"count", "for_each", "depends_on", "provider", "content", "lifecycle", "precondition", "postcondition",
        "condition", "error_message", "create_before_destroy", "ignore_changes", "labels", "iterator"}


def used():
    """File, kind of block and name of every argument and nested block; `terraform fmt` has made lines of them."""
    for file in sorted(ROOT.glob("**/*.tf")):
        if ".terraform" in file.parts:
            continue
        kind, depth, inside = None, 0, 0
        for line in file.read_text().splitlines():
            text = re.sub(r'"(?:[^"\\]|\\.)*"', '""', line.split(" # ")[0]) if not HEAD.match(line) else line
            if head := HEAD.match(line):
                kind, depth = ("data." if head[1] == "data" else "") + head[2], 1
            elif kind and inside:
                inside += len(re.findall(r"[\[{(]", text)) - len(re.findall(r"[\]})]", text))
            elif kind and text.strip() == "}":
                depth -= 1
                kind = kind if depth else None
            elif kind and (block := BLOCK.match(line)):
                depth += 1
                yield file, kind, block[1] or block[2]
            elif kind and (argument := ARGUMENT.match(line)):
                yield file, kind, argument[1] or argument[2]
                inside = len(re.findall(r"[\[{(]", text)) - len(re.findall(r"[\]})]", text))


def unknown():
    """Arguments that version 6 does not have."""
    names = json.loads(NAMES.read_text())
    return sorted({
        f"{file.relative_to(ROOT)}: {kind}.{name}" if kind in names else f"{file.relative_to(ROOT)}: {kind} is not in {NAMES.name}"
        for file, kind, name in used() if kind not in names or name not in names[kind] and name not in META
    })


def write(folder):
    names = {}
    for kind in sorted({kind for _, kind, _ in used()}):
        path = kind.replace("data.aws_", "data-aws-").replace("aws_", "").replace("_", "-")
        text = (pathlib.Path(folder) / "lib" / path / "index.d.ts").read_text()
        names[kind] = sorted(set(re.findall(r"#(\w+) \w+#", text)))
    NAMES.write_text(json.dumps(names, indent=1) + "\n")


if __name__ == "__main__":
    write(sys.argv[1])
