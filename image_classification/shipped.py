"""The Program that comes along with the classifiers, see `fluid.shipped`."""

from functools import partial
from typing import Any

from fluid.shipped import Recipe, models
from image_classification.classifier import FOLDER, Classifier, NetworkFlags
from image_classification.opening import open_classifier


def made_of_evaluation(classifier: Classifier) -> dict[str, Any]:
    """What the Program of images as the reader emits them is built from."""
    facts = classifier.to_facts()
    return {name: facts[name] for name in ("model", "class_dim", "mean", "std")} | {
        "image_shape": facts["preprocess"]["image_shape"]
    }


def recipes() -> list[Recipe]:
    """That of infer.py without flags, and of each other model that comes along."""
    from image_classification.network import evaluation_program

    found = []
    for name in models(FOLDER):
        one = open_classifier(NetworkFlags(pretrained_model=name)).facts
        found.append(Recipe("eval", made_of_evaluation(one), partial(evaluation_program, one)))
    return found
