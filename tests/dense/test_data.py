"""Annotated images from files and from scenes, and augmentation that moves boxes and masks along."""

import json

import numpy as np
import pytest
from PIL import Image

from keraslight import detection, segmentation
from keraslight._scenes import draw_scene
from keraslight._windows import Window, whole
from keraslight.detection import SceneAugmentation, Truths
from keraslight.errors import DataError, InvalidArgumentError

VOC = """<annotation><filename>{file}</filename>{objects}</annotation>"""
OBJECT = """<object><name>{name}</name><difficult>{difficult}</difficult><bndbox>
<xmin>{box[0]}</xmin><ymin>{box[1]}</ymin><xmax>{box[2]}</xmax><ymax>{box[3]}</ymax></bndbox></object>"""


def picture(path, height=20, width=30):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return pixels


@pytest.fixture
def coco(tmp_path):
    stored = {
        "images": [{"id": 7, "file_name": "a.png"}, {"id": 3, "file_name": "b.png"}],
        "categories": [{"id": 18, "name": "dog"}, {"id": 5, "name": "car"}],
        "annotations": [
            {"image_id": 3, "category_id": 18, "bbox": [1, 2, 10, 5], "area": 30, "iscrowd": 0},
            {"image_id": 3, "category_id": 5, "bbox": [0, 0, 4, 4], "area": 16, "iscrowd": 1},
            {"image_id": 3, "category_id": 5, "bbox": [0, 0, 0, 4], "area": 0, "iscrowd": 0},
        ],
    }
    pixels = [picture(tmp_path / "images" / name) for name in ("a.png", "b.png")]
    (tmp_path / "instances.json").write_text(json.dumps(stored))
    return tmp_path, pixels


class TestCoco:
    def test_images_have_their_boxes_classes_crowds_and_areas(self, coco):
        folder, pixels = coco
        data = detection.load_coco(folder / "instances.json", folder / "images")
        image, truths = data[1]
        np.testing.assert_array_equal(image, pixels[1])
        np.testing.assert_array_equal(truths.boxes, [[1, 2, 11, 7], [0, 0, 4, 4]])
        np.testing.assert_array_equal(truths.labels, [1, 0])  # in the order of the categories' ids
        np.testing.assert_array_equal(truths.crowds, [False, True])
        np.testing.assert_array_equal(truths.areas, [30, 16])
        assert data.labels == ("car", "dog")

    def test_an_image_may_have_no_objects(self, coco):
        folder, _ = coco
        data = detection.load_coco(folder / "instances.json", folder / "images")
        assert data[0][1].boxes.shape == (0, 4)

    def test_another_json_file_is_an_error(self, tmp_path):
        (tmp_path / "a.json").write_text("[]")
        with pytest.raises(DataError, match="is not a COCO file: TypeError"):
            detection.load_coco(tmp_path / "a.json", tmp_path)

    def test_a_missing_image_is_an_error(self, coco):
        folder, _ = coco
        (folder / "images" / "a.png").unlink()
        with pytest.raises(DataError, match=r"Annotated images must exist. Received: .*a.png and 0 more"):
            detection.load_coco(folder / "instances.json", folder / "images")

    def test_a_missing_file_is_an_error(self, tmp_path):
        with pytest.raises(InvalidArgumentError, match="`annotations` must be a file. Received: "):
            detection.load_coco(tmp_path / "nothing.json", tmp_path)


class TestVoc:
    @pytest.fixture
    def folder(self, tmp_path):
        picture(tmp_path / "JPEGImages" / "a.png")
        objects = [("tree", 0, (1, 1, 10, 20)), ("bush", 1, (5, 6, 30, 20))]
        text = "".join(OBJECT.format(name=name, difficult=d, box=box) for name, d, box in objects)
        (tmp_path / "Annotations").mkdir()
        (tmp_path / "Annotations" / "a.xml").write_text(VOC.format(file="a.png", objects=text))
        return tmp_path

    def test_pixels_count_from_0_with_an_open_end(self, folder):
        _, truths = detection.load_voc(folder)[0]
        np.testing.assert_array_equal(truths.boxes, [[0, 0, 10, 20], [4, 5, 30, 20]])

    def test_classes_are_sorted_by_name(self, folder):
        data = detection.load_voc(folder)
        assert data.labels == ("bush", "tree")
        np.testing.assert_array_equal(data[0][1].labels, [1, 0])

    def test_difficult_objects_do_not_count(self, folder):
        np.testing.assert_array_equal(detection.load_voc(folder)[0][1].crowds, [False, True])

    def test_given_classes_keep_their_order(self, folder):
        np.testing.assert_array_equal(detection.load_voc(folder, ["tree", "bush"])[0][1].labels, [0, 1])

    def test_a_class_without_a_name_is_an_error(self, folder):
        with pytest.raises(DataError, match="a.xml must only name tree. Received: bush."):
            detection.load_voc(folder, ["tree"])

    def test_everything_may_be_in_one_folder(self, folder, tmp_path):
        for file in (folder / "Annotations" / "a.xml", folder / "JPEGImages" / "a.png"):
            file.rename(tmp_path / file.name)
        for name in ("Annotations", "JPEGImages"):
            (tmp_path / name).rmdir()
        assert len(detection.load_voc(tmp_path)) == 1

    def test_a_folder_without_annotations_is_an_error(self, tmp_path):
        with pytest.raises(DataError, match="A VOC folder must have XML files. Received: "):
            detection.load_voc(tmp_path)

    def test_a_box_without_a_side_is_an_error(self, folder):
        (folder / "Annotations" / "a.xml").write_text("<annotation><object><name>a</name></object></annotation>")
        with pytest.raises(DataError, match="a.xml is not a VOC annotation: <object> lacks bndbox/xmin."):
            detection.load_voc(folder)


class TestMasks:
    @pytest.fixture
    def folder(self, tmp_path):
        picture(tmp_path / "images" / "a.jpg")
        (tmp_path / "masks").mkdir()
        return tmp_path

    def load(self, folder):
        return segmentation.load_masks(folder / "images", folder / "masks", ["sky", "road"])

    def test_gray_values_are_classes(self, folder):
        mask = np.random.default_rng(0).integers(0, 2, (20, 30), dtype=np.uint8)
        Image.fromarray(mask).save(folder / "masks" / "a.png")
        image, read = self.load(folder)[0]
        assert image.shape == (20, 30, 3)
        np.testing.assert_array_equal(read, mask)

    def test_indices_of_a_palette_are_classes(self, folder):
        mask = np.random.default_rng(0).integers(0, 2, (20, 30), dtype=np.uint8)
        image = Image.fromarray(mask)
        image.putpalette([0, 0, 0, 128, 0, 0])
        image.save(folder / "masks" / "a.png")
        np.testing.assert_array_equal(self.load(folder)[0][1], mask)

    def test_colors_are_an_error(self, folder):
        Image.fromarray(np.zeros((20, 30, 3), np.uint8)).save(folder / "masks" / "a.png")
        with pytest.raises(DataError, match="A mask must be gray or have a palette. Received: .* of mode RGB."):
            self.load(folder)[0]

    def test_an_image_without_a_mask_is_an_error(self, folder):
        with pytest.raises(DataError, match="Each image must have a mask .* Received: a.jpg without one."):
            self.load(folder)

    @pytest.mark.parametrize(
        ("mask", "text"),
        [
            (np.zeros((9, 30), np.uint8), r"A mask must have its image's size. Received: \(9, 30\) for image 0"),
            (np.full((20, 30), 2, np.uint8), r"Masks must have classes 0..1 or 255. Received: 2 in that of image 0."),
        ],
    )
    def test_masks_that_do_not_fit_are_an_error(self, folder, mask, text):
        Image.fromarray(mask).save(folder / "masks" / "a.png")
        with pytest.raises(DataError, match=text):
            next(self.load(folder).batches((16, 16), 1))


class TestScenes:
    def test_a_seed_draws_the_same_scene_again(self):
        first, second = draw_scene((3, 1)), draw_scene((3, 1))
        for ours, theirs in zip(first, second, strict=True):
            np.testing.assert_array_equal(ours, theirs)
        assert not np.array_equal(first.image, draw_scene((3, 2)).image)

    @pytest.mark.parametrize("seed", range(5))
    def test_boxes_are_tight_around_the_ink(self, seed):
        scene = draw_scene(seed)
        for (left, top, right, bottom), label in zip(scene.boxes.astype(int), scene.labels, strict=True):
            inside = scene.mask[top:bottom, left:right] == label + 1
            assert inside[0].any()
            assert inside[-1].any()
            assert inside[:, 0].any()
            assert inside[:, -1].any()

    @pytest.mark.parametrize("seed", range(5))
    def test_all_ink_is_in_a_box(self, seed):
        scene = draw_scene(seed)
        mask = scene.mask.copy()
        for left, top, right, bottom in scene.boxes.astype(int):
            mask[top:bottom, left:right] = 0
        assert not mask.any()

    def test_held_out_scenes_have_other_digits(self):
        from keraslight._scenes import _material

        assert sum(len(_material(held_out)[1]) for held_out in (False, True)) == 1797
        assert len(draw_scene(0, 256, held_out=True).image) == 256  # the held-out part is lower than that

    def test_both_tasks_have_the_same_scenes(self):
        boxes, masks = detection.load_scenes(3, seed=5), segmentation.load_scenes(3, seed=5)
        np.testing.assert_array_equal(boxes[2][0], masks[2][0])
        assert masks.labels == ("background", *boxes.labels)

    def test_a_size_out_of_range_is_an_error(self):
        with pytest.raises(InvalidArgumentError, match=r"`size` of a scene must be in 64..256. Received: size=32."):
            draw_scene(0, 32)


class TestBatches:
    def test_boxes_are_scaled_with_their_images(self):
        data = detection.load_scenes(5, size=64)
        batch = next(data.batches((32, 128), 2))
        assert batch.images.shape == (2, 32, 128, 3)
        count = (batch.labels[1] >= 0).sum()
        np.testing.assert_allclose(batch.boxes[1, :count], data[1][1].boxes * [2, 0.5, 2, 0.5])

    def test_the_rest_is_padded(self):
        data = detection.load_scenes(9, size=64)
        batches = list(data.batches((64, 64), 4))
        most = max(len(truths.labels) for truths in data.truths)
        assert [batch.labels.shape for batch in batches] == [(4, most), (4, most), (1, most)]

    def test_crowds_are_left_out(self):
        truths = Truths(np.array([[0.0, 0, 9, 9]]), np.array([0]), np.array([True]))
        data = detection.DetectionData(("a",), (truths,), lambda place: np.zeros((9, 9, 3), np.uint8))
        assert (next(data.batches((9, 9), 1)).labels == -1).all()

    @pytest.mark.parametrize("load", [detection.load_scenes, segmentation.load_scenes])
    def test_an_epoch_is_a_function_of_seed_and_number(self, load):
        def epoch(number):
            return next(load(4, size=64).batches((48, 48), 4, seed=1, epoch=number, augmentation=SceneAugmentation()))

        first, again, other = epoch(0), epoch(0), epoch(1)
        for ours, theirs in zip(first, again, strict=True):
            np.testing.assert_array_equal(ours, theirs)
        assert not np.array_equal(first.images, other.images)

    def test_a_part_has_its_own_images(self):
        data = segmentation.load_scenes(6, size=64)
        np.testing.assert_array_equal(data[2:][1][0], data[3][0])
        assert len(data[2:]) == 4

    @pytest.mark.parametrize("load", [detection.load_scenes, segmentation.load_scenes])
    def test_augmentation_without_a_seed_is_an_error(self, load):
        with pytest.raises(InvalidArgumentError, match="`augmentation` needs a `seed`. Received: seed=None."):
            next(load(1, size=64).batches((48, 48), 4, augmentation=SceneAugmentation()))


class TestWindows:
    def test_the_whole_image_at_its_size_is_itself(self):
        image = np.random.default_rng(0).integers(0, 256, (9, 7, 3), dtype=np.uint8)
        np.testing.assert_allclose(whole(image).pixels(image, (9, 7)), image, atol=1e-3)

    @pytest.mark.parametrize("size", [(18, 21), (4, 3)])
    def test_resampling_is_bilinear_between_centers(self, size):
        import tensorflow as tf

        image = np.random.default_rng(0).integers(0, 256, (9, 7, 3), dtype=np.uint8)
        np.testing.assert_allclose(whole(image).pixels(image, size), tf.image.resize(image, size), atol=1e-3)

    @pytest.mark.parametrize("flip", [False, True])
    def test_boxes_and_masks_follow_the_pixels(self, flip):
        image, mask = np.zeros((40, 60, 3), np.uint8), np.zeros((40, 60), np.uint8)
        image[10:20, 30:50] = 255
        mask[10:20, 30:50] = 1
        window = Window(20, 4, 60, 36, flip=flip)
        pixels, classes = window.pixels(image, (64, 80)), window.mask(mask, (64, 80))
        ((left, top, right, bottom),), kept = window.boxes(np.array([[30.0, 10, 50, 20]]), (64, 80))
        assert kept.all()
        assert (left, top, right, bottom) == (20, 12, 60, 32)  # in the middle, whether mirrored or not
        inside = np.zeros((64, 80), bool)
        inside[int(top) : int(bottom), int(left) : int(right)] = True
        np.testing.assert_array_equal(classes == 1, inside)
        np.testing.assert_array_equal(pixels[..., 0] > 127, inside)

    def test_a_mirrored_box_lies_on_the_other_side(self):
        boxes, _ = Window(0, 0, 100, 50, flip=True).boxes(np.array([[10.0, 0, 30, 20]]), (50, 100))
        np.testing.assert_allclose(boxes, [[70, 0, 90, 20]])

    def test_outside_of_the_image_is_gray_and_without_a_class(self):
        image, mask = np.zeros((10, 10, 3), np.uint8), np.zeros((10, 10), np.uint8)
        window = Window(-10, 0, 10, 10)
        assert (window.pixels(image, (10, 20))[:, :10] == 127).all()
        assert (window.mask(mask, (10, 20))[:, :10] == 255).all()
        assert (window.mask(mask, (10, 20))[:, 10:] == 0).all()

    def test_boxes_whose_center_is_outside_are_dropped(self):
        boxes = np.array([[0.0, 0, 12, 10], [0, 0, 30, 10], [15, 0, 15.4, 10]])
        _, kept = Window(10, 0, 20, 10).boxes(boxes, (10, 10))
        np.testing.assert_array_equal(kept, [False, True, False])  # the last one is narrower than a pixel

    def test_light_changes_around_middle_gray(self):
        image = np.full((4, 4, 3), 227, np.uint8)
        np.testing.assert_allclose(Window(0, 0, 4, 4, gain=0.5, shift=10).pixels(image, (4, 4)), 127 + 50 + 10)

    def test_crops_keep_their_share_inside_the_image(self):
        image, augmentation = np.zeros((40, 60, 3), np.uint8), SceneAugmentation(crop=0.5)
        for seed in range(50):
            window = augmentation.draw(image, seed)
            assert 0 <= window.left < window.right <= 60 + 1e-9
            assert 0 <= window.top < window.bottom <= 40 + 1e-9
            assert window.right - window.left >= 30 - 1e-9
            assert window.bottom - window.top >= 20 - 1e-9

    def test_a_canvas_contains_the_image(self):
        image, augmentation = np.zeros((40, 60, 3), np.uint8), SceneAugmentation(canvas=3, canvas_share=1)
        for seed in range(20):
            window = augmentation.draw(image, seed)
            assert window.left <= 0
            assert window.right >= 60 - 1e-9
            assert window.right - window.left <= 180

    @pytest.mark.parametrize("values", [{"crop": 0}, {"canvas": 0.5}, {"aspect": 0.9}, {"contrast": 1.0}])
    def test_values_out_of_range_are_an_error(self, values):
        with pytest.raises(InvalidArgumentError, match=f"`{next(iter(values))}` must be .* Received: "):
            SceneAugmentation(**values)
