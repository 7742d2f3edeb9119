"""The page that explains a finished search, and its main pictures.

`page.py` has its sections in their order; each reads the same `Evidence`.
"""
