"""How the dense fixtures are read.  numpy + the standard library + golden_rule.py beside it.

Parameters and inputs come from golden_rule.py, unchanged.  New here: large outputs are stored as a sample of their
values and as means, all found again by rule; integer images and boxes by rule.
"""
import zlib

import numpy as np

from tests.golden.golden_rule import fill, input_crc32, kind_of, load, make_input, params, params_crc32  # noqa: F401


def places(key, size, count):
    """Flat C-order places of the stored values of an array of `size` values; `key` is "<case>.<output>"."""
    if size <= count:
        return np.arange(size)
    u = np.random.default_rng(zlib.crc32(key.encode())).random(count)  # duplicates may occur
    return np.minimum((u * size).astype(np.int64), size - 1)


def sampled(key, array, count):
    return np.ascontiguousarray(array).reshape(-1)[places(key, array.size, count)]


def differences(meta, stored, case, output, got):
    """Largest |difference| of each stored view of one output, in units of that output's std.

    `got`: the port's array in the layout that the case's `shape` says (channels last).
    """
    row = next(r for r in meta["outputs"] if r["case"] == case and r["output"] == output)
    key = f"{case}.{output}"
    got = np.asarray(got, np.float64)
    if list(got.shape) != row["shape"]:
        raise ValueError(f"{key} must have the shape {row['shape']}. Received: {list(got.shape)}")
    found = {"sample": np.abs(sampled(key, got, row["count"]) - stored[f"{key}.sample"]).max()}
    if f"{key}.channel_mean" in stored:
        axes = tuple(range(got.ndim - 1))
        found["channel_mean"] = np.abs(got.mean(axes) - stored[f"{key}.channel_mean"]).max()
    if f"{key}.place_mean" in stored:
        found["place_mean"] = np.abs(got.mean((0, -1)) - stored[f"{key}.place_mean"]).max()
    return {name: float(value / row["std"]) for name, value in found.items()}


def make_image(seed, height, width):
    """(H, W, 3) uint8: rectangles of flat colour on a ramp, whole numbers only, the same everywhere."""
    u = np.random.default_rng(seed).random((24, 7))
    rows, columns = np.arange(height)[:, None], np.arange(width)[None, :]
    image = np.zeros((height, width, 3), np.int64)
    for channel in range(3):
        image[..., channel] = (rows * (channel + 1) + columns * (3 - channel)) // 4 % 256
    for y, x, h, w, r, g, b in u:
        top, left = int(y * height * 0.8), int(x * width * 0.8)
        bottom, right = top + 4 + int(h * height * 0.4), left + 4 + int(w * width * 0.4)
        image[top:bottom, left:right] = [int(r * 256), int(g * 256), int(b * 256)]
    return image.astype(np.uint8)


def make_boxes(seed, count, height, width, classes, smallest=8.0):
    """-> boxes float32 (count, 4) x1 y1 x2 y2 inside the image, labels int64 (count,) in 0 .. classes - 1."""
    u = np.random.default_rng(seed).random((count, 5))
    w = smallest + u[:, 2] * (width * 0.7 - smallest)
    h = smallest + u[:, 3] * (height * 0.7 - smallest)
    x, y = u[:, 0] * (width - w), u[:, 1] * (height - h)
    boxes = np.stack([x, y, x + w, y + h], 1).astype(np.float32)
    return boxes, np.minimum((u[:, 4] * classes).astype(np.int64), classes - 1)


def make_detection_set(seed, images=24, classes=5, height=240, width=320):
    """A small detection problem -> (truths, detections): lists of dicts with plain Python numbers.

    truth: image, label, box (x, y, w, h), crowd (0 or 1).  detection: image, label, box, score.
    Some images have no truths, some no detections, image 3 has 130 detections of class 0, scores are whole 64ths so
    that ties occur, a few truths are crowds, areas span COCO's small, medium and large.
    """
    u = iter(np.random.default_rng(seed).random(200_000))
    take = lambda: float(next(u))  # noqa: E731
    truths, detections = [], []
    for image in range(images):
        count = 0 if image % 8 == 7 else 1 + int(take() * 9)
        for _ in range(count):
            label, size = int(take() * classes), 6 + take() ** 2 * 150
            w, h = size * (0.5 + take()), size * (0.5 + take())
            w, h = min(w, width - 1.0), min(h, height - 1.0)
            box = [take() * (width - w), take() * (height - h), w, h]
            crowd = int(take() < 0.08)
            truths.append({"image": image, "label": label, "box": box, "crowd": crowd})
            if image % 8 == 5:
                continue
            for _ in range(int(take() * 3)):
                s = (0.02 + 0.35 * take()) * min(w, h)
                near = [box[0] + (take() - 0.5) * s, box[1] + (take() - 0.5) * s, w + (take() - 0.5) * s, h + (take() - 0.5) * s]
                wrong = take() < 0.12
                detections.append({"image": image, "label": (label + int(wrong)) % classes, "box": near,
                                   "score": int((0.3 + 0.7 * take()) * 64) / 64})
        if image % 8 == 5:
            continue
        for _ in range(int(take() * 5) + (130 if image == 3 else 0)):
            w, h = 8 + take() * 90, 8 + take() * 90
            detections.append({"image": image, "label": 0 if image == 3 else int(take() * classes),
                               "box": [take() * (width - w), take() * (height - h), w, h], "score": int(take() * 40) / 64})
    return truths, detections
