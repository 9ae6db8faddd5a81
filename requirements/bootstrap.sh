#!/usr/bin/env bash
# Makes a virtual environment from the locked, hashed requirements beside this file; called by the Makefile.
#
#   requirements/bootstrap.sh FOLDER LOCK [editable]
#
# FOLDER: the environment, e.g. .venv. LOCK: requirements/LOCK.txt. "editable" installs this checkout into it as well.
# PYTHON names the interpreter; without it the first usable of python3.13, 3.12, 3.11 and python3 is taken.
# Does nothing if the environment already is what these inputs say; otherwise brings it there, also after an interrupted
# run. It is made anew if it does not run, was made elsewhere (a moved or copied checkout) or is of another Python than
# PYTHON. Two runs at once take turns.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
folder=$1 lock=requirements/$2.txt editable=${3:-}
stamp=$folder/.ready

say() { printf '%s\n' "$*" >&2; }
die() { say "setup: $*"; exit 1; }

# Prints the version and nothing else if this interpreter can be used; explains itself otherwise.
usable() {
    "$1" -I - 2>/dev/null <<'PY' || { echo "does not run"; return 1; }
import sys
version = "%d.%d" % sys.version_info[:2]
if sys.version_info < (3, 11):
    print("is Python " + version + ", too old"); sys.exit(0)
try:
    import ensurepip, venv
except ImportError:
    print("has no venv module (Debian, Ubuntu: apt install python%s-venv)" % version); sys.exit(0)
print(version)
PY
}

compiler() { command -v cc >/dev/null && command -v make >/dev/null; }

find_python() {
    local candidates=(python3.13 python3.12 python3.11 python3) candidate answer refused=""
    if [ -n "${PYTHON:-}" ]; then candidates=("$PYTHON"); fi
    for candidate in "${candidates[@]}"; do
        if command -v "$candidate" >/dev/null; then answer=$(usable "$candidate") || true; else answer="not found"; fi
        case $answer in
        3.1[3-9])
            # The embedded Redis server has no wheel from 3.13 on and is compiled, so an older Python is better without a compiler.
            if [ -n "${PYTHON:-}" ] || compiler; then python=$candidate version=$answer; return; fi
            refused+="  $candidate: from Python 3.13 on a C compiler and make are needed (Debian, Ubuntu: apt install gcc make)"$'\n'
            ;;
        3.1[12]) python=$candidate version=$answer; return ;;
        *) refused+="  $candidate: $answer"$'\n' ;;
        esac
    done
    say "setup: Python 3.11 or newer is needed, with its venv module. Looked at:"
    printf '%s' "$refused" >&2
    die "install one, or name one: make PYTHON=/path/to/python3.12 ..."
}

# What the environment is made from.
wanted() {
    pwd
    cat requirements/bootstrap.sh requirements/bootstrap.txt requirements/build.txt "$lock"
    if [ -n "$editable" ]; then cat pyproject.toml; fi
}

command -v flock >/dev/null || die "the program flock is needed (package util-linux)."
exec 9<requirements
flock -n 9 || { say "setup: waiting for another set-up of this checkout to end"; flock 9; }

fingerprint=$(wanted | sha256sum | cut -d' ' -f1)
current=$("$folder/bin/python" -I -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null || true)
if [ -n "${PYTHON:-}" ]; then find_python; else version=$current; fi
if [ -n "$current" ] && [ "$version" = "$current" ] && [ "$(sed -n 1p "$stamp" 2>/dev/null)" = "$fingerprint" ]; then
    exit 0
fi

home=$(sed -n 2p "$stamp" 2>/dev/null || true)
rm -f "$stamp"
if [ -z "$current" ] || [ "$version" != "$current" ] || [ "${home:-$PWD}" != "$PWD" ] ||
    ! "$folder/bin/python" -I -m pip --version >/dev/null 2>&1; then
    [ -n "${python:-}" ] || find_python
    say "setup: making $folder with Python $version ($(command -v "$python"))"
    "$python" -m venv --clear "$folder" || die "$python could not make a virtual environment in $folder."
fi

say "setup: installing the locked packages of $lock into $folder"
export PIP_DISABLE_PIP_VERSION_CHECK=1 PYTHONNOUSERSITE=1
unset VIRTUAL_ENV CONDA_PREFIX UV_PYTHON UV_REQUIRE_HASHES PIP_REQUIRE_HASHES
pip=("$folder/bin/python" -I -m pip) uv=("$folder/bin/uv")
"${pip[@]}" install --quiet --require-hashes -r requirements/bootstrap.txt ||
    die "uv could not be installed: is the Python package index reachable?"

# Behind a proxy that signs for others only the system's certificates will do; pip uses them, uv has to be told.
export UV_SYSTEM_CERTS="${UV_SYSTEM_CERTS:-1}"
# Where pip is told to use a mirror, uv shall use it too.
mirror=$("${pip[@]}" config get global.index-url 2>/dev/null || true)
mirror=${PIP_INDEX_URL:-$mirror}
if [ -n "$mirror" ] && [ -z "${UV_DEFAULT_INDEX:-}${UV_INDEX_URL:-}" ]; then export UV_DEFAULT_INDEX=$mirror; fi
# -I above keeps the user's environment out of Python, not out of uv; a cache that cannot be written is done without.
cache=${UV_CACHE_DIR:-${XDG_CACHE_HOME:-${HOME:-/nonexistent}/.cache}/uv}
mkdir -p "$cache" 2>/dev/null && [ -w "$cache" ] || export UV_NO_CACHE=1

"${uv[@]}" pip install --quiet --python "$folder/bin/python" --require-hashes --build-constraints requirements/build.txt \
    -r "$lock" || die "the packages of $lock could not be installed; the reason is above."
if [ -n "$editable" ]; then
    "${uv[@]}" pip install --quiet --python "$folder/bin/python" --no-deps --no-build-isolation -e . ||
        die "this checkout could not be installed into $folder; the reason is above."
fi
printf '%s\n%s\n' "$fingerprint" "$PWD" >"$stamp"
say "setup: $folder is ready"
