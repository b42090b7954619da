#!/usr/bin/env python3
"""A whole emulated machine: Debian on an arm64 processor, from power-on to the kiosk's labels.

    make test-pi-machine
    make test-pi-machine QUICK=1        # the buffer loans alone, on this processor, in minutes

QEMU emulates the processor (no KVM, so it is slow); kernel, systemd, libcamera and Mosquitto are
Debian 13's, Picamera2 is pip's. machine_inside.py says what happens inside; this file makes the
disk, brings along the wheel, the installer, wheels for arm64 and a camera's photographs, and asks
for one step after the other over a virtio serial port.

Needs: root, ``apt install mmdebstrap qemu-system-arm e2fsprogs kmod``, 4 GB of disk. The disk
image is cached next to the roots of roots.py and never written to; a run works on a copy that QEMU
deletes.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import hashlib
import json
import lzma
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.pi import prove, roots
from tests.pi.machine_inside import STEPS
from tests.pi.roots import check
from train.files import table

HERE = Path(__file__).resolve().parent
TRIXIE = prove.SUITES["trixie"]

PACKAGES = (
    *("systemd-sysv", "udev", "kmod", "python3", "python3-venv", "mosquitto", "mosquitto-clients"),
    *("python3-libcamera", "libcamera-ipa", "python3-prctl"),
)
PICAMERA2 = (
    *("picamera2==0.3.38", "simplejpeg==1.9.0", "videodev2==0.0.4"),
    *("piexif==1.1.3", "pillow==13.0.0"),
)
PIDNG = "pidng==4.0.9"  # has no wheel; what Picamera2 imports of it is plain Python
DISK_MB = 3500
MEMORY_MB = 2048
STEP_S = 5400
"""Longest time for a step; each has shorter limits of its own inside."""

UNIT = """\
[Unit]
After=basic.target
[Service]
ExecStartPre=/bin/sh -c 'mkdir -p /srv/cargo && mount -o ro /dev/vdb /srv/cargo'
ExecStart=/usr/bin/python3 -u /srv/cargo/machine_inside.py
Environment=PYTHONDONTWRITEBYTECODE=1
Restart=always
"""

CAMERA = """\
"Virtual0":
  supported_formats:
  - width: 640
    height: 480
    frame_rates:
    - 30
    - 60
  frames:
    path: "/srv/cargo/frames/"
  location: "CameraLocationFront"
  model: "virtual"
"""


class MachineError(Exception):
    """What kept the machine from being made or from answering, in one line."""


def image() -> tuple[Path, Path, Path]:
    """The disk with Debian on it, its kernel and its initial RAM disk; from the cache if there.

    The kernel is not installed by apt inside the root but unpacked here, and the initial RAM disk
    made of what this machine needs: under emulation both take many minutes.
    Raises RootError.
    """
    root = roots.build(TRIXIE.name, "arm64", PACKAGES)
    disk, kernel, initrd = (
        root.with_name(f"{root.name}.{kind}") for kind in ("ext4", "vmlinuz", "initrd")
    )
    if not disk.exists():
        with tempfile.TemporaryDirectory(dir=root.parent) as work:
            linux, busybox = download(Path(work))
            check(["dpkg-deb", "--extract", linux, root])
            check(["dpkg-deb", "--extract", busybox, f"{work}/out"])
            image = max((root / "boot").glob("vmlinuz-*"))
            shutil.copyfile(image, kernel)
            version = image.name.removeprefix("vmlinuz-")
            check(["depmod", "-b", root, version])
            modules = root / "usr/lib/modules" / version
            initrd.write_bytes(ram_disk(Path(work, "out/usr/bin/busybox"), modules))
            half = disk.with_suffix(".half")
            half.unlink(missing_ok=True)
            make_disk(half, root, "root", DISK_MB)
            half.rename(disk)
    return disk, kernel, initrd


def download(folder: Path) -> tuple[Path, Path]:
    """Debian 13's newest arm64 kernel and its busybox, as packages that apt has verified."""
    options = roots.apt(folder, TRIXIE.name, "arm64")
    known = check(["apt-cache", *options, "depends", "linux-image-arm64"])
    kernel = re.findall(r"Depends: (linux-image-\S+)", known)
    check(["apt-get", *options, "download", *kernel, "busybox-static"], cwd=folder)
    (image,), (busybox,) = folder.glob("linux-image-*.deb"), folder.glob("busybox-*.deb")
    return image, busybox


def ram_disk(busybox: Path, modules: Path) -> bytes:
    """An initial RAM disk, a cpio archive, that mounts /dev/vda and starts systemd from it."""
    needs: dict[str, list[str]] = {}
    for line in (modules / "modules.dep").read_text().splitlines():
        module, _, others = line.partition(":")
        needs[module] = others.split()
    names = {Path(module).name.split(".")[0].replace("-", "_"): module for module in needs}
    files = {"bin/busybox": busybox.read_bytes()}
    order = []
    for wanted in ("virtio_pci", "virtio_blk", "crc32c_generic", "ext4"):
        if wanted not in names:  # built into the kernel
            continue
        for module in (*reversed(needs[names[wanted]]), names[wanted]):
            name = Path(module).name.removesuffix(".xz")
            if name not in files:
                data = (modules / module).read_bytes()
                files[name] = lzma.decompress(data) if module.endswith(".xz") else data
                order.append(name)
    loading = "".join(f"/bin/busybox insmod /{name}\n" for name in order)
    files["init"] = f"""#!/bin/busybox sh
/bin/busybox mount -t devtmpfs dev /dev
{loading}/bin/busybox mount -t ext4 /dev/vda /new
/bin/busybox mount -o move /dev /new/dev
exec /bin/busybox switch_root /new /sbin/init
""".encode()
    archive = bytearray()
    folders = dict.fromkeys(("bin", "dev", "new"), 0o40755)
    modes = {**folders, **dict.fromkeys(files, 0o100755), "TRAILER!!!": 0}
    for number, (name, mode) in enumerate(modes.items()):
        data = files.get(name, b"")
        path = name.encode() + b"\0"
        fields = (number, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(path), 0)
        archive += b"070701" + b"".join(b"%08X" % field for field in fields) + path
        archive += bytes(-len(archive) % 4) + data
        archive += bytes(-len(archive) % 4)
    return bytes(archive)


def make_disk(disk: Path, folder: Path, label: str, megabytes: int) -> None:
    """An ext4 file system that holds a folder."""
    check(["mke2fs", "-q", "-t", "ext4", "-L", label, "-d", folder, disk, f"{megabytes}M"])


def picamera2_files(architecture: str) -> Path:
    """A folder with Picamera2 and what it imports that Debian is not asked for, as pip has them."""
    key = hashlib.sha256(" ".join([*PICAMERA2, PIDNG]).encode()).hexdigest()[:8]
    folder = roots.CACHE / "wheels" / f"picamera2-{architecture}-{key}"
    if not folder.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=roots.CACHE) as work:
            pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
            pip += ["--dest", f"{work}/half"]
            kinds = ["--only-binary=:all:", "--python-version", TRIXIE.python]
            check([*pip, *kinds, *prove.platforms(architecture, TRIXIE.glibc), *PICAMERA2])
            check([*pip, "--no-build-isolation", "--no-binary=:all:", PIDNG])
            Path(work, "half").rename(folder)
    return folder


def pack_picamera2(archive: Path, architecture: str) -> None:
    """An apt archive with python3-picamera2, of pip's files, its last line our camera's."""
    packages = archive / "package/usr/lib/python3/dist-packages"
    packages.mkdir(parents=True)
    for file in picamera2_files(architecture).iterdir():
        if file.suffix == ".whl":
            with zipfile.ZipFile(file) as wheel:
                wheel.extractall(packages)
        else:
            with tarfile.open(file) as source:
                for member in source.getmembers():
                    _, found, path = member.name.partition("/src/pidng/")
                    if found and member.isfile() and path.endswith(".py"):
                        target = packages / "pidng" / path
                        target.parent.mkdir(exist_ok=True)
                        target.write_bytes(source.extractfile(member).read())  # type: ignore[union-attr]
    # Picamera2 imports it for a preview on a screen, and does not declare it.
    (packages / "pykms.py").write_text(
        "class _Names(type):\n    def __getattr__(self, name):\n        return name\n\n\n"
        "class PixelFormat(metaclass=_Names):\n    pass\n"
    )
    shutil.copy(HERE / "machine_camera.py", packages)
    with (packages / "picamera2/__init__.py").open("a") as module:
        module.write("\nimport machine_camera  # noqa\n")
    camera = archive / "package/usr/share/libcamera/pipeline/virtual/virtual.yaml"
    camera.parent.mkdir(parents=True)
    camera.write_text(CAMERA)
    control = (
        f"Package: python3-picamera2\nVersion: 0.3.38\nArchitecture: {architecture}\n"
        "Maintainer: emotion-edge\nDescription: pip's Picamera2 on libcamera's virtual camera\n"
    )
    (archive / "package/DEBIAN").mkdir()
    (archive / "package/DEBIAN/control").write_text(control)
    deb = archive / "python3-picamera2.deb"
    check(["dpkg-deb", "--build", "--root-owner-group", "-Zgzip", archive / "package", deb])
    shutil.rmtree(archive / "package")
    digest = hashlib.sha256(deb.read_bytes()).hexdigest()
    (archive / "Packages").write_text(
        f"{control}Filename: ./{deb.name}\nSize: {deb.stat().st_size}\nSHA256: {digest}\n"
    )


def film(folder: Path) -> list[dict[str, Any]]:
    """What the camera shows, ``0.jpg``, ``1.jpg`` ...: each photograph a while, drifting.

    The user's photographs where there are any, else the demo's portrait. Returns for each face its
    name, box and the labels that the pipeline gives it here.
    """
    import cv2
    import numpy as np

    import emotion_edge
    from emotion_edge.cameras import open_camera
    from emotion_edge.cameras.capture import in_colours

    images = {
        path.stem: emotion_edge.read_image(path)
        for path in sorted(prove.SHARED.glob("media/*.jpg"))
    }
    if not images:
        with open_camera("demo:faces=1", paced=False) as camera:
            frame = camera.read(10)
            assert frame is not None
            images["demo"] = in_colours(frame.image, True)
    folder.mkdir()
    pipeline = emotion_edge.load(detector="haar")  # the machine has no weights of YuNet's
    faces: list[dict[str, Any]] = []
    number = 0
    for name, image in images.items():
        height, width = image.shape[:2]
        scale = min(640 / width, 480 / height) * 0.95
        small = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        for drift in range(6):
            canvas = np.full((480, 640, 3), 96, np.uint8)
            top, left = (480 - small.shape[0]) // 2 + drift - 3, (640 - small.shape[1]) // 2 + drift
            top, left = max(0, top), min(left, 640 - small.shape[1])
            canvas[top : top + small.shape[0], left : left + small.shape[1]] = small
            file = folder / f"{number}.jpg"
            cv2.imwrite(str(file), canvas, [cv2.IMWRITE_JPEG_QUALITY, 95])
            number += 1
            # As the camera gives it: luma alone.
            luma = in_colours(emotion_edge.read_image(file), False)
            for place, face in enumerate(pipeline.image(luma).faces):
                box = [face.box.x, face.box.y, face.box.width, face.box.height]
                known = next((f for f in faces if f["name"] == f"{name} {place}"), None)
                if known is None:
                    known = {"name": f"{name} {place}", "box": box, "labels": []}
                    faces.append(known)
                if face.label not in known["labels"]:
                    known["labels"].append(face.label)
    if not faces:
        raise MachineError(f"no face is found in {', '.join(images)}")
    return faces


def pack_cargo(cargo: Path, wheel: Path, architecture: str) -> None:
    """A folder with all that is brought along."""
    shutil.copytree(prove.fetch(TRIXIE, architecture, wheel), cargo / "wheels")
    shutil.copy(wheel, cargo)
    for name in ("machine_inside.py", "machine_loans.py"):
        shutil.copy(HERE / name, cargo)
    edge = cargo / "edge"
    edge.mkdir()
    for name in ("install-kiosk.sh", "kiosk.toml"):
        shutil.copy(prove.CHECKOUT / "edge" / name, edge)
    shutil.copytree(prove.CHECKOUT / "edge/systemd", edge / "systemd")
    pack_picamera2(cargo / "apt", architecture)
    faces = film(cargo / "frames")
    (cargo / "expected.json").write_text(json.dumps(faces))
    for face in faces:
        print(f"   {face['name']}: {' or '.join(face['labels'])}", flush=True)


def quick(work: Path, wheel: Path) -> bool:
    """The loans alone, in a Debian of this machine's own architecture; whether they hold."""
    cargo = work / "cargo"
    pack_cargo(cargo, wheel, roots.HOST)
    root = roots.build(TRIXIE.name, roots.HOST, PACKAGES)
    script = f"""
        mount -t tmpfs tmpfs /dev/shm
        dpkg --install /srv/cargo/apt/*.deb
        python3 -m venv --system-site-packages /opt/emotion-edge
        python=/opt/emotion-edge/bin/python
        $python -m pip install --quiet --no-index --find-links /srv/cargo/wheels \\
            --no-compile --disable-pip-version-check /srv/cargo/{wheel.name}
        mkdir /run/virtual-camera
        exec $python /srv/cargo/machine_loans.py /srv/cargo/frames
    """
    settings = {"VIRTUAL_CAMERA_FPS": "0", "LIBCAMERA_LOG_LEVELS": "*:FATAL"}
    shell = ["sh", "-ec", script]
    return roots.run(root, shell, env=settings, binds=[(cargo, "/srv/cargo", False)]) == 0


class Machine:
    """QEMU, and the line to what runs inside; a context manager that leaves nothing behind."""

    def __init__(self, work: Path, cargo: Path, cpu: str) -> None:
        disk, kernel, initrd = image()
        self.console = work / "console.log"
        self._address = str(work / "port")
        unit = base64.b64encode(UNIT.encode()).decode()
        line = (
            "root=/dev/vda rw console=ttyAMA0 loglevel=4 "
            "systemd.firstboot=no systemd.condition_first_boot=no "
            f"systemd.set_credential_binary=systemd.extra-unit.machine.service:{unit} "
            "systemd.wants=machine.service systemd.mask=apt-daily.timer "
            "systemd.mask=apt-daily-upgrade.timer systemd.hostname=machine"
        )
        self._command = ["qemu-system-aarch64", "-M", "virt", "-accel", "tcg,thread=multi"]
        self._command += ["-cpu", cpu, "-smp", "2", "-m", str(MEMORY_MB), "-nic", "none"]
        self._command += ["-display", "none", "-serial", f"file:{self.console}", "-monitor", "none"]
        self._command += ["-kernel", str(kernel), "-initrd", str(initrd), "-append", line]
        drive = "if=virtio,format=raw,file="
        self._command += ["-drive", f"{drive}{disk},snapshot=on"]
        self._command += ["-drive", f"{drive}{cargo},readonly=on"]
        self._command += ["-device", "virtio-serial-pci"]
        self._command += ["-chardev", f"socket,id=port,path={self._address},server=on,wait=off"]
        self._command += ["-device", "virtserialport,chardev=port,name=machine"]
        self._environment = {**os.environ, "TMPDIR": str(work)}  # where the throw-away copy lies

    def __enter__(self) -> Machine:
        """Switch on. Raises MachineError."""
        try:
            self._process = subprocess.Popen(
                self._command,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
                preexec_fn=roots.die_with_parent,
            )
        except FileNotFoundError:
            raise MachineError(
                "qemu-system-aarch64 is missing: apt install qemu-system-arm"
            ) from None
        self._socket = socket.socket(socket.AF_UNIX)
        end = time.monotonic() + 30
        while True:
            try:
                self._socket.connect(self._address)
                break
            except OSError:
                if self._process.poll() is not None or time.monotonic() > end:
                    self.__exit__()
                    raise MachineError(f"QEMU does not start: {self._last_words()}") from None
                time.sleep(0.1)
        self._lines = self._read_lines()
        return self

    def __exit__(self, *_: object) -> None:
        """Switch off."""
        self._socket.close()
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def hello(self, seconds: float) -> None:
        """Wait until the machine has started, or started again."""
        self._answer("hello", seconds)

    def step(self, name: str, seconds: float) -> tuple[bool, str]:
        """Have a step done; whether it went well, and what it found."""
        self._socket.sendall(json.dumps({"step": name}).encode() + b"\n")
        answer = self._answer("ok", seconds)
        return answer["ok"], answer["text"]

    def _answer(self, key: str, seconds: float) -> dict[str, Any]:
        self._end = time.monotonic() + seconds
        for line in self._lines:
            message: dict[str, Any] = json.loads(line)
            if key in message:
                return message
            if "hello" in message:
                raise MachineError("the steps' own process ended and was started again")
            if "say" in message:
                print("   " + message["say"].rstrip().replace("\n", "\n   "), flush=True)
        raise MachineError(f"QEMU ended: {self._last_words()}")

    def _read_lines(self) -> Iterator[bytes]:
        text = b""
        while True:
            left = self._end - time.monotonic()
            if left <= 0:
                raise MachineError("the machine does not answer")
            self._socket.settimeout(left)
            with contextlib.suppress(TimeoutError):
                came = self._socket.recv(1 << 16)
                if not came:
                    return
                *lines, text = (text + came).split(b"\n")
                yield from (line for line in lines if line.strip())

    def _last_words(self) -> str:
        assert self._process.stderr is not None
        self._process.terminate()
        return (self._process.stderr.read().strip().splitlines() or ["without a word"])[-1]


def run(work: Path, options: argparse.Namespace) -> bool:
    """All steps; prints the table, and returns whether all went well."""
    rows: list[list[str]] = []
    titles = {step.__name__: (step.__doc__ or "").strip() for step in STEPS}
    chosen = {"boot", "install", *options.steps}
    if "rebooted" in chosen:
        chosen.add("reboot")
    if "resumed" in chosen:
        chosen.add("cut")

    def record(name: str, well: bool, begun: float, text: str) -> None:
        row = [name, "passed" if well else "FAILED", f"{time.monotonic() - begun:.0f}", text]
        rows.append(row)
        print(f"-- {name}: {row[1]} in {row[2]} s: {text}", flush=True)

    started = begun = time.monotonic()
    print("== disk: Debian, wheels, photographs", flush=True)
    pack_cargo(work / "cargo", options.wheel, "arm64")
    size = sum(path.stat().st_size for path in work.rglob("*") if path.is_file())
    cargo = work / "cargo.ext4"
    make_disk(cargo, work / "cargo", "cargo", size * 11 // 10 // 10**6 + 20)
    machine = Machine(work, cargo, options.cpu)
    record("disk", True, begun, "")
    try:
        with machine:
            for name in titles:
                if name not in chosen:
                    continue
                begun = time.monotonic()
                print(f"== {name}: {titles[name]}", flush=True)
                if name in ("boot", "rebooted", "resumed"):
                    machine.hello(STEP_S)
                well, text = machine.step(name, STEP_S)
                record(name, well, begun, text)
                if not well and name in ("boot", "install"):
                    break
    except MachineError as error:
        record("machine", False, begun, str(error))
        print(machine.console.read_text(errors="replace")[-3000:], flush=True)
    print(f"\n{options.cpu}, {'; '.join(row[3] for row in rows if row[0] == 'boot')}\n")
    print(table(["step", "", "s", "what was found"], rows))
    well = all(row[1] == "passed" for row in rows)
    print(f"{time.monotonic() - started:.0f} s in all. {'Passed' if well else 'FAILED'}.")
    return well


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--cpu", choices=prove.CPUS, default=prove.CPUS[-1], help="%(default)s")
    parser.add_argument("--wheel", type=Path, required=True, help="dist/emotion_edge-*.whl")
    parser.add_argument("--quick", action="store_true", help="the loans alone, without emulation")
    names = [step.__name__ for step in STEPS]
    parser.add_argument(
        "--steps",
        type=prove.some_of(names),
        default=names,
        help=f"after boot and install only these: {','.join(names)}",
    )
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        with roots.scratch_folder() as work:
            well = quick(work, options.wheel) if options.quick else run(work, options)
            return 0 if well else 1
    except (MachineError, roots.RootError, prove.ProofError) as error:
        print(f"machine: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
