#!/usr/bin/env python3
"""Makes messages.json: MIME messages as Python's email package writes them, and the parts that it reads in them.

cloud-init reads user-data with this package, so that what it sees in a message is what the agent must see.
Run it by hand with any Python 3.8 or later, and commit the result: python3 agent/tests/mime/make.py
"""

import base64
import email
import email.encoders
import email.policy
import json
import pathlib
import random
from email.message import Message
from email.mime.application import MIMEApplication
from email.mime.base import MIMEBase
from email.mime.message import MIMEMessage
from email.mime.multipart import MIMEMultipart
from email.mime.text import MIMEText

CHANCE = random.Random(20260301)

BODIES = [
    "version: 1\nrole: nomad-client\n",
    "version: 1\nrole: nomad-client",
    "#cloud-config\nruncmd:\n  - [cos-agent, apply]\n",
    "#!/bin/sh\necho 'x = 1' # a long line " + "that goes on and on " * 12 + "\n",
    "",
    "\n\n--\n--no-boundary\n--x--\n",
    "naïve: \u2713 ünïcode\n",
    "trailing space \nand tab\t\n",
    "= signs == and =3D\n.\nFrom here on\n",
]
TYPES = [
    "text/plain",
    "text/cloud-config",
    "text/x-shellscript",
    "application/vnd.cos.node+yaml",
    "application/x-gzip",
]
BOUNDARIES = ["MIMEBOUNDARY", "===============0123456789==", "a b'c()+_,-./:=?", "--", "x" * 70]
NAMES = [None, "node.yaml", "a name.yaml", 'quo"te.yaml', "semi;colon"]


def leaf():
    kind, _, subtype = CHANCE.choice(TYPES).partition("/")
    body = CHANCE.choice(BODIES)
    data = body.encode()
    way = CHANCE.choice(["text", "base64", "quoted-printable", "8bit", "plain"])
    if kind == "text" and way == "text":
        part = MIMEText(body, subtype, "us-ascii" if body.isascii() else "utf-8")
    elif way == "base64":
        part = MIMEApplication(data, subtype) if kind == "application" else MIMEBase(kind, subtype)
        if kind != "application":
            part.set_payload(data)
            email.encoders.encode_base64(part)
    elif way == "quoted-printable":
        part = MIMEBase(kind, subtype)
        part.set_payload(data)
        email.encoders.encode_quopri(part)
    else:
        part = MIMEBase(kind, subtype)
        # Message's own generator writes text.
        part.set_payload(body if body.isascii() else body.encode("ascii", "replace").decode())
        if way == "8bit":
            part["Content-Transfer-Encoding"] = CHANCE.choice(["8bit", "7bit", "binary", "8BIT"])
    name = CHANCE.choice(NAMES)
    if name is not None:
        part.add_header("Content-Disposition", "attachment", filename=name)
    if CHANCE.random() < 0.2:
        part["X-Folded"] = "word " * 30
    if CHANCE.random() < 0.2:
        del part["Content-Type"]
    return part


def tree(depth):
    if depth == 0 or CHANCE.random() < 0.5:
        return leaf()
    if CHANCE.random() < 0.1:
        return MIMEMessage(tree(depth - 1))
    whole = MIMEMultipart(CHANCE.choice(["mixed", "alternative", "digest"]))
    boundary = CHANCE.choice(BOUNDARIES) + CHANCE.choice(["", str(depth)])
    whole.set_boundary(boundary)
    for _ in range(CHANCE.randrange(1, 5)):
        whole.attach(tree(depth - 1))
    if CHANCE.random() < 0.3:
        whole.preamble = "This is for people.\n"
        whole.epilogue = "So is this.\n"
    return whole


def parts(raw):
    """As cloud-init walks a message."""
    found = []
    for part in email.message_from_bytes(raw).walk():
        if part.get_content_maintype() in ("multipart", "message"):
            continue
        name = part.get_filename()
        body = part.get_payload(decode=True)
        found.append(
            {
                "type": part.get_content_type(),
                "name": name,
                "body": base64.b64encode(body).decode(),
            }
        )
    return found


def well_formed(raw):
    """Without anything that the package guessed its way through; and written as it was meant."""
    message = email.message_from_bytes(raw)
    return not any(part.defects for part in message.walk())


def main():
    messages = []
    while len(messages) < 64:
        whole = MIMEMultipart()
        if CHANCE.random() < 0.9:
            whole.set_boundary(CHANCE.choice(BOUNDARIES))
        for _ in range(CHANCE.randrange(1, 4)):
            whole.attach(tree(3))
        if CHANCE.random() < 0.1:
            whole = leaf()
            whole["MIME-Version"] = "1.0"
        raw = whole.as_bytes(
            unixfrom=CHANCE.random() < 0.1,
            policy=email.policy.compat32.clone(
                linesep=CHANCE.choice(["\n", "\r\n"]), max_line_length=CHANCE.choice([64, 78, 998])
            ),
        )
        # A boundary that begins another one, or a body with one, is cut by every reader in its own way.
        if len(raw) < 3500 and well_formed(raw):
            messages.append({"message": base64.b64encode(raw).decode(), "parts": parts(raw)})
    target = pathlib.Path(__file__).with_name("messages.json")
    target.write_text("[\n" + ",\n".join(json.dumps(message) for message in messages) + "\n]\n")
    print(f"{len(messages)} messages, {sum(len(m['parts']) for m in messages)} parts, {target.stat().st_size} bytes")


if __name__ == "__main__":
    main()
