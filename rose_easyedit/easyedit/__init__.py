"""EasyEdit's side: RoSE behind `BaseEditor`. Nothing outside this package knows the host."""
