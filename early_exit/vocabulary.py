"""The paper's nouns as constants; standard library only, so that planning stays light."""

PRISTINE = "pristine"
"""The kind of an image without distortion; all others have a file in ``distortions/``."""

GENERALIST, TOTAL, EDGE_ONLY, CLOUD_ONLY = "generalist", "total", "edge-only", "cloud-only"

BASELINES = (GENERALIST, TOTAL, EDGE_ONLY, CLOUD_ONLY)
"""What the paper's system is compared with: one expert for all distortions at once; an expert per distortion
with all layers trained; the deployed system without a cloud; a cloud without an edge."""

ASKING_CLASSIFIER = ("classifier", EDGE_ONLY)
"""Policies that wait for the classifier and take the expert of the kind it sees."""

EXITS = (1, 2, 3, 4)
"""Three branches on the edge and the final exit in the cloud, numbered as in the paper."""

THRESHOLDS = tuple(i / 100 for i in range(101))
"""The 101 values of p_tar that a sweep counts at."""

OUTAGE_THRESHOLDS = tuple(i / 100 for i in range(50, 100, 2))
"""p_tar that outages are computed at: 0.50, 0.52 … 0.98 (docs/paper.md §14)."""

DEADLINES = tuple(milliseconds / 1000 for milliseconds in range(0, 2501, 50))
"""t_tar in seconds that missed deadlines are computed at: 0, 0.05 … 2.5 (docs/paper.md §14)."""

PAYLOADS = ("json", "float32", "float16", "uint8")
"""How an offloaded image's feature map is sent; the first two keep every bit of it."""
