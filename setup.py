"""A wheel holds what report pages draw with; an editable installation gets it from `make`."""

import runpy
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py
from setuptools.errors import ExecError

BUNDLING = Path(__file__).parent / "plugins/nnunet_builtin/pages/bundling.py"


class BuildPython(build_py):
    """Fetches the bundles first: a wheel without them is not made."""

    def run(self):
        """Build."""
        if not self.editable_mode:
            bundling = runpy.run_path(str(BUNDLING))
            try:
                bundling["fetch"]()
            except bundling["BundlingError"] as error:
                raise ExecError(
                    f"the wheel would lack what report pages draw with. {error}"
                ) from error
        super().run()


setup(cmdclass={"build_py": BuildPython})
