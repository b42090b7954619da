#!/bin/sh
# Sets up emotion-edge as a service on a Raspberry Pi (64-bit Bookworm or Trixie), or takes it
# away again. Run it from a checkout, or beside a wheel. Running it again updates.
#
#   sudo edge/install-kiosk.sh [--wheel FILE] [--dry-run]
#   sudo edge/install-kiosk.sh --uninstall [--purge] [--dry-run]
#
# --dry-run only prints the commands. --purge also deletes the configuration and what was recorded.
set -eu
umask 022

home=/opt/emotion-edge
config=/etc/emotion-edge
state=/var/lib/emotion-edge
unit=/etc/systemd/system/emotion-edge.service
here=$(cd "$(dirname "$0")" && pwd)
wheel='' dry=no uninstall=no purge=no

say() { echo "install-kiosk: $*" >&2; }
fail() { say "$*"; exit 2; }
run() { # print the command, and do it unless --dry-run
    echo "+ $*"
    [ "$dry" = yes ] || "$@"
}

while [ $# -gt 0 ]; do
    case $1 in
        --wheel) [ $# -gt 1 ] || fail "--wheel needs a file"; wheel=$2; shift ;;
        --dry-run) dry=yes ;;
        --uninstall) uninstall=yes ;;
        --purge) purge=yes ;;
        *) fail "unknown flag $1: use --wheel FILE, --dry-run, --uninstall or --purge" ;;
    esac
    shift
done

[ "$dry" = yes ] || [ "$(id -u)" = 0 ] || fail "this changes the system: run it with sudo"

if [ "$uninstall" = yes ]; then
    if [ -e "$unit" ]; then # apart: disable --now refuses where systemd does not run, as in an image
        run systemctl stop emotion-edge.service
        run systemctl disable emotion-edge.service
    fi
    run rm -rf "$unit" "$home"
    run systemctl daemon-reload
    if [ "$purge" = yes ]; then
        run rm -rf "$config" "$state"
        if id emotion-edge >/dev/null 2>&1; then run userdel emotion-edge; fi
    else
        echo "Kept: $config and $state (--purge deletes them)."
    fi
    exit 0
fi

# What the system is.
# shellcheck disable=SC1090
. "${OS_RELEASE:-/etc/os-release}"
case ${VERSION_CODENAME:-} in
    bookworm | trixie) ;;
    *) fail "this is ${PRETTY_NAME:-an unknown system}; use Raspberry Pi OS Bookworm or Trixie, 64-bit" ;;
esac
architecture=${ARCHITECTURE:-$(dpkg --print-architecture)}
case $architecture in
    arm64 | amd64) ;;
    *) fail "this is a 32-bit system ($architecture): install the 64-bit Raspberry Pi OS" ;;
esac
constraints=$here/constraints-$VERSION_CODENAME.txt
[ -f "$constraints" ] || fail "$constraints is missing: copy the whole edge folder"

# What to install: a wheel that was named, one that lies near, or the checkout.
if [ -z "$wheel" ]; then
    for near in "$here"/emotion_edge-*.whl "$here"/../dist/emotion_edge-*.whl; do
        [ -f "$near" ] && wheel=$near
    done
fi
if [ -n "$wheel" ]; then
    [ -f "$wheel" ] || fail "there is no wheel $wheel: build one with make wheel"
    what=$wheel
elif [ -f "$here/../pyproject.toml" ]; then
    what=$(cd "$here/.." && pwd)
else
    fail "no wheel beside this script and no checkout around it: give --wheel FILE"
fi

# The camera's own library comes from apt only; its pip source wants a compiler. A fresh system
# knows no packages at all until it has updated its lists.
run apt-get update -q
packages="python3-venv"
if apt-cache show python3-picamera2 >/dev/null 2>&1; then
    packages="$packages python3-picamera2"
else
    say "this system's apt has no python3-picamera2: USB and network cameras only"
fi
# shellcheck disable=SC2086  # a list of words
run apt-get install -q -y --no-install-recommends $packages

if ! id emotion-edge >/dev/null 2>&1; then
    run useradd --system --home-dir "$state" --shell /usr/sbin/nologin --groups video emotion-edge
fi

# The system's packages stay visible for picamera2; the constraints keep NumPy 1 on Bookworm.
run python3 -m venv --system-site-packages "$home"
run "$home/bin/python" -m pip install --quiet --upgrade --constraint "$constraints" "$what[mqtt]"

run install -d -m 755 "$config"
if [ -e "$config/kiosk.toml" ]; then
    echo "Kept: $config/kiosk.toml"
else
    run install -m 644 "$here/kiosk.toml" "$config/kiosk.toml"
fi
run install -m 644 "$here/systemd/emotion-edge.service" "$unit"
run systemctl daemon-reload
run systemctl enable emotion-edge.service
run systemctl restart emotion-edge.service
run "$home/bin/emotion-edge" doctor --config "$config/kiosk.toml" || true
cat <<END

Running. Its state: emotion-edge status, or systemctl status emotion-edge.
What it does: $config/kiosk.toml, then sudo systemctl restart emotion-edge.
Tell the people in front of the camera what it does before you leave it there.
END
