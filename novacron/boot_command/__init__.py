"""The command ``python -m novacron.boot``: its arguments, and what each of its modes does.

It stands above the composition root, unlike :mod:`novacron.boot`, which knows no component.
"""
