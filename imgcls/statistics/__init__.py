"""Confidence intervals and paired tests of a classifier's scores, for images alone and for images in groups."""
