"""What a meta-model is worth: accuracy, calibration, ablations, the table of the paper."""
