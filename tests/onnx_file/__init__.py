"""``model.onnx`` in the hands of others: the programs of docs/onnx.md, and other runtimes."""
