"""Weights of any origin put into a network: translated, compared, reported. Needs Paddle only to translate names."""

from collections.abc import Collection, Sequence
from pathlib import Path

from fluid import checkpoint, weights
from fluid.weights import Bare, Report, compact, registry
from image_classification import caffe_names
from image_classification.classes import labels_of
from image_classification.classifier import FOLDER, Classifier

import numpy as np

AUXILIARY_VARIABLES = ("conv_o[12]_*", "fc_o[12]_*", "out[12]_*")
"""Those of GoogLeNet's auxiliary heads, which only training needs."""


def load_weights(
    state: dict[str, np.ndarray],
    spec: str | Path,
    classifier: Classifier,
    *,
    names: Collection[str] | None = None,
    exclude: tuple[str, ...] = (),
    allow_partial: bool = False,
    replace_head: bool = True,
    source_names: Sequence[str] = (),
) -> tuple[dict[str, np.ndarray], Report]:
    """Put weights into `state`, whatever they are stored as and however their variables are called.

    Args:
        state: holds every variable of the network with its initial value; others are left alone.
        spec: a registered name, or a file or folder of any format that `fluid.weights.read_weights` knows.
        classifier: the network, by whose layers automatic names of 2018 and PyTorch's names are translated.
        names: of the network's variables; without them it is built.
        exclude: parameters to leave at their initial values.
        allow_partial: accept weights that fit only in part.
        replace_head: accept a head for another number of classes, as fine-tuning does.
        source_names: names of the classes of the weights, where they say it. With those of `classifier` they tell which
            columns of the head are taken over; a class that the weights do not know keeps its initial values.

    Raises:
        WeightsError: more differs than was allowed, or the weights cannot be read.
    """
    if names is None:
        from image_classification.network import inference_program

        names = inference_program(classifier).state_names
    own = {name: state[name] for name in names}
    entry = registry.identify(spec, FOLDER)
    arrays = translated(Bare(str(spec), FOLDER, entry).read(names=own), own, classifier)
    if source_names and classifier.class_names and list(source_names) != list(classifier.class_names):
        arrays |= matched_head(arrays, own, classifier.class_names, source_names)
    loaded, report = weights.load_into(
        own,
        arrays,
        head=None if replace_head else (),
        exclude=exclude,
        optional=(entry.optional if entry else ()) + AUXILIARY_VARIABLES,
        allow_partial=allow_partial,
    )
    return {**state, **loaded}, report


def matched_head(
    arrays: dict[str, np.ndarray], own: dict[str, np.ndarray], names: Sequence[str], source_names: Sequence[str]
) -> dict[str, np.ndarray]:
    """The arrays of the head with a column for each of `names`: that of the class of this name, or the initial one."""
    columns = labels_of(names, source_names, {})
    known = [label for label, column in enumerate(columns) if column is not None]
    taken = [column for column in columns if column is not None]
    head = {}
    # Paddle lists what was created last first: the last matrix, and its offsets.
    for name in list(own)[:2]:
        array, stored = own[name], arrays.get(name)
        if stored is not None and stored.shape == (*array.shape[:-1], len(source_names)):
            head[name] = array.copy()
            head[name][..., known] = stored[..., taken]
    return head


def names_of_classes(spec: str | Path) -> Sequence[str]:
    """What weights say of their classes' names; nothing where they do not."""
    entry = registry.identify(spec, FOLDER)
    path = entry.file if entry is not None else Path(spec)
    if path is None or not path.exists():
        return ()
    if checkpoint.is_checkpoint(path):
        facts = checkpoint.read_meta(checkpoint.find_best(path)).extra
    else:
        description = compact.describe(path) if path.is_file() and path.suffix == ".safetensors" else None
        facts = dict(description.facts) if description is not None else {}
    return facts.get("classifier", {}).get("class_names", ())


def translated(arrays: dict[str, np.ndarray], names: Collection[str], classifier: Classifier) -> dict[str, np.ndarray]:
    """The same under the names of the network, where they carry automatic names of 2018, those of PyTorch or Caffe's."""
    if caffe_names.family_of(arrays):
        return caffe_names.from_caffe(classifier.model, names, arrays, classifier.mean, classifier.std)
    if weights.has_automatic_names(arrays):
        from image_classification.models.auto_names import rename_automatic
        from image_classification.network import inference_program

        return rename_automatic(arrays, inference_program(classifier))
    if not arrays.keys() & set(names) and any(name.endswith(".weight") for name in arrays):
        from image_classification.models.torch_names import from_torch

        return from_torch(classifier.model, arrays)
    return arrays
