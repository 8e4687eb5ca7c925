"""Writers of small folders as annotation tools export them, without the package's own code.

All images are 60 x 40 pixels. The object of most forms is RECTANGLE, of which PIXELS is the mask.
"""

import base64
import csv
import io
import json
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tests.reference_folders import write

#: x1, y1, x2, y2, ends excluded, and its corners on the edges of pixels.
RECTANGLE = (10, 8, 40, 20)
CORNERS = [[10, 8], [40, 8], [40, 20], [10, 20]]

#: The pixels in its corners, where the last column and row are inside it.
INNER_CORNERS = [[10, 8], [39, 8], [39, 19], [10, 19]]


def pixels(x1: int, y1: int, x2: int, y2: int) -> NDArray[np.bool_]:
    """A mask that is a rectangle."""
    mask = np.zeros((40, 60), bool)
    mask[y1:y2, x1:x2] = True
    return mask


def ellipse(x: float, y: float, rx: float, ry: float) -> NDArray[np.bool_]:
    rows, columns = np.mgrid[:40, :60] + 0.5
    return ((columns - x) / rx) ** 2 + ((rows - y) / ry) ** 2 <= 1


PIXELS = pixels(*RECTANGLE)
HOLED = PIXELS & ~pixels(20, 10, 30, 16)
HOLE = [[20, 10], [30, 10], [30, 16], [20, 16]]

#: What turns a box of 20 x 10 pixels about its center (30, 20) by 90 degrees.
TURNED = pixels(25, 10, 35, 30)


def photo(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.random.default_rng(len(path.name)).integers(0, 255, (40, 60, 3), np.uint8)
    Image.fromarray(values).save(path)
    return path


def picture(path: Path, values: NDArray[Any], mode: str | None = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(values.astype(np.uint8))
    (image.convert(mode) if mode else image).save(path)


def dump(path: Path, content: Any) -> None:
    write(path, json.dumps(content))


def png(mask: NDArray[np.bool_]) -> bytes:
    file = io.BytesIO()
    Image.fromarray(mask).save(file, "PNG")
    return file.getvalue()


def row_runs(mask: NDArray[np.bool_]) -> list[int]:
    changes = np.flatnonzero(np.diff(mask.ravel(), prepend=False))
    return np.diff(changes, prepend=0, append=mask.size).tolist()


def yolo(folder: Path, labels: str, data: str | None = None, name: str = "data.yaml") -> None:
    photo(folder / "images" / "train" / "a.png")
    write(folder / "labels" / "train" / "a.txt", labels)
    if data:
        write(folder / name, data)


# Label Studio


def brush(mask: NDArray[np.bool_]) -> list[int]:
    """A mask in Label Studio's packing: runs of 16 bits, and the first row value by value."""
    values = np.repeat(255 * mask.astype(int).ravel(), 4)
    bits = f"{len(values):032b}{7:05b}{3:04b}{7:04b}{11:04b}{15:04b}"
    bits += f"0{3:02b}{240 - 1:016b}" + "".join(f"{value:08b}" for value in values[:240])
    rest = values[240:]
    for part in np.split(rest, np.flatnonzero(np.diff(rest)) + 1):
        bits += f"1{3:02b}{len(part) - 1:016b}{part[0]:08b}"
    bits += "0" * (-len(bits) % 8)
    return [int(bits[index : index + 8], 2) for index in range(0, len(bits), 8)]


def percent(x: float, y: float) -> tuple[float, float]:
    return x / 60 * 100, y / 40 * 100


def region(tool: str, label: str, **value: Any) -> dict[str, Any]:
    sizes = {"original_width": 60, "original_height": 40, "image_rotation": 0}
    return {"id": label, "type": tool, "value": {**value, tool: [label]}, **sizes}


def rectangle_value(rotation: float = 0) -> dict[str, float]:
    (x, y), (w, h) = percent(20, 10), percent(10, 20)
    return {"x": x, "y": y, "width": w, "height": h, "rotation": rotation}


def label_studio(folder: Path) -> None:
    photo(folder / "images" / "a b.png")
    (x, y), (rx, ry) = percent(30, 20), percent(20, 10)
    regions = [
        region("rectanglelabels", "box", **rectangle_value()),
        region("rectanglelabels", "turned", **rectangle_value(90)),
        region("polygonlabels", "polygon", points=[percent(*point) for point in CORNERS]),
        region("brushlabels", "brush", format="rle", rle=brush(PIXELS)),
        region("ellipselabels", "ellipse", x=x, y=y, radiusX=rx, radiusY=ry, rotation=0),
        region("keypointlabels", "point", x=x, y=y, width=0.5),
        {"id": "box", "type": "choices", "value": {"choices": ["good"]}},
        {**region("polygon", "?", points=[percent(*point) for point in CORNERS]), "id": "nameless"},
    ]
    del regions[-1]["value"]["polygon"]
    annotations = [{"result": regions[:1], "was_cancelled": True}, {"result": regions}]
    task = {"id": 1, "data": {"image": "/data/upload/1/0a1b2c3d-a%20b.png"}, "annotations": annotations}
    dump(folder / "project-1.json", [{"id": 2, "data": {"image": "gone.png"}, "annotations": []}, task])


def label_studio_minimal(folder: Path) -> None:
    photo(folder / "sub" / "a.png")
    box = {**rectangle_value(), "rectanglelabels": ["box"], "original_width": 60, "original_height": 40}
    image = "/data/local-files/?d=photos/sub/a.png"
    dump(folder / "min.json", [{"image": image, "id": 1, "label": [box], "annotator": 1}])


def label_studio_coco(folder: Path) -> None:
    photo(folder / "images" / "0a1b2c3d-a.png")
    images = [{"id": 0, "file_name": "images\\0a1b2c3d-a.png", "width": 60, "height": 40}]
    images += [{"id": 1, "file_name": "images\\b.png", "width": None, "height": None}]
    dump(folder / "result.json", coco_content(images, [{"segmentation": [np.ravel(CORNERS).tolist()]}]))


def label_studio_yolo(folder: Path) -> None:
    yolo(folder, "1 0.416667 0.35 0.5 0.3\n")
    write(folder / "classes.txt", "bird\nboat\n")
    dump(folder / "notes.json", {"categories": [{"id": 0, "name": "bird"}, {"id": 1, "name": "boat"}], "info": {}})


def label_studio_voc(folder: Path) -> None:
    photo(folder / "images" / "a.png")
    write(folder / "Annotations" / "a.xml", voc_content("<owner><name>Label Studio</name></owner>"))


def voc_content(mark: str = "", first: int = 0) -> str:
    x1, y1, x2, y2 = RECTANGLE
    return f"""<annotation><filename>a.png</filename>{mark}<object><name>boat</name><bndbox><xmin>{x1 + first}</xmin>
        <ymin>{y1 + first}</ymin><xmax>{x2}</xmax><ymax>{y2}</ymax></bndbox></object></annotation>"""


# CVAT


def coco_content(images: list[dict[str, Any]], annotations: list[dict[str, Any]]) -> dict[str, Any]:
    x1, y1, x2, y2 = RECTANGLE
    common = {"image_id": images[0]["id"], "category_id": 1, "bbox": [x1, y1, x2 - x1, y2 - y1], "iscrowd": 0}
    listed = [{"id": number, **common, **one} for number, one in enumerate(annotations, start=1)]
    return {"images": images, "annotations": listed, "categories": [{"id": 1, "name": "boat"}]}


def cvat_coco(folder: Path) -> None:
    photo(folder / "images" / "default" / "shelf" / "a.png")
    photo(folder / "images" / "default" / "other" / "a.png")
    runs = {"counts": row_runs(PIXELS.T), "size": [40, 60]}
    crowd = {"segmentation": runs, "iscrowd": 1, "attributes": {"occluded": False}}
    polygon = {"segmentation": [np.ravel(CORNERS).tolist()], "attributes": {"occluded": False}}
    images = [{"id": 1, "file_name": "shelf/a.png", "width": 60, "height": 40}]
    images += [{"id": 2, "file_name": "other/a.png", "width": 60, "height": 40}]
    dump(folder / "annotations" / "instances_default.json", coco_content(images, [crowd, polygon]))


def cvat_xml(folder: Path) -> None:
    photo(folder / "images" / "default" / "a.png")
    part = PIXELS[6:22, 8:44]
    write(
        folder / "annotations.xml",
        f"""<?xml version="1.0" encoding="utf-8"?><annotations><version>1.1</version><meta><task/></meta>
        <image id="0" name="a.png" subset="default" width="60" height="40">
        <box label="box" xtl="10.00" ytl="8.00" xbr="40.00" ybr="20.00" occluded="0" z_order="0"/>
        <box label="turned" xtl="20" ytl="15" xbr="40" ybr="25" rotation="90.00"/>
        <polygon label="polygon" points="10,8;40,8;40,20;10,20"><attribute name="size">big</attribute></polygon>
        <mask label="mask" rle="{", ".join(map(str, row_runs(part)))}" left="8" top="6" width="36" height="16"/>
        <mask label="parts" group_id="1" rle="0, 180" left="10" top="8" width="15" height="12"/>
        <polygon label="parts" group_id="1" points="25,8;40,8;40,20;25,20"/>
        <ellipse label="ellipse" cx="30" cy="20" rx="20" ry="10"/>
        <points label="points" points="12.00,9.00;30.00,15.00"/>
        <polyline label="line" points="1,1;2,2"/><tag label="sea"/>
        </image><image id="1" name="empty.png" width="60" height="40"/></annotations>""",
    )


def cvat_masks(folder: Path) -> None:
    photo(folder / "JPEGImages" / "a.jpg")
    write(
        folder / "labelmap.txt", "# label:color_rgb:parts:actions\nbackground:0,0,0::\nbird:9,9,200::\nboat:250,0,9::\n"
    )
    write(folder / "ImageSets" / "Segmentation" / "default.txt", "a\n")
    first, second, bird = PIXELS, pixels(45, 0, 50, 9), pixels(0, 30, 9, 40)
    colors = (first | second)[..., None] * np.array([250, 0, 9]) + bird[..., None] * np.array([9, 9, 200])
    picture(folder / "SegmentationClass" / "a.png", colors)
    numbered = ((first, (0, 0, 9)), (second, (0, 9, 0)), (bird, (9, 0, 0)))
    objects = [one[..., None] * np.array(color) for one, color in numbered]
    picture(folder / "SegmentationObject" / "a.png", np.sum(objects, axis=0))


def cvat_yolo(folder: Path) -> None:
    photo(folder / "obj_train_data" / "a.png")
    write(folder / "obj_train_data" / "a.txt", "0 0.416667 0.35 0.5 0.3\n")
    write(folder / "obj.data", "classes = 1\ntrain = data/train.txt\nnames = data/obj.names\nbackup = backup/\n")
    write(folder / "obj.names", "boat\n")
    write(folder / "train.txt", "data/obj_train_data/a.png\n")


def labelme_web(folder: Path) -> None:
    photo(folder / "default" / "a.png")
    picture(folder / "default" / "Masks" / "a_mask_0.png", 255 * PIXELS)
    points = "".join(f"<pt><x>{x}</x><y>{y}</y></pt>" for x, y in CORNERS)
    write(
        folder / "default" / "a.xml",
        f"""<annotation><filename>a.png</filename><folder/><imagesize><nrows>40</nrows><ncols>60</ncols></imagesize>
        <object><name>polygon</name><deleted>0</deleted><id>0</id><parts/><polygon>{points}</polygon></object>
        <object><name>box</name><deleted>0</deleted><type>bounding_box</type><polygon>{points}</polygon></object>
        <object><name>mask</name><deleted>0</deleted><segm><box><xmin>10</xmin><ymin>8</ymin></box>
        <mask>a_mask_0.png</mask></segm></object>
        <object><name>gone</name><deleted>1</deleted><polygon>{points}</polygon></object></annotation>""",
    )


def datumaro(folder: Path) -> None:
    photo(folder / "images" / "default" / "a.png")
    x1, y1, x2, y2 = RECTANGLE
    box = {"type": "bbox", "label_id": 1, "bbox": [x1, y1, x2 - x1, y2 - y1], "group": 0}
    rle = {"counts": row_runs(PIXELS.T), "size": [40, 60]}
    annotations = [
        box,
        {"type": "mask", "label_id": 0, "rle": rle, "group": 3},
        {**box, "label_id": 0, "group": 3},
        {"type": "polygon", "label_id": 2, "points": np.ravel(CORNERS).tolist(), "group": 0},
        {"type": "caption", "caption": "a boat"},
        {"type": "polyline", "label_id": 0, "points": [1, 1, 2, 2]},
    ]
    labels = [{"name": name, "parent": ""} for name in ("mask", "box", "polygon")]
    item = {"id": "a", "annotations": annotations, "image": {"path": "a.png", "size": [40, 60]}}
    dump(folder / "annotations" / "default.json", {"categories": {"label": {"labels": labels}}, "items": [item]})


# Others with JSON


def createml(folder: Path) -> None:
    photo(folder / "train" / "a.png")
    coordinates = {"x": 25, "y": 14, "width": 30, "height": 12}
    entry = {"image": "a.png", "annotations": [{"label": "boat", "coordinates": coordinates}]}
    dump(folder / "train" / "_annotations.createml.json", [entry])


def via_regions() -> list[dict[str, Any]]:
    shapes = [
        {"name": "polygon", "all_points_x": [x for x, _ in CORNERS], "all_points_y": [y for _, y in CORNERS]},
        {"name": "rect", "x": 10, "y": 8, "width": 30, "height": 12},
        {"name": "ellipse", "cx": 30, "cy": 20, "rx": 20, "ry": 10, "theta": 0},
        {"name": "point", "cx": 30, "cy": 20},
        {"name": "polyline", "all_points_x": [1, 2], "all_points_y": [1, 2]},
    ]
    return [{"shape_attributes": one, "region_attributes": {"note": "x", "type": one["name"]}} for one in shapes]


def via(project: bool) -> Callable[[Path], None]:
    def write_via(folder: Path) -> None:
        photo(folder / "images" / "a.png")
        entries = {"a.png99": {"filename": "a.png", "size": 99, "regions": via_regions(), "file_attributes": {}}}
        dump(folder / "via.json", {"_via_settings": {}, "_via_img_metadata": entries} if project else entries)

    return write_via


def via_csv(folder: Path) -> None:
    photo(folder / "images" / "a.png")
    file = io.StringIO()
    rows = csv.writer(file)
    rows.writerow(
        ["filename", "file_size", "region_count", "region_id", "region_shape_attributes", "region_attributes"]
    )
    for number, one in enumerate(via_regions()):
        rows.writerow(["a.png", 99, 5, number, *(json.dumps(value) for value in one.values())])
    write(folder / "via.csv", file.getvalue())


def makesense_vgg(folder: Path) -> None:
    photo(folder / "photos" / "a.png")
    xs, ys = zip(*[*CORNERS, CORNERS[0]], strict=True)
    shape = {"name": "polygon", "all_points_x": xs, "all_points_y": ys}
    regions = {"0": {"shape_attributes": shape, "region_attributes": {"label": "boat"}}}
    dump(folder / "labels.json", {"a.png": {"fileref": "", "size": 9, "filename": "a.png", "regions": regions}})


def supervisely(folder: Path) -> None:
    photo(folder / "ds0" / "img" / "a.png")
    dump(folder / "meta.json", {"classes": [{"title": "polygon", "shape": "polygon"}], "tags": []})
    packed = base64.b64encode(zlib.compress(png(PIXELS[8:20, 10:40]))).decode()
    objects = [
        {"classTitle": "polygon", "geometryType": "polygon", "points": {"exterior": CORNERS, "interior": [HOLE]}},
        {"classTitle": "box", "geometryType": "rectangle", "points": {"exterior": [[10, 8], [39, 19]], "interior": []}},
        {"classTitle": "bitmap", "geometryType": "bitmap", "bitmap": {"data": packed, "origin": [10, 8]}},
        {"classTitle": "line", "geometryType": "line", "points": {"exterior": [[1, 1], [2, 2]], "interior": []}},
    ]
    dump(folder / "ds0" / "ann" / "a.png.json", {"size": {"height": 40, "width": 60}, "tags": [], "objects": objects})


def darwin(version: int) -> Callable[[Path], None]:
    def write_darwin(folder: Path) -> None:
        photo(folder / "images" / "a.png")
        paths = [[{"x": x, "y": y} for x, y in ring] for ring in (CORNERS, HOLE)]
        polygon: dict[str, Any] = {"paths": paths}
        item: dict[str, Any] = {"name": "a.png", "path": "/", "slots": [{"type": "image", "width": 60, "height": 40}]}
        if version == 1:
            polygon = {"path": paths[0], "additional_paths": paths[1:]}
            item = {"filename": "a.png", "width": 60, "height": 40}
        box = {"x": 10, "y": 8, "w": 30, "h": 12}
        center, radius = {"x": 30, "y": 20}, {"x": 20, "y": 10}
        layer = [number for index, run in enumerate(row_runs(PIXELS)) for number in (3 * (index % 2), run)]
        annotations = [
            {"id": "1", "name": "polygon", "polygon": polygon, "bounding_box": box},
            {"id": "2", "name": "box", "bounding_box": box},
            {"id": "3", "name": "ellipse", "ellipse": {"angle": 0, "center": center, "radius": radius}},
            {"id": "4", "name": "mask", "mask": {"sparse_rle": None}},
            {"id": "5", "name": "layer", "raster_layer": {"dense_rle": layer, "mask_annotation_ids_mapping": {"4": 3}}},
            {"id": "6", "name": "line", "line": {"path": paths[0]}},
        ]
        dump(folder / "a.json", {"version": "2.0", ("image", "item")[version - 1]: item, "annotations": annotations})

    return write_darwin


def labelme_shapes(folder: Path) -> None:
    photo(folder / "a.png")
    kinds = {
        "polygon": INNER_CORNERS,
        "rectangle": [[40, 20], [10, 8]],
        "oriented_rectangle": [[25, 10], [34, 10], [34, 29], [25, 29]],
        "rotation": [[25, 10], [34, 10], [34, 29], [25, 29]],
        "circle": [[30, 20], [30, 30]],
        "point": [[30, 20]],
        "points": [[12, 9], [30, 15]],
        "line": [[1, 1], [2, 2]],
        "linestrip": [[1, 1], [2, 2], [3, 3]],
    }
    shapes = [{"label": kind, "shape_type": kind, "points": points} for kind, points in kinds.items()]
    dump(folder / "a.json", {"shapes": shapes, "imagePath": "a.png", "imageHeight": 40, "imageWidth": 60})
