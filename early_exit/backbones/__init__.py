"""One file per backbone, named after it; ``early_exit.backbone`` finds them (docs/extending.md)."""
