"""Copies the files of the documentation pages and of the console into the package, from their packages.

They are third-party builds, and are not committed. The wheel has them, and so has an editable install.
"""

import shutil
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

CARRIER = "drf-spectacular-sidecar"
"""Nothing of it is imported: it would want Django."""
INSIDE = "drf_spectacular_sidecar/static/drf_spectacular_sidecar"
TARGET = "src/clinic/entrypoints/web/files"
HTMX = "django-htmx"
"""The same."""
HTMX_INSIDE = "django_htmx/static/django_htmx/htmx-4.min.js"
HTMX_TARGET = "src/clinic/entrypoints/console/files/htmx.js"
FILES = (
    "swagger-ui-dist/LICENSE",
    "swagger-ui-dist/favicon-32x32.png",
    "swagger-ui-dist/swagger-ui-bundle.js",
    "swagger-ui-dist/swagger-ui.css",
    "redoc/LICENSE",
    "redoc/bundles/redoc.standalone.js",
    "redoc/bundles/redoc.standalone.js.LICENSE.txt",
)


class DocumentationFiles(BuildHookInterface[Any]):
    def initialize(self, version: str, build_data: dict[str, Any]) -> None:  # noqa: ARG002 — hatch's signature
        if self.target_name != "wheel":
            return
        source, target = Path(str(distribution(CARRIER).locate_file(INSIDE))), Path(self.root) / TARGET
        shutil.rmtree(target, ignore_errors=True)
        for name in FILES:
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source / name, target / name)
        htmx = Path(self.root) / HTMX_TARGET
        if htmx.parent.is_dir():  # a room that may be left out
            shutil.copyfile(Path(str(distribution(HTMX).locate_file(HTMX_INSIDE))), htmx)
