"""What an engineer tries after the guide: logistic regression on the pooled last map.

Features of a frozen MobileNet, standardized; scikit-learn chooses the penalty by cross-validation.

    python benchmarks/peers/probe.py --train DIR --test DIR --weights FILE --out FILE
"""

import argparse
import json

import keras
import numpy as np
from sklearn.linear_model import LogisticRegressionCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

parser = argparse.ArgumentParser()
parser.add_argument("--train", required=True)
parser.add_argument("--test", required=True)
parser.add_argument("--base", choices=["mobilenet", "mobilenet_v2"], default="mobilenet")
parser.add_argument("--alpha", type=float, default=0.25)
parser.add_argument("--weights", required=True)
parser.add_argument("--size", type=int, default=224)
parser.add_argument("--out", required=True)
args = parser.parse_args()

size = (args.size, args.size)
build = {"mobilenet": keras.applications.MobileNet, "mobilenet_v2": keras.applications.MobileNetV2}
base = build[args.base](
    input_shape=(*size, 3),
    alpha=args.alpha,
    include_top=False,
    weights=args.weights,
    pooling="avg",
)
inputs = keras.Input((*size, 3))
model = keras.Model(inputs, base(keras.layers.Rescaling(1 / 127.5, offset=-1)(inputs)))


def read(folder: str) -> tuple[np.ndarray, np.ndarray]:
    """Returns features and labels of a folder."""
    images = keras.utils.image_dataset_from_directory(folder, image_size=size, shuffle=False)
    labels = np.concatenate([labels for _, labels in images])
    return model.predict(images, verbose=0), labels


solver = make_pipeline(
    StandardScaler(), LogisticRegressionCV(Cs=np.logspace(-5, 1, 7), max_iter=500)
)
solver.fit(*read(args.train))
with open(args.out, "w") as file:
    json.dump({"test_accuracy": solver.score(*read(args.test))}, file)
