"""Measurements of NovaCron, each reproducible with ``python -m bench SUBJECT``.

A bench reports figures and judges none: thresholds belong to who reads them. ``README.md`` here says
how to read each.
"""
