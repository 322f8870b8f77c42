"""Runs an exported model on photos: python predict.py model.tflite|model.onnx|openvino PHOTO..."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps


def read(photo: str, settings: dict[str, Any]) -> Any:
    """Returns a photo as the model takes it, float32 (height, width, channels).

    Args:
        photo: Its file.
        settings: What preprocess.json holds.
    """
    image: Any = ImageOps.exif_transpose(Image.open(photo))
    image = image.convert("L" if settings["channels"] == 1 else "RGB")
    height, width = settings["image_size"]
    kind, smooth = settings["resize"], Image.Resampling.BILINEAR
    if kind == "stretch":
        image = image.resize((width, height), smooth)
    elif kind == "crop":
        image = ImageOps.fit(image, (width, height), smooth)
    else:
        color = tuple(settings["pad_color"])
        image = ImageOps.pad(image, (width, height), smooth, color=color)
    return np.asarray(image, np.float32).reshape(height, width, -1)


def run(path: str, images: Any) -> Any:
    """Returns the outputs of the model by name.

    Args:
        path: model.tflite, model.onnx, or the folder openvino.
        images: float32 (n, height, width, channels).
    """
    if path.endswith(".tflite"):
        from ai_edge_litert.interpreter import Interpreter

        runner = Interpreter(path).get_signature_runner()
        (name,) = runner.get_input_details()
        return runner(**{name: images})
    if path.endswith(".onnx"):
        import onnxruntime

        session = onnxruntime.InferenceSession(path)
        names = [output.name for output in session.get_outputs()]
        found = session.run(None, {session.get_inputs()[0].name: images})
        return dict(zip(names, found, strict=True))
    import openvino

    exact = {"INFERENCE_PRECISION_HINT": "f32"}  # else bfloat16, where the processor has it
    results = openvino.Core().compile_model(f"{path}/model.xml", "CPU", exact)([images])
    return {node.any_name if node.names else "output": results[node] for node in results}


if __name__ == "__main__":
    model, *photos = sys.argv[1:]
    preprocess = json.loads(Path(__file__).with_name("preprocess.json").read_text("utf-8"))
    outputs = run(model, np.stack([read(photo, preprocess) for photo in photos]))
    for place, photo in enumerate(photos):
        named = {name: np.round(output[place].astype(float), 6) for name, output in outputs.items()}
        listed = {name: values.tolist() for name, values in named.items()}
        shown = {"output": next(iter(listed.values()))} if len(listed) == 1 else listed
        print(json.dumps({"path": photo, **shown}))
