"""Both clients, against a server and against their fakes: both behave the same."""

import io
import re
import subprocess
import sys

import grpc
import numpy as np
import pytest
from keraslight_serving import client as package
from keraslight_serving.client import Classification, InternalError, InvalidInput, Retry, ServingError
from keraslight_serving.client._arrays import rank
from keraslight_serving.wire import serving_pb2 as pb
from PIL import Image


@pytest.fixture(scope="module")
def client(make, address):
    with make(address, "tiny", timeout=60) as client:
        yield client


def test_imports_neither_tensorflow_nor_the_server():
    code = (
        "import keraslight_serving.client, keraslight_serving.client.testing, sys; "
        "bad = {'tensorflow', 'keras', 'keraslight', 'keraslight_serving.server', 'httpx'} & set(sys.modules); "
        "sys.exit(str(bad) if bad else 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_classifies_files_without_numpy(address, png, tmp_path):
    (tmp_path / "image.png").write_bytes(png)
    code = f"""
import sys
sys.modules["numpy"] = None  # as if it were not installed
from keraslight_serving.client import ClassifierClient, Unsupported
with ClassifierClient({address!r}, "tiny", timeout=60) as client:
    (ranking,) = client.classify({str(tmp_path / "image.png")!r})
    print(ranking[0].label, sorted(client.metadata().signatures), client.status()[0].state)
    try:
        client.predict({{"images": [[0.0]]}})
    except Unsupported as error:
        print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert re.match(r"(cat|dog|eel) \['classify', 'encoded', .*'serving_default'\] AVAILABLE", done.stdout), done.stderr
    assert "Arrays need numpy: pip install numpy. Received: " in done.stdout


# ---------------------------------------------------------------- images


def kinds(pixels, png, path):
    gray = pixels[0, ..., 0]
    path.write_bytes(png)
    return {
        "str": str(path),
        "Path": path,
        "bytes": png,
        "bytearray": bytearray(png),
        "memoryview": memoryview(png),
        "file": io.BytesIO(png),
        "PIL": Image.fromarray(gray),
        "PIL, opened": Image.open(path),
        "(H, W)": gray,
        "(H, W, 1)": pixels[0],
        "(H, W, 3)": np.repeat(pixels[0], 3, axis=2),
        "(H, W, 4)": np.concatenate([np.repeat(pixels[0], 3, axis=2), np.full((8, 8, 1), 255, np.uint8)], axis=2),
        "whole floats": gray.astype(np.float64),
        "whole ints": gray.astype(np.int64),
        "batch of one": pixels[:1],
        "list": [png],
        "iterator": iter([path]),
    }


def test_all_kinds_of_images_get_the_same_answer(client, pixels, png, tmp_path):
    expected = client.classify(png)
    assert len(expected) == 1
    for kind, image in kinds(pixels, png, tmp_path / "image.png").items():
        found = client.classify(image)
        assert [c.label for c in found[0]] == [c.label for c in expected[0]], kind
        np.testing.assert_allclose([c.score for c in found[0]], [c.score for c in expected[0]], atol=1e-4, err_msg=kind)


def test_a_mixed_batch_keeps_its_order(client, pixels, png):
    alone = [client.classify(image)[0] for image in pixels]
    mixed = client.classify([png, pixels[1], Image.fromarray(pixels[2, ..., 0]), io.BytesIO(_png(pixels[3, ..., 0]))])
    assert [[c.label for c in row] for row in mixed] == [[c.label for c in row] for row in alone]
    assert client.classify(pixels) == client.classify(list(pixels))


def test_a_ranking_has_the_best_class_first(client, png, server):
    (ranking,) = client.classify(png)
    assert isinstance(ranking[0], Classification)
    assert ranking[0].score > ranking[1].score
    assert ["cat", "dog", "eel"][ranking[0].index] == ranking[0].label


def test_a_ranking_has_at_most_top_k_classes(client, png):
    (ranking,) = client.classify(png)
    assert client.classify(png, top_k=1) == [ranking[:1]]
    assert client.classify(png, top_k=100) == [ranking]  # the model ranks two


def test_logits_become_probabilities_image_by_image():
    first, second = rank({"logits": np.float32([[1000, 0], [0, 1]])}, ["cat", "dog"], 2)
    assert first == [Classification("cat", 1.0, 0), Classification("dog", 0.0, 1)]
    assert [(c.label, round(c.score, 5)) for c in second] == [("dog", 0.73106), ("cat", 0.26894)]


def _png(array, **options):
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "PNG", **options)
    return buffer.getvalue()


def sent_for(make, image):
    channel = make.fake()
    make(channel=channel).classify(image)
    return channel.requests[0].inputs["image_bytes"].string_val[0]


def test_files_are_sent_as_they_are_and_pixels_without_loss(make, png, pixels):
    assert sent_for(make, png) == png
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(sent_for(make, pixels[0])))), pixels[0, ..., 0])
    color = np.random.default_rng(0).integers(0, 256, (5, 7, 4), dtype=np.uint8)
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(sent_for(make, color)))), color)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr", "HSV", "I;16", "I", "F"])
def test_pil_images_of_every_mode_can_be_sent(make, mode):
    assert Image.open(io.BytesIO(sent_for(make, Image.new(mode, (4, 4))))).size == (4, 4)


@pytest.mark.parametrize(
    ("data", "known"),
    [(b"\xff\xd8\xff\xe0", True), (b"RIFF\0\0\0\0WEBPVP8 ", True), (b"GIF89a", True), (b"RIFF\0\0\0\0WAVE", False)],
)
def test_image_files_are_known_by_their_first_bytes(make, data, known):
    if known:
        assert sent_for(make, data) == data
    else:
        with pytest.raises(InvalidInput):
            sent_for(make, data)


@pytest.mark.parametrize(
    ("images", "text"),
    [
        ([], "There must be at least one image. Received: none"),
        (None, "Images must be a path, the bytes of an image file, .* Received: NoneType"),
        ([b"no image at all"], r"images\[0\] must be a JPEG, PNG, .* Received: 15 bytes that start with b'no image'"),
        ([b""], r"images\[0\] must be a JPEG, .* Received: no bytes"),
        (["nowhere.png"], r"images\[0\] \('nowhere.png'\) must be a file that can be read. Received: No such file"),
        (["a\0b"], r"images\[0\] .* must be a file that can be read. Received: embedded null byte"),
        ([3], r"images\[0\] must be a path, .* or a numpy array. Received: 3"),
        ([io.StringIO("text")], r"images\[0\] must give bytes \(open files with 'rb'\). Received: str"),
        (np.zeros((5, 8, 8), np.uint8), r"must be an array of shape .* Received: shape \(5, 8, 8\)"),
        (np.zeros((0, 8), np.uint8), r"Received: shape \(0, 8\)"),
        (np.zeros((0, 8, 8, 1), np.uint8), "There must be at least one image"),
        (
            np.full((8, 8), 0.5),
            "whole pixels from 0 to 255, not scaled or normalized.* Received: float64 from 0.5 to 0.5",
        ),
        (np.full((8, 8), np.nan), "Received: float64 from nan to nan"),
        (np.full((8, 8), 256), "Received: int64 from 256 to 256"),
        (np.full((8, 8), -1, np.int8), "Received: int8 from -1 to -1"),
        (np.zeros((8, 8), bool), "must hold pixels from 0 to 255. Received: dtype bool"),
        (Image.fromarray(np.full((4, 4), 0.5, np.float32)), "not scaled or normalized"),
    ],
)
def test_what_can_not_be_sent(make, images, text):
    channel = make.fake()
    with pytest.raises(InvalidInput, match=text) as caught:
        make(channel=channel, model="pets").classify(images)
    assert channel.requests == []
    assert (caught.value.model, caught.value.code) == ("pets", None)
    assert isinstance(caught.value, ValueError)


def test_the_third_of_three_is_named(make, png, tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("buy milk")
    with pytest.raises(InvalidInput, match=r"images\[2\] \('.*notes.txt'\) must be a JPEG"):
        make(channel=make.fake()).classify([png, png, path])


def test_a_truncated_pil_image(make, png, tmp_path):
    path = tmp_path / "image.png"
    path.write_bytes(png[:-30])
    received = r"images\[0\] must be an image that can be read. Received: "
    with Image.open(path) as image, pytest.raises(InvalidInput, match=received):
        sent_for(make, image)


def test_an_image_that_the_model_can_not_decode(client, png):
    with pytest.raises(InvalidInput, match="INVALID_ARGUMENT from (http://)?127.0.0.1.*model 'tiny'") as caught:
        client.classify(png[:40])
    assert caught.value.code == grpc.StatusCode.INVALID_ARGUMENT


# ---------------------------------------------------------------- the other calls


def test_predict(client, pixels):
    assert client.predict({"images": pixels.astype(np.float32)})["probabilities"].shape == (4, 3)


def test_predict_with_another_signature_and_some_of_its_outputs(client, pixels):
    found = client.predict({"images": pixels.astype(np.float32)})
    encoded = client.predict({"image_bytes": [_png(p[..., 0]) for p in pixels]}, "encoded", ["classes", "indices"])
    assert set(encoded) == {"classes", "indices"}
    assert encoded["indices"][:, 0].tolist() == found["probabilities"].argmax(1).tolist()


def test_lists_of_numbers_become_the_declared_dtype(client, pixels):
    found = client.predict({"images": pixels.astype(np.float32)})
    listed = client.predict({"images": pixels.tolist()})
    np.testing.assert_array_equal(listed["probabilities"], found["probabilities"])


@pytest.mark.parametrize(
    ("inputs", "text"),
    [
        ({}, "Signature 'serving_default' takes the inputs images. Received: none"),
        ({"image": 0, "extra": 0}, "takes the inputs images. Received: extra, image"),
        (
            {"images": np.zeros((1, 8, 8, 1), np.uint8)},
            r"takes float32 of shape \(any, 8, 8, 1\). Received: uint8 of shape \(1, 8, 8, 1\)",
        ),
        ({"images": np.zeros((1, 9, 8, 1), np.float32)}, r"Received: float32 of shape \(1, 9, 8, 1\)"),
        ({"images": np.zeros((8, 8, 1), np.float32)}, r"Received: float32 of shape \(8, 8, 1\)"),
        ({"images": np.array(["2026"], "datetime64[Y]")}, r"Received: datetime64\[Y\] of shape \(1\)"),
        ({"images": [[1], [2, 3]]}, "takes float32 .* Received: .*inhomogeneous"),
        ({"images": np.array(["a"])}, r"Received: string of shape \(1\)"),
    ],
)
def test_inputs_are_checked_before_they_are_sent(make, inputs, text):
    channel = make.fake(inputs={"images": np.zeros((1, 8, 8, 1), np.float32)})
    with pytest.raises(InvalidInput, match=text) as caught:
        make(channel=channel).predict(inputs)
    assert (caught.value.code, caught.value.attempts, caught.value.model) == (None, 0, "default")
    assert not any(isinstance(request, pb.PredictRequest) for request in channel.requests)


def test_bytes_that_end_in_zeros_arrive_whole(make):
    channel = make.fake(inputs={"x": [b"text"]})
    make(channel=channel).predict({"x": [b"ab\0\0", b"c\0"]})
    assert list(channel.requests[-1].inputs["x"].string_val) == [b"ab\0\0", b"c\0"]


def test_metadata(client):
    metadata = client.metadata()
    assert (metadata.model, metadata.version) == ("tiny", 1)
    assert list(metadata.signatures) == ["classify", "encoded", "pairs", "regress", "serving_default"]
    images = metadata.signatures["serving_default"].inputs["images"]
    assert (images.name, images.dtype, images.shape) == ("images", "float32", (None, 8, 8, 1))
    encoded = metadata.signatures["encoded"]
    assert encoded.inputs["image_bytes"].dtype == "string"
    assert encoded.outputs["indices"].dtype == "int32"
    assert metadata.signatures["classify"].method == "tensorflow/serving/classify"


def test_status(client):
    (status,) = client.status()
    assert (status.version, status.state, status.error) == (1, "AVAILABLE", "")


def test_a_loaded_model_is_ready(client):
    client.wait_until_ready(timeout=5)


def test_a_missing_model_is_not_ready_in_time(make, address):
    with pytest.raises(
        package.Unavailable, match=r"Model 'other' must be ready within 0.1 seconds. Received: Could not"
    ):
        make(address, "other").wait_until_ready(timeout=0.1)


def test_the_models_of_a_server(make, client, address):
    if address.startswith("http"):
        with pytest.raises(package.Unsupported, match="the server must be keraslight's, asked over gRPC"):
            client.models()
        return
    assert client.models() == {"tiny": client.status()}


def test_a_server_that_can_not_list_its_models(make):
    channel = make.fake(error=grpc.StatusCode.UNIMPLEMENTED, details="Method not found!")
    with pytest.raises(package.Unsupported, match="TensorFlow Serving has no such call. Received: Method not found!"):
        make(channel=channel).models()


def test_a_missing_model(make, address, pixels):
    with pytest.raises(package.ModelNotFound, match=r"Latest\(other\) \(NOT_FOUND from .*, model 'other'\)") as caught:
        make(address, "other").classify(pixels)
    assert caught.value.details == "Servable not found for request: Latest(other)"


def test_a_missing_version(make, address, pixels):
    with pytest.raises(package.ModelNotFound, match="model 'tiny' version 9") as caught:
        make(address, "tiny", version=9).classify(pixels)
    assert (caught.value.model, caught.value.version) == ("tiny", 9)


def test_a_missing_signature(client, pixels):
    with pytest.raises(
        package.SignatureNotFound, match="Received: 'nope'; it has classify, encoded, pairs, regress, serving_default"
    ) as caught:
        client.predict({"images": pixels}, signature="nope")
    assert caught.value.model == "tiny"


@pytest.mark.parametrize("nowhere", ["127.0.0.1:1", "http://127.0.0.1:1"])
def test_no_server_at_the_address(make, nowhere):
    with (
        make(nowhere, timeout=5) as client,
        pytest.raises(package.Unavailable, match=f"UNAVAILABLE from {nowhere}, model 'default'"),
    ):
        client.status()


@pytest.mark.parametrize("nowhere", ["127.0.0.1:1", "http://127.0.0.1:1"])
def test_no_server_is_not_ready_in_time(make, nowhere):
    with make(nowhere) as client, pytest.raises(package.Unavailable, match="must be ready within 0.2 seconds"):
        client.wait_until_ready(timeout=0.2)


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("NOT_FOUND", package.ModelNotFound),
        ("FAILED_PRECONDITION", package.SignatureNotFound),
        ("INVALID_ARGUMENT", package.InvalidInput),
        ("UNAVAILABLE", package.Unavailable),
        ("DEADLINE_EXCEEDED", package.DeadlineExceeded),
        ("RESOURCE_EXHAUSTED", package.Overloaded),
        ("UNAUTHENTICATED", package.Unauthenticated),
        ("PERMISSION_DENIED", package.Unauthenticated),
        ("UNIMPLEMENTED", package.Unsupported),
        ("INTERNAL", package.InternalError),
        ("UNKNOWN", package.InternalError),
        ("ABORTED", ServingError),
    ],
)
def test_every_code_has_its_error(make, code, expected):
    channel = make.fake(error=grpc.StatusCode[code], details="on purpose")
    with pytest.raises(ServingError, match=rf"on purpose \({code} from the given channel, model 'default'\)") as caught:
        make(channel=channel, retry=Retry(attempts=1)).status()
    assert type(caught.value) is expected
    assert (caught.value.code, caught.value.details) == (grpc.StatusCode[code], "on purpose")
    assert caught.value.attempts == 1


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"version": 0}, "`version` must be at least 1, or None for the newest. Received: 0"),
        ({"timeout": 0}, "`timeout` must be above 0 seconds. Received: 0"),
        ({"batch_size": 0}, "`batch_size` must be at least 1. Received: 0"),
        ({"window": 0}, "`window` must be at least 1. Received: 0"),
        ({"keepalive": 0}, "`keepalive` must be above 0 seconds. Received: 0"),
        ({"target": "nowhere"}, "`target` must be host:port, or several. Received: 'nowhere'"),
        ({"target": ""}, "`target` must be host:port, or several. Received: ''"),
        ({"target": "a:1,,b:2"}, "`target` must be host:port, or several. Received: 'a:1,,b:2'"),
        ({"target": []}, r"`target` must be host:port, or several. Received: \[\]"),
    ],
)
def test_arguments_of_a_client(make, options, text):
    with pytest.raises(InvalidInput, match=text):
        make(**options)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"top_k": 0}, "`top_k` must be at least 1. Received: 0"),
        ({"on_error": "skip"}, '`on_error` must be "raise" or "return". Received: \'skip\''),
    ],
)
def test_arguments_of_classify(make, png, options, text):
    with pytest.raises(InvalidInput, match=text):
        make(channel=make.fake()).classify(png, **options)


def test_a_request_larger_than_the_limit(make, png):
    with pytest.raises(InvalidInput, match=r"images\[0\]: A request must fit in `max_message_bytes`, 100. Received: "):
        make(channel=make.fake(), max_message_bytes=100).classify([png] * 3)


def test_the_timeout_of_predict(make):
    with pytest.raises(InvalidInput, match="`timeout` must be above 0 seconds. Received: -1"):
        make(channel=make.fake(inputs={"x": [0.0]})).predict({"x": [1.0]}, timeout=-1)


# ---------------------------------------------------------------- the fake


def test_the_fake_ranks_every_image(make, png):
    channel = make.fake([("seven", 0.75), ("one", 0.25)])
    with make(channel=channel, model="digits", version=4) as client:
        assert client.classify([png, png], top_k=1) == [[Classification("seven", 0.75, 0)]] * 2
        client.wait_until_ready(1)
        assert client.metadata().signatures["encoded"].outputs["scores"].shape == (None, 2)
    request = channel.requests[0]
    assert isinstance(request, pb.PredictRequest)
    assert (request.model_spec.name, request.model_spec.version.value) == ("digits", 4)


def test_the_version_is_not_sent_unless_given(make, png):
    channel = make.fake()
    make(channel=channel).classify(png)
    assert channel.requests[0].model_spec.WhichOneof("version_choice") is None


def test_the_fake_answers_predict(make):
    images = np.zeros((1, 8, 8, 1), np.float32)
    channel = make.fake(inputs={"images": images}, outputs={"probabilities": np.float32([[0.5, 0.5]])})
    found = make(channel=channel).predict({"images": np.zeros((1, 8, 8, 1), np.float32)})
    np.testing.assert_array_equal(found["probabilities"], [[0.5, 0.5]])


def test_the_fake_recovers(make, png):
    channel = make.fake(error=grpc.StatusCode.UNAVAILABLE)
    client = make(channel=channel, retry=Retry(first_pause=0.001))
    with pytest.raises(package.Unavailable):
        client.classify(png)
    channel.error = None
    assert client.classify(png)


def test_an_answer_for_another_number_of_images(make, png):
    class OneShort(make.fake):
        def _predict(self, request):
            request.inputs["image_bytes"].tensor_shape.dim[0].size -= 1
            return super()._predict(request)

    with pytest.raises(InternalError, match="must answer with one ranking per image, 2. Received: 1"):
        make(channel=OneShort()).classify([png, png])


def test_the_public_list_is_what_the_package_has():
    assert sorted(package.__all__, key=str.lower) == sorted(
        (*(name for name in vars(package) if name[0].isupper()), "tls"), key=str.lower
    )
