"""`python -m deer_ros.nodes NAME`: starts a node without its installed executable."""

from __future__ import annotations

import sys

from deer_ros.nodes.executable import start

if __name__ == "__main__":
    sys.exit(start(sys.argv.pop(1)))
