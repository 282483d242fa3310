"""Build hook: an editable install gets the .pth file too; everything else is read from the checkout."""

from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

PTH = "zz_lm_eval_steer.pth"


class CustomBuildHook(BuildHookInterface[Any]):
    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        # Without an entry here hatchling copies the whole force-include table, tasks and all, beside the link.
        if version == "editable":
            build_data["force_include_editable"] = {PTH: PTH}
