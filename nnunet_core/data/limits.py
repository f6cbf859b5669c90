"""Numbers in files and settings, with limits: far above what a method needs, and far below what
fills a machine.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

#: Voxels along an axis of an image, and of a patch; see also `PATCH_VOXELS`.
Voxels = Annotated[int, Field(ge=1, le=1_000_000)]
PatchSize = Annotated[int, Field(ge=1, le=65_536)]
#: Voxels of a whole patch.
PATCH_VOXELS = 2**30
#: Spacing in mm.
Millimetres = Annotated[float, Field(ge=1e-6, le=1e6, allow_inf_nan=False)]
#: Image channels, classes (labels have at most 16 bits), patches of a batch.
Channels = Annotated[int, Field(ge=1, le=65_536)]
BatchSize = Annotated[int, Field(ge=1, le=65_536)]
#: Features of a layer, layers of a stage, length of a kernel or stride.
Features = Annotated[int, Field(ge=1, le=8_192)]
Layers = Annotated[int, Field(ge=1, le=1_000)]
Kernel = Annotated[int, Field(ge=1, le=1_024)]
#: Resolutions of a network.
STAGES = 32
#: Epochs, batches of an epoch.
Count = Annotated[int, Field(ge=1, le=1_000_000)]
CountFromZero = Annotated[int, Field(ge=0, le=1_000_000)]
