"""The script that a Keras user writes for a search with KerasTuner over dropout and depth.

Each trial builds and compiles the whole model, trains the head, unfreezes, and trains again.

    python benchmarks/peers/search.py --train DIR --validation DIR --weights FILE --out FILE
"""

import argparse
import json
import tempfile

import keras
import keras_tuner
import tensorflow as tf

parser = argparse.ArgumentParser()
parser.add_argument("--train", required=True)
parser.add_argument("--validation", required=True)
parser.add_argument("--weights", required=True)
parser.add_argument("--size", type=int, default=224)
parser.add_argument("--trials", type=int, default=12)
parser.add_argument("--epochs", type=int, nargs=2, default=(8, 4), help="of head and tuning")
parser.add_argument("--seed", type=int, default=0)
parser.add_argument("--out", required=True)
args = parser.parse_args()

keras.utils.set_random_seed(args.seed)
size = (args.size, args.size)
train = keras.utils.image_dataset_from_directory(args.train, image_size=size, seed=args.seed)
validation = keras.utils.image_dataset_from_directory(
    args.validation, image_size=size, shuffle=False
)
num_classes = len(train.class_names)
train = train.prefetch(tf.data.AUTOTUNE)
validation = validation.prefetch(tf.data.AUTOTUNE)
FIRST = [None, "conv_dw_13", "conv_dw_12", "conv_dw_11"]


class Transfer(keras_tuner.HyperModel):
    """A head with dropout on a base of which some of the last units are tuned."""

    def build(self, hp):
        """Returns the model with its base frozen."""
        base = keras.applications.MobileNet(
            input_shape=(*size, 3), alpha=0.25, include_top=False, weights=args.weights, name="base"
        )
        base.trainable = False
        inputs = keras.Input((*size, 3))
        x = keras.applications.mobilenet.preprocess_input(inputs)
        x = base(x, training=False)
        x = keras.layers.GlobalAveragePooling2D()(x)
        x = keras.layers.Dropout(hp.Float("dropout", 0.0, 0.6, step=0.1))(x)
        hp.Int("depth", 0, 3)
        model = keras.Model(inputs, keras.layers.Dense(num_classes, activation="softmax")(x))
        self.compile(model, 3e-3)
        return model

    def compile(self, model, rate):
        """Compiles a model at a rate."""
        model.compile(
            keras.optimizers.Adam(rate),
            loss="sparse_categorical_crossentropy",
            metrics=["accuracy"],
        )

    def fit(self, hp, model, *rest, **kwargs):
        """Trains the head, unfreezes, and trains again."""
        scores = model.fit(*rest, epochs=args.epochs[0], **kwargs).history["val_accuracy"]
        base = model.get_layer("base")
        if (first := FIRST[hp.get("depth")]) is not None:
            base.trainable = True
            names = [layer.name for layer in base.layers]
            for layer in base.layers[: names.index(first)]:
                layer.trainable = False
            for layer in base.layers:
                if isinstance(layer, keras.layers.BatchNormalization):
                    layer.trainable = False
        self.compile(model, 3e-4)
        scores += model.fit(*rest, epochs=args.epochs[1], **kwargs).history["val_accuracy"]
        return {"val_accuracy": max(scores)}


with tempfile.TemporaryDirectory() as folder:
    tuner = keras_tuner.RandomSearch(
        Transfer(),
        objective=keras_tuner.Objective("val_accuracy", "max"),
        max_trials=args.trials,
        seed=args.seed + 1,
        directory=folder,
    )
    tuner.search(train, validation_data=validation, verbose=0)
    best = tuner.oracle.get_best_trials(1)[0].score
with open(args.out, "w") as file:
    json.dump({"val_accuracy": best}, file)
