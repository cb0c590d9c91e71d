"""Writes AWS's SigV4 test vectors as one JSON file, to standard output.

    python3 vectors.py FOLDER > vectors.json

FOLDER is `aws-signing-test-suite/v4` of the crate aws-sigv4 (as published on crates.io) or, the same, of
github.com/awslabs/aws-c-auth (Apache-2.0 both). Of the vectors that carry a context, those are left out that ask
for what the agent never does: signing without normalising the path, or without the session token; those whose path
needs encoding, which services other than S3 encode twice and the vectors once (the agent's path is always `/`); and
one whose header is folded over several lines, which HTTP has given up. A header with the body's digest, where the
context asks for it, is a header like others here.
"""

import hashlib
import json
import pathlib
import sys
import urllib.parse


def vector(folder):
    context = json.loads((folder / "context.json").read_text())
    if not context["normalize"] or context.get("omit_session_token"):
        return None
    head, _, body = (folder / "request.txt").read_text().partition("\n\n")
    line, *lines = head.splitlines()
    if any(line.startswith(" ") for line in lines):
        return None
    headers = [[part.strip() for part in line.split(":", 1)] for line in lines]
    if context["sign_body"]:
        headers.append(["x-amz-content-sha256", hashlib.sha256(body.encode()).hexdigest()])
    method, _, path = line.removesuffix(" HTTP/1.1").partition(" ")
    if urllib.parse.quote(path.partition("?")[0], safe="/-_.~") != path.partition("?")[0]:
        return None
    signed = (folder / "header-signed-request.txt").read_text()
    authorization = next(line for line in signed.splitlines() if line.startswith("Authorization:"))
    return {
        "name": folder.name,
        "method": method,
        # What a client sends has its query encoded once.
        "path": urllib.parse.quote(path, safe="/?&=%-_.~+"),
        "headers": headers,
        "body": body,
        "region": context["region"],
        "service": context["service"],
        "time": context["timestamp"],
        "access_key_id": context["credentials"]["access_key_id"],
        "secret_access_key": context["credentials"]["secret_access_key"],
        "session_token": context["credentials"].get("token"),
        "authorization": authorization.partition(":")[2].strip(),
    }


def main():
    folders = sorted(path.parent for path in pathlib.Path(sys.argv[1]).glob("*/context.json"))
    vectors = [found for found in map(vector, folders) if found]
    json.dump(vectors, sys.stdout, indent=1, ensure_ascii=False)
    print()


main()
