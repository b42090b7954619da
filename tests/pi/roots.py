#!/usr/bin/env python3
"""Debian systems of another architecture in a folder, and commands run inside them.

    sudo tests/pi/roots.py build trixie arm64 --packages python3-venv,git     # prints the folder
    sudo tests/pi/roots.py run FOLDER --cpu cortex-a76 -- uname -m            # aarch64

A command runs in user, mount and process namespaces of its own, where QEMU's user emulation is
registered in a binfmt_misc instance that belongs to that user namespace (Linux 6.7). So the host's
binfmt settings are never touched, and the kernel itself takes down mounts and processes when the
command ends, however it ends. What a command writes goes to an overlay that is deleted, unless
``keep`` is asked for: each run starts from the same root.

Needs: root, Linux 6.7, ``apt install mmdebstrap``. Python's standard library only.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import fcntl
import hashlib
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

CACHE = Path(
    os.environ.get("EMOTION_EDGE_PI_CACHE")
    or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "emotion-edge", "pi")
)
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
HOST = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())

# QEMU 7.2, Debian 12's, emulates Cortex-A72 wrongly enough that XNNPACK silently stays out.
_QEMU_SUITE = "trixie"
# An ELF file, 64-bit, little endian, for AArch64 (from QEMU's own qemu-binfmt-conf.sh).
_MAGIC = rb"\x7fELF\x02\x01\x01" + rb"\x00" * 9 + rb"\x02\x00\xb7\x00"
_MASK = rb"\xff" * 7 + rb"\x00" + rb"\xff" * 8 + rb"\xfe" + rb"\xff" * 3

_CLONE_NEWNS, _CLONE_NEWUSER, _CLONE_NEWPID = 0x00020000, 0x10000000, 0x20000000
_MS_RDONLY, _MS_REMOUNT, _MS_BIND, _MS_REC, _MS_PRIVATE = 1, 32, 4096, 16384, 1 << 18
_PR_SET_PDEATHSIG = 1


class RootError(Exception):
    """What kept a root from being built or entered, in one line."""


def check(command: Sequence[str | Path], cwd: str | Path | None = None) -> str:
    """What a program prints. Raises RootError with its last line when it fails or is missing."""
    words = [str(word) for word in command]
    try:
        done = subprocess.run(words, cwd=cwd, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise RootError(
            f"{words[0]} is missing: see tests/pi/README.md for what to install"
        ) from None
    if done.returncode != 0:
        said = done.stderr.strip() or done.stdout.strip() or f"status {done.returncode}"
        raise RootError(f"{' '.join(words[:4])}: {said.splitlines()[-1]}")
    return done.stdout


def mirror() -> str:
    """The Debian mirror of this machine's own apt sources."""
    query = ["apt-get", "indextargets", "--format", "$(REPO_URI)"]
    query += ["Created-By: Packages", "Label: Debian"]
    lines = subprocess.run(query, capture_output=True, text=True, check=False).stdout.split()
    return lines[0] if lines else "http://deb.debian.org/debian"


def qemu() -> Path:
    """The static ``qemu-aarch64`` of Debian 13's qemu-user package, unpacked into the cache once.

    apt verifies it against Debian's keys. Raises RootError when it cannot be fetched.
    """
    binary = CACHE / "qemu" / "qemu-aarch64"
    with _locked("qemu"):
        if binary.exists():
            return binary
        with tempfile.TemporaryDirectory(dir=CACHE) as work:
            options = apt(Path(work), _QEMU_SUITE, HOST)
            check(["apt-get", *options, "download", "qemu-user"], cwd=work)
            (package,) = Path(work).glob("qemu-user_*.deb")
            check(["dpkg-deb", "--extract", package, f"{work}/out"])
            binary.parent.mkdir(exist_ok=True)
            Path(work, "out/usr/bin/qemu-aarch64").replace(binary)
    return binary


def apt(folder: Path, suite: str, architecture: str) -> list[str]:
    """Options with which apt knows that Debian's packages, and nothing of this system.

    folder: an empty one, for its lists. Raises RootError when they cannot be fetched.
    """
    for name in ("lists/partial", "cache/archives/partial"):
        (folder / name).mkdir(parents=True)
    (folder / "status").touch()
    source = f"deb [signed-by={KEYRING}] {mirror()} {suite} main\n"
    (folder / "sources.list").write_text(source)
    settings = {
        "APT::Architecture": architecture,
        "APT::Architectures": architecture,
        "APT::Sandbox::User": "root",
        "Dir::Etc::sourcelist": folder / "sources.list",
        "Dir::Etc::sourceparts": "-",
        "Dir::State": folder,
        "Dir::State::lists": folder / "lists",
        "Dir::State::status": folder / "status",
        "Dir::Cache": folder / "cache",
    }
    options = ["-qq", *(f"-o{name}={value}" for name, value in settings.items())]
    check(["apt-get", *options, "update"])
    return options


def build(suite: str, architecture: str, packages: Sequence[str]) -> Path:
    """The folder of a minimal Debian with these packages configured, from the cache if it is there.

    suite: ``bookworm`` or ``trixie``. architecture: ``arm64`` or this machine's own.
    packages: names as apt takes them; another list is another folder.
    Raises RootError.
    """
    wanted = ",".join(sorted(set(packages)))
    key = hashlib.sha256(wanted.encode()).hexdigest()[:8]
    root = CACHE / "roots" / f"{suite}-{architecture}-{key}"
    with _locked(root.name):
        if root.is_dir():
            return root
        if shutil.which("mmdebstrap") is None:
            raise RootError("mmdebstrap is missing: sudo apt install mmdebstrap")
        root.parent.mkdir(parents=True, exist_ok=True)
        half = root.with_name(f"{root.name}.half")
        shutil.rmtree(half, ignore_errors=True)
        if not CERTIFICATES.exists():
            raise RootError(f"{CERTIFICATES} is missing: sudo apt install ca-certificates")
        security = mirror().rstrip("/").removesuffix("/debian") + "/debian-security"
        sources = (
            f"deb {mirror()} {suite} main\n"
            f"deb {mirror()} {suite}-updates main\n"
            f"deb {security} {suite}-security main\n"
        )
        command = ["mmdebstrap", "--mode=root", "--variant=minbase", "--skip=check/qemu"]
        command += [f"--architectures={architecture}", f"--keyring={KEYRING}"]
        command += [f"--include={wanted}"] if wanted else []
        # Hashing the authorities' certificates takes minutes under emulation; this machine's
        # bundle is used instead. Debian's pip requires one even when it downloads nothing.
        command += ["--dpkgopt=path-exclude=/usr/share/ca-certificates/*"]
        command += [
            "--dpkgopt=path-exclude=/usr/share/doc/*",
            "--dpkgopt=path-exclude=/usr/share/man/*",
        ]
        command += ['--aptopt=Acquire::Retries "3"', suite, str(half), "-"]
        try:
            if run(None, command, stdin=sources.encode()) != 0:
                raise RootError(f"mmdebstrap could not build {suite} for {architecture}: see above")
            bundle = half / CERTIFICATES.relative_to("/")
            bundle.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(CERTIFICATES, bundle)
            half.rename(root)
        finally:
            shutil.rmtree(half, ignore_errors=True)
    return root


def run(
    root: Path | None,
    command: Sequence[str],
    *,
    cpu: str = "cortex-a76",
    env: Mapping[str, str] | None = None,
    binds: Sequence[tuple[Path, str, bool]] = (),
    cwd: str = "/",
    keep: bool = False,
    stdin: bytes | None = None,
    output: int | None = None,
) -> int:
    """Run a command inside a root (None: on this system, only emulation registered); its status.

    cpu: QEMU's name of the emulated processor, for arm64 programs on another machine.
    env: the whole environment but for PATH, HOME and LANG.
    binds: (folder or file here, path in the root, writable).
    keep: write into the root itself instead of into an overlay that is thrown away.
    stdin: what the command reads; None: what this process reads.
    output: a file descriptor for both of its outputs; None: this process's own.
    Raises RootError where the kernel or the rights do not suffice.
    """
    if os.geteuid() != 0:
        raise RootError("not root: run this with sudo")
    emulator = qemu() if HOST != "arm64" else None
    with scratch_folder() as scratch:
        source = None
        if stdin is not None:
            source = scratch / "stdin"
            source.write_bytes(stdin)
        sys.stdout.flush()
        sys.stderr.flush()
        child = os.fork()
        if child == 0:
            status = 125
            try:
                signal.signal(signal.SIGTERM, signal.SIG_DFL)
                die_with_parent()
                if source is not None:
                    os.dup2(os.open(source, os.O_RDONLY), 0)
                if output is not None:
                    os.dup2(output, 1)
                    os.dup2(output, 2)
                _new_namespaces()
                inside = os.fork()  # the first process of the new process namespace
                if inside == 0:
                    die_with_parent()
                    _set_up(root, scratch, emulator, binds, keep)
                    status = _supervise(command, _environment(env, cpu), cwd)
                else:
                    status = _status(os.waitpid(inside, 0)[1])
            except (OSError, RootError) as error:
                print(f"roots: {error}", file=sys.stderr)
            finally:
                sys.stderr.flush()
                os._exit(status)
        try:
            return _status(os.waitpid(child, 0)[1])
        except BaseException:
            with contextlib.suppress(ProcessLookupError, ChildProcessError):
                os.kill(child, signal.SIGKILL)
                os.waitpid(child, 0)
            raise


@contextlib.contextmanager
def scratch_folder() -> Iterator[Path]:
    """A folder in the cache that is deleted afterwards, by the next who asks after a kill -9."""
    top = CACHE / "scratch"
    top.mkdir(parents=True, exist_ok=True)
    with _locked("scratch"):
        for left in [path.parent for path in top.glob("*/lock")]:
            with (left / "lock").open("a") as lock, contextlib.suppress(BlockingIOError):
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(left, ignore_errors=True)
        folder = Path(tempfile.mkdtemp(dir=top))
        lock = (folder / "lock").open("w")
        fcntl.flock(lock, fcntl.LOCK_EX)  # held until the last process with this file open ends
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        lock.close()


def _new_namespaces() -> None:
    """User (all identities mapped to themselves), mount and process namespaces for this process."""
    pid = os.getpid()
    ready, mapped = os.pipe(), os.pipe()
    writer = os.fork()  # stays outside: only there may all identities be mapped
    if writer == 0:
        try:
            os.read(ready[0], 1)
            for kind in ("uid", "gid"):
                Path(f"/proc/{pid}/{kind}_map").write_text("0 0 65536\n")
            os.write(mapped[1], b"1")
        finally:
            os._exit(0)
    _libc("unshare", _CLONE_NEWUSER | _CLONE_NEWNS | _CLONE_NEWPID)
    os.write(ready[1], b"1")
    os.close(mapped[1])
    if os.read(mapped[0], 1) != b"1":
        raise RootError("the kernel does not let user namespaces have all identities")
    os.waitpid(writer, 0)


def _set_up(
    root: Path | None,
    scratch: Path,
    emulator: Path | None,
    binds: Sequence[tuple[Path, str, bool]],
    keep: bool,
) -> None:
    """Mount what the command needs and change into the root; this process only."""
    _mount("none", "/", flags=_MS_REC | _MS_PRIVATE)
    if emulator is not None:
        settings = scratch / "binfmt"
        settings.mkdir()
        try:
            _mount("binfmt_misc", settings, "binfmt_misc")
        except OSError as error:
            raise RootError(
                f"{error}: this kernel has no binfmt_misc for user namespaces; "
                f"Linux 6.7 or later has (this is {platform.release()})"
            ) from error
        # F opens the emulator now, so that it is found after chroot; P keeps argv[0].
        rule = rb":pi:M::%s:%s:%s:PF" % (_MAGIC, _MASK, os.fsencode(emulator))
        (settings / "register").write_bytes(rule)
    if root is None:
        _mount("proc", "/proc", "proc")
        return
    if keep:
        top = root
        _mount(root, root, flags=_MS_BIND)
    else:
        top = scratch / "root"
        for name in ("root", "upper", "work"):
            (scratch / name).mkdir()
        layers = f"lowerdir={root},upperdir={scratch}/upper,workdir={scratch}/work,userxattr"
        _mount("overlay", top, "overlay", options=layers)
    _mount("proc", top / "proc", "proc")
    _mount("/sys", top / "sys", flags=_MS_BIND | _MS_REC)
    _mount("/dev", top / "dev", flags=_MS_BIND | _MS_REC)
    for folder in ("tmp", "run"):
        _mount("tmpfs", top / folder, "tmpfs", options="mode=1777" if folder == "tmp" else "")
    resolver = Path("/etc/resolv.conf")
    if resolver.exists():
        shutil.copyfile(resolver, top / resolver.relative_to("/"))
    for outside, guest, writable in binds:
        target = top / guest.lstrip("/")
        if outside.is_dir():
            target.mkdir(parents=True, exist_ok=True)
        else:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.touch()
        _mount(outside.resolve(), target, flags=_MS_BIND)
        if not writable:
            _mount("none", target, flags=_MS_BIND | _MS_REMOUNT | _MS_RDONLY)
    os.chroot(top)


def _supervise(command: Sequence[str], env: Mapping[str, str], cwd: str) -> int:
    """Be the first process: start the command, bury every orphan, return the command's status."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal's goes to the command as well
    process = subprocess.Popen(list(command), env=dict(env), cwd=cwd, preexec_fn=_default_interrupt)
    while True:
        pid, status = os.wait()
        if pid == process.pid:
            return _status(status)


def _default_interrupt() -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def _environment(env: Mapping[str, str] | None, cpu: str) -> dict[str, str]:
    base = {
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME": "/root",
        "LANG": "C.UTF-8",
        "QEMU_CPU": cpu,
    }
    return {**base, **(env or {})}


def _mount(
    source: Path | str, target: Path | str, kind: str = "", flags: int = 0, options: str = ""
) -> None:
    arguments = [os.fsencode(part) for part in (source, target, kind)]
    _libc("mount", *arguments, ctypes.c_ulong(flags), options.encode(), what=str(target))


def die_with_parent() -> None:
    """Have the kernel kill this process when the one that started it ends, however it ends."""
    _libc("prctl", _PR_SET_PDEATHSIG, signal.SIGKILL)


def _libc(name: str, *arguments: object, what: str = "") -> None:
    """Call a function of libc that answers 0; raises OSError with its errno."""
    if getattr(ctypes.CDLL(None, use_errno=True), name)(*arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}", what or None)


def _status(waited: int) -> int:
    code = os.waitstatus_to_exitcode(waited)
    return code if code >= 0 else 128 - code


@contextlib.contextmanager
def _locked(name: str) -> Iterator[None]:
    """One process at a time makes a thing of the cache."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / f".{name}.lock").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def main() -> int:
    """The two commands of this file's head."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    building = commands.add_parser("build", help="build a root, or find it; prints its folder")
    building.add_argument("suite", choices=("bookworm", "trixie"))
    building.add_argument("architecture", choices=sorted({"arm64", HOST}))
    building.add_argument("--packages", default="", help="names, with commas between them")
    running = commands.add_parser("run", help="run a command inside a root")
    running.add_argument("root", type=Path)
    running.add_argument("--cpu", default="cortex-a76")
    running.add_argument("--keep", action="store_true", help="what it writes stays in the root")
    running.add_argument("program", nargs=argparse.REMAINDER)
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        if options.command == "build":
            packages = [name for name in options.packages.split(",") if name]
            print(build(options.suite, options.architecture, packages))
            return 0
        program = options.program[options.program[:1] == ["--"] :]
        return run(options.root, program or ["/bin/bash"], cpu=options.cpu, keep=options.keep)
    except RootError as error:
        print(f"roots: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
