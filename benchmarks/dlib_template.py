"""Where libfacedetection's five landmarks fall in dlib's own chips: the template ``dlib150``.

    python benchmarks/dlib_template.py PHOTOS shape_predictor_5_face_landmarks.dat

Chips are cut by dlib (frontal detector, 5-point predictor, size 150, padding 0.25).
"""

from __future__ import annotations

import argparse
from pathlib import Path

import dlib
import numpy as np

from efquantface.data.detect import detect
from efquantface.data.images import read_image
from efquantface.data.source import find_images


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("photos", type=Path)
    parser.add_argument("predictor", type=Path)
    args = parser.parse_args()
    detector, predictor = (
        dlib.get_frontal_face_detector(),
        dlib.shape_predictor(str(args.predictor)),
    )
    points = []
    for path in find_images(args.photos):
        image = np.pad(read_image(path), ((50, 50), (50, 50), (0, 0)))
        boxes = detector(image, 1)
        if len(boxes) != 1:
            continue
        chip = dlib.get_face_chip(image, predictor(image, boxes[0]), size=150, padding=0.25)
        found = detect(np.pad(chip, ((75, 75), (75, 75), (0, 0)), mode="edge"))
        if len(found) == 1:
            points.append(found[0].landmarks - 75)
    array = np.array(points)
    print(f"{len(array)} faces; mean and standard deviation of each landmark (x, y):")
    for mean, spread in zip(array.mean(axis=0), array.std(axis=0), strict=True):
        print(f"({mean[0]:.2f}, {mean[1]:.2f})  +- ({spread[0]:.2f}, {spread[1]:.2f})")


if __name__ == "__main__":
    main()
