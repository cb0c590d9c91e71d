"""Writes what the documents say of the modules from the modules themselves: inputs and outputs of each README, and the
table and picture of flows in the guide. Without arguments it writes; `--check` only says what is out of date.
"""

import csv
import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
GUIDE = ROOT.parent.parent / "_docs" / "guide" / "provisioning.md"
RULES = ROOT / "modules" / "sgrules" / "rules.csv"
# `terraform fmt` indents what belongs to a block by two spaces, so that lines tell what is what.
BLOCK = re.compile(r'^(variable|output) "([^"]+)" \{\n(.*?)^\}', re.M | re.S)
ATTRIBUTE = re.compile(r"^  (\w+)\s*= (.*?)(?=^  \w|\Z)", re.M | re.S)


def blocks(module, kind):
    """Name and attributes of every variable or output of a module, in order."""
    for file in sorted(module.glob("*.tf")):
        for found, name, body in BLOCK.findall(file.read_text()):
            if found == kind:
                yield name, {key: value.strip() for key, value in ATTRIBUTE.findall(body)}


def cell(text):
    return " ".join(text.split()).replace("|", "\\|")


def inputs_and_outputs(module):
    lines = ["## Inputs", ""]
    inputs = list(blocks(module, "variable"))
    lines += ["| input | type | default | meaning |", "|---|---|---|---|"] if inputs else ["None."]
    for name, it in inputs:
        default = f"`{cell(it['default'])}`" if "default" in it else "required"
        kind = cell(it.get("type", "any"))
        kind = kind if len(kind) <= 40 else kind.split("(")[0] + "(…)" if not kind.startswith(("list(object", "map(object")) else kind.split("({")[0] + "(…))"
        lines.append(f"| `{name}` | `{kind}` | {default} | {cell(it['description'].strip(chr(34))).replace(chr(92) + chr(34), chr(34))} |")
    lines += ["", "## Outputs", ""]
    outputs = list(blocks(module, "output"))
    lines += ["| output | meaning |", "|---|---|"] if outputs else ["None."]
    lines += [f"| `{name}` | {cell(it['description'].strip(chr(34)))} |" for name, it in outputs]
    return "\n".join(lines)


def rules():
    with RULES.open(newline="") as file:
        return list(csv.DictReader(file))


def table():
    lines = ["| from | to | ports | only | why |", "|---|---|---|---|---|"]
    for row in rules():
        lines.append(f"| {row['from']} | {row['to']} | {row['protocol']} {row['ports']} | {row['when']} | {row['why']} |")
    return "\n".join(lines)


def picture():
    """The same as a graph; plain variants and flows of a group with itself are left to the table."""
    arrows = {}
    for row in rules():
        if row["when"] in ("no-tls", "http", "content-connector-http") or row["to"] in (row["from"], "self"):
            continue
        arrows.setdefault((row["from"], row["to"]), []).append(f"{row['protocol']} {row['ports']}")
    lines = ["```mermaid", "flowchart LR"]
    for (start, end), ports in arrows.items():
        lines.append(f'  {start}["{start}"] -->|{", ".join(ports)}| {end}["{end}"]')
    return "\n".join([*lines, "```"])


def replaced(text, mark, content):
    """The text with what stands between the marks replaced; they are added at the end where there are none."""
    begin, end = f"<!-- {mark}: written by templates/terraform/tests/documents.py -->", f"<!-- end of {mark} -->"
    if begin not in text:
        text = text.rstrip() + f"\n\n{begin}\n{end}\n"
    before, rest = text.split(begin, 1)
    return before + begin + "\n" + content + "\n" + end + rest.split(end, 1)[1]


def wanted():
    """Every document and what it should hold."""
    for module in [ROOT, *sorted(ROOT.glob("modules/*"))]:
        readme = module / "README.md"
        text = readme.read_text() if readme.exists() else f"# {module.name}\n"
        yield readme, replaced(text, "inputs and outputs", inputs_and_outputs(module))
    text = GUIDE.read_text() if GUIDE.exists() else ""
    yield GUIDE, replaced(replaced(text, "picture of flows", picture()), "table of flows", table())


def stale():
    return [str(path.relative_to(ROOT.parent.parent)) for path, text in wanted() if not path.exists() or path.read_text() != text]


# What these hand on to node-group, they must describe alike.
OF_NODES = ("node-group", "consul", "nomad", "nomad-datacenter")


def differing():
    """Variables that are not the same in every module that has them, where they should be."""
    handed_on = {name for name, _ in blocks(ROOT / "modules" / "node-group", "variable")}
    texts = {}
    for module in sorted(ROOT.glob("modules/*")):
        for file in module.glob("*.tf"):
            for found, name, body in BLOCK.findall(file.read_text()):
                if found == "variable" and (module.name in OF_NODES and name in handed_on or name == "cluster_name"):
                    texts.setdefault(name, set()).add(body)
    return sorted(name for name, bodies in texts.items() if len(bodies) > 1)


if __name__ == "__main__":
    if sys.argv[1:] == ["--check"]:
        old = stale()
        print("\n".join(old))
        sys.exit(1 if old else 0)
    for path, text in wanted():
        path.write_text(text)
