"""A student as an ONNX file, with the whole numbers that its weights were trained as."""
