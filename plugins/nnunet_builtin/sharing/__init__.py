"""Trained models that travel: export, install, download, ONNX."""
