"""Measurements of meta-models: accuracy, calibration, ablations, loss landscapes and the paper's Table 1."""
