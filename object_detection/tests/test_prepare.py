"""The official archives, made small, become data that the reader takes."""

import io
import json
import os
import shutil
import tarfile
import zipfile
from pathlib import Path

from fluid.errors import DataError, UserError
from object_detection import prepare_coco, prepare_voc
from object_detection.annotations import open_data
from object_detection.detector import VOC_CLASSES

import cv2
import numpy as np
import pytest

JPEG = cv2.imencode(".jpg", np.zeros((20, 30, 3), np.uint8))[1].tobytes()
XML = """<annotation><size><width>30</width><height>20</height></size>
<object><name>dog</name><difficult>0</difficult>
<bndbox><xmin>1</xmin><ymin>1</ymin><xmax>15</xmax><ymax>10</ymax></bndbox></object></annotation>"""


def write_tar(path: Path, year: str, split: str, stems: list[str], extra: dict[str, bytes] | None = None) -> None:
    files = {f"ImageSets/Main/{split}.txt": "".join(f"{stem}\n" for stem in stems).encode()}
    files |= {f"JPEGImages/{stem}.jpg": JPEG for stem in stems} | {
        f"Annotations/{stem}.xml": XML.encode() for stem in stems
    }
    with tarfile.open(path, "w") as tar:
        for name, content in {f"VOCdevkit/VOC{year}/{name}": content for name, content in files.items()}.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))


@pytest.fixture
def voc(tmp_path: Path) -> prepare_voc.Flags:
    (tmp_path / "source").mkdir()
    for name, stems in (("VOCtrainval_06-Nov-2007", ["000005", "000007"]), ("VOCtest_06-Nov-2007", ["000001"])):
        write_tar(tmp_path / "source" / f"{name}.tar", "2007", name[3:].partition("_")[0], stems)
    write_tar(tmp_path / "source" / "VOCtrainval_11-May-2012.tar", "2012", "trainval", ["2008_000002"])
    return prepare_voc.Flags(tmp_path / "source", tmp_path / "voc")


def test_voc(voc: prepare_voc.Flags) -> None:
    assert prepare_voc.main(voc) == {"trainval": 3, "test": 1}
    data = open_data(voc.output_dir, "trainval")
    assert data.class_names == list(VOC_CLASSES)
    assert [Path(image).stem for image in data.images] == ["000005", "000007", "2008_000002"]
    assert all(item.labels.tolist() == [VOC_CLASSES.index("dog")] for item in data.objects)
    assert all(Path(image).is_file() for image in data.images)
    # Archives that were unpacked need not be there any more.
    shutil.rmtree(voc.source_dir)
    assert prepare_voc.main(voc) == {"trainval": 3, "test": 1}


def test_voc_of_one_year(voc: prepare_voc.Flags, capsys: pytest.CaptureFixture[str]) -> None:
    (voc.source_dir / "VOCtrainval_11-May-2012.tar").unlink()
    assert prepare_voc.main(voc) == {"trainval": 2, "test": 1}
    assert "only the pictures of 2007" in capsys.readouterr().out


def test_voc_that_is_not_complete(voc: prepare_voc.Flags) -> None:
    tar = voc.source_dir / "VOCtest_06-Nov-2007.tar"
    whole = tar.read_bytes()
    tar.write_bytes(whole[:1500])
    with pytest.raises(UserError, match="VOCtest_06-Nov-2007.tar"):
        prepare_voc.main(voc)
    assert not (voc.output_dir / "trainval.txt").exists() and not (voc.output_dir / tar.stem).exists()
    tar.unlink()
    with pytest.raises(DataError, match="VOCtest_06-Nov-2007.tar: no such file"):
        prepare_voc.main(voc)
    tar.write_bytes(whole)
    prepare_voc.main(voc)
    picture = Path(open_data(voc.output_dir, "test").images[0])
    picture.unlink()
    with pytest.raises(DataError, match="000001.jpg: missing; remove the folder"):
        prepare_voc.main(voc)


@pytest.fixture
def coco(tmp_path: Path) -> prepare_coco.Flags:
    (tmp_path / "source").mkdir()
    with zipfile.ZipFile(tmp_path / "source" / "annotations_trainval2017.zip", "w") as archive:
        for split, number in (("train2017", 9), ("val2017", 139)):
            content = {
                "images": [{"id": number, "file_name": f"{number:012d}.jpg", "width": 30, "height": 20}],
                "categories": [{"id": 18, "name": "dog"}, {"id": 90, "name": "toothbrush"}],
                "annotations": [{"id": 1, "image_id": number, "category_id": 90, "bbox": [1, 2, 3, 4], "iscrowd": 0}],
            }
            archive.writestr(f"annotations/instances_{split}.json", json.dumps(content))
            with zipfile.ZipFile(tmp_path / "source" / f"{split}.zip", "w") as pictures:
                pictures.writestr(f"{split}/{number:012d}.jpg", JPEG)
    return prepare_coco.Flags(tmp_path / "source", tmp_path / "coco")


def test_coco(coco: prepare_coco.Flags) -> None:
    assert prepare_coco.main(coco) == {"train2017": 1, "val2017": 1}
    data = open_data(coco.output_dir, "val2017")
    assert data.images == [str(coco.output_dir / "val2017" / "000000000139.jpg")] and Path(data.images[0]).is_file()
    assert data.class_names == ["dog", "toothbrush"] and data.objects[0].labels.tolist() == [1]
    assert sorted(os.listdir(coco.output_dir)) == ["annotations", "train2017", "val2017"]
    shutil.rmtree(coco.source_dir)
    assert prepare_coco.main(coco) == {"train2017": 1, "val2017": 1}


def test_coco_that_is_not_complete(coco: prepare_coco.Flags, capsys: pytest.CaptureFixture[str]) -> None:
    (coco.source_dir / "train2017.zip").unlink()
    assert prepare_coco.main(coco) == {"val2017": 1}
    assert "there will be no train2017" in capsys.readouterr().out
    (coco.output_dir / "val2017" / "000000000139.jpg").unlink()
    with pytest.raises(DataError, match="lacks 1 of 1 picture, 000000000139.jpg first"):
        prepare_coco.main(coco)
    shutil.rmtree(coco.output_dir / "val2017")
    shutil.copy(coco.source_dir / "annotations_trainval2017.zip", coco.source_dir / "val2017.zip")
    with pytest.raises(DataError, match="has no folder val2017 in it"):
        prepare_coco.main(coco)
    (coco.source_dir / "val2017.zip").unlink()
    with pytest.raises(DataError, match="val2017.zip: no such file"):
        prepare_coco.main(coco)
