"""Stage 2, Isotropic Geometric Alignment: the update that gives the subjects their values."""
