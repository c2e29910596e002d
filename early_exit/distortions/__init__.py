"""One file per distortion, named after its kind; ``early_exit.distortion`` finds them (docs/extending.md)."""
