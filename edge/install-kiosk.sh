#!/bin/sh
# Sets up emotion-edge as a service on a Raspberry Pi (64-bit Bookworm or Trixie), or removes it.
# Running it again updates: the new release is tested, and runs on trial.
#
#   sudo edge/install-kiosk.sh [--wheel FILE | --wheels FOLDER] [--dry-run] [-- UPDATE FLAGS]
#   sudo edge/install-kiosk.sh --uninstall [--purge] [--dry-run]
#
# Installs --wheel FILE; or, without a network, the newest of --wheels FOLDER; else the checkout
# around this script; else the newest wheel next to it. UPDATE FLAGS: emotion-edge update --help.
# --dry-run only prints the commands. --purge also deletes the configuration and the records.
# DESTDIR in the environment installs below another folder, for a disk image and for tests.
set -eu
umask 022

root=${DESTDIR:-}
home=/opt/emotion-edge
config=/etc/emotion-edge
state=/var/lib/emotion-edge
units=$root/etc/systemd/system
command=$root/usr/local/bin/emotion-edge
here=$(cd "$(dirname "$0")" && pwd)
updater=$here/emotion_edge/kiosk/update.py
wheel='' wheels='' dry=no uninstall=no purge=no

say() { echo "install-kiosk: $*" >&2; }
fail() { say "$*"; exit 2; }
run() { # print the command, and do it unless --dry-run
    echo "+ $*"
    [ "$dry" = yes ] || "$@"
}

while [ $# -gt 0 ]; do
    case $1 in
        --wheel) [ $# -gt 1 ] || fail "--wheel needs a file"; wheel=$2; shift ;;
        --wheels) [ $# -gt 1 ] || fail "--wheels needs a folder"; wheels=$2; shift ;;
        --dry-run) dry=yes ;;
        --uninstall) uninstall=yes ;;
        --purge) purge=yes ;;
        -h | --help) sed -n 's/^# \{0,1\}//; 2,/^set/{/^set/!p}' "$0"; exit 0 ;;
        --) shift; break ;;
        *) fail "unknown flag $1: use --wheel FILE, --wheels FOLDER, --dry-run, --uninstall or --purge" ;;
    esac
    shift
done

[ "$dry" = yes ] || [ -n "$root" ] || [ "$(id -u)" = 0 ] || fail "this changes the system: run it with sudo"

if [ "$uninstall" = yes ]; then
    for unit in emotion-edge-update.timer emotion-edge-update.service emotion-edge.service; do
        if [ -e "$units/$unit" ]; then # two commands: disable --now fails where systemd does not run
            run systemctl stop "$unit"
            run systemctl disable "$unit"
        fi
        run rm -rf "$units/$unit"
    done
    run rm -rf "$root$home"
    case $(readlink "$command" || true) in
        "$home"/*) run rm -f "$command" ;;
    esac
    run systemctl daemon-reload
    if [ "$purge" = yes ]; then
        run rm -rf "$root$config" "$root$state"
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
[ -f "$here/kiosk.toml" ] || fail "$here/kiosk.toml is missing: copy the whole edge folder"

# What to install.
if [ -n "$wheel" ]; then
    [ -f "$wheel" ] || fail "there is no wheel $wheel: build one with make wheel"
    what=$wheel kind=--wheel
elif [ -n "$wheels" ]; then
    what=$(find "$wheels" -maxdepth 1 -name 'emotion_edge-*.whl' | sort -V | tail -n 1) kind=--wheels
    [ -n "$what" ] || fail "$wheels has no wheel of emotion-edge"
elif [ -f "$here/../pyproject.toml" ]; then
    what=$(cd "$here/.." && pwd) kind=--checkout
else
    kind=--wheel # sort -V: 0.10.0 is newer than 0.9.0.
    what=$(find "$here" -maxdepth 1 -name 'emotion_edge-*.whl' | sort -V | tail -n 1)
    [ -n "$what" ] || fail "no wheel next to this script and no checkout around it: use --wheel FILE"
fi
say "installing $what"

# The camera's own library comes from apt only; its pip source needs a compiler. A fresh system
# has no package lists until it has updated them.
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

run install -d -m 755 "$root$config"
if [ -e "$root$config/kiosk.toml" ]; then
    echo "Kept: $config/kiosk.toml"
else
    run install -m 644 "$here/kiosk.toml" "$root$config/kiosk.toml"
fi
run install -d -o emotion-edge -g emotion-edge -m 750 "$root$state" || say "cannot make $state"

# The same program that later updates and rolls back; it needs nothing but Python. A wheel has its own.
if [ "$kind" != --checkout ]; then
    updater=$(mktemp)
    trap 'rm -f "$updater"' EXIT
    [ "$dry" = yes ] || python3 -c 'import sys, zipfile
sys.stdout.buffer.write(zipfile.ZipFile(sys.argv[1]).read("emotion_edge/kiosk/update.py"))' \
        "$what" >"$updater" || fail "$what is damaged, or too old for this installer"
fi
[ -z "$wheels" ] || what=$wheels
run python3 "$updater" "$kind" "$what" "$@" || exit 1
run "$root$home/current/bin/emotion-edge" doctor --config "$root$config/kiosk.toml" || true
echo
if [ "$dry" = yes ]; then
    echo "Dry run: nothing was changed."
    exit 0
fi
if systemctl is-active --quiet emotion-edge.service; then
    echo "The service is running. Check its health: emotion-edge status"
elif [ -d /run/systemd/system ]; then
    echo "Installed, but the service is not running: journalctl -u emotion-edge -n 20"
else
    echo "Installed. systemd does not run here: the service starts at the next boot."
fi
cat <<END
To change what it does: edit $config/kiosk.toml, then sudo systemctl reload emotion-edge.
Tell the people in front of the camera what it does before you leave it there.
END
