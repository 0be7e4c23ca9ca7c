"""The script that makes the schema, on a small release of its own."""

from __future__ import annotations

import io
import json
import sys
import tarfile
from typing import TYPE_CHECKING, Any

import pytest

from tools import kubernetes_schema

if TYPE_CHECKING:
    from pathlib import Path

META_PROTO = """
package k8s.io.apimachinery.pkg.apis.meta.v1;
message ObjectMeta {
  optional string name = 1;
  optional Time creationTimestamp = 8;
}
message Time {
  optional int64 seconds = 1;
}
message PartialObjectMetadata {
  optional ObjectMeta metadata = 1;
}
"""
META_GO = """
type ObjectMeta struct {
	Name string `json:"name,omitempty" protobuf:"bytes,1,opt,name=name"`
	CreationTimestamp Time `json:"creationTimestamp,omitempty,omitzero" protobuf:"bytes,8,opt,name=creationTimestamp"`
}
"""
TOYS_PROTO = """
package k8s.io.api.toys.v1;
// message Ghost { of a comment }
message Ball {
  // optional string gone = 9;
  optional .k8s.io.apimachinery.pkg.apis.meta.v1.ObjectMeta metadata = 1;
  optional Skin skin = 2;
  map<string, bytes> prints = 3;
  repeated string colors = 4;
  optional int32 size = 5;
  map<string, Extra> extra = 6;
}
message BallList {
  optional .k8s.io.apimachinery.pkg.apis.meta.v1.ObjectMeta metadata = 1;
}
message Skin {
  optional bool leather = 1;
}
message Extra {
  repeated string items = 1;
}
message Unused {
  optional string name = 1;
}
"""
TOYS_GO = """
const GroupName = "toys.k8s.io"
func add() { scheme.AddKnownTypes(v, &Ball{}, &BallList{}) }
type Extra []string
type Ball struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty" protobuf:"bytes,1,opt,name=metadata"`
	Skin `json:",inline" protobuf:"bytes,2,opt,name=skin"` // a comment
	Prints map[string][]byte `json:"prints,omitempty" protobuf:"bytes,3,rep,name=prints"`
	Colors []string `json:"colors" protobuf:"bytes,4,rep,name=colors"`
	Size *int32 `json:"size,omitempty" protobuf:"varint,5,opt,name=size"`
	Extra map[string]Extra `json:"extra,omitempty" protobuf:"bytes,6,rep,name=extra"`
}
type Skin struct {
	Leather bool `json:"isLeather,omitempty" protobuf:"varint,1,opt,name=leather"`
}
"""
RELEASE = {
    "apimachinery/pkg/apis/meta/v1/generated.proto": META_PROTO,
    "apimachinery/pkg/apis/meta/v1/types.go": META_GO,
    "api/toys/v1/generated.proto": TOYS_PROTO,
    "api/toys/v1/types.go": TOYS_GO,
    "api/toys/v1/types_test.go": TOYS_GO.replace("isLeather", "wrong"),
}


def archive(path: Path, files: dict[str, str]) -> Path:
    with tarfile.open(path, "w:gz") as tar:
        for name, text in files.items():
            member = tarfile.TarInfo(f"release/staging/src/k8s.io/{name}")
            member.size = len(text.encode())
            tar.addfile(member, io.BytesIO(text.encode()))
    return path


def make(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *releases: dict[str, str], gone: str = "{}"
) -> dict[str, Any]:
    sources = [archive(tmp_path / f"{index}.tar.gz", files) for index, files in enumerate(releases)]
    (tmp_path / "gone.json").write_text(json.dumps({"kinds": {}, "messages": json.loads(gone)}))
    output = tmp_path / "schema.json"
    arguments = ["-o", str(output), "--gone", str(tmp_path / "gone.json"), *map(str, sources)]
    monkeypatch.setattr(sys, "argv", ["kubernetes_schema.py", *arguments])
    kubernetes_schema.main()
    return dict(json.loads(output.read_text()))


def test_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = make(tmp_path, monkeypatch, RELEASE)
    assert table["kinds"] == {"toys.k8s.io/v1 Ball": "toys.v1.Ball"}
    assert table["messages"] == {
        "meta.v1.ObjectMeta": ["1 name string omitempty", "8 creationTimestamp meta.v1.Time omitempty omitzero"],
        "meta.v1.PartialObjectMetadata": ["1 metadata meta.v1.ObjectMeta"],
        "meta.v1.Time": ["1 seconds int64"],
        "toys.v1.Ball": [
            "1 metadata meta.v1.ObjectMeta omitempty",
            "2 skin toys.v1.Skin inline",
            "3 prints map:bytes omitempty",
            "4 colors list:string",
            "5 size int32 pointer omitempty",
            "6 extra map:toys.v1.Extra omitempty",
        ],
        "toys.v1.Extra": ["1 items list:string inline"],
        "toys.v1.Skin": ["1 isLeather bool omitempty"],
    }


def test_newer_release_counts_and_older_fields_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    newer = {
        **RELEASE,
        "api/toys/v1/types.go": TOYS_GO.replace("isLeather,omitempty", "leather"),
        "api/toys/v1/generated.proto": TOYS_PROTO.replace("  repeated string colors = 4;\n", ""),
    }
    table = make(tmp_path, monkeypatch, RELEASE, newer)
    assert table["messages"]["toys.v1.Skin"] == ["1 leather bool"]
    assert "4 colors list:string" in table["messages"]["toys.v1.Ball"]
    assert "toys.v1.Skin: '1 isLeather bool omitempty' is now '1 leather bool'" in capsys.readouterr().err


def test_gone_fields_never_replace_one_of_a_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = '{"toys.v1.Skin": ["1 wrong string", "2 thickness int32 omitempty"]}'
    table = make(tmp_path, monkeypatch, RELEASE, gone=gone)
    assert table["messages"]["toys.v1.Skin"] == ["1 isLeather bool omitempty", "2 thickness int32 omitempty"]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        pytest.param("optional bool leather", "optional double leather", id="a new scalar"),
        pytest.param("map<string, bytes>", "map<int32, bytes>", id="a new kind of map"),
    ],
)
def test_what_the_decoder_has_not_been_taught(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, old: str, new: str
) -> None:
    with pytest.raises(SystemExit, match="teach"):
        make(tmp_path, monkeypatch, {**RELEASE, "api/toys/v1/generated.proto": TOYS_PROTO.replace(old, new)})
