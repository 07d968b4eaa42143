"""`python -m deer_ros.cli` is the `deer` command."""

from __future__ import annotations

from deer_ros.cli.main import main

raise SystemExit(main())
