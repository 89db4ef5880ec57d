#!/bin/sh
# Sets up everything in .venv: checks Python, the system libraries, installs the pinned packages. Does nothing when that is done.
# Usage: scripts/setup.sh run|test   (test adds what the test suite needs)
set -eu
cd "$(dirname "$0")/.."
kind=${1:-run}
venv=${VENV:-.venv}

say() { printf '%s\n' "$*" >&2; }

# The stamp says with which pyproject.toml and constraints.txt this was done.
want=$(cat pyproject.toml constraints.txt scripts/setup.sh | cksum | tr ' ' '-')
stamp="$venv/.takeover-$kind"
[ -x "$venv/bin/python" ] && [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$want" ] && exit 0
# A test setup holds everything a run needs.
if [ "$kind" = run ] && [ -f "$venv/.takeover-test" ] && [ "$(cat "$venv/.takeover-test")" = "$want" ]; then exit 0; fi

python=""
for candidate in ${PYTHON:-} python3.11 python3.12 python3; do
    if command -v "$candidate" >/dev/null 2>&1 \
        && "$candidate" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 13))' 2>/dev/null; then
        python=$candidate
        break
    fi
done

# --- system packages: Qt's xcb plugin, OpenGL through EGL, fonts, SpaceMouse, venv, and a virtual display for tests ---
packages="libegl1 libgl1 libgl1-mesa-dri libopengl0 libglib2.0-0 libxcb-cursor0 libxkbcommon0 libxkbcommon-x11-0 libxcb-icccm4 libxcb-image0
libxcb-keysyms1 libxcb-render-util0 libxcb-render0 libxcb-shape0 libxcb-shm0 libxcb-sync1 libxcb-xfixes0 libxcb-xinerama0 libxcb-randr0
libxcb-xkb1 libdbus-1-3 libfontconfig1 libfreetype6 fonts-dejavu-core libusb-1.0-0 libudev1"
[ "$kind" = test ] && packages="$packages xvfb xauth xdotool"
if [ -z "$python" ]; then
    packages="$packages python3 python3-venv"
elif ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
    packages="$packages $(basename "$python")-venv"
fi
if command -v dpkg-query >/dev/null 2>&1; then
    missing=""
    for package in $packages; do
        # Newer releases renamed some libraries (libglib2.0-0t64): a virtual package that is provided counts.
        dpkg-query -W -f '${Status} ${Provides} ${Package}\n' "$package" "${package}t64" 2>/dev/null | grep -q '^install ok installed' \
            || missing="$missing $package"
    done
    if [ -n "$missing" ]; then
        if [ "$(id -u)" = 0 ]; then
            say "installing system packages:$missing"
            DEBIAN_FRONTEND=noninteractive apt-get update -q >/dev/null
            # shellcheck disable=SC2086
            DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends $missing >/dev/null
        else
            say "These system packages are missing. Install them, then run the same command again:"
            say "  sudo apt-get install -y --no-install-recommends$missing"
            exit 2
        fi
    fi
else
    say "This is no Debian or Ubuntu: please see that Python 3.11 with venv, EGL, OpenGL and the xcb libraries of Qt 6 are installed."
fi

if [ -z "$python" ]; then
    for candidate in python3.11 python3.12 python3; do
        if command -v "$candidate" >/dev/null 2>&1 \
            && "$candidate" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 13))' 2>/dev/null; then
            python=$candidate
            break
        fi
    done
fi
if [ -z "$python" ]; then
    say "Python 3.11 or 3.12 is needed; this system's python3 is $(python3 --version 2>/dev/null || echo missing). Set PYTHON=/path/to/python3.11."
    exit 2
fi

# --- packages ---
[ -x "$venv/bin/python" ] || "$python" -m venv "$venv"
pip="$venv/bin/python -m pip --disable-pip-version-check --quiet"

# Without an NVIDIA GPU the CPU build of PyTorch saves gigabytes; where its index cannot be reached the usual one serves.
torch_cpu=https://download.pytorch.org/whl/cpu
torch=$(sed -n 's/^torch==/torch==/p' constraints.txt)
if ! "$venv/bin/python" -c 'import torch' 2>/dev/null && [ ! -e /proc/driver/nvidia/version ] \
    && "$venv/bin/python" scripts/reachable.py "$torch_cpu/torch/"; then
    say "installing $torch (CPU build)"
    $pip install -c constraints.txt --index-url "$torch_cpu" --extra-index-url https://pypi.org/simple "$torch" \
        || say "that did not work; taking the usual build"
fi
extras="bridge,learner,console"
[ "$kind" = test ] && extras="$extras,test"
say "installing the packages into $venv (once; a few minutes)"
# What pip and setuptools say is of interest only when they fail.
if ! $pip install -c constraints.txt -e ".[$extras]" >"$venv/setup.log" 2>&1; then
    cat "$venv/setup.log" >&2
    say "the packages could not be installed; the lines above say why"
    exit 1
fi
# Its own requirements (simulators, video, torchvision) are not needed to read a dataset with it.
[ "$kind" = test ] && $pip install -c constraints.txt --no-deps robomimic
printf '%s' "$want" > "$stamp"
say "done"
