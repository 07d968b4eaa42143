"""The `deer` command: `main.py` finds the sub-commands, one module each."""
