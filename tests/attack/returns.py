"""Return URLs: see returns.mjs, which does the work."""

import json
import subprocess

import servers

MOST_SECONDS = 900


def attack(count, logins, pages, seed):
    """Rows of the report (what, passed, words)."""
    command = ["node", servers.HERE / "returns.mjs", count, logins, pages, seed]
    result = subprocess.run([str(part) for part in command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=MOST_SECONDS, text=True, check=False)
    *examples, last = result.stdout.splitlines() or [""]
    for example in examples:
        # The provider has something to say about being for tests only.
        if not example.startswith("oidc-provider"):
            print(example)
    if result.returncode != 0:
        return [("return URLs", False, f"returns.mjs ended with {result.returncode}: {last}\n{result.stderr[-2000:]}")]
    return [tuple(row) for row in json.loads(last)]
