"""Several views of an image: which they are, and the mean of what a network makes of them."""

from fluid.data import evaluation_batches
from fluid.tests.drawn import encode, picture
from image_classification.metrics import Accuracy
from image_classification.reader import Preprocess, evaluation_image, read_list
from image_classification.views import MeanOfViews, ViewSource, mean_logits, views_of

import numpy as np
import pytest

PREPROCESS = Preprocess((3, 8, 10), 12)


def test_views_are_centre_corners_and_mirror_images():
    image = picture(12, 20)
    ten = views_of(image, PREPROCESS, 10)
    assert ten.shape == (10, 8, 10, 3)
    np.testing.assert_array_equal(ten[0], evaluation_image(image, PREPROCESS))
    corners = [image[:8, :10], image[:8, 10:], image[4:, :10], image[4:, 10:]]
    np.testing.assert_array_equal(ten[1:5], corners)
    np.testing.assert_array_equal(ten[5:], ten[:5, :, ::-1])
    for views, expected in ((1, ten[:1]), (2, ten[[0, 5]]), (5, ten[:5])):
        np.testing.assert_array_equal(views_of(image, PREPROCESS, views), expected)


def test_probabilities_are_averaged():
    logits = np.log([[0.9, 0.1], [0.2, 0.8], [0.5, 0.5], [0.3, 0.7]])
    np.testing.assert_allclose(np.exp(mean_logits(logits + 3, 2)), [[0.55, 0.45], [0.4, 0.6]], rtol=1e-6)
    assert mean_logits(logits, 1) is logits


@pytest.mark.parametrize("batch_size", [1, 4, 7, 20])
def test_every_image_counts_once_whatever_the_batch(tmp_path, batch_size):
    for number in range(5):
        (tmp_path / f"{number}.png").write_bytes(encode(picture(12, 20, number)))
    (tmp_path / "list.txt").write_text("".join(f"{number}.png {number % 2}\n" for number in range(5)))
    source = ViewSource(read_list(tmp_path / "list.txt", tmp_path, 2), PREPROCESS, 5)
    metric = MeanOfViews(Accuracy(2), 5)
    answers = np.random.default_rng(0).standard_normal((25, 2))
    with evaluation_batches(source, batch_size) as batches:
        for batch in batches:
            assert batch.feed["image"].shape[1:] == (8, 10, 3)
            metric.add({"logits": answers[batch.indices]}, batch)
    expected = mean_logits(answers, 5)
    seen = metric.accuracy.seen
    assert seen["index"].tolist() == list(range(5)) and seen["label"].tolist() == [0, 1, 0, 1, 0]
    assert seen["predicted"].tolist() == expected.argmax(1).tolist()
