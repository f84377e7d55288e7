"""One file a system: `RUNNERS`, a list of (does it know this case?, run the case) pairs; `check_case.py` picks the first that matches.

A run function takes the case's folder and its `case.json` and gives the full outputs by name as NumPy arrays; comparing them is not its task.
"""
