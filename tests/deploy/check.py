#!/usr/bin/env python3
"""Checks everything in deploy/: the Kubernetes manifests against the schemas and against each other, the
configuration inside them against the binary, the systemd unit, the Dockerfile, and the image's file system.

    tests/deploy/check.py [--binary target/debug/portcullis]

Installs what it needs: pinned packages from PyPI into .tools/deploy; systemd, openssl and
python3-venv from Debian where they are missing and this is root. A check that can't run is a failure. Exit status: 0 if everything is fine, else 1.
"""

import argparse
import copy
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
MANIFESTS = DEPLOY / "kubernetes"
REQUIREMENTS = Path(__file__).with_name("requirements.txt")
TOOLS = ROOT / ".tools" / "deploy"

# The oldest version that has native sidecars, and the newest whose schemas are packaged.
KUBERNETES_VERSIONS = ["1.29", "1.37"]
# `systemd-analyze security` says 1.4 (of 10, less is better); its option counts tenths.
EXPOSURE_THRESHOLD = 14
# What the image may hold beside the shared libraries.
IMAGE_FILES = {
    "usr/bin/portcullis",
    "etc/ssl/certs/ca-certificates.crt",
    "etc/passwd",
    "etc/group",
    "etc/nsswitch.conf",
}


class Failure(Exception):
    """A check found something wrong, or could not run."""


def require(condition, message):
    if not condition:
        raise Failure(message)


def run(*command, **options):
    """Runs a command; returns its exit status and everything it printed."""
    result = subprocess.run(
        [str(part) for part in command],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=120,
        check=False,
        **options,
    )
    return result.returncode, result.stdout.strip()


def apt_install(*packages):
    """Installs Debian packages where that is possible; whoever needs them looks whether it was."""
    if os.geteuid() == 0 and shutil.which("apt-get"):
        print(f"installing {' '.join(packages)}", flush=True)
        options = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        command = ["apt-get", "install", "-y", "-qq", "--no-install-recommends", *packages]
        subprocess.run(["apt-get", "update", "-qq"], stdout=subprocess.DEVNULL, check=False)
        subprocess.run(command, env=options, stdout=subprocess.DEVNULL, check=False)


def make_environment():
    """Debian's python3 alone can't: it leaves pip to another package."""
    if run(sys.executable, "-m", "venv", TOOLS)[0] != 0:
        apt_install("python3-venv")
        shutil.rmtree(TOOLS, ignore_errors=True)
        code, output = run(sys.executable, "-m", "venv", TOOLS)
        if code != 0:
            sys.exit(f"FAIL  python3 -m venv: {output}\nInstall the package python3-venv.")


def enter_tools():
    """Goes on in an environment that has exactly the pinned packages."""
    python = TOOLS / "bin" / "python"
    stamp = TOOLS / "requirements.txt"
    wanted = REQUIREMENTS.read_text()
    if not stamp.exists() or stamp.read_text() != wanted:
        print(f"installing the packages of {REQUIREMENTS.relative_to(ROOT)} into {TOOLS.relative_to(ROOT)}", flush=True)
        shutil.rmtree(TOOLS, ignore_errors=True)
        make_environment()
        pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", "-r", REQUIREMENTS]
        subprocess.run(pip, check=True)
        stamp.write_text(wanted)
    if Path(sys.prefix) != TOOLS:
        os.execv(python, [python, __file__, *sys.argv[1:]])


# Kubernetes


def manifests():
    """Every object of the folder, by kind."""
    import yaml

    listed = yaml.safe_load((MANIFESTS / "kustomization.yaml").read_text())["resources"]
    there = {path.name for path in MANIFESTS.glob("*.yaml")} - {"kustomization.yaml"}
    require(set(listed) == there, f"kustomization.yaml lists {sorted(listed)}, but there are {sorted(there)}")
    objects = {}
    for name in listed:
        for document in yaml.safe_load_all((MANIFESTS / name).read_text()):
            require(document["kind"] not in objects, f"{name}: a second {document['kind']}")
            objects[document["kind"]] = document
    return objects


def schema_errors(document, version):
    import kubernetes_validate

    try:
        kubernetes_validate.validate(document, version, strict=True)
    except kubernetes_validate.ValidationError as error:
        return f"{document['kind']}, Kubernetes {version}: {error.message} at {list(error.path)}"
    return None


def check_schemas():
    for document in manifests().values():
        for version in KUBERNETES_VERSIONS:
            error = schema_errors(document, version)
            require(error is None, error)


def check_schemas_can_fail():
    broken = copy.deepcopy(manifests()["Deployment"])
    broken["spec"]["template"]["spec"]["containers"][0]["readinesProbe"] = {}
    require(schema_errors(broken, KUBERNETES_VERSIONS[-1]), "an unknown key was not noticed")


def pod():
    return manifests()["Deployment"]["spec"]["template"]["spec"]


def containers():
    spec = pod()
    return spec.get("initContainers", []) + spec["containers"]


def portcullis():
    return next(container for container in containers() if container["name"] == "portcullis")


def configuration():
    import yaml

    text = manifests()["ConfigMap"]["data"]["portcullis.yaml"]
    return text, yaml.safe_load(text)


def check_references():
    """Labels, ports, volumes and Secrets mean each other."""
    objects = manifests()
    labels = objects["Deployment"]["spec"]["template"]["metadata"]["labels"]
    selectors = {
        "Deployment": objects["Deployment"]["spec"]["selector"]["matchLabels"],
        "Service": objects["Service"]["spec"]["selector"],
        "NetworkPolicy": objects["NetworkPolicy"]["spec"]["podSelector"]["matchLabels"],
    }
    for kind, selector in selectors.items():
        require(selector.items() <= labels.items(), f"{kind} selects {selector}, the Pods have {labels}")

    volumes = {volume["name"]: volume for volume in pod()["volumes"]}
    for container in containers():
        for mount in container.get("volumeMounts", []):
            require(mount["name"] in volumes, f"{container['name']} mounts {mount['name']}, which is no volume")
            require("subPath" not in mount, f"{mount['name']}: a subPath mount never changes")
    secret = objects["Secret"]
    for item in volumes["secrets"]["secret"]["items"]:
        require(item["key"] in secret["stringData"], f"the Secret has no {item['key']}")
    require(volumes["secrets"]["secret"]["secretName"] == secret["metadata"]["name"], "another Secret is mounted")
    config_map = objects["ConfigMap"]["metadata"]["name"]
    require(volumes["configuration"]["configMap"]["name"] == config_map, "another ConfigMap is mounted")
    for variable in portcullis()["env"]:
        reference = variable.get("valueFrom", {}).get("secretKeyRef")
        if reference:
            known = reference["name"] == secret["metadata"]["name"] and reference["key"] in secret["stringData"]
            require(known, f"{variable['name']}: the Secret has no {reference}")


def check_ports():
    """What listens, what is opened, and what is not."""
    objects, (_, config) = manifests(), configuration()
    service = config["services"][0]
    ports = {port["name"]: port["containerPort"] for port in portcullis()["ports"]}
    require(ports["https"] == service["exposedPort"], "the container port https is not exposedPort")
    probes = int(config["admin"]["probes"].rsplit(":", 1)[1])
    require(ports["probes"] == probes, "the container port probes is not that of admin.probes")
    require(set(ports.values()) == {service["exposedPort"], probes}, "a port too many")
    require("listen" not in config["admin"], "the admin listener stays on loopback")
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        require(portcullis()[probe]["httpGet"]["port"] == "probes", f"{probe} asks another port")
    # By number: before Kubernetes 1.33 the names of a native sidecar's ports reached neither Services nor, with some
    # network plugins, NetworkPolicies.
    users = service["exposedPort"]
    require([p["targetPort"] for p in objects["Service"]["spec"]["ports"]] == [users], "the Service opens more")

    opened = {
        port["port"]: rule.get("from") for rule in objects["NetworkPolicy"]["spec"]["ingress"] for port in rule["ports"]
    }
    require(set(opened) == {users, probes}, f"the NetworkPolicy opens {list(opened)}")
    require(opened[users] is None and opened[probes], "users come from anywhere, probes from monitoring only")
    outward = [port["port"] for rule in objects["NetworkPolicy"]["spec"]["egress"] for port in rule["ports"]]
    require(outward == [53, 53, 443], f"egress is {outward}, not DNS and the identity provider")

    app = next(container for container in containers() if container["name"] == "app")
    command = app["command"]
    require("ports" not in app, "the application's port is nobody's business")
    require(command[command.index("--bind") + 1] == "127.0.0.1", "the application is not bound to loopback")
    require(str(service["port"]) in command, "the application listens elsewhere than on `port`")


def check_hardening():
    spec = pod()
    require(spec["automountServiceAccountToken"] is False, "no container needs the API server")
    require(spec["securityContext"]["runAsNonRoot"] is True, "runs as root")
    require(spec["securityContext"]["seccompProfile"]["type"] == "RuntimeDefault", "no seccomp profile")
    for container in containers():
        context, name = container["securityContext"], container["name"]
        require(context["allowPrivilegeEscalation"] is False, f"{name} may gain privileges")
        require(context["readOnlyRootFilesystem"] is True, f"{name} can write its image")
        require(context["capabilities"] == {"drop": ["ALL"]}, f"{name} keeps capabilities")
        require("memory" in container["resources"]["limits"], f"{name} has no memory limit")


# The configuration inside the ConfigMap


def check_configuration(binary):
    """The binary accepts it, with variables and files as the Pod has them; and it refuses a broken one."""
    require(binary.exists(), f"{binary} is not there: run `cargo build` first")
    if not shutil.which("openssl"):
        apt_install("openssl")
    text, _ = configuration()
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        secrets, certificate = folder / "secrets", folder / "certificate"
        secrets.mkdir()
        certificate.mkdir()
        (secrets / "client-secret").write_text("not a real secret\n")
        code, key = run("openssl", "rand", "-base64", "32")
        require(code == 0, f"openssl: {key}")
        (secrets / "session-keys").write_text(key + "\n")
        code, output = run(
            *"openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30".split(),
            *("-subj", "/CN=test", "-addext", "subjectAltName=DNS:app.example.com"),
            *("-keyout", certificate / "tls.key", "-out", certificate / "tls.crt"),
        )
        require(code == 0, f"openssl: {output}")
        values = {"SECRETS": str(secrets), "CERTIFICATE": str(certificate), "STATE_DIRECTORY": str(folder / "state")}
        environment = {"PATH": os.environ["PATH"], "CLIENT_ID": "example"}
        for variable in portcullis()["env"]:
            name = variable["name"]
            require(name in values or name in environment, f"a test value for {name} is missing here")
        environment.update(values)

        file = folder / "portcullis.yaml"
        for variant, expected in [(text, 0), (text.replace("OIDCClientID", "OIDCClientsID"), 64)]:
            file.write_text(variant)
            code, output = run(binary, "check", "--offline", "-c", file, env=environment)
            what = "the configuration" if expected == 0 else "a configuration with an unknown key"
            require(code == expected, f"{what}: exit status {code} instead of {expected}\n{output}")


# systemd


def systemd_analyze():
    if not shutil.which("systemd-analyze"):
        apt_install("systemd")
    found = shutil.which("systemd-analyze")
    require(found, "systemd-analyze is not there: install the package systemd")
    return found


def with_unit(check, text=None):
    """Calls `check` with the unit's file, its command replaced by one that exists here."""
    text = text or (DEPLOY / "portcullis.service").read_text()
    require(re.search(r"^ExecStart=/usr/bin/portcullis run -c /etc/portcullis$", text, re.M), "ExecStart is another")
    with tempfile.TemporaryDirectory() as folder:
        unit = Path(folder) / "portcullis.service"
        unit.write_text(text.replace("=/usr/bin/portcullis ", "=/bin/true "))
        return check(unit)


def check_unit():
    analyze = systemd_analyze()
    code, output = with_unit(lambda unit: run(analyze, "verify", unit))
    # It exits with 0 even where it ignored a key: any word is one too many.
    require(code == 0 and not output, output)


def check_unit_can_fail():
    analyze = systemd_analyze()
    text = (DEPLOY / "portcullis.service").read_text().replace("NoNewPrivileges=", "NoNewPrivilege=")
    _, output = with_unit(lambda unit: run(analyze, "verify", unit), text)
    require("NoNewPrivilege" in output, "a misspelt key was not noticed")


def check_exposure():
    analyze = systemd_analyze()
    options = ["--offline=true", f"--threshold={EXPOSURE_THRESHOLD}", "--no-pager"]
    code, output = with_unit(lambda unit: run(analyze, "security", *options, unit))
    require(code == 0, output)


# The image


def check_dockerfile():
    code, output = run(TOOLS / "bin" / "hadolint", DEPLOY / "Dockerfile")
    require(code == 0 and not output, output)
    text = (DEPLOY / "Dockerfile").read_text()
    toolchain = re.search(r'channel = "([^"]+)"', (ROOT / "rust-toolchain.toml").read_text()).group(1)
    require(f"rust:{toolchain}-" in text and f"RUSTUP_TOOLCHAIN={toolchain}\n" in text, f"not built by Rust {toolchain}")
    last = text[text.rindex("\nFROM ") :]
    require(re.search(r"^USER 65532:65532$", last, re.M), "the image runs as root")
    require(last.startswith("\nFROM scratch\n"), "the image is not from scratch")


def check_image(binary):
    """The file system that the Dockerfile puts together is complete: the binary starts with nothing else."""
    require(binary.exists(), f"{binary} is not there: run `cargo build` first")
    with tempfile.TemporaryDirectory() as folder:
        code, output = run(DEPLOY / "image.sh", binary, folder)
        require(code == 0, output)
        files = {str(path.relative_to(folder)) for path in Path(folder).rglob("*") if path.is_file()}
        others = {name for name in files - IMAGE_FILES if not re.search(r"\.so\.\d+$", name)}
        require(files >= IMAGE_FILES and not others, f"missing {IMAGE_FILES - files}, too many {others}")
        enter = ["chroot", "--userspec=65532:65532"] if os.geteuid() == 0 else ["unshare", "--map-root-user", "chroot"]
        code, output = run(*enter, folder, "/usr/bin/portcullis", "--version", env={"PATH": os.environ["PATH"]})
        require(code == 0 and output.startswith("portcullis "), f"exit status {code}: {output}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--binary", type=Path, default=ROOT / "target" / "debug" / "portcullis")
    arguments = parser.parse_args()
    enter_tools()
    binary = arguments.binary.resolve()
    checks = {
        "kubernetes: schemas": check_schemas,
        "kubernetes: the schemas notice a mistake": check_schemas_can_fail,
        "kubernetes: references": check_references,
        "kubernetes: ports": check_ports,
        "kubernetes: hardening": check_hardening,
        "kubernetes: the configuration": lambda: check_configuration(binary),
        "systemd: verify": check_unit,
        "systemd: verify notices a mistake": check_unit_can_fail,
        "systemd: exposure": check_exposure,
        "image: Dockerfile": check_dockerfile,
        "image: file system": lambda: check_image(binary),
    }
    failed = 0
    for name, check in checks.items():
        try:
            check()
            print(f"ok    {name}")
        except Failure as failure:
            failed += 1
            print(f"FAIL  {name}: {failure}")
        except Exception as error:  # pylint: disable=broad-except
            failed += 1
            print(f"FAIL  {name}: could not run: {type(error).__name__}: {error}")
    print(f"deploy: {len(checks) - failed} of {len(checks)} checks passed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
