"""Runs the tests of the Terraform modules; test.sh calls it. Needs terraform, the provider, and moto."""

import contextlib
import json
import os
import pathlib
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request

import arguments
import documents
import properties

ROOT = pathlib.Path(__file__).resolve().parent.parent
REGION = "eu-central-1"
# One apply waits a minute for load balancers; a call that hangs must not hang the tests.
LONGEST = 420


class Failed(Exception):
    """A check did not hold; the text says which."""


def run(*command, cwd, env=None, good=(0,)):
    done = subprocess.run(
        command, cwd=cwd, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=LONGEST
    )
    if done.returncode not in good:
        raise Failed(f"{' '.join(command)} in {pathlib.Path(cwd).name} ended with {done.returncode}:\n{done.stdout[-6000:]}")
    return done


# --- Terraform with the provider of this machine, and AWS by moto -------------------------------------------------

def environment(work, port):
    """The provider comes from a filesystem mirror where COS_TERRAFORM_MIRROR names one, else from the registry."""
    settings = work / "terraform.rc"
    mirror = os.environ.get("COS_TERRAFORM_MIRROR")
    settings.write_text(
        f'provider_installation {{\n  filesystem_mirror {{\n    path = "{mirror}"\n  }}\n}}\n' if mirror else ""
    )
    return {
        **{key: value for key, value in os.environ.items() if not key.startswith(("AWS_", "TF_"))},
        "TF_CLI_CONFIG_FILE": str(settings),
        "TF_IN_AUTOMATION": "1",
        "TF_INPUT": "0",
        "TF_CLI_ARGS": "-no-color",
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_REGION": REGION,
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_MAX_ATTEMPTS": "2",
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    }


@contextlib.contextmanager
def moto(work):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with open(work / "moto.log", "w") as log:
        server = subprocess.Popen(
            [sys.executable, str(ROOT / "tests" / "moto_server.py"), str(port)], stdout=log, stderr=log
        )
        try:
            deadline = time.monotonic() + 90
            while True:
                try:
                    urllib.request.urlopen(f"http://127.0.0.1:{port}/moto-api/data.json", timeout=5).close()
                    break
                except OSError as error:
                    if server.poll() is not None or time.monotonic() > deadline:
                        raise Failed(f"moto did not start: {error}\n{(work / 'moto.log').read_text()[-2000:]}") from error
                    time.sleep(0.3)
            yield port
        finally:
            server.terminate()
            server.wait()


def clients(port):
    import boto3

    def client(service):
        return boto3.client(
            service, region_name=REGION, endpoint_url=f"http://127.0.0.1:{port}",
            aws_access_key_id="test", aws_secret_access_key="test",
        )

    return client


# --- The tests ----------------------------------------------------------------------------------------------------

def formatting(tree, env):
    run("terraform", "fmt", "-check", "-diff", "-recursive", cwd=tree, env=env)


def documentation(tree, env):
    wrong = documents.stale()
    if wrong:
        raise Failed("out of date, run tests/documents.py: " + ", ".join(wrong))


def shared_variables(tree, env):
    """A variable that several modules have is the same in all of them."""
    wrong = documents.differing()
    if wrong:
        raise Failed("differ between modules: " + ", ".join(wrong))


def version_six(tree, env):
    wrong = arguments.unknown()
    if wrong:
        raise Failed("not in version 6 of the provider:\n" + "\n".join(wrong))


def validation(tree, env):
    """Each example, and by them each module; an argument that the provider does not know ends here."""
    reached = set()
    for example in sorted(path.parent for path in tree.glob("examples/*/main.tf")):
        run("terraform", "init", "-backend=false", cwd=example, env=env)
        said = json.loads(run("terraform", "validate", "-json", cwd=example, env=env).stdout)
        if said["diagnostics"]:
            raise Failed(f"{example.name}: {said['diagnostics']}")
        for module in json.loads((example / ".terraform/modules/modules.json").read_text())["Modules"]:
            reached.add((example / module["Dir"]).resolve())
    missing = [it.name for it in tree.resolve().glob("modules/*") if it not in reached]
    if missing:
        raise Failed("no example uses the modules " + ", ".join(missing))


def inputs_and_partitions(tree, env):
    run("terraform", "init", "-backend=false", cwd=tree, env=env)
    done = run("terraform", "test", cwd=tree, env=env)
    print("      " + done.stdout.strip().splitlines()[-1])


def user_data(state):
    """What Terraform renders is what the agent reads, where an agent is given."""
    agent = os.environ.get("COS_AGENT")
    documents_by_group = state["values"]["outputs"]["user_data"]["value"]
    properties.user_data(documents_by_group)
    if not agent:
        print("      skipped: cos-agent check of the user-data; COS_AGENT names no agent")
        return
    with tempfile.TemporaryDirectory() as folder:
        for group, text in documents_by_group.items():
            file = pathlib.Path(folder) / f"{group}.yaml"
            file.write_text(properties.node_document(text))
            done = run(agent, "check", str(file), cwd=folder, good=range(8))
            # Keys that an agent of today knows and does not act on yet are no fault of the document.
            faults = [line for line in done.stdout.splitlines() if line.startswith(str(file))]
            faults = [line for line in faults if "has no effect in this version" not in line]
            if done.returncode and faults:
                raise Failed(f"cos-agent refuses the user-data of {group}:\n{done.stdout}")


def platform(tree, env, port):
    """The root example: apply, what it made, a second plan, a promoted image, destroy."""
    example = tree / "examples" / "root-example"
    aws = clients(port)
    images = [it["ImageId"] for it in aws("ec2").describe_images(Owners=["amazon"])["Images"]][:2]
    promote = lambda image: aws("ssm").put_parameter(
        Name="/cos/ami/stable", Value=image, Type="String", DataType="aws:ec2:image", Overwrite=True
    )
    promote(images[0])
    certificate = aws("acm").request_certificate(DomainName="cos.example")["CertificateArn"]
    (example / "test.auto.tfvars.json").write_text(json.dumps(
        {"certificate_arn": certificate, "operators": {"office": "10.0.0.0/8"}, "deletion_protection": False}
    ))

    def step(name, act):
        began = time.monotonic()
        result = act()
        print(f"      root-example: {name} {time.monotonic() - began:.0f} s", flush=True)
        return result

    run("terraform", "init", "-backend=false", cwd=example, env=env)
    try:
        step("apply", lambda: run("terraform", "apply", "-auto-approve", "-parallelism=20", cwd=example, env=env))
        state = json.loads(run("terraform", "show", "-json", cwd=example, env=env).stdout)
        properties.check(state, Failed)
        properties.planted(state, Failed)
        user_data(state)
        again = step("second plan", lambda: run("terraform", "plan", "-detailed-exitcode", "-parallelism=20", cwd=example, env=env, good=(0, 2)))
        if again.returncode == 2:
            raise Failed(f"the second plan is not empty:\n{again.stdout[-6000:]}")
        promote(images[1])
        # What is there was just read; the parameter is read in any case.
        step("plan after a promoted image", lambda: run("terraform", "plan", "-out=promoted", "-refresh=false", cwd=example, env=env))
        properties.promoted(json.loads(run("terraform", "show", "-json", "promoted", cwd=example, env=env).stdout), images[1], Failed)
    finally:
        step("destroy", lambda: run("terraform", "destroy", "-auto-approve", "-parallelism=20", cwd=example, env=env))
    left = properties.leftovers(aws)
    if left:
        raise Failed(f"destroy left {left}")


def checkov(tree, env):
    program = os.environ.get("COS_CHECKOV")
    if not program:
        print("      skipped: checkov is not installed; COS_CHECKOV names no program")
        return
    skipped = ",".join(line.split()[0] for line in (ROOT / "tests/checkov-skips.txt").read_text().splitlines() if line.startswith("CKV"))
    start = [program, "-m", "checkov.main"] if pathlib.Path(program).name == "python" else [program]
    done = run(*start, "--directory", str(tree), "--framework", "terraform", "--quiet", "--compact", "--skip-download",
               "--skip-path", "\\.terraform", "--skip-path", "examples", "--skip-check", skipped, cwd=tree, env={**os.environ, "LOG_LEVEL": "ERROR"}, good=(0, 1))
    if done.returncode:
        raise Failed(done.stdout[-6000:])


def main():
    failures = []

    def test(name, act):
        began = time.monotonic()
        try:
            act()
            print(f"ok    {name} ({time.monotonic() - began:.0f} s)", flush=True)
        except (Failed, subprocess.TimeoutExpired) as error:
            failures.append(name)
            print(f"FAIL  {name} ({time.monotonic() - began:.0f} s)\n{error}", flush=True)

    with tempfile.TemporaryDirectory(prefix="cos-terraform-") as folder:
        work = pathlib.Path(folder)
        # Terraform writes beside what it runs: each part works on a copy.
        trees = {name: work / name for name in ("static", "platform")}
        for tree in trees.values():
            shutil.copytree(ROOT, tree, ignore=shutil.ignore_patterns(".terraform*", "*.tfstate*", "__pycache__"))
        with moto(work) as port:
            env = environment(work, port)
            tree = trees["static"]
            # The platform mostly waits; the rest runs beside it.
            beside = threading.Thread(target=test, args=("the platform on moto", lambda: platform(trees["platform"], env, port)))
            beside.start()
            test("formatting", lambda: formatting(tree, env))
            test("documents are true", lambda: documentation(tree, env))
            test("shared variables are the same", lambda: shared_variables(tree, env))
            test("arguments exist in provider version 6", lambda: version_six(tree, env))
            test("checkov", lambda: checkov(tree, env))
            test("examples and modules are valid", lambda: validation(tree, env))
            test("wrong inputs are refused; partitions", lambda: inputs_and_partitions(tree, env))
            beside.join()
    total = 8
    print(f"terraform: {total - len(failures)} passed, {len(failures)} failed")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
