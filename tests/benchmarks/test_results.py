"""The schema, the files under results/ and the table made of them."""

import argparse
import json
from pathlib import Path

import jsonschema
import pytest

from benchmarks import record
from benchmarks.__main__ import main
from emotion_edge.bench.share import shareable
from emotion_edge.cli import main as edge
from emotion_edge.errors import UsageError
from emotion_edge.model.backend import installed

SCHEMA = json.loads((Path(record.__file__).parent / "schema.json").read_text(encoding="utf-8"))
TINY = Path(__file__).parents[1] / "edge" / "tiny.tflite"
BOARD = {"name": "Raspberry Pi 5 Model B Rev 1.0", "cpu": "Cortex-A76", "machine": "aarch64"}

validator = jsonschema.Draft202012Validator(SCHEMA)


@pytest.fixture(scope="module")
def document(tmp_path_factory):
    """A true one, of a real measurement."""
    if "litert" not in installed():
        pytest.skip("LiteRT is not installed")
    path = tmp_path_factory.mktemp("bench") / "latency.json"
    words = ["bench", str(TINY), "--rounds", "1", "--runs", "2", "--restarts", "1", "--operators"]
    assert edge([*words, "--rate", "500", "--warmup", "1", "--output", str(path), "--quiet"]) == 0
    return json.loads(path.read_text(encoding="utf-8"))


def test_the_schema_is_one():
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


def test_what_the_tool_writes_fits_the_schema(document):
    validator.validate(document)


def test_a_shared_document_fits_the_schema_without_further_keys(document):
    case = document["cases"][0] | {"variant": "int8", "secret": "x"}
    shared = shareable(document | {"cases": [case], "secret": "x"})
    validator.validate(shared)
    assert "secret" not in json.dumps(shared)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda d: d.pop("machine"),
        lambda d: d["machine"].pop("governor"),
        lambda d: d["cases"][0].pop("load_ms"),
        lambda d: d["cases"][0]["latency_ms"].pop("p99"),
        lambda d: d["cases"][0].update(sha256="short"),
        lambda d: d.update(benchmark="unknown"),
        lambda d: d.update(cases=[]),
    ],
)
def test_the_schema_refuses_what_lacks_a_part(document, spoil):
    copy = json.loads(json.dumps(document))
    spoil(copy)
    assert not validator.is_valid(copy)


def test_every_kept_result_fits_the_schema_and_the_table_is_current():
    for results in record.read_results(record.RESULTS):
        assert results["schema"] == 1 and results["date"]
        for kept in results["documents"]:
            validator.validate(kept)
    assert main(["record", "--check"]) == 0


def a_folder(tmp_path: Path) -> Path:
    (tmp_path / "README.md").write_text(f"# mine\n{record._BEGIN}\nold\n{record._END}\nfoot\n")
    return tmp_path


def test_a_document_is_kept_by_board_and_date_and_shown(document, tmp_path):
    folder = a_folder(tmp_path)
    source = tmp_path / "run.txt"
    document = json.loads(json.dumps(document)) | {"warnings": ["it was hot"]}
    document["machine"] |= BOARD
    source.write_text(f"a table\n{json.dumps(document)}\n")
    words = ["record", str(source), "--folder", str(folder)]
    assert main([*words, "--note", "on a shelf"]) == 0
    assert main(words) == 0  # the same measurement again replaces itself
    (file,) = folder.glob("*.json")
    assert file.name == f"{document['created'][:10]}-raspberry-pi-5-model-b-rev-1-0.json"
    kept = json.loads(file.read_text(encoding="utf-8"))
    assert len(kept["documents"]) == 1 and kept["note"] == "on a shelf"
    readme = (folder / "README.md").read_text(encoding="utf-8")
    assert "old" not in readme and readme.startswith("# mine") and readme.endswith("foot\n")
    assert "Raspberry Pi 5" in readme and "it was hot" in readme and "on a shelf" in readme
    assert main(["record", "--check", "--folder", str(folder)]) == 0
    (folder / "README.md").write_text(readme.replace("Raspberry", "Blueberry"), encoding="utf-8")
    assert main(["record", "--check", "--folder", str(folder)]) == 1


def test_a_nameless_board_goes_by_its_processor():
    machine = {"name": "x86_64", "machine": "x86_64", "cpu": "Intel(R) Xeon(R)", "cores": 2}
    assert record.slug(machine) == "x86-64-intel-xeon-2-cores"


def test_a_readme_without_marks_is_refused():
    with pytest.raises(UsageError, match="marks"):
        record.renewed("nothing here", [])


def test_what_is_no_document_is_refused(tmp_path, capsys):
    bad = tmp_path / "bad.json"
    for text in ("", "[]", '{"type": "observation"}', "plain"):
        bad.write_text(text)
        assert main(["record", str(bad), "--folder", str(a_folder(tmp_path))]) == 2
        assert "bad.json" in capsys.readouterr().err


def test_the_standard_set_is_made_of_commands_that_exist(monkeypatch, tmp_path):
    from benchmarks import board
    from benchmarks.__main__ import _parser

    monkeypatch.setattr(board, "shipped_models", lambda: {"fast": TINY, "accurate": TINY})
    chosen = {"data": Path("d.csv"), "split": "PublicTest", "soak": 30, "folder": tmp_path}
    words = board.commands(argparse.Namespace(**chosen, quick=False))
    for line in words + board.commands(argparse.Namespace(**chosen, quick=True)):
        _parser(line).parse_args([*line, "--output", "x.json"])
    assert {line[0] for line in words} == {"latency", "pipeline", "roofline", "accuracy", "soak"}
    device = argparse.Namespace(**chosen | {"data": None, "soak": 0}, quick=False)
    assert {line[0] for line in board.commands(device)} == {"latency", "pipeline", "roofline"}


def test_the_standard_set_is_recorded_and_a_failure_is_passed_on(document, monkeypatch, tmp_path):
    from benchmarks import board

    folder = a_folder(tmp_path)
    asked = []

    def fake(command, check):
        asked.append(command[3])
        path = Path(command[command.index("--output") + 1])
        path.write_text(json.dumps(document | {"settings": {"rate": len(asked)}}))
        return argparse.Namespace(returncode=1 if command[3] == "roofline" else 0)

    monkeypatch.setattr(board, "shipped_models", lambda: {"fast": TINY})
    monkeypatch.setattr(board.subprocess, "run", fake)
    assert main(["board", "--folder", str(folder), "--soak", "0"]) == 1
    (file,) = folder.glob("*.json")
    kept = json.loads(file.read_text(encoding="utf-8"))
    assert len(kept["documents"]) == len(asked) == 4
