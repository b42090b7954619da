"""Reading a model's operators."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from emotion_edge.errors import ModelError, UsageError
from emotion_edge.model import manifest as manifests
from emotion_edge.model.graph import Graph

pytest.importorskip("ai_edge_litert", reason="LiteRT is not installed")

TINY, _ = manifests.load(Path(__file__).parents[1] / "tiny.tflite")


def test_the_graph_is_read_and_written_back() -> None:
    graph = Graph(TINY)
    assert graph.tensors[graph.inputs[0]].shape == (1, 48, 48, 1)
    assert graph.tensors[graph.outputs[0]].shape == (1, 7)
    assert graph.tensors[graph.inputs[0]].kind == "INT8"
    again = Graph(graph.to_bytes())
    assert (again.operators, again.tensors) == (graph.operators, graph.tensors)


def test_a_head_is_a_model_and_leaves_the_graph_as_it_was() -> None:
    graph = Graph(TINY)
    head = Graph(graph.head(1))
    assert [operator.name for operator in head.operators] == [graph.operators[0].name]
    assert head.outputs == graph.operators[0].outputs
    assert Graph(graph.to_bytes()).operators == graph.operators
    for count in (0, len(graph.operators) + 1):
        with pytest.raises(ValueError, match=f"{count} of"):
            graph.head(count)


def test_damage_is_one_line() -> None:
    with pytest.raises(ModelError, match="damaged") as error:
        Graph(b"\x18\0\0\0TFL3" + b"\xff" * 60)
    assert "\n" not in str(error.value)


def test_without_litert_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ai_edge_litert.tools", None)
    with pytest.raises(UsageError, match="pip install ai-edge-litert"):
        Graph(TINY)
