"""Runs a net in Caffe or OpenCV and saves what each layer wrote. Started by compare.py in a process of its own.

    python _reference.py caffe|opencv NET.prototxt NET.caffemodel IN.npz OUT.npz

The interpreter may be an old one, so this file imports nothing of the converter and keeps to Python 3.6. IN.npz has
the input blobs by name. OUT.npz: for Caffe blobs by name, for OpenCV outputs as LAYER:INDEX.
"""

import sys

import numpy as np


def run_caffe(prototxt, caffemodel, feed):
    """The arrays of all blobs by name, by Caffe itself."""
    import caffe

    caffe.set_mode_cpu()
    net = caffe.Net(prototxt, caffemodel, caffe.TEST)
    for name, array in feed.items():
        net.blobs[name].reshape(*array.shape)
        net.blobs[name].data[...] = array
    net.forward()
    return {name: blob.data.copy() for name, blob in net.blobs.items()}


def run_opencv(prototxt, caffemodel, feed):
    """The outputs of all layers, as NAME:INDEX, by OpenCV's importer."""
    import cv2

    if not hasattr(cv2.dnn, "readNetFromCaffe"):
        raise SystemExit("OpenCV " + cv2.__version__ + " has no Caffe importer: install opencv-python-headless<5")
    net = cv2.dnn.readNetFromCaffe(prototxt, caffemodel)
    for name, array in feed.items():
        net.setInput(array, name)
    names = list(net.getLayerNames())
    values = {}
    for name, outputs in zip(names, net.forwardAndRetrieve(names)):
        for index, value in enumerate(outputs):
            values[name + ":" + str(index)] = np.array(value)
    return values


if __name__ == "__main__":
    engine, prototxt_path, caffemodel_path, feed_path, target = sys.argv[1:]
    with np.load(feed_path) as archive:
        arrays = {key: archive[key] for key in archive.files}
    run = {"caffe": run_caffe, "opencv": run_opencv}[engine]
    np.savez(target, **run(prototxt_path, caffemodel_path, arrays))
