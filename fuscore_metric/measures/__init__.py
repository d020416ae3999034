"""The classic measures of image fusion, which papers print beside each other.

`measure.measure` computes them; `catalogue.MEASURES` says what each is.
"""
