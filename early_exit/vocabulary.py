"""The paper's nouns that several modules share; standard library only, so that planning stays light."""

from typing import Literal, get_args

PRISTINE = "pristine"
"""The kind of an image without distortion; all others have a file in ``distortions/``."""

EXITS = (1, 2, 3, 4)
"""Three branches on the edge and the final exit in the cloud, numbered as in the paper."""

Payload = Literal["json", "float32", "float16", "uint8"]
"""How an offloaded image's feature map is sent; the first two keep every bit of it."""

PAYLOADS: tuple[str, ...] = get_args(Payload)
