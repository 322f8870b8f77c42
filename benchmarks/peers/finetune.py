"""The script that a Keras user writes from the official transfer-learning guide.

A frozen base called with `training=False`, pooling, dropout and a dense layer; `fit`; then the last
layers of the base unfrozen but for BatchNormalization, a low rate, and `fit` again.

    python benchmarks/peers/finetune.py --train DIR --validation DIR --weights FILE --out FILE
"""

import argparse
import json

import keras
import tensorflow as tf

parser = argparse.ArgumentParser()
parser.add_argument("--train", required=True)
parser.add_argument("--validation", required=True)
parser.add_argument("--test", help="a folder that the final model is measured on too")
parser.add_argument(
    "--base", choices=["mobilenet", "mobilenet_v2", "resnet50"], default="mobilenet"
)
parser.add_argument("--alpha", type=float, default=0.25, help="width of a MobileNet")
parser.add_argument("--weights", help="a weight file; random weights without one")
parser.add_argument("--size", type=int, default=224)
parser.add_argument("--epochs", type=int, nargs=2, default=(10, 5), help="of head and tuning")
parser.add_argument("--rates", type=float, nargs=2, default=(3e-3, 3e-4))
parser.add_argument("--dropout", type=float, default=0.2)
parser.add_argument("--unfreeze", default="conv_dw_12", help="first layer that is tuned")
parser.add_argument("--seed", type=int, default=0)
parser.add_argument("--cache", action="store_true", help="keep decoded images in memory")
parser.add_argument("--out", required=True)
args = parser.parse_args()

keras.utils.set_random_seed(args.seed)
size = (args.size, args.size)
train = keras.utils.image_dataset_from_directory(args.train, image_size=size, seed=args.seed)
validation = keras.utils.image_dataset_from_directory(
    args.validation, image_size=size, shuffle=False
)
num_classes = len(train.class_names)
if args.cache:
    train = train.unbatch().cache().shuffle(1000, seed=args.seed).batch(32)
    validation = validation.cache()
train = train.prefetch(tf.data.AUTOTUNE)
validation = validation.prefetch(tf.data.AUTOTUNE)

if args.base == "mobilenet":
    preprocess = keras.applications.mobilenet.preprocess_input
    base = keras.applications.MobileNet(
        input_shape=(*size, 3), alpha=args.alpha, include_top=False, weights=args.weights
    )
elif args.base == "mobilenet_v2":
    preprocess = keras.applications.mobilenet_v2.preprocess_input
    base = keras.applications.MobileNetV2(
        input_shape=(*size, 3), alpha=args.alpha, include_top=False, weights=args.weights
    )
else:
    preprocess = keras.applications.resnet.preprocess_input
    base = keras.applications.ResNet50(
        input_shape=(*size, 3), include_top=False, weights=args.weights
    )
base.trainable = False

inputs = keras.Input((*size, 3))
x = base(preprocess(inputs), training=False)
x = keras.layers.GlobalAveragePooling2D()(x)
x = keras.layers.Dropout(args.dropout)(x)
model = keras.Model(inputs, keras.layers.Dense(num_classes, activation="softmax")(x))

history = {"val_accuracy": []}
for phase in (0, 1):
    if not args.epochs[phase]:
        continue
    if phase == 1:
        base.trainable = True
        names = [layer.name for layer in base.layers]
        for layer in base.layers[: names.index(args.unfreeze)]:
            layer.trainable = False
        for layer in base.layers:
            if isinstance(layer, keras.layers.BatchNormalization):
                layer.trainable = False
    model.compile(
        keras.optimizers.Adam(args.rates[phase]),
        loss="sparse_categorical_crossentropy",
        metrics=["accuracy"],
    )
    fitted = model.fit(train, validation_data=validation, epochs=args.epochs[phase], verbose=0)
    history["val_accuracy"] += fitted.history["val_accuracy"]

results = {"val_accuracy": max(history["val_accuracy"])}
if args.test:
    test = keras.utils.image_dataset_from_directory(args.test, image_size=size, shuffle=False)
    results["test_accuracy"] = model.evaluate(test, verbose=0)[1]
with open(args.out, "w") as file:
    json.dump(results, file)
