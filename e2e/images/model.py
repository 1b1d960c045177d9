"""A model's folder as an image, for a pod's image volume: as a user would ship weights of their own."""

from pathlib import Path

from e2e.cluster import cache
from e2e.images import oci

TINY = "aixcoder/model-tiny:1"


def image(folder: Path, reference: str) -> oci.Image:
    """The files of `folder` at the root of an image without a program."""
    key = cache.key(reference, *(part for file in sorted(folder.iterdir()) for part in (file.name, file.read_bytes())))

    def make(work: Path) -> None:
        oci.write_layer(work / "layer.tar", folder)

    return oci.Image(reference, [oci.blob(cache.entry("model-layers", key, make) / "layer.tar")])
