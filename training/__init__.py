"""Offline training: the same features as the worker, PyTorch models, ONNX bundles."""
