#!/usr/bin/env bash
# Installs the applications that `make apps` runs behind the proxy: from PyPI, pinned by requirements.txt, into
# .tools/apps. Run again it does nothing.
set -euo pipefail
cd "$(dirname "$0")/../.."

want=$(sha256sum tests/apps/requirements.txt | cut -d' ' -f1)
[ "$(cat .tools/apps/stamp 2>/dev/null)" = "$want" ] && exit 0
python3 -m venv --clear .tools/apps
.tools/apps/bin/pip install --quiet --disable-pip-version-check --requirement tests/apps/requirements.txt
echo "$want" > .tools/apps/stamp
