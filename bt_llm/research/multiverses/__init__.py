"""The multiverse of a verdict: every wording, order, model and calibration that would have done as well."""
