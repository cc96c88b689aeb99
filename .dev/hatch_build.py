"""Make the links of `.dev/relet` where they are missing: an sdist has none."""

from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class DevLinks(BuildHookInterface):
    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if version != "editable":
            return
        namespace = Path(self.root, ".dev", "relet")
        namespace.mkdir(exist_ok=True)
        for package in ("core", "adapters", "backends", "dashboard"):
            link = namespace / package
            if not link.exists():
                link.symlink_to(Path("..", "..", package), target_is_directory=True)
