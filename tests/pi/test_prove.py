"""What make test-pi would take for granted."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest

from tests.pi import prove


def test_a_version_that_is_not_the_constraints_is_named() -> None:
    pinned = "# a set\nnumpy==1.26.4\nopencv_python.headless==4.11.0.86\n"
    assert (
        prove.unpinned("numpy==1.26.4\nsix==1.0\nopencv-python-headless==4.11.0.86", pinned) == []
    )
    (wrong,) = prove.unpinned("numpy==2.4.6\n", pinned)
    assert wrong.startswith("numpy==2.4.6 ")


@pytest.mark.parametrize("suite", ["bookworm", "trixie"])
def test_the_set_under_test_is_the_suites_own(suite: str) -> None:
    own = (prove.CHECKOUT / f"edge/constraints-{suite}.txt").read_text()
    tools = prove.constraints(prove.SUITES[suite]).removeprefix(own).splitlines()
    assert sorted(prove.name(line) for line in tools) == sorted(prove.TOOLS)


def test_wheels_for_a_newer_glibc_are_not_taken() -> None:
    tags = prove.platforms("arm64", 36)
    assert "manylinux_2_36_aarch64" in tags and "manylinux2014_aarch64" in tags
    assert not any("_37_" in tag or "x86" in tag for tag in tags)


def test_needs_of_extras_that_are_not_installed_do_not_renew_the_cache(
    tmp_path: Path,
) -> None:
    path = tmp_path / "it.whl"
    needs = ["numpy>=1.26", "paho-mqtt>=2.1; extra == 'mqtt'", "keras>=3; extra == 'train'"]
    with zipfile.ZipFile(path, "w") as archive:
        lines = "\n".join(f"Requires-Dist: {need}" for need in needs)
        archive.writestr("it-1.dist-info/METADATA", f"Name: it\n{lines}\n")
    assert prove.wheel_needs(path) == [f"Requires-Dist: {need}" for need in needs[:2]]


def test_failed_and_skipped_tests_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "junit.xml"
    path.write_text(
        "<testsuites><testsuite><testcase/><testcase><failure/></testcase>"
        '<testcase><error/></testcase><testcase><skipped message="no browser"/></testcase>'
        "</testsuite></testsuites>"
    )
    assert prove.tests_counted(path) == "1 passed, 1 skipped, 2 failed (skipped: no browser)"
    with pytest.raises(prove.ProofError, match="no absent"):
        prove.tests_counted(tmp_path / "absent.xml")


@pytest.fixture
def place(tmp_path: Path) -> prove.Place:
    return prove.Place(prove.SUITES["trixie"], "arm64", tmp_path, tmp_path)


def test_a_failure_of_the_edge_tests_says_how_many(
    place: prove.Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(*_: object, **__: object) -> str:
        counts = "<testsuite><testcase><failure/></testcase></testsuite>"
        (place.work / "tests-cortex-a72.xml").write_text(counts)
        raise prove.ProofError("status 1 of pytest")

    monkeypatch.setattr(prove.Place, "run", run)
    with pytest.raises(prove.ProofError, match=r"0 passed, 0 skipped, 1 failed; status 1"):
        prove.prove_tests(place, "cortex-a72")


def test_an_interruption_of_the_edge_tests_ends_the_command(
    place: prove.Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(*_: object, **__: object) -> str:
        raise SystemExit(143)

    monkeypatch.setattr(prove.Place, "run", run)
    with pytest.raises(SystemExit):
        prove.Report().step("trixie", "tests/edge", lambda: prove.prove_tests(place, "cortex-a72"))


def test_a_failed_step_is_counted_and_said() -> None:
    def fails() -> str:
        raise prove.ProofError("one output lies two steps away")

    report = prove.Report()
    assert report.step("trixie", "models", lambda: "all equal")
    assert not report.step("trixie", "pipeline", fails)
    assert report.failures == 1
    assert [row[2] for row in report.rows] == [
        "all equal",
        "FAILED: one output lies two steps away",
    ]


def test_inputs_are_at_least_500_and_the_same_each_time(tmp_path: Path) -> None:
    drawn = []
    for name in ("one", "two"):
        folder = tmp_path / name
        folder.mkdir()
        prove.make_inputs(folder)
        with np.load(folder / "inputs.npz") as file:
            drawn.append(dict(file))
    assert drawn[0].keys() == drawn[1].keys() != set()
    for shape, images in drawn[0].items():
        assert len(images) >= 500
        assert np.array_equal(images, drawn[1][shape])
        assert len(np.unique(images.reshape(len(images), -1), axis=0)) > 450
