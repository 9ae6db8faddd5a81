#!/usr/bin/env bash
# Writes the hashed requirements files beside this script from pyproject.toml (`make lock`). Arguments go to uv,
# e.g. --upgrade, or --upgrade-package redis. The files name no package index.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
uv=${UV:-.venv/bin/uv}

lock() {
    local name=$1
    shift
    "$uv" pip compile --quiet --universal --generate-hashes --python-version 3.11 \
        --no-header --no-annotate --no-emit-index-url --output-file "requirements/$name.txt" "$@"
    echo "requirements/$name.txt: $(grep -c '^[a-zA-Z]' "requirements/$name.txt") packages"
}

# One resolution for everything that runs together; the parts are taken from it.
lock dev pyproject.toml --extra all --group dev "$@"
part() {
    local name=$1
    shift
    lock "$name" pyproject.toml --constraints requirements/dev.txt "$@"
}
part runtime --extra all
part base
for extra in device-server file-writer scihub data-pipeline client; do part "$extra" --extra "$extra"; done

lock judges --group judges "$@"
lock bootstrap --group bootstrap "$@"
lock build --group build "$@"

if grep -nE '://|index-url|find-links' requirements/*.txt; then
    echo "lock: the lines above name a package index; they must not be committed." >&2
    exit 1
fi
