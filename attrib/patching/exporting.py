"""Circuits as JSON and GraphML. Every text in them is hostile: JSON is written in ASCII, XML by a library."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree as ET

if TYPE_CHECKING:
    from attrib.patching.circuit import Circuit

FORMAT_VERSION = 1
_NAMESPACE = "http://graphml.graphdrawing.org/xmlns"
# no XML file may hold these, escaped or not
_FORBIDDEN = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
# (name, of what, type)
_KEYS = (
    ("kind", "node", "string"),
    ("layer", "node", "int"),
    ("receiver", "edge", "string"),
    ("score", "edge", "double"),
)
_NUMBERS = ("faithfulness", "completeness", "full", "empty")


def as_json(circuit: Circuit) -> str:
    document = {
        "format": FORMAT_VERSION,
        "about": circuit.about,
        "notes": list(circuit.notes),
        "pairs": circuit.pairs,
        "possible_edges": circuit.possible,
        "dropped_edges": circuit.dropped,
        "unreached_nodes": circuit.unreached,
        **{name: getattr(circuit, name) for name in _NUMBERS},
        "reading": circuit.reading,
        "curve": [size._asdict() for size in circuit.curve],
        "cuts": [cut._asdict() for cut in circuit.cuts],
        "nodes": [{"id": name, **_node(name)} for name in circuit.nodes],
        "edges": [link._asdict() for link in circuit.links],
    }
    return json.dumps(document, indent=1, ensure_ascii=True, allow_nan=False)


def as_graphml(circuit: Circuit) -> str:
    root = ET.Element("graphml", xmlns=_NAMESPACE)
    about = [(name, "graph", "string") for name in circuit.about] + [(name, "graph", "double") for name in _NUMBERS]
    for name, of, kind in (*about, *_KEYS):
        ET.SubElement(root, "key", {"id": f"{of}_{name}", "for": of, "attr.name": name, "attr.type": kind})
    graph = ET.SubElement(root, "graph", id="circuit", edgedefault="directed")
    _data(graph, "graph", {**circuit.about, **{name: getattr(circuit, name) for name in _NUMBERS}})
    for name in circuit.nodes:
        _data(ET.SubElement(graph, "node", id=name), "node", _node(name))
    for i, link in enumerate(circuit.links):
        edge = ET.SubElement(graph, "edge", id=f"e{i}", source=link.source, target=link.target)
        _data(edge, "edge", {"receiver": link.receiver, "score": link.score})
    ET.indent(root, " ")
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ET.tostring(root, encoding="unicode")


def _node(name: str) -> dict[str, Any]:
    kind, _, rest = name.partition(".")
    return {"kind": kind, **({"layer": int(rest.split(".")[0])} if rest else {})}


def _data(parent: ET.Element, of: str, values: dict[str, Any]) -> None:
    for name, value in values.items():
        text = value if isinstance(value, str) else repr(value)
        ET.SubElement(parent, "data", key=f"{of}_{name}").text = _FORBIDDEN.sub(_spelled, text)


def _spelled(match: re.Match[str]) -> str:
    return f"\\u{ord(match[0]):04x}"
