"""ONNX Runtime, without its telemetry."""

import os

# From version 1.29 on, onnxruntime's wheels report every session to their vendor and write a file to the home
# directory, unless this variable is set before the import.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"

import onnxruntime as ort

__all__ = ["open_session", "ort"]


def open_session(data: bytes, *, threads: int = 1) -> ort.InferenceSession:
    """A session for the ONNX model ``data`` on the CPU with ``threads`` threads.

    Raises exceptions of onnxruntime, which have no common base class, if it is none.
    """
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = threads
    options.log_severity_level = 3
    return ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
