"""One file a step, ``NNNN_what_it_does.py``; the number is the revision.

The order of the numbers is the order of the steps: the boot reads the newest revision off the file
names, without importing Alembic. Steps use portable ``op`` operations only, and never go back:
what undoes a step is the backup made before it.
"""
