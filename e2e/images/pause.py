"""The image of the process that holds a pod's namespaces."""

import shutil
from pathlib import Path

from e2e.cluster import cache, programs
from e2e.cluster.layout import PAUSE_IMAGE
from e2e.images import oci


def archive() -> Path:
    """The archive to import, made once for each build of the program."""
    program = programs.kubernetes_programs() / "pause"

    def make(folder: Path) -> None:
        root = folder / "root"
        root.mkdir()
        shutil.copy2(program, root / "pause")
        layer = oci.write_layer(folder / "layer.tar", root)
        # 65535:65535 is what Kubernetes' own pause runs as.
        image = oci.Image(PAUSE_IMAGE, [layer], entrypoint=["/pause"], user="65535:65535")
        oci.write_archive(folder / "image.tar", [image])

    return cache.entry("pause-image", cache.key(program.parent.name, PAUSE_IMAGE), make) / "image.tar"
